"""What a fragment brings to a running domain's USB: controllers, hubs, readers, and the devices on their ports."""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from translator.comparison.changes import same_host_device
from translator.errors import HostError
from translator.families.usb.seated import card_in, device_at, reader_at
from translator.hotplug.choose import choose_port
from translator.hotplug.growing import Grown
from translator.placing.peripherals import Peripherals
from translator.placing.resolve import resolve
from translator.registry.models import MODELS
from translator.topology import Controller, Device, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from translator.document.domain import ControllerElement, DeviceElement, Domain, PciPlug
    from translator.hotplug.choose import Seat
    from translator.hotplug.growing import Growing
    from translator.topology import ElementKind, HostDevice, Value

_NODE = re.compile(r"libvirt-([0-9]{1,9})-")
# Hubs may have others on them, and a card sits in a reader.
_ORDER: tuple[ElementKind, ...] = ("hub", "ccid")


def grown(fragment: Domain, growing: Growing) -> Iterator[Grown]:
    """Yield what comes; see `translator.families.Family`."""
    one = _Growth(fragment, growing)
    for controller in fragment.controllers_of("usb"):
        yield Grown(one.controller(controller), controller.path)
    devices = list(fragment.devices_of("usb"))
    for element in sorted(devices, key=lambda one: _ORDER.index(one.kind) if one.kind in _ORDER else len(_ORDER)):
        yield from one.device(element)


