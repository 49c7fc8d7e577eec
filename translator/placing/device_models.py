"""Which device model emulates which controller, and the PCI functions that each of them then has to claim.

Several emulators of one guest share its PCI bus without knowing of each other, so whoever starts them says who
has which function: nothing is left to be chosen. Functions of one PCI slot, companions among them, stay in one
device model, since the guest finds functions 1 to 7 through what function 0 says. The windows of a USB
controller's registers are placed by the guest's firmware, so no ranges of memory or ports follow from it.

Only Xen lets several processes emulate for one guest (ioreq servers, xen/arch/x86/hvm/ioreq.c), and only for an
HVM guest, since the others have no emulated hardware.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from translator.topology import PRIMARY, DeviceModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from translator.document.domain import DeviceModelsElement, Domain, SharePolicy
    from translator.findings import Findings
    from translator.topology import Controller, Device, Family, Topology, Type, Value

    Key = tuple[Family, int]

# The device model of policy `single`; those of `per-controller` are called by family and index.
OTHERS = "controllers"

# The chipset's own slot on the PC that Xen emulates, where a piix3-uhci is function 2, and what may come below it.
_CHIPSET = (0, 0, 1)
_FIRST_SLOT, _LAST_SLOT = 3, 31  # 2 is xen-platform's; libxl and QEMU fill the others from below

# The functions of an ICH9's controllers in the slot that they share.
_ICH9_FUNCTIONS = {"ich9-ehci1": 7, "ich9-uhci1": 0, "ich9-uhci2": 1, "ich9-uhci3": 2}

Slot = tuple[int, int, int]  # segment, bus, slot


def share_out(domain: Domain, topology: Topology, policy: SharePolicy | None, findings: Findings) -> Topology:
    """Return the topology with a device model for each emulated controller, and what each device model claims.

    Args:
        policy: instead of the document's own; None: what the document says, `primary` if nothing.
        findings: gets a fault T335 for each reason why it cannot be done.
    """
    element = domain.device_models
    policy = policy or (element.policy if element else "primary")
    part = element or domain
    if element is not None and element.models and policy != "named":
        message = f"policy {policy!r} takes no list of device models, and here is one"
        findings.fault("T335", element, message, "@policy", "set it to 'named', or remove the list")
    elif policy == "primary":
        pass
    elif domain.hypervisor != "xen" or domain.guest != "hvm":
        guest = f"{domain.guest.upper()} guest of {domain.hypervisor}"
        message = f"policy {policy!r} asks for several device models, which no {guest} can have"
        findings.fault("T335", part, message, help="only an HVM guest of Xen can have several")
    elif policy == "named" and element is None:
        message = "policy 'named' is for device models that the document names, and this one names none"
        findings.fault("T335", domain, message, help="add <tr:device-models> to its <metadata>")
    else:
        return _Sharing(domain, topology, policy, findings).topology()
    return topology


class _Sharing:
    def __init__(self, domain: Domain, topology: Topology, policy: SharePolicy, findings: Findings) -> None:
        self.domain = domain
        self.given = topology
        self.policy = policy
        self.findings = findings
        self.element: DeviceModelsElement | None = domain.device_models if policy == "named" else None

    def topology(self) -> Topology:
        """Return the whole, or what was given when there is a fault."""
        placed = self.placed()
        if placed is None:
            return self.given
        shares = self.named(placed) if self.element else self.by_policy(placed)
        if self.findings.faults:
            return self.given
        names = (one.name for one in self.element.models) if self.element else shares.values()
        emulators = {one.name: one.emulator for one in self.element.models} if self.element else {}
        controllers = tuple(self.shared(one, placed, shares) for one in self.given.controllers)
        owners = {(one.family, one.index): one.device_model or PRIMARY for one in controllers}
        self.check_channels(owners)
        return msgspec.structs.replace(
            self.given,
            device_models=tuple(
                DeviceModel(
                    name=name,
                    emulator=emulators.get(name) or self.domain.emulator,
                    pci=_claims(one for one in controllers if one.device_model == name),
                )
                for name in dict.fromkeys((PRIMARY, *names))
            ),
            controllers=controllers,
            devices=tuple(_with_audio(self.given.devices, owners)),
        )

    # PCI functions

    def placed(self) -> dict[int, Controller] | None:
        """Return the emulated controllers by index, each on a PCI function of its own; None with a fault."""
        emulated = [one for one in self.given.controllers if one.family == "usb" and one.type == "emulated"]
        told = [str(address) for address in self.domain.pci_taken]
        told += [pci for one in emulated for pci in _functions(one) if pci]
        twice = next((address for address, count in Counter(told).items() if count > 1), None)
        if twice is not None:
            self.fault(f"two devices have PCI function {twice}", "give each its own, or leave the addresses out")
            return None
        used = set(told)
        slots = {_slot(address) for address in told}
        free = [(0, 0, number) for number in range(_LAST_SLOT, _FIRST_SLOT - 1, -1) if (0, 0, number) not in slots]
        placed = {}
        for controller in emulated:
            functions = _functions(controller)
            if None in functions:
                slot = next((_slot(pci) for pci in functions if pci), None) or (free.pop(0) if free else None)
                seated = _seated(controller, slot, used) if slot else None
                if seated is None:
                    self.fault(
                        "there is no PCI function left for all controllers", "remove one, or give it an address"
                    )
                    return None
                controller = seated
            placed[controller.index] = controller
        return {index: _opened(controller) for index, controller in placed.items()}

    # Who gets what

    def by_policy(self, placed: Mapping[int, Controller]) -> dict[int, str]:
        """Share the controllers out, slot by slot; what is the chipset's, or beside something else, stays."""
        kept = {_CHIPSET, *(_slot(str(address)) for address in self.domain.pci_taken)}
        shares: dict[int, str] = {}
        by_slot: dict[Slot, str] = {}
        for index, controller in placed.items():
            slot = _slot(controller.pci or "")
            own = OTHERS if self.policy == "single" else f"usb-{index}"
            shares[index] = by_slot.setdefault(slot, PRIMARY if slot in kept else own)
        return shares

    def named(self, placed: Mapping[int, Controller]) -> dict[int, str]:
        """Give each device model the controllers that the document lists for it, the primary one all others."""
        assert self.element is not None
        types: dict[tuple[str, int], Type] = {(one.family, one.index): one.type for one in self.given.controllers}
        shares: dict[int, str] = {}
        names: set[str] = set()
        for model in self.element.models:
            if model.name in names:
                self.findings.fault("T335", model, f"there are two device models called {model.name!r}", "@name")
            names.add(model.name)
            if not model.controllers and model.name != PRIMARY:
                message = f"device model {model.name!r} has nothing to emulate"
                self.findings.fault("T335", model, message, help="list a <tr:controller>, or remove it")
            for one in model.controllers:
                what = f"{one.family} controller {one.index}"
                type = types.get((one.family, one.index))
                if type is None or one.family != "usb":
                    known = ", ".join(str(index) for index in placed) or "none"
                    message = f"there is no {what} that a device model could emulate"
                    self.findings.fault("T335", one, message, help=f"emulated usb controllers here: {known}")
                elif type != "emulated":
                    message = f"{what} is paravirtual, and no device model's to emulate"
                    self.findings.fault("T335", one, message, help="leave it out: it has a backend of its own")
                elif one.index in shares:
                    message = f"{what} is listed for {shares[one.index]!r} and for {model.name!r}"
                    self.findings.fault("T335", one, message, help="one device model emulates a controller")
                else:
                    shares[one.index] = model.name
        shares = {index: shares.get(index, PRIMARY) for index in placed}
        if not self.findings.faults:
            self.check_slots(placed, shares)
        return shares

    def check_slots(self, placed: Mapping[int, Controller], shares: Mapping[int, str]) -> None:
        """Refuse to tear the functions of one slot apart: they are one device to whoever looks for it."""
        owners = {_CHIPSET: PRIMARY} | {_slot(str(address)): PRIMARY for address in self.domain.pci_taken}
        for index, controller in placed.items():
            slot = _slot(controller.pci or "")
            owner = owners.setdefault(slot, shares[index])
            if owner != shares[index]:
                self.fault(
                    f"usb controller {index} is for device model {shares[index]!r}, and the PCI slot {slot[2]:#x} on "
                    f"bus {slot[1]} that it sits in for {owner!r}",
                    "functions of one slot belong to one device model: leave the address out, or list it there",
                )

    def shared(
        self, controller: Controller, placed: Mapping[int, Controller], shares: Mapping[int, str]
    ) -> Controller:
        if controller.family == "usb" and controller.index in placed:
            return msgspec.structs.replace(placed[controller.index], device_model=shares[controller.index])
        if controller.place is not None:
            return msgspec.structs.replace(controller, device_model=shares[controller.place.controller])
        return controller

    def check_channels(self, owners: Mapping[Key, str]) -> None:
        """Refuse a channel to SPICE in a device model that has no SPICE server."""
        elements = {one.source: one for one in self.domain.devices}
        for device in self.given.devices:
            owner = owners[device.family, device.controller]
            if owner == PRIMARY or device.source not in elements:
                continue
            if any(_of_spice(backend.arguments) for backend in device.backends):
                self.findings.fault(
                    "T335",
                    elements[device.source],
                    f"this {device.kind} talks to SPICE, whose server is in device model {PRIMARY!r}, and controller "
                    f"{device.controller} is for {owner!r}",
                    help="put it on a controller of the primary device model",
                )

    def fault(self, message: str, help: str) -> None:
        self.findings.fault("T335", self.element or self.domain, message, help=help)


