"""What a fragment brings to a running domain's controllers with units.

What is there takes its units as if the document had it, and the rules that give places to a document's devices give
them to what comes.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import msgspec

from translator.document.domain import ControllerElement, DeviceElement, UnitAddress
from translator.errors import DocumentError, HostError, Source
from translator.families import Context, PciPlaces
from translator.findings import Findings
from translator.hotplug.growing import Grown
from translator.placing.pci import BOARDS
from translator.placing.peripherals import Peripherals
from translator.registry.models import machine_row
from translator.units.models import dotted, undotted
from translator.units.resolving import UnitPart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from translator.document.domain import Domain
    from translator.hotplug.growing import Growing
    from translator.topology import Controller, Device
    from translator.units.family import UnitFamily

_NOWHERE = Source(0, 0)  # where an element of a document stands that was seen on a host


def grown(family: UnitFamily, fragment: Domain, growing: Growing) -> Iterator[Grown]:
    """Yield what comes; see `translator.families.Family`."""
    controllers, devices = tuple(fragment.controllers_of(family.name)), tuple(fragment.devices_of(family.name))
    if not controllers and not devices:
        return
    yield from _Growth(family, fragment, growing).all(controllers, devices)


class _Growth:
    def __init__(self, family: UnitFamily, fragment: Domain, growing: Growing) -> None:
        self.family = family
        self.growing = growing
        self.fragment = fragment
        topology = growing.topology
        self.there = [one for one in topology.controllers if one.family == family.name]
        self.seated = {
            UnitAddress(one.controller, undotted(one.port)): one
            for one in topology.devices
            if one.family == family.name
        }

    def all(self, controllers: tuple[ControllerElement, ...], devices: tuple[DeviceElement, ...]) -> Iterator[Grown]:
        self.check_controllers(controllers)
        self.check_devices(devices)
        fragment = msgspec.structs.replace(
            self.fragment,
            controllers=(*map(self.as_element, self.there), *controllers),
            devices=(*map(self.as_seat, self.seated.items()), *self.numbered(devices)),
        )
        findings = Findings(fragment.file)
        layout = self.growing.layout
        board = BOARDS.get(machine_row(fragment.machine).board or "") if fragment.hypervisor != "xen" else None
        peripherals = Peripherals(fragment, layout, boots=False)
        usbback, present = self.growing.facts.usbback, frozenset((self.family.name,))
        part = self.family.begin(Context(fragment, layout, findings, board, peripherals, usbback, present))
        assert isinstance(part, UnitPart)
        self.check_seats(part)
        # QEMU finds a slot for what has no address, or `slot` does
        placed = part.settle(PciPlaces(addresses={}))
        if findings.faults:
            raise DocumentError(findings.faults)
        paths = {one.source: one.path for one in controllers} | {one.source: one.path for one in devices}
        known = {one.index for one in self.there}
        for controller in placed.controllers:
            if controller.index not in known and not controller.built_in:
                yield Grown(self.plugged(controller), paths.get(controller.source or _NOWHERE))
        for device in placed.devices:
            yield Grown(device, paths.get(device.source or _NOWHERE))

    def plugged(self, controller: Controller) -> Controller:
        model = self.family.models[controller.model]
        what = f"{self.family.name} controller {controller.index} ({controller.model})"
        if controller.implicit and not self.growing.auto_controller:
            raise HostError(
                "T419",
                f"no {self.family.name} controller of the domain has room",
                "attach a controller first, or allow one to come along",
            )
        if model.plug is None or controller.pci is not None:
            return controller
        slot = self.growing.slot(what, model.plug, controller.source if self.growing.file else None)
        return msgspec.structs.replace(controller, pci=slot)

    # What is there, as a document would have it

    def as_element(self, controller: Controller) -> ControllerElement:
        return ControllerElement(
            family=self.family.name,
            path="",
            source=_NOWHERE,
            index=controller.index,
            model=controller.model,
            ports=controller.ports,
            startport=None,
            pci=None,
            alias=controller.id,
            backend=None if controller.backend is None else str(controller.backend),
            properties=self.family.seen_properties(controller),
        )

    def as_seat(self, place: tuple[UnitAddress, Device]) -> DeviceElement:
        unit, device = place
        return DeviceElement(
            family=self.family.name,
            path="",
            source=_NOWHERE,
            kind=device.kind,
            ordinal=0,
            address=None,
            alias=device.id,
            unit=unit,
            translated=False,
        )

    def numbered(self, devices: tuple[DeviceElement, ...]) -> Iterator[DeviceElement]:
        """Yield the elements with numbers whose ids nobody has; a disk's id comes from its unit."""
        taken = set(self.growing.ids)
        for element in devices:
            number = next(number for number in count() if f"{element.kind}{number}" not in taken)
            taken.add(f"{element.kind}{number}")
            yield msgspec.structs.replace(element, ordinal=number)

    # What cannot be

    def check_controllers(self, controllers: tuple[ControllerElement, ...]) -> None:
        known = {one.index for one in self.there}
        for element in controllers:
            row = self.family.named.get(element.model or self.family.rows[0].name)
            if row is not None and row.refused is None and not row.hotplug:
                raise HostError(
                    "T480",
                    f"a {self.family.name} controller of model {row.name!r} cannot come to a running machine, which "
                    "has it from its start or not at all",
                    "add it to the document, and start the domain anew",
                    self.growing.source(element),
                )
            if element.index in known:
                message = f"the domain has a {self.family.name} controller {element.index}"
                raise self.growing.held(message, "leave the index out to get a free one", element)

    def check_devices(self, devices: tuple[DeviceElement, ...]) -> None:
        growing = self.growing
        for element in devices:
            if not element.translated:
                raise HostError(
                    "T482",
                    f"nothing can be made of this {element.kind}: where it leads on the host is not translated",
                    "a disk needs type file or block, and a channel a type and a path that say where it leads",
                    growing.source(element),
                )
            if not self.family.hotplug:
                raise HostError(
                    "T480",
                    f"a {element.kind} on bus {self.family.name!r} cannot come to a running machine: QEMU has no "
                    "hot-plug for it",
                    "a disk can come on bus 'scsi' or 'usb'; or add it to the document, and start the domain anew",
                    growing.source(element),
                )
            other = self.holder(element)
            if other is not None:
                assert element.scsi is not None
                raise HostError(
                    "T437",
                    f"SCSI device {element.scsi.selector} is attached already: to unit {other.port} of controller "
                    f"{other.controller} of {growing.topology.domain.name!r}",
                    f"detach it first: translator detach {growing.topology.domain.name} {other.id or ''}".rstrip(),
                    growing.source(element),
                )

    def holder(self, element: DeviceElement) -> Device | None:
        """Return what of the domain has the host's SCSI device that the element names."""
        if element.scsi is None:
            return None
        facts, images = self.growing.facts.scsi[element.scsi.selector], self.growing.facts.images
        for device in self.seated.values():
            node = str(device.properties.get("drive", ""))
            if device.scsi in (facts.device, element.scsi) or (node and images.get(node) == facts.generic):
                return device
        return None

    def check_seats(self, part: UnitPart) -> None:
        """Refuse a unit that something has; between what comes, the family's own rule decides."""
        for element, seat in part.seats:
            if element.translated and (other := self.seated.get(seat)) is not None:
                name = f" [{other.id}]" if other.id else ""
                raise self.growing.held(
                    f"unit {dotted(seat.unit)} of {self.family.name} controller {seat.controller} is held by a "
                    f"{other.kind}{name}",
                    "name another unit in <address>, or another target",
                    element,
                )
