"""Which device sits on which port, and what it is there.

For QEMU domains the answer is libvirt's: fixed ports first, then hubs, then kind by kind in its order of service,
and hubs added where ports run short. For Xen domains a device goes to the first suitable controller with a free
port. Source: qemuDomainAssignUSBAddresses (qemu/qemu_domain_address.c), as observed.
"""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.document.domain import DeviceElement
from translator.families.usb.seated import Seat, Seated, serves, word_of
from translator.placing.list_order import in_list_order
from translator.placing.ports import PortError
from translator.registry.models import DEVICE_KINDS
from translator.topology import port_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from translator.document.domain import Domain
    from translator.families.usb.slots import Slot
    from translator.findings import Findings
    from translator.layouts import Layout
    from translator.placing.peripherals import Peripherals
    from translator.topology import Controller, Device, ElementKind, Kind

INPUTS: tuple[Kind, ...] = ("tablet", "mouse", "keyboard")
# Who is given a port when; libvirt does not count nets, which have to name theirs.
SERVICE: tuple[tuple[ElementKind, ...], ...] = (
    ("hostdev",),
    ("disk",),
    ("ccid",),
    INPUTS,
    ("serial",),
    ("sound",),
    ("redirdev",),
    ("net",),
)
# Who stands where on QEMU's command line, behind the hubs and the ccid controllers.
EMISSION: tuple[tuple[Kind, ...], ...] = (
    ("disk",),
    ("smartcard",),
    ("serial",),
    INPUTS,
    ("sound",),
    ("redirdev",),
    ("hostdev",),
    ("net",),
)
# What a controller of model none at another index than 0 does not keep libvirt from accepting.
_NEVER_WITHOUT_USB = ("hub", "hostdev", *INPUTS)


class Placed(NamedTuple):
    """The ccid controllers and all devices, in the order in which QEMU is told of them."""

    readers: tuple[Controller, ...]
    devices: tuple[Device, ...]