def _functions(controller: Controller) -> list[str | None]:
    """Return the PCI functions of a controller and its companions, None where QEMU chooses."""
    return [controller.pci, *(companion.pci for companion in controller.companions)]


def _slot(address: str) -> Slot:
    """Return segment, bus and slot of `DDDD:BB:SS.F`."""
    segment, bus, rest = address.split(":")
    return int(segment, 16), int(bus, 16), int(rest.partition(".")[0], 16)


def _seated(controller: Controller, slot: Slot, used: set[str]) -> Controller | None:
    """Give a controller and its companions functions of the slot, those of the real ones where they are free.

    None: there are not enough. `used` are the functions that are not free, and gets those that are given.
    """

    def seat(model: str) -> str | None:
        own = _ICH9_FUNCTIONS.get(model, 0) if controller.companions else 0
        functions = ("{:04x}:{:02x}:{:02x}.{:x}".format(*slot, function) for function in (own, *range(8)))
        pci = next((one for one in functions if one not in used), None)
        used.add(pci or "")
        return pci

    pci = controller.pci or seat(controller.model)
    companions = tuple(msgspec.structs.replace(one, pci=one.pci or seat(one.model)) for one in controller.companions)
    seated = msgspec.structs.replace(controller, pci=pci, companions=companions)
    return None if None in _functions(seated) else seated


