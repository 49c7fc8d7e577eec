"""The controllers and devices with units of one domain: which there are, unasked ones included, and who sits where.

Source: virDomainDiskDefAssignAddress and virDomainDefAddImplicitControllers (conf/domain_conf.c,
conf/domain_postparse.c), as read and as observed.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from translator.document.domain import PciDemand, UnitAddress
from translator.families import Placed
from translator.findings import LONGEST_WORD
from translator.placing.inventory import CONTROLLER_TURN
from translator.placing.list_order import in_list_order
from translator.topology import PRIMARY, Controller, Device
from translator.units.models import UnitSlot, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from translator.document.domain import ControllerElement, DeviceElement
    from translator.families import Context, PciPlaces
    from translator.placing.peripherals import Peripheral
    from translator.topology import Value
    from translator.units.family import UnitFamily
    from translator.units.models import UnitModel

# Beyond it no controller comes along: PCI has not as many busses.
_HIGHEST_INDEX = 255


class UnitPart:
    """See `translator.families.Part`."""

    def __init__(self, family: UnitFamily, context: Context) -> None:
        self.family = family
        self.context = context
        self.findings = context.findings
        self.slots: dict[int, UnitSlot] = {}
        self.refused = False
        for element, index in self.indexed():
            slot = self.slot(element, index)
            if slot is None:
                self.refused = True
            elif index in self.slots:
                self.findings.fault(
                    "T308",
                    element,
                    f"there are two {family.name} controllers with index {index}",
                    "@index",
                    "leave index out to get a free one",
                )
            else:
                self.slots[index] = slot
        self.listed = list(self.slots.values())
        self.seats: list[tuple[DeviceElement, UnitAddress]] = list(self.seated())
        self.brought = [] if self.refused else [self.implicit(index) for index in self.missing()]
        self.slots |= {slot.index: slot for slot in self.brought}
        self.check_channels()

    def check_channels(self) -> None:
        """Leave out what an S/390 has on its channel subsystem, and say so."""
        on_channels = [slot for slot in self.slots.values() if slot.model.plug is not None]
        if self.context.domain.arch != "s390x" or not on_channels or self.refused:
            return
        first = on_channels[0]
        self.refused = True
        self.findings.warn(
            "T365",
            first.element or self.seats[0][0],
            f"{self.family.name} controller {first.index} sits on the channel subsystem of an S/390, which is not "
            f"translated: no step comes from the {self.family.name} controllers and what is on them",
            help="libvirt starts such a domain; only its documents can be compared here",
        )

    def claims(self) -> Sequence[PciDemand] | None:
        """See `translator.families.Part`."""
        return [claim for slot in self.listed if (claim := self.claim(slot))]

    def unasked(self) -> Sequence[PciDemand]:
        """See `translator.families.Part`."""
        return [claim for slot in self.brought if (claim := self.claim(slot))]

    def settle(self, places: PciPlaces) -> Placed:
        """See `translator.families.Part`."""
        for slot in self.slots.values():
            if places.addresses is not None:
                slot.pci = places.addresses.get((self.family.name, slot.index), slot.pci)
        if self.refused:
            return Placed()
        devices = [device for element, seat in self.seats if (device := self.device(element, seat)) is not None]
        ordered = sorted(self.slots.values(), key=lambda slot: slot.index)
        return Placed(tuple(self.controller(slot) for slot in ordered), tuple(devices))

    # Controllers

    def indexed(self) -> Iterator[tuple[ControllerElement, int]]:
        """Yield the document's controllers in libvirt's order; those without an index get the lowest free one."""
        elements = self.context.domain.controllers_of(self.family.name)
        listed = in_list_order(elements, lambda element: (element.index, False))
        given = {element.index for element in listed}
        free = (index for index in count() if index not in given)
        for element in listed:
            yield element, next(free) if element.index is None else element.index

    def slot(self, element: ControllerElement, index: int) -> UnitSlot | None:
        model = self.model(element)
        if model is None:
            return None
        return UnitSlot(element=element, source=element.source, model=model, index=index, pci=element.pci)

    def model(self, element: ControllerElement) -> UnitModel | None:
        family = self.family
        name = element.model
        if name in (None, "auto"):
            name = family.modelless(self.context.domain)
        assert name is not None
        row = family.named.get(name)
        if row is None:
            from difflib import get_close_matches

            word = name if len(name) <= LONGEST_WORD else name[:LONGEST_WORD] + "…"
            near = get_close_matches(word, family.named, n=1)
            self.findings.fault(
                "T301",
                element,
                f"unknown model {word!r} of a {family.name} controller",
                "@model",
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(family.models)}",
            )
        elif row.refused is not None:
            self.findings.fault("T386", element, f"model {row.name!r} cannot be had: {row.refused}", "@model")
            return None
        return row

    def implicit(self, index: int) -> UnitSlot:
        model = self.family.models[self.family.modelless(self.context.domain)]
        return UnitSlot(element=None, source=self.context.domain.source, model=model, index=index)

    def missing(self) -> Iterator[int]:
        """Yield the indexes of the controllers that come along: all up to the highest that a device needs."""
        needed = max((seat.controller for _, seat in self.seats), default=-1)
        unasked = set(range(min(needed, _HIGHEST_INDEX) + 1)) | set(self.family.needless(self.context))
        yield from sorted(unasked - self.slots.keys())

    def claim(self, slot: UnitSlot) -> PciDemand | None:
        """Return what a controller wants of PCI."""
        home = self.family.home(self.context, slot.index)
        if home is None and slot.model.plug is None and slot.pci is None:
            return None
        line = f", line {slot.source.line}" if slot.element else ""
        return PciDemand(
            what=f"{self.family.name} controller {slot.index} ({slot.model.name}{line})",
            plug=slot.model.plug or "conventional",
            address=slot.pci,
            homes=(home,) if home else (),
            bound=home is not None,
            multifunction=slot.pci.multifunction if slot.pci else None,
            turn=CONTROLLER_TURN,
            owner=(self.family.name, slot.index),
            part=slot.element,
        )

    def controller(self, slot: UnitSlot) -> Controller:
        family, element, model = self.family, slot.element, slot.model
        built_in = family.built_in(self.context, slot.index)
        emulated = model.kind.type == "emulated"
        alias = element.alias if element and not built_in else None
        multifunction: dict[str, Value] = {}
        if slot.pci is not None and slot.pci.multifunction is not None:
            multifunction = {"multifunction": slot.pci.multifunction}
        return Controller(
            family=family.name,
            index=slot.index,
            model=model.name,
            type=model.kind.type,
            version=None,
            interface=model.interface,
            ports=family.ports(slot),
            id=(alias or family.controller_id(self.context, slot.index)) if emulated else None,
            driver=None if built_in else model.driver,
            device_model=PRIMARY if emulated else None,
            backend=None,
            companions=(),
            pci=str(slot.pci) if slot.pci else None,
            properties=(dict(element.properties) if element else {}) | multifunction,
            implicit=element is None,
            source=slot.source,
            built_in=built_in,
        )

    # Devices

    def seated(self) -> Iterator[tuple[DeviceElement, UnitAddress]]:
        """Yield the devices with where they go."""
        for element in self.context.domain.devices_of(self.family.name):
            yield element, self.address_of(element)

    def address_of(self, element: DeviceElement) -> UnitAddress:
        if element.unit is not None:
            return element.unit
        assert element.disk is not None, "what has no letters has its address assigned by its family"
        return self.family.unit_of(self.context.domain.disks[element.disk].number)

    def device(self, element: DeviceElement, seat: UnitAddress) -> Device | None:
        slot = self.slots.get(seat.controller)
        if slot is None:
            self.findings.fault(
                "T304",
                element,
                f"there is no {self.family.name} controller with index {seat.controller}",
                "address/@controller",
                f"none with an index beyond {_HIGHEST_INDEX} comes along",
            )
            return None
        limits = slot.model.limits.items()
        wrong = [f"{name} {number}" for number, (name, most) in zip(seat.unit, limits, strict=True) if number > most]
        if wrong:
            # libvirt looks no closer, and QEMU then refuses
            self.findings.warn(
                "T387",
                element,
                f"QEMU will refuse this {element.kind}: {self.family.name} controller {seat.controller} "
                f"({slot.model.name}) has no {', '.join(wrong)}",
                "address" if element.unit else None,
                "possible: " + ", ".join(f"{name} 0 to {most}" if most else f"{name} 0" for name, most in limits),
            )
        first = slot.taken.setdefault(seat.unit, element)
        if first is not element:
            self.findings.fault(
                "T388",
                element,
                f"unit {dotted(seat.unit)} of {self.family.name} controller {seat.controller} is taken, "
                f"by what line {first.source.line} has",
                "address" if element.unit else None,
                "name another unit, or none for a disk whose letters tell it",
            )
            return None
        return self.made(element, seat, slot) if element.translated else None

    def made(self, element: DeviceElement, seat: UnitAddress, slot: UnitSlot) -> Device:
        unit = self.family.device_id(slot.model, seat)
        id = element.alias or (unit if element.disk is not None else f"{element.kind}{element.ordinal}")
        made: Peripheral = self.context.peripherals.on_unit(element, id, unit)
        assert element.kind != "ccid"
        return Device(
            family=self.family.name,
            kind=element.kind,
            id=made.id,
            driver=self.family.driver(element, self.context),
            controller=seat.controller,
            port=dotted(seat.unit),
            host=None,
            properties=made.properties,
            implicit=False,
            source=element.source,
            backends=made.backends,
            scsi=element.scsi,
        )