class _Growth:
    def __init__(self, fragment: Domain, growing: Growing) -> None:
        self.fragment = fragment
        self.growing = growing
        self.peripherals = Peripherals(fragment, growing.layout, boots=False)
        found = [int(match[1]) for name in growing.facts.images if (match := _NODE.match(name))]
        self.first_node = max(found, default=0) + growing.disks

    def controller(self, element: ControllerElement) -> Controller:
        """Return the controller, its index given: libxl's next one, or QEMU's lowest free one."""
        growing = self.growing
        used = {one.index for one in growing.topology.controllers if one.family == "usb"}
        index = element.index
        if index is None and self.fragment.hypervisor == "xen":
            index = max(used, default=-1) + 1
        elif index is None:
            index = next(number for number in count() if number not in used)
        if index in used:
            message = f"the domain has a controller {index}"
            raise growing.held(message, "leave the index out to get a free one", element)
        alone = msgspec.structs.replace(
            self.fragment, controllers=(msgspec.structs.replace(element, index=index),), devices=(), disks=()
        )
        layout = None if self.fragment.hypervisor != "xen" else growing.topology.layout
        made = resolve(alone, layout=layout).topology.controllers
        controller = next(one for one in made if (one.family, one.index) == ("usb", index))
        if controller.type != "emulated" or controller.pci is not None or not MODELS[controller.model].hotplug:
            return controller
        plug: PciPlug = "express" if controller.interface == "xhci" else "conventional"
        slot = growing.slot(f"controller {index} ({controller.model})", plug, growing.source(element))
        return msgspec.structs.replace(controller, pci=slot)

    def device(self, element: DeviceElement) -> Iterator[Grown]:
        if element.kind == "smartcard":
            yield from self.card(element)
            return
        if element.kind == "ccid":
            yield from self.reader(element)
            return
        element = msgspec.structs.replace(element, host=self.host(element))
        seat = self.seat(element)
        if seat.is_new:
            yield Grown(seat.controller, None)
        place = Place(seat.controller.index, seat.port)
        if seat.controller.type == "emulated":
            device = device_at(place, self.numbered(element), self.peripherals)
        else:
            device = device_at(place, element, None)
        yield Grown(_renumbered(device, self.first_node) if element.disk is not None else device, element.path)

    # Smartcards

    def reader(self, element: DeviceElement, *, implicit: bool = False) -> Iterator[Grown]:
        """Yield a card reader, and the controller that comes along with it."""
        growing = self.growing
        used = {one.index for one in growing.topology.controllers if one.family == "ccid"}
        index = element.index
        if index in used:
            message = f"the domain has a ccid controller {index}"
            raise growing.held(message, "leave the index out to get a free one", element)
        if index is None:
            index = next(number for number in count() if number not in used)
        seat = self.seat(element)
        if seat.is_new:
            yield Grown(seat.controller, None)
        place = Place(seat.controller.index, seat.port)
        numbered = msgspec.structs.replace(element, ordinal=index)
        reader = reader_at(place, numbered, self.peripherals, implicit=implicit)
        yield Grown(reader, None if implicit else element.path)

    def card(self, element: DeviceElement) -> Iterator[Grown]:
        """Yield a smartcard in the first reader that has none; where there is no such reader, one comes along."""
        growing = self.growing
        used = {one.controller for one in growing.topology.devices if one.family == "ccid"}

        def free() -> Controller | None:
            readers = (one for one in growing.topology.controllers if one.family == "ccid")
            return next((one for one in readers if one.index not in used), None)

        if free() is None:
            if not growing.auto_controller:
                raise self.no_room("smartcard reader", element)
            bare = msgspec.structs.replace(
                element, kind="ccid", index=None, alias=None, chardev=None, certificates=None
            )
            yield from self.reader(bare, implicit=True)
        reader = free()
        assert reader is not None, "it was there, or has come"
        card = card_in(reader.index, self.numbered(element), self.peripherals)
        yield Grown(card, element.path)

    # Places and names

    def host(self, element: DeviceElement) -> HostDevice | None:
        """Return the host's device, which no other port of this domain may have."""
        if element.host is None:
            return None
        growing = self.growing
        host = growing.facts.hosts[element.host.selector]
        for other in growing.topology.devices:
            if other.host is not None and same_host_device(other.host, host):
                raise HostError(
                    "T437",
                    f"host device {host.selector} is attached already: to port {other.port} of controller "
                    f"{other.controller} of {growing.topology.domain.name!r}",
                    f"detach it first: translator detach {growing.topology.domain.name} hostdev:{host.selector}",
                    growing.source(element),
                )
        return host

    def seat(self, element: DeviceElement) -> Seat:
        growing = self.growing
        address = element.address
        controller = address.bus if address else None
        if address and controller is None and growing.topology.domain.hypervisor != "xen":
            controller = 0  # libvirt: an address without a bus asks for bus 0
        try:
            seat = choose_port(
                growing.seen,
                element.kind,
                controller=controller,
                port=address.port if address else None,
                usbback=growing.facts.usbback,
                speed=growing.facts.speeds.get(element.host.selector) if element.host else None,
            )
        except HostError as error:
            raise HostError(error.code, error.message, error.help, growing.source(element)) from error
        if seat.is_new and not growing.auto_controller:
            raise self.no_room("port", element)
        return seat

    def no_room(self, what: str, element: DeviceElement) -> HostError:
        return HostError(
            "T419",
            f"no controller of the domain has a free {what} for a {element.kind}",
            "attach a controller first, or allow one to come along",
            self.growing.source(element),
        )

    def numbered(self, element: DeviceElement) -> DeviceElement:
        """Return the element with a number whose id nobody has; an alias or a host device gives the id by itself."""

        def id(number: int) -> str:
            return self.growing.layout.device_id(element.kind, number, element.alias, element.host)

        given = id(0) == id(1)
        number = next(number for number in count() if given or id(number) not in self.growing.ids)
        return msgspec.structs.replace(element, ordinal=number)


def _renumbered(disk: Device, by: int) -> Device:
    """Return the disk with nodes that nobody has: libvirt counts on from the machine's own disks."""

    def moved(values: Mapping[str, Value]) -> dict[str, Value]:
        return {
            key: _NODE.sub(lambda match: f"libvirt-{int(match[1]) + by}-", value) if isinstance(value, str) else value
            for key, value in values.items()
        }

    backends = tuple(msgspec.structs.replace(one, arguments=moved(one.arguments)) for one in disk.backends)
    return msgspec.structs.replace(disk, properties=moved(disk.properties), backends=backends)