def _opened(controller: Controller) -> Controller:
    """Say of function 0 that there are others in its slot, where the document does not."""
    if all(pci is not None and pci.endswith(".0") for pci in _functions(controller)):
        return controller

    def opened(pci: str | None, properties: dict[str, Value]) -> dict[str, Value]:
        return {"multifunction": True} | properties if (pci or "").endswith(".0") else properties

    return msgspec.structs.replace(
        controller,
        properties=opened(controller.pci, controller.properties),
        companions=tuple(
            msgspec.structs.replace(one, properties=opened(one.pci, one.properties)) for one in controller.companions
        ),
    )


def _claims(controllers: Iterable[Controller]) -> tuple[dict[str, int], ...]:
    """Return the PCI functions of the controllers and their companions, in order."""
    functions = sorted(
        (*_slot(pci), int(pci[-1], 16)) for controller in controllers for pci in _functions(controller) if pci
    )
    return tuple(dict(zip(("segment", "bus", "slot", "function"), one, strict=True)) for one in functions)


def _with_audio(devices: Iterable[Device], owners: Mapping[Key, str]) -> Iterator[Device]:
    """Give each device model the audio backends that its devices play on; they are made once in each process."""
    known = {
        str(backend.arguments["id"]): backend
        for device in devices
        for backend in device.backends
        if backend.kind == "audiodev"
    }
    given: set[tuple[str, str]] = set()
    for device in devices:
        name = device.properties.get("audiodev")
        if not isinstance(name, str) or name not in known:
            yield device
            continue
        owner = owners[device.family, device.controller]
        others = tuple(backend for backend in device.backends if backend.kind != "audiodev")
        first = () if (owner, name) in given else (known[name],)
        given.add((owner, name))
        yield msgspec.structs.replace(device, backends=(*first, *others))


def _of_spice(arguments: Mapping[str, Value]) -> bool:
    backend = arguments.get("backend")
    return isinstance(backend, dict) and backend.get("type") in ("spicevmc", "spiceport")