class Placement:
    """One domain's devices on their way to a port.

    Args:
        slots: the addressable controllers, by index.
        refused: indexes of controllers at fault: what sits on them is not judged.
        disabled: whether there is a controller of model none.
        bring: gives a Xen domain one more controller for a device, if there is one that serves it.
    """

    def __init__(
        self,
        domain: Domain,
        layout: Layout,
        findings: Findings,
        peripherals: Peripherals,
        *,
        slots: Sequence[Slot],
        refused: set[int],
        disabled: bool,
        bring: Callable[[DeviceElement], Slot | None],
    ) -> None:
        self.domain = domain
        self.layout = layout
        self.findings = findings
        self.xen = domain.hypervisor == "xen"
        self.slots = list(slots)
        self.by_index = {slot.number: slot for slot in slots}
        self.refused = refused
        self.disabled = disabled
        self.bring = bring
        self.peripherals = peripherals
        self.seats: dict[str, Seat] = {}
        self.open: dict[ElementKind, deque[Slot]] = {}
        self.implied: str | None = None  # the path of the smartcard that brings a ccid controller along
        self.short_of_hubs = 0  # how many devices wanted a hub that had no place

    def place(self) -> Placed:
        """Return who sits where; what cannot be goes to the findings."""
        elements = self.elements()
        if self.disabled and not self.usable(elements):
            return Placed((), ())
        by_kind: dict[ElementKind, list[DeviceElement]] = {}
        for element in elements:
            by_kind.setdefault(element.kind, []).append(element)
        by_kind.get("disk", []).sort(key=lambda element: self.peripherals.place[element.disk or 0])
        hubs = by_kind.get("hub", [])
        others = [element for kinds in SERVICE for element in _of(by_kind, elements, kinds)]
        for element in (*hubs, *others):
            if element.address and element.address.port:
                self.fixed(element)
        needing = sum(element.kind != "net" for element in others)
        for element in hubs:
            if not (element.address and element.address.port):
                self.free(element)
        automatic = [] if self.xen else list(self.automatic_hubs(len(hubs), needing))
        for element in others:
            if not (element.address and element.address.port):
                self.free(element)
        if self.short_of_hubs and not self.findings.faults:
            self.findings.fault(
                "T310",
                others[-1] if others else hubs[-1],
                f"{self.short_of_hubs} USB devices need one hub more, and no port is free to put it on",
                help="leave a port free, or add a controller",
            )
        if self.findings.faults:
            return Placed((), ())
        seated = Seated(self.domain, self.findings, self.peripherals, self.seats)
        devices = [seated.device(element) for element in self.parents_first(hubs)]
        devices += [seated.device(element, implicit=True) for element in automatic]
        readers = {
            element.ordinal: seated.reader(element, implicit=element.path == self.implied)
            for element in by_kind.get("ccid", [])
        }
        for element in (one for kinds in EMISSION for one in _of(by_kind, elements, kinds)):
            devices.append(seated.card(element) if element.kind == "smartcard" else seated.device(element))
        seated.check(devices, by_kind)
        return Placed(tuple(readers.values()), tuple(devices))

    def elements(self) -> list[DeviceElement]:
        """Return the document's devices, its ccid controllers in order and with an index, and the implied one."""
        readers = in_list_order(
            [element for element in self.domain.devices_of("usb") if element.kind == "ccid"],
            lambda element: (element.index, False),
        )
        others = [element for element in self.domain.devices_of("usb") if element.kind != "ccid"]
        used = {element.index for element in readers}
        unused = (number for number in count() if number not in used)
        indexed, seen = [], set()
        for reader in readers:
            index = next(unused) if reader.index is None else reader.index
            if index in seen:
                self.findings.fault(
                    "T308",
                    reader,
                    f"there are two ccid controllers with index {index}",
                    "@index",
                    "leave index out to get a free one",
                )
            seen.add(index)
            indexed.append(msgspec.structs.replace(reader, ordinal=index))
        card = next((element for element in others if element.kind == "smartcard"), None)
        if card is not None and 0 not in seen:
            self.implied = card.path  # a card itself sits on no port
            indexed.append(msgspec.structs.replace(card, kind="ccid", ordinal=0, alias=None, chardev=None))
        return [*others, *indexed]

    def usable(self, elements: Iterable[DeviceElement]) -> bool:
        """Refuse what USB is off for; tell whether some controller is left all the same.

        libvirt adds its controller 0 beside a `none` at another index, and then lets some kinds sit there.
        """
        off = [element for element in elements if not self.slots or element.kind in _NEVER_WITHOUT_USB]
        for element in off:
            if element.kind != "ccid":
                self.findings.fault(
                    "T305",
                    element,
                    f"this {word_of(element)} needs USB, and a controller of model 'none' says that there is none",
                    help="give the controller another model, or remove the device",
                )
        if off and not self.findings.faults:
            self.findings.fault("T305", off[0], "this ccid controller needs USB, and there is none")
        return not off

    # Ports

    def fixed(self, element: DeviceElement) -> None:
        assert element.address is not None
        assert element.address.port is not None
        bus, port = element.address.bus, element.address.port
        if bus is None and self.xen:
            self.findings.fault(
                "T317",
                element,
                f"port {port} is named, and no controller to count it on",
                "address",
                "add bus='…', the index of the controller",
            )
            return
        slot = self.named(element, bus or 0)
        if slot is None:
            return
        try:
            slot.tree.take(port_key(port), DEVICE_KINDS[element.kind].ports)
        except PortError as error:
            self.port_fault(element, slot, error)
            return
        self.seats[element.path] = Seat(slot, port)

    def free(self, element: DeviceElement) -> None:
        bus = element.address.bus if element.address else None
        if element.address and bus is None and not self.xen:
            bus = 0  # libvirt: an address without a bus asks for bus 0
        if bus is not None:
            slot = self.named(element, bus)
            if slot is None:
                return
            path = slot.tree.lowest_free()
        else:
            slot, path = self.first_open(element)
        if slot is not None and path is not None:
            slot.tree.take(path, DEVICE_KINDS[element.kind].ports)
            self.seats[element.path] = Seat(slot, ".".join(map(str, path)))
            return
        if self.xen and self.domain.guest != "hvm" and element.kind != "hostdev":
            self.findings.fault(
                "T314",
                element,
                f"a {self.domain.guest.upper()} guest has no emulated USB to put a {word_of(element)} on",
                help="remove it; such a guest's own keyboard and pointer are paravirtual",
            )
            return
        if self.refused:
            return  # a controller at fault might have had room
        full = ", ".join(f"{one.number} ({one.ports} port{'s' if one.ports != 1 else ''})" for one in self.slots[:20])
        self.findings.fault(
            "T310",
            element,
            f"no port is free for this {word_of(element)}" + (f" on controller {bus}" if bus is not None else ""),
            "address" if element.address else None,
            (f"full: {full}; " if full else "") + "add a controller, or give one more ports",
        )

    def first_open(self, element: DeviceElement) -> tuple[Slot | None, tuple[int, ...] | None]:
        """Return the first suitable controller with a free port, and that port.

        A controller that has become full stays full: a hub would need a port of it.
        """
        if element.kind not in self.open:
            self.open[element.kind] = deque(self.suitable(element.kind))
        queue = self.open[element.kind]
        while queue:
            path = queue[0].tree.lowest_free()
            if path is not None:
                return queue[0], path
            queue.popleft()
        brought = self.bring(element) if self.xen else None
        if brought is None:
            return None, None
        self.slots.append(brought)
        self.by_index[brought.number] = brought
        for kind, waiting in self.open.items():
            if self.suits(brought, kind):
                waiting.append(brought)  # what is brought to an HVM guest is emulated, and so comes last
        return brought, brought.tree.lowest_free()

    def suitable(self, kind: ElementKind) -> Iterable[Slot]:
        """Return the controllers that may serve a device, a Xen domain's paravirtual ones first."""
        if not self.xen:
            return self.slots
        fits = [slot for slot in self.slots if self.suits(slot, kind)]
        return sorted(fits, key=lambda slot: slot.row.kind.type == "emulated")

    def suits(self, slot: Slot, kind: ElementKind) -> bool:
        return self.carries(slot, kind) and serves(kind, slot.speeds())

    def carries(self, slot: Slot, kind: ElementKind) -> bool:
        """Tell whether the controller can have such a device at all.

        A PV one has the host's devices only, and "the host" is the domain that serves it: of another domain's
        devices we know nothing. Source: libxl refuses "adding USB device from non-Dom0 backend".
        """
        return slot.row.kind.type == "emulated" or (kind == "hostdev" and slot.backend == 0)

    def named(self, element: DeviceElement, bus: int) -> Slot | None:
        slot = self.by_index.get(bus)
        if slot is None and bus not in self.refused:
            have = ", ".join(str(slot.index) for slot in self.slots[:20]) or "none"
            self.findings.fault(
                "T304",
                element,
                f"there is no USB controller with index {bus}",
                "address/@bus",
                f"add <controller type='usb' index='{bus}'/>; the domain's controllers: {have}",
            )
        elif slot is not None and not self.carries(slot, element.kind):
            self.findings.fault(
                "T314",
                element,
                _cannot_carry(slot, element),
                "address/@bus",
                "name another controller",
            )
            return None
        return slot

    def port_fault(self, element: DeviceElement, slot: Slot, error: PortError) -> None:
        where = f"controller {slot.number} ({slot.row.name})"
        if error.kind == "taken":
            free = slot.tree.lowest_free()
            self.findings.fault(
                "T303",
                element,
                f"port {error.port} of {where} is taken",
                "address/@port",
                f"the lowest free port is {'.'.join(map(str, free))}" if free else "no port of it is free",
            )
        elif error.kind == "hub":
            self.findings.fault(
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
            self.findings.fault(
                "T302",
                element,
                f"there is no port {last} on {whole}",
                "address/@port",
                f"its ports are 1 to {error.size}" if error.size else "it has no ports",
            )

    def automatic_hubs(self, hubs: int, others: int) -> Iterator[DeviceElement]:
        """Give the hubs that libvirt adds when ports run short.

        A hub eats a port and brings eight; one port more than needed is kept. Source:
        qemuDomainAssignUSBHubs (qemu/qemu_domain_address.c), as observed.
        """
        need = hubs + others
        have = sum(slot.ports for slot in self.slots) + DEVICE_KINDS["hub"].ports * hubs
        for ordinal in range(hubs, hubs + -(-(need - have + 1) // 7) if need > have else hubs):
            element = DeviceElement(
                path=f"{self.domain.path}/hub[{ordinal}]",
                source=self.domain.source,
                kind="hub",
                ordinal=ordinal,
                address=None,
                alias=None,
            )
            slot, path = self.first_open(element)
            if slot is None or path is None:
                self.short_of_hubs = need
                return
            slot.tree.take(path, DEVICE_KINDS["hub"].ports)
            self.seats[element.path] = Seat(slot, ".".join(map(str, path)))
            yield element

    def parents_first(self, hubs: Sequence[DeviceElement]) -> Iterator[DeviceElement]:
        """Give the hubs in the document's order, but each behind the one that it hangs on."""
        at = {(seat.slot.number, seat.port): hub for hub in hubs if (seat := self.seats.get(hub.path))}
        given: set[str] = set()
        for hub in hubs:
            line = [hub]
            slot, port = self.seats[hub.path]
            while (port := port.rpartition(".")[0]) and at[slot.number, port].path not in given:
                line.append(at[slot.number, port])
            if len(line) > 1:
                self.findings.warn(
                    "T332",
                    hub,
                    f"this hub is given port {self.seats[hub.path].port} of controller {slot.number}, below a hub "
                    "that comes after it in the document, and libvirt does not start such a domain",
                    help="move it behind that hub, or give it a port",
                )
            for one in reversed(line):
                if one.path not in given:
                    given.add(one.path)
                    yield one


def _of(
    by_kind: Mapping[ElementKind, list[DeviceElement]],
    elements: Iterable[DeviceElement],
    kinds: Sequence[ElementKind],
) -> Iterable[DeviceElement]:
    """Return the elements of some kinds, in order."""
    if len(kinds) == 1:
        return by_kind.get(kinds[0], [])
    return [element for element in elements if element.kind in kinds]


def _cannot_carry(slot: Slot, element: DeviceElement) -> str:
    where = f"controller {slot.number} ({slot.row.name})"
    if element.kind == "hostdev":
        return f"{where} is served by domain {slot.backend}, whose USB devices are not this host's"
    return f"{where} is paravirtual, and a {word_of(element)} is emulated"
