"""The USB controllers of a domain: which there are, unasked ones and companions included, and their ports.

For Xen domains libvirt has no answer; ours is the order of libxl's defaults: a device goes to the first suitable
controller with a free port, paravirtual ones first, and brings a controller along when there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.families import Placed
from translator.families.usb.pci import claims, multifunction
from translator.families.usb.placement import Placement
from translator.families.usb.slots import Slot, companion_ports
from translator.findings import LONGEST_WORD
from translator.placing.list_order import in_list_order
from translator.placing.pci import open_slots
from translator.placing.ports import PortTree
from translator.registry.models import MODELS, NAMES, automatic, brought_along, machine_row
from translator.topology import PARAVIRTUAL_TYPES, PRIMARY, Companion, Controller

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from translator.document.domain import ControllerElement, DeviceElement, PciDemand
    from translator.errors import Source
    from translator.families import Context, PciPlaces
    from translator.registry.models import Ports, UsbModel
    from translator.topology import Value


class UsbPart:
    """See `translator.families.Part`."""

    def __init__(self, context: Context) -> None:
        self.domain = context.domain
        self.layout = context.layout
        self.usbback = context.usbback
        self.xen = context.xen
        self.findings = context.findings
        self.board = context.board
        self.peripherals = context.peripherals
        self.slots: list[Slot] = []  # all but companions, in the order in which QEMU is told of them
        self.disabled: Slot | None = None  # a controller of model none
        self.refused: set[int] = set()  # indexes of controllers at fault: what sits on them is not judged
        self.listed: list[Slot] = []  # the document's, in libvirt's order
        self.brought: list[Slot] = []  # the one that a machine has without being asked
        self.gather()

    def claims(self) -> Sequence[PciDemand]:
        """See `translator.families.Part`."""
        if self.board is None:
            return ()
        return claims(self.listed, 0, self.board, self.findings)

    def unasked(self) -> Sequence[PciDemand]:
        """See `translator.families.Part`."""
        if self.board is None:
            return ()
        return claims(self.brought, len(self.listed), self.board, self.findings)

    def settle(self, places: PciPlaces) -> Placed:
        """See `translator.families.Part`."""
        if self.board is None:
            for slot, address in zip(self.listed, open_slots([slot.pci for slot in self.listed]), strict=True):
                slot.pci = address
        elif places.addresses is not None:
            for number, slot in enumerate((*self.listed, *self.brought)):
                slot.pci = places.addresses.get(("usb", number), slot.pci)
        self.attend()
        placed = Placement(
            self.domain,
            self.layout,
            self.findings,
            self.peripherals,
            slots=sorted(self.slots, key=lambda slot: slot.number),
            refused=self.refused,
            disabled=self.disabled is not None,
            bring=self.bring,
        ).place()
        return Placed(
            controllers=(
                *(self.controller(slot) for slot in filter(None, [self.disabled])),
                *(self.controller(slot) for slot in self.slots),
                *placed.readers,
            ),
            devices=placed.devices,
        )

    # Controllers

    def gather(self) -> None:
        """Give every controller its model and its index, and see which comes along."""
        slots = []
        for element in self.domain.controllers_of("usb"):
            slot = self.slot(element)
            if slot is not None:
                slots.append(slot)
            elif element.index is not None and self.findings.faults:
                self.refused.add(element.index)
        slots = in_list_order(slots, lambda slot: (slot.index, slot.startport is not None))
        _give_indexes(slots)
        disabled = [slot for slot in slots if slot.row.kind.type == "none"]
        if disabled:
            self.disabled = disabled[0]
            for slot in slots[1:]:
                self.findings.fault(
                    "T320",
                    slot,
                    "a controller of model 'none' says that there is no USB, and here is another",
                    "@model",
                    "remove one of them",
                )
        taken: set[int | None] = set()
        for slot in slots:
            companion = slot.startport is not None
            if companion and not slot.ports:
                continue
            if slot.index in taken:
                self.findings.fault(
                    "T308",
                    slot,
                    f"there are two controllers with index {slot.index}",
                    "@index",
                    "leave index out to get a free one",
                )
            elif slot.row.kind.type != "none" and not companion:
                self.slots.append(slot)
            taken.add(slot.index)
        default = machine_row(self.domain.machine).default
        unasked = []
        if not self.xen and default and 0 not in self.refused and not any(slot.index == 0 for slot in slots):
            unasked.append(self.implicit(0, MODELS[default], self.domain.source))
        self.listed, self.brought = slots, unasked

    def attend(self) -> None:
        """Give companions to their masters."""
        masters = {slot.number: slot for slot in self.slots}
        told: set[int] = set()
        last = None
        for slot in self.listed:
            if slot.startport is None:
                last = slot.number
                told.add(last)
            elif slot.number in masters:
                # QEMU needs the master first, wherever libvirt has it
                after = last if slot.number in told and last != slot.number else None
                self.companion(slot, masters[slot.number], after)
            else:
                self.orphan(slot)
        self.slots += self.brought
        if self.xen:
            self.slots.sort(key=lambda slot: slot.number)

    def slot(self, element: ControllerElement) -> Slot | None:
        """Return the controller with its model and ports; None, with a fault, when it cannot be."""
        row = self.row(element)
        if row is None:
            return None
        paravirtual = row.kind.type in PARAVIRTUAL_TYPES
        if self.domain.hypervisor not in row.hypervisors:
            self.findings.fault(
                "T309",
                element,
                f"model {row.name!r} is paravirtual, and only a Xen domain has a backend for it",
                "@model",
                "name an emulated model, such as 'qemu-xhci'",
            )
        elif self.xen and row.kind.type == "emulated" and self.domain.guest != "hvm":
            self.findings.fault(
                "T309",
                element,
                f"model {row.name!r} is emulated, and a {self.domain.guest.upper()} guest has no emulated USB",
                "@model",
                "name a paravirtual model: 'qusb2' or 'xenusb2'",
            )
        elif row.arches and self.domain.arch not in row.arches:
            self.findings.fault(
                "T309",
                element,
                f"model {row.name!r} does not exist in QEMU for {self.domain.arch}",
                "@model",
                "name another emulated model, such as 'piix3-uhci'",
            )
        elif paravirtual and element.startport is not None:
            self.findings.fault(
                "T315",
                element,
                f"model {row.name!r} is paravirtual, and only an emulated controller can be a companion",
                "master",
                "remove <master>",
            )
        elif paravirtual and row.kind.version not in self.layout.pv_versions:
            self.findings.fault(
                "T309",
                element,
                f"model {row.name!r} is USB {row.kind.version}, which layout {self.layout.name!r} cannot record",
                "@model",
                f"libxl knows versions {_either(self.layout.pv_versions)} of paravirtual controllers: "
                "name 'xenusb2', or take layout 'rfc7'",
            )
        else:
            return self.sized(element, row)
        return None

    def row(self, element: ControllerElement) -> UsbModel | None:
        if element.model is None:
            if self.xen:
                return automatic(self.domain.guest, self.usbback)
            modelless = machine_row(self.domain.machine).modelless
            return MODELS[modelless] if modelless else None
        if element.model not in NAMES:
            word = element.model if len(element.model) <= LONGEST_WORD else element.model[:LONGEST_WORD] + "…"
            from difflib import get_close_matches

            near = get_close_matches(word, NAMES, n=1)
            self.findings.fault(
                "T301",
                element,
                f"unknown USB controller model {word!r}",
                "@model",
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(MODELS)}",
            )
            return None
        return NAMES[element.model]

    def sized(self, element: ControllerElement, row: UsbModel) -> Slot | None:
        limits = self.limits(row)
        asked = element.ports
        if asked is not None and limits.fixed and (asked != limits.default or not self.xen):
            have = f"always have {limits.default} ports" if limits.default else "have no ports of their own"
            self.findings.fault(
                "T307", element, f"controllers of model {row.name!r} {have}", "@ports", "leave ports out"
            )
            return None
        if self.xen:
            limits = limits._replace(least=max(limits.least, 1) if limits.most else 0)
        if asked is not None and not limits.least <= asked <= limits.most:
            self.findings.fault(
                "T307",
                element,
                f"a controller of model {row.name!r} cannot have {asked} ports",
                "@ports",
                f"possible: {max(limits.least, 1)} to {limits.most}, {limits.default} when left out",
            )
            return None
        ports = limits.default if asked is None else asked
        return Slot(
            element=element,
            source=element.source,
            row=row,
            auto=element.model is None,
            index=element.index,
            ports=ports,
            tree=PortTree(ports),
            asked=asked,
            pci=element.pci,
        )

    def limits(self, row: UsbModel) -> Ports:
        return self.layout.pv_ports if row.kind.type in PARAVIRTUAL_TYPES else row.ports

    def implicit(self, index: int, row: UsbModel, source: Source) -> Slot:
        ports = self.limits(row).default
        return Slot(element=None, source=source, row=row, auto=True, index=index, ports=ports, tree=PortTree(ports))

    def orphan(self, slot: Slot) -> None:
        self.findings.fault(
            "T315",
            slot,
            f"{slot.row.name!r} is a companion, and no other controller has index {slot.index} to be its master",
            "@index",
            f"add <controller type='usb' index='{slot.index}' model='ich9-ehci1'/>",
        )

    def companion(self, slot: Slot, master: Slot, after: int | None) -> None:
        """Give a companion to its master; libvirt has it behind the controller `after`, or behind the master."""
        assert slot.row.driver is not None
        assert slot.startport is not None
        self.check_companion(slot, master)
        master.add_companion(
            Companion(
                model=slot.row.name,
                driver=slot.row.driver,
                startport=slot.startport if slot.startport < 2**31 else slot.startport - 2**32,
                pci=str(slot.pci) if slot.pci else None,
                properties=multifunction(slot),
                source=slot.source,
                after=after,
            )
        )

    def check_companion(self, slot: Slot, master: Slot) -> None:
        """Say so where QEMU will not have the companion: libvirt looks no closer than at the index."""
        ports = companion_ports(slot.row, slot.startport or 0)
        shared = master.served.keys() & set(ports)
        problem = None
        if not slot.row.companion:
            problem = f"QEMU has no {slot.row.name} that is another's companion"
        elif master.row.interface != "ehci":
            problem = f"controller {master.number} ({master.row.name}) takes no companions"
        elif ports.stop > master.ports + 1:
            problem = f"ports {ports.start} to {ports.stop - 1} are not all among the {master.ports} of its master"
        elif shared:
            problem = f"another companion serves port {max(shared)} too"
        if problem:
            self.findings.warn(
                "T331",
                slot,
                f"QEMU will not start with this companion: {problem}",
                "master" if slot.element and slot.element.startport is not None else "@model",
                "the companions of an 'ich9-ehci1' are 'ich9-uhci1', 'ich9-uhci2' and 'ich9-uhci3', at 0, 2 and 4",
            )

    def bring(self, element: DeviceElement) -> Slot | None:
        """Add the controller that comes along with a device of a Xen domain, if one serves it."""
        row = brought_along(element.kind, self.domain.guest, self.usbback)
        if row is None:
            return None
        # a Xen domain's are in the order of their indexes
        slot = self.implicit(self.slots[-1].number + 1 if self.slots else 0, row, element.source)
        self.slots.append(slot)
        return slot

    def controller(self, slot: Slot) -> Controller:
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
            backend=slot.backend if row.kind.type in PARAVIRTUAL_TYPES else None,
            companions=tuple(slot.companions),
            pci=str(slot.pci) if slot.pci else None,
            properties=properties | multifunction(slot),
            implicit=element is None,
            source=slot.source,
        )


def _give_indexes(slots: list[Slot]) -> None:
    """Give each controller without an index the lowest free one; members of an ich9 group share theirs."""
    used = {slot.index for slot in slots if slot.index is not None}
    there = {(slot.row.name, slot.index) for slot in slots}
    free = 0
    before: Slot | None = None
    for slot in slots:
        if slot.index is None:
            if (
                before is not None
                and all(one.row.name.startswith("ich9-") for one in (slot, before))
                and (slot.row.name, before.index) not in there
            ):
                slot.index = before.index
            else:
                while free in used:
                    free += 1
                slot.index = free
                used.add(free)
            there.add((slot.row.name, slot.index))
        before = slot


def _either(words: Iterable[object]) -> str:
    return " and ".join(map(str, words))
