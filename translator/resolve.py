"""A `Domain` becomes a `Topology`: every controller and port is named, nothing implicit is left.

For QEMU domains the answer is libvirt's, since stored documents must keep their hardware: which controllers
there are without being asked for, who gets which port in which order, and where hubs are added. For Xen
domains libvirt has no answer; ours is the order of libxl's defaults: a device goes to the first suitable
controller with a free port, paravirtual ones first, and brings a controller along when there is none.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.domain import ControllerElement
from translator.errors import Diagnostic, DocumentError, Source
from translator.layouts import layout_named
from translator.models import (
    CANONICAL,
    DEVICE_KINDS,
    MODELS,
    NAMES,
    ControllerKind,
    Model,
    Ports,
    Speed,
    machine_row,
)
from translator.ports import PortError, PortTree
from translator.topology import (
    PRIMARY,
    Companion,
    Controller,
    Device,
    DeviceModel,
    DomainIdentity,
    Topology,
    port_key,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from translator.domain import DeviceElement, Domain
    from translator.errors import Severity
    from translator.topology import Kind, Layout, Value

# libvirt gives ports kind by kind; inside a kind, in document order. Source: qemuDomainAssignUSBAddresses
# (qemu/qemu_domain_address.c), as observed.
SERVICE_ORDER: tuple[tuple[Kind, ...], ...] = (("hostdev",), ("tablet", "mouse", "keyboard"))


class Resolution(NamedTuple):
    """A topology, and what is to be said about it without refusing it."""

    topology: Topology
    warnings: tuple[Diagnostic, ...]


def resolve(domain: Domain, *, layout: Layout | None = None, usbback: bool = False) -> Resolution:
    """Return what sits where.

    Args:
        layout: where a Xen domain's records live, libxl if None; a QEMU domain has its own.
        usbback: whether the backend domain has the kernel's PVUSB backend, which `auto` then prefers to QEMU's.

    Raises:
        DocumentError: with every fault; their places are the elements', in path and line.
    """
    resolver = _Resolver(domain, (layout or "libxl") if domain.hypervisor == "xen" else "qemu", usbback)
    topology = resolver.topology()
    if resolver.faults:
        raise DocumentError(resolver.faults)
    return Resolution(topology, tuple(resolver.warnings))


class _Slot(msgspec.Struct, kw_only=True):
    """A controller on its way: `index` and `ports` become known as the passes go on."""

    element: ControllerElement | None
    source: Source
    row: Model
    auto: bool
    index: int | None
    ports: int
    asked: int | None = None
    companions: list[Companion] = msgspec.field(default_factory=list)
    tree: PortTree = msgspec.field(default_factory=lambda: PortTree(0))

    @property
    def startport(self) -> int | None:
        """The first port of its master that a companion serves; None for a controller of its own."""
        if self.element is not None and self.element.startport is not None:
            return self.element.startport
        return self.row.startport

    @property
    def number(self) -> int:
        assert self.index is not None, "indexes are given before anything asks for one"
        return self.index

    def speeds(self) -> set[Speed]:
        return {speed for row in (self.row, *(MODELS[one.model] for one in self.companions)) for speed in row.speeds}


class _Resolver:
    def __init__(self, domain: Domain, layout: Layout, usbback: bool) -> None:
        self.domain = domain
        self.layout = layout_named(layout)
        self.usbback = usbback
        self.xen = domain.hypervisor == "xen"
        self.faults: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.slots: list[_Slot] = []  # addressable ones, by index
        self.disabled: _Slot | None = None  # a controller of model none
        self.short_of_hubs = 0  # how many devices wanted a hub that had no place
        self.refused: set[int] = set()  # indexes of controllers at fault: what sits on them is not judged

    def topology(self) -> Topology:
        domain = self.domain
        self.controllers()
        devices = self.devices()
        return Topology(
            domain=DomainIdentity(
                name=domain.name,
                uuid=domain.uuid,
                hypervisor=domain.hypervisor,
                guest=domain.guest,
                arch=domain.arch,
                machine=domain.machine,
                domid=domain.domid,
            ),
            layout=self.layout.name,
            device_models=(DeviceModel(name=PRIMARY, emulator=domain.emulator),),
            controllers=tuple(self.controller(slot) for slot in self.all_slots()),
            devices=tuple(sorted(devices, key=lambda device: (device.controller, port_key(device.port)))),
        )

    # Controllers

    def controllers(self) -> None:
        slots = []
        for element in self.domain.controllers:
            slot = self.slot(element)
            if slot is not None:
                slots.append(slot)
            elif element.index is not None and self.faults:
                self.refused.add(element.index)
        slots = _in_list_order(slots)
        _give_indexes(slots)
        disabled = [slot for slot in slots if slot.row.kind.type == "none"]
        if disabled:
            self.disabled = disabled[0]
            for slot in slots[1:]:
                self.fault(
                    "T320",
                    slot,
                    "a controller of model 'none' says that there is no USB, and here is another",
                    "@model",
                    "remove one of them",
                )
        masters = [slot for slot in slots if slot.startport is None]
        for slot in masters:
            if any(other.index == slot.index for other in self.slots):
                self.fault(
                    "T308",
                    slot,
                    f"there are two controllers with index {slot.index}",
                    "@index",
                    "leave index out to get a free one",
                )
            elif slot.row.kind.type != "none":
                slot.tree = PortTree(slot.ports)
                self.slots.append(slot)
        for slot in slots:
            if slot.startport is not None:
                self.companion(slot)
        default = machine_row(self.domain.machine).default
        if not self.xen and default and 0 not in self.refused and not any(slot.index == 0 for slot in masters):
            self.slots.append(self.implicit(0, MODELS[default], self.domain.source))
        self.slots.sort(key=lambda slot: slot.number)

    def slot(self, element: ControllerElement) -> _Slot | None:
        """Return the controller with its model and ports; None, with a fault, when it cannot be."""
        row = self.row(element)
        if row is None:
            return None
        paravirtual = row.kind.type in ("pv", "qusb")
        if self.domain.hypervisor not in row.hypervisors:
            self.fault(
                "T309",
                element,
                f"model {row.name!r} is paravirtual, and only a Xen domain has a backend for it",
                "@model",
                "name an emulated model, such as 'qemu-xhci'",
            )
        elif self.xen and row.kind.type == "emulated" and self.domain.guest != "hvm":
            self.fault(
                "T309",
                element,
                f"model {row.name!r} is emulated, and a {self.domain.guest.upper()} guest has no emulated USB",
                "@model",
                "name a paravirtual model: 'qusb2' or 'xenusb2'",
            )
        elif paravirtual and element.startport is not None:
            self.fault(
                "T315",
                element,
                f"model {row.name!r} is paravirtual, and only an emulated controller can be a companion",
                "master",
                "remove <master>",
            )
        elif paravirtual and row.kind.version not in self.layout.pv_versions:
            self.fault(
                "T309",
                element,
                f"model {row.name!r} is USB {row.kind.version}, which layout {self.layout.name!r} cannot record",
                "@model",
                f"libxl knows versions {_either(self.layout.pv_versions)} of paravirtual controllers: name 'xenusb2'",
            )
        else:
            return self.sized(element, row)
        return None

    def row(self, element: ControllerElement) -> Model | None:
        if element.model is None:
            if self.xen:
                return self.automatic()
            modelless = machine_row(self.domain.machine).modelless
            return MODELS[modelless] if modelless else None
        if element.model not in NAMES:
            near = get_close_matches(element.model, NAMES, n=1)
            self.fault(
                "T301",
                element,
                f"unknown USB controller model {element.model!r}",
                "@model",
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(MODELS)}",
            )
            return None
        return NAMES[element.model]

    def automatic(self) -> Model:
        """Return what `auto` stands for. Source: libxl__device_usbctrl_setdefault (libxl_usb.c)."""
        if self.domain.guest == "hvm":
            return CANONICAL[ControllerKind("emulated", 2)]
        return CANONICAL[ControllerKind("pv" if self.usbback else "qusb", 2)]

    def sized(self, element: ControllerElement, row: Model) -> _Slot | None:
        limits = self.limits(row)
        asked = element.ports
        if asked is not None and limits.fixed and (asked != limits.default or not self.xen):
            have = f"always have {limits.default} ports" if limits.default else "have no ports of their own"
            self.fault("T307", element, f"controllers of model {row.name!r} {have}", "@ports", "leave ports out")
            return None
        if asked is not None and not limits.least <= asked <= limits.most:
            self.fault(
                "T307",
                element,
                f"a controller of model {row.name!r} cannot have {asked} ports",
                "@ports",
                f"possible: {limits.least} to {limits.most}, {limits.default} when left out",
            )
            return None
        return _Slot(
            element=element,
            source=element.source,
            row=row,
            auto=element.model is None,
            index=element.index,
            ports=limits.default if asked is None else asked,
            asked=asked,
        )

    def limits(self, row: Model) -> Ports:
        return self.layout.pv_ports if row.kind.type in ("pv", "qusb") else row.ports

    def implicit(self, index: int, row: Model, source: Source) -> _Slot:
        ports = self.limits(row).default
        return _Slot(element=None, source=source, row=row, auto=True, index=index, ports=ports, tree=PortTree(ports))

    def companion(self, slot: _Slot) -> None:
        master = next((other for other in self.slots if other.index == slot.index), None)
        if master is None:
            self.fault(
                "T315",
                slot,
                f"{slot.row.name!r} is a companion, and no other controller has index {slot.index} to be its master",
                "@index",
                f"add <controller type='usb' index='{slot.index}' model='ich9-ehci1'/>",
            )
            return
        assert slot.row.driver is not None
        assert slot.startport is not None
        master.companions.append(
            Companion(
                model=slot.row.name,
                driver=slot.row.driver,
                startport=slot.startport,
                pci=str(slot.element.pci) if slot.element and slot.element.pci else None,
                properties=self.multifunction(slot),
                source=slot.source,
            )
        )

    def all_slots(self) -> Iterable[_Slot]:
        return sorted((*self.slots, *filter(None, [self.disabled])), key=lambda slot: slot.number)

    def controller(self, slot: _Slot) -> Controller:
        row, element = slot.row, slot.element
        emulated = row.kind.type == "emulated"
        properties: dict[str, Value] = {}
        if emulated and not row.ports.fixed:
            properties = self.layout.controller_properties(slot.ports, slot.asked)
        return Controller(
            family="usb",
            index=slot.number,
            model=row.name,
            type=row.kind.type,
            version=row.kind.version,
            interface=row.interface,
            ports=slot.ports,
            id=self.layout.controller_id(slot.number, element.alias if element else None) if emulated else None,
            driver=row.driver,
            device_model=PRIMARY if emulated else None,
            backend=(_backend(element) if row.kind.type in ("pv", "qusb") else None),
            companions=tuple(sorted(slot.companions, key=lambda companion: companion.startport)),
            pci=self.pci(slot),
            properties=properties | self.multifunction(slot),
            implicit=element is None,
            source=slot.source,
        )

    def pci(self, slot: _Slot) -> str | None:
        """Return where the controller sits, if that is not left to QEMU."""
        if slot.element is not None and slot.element.pci is not None:
            return str(slot.element.pci)
        on_chipset = self.domain.machine == "pc" or self.domain.machine.startswith("pc-i440fx")
        if not self.xen and on_chipset and slot.index == 0 and slot.row.name == "piix3-uhci":
            # the USB function of the PIIX3 itself; libvirt lets controller 0 sit nowhere else
            return "0000:00:01.2"
        return None

    def multifunction(self, slot: _Slot) -> dict[str, Value]:
        """Return the property that opens a PCI slot for more functions than 0, where others are in use.

        Source: virDomainPCIAddressSetAllMulti (conf/domain_addr.c), as observed.
        """
        pci = slot.element.pci if slot.element else None
        if pci is None or pci.function:
            return {}
        others = (
            other.pci
            for other in self.domain.controllers
            if other.pci and other.pci.function and (other.pci.bus, other.pci.slot) == (pci.bus, pci.slot)
        )
        wanted = any(True for _ in others) if pci.multifunction is None else pci.multifunction
        return {"multifunction": True} if wanted else {}

    # Devices

    def devices(self) -> list[Device]:
        elements = self.domain.devices
        if self.disabled is not None:
            for element in elements:
                self.fault(
                    "T305",
                    element,
                    f"this {element.kind} needs USB, and a controller of model 'none' says that there is none",
                    help="give the controller another model, or remove the device",
                )
            return []
        self.refuse_doubles()
        hubs = [element for element in elements if element.kind == "hub"]
        others = [element for kinds in SERVICE_ORDER for element in elements if element.kind in kinds]
        placed: list[Device] = []
        for element in (*hubs, *others):
            if element.address and element.address.port:
                self.place_fixed(element, placed)
        automatic = () if self.xen else self.automatic_hubs(len(hubs), len(others))
        for element in hubs:
            if not (element.address and element.address.port):
                self.place_free(element, placed)
        placed.extend(automatic)
        for element in others:
            if not (element.address and element.address.port):
                self.place_free(element, placed)
        if self.short_of_hubs and not self.faults:
            self.fault(
                "T310",
                elements[-1],
                f"{self.short_of_hubs} USB devices need one hub more, and no port is free to put it on",
                help="leave a port free, or add a controller",
            )
        return placed

    def refuse_doubles(self) -> None:
        """A host device is given once. Source: virDomainHostdevMatchSubsysUSB (conf/domain_conf.c), as observed."""
        seen: dict[tuple[object, ...], DeviceElement] = {}
        for element in self.domain.devices:
            if element.host is None:
                continue
            host = element.host
            keys: list[tuple[object, ...]] = [("selector", host.selector)]
            if host.vendor is not None:
                keys.append(("ids", host.vendor, host.product))
            first = next((seen[key] for key in keys if key in seen), None)
            if first is not None:
                self.fault(
                    "T311",
                    element,
                    f"host device {host.selector} is passed through twice, here and in line {first.source.line}",
                    "source",
                    "a host device can be given once; two alike are told apart by <address bus=… device=…/>",
                )
            # a device named by its place does not stand for all with its ids
            seen.setdefault(keys[0] if host.device is not None or host.path else keys[-1], element)

    def place_fixed(self, element: DeviceElement, placed: list[Device]) -> None:
        assert element.address is not None
        assert element.address.port is not None
        bus, port = element.address.bus, element.address.port
        if bus is None and self.xen:
            self.fault(
                "T317",
                element,
                f"port {port} is named, and no controller to count it on",
                "address",
                "add bus='…', the index of the controller",
            )
            return
        slot = self.slot_named(element, bus or 0)
        if slot is None:
            return
        if not self.carries(slot, element):
            self.fault("T314", element, _cannot_carry(slot, element), "address/@bus", "name another controller")
            return
        try:
            slot.tree.take(port_key(port), DEVICE_KINDS[element.kind].ports)
        except PortError as error:
            self.port_fault(element, slot, error)
            return
        placed.append(self.device(element, slot, port))

    def place_free(self, element: DeviceElement, placed: list[Device]) -> None:
        bus = element.address.bus if element.address else None
        if element.address and bus is None and not self.xen:
            bus = 0  # libvirt: an address without a bus asks for bus 0
        candidates: Iterable[_Slot]
        if bus is not None:
            slot = self.slot_named(element, bus)
            if slot is None:
                return
            if not self.carries(slot, element):
                self.fault(
                    "T314", element, _cannot_carry(slot, element), "address/@bus", "name an emulated controller"
                )
                return
            candidates = (slot,)
        elif self.xen:
            candidates = self.suitable(element)
        else:
            candidates = self.slots
        for slot in candidates:
            if path := slot.tree.lowest_free():
                slot.tree.take(path, DEVICE_KINDS[element.kind].ports)
                placed.append(self.device(element, slot, ".".join(map(str, path))))
                return
        if self.xen and self.domain.guest != "hvm" and element.kind != "hostdev":
            self.fault(
                "T314",
                element,
                f"a {self.domain.guest.upper()} guest has no emulated USB to put a {element.kind} on",
                help="remove it; such a guest's own keyboard and pointer are paravirtual",
            )
            return
        if self.refused:
            return  # a controller at fault might have had room
        full = ", ".join(f"{slot.number} ({slot.ports} port{'s' if slot.ports != 1 else ''})" for slot in self.slots)
        self.fault(
            "T310",
            element,
            f"no port is free for this {element.kind}" + (f" on controller {bus}" if bus is not None else ""),
            "address" if element.address else None,
            (f"full: {full}; " if full else "") + "add a controller, or give one more ports",
        )

    def suitable(self, element: DeviceElement) -> Iterator[_Slot]:
        """Yield a Xen domain's controllers that serve the device, paravirtual ones first, at last a new one."""
        fits = [slot for slot in self.slots if self.carries(slot, element) and self.runs_on(slot, element)]
        yield from (slot for slot in fits if slot.row.kind.type != "emulated")
        yield from (slot for slot in fits if slot.row.kind.type == "emulated")
        for row in self.on_demand(element):
            slot = self.implicit(max((slot.number for slot in self.slots), default=-1) + 1, row, element.source)
            self.slots.append(slot)
            yield slot

    def on_demand(self, element: DeviceElement) -> list[Model]:
        """Return the model that comes along with a device: auto's, or the emulated one that serves its speed."""
        if self.domain.guest != "hvm":
            return [self.automatic()] if element.kind == "hostdev" else []
        speeds = set(DEVICE_KINDS[element.kind].speeds)
        rows = [CANONICAL[ControllerKind("emulated", version)] for version in (2, 1, 3)]
        return [row for row in rows if not speeds or speeds & set(row.speeds)][:1]

    def carries(self, slot: _Slot, element: DeviceElement) -> bool:
        """Tell whether the controller can have such a device at all.

        A PV one has the host's devices only, and "the host" is the domain that serves it: of another domain's
        devices we know nothing. Source: libxl refuses "adding USB device from non-Dom0 backend".
        """
        return slot.row.kind.type == "emulated" or (element.kind == "hostdev" and _backend(slot.element) == 0)

    def runs_on(self, slot: _Slot, element: DeviceElement) -> bool:
        speeds = DEVICE_KINDS[element.kind].speeds
        return not speeds or bool(slot.speeds() & set(speeds))

    def slot_named(self, element: DeviceElement, bus: int) -> _Slot | None:
        slot = next((slot for slot in self.slots if slot.index == bus), None)
        if slot is None and bus not in self.refused:
            have = ", ".join(str(slot.index) for slot in self.slots) or "none"
            self.fault(
                "T304",
                element,
                f"there is no USB controller with index {bus}",
                "address/@bus",
                f"add <controller type='usb' index='{bus}'/>; the domain's controllers: {have}",
            )
        return slot

    def automatic_hubs(self, hubs: int, others: int) -> Iterator[Device]:
        """Give the hubs that libvirt adds when ports run short, and place each as it is asked for.

        A hub eats a port and brings eight; one port more than needed is kept. Source:
        qemuDomainAssignUSBHubs (qemu/qemu_domain_address.c), as observed.
        """
        need = hubs + others
        have = sum(slot.ports for slot in self.slots) + 8 * hubs
        for ordinal in range(hubs, hubs + -(-(need - have + 1) // 7) if need > have else hubs):
            found = next(((slot, path) for slot in self.slots if (path := slot.tree.lowest_free())), None)
            if found is None:
                self.short_of_hubs = need
                return
            slot, path = found
            slot.tree.take(path, DEVICE_KINDS["hub"].ports)
            yield Device(
                family="usb",
                kind="hub",
                id=self.layout.device_id("hub", ordinal, None, None),
                driver=DEVICE_KINDS["hub"].driver,
                controller=slot.number,
                port=".".join(map(str, path)),
                host=None,
                properties={},
                implicit=True,
                source=self.domain.source,
            )

    def device(self, element: DeviceElement, slot: _Slot, port: str) -> Device:
        emulated = slot.row.kind.type == "emulated"
        if not self.runs_on(slot, element):
            speeds = " or ".join(DEVICE_KINDS[element.kind].speeds)
            self.warnings.append(
                self.diagnostic(
                    "T318",
                    element,
                    f"the guest will not see this {element.kind}: it runs at {speeds} speed, and controller "
                    f"{slot.number} ({slot.row.name}) serves only {', '.join(slot.row.speeds)} speed",
                    "address/@bus" if element.address else None,
                    "put it on a 'piix3-uhci' or 'qemu-xhci' controller, or give the controller companions",
                    severity="warning",
                )
            )
        host = element.host
        return Device(
            family="usb",
            kind=element.kind,
            id=self.layout.device_id(element.kind, element.ordinal, element.alias, host) if emulated else None,
            driver=DEVICE_KINDS[element.kind].driver if emulated else None,
            controller=slot.number,
            port=port,
            host=host,
            properties=self.layout.host_properties(host) if host and emulated else {},
            implicit=False,
            source=element.source,
        )

    # Faults

    def port_fault(self, element: DeviceElement, slot: _Slot, error: PortError) -> None:
        where = f"controller {slot.number} ({slot.row.name})"
        if error.kind == "taken":
            free = slot.tree.lowest_free()
            self.fault(
                "T303",
                element,
                f"port {error.port} of {where} is taken",
                "address/@port",
                f"the lowest free port is {'.'.join(map(str, free))}" if free else "no port of it is free",
            )
        elif error.kind == "hub":
            self.fault(
                "T313",
                element,
                f"there is no hub at port {error.port} of {where}",
                "address/@port",
                f"add <hub type='usb'> with <address type='usb' bus='{slot.number}' port='{error.port}'/>",
            )
        else:
            last = error.port.split(".")[-1]
            parent = error.port.rpartition(".")[0]
            whole = f"the hub at port {parent} of {where}" if parent else where
            self.fault(
                "T302",
                element,
                f"there is no port {last} on {whole}",
                "address/@port",
                f"its ports are 1 to {error.size}" if error.size else "it has no ports",
            )

    def fault(
        self,
        code: str,
        part: _Slot | ControllerElement | DeviceElement,
        message: str,
        at: str | None = None,
        help: str | None = None,
    ) -> None:
        element = part.element if isinstance(part, _Slot) else part
        assert element is not None, "what nobody wrote cannot be at fault"
        self.faults.append(self.diagnostic(code, element, message, at, help))

    def diagnostic(
        self,
        code: str,
        part: ControllerElement | DeviceElement,
        message: str,
        at: str | None,
        help: str | None,
        severity: Severity = "error",
    ) -> Diagnostic:
        """`at` is an XPath below the element; its line and column are looked up when it is to be shown."""
        return Diagnostic(
            code=code,
            severity=severity,
            message=message,
            help=help,
            file=self.domain.file,
            line=part.source.line,
            column=part.source.column,
            element=f"{part.path}/{at}" if at else part.path,
        )


def _in_list_order(slots: Iterable[_Slot]) -> list[_Slot]:
    """Sort as libvirt keeps its list: by index, masters before companions, those without one where they were read.

    Source: virDomainControllerInsertPreAlloced (conf/domain_conf.c), as observed.
    """
    ordered: list[_Slot] = []
    for slot in slots:
        place = len(ordered)
        if slot.index is not None:
            master = slot.startport is None
            for number, other in enumerate(ordered):
                if other.index is not None and (
                    other.index > slot.index or (master and other.index == slot.index and other.startport is not None)
                ):
                    place = number
                    break
        ordered.insert(place, slot)
    return ordered


def _give_indexes(slots: list[_Slot]) -> None:
    """Give each controller without an index the lowest free one; members of an ich9 group share theirs."""
    used = {slot.index for slot in slots if slot.index is not None}
    free = 0
    for number, slot in enumerate(slots):
        if slot.index is not None:
            continue
        before = slots[number - 1] if number else None
        if (
            before is not None
            and all(one.row.name.startswith("ich9-") for one in (slot, before))
            and not any(one.row is slot.row and one.index == before.index for one in slots)
        ):
            slot.index = before.index
            continue
        while free in used:
            free += 1
        slot.index = free
        used.add(free)


def _backend(element: ControllerElement | None) -> int | str:
    """Return the backend's domid, or its name; domain 0 when nobody says."""
    name = element.backend if element else None
    if name is None:
        return 0
    return int(name) if name.isascii() and name.isdigit() else name


def _cannot_carry(slot: _Slot, element: DeviceElement) -> str:
    where = f"controller {slot.number} ({slot.row.name})"
    if element.kind == "hostdev":
        return f"{where} is served by domain {_backend(slot.element)}, whose USB devices are not this host's"
    return f"{where} is paravirtual, and a {element.kind} is emulated"


def _either(words: Iterable[object]) -> str:
    return " and ".join(map(str, words))
