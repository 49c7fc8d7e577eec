"""Virtio-serial: controllers with up to 31 ports, each a channel or a console between guest and host.

Source: virDomainVirtioSerialAddrSet (conf/domain_addr.c) and qemuBuildControllerVirtioSerialDevProps
(qemu/qemu_command.c), as read and as observed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from translator import virtio
from translator.domain import UnitAddress
from translator.reader import SIGNED_MAX
from translator.units import UnitFamily, UnitModel, UnitPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from translator.domain import DeviceElement
    from translator.families import Context, Part
    from translator.hosts.qmp import QomDevice
    from translator.parse_devices import Devices
    from translator.reader import Place, Reader
    from translator.topology import Controller, Device, ElementKind, Value
    from translator.units import UnitSlot

_PORTS = 31  # of a controller that does not say


class VirtioSerial(UnitFamily):
    """See `translator.units.UnitFamily`."""

    name = "virtio-serial"
    order = 50
    tags = ("channel", "console")
    hotplug = True
    address = ("virtio-serial", ("bus", "port"))
    rows = tuple(
        UnitModel(
            name=f"virtio{suffix}",
            interface="virtio-serial",
            driver=f"virtio-serial-pci{suffix}",
            plug=plug,
            limits=(0, _PORTS - 1),
        )
        for suffix, plug in virtio.TRANSPORTS.values()
    )

    def model_word(self, controller: Controller) -> str | None:
        """See `translator.families.Family`."""
        return None if controller.model == "virtio" else controller.model

    def properties(self, reader: Reader, place: Place) -> dict[str, Value]:
        """See `translator.units.UnitFamily`."""
        numbers = {
            word: reader.number(place, name, most=SIGNED_MAX)
            for name, word in (("ports", "max_ports"), ("vectors", "vectors"))
        }
        return virtio.properties(reader, place) | {word: one for word, one in numbers.items() if one is not None}

    def ports(self, slot: UnitSlot) -> int:
        """See `translator.units.UnitFamily`."""
        asked = slot.element.properties.get("max_ports") if slot.element else None
        return asked if isinstance(asked, int) else _PORTS

    def device(self, devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
        """See `translator.families.Family`.

        Where a channel leads on the host is not read: libvirt makes names of its own for most.
        """
        kind: ElementKind = "channel" if place.element.tag == "channel" else "console"
        if devices.reader.attribute(place, "target", "type") != "virtio" or not self.serves(devices.reader):
            return None
        return devices.element(
            place,
            kind,
            ordinal,
            family=self.name,
            unit=self.unit(devices.reader, place),
            translated=False,
        )

    def begin(self, context: Context) -> Part:
        """See `translator.families.Family`."""
        return _Part(self, context)

    def asked(self) -> Mapping[str, tuple[str, ...]]:
        """See `translator.families.Family`."""
        return {driver: (*names, "max_ports") for driver, names in super().asked().items()}

    def seen_controller(self, device: QomDevice, row: UnitModel, index: int) -> Controller:
        """See `translator.units.UnitFamily`."""
        made, ports = super().seen_controller(device, row, index), device.properties.get("max_ports")
        return msgspec.structs.replace(made, ports=ports) if isinstance(ports, int) else made

    def seat(self, controller: Controller, device: Device) -> dict[str, Value]:
        """See `translator.units.UnitFamily`."""
        return {"bus": f"{controller.id}.0", "nr": int(device.port.rpartition(".")[2])}


class _Part(UnitPart):
    def missing(self) -> Iterator[int]:
        """Yield the indexes that devices name, channels first, and 0 for one that names none."""
        named = dict.fromkeys(
            element.unit.controller if element.unit else 0
            for kind in ("channel", "console")
            for element in self.context.domain.devices_of(self.family.name)
            if element.kind == kind
        )
        seated = dict.fromkeys(seat.controller for _, seat in self.seats)
        yield from (index for index in named | seated if index not in self.slots)

    def seated(self) -> Iterator[tuple[DeviceElement, UnitAddress]]:
        """Yield consoles, then channels: those with a port first, and the others where one is free.

        Port 0 is a console's.
        """
        elements = sorted(self.context.domain.devices_of(self.family.name), key=lambda one: one.kind == "channel")
        sizes = {slot.index: self.family.ports(slot) for slot in self.listed}
        for element in elements:
            sizes.setdefault(element.unit.controller if element.unit else 0, _PORTS)
        taken = {(one.unit.controller, one.unit.unit[-1]) for one in elements if one.unit and one.unit.unit[-1]}
        for element in elements:
            asked = element.unit
            if asked is not None and (asked.unit[-1] or element.kind == "console"):
                taken.add((asked.controller, asked.unit[-1]))
                self.check_port(element, asked, sizes[asked.controller])
                yield element, asked
                continue
            first = 1 if element.kind == "channel" else 0
            indexes = [asked.controller] if asked is not None else sorted(sizes)
            seats = ((index, port) for index in indexes for port in range(first, sizes[index]))
            free = next((seat for seat in seats if seat not in taken), None)
            if free is None:
                free = (next(index for index in range(len(sizes) + 1) if index not in sizes), first)
                sizes[free[0]] = _PORTS
            taken.add(free)
            yield element, UnitAddress(free[0], (0, free[1]))

    def check_port(self, element: DeviceElement, asked: UnitAddress, size: int) -> None:
        if asked.unit[-1] >= size:
            self.findings.fault(
                "T302",
                element,
                f"there is no port {asked.unit[-1]} on virtio-serial controller {asked.controller}",
                "address/@port",
                f"its ports are 0 to {size - 1}, and 0 is a console's",
            )


FAMILY = VirtioSerial()
