"""Virtio-serial: controllers with up to 31 ports, each a channel or a console between guest and host.

Source: virDomainVirtioSerialAddrSet (conf/domain_addr.c), qemuBuildControllerVirtioSerialDevProps and
qemuBuildVirtioSerialPortDevProps (qemu/qemu_command.c), as read and as observed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from translator.document.domain import UnitAddress
from translator.document.parse_chardev import TYPES, char_source
from translator.document.reader import SIGNED_MAX
from translator.placing import virtio
from translator.registry.models import NOT_XEN, DeviceKind, Ports
from translator.units import UnitFamily, UnitModel, UnitPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from translator.document.domain import DeviceElement
    from translator.document.parse_devices import Devices
    from translator.document.reader import Place, Reader
    from translator.families import Context, Part
    from translator.hosts.qmp import QomDevice
    from translator.topology import Controller, Device, ElementKind, Value
    from translator.units import UnitSlot

_PORTS = 31  # of a controller that does not say
_MOST_PORTS = 511  # half of VIRTIO_QUEUE_MAX but for the control queues (hw/char/virtio-serial-bus.c)
# What a channel of SPICE's is called that has no name: the agent in the guest looks for it.
_SPICE_AGENT = "com.redhat.spice.0"


class VirtioSerial(UnitFamily):
    """See `translator.units.UnitFamily`."""

    name = "virtio-serial"
    title = "Virtio serial ports"
    order = 50
    tags = ("channel", "console")
    hotplug = True
    seat_properties = ("nr",)
    kept_properties = ("chardev", "name")
    address = ("virtio-serial", ("bus", "port"))
    rows = tuple(
        UnitModel(
            family="virtio-serial",
            name=f"virtio{suffix}",
            interface="virtio-serial",
            driver=f"virtio-serial-pci{suffix}",
            plug=plug,
            limits={"bus": 0, "port": _PORTS - 1},
            choice=Ports(_PORTS, 1, _MOST_PORTS),
            hypervisors=NOT_XEN,
            knobs=("pci", "virtio", "virtio-serial"),
        )
        for suffix, plug in virtio.TRANSPORTS.values()
    )
    kinds = (
        DeviceKind(family="virtio-serial", kind="channel", driver="virtserialport", knobs=("virtio-port",)),
        DeviceKind(family="virtio-serial", kind="console", driver="virtconsole", knobs=("virtio-port",)),
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

        A channel that listens on a socket without a path gets one of libvirt's from libvirt, when it starts the
        domain: nobody can tell it before, and so nothing is made of that channel beyond its port.
        """
        reader = devices.reader
        kind: ElementKind = "channel" if place.element.tag == "channel" else "console"
        if reader.attribute(place, "target", "type") != "virtio" or not self.serves(reader):
            return None
        type = place.element.get("type", "pty")
        told = type in TYPES and (type != "unix" or reader.attribute(place, "source", "path") is not None)
        name = reader.attribute(place, "target", "name") if kind == "channel" else None
        return devices.element(
            place,
            kind,
            ordinal,
            family=self.name,
            unit=self.unit(reader, place),
            translated=told,
            chardev=char_source(reader, place, type) if told else None,
            name=name or (_SPICE_AGENT if kind == "channel" and type == "spicevmc" else None),
        )

    def driver(self, element: DeviceElement, context: Context) -> str:
        """See `translator.units.UnitFamily`."""
        return next(driver for driver, kind in self.device_drivers.items() if kind == element.kind)

    def begin(self, context: Context) -> Part:
        """See `translator.families.Family`."""
        return _Part(self, context)

    def asked(self) -> Mapping[str, tuple[str, ...]]:
        """See `translator.families.Family`; a controller may have fewer ports than most."""
        controllers = {row.driver: ("addr", "max_ports") for row in self.rows if row.driver}
        return {**super().asked(), **controllers}

    def seen_controller(self, device: QomDevice, row: UnitModel, index: int) -> Controller:
        """See `translator.units.UnitFamily`."""
        made, ports = super().seen_controller(device, row, index), device.properties.get("max_ports")
        return msgspec.structs.replace(made, ports=ports) if isinstance(ports, int) else made

    def seen_properties(self, controller: Controller) -> dict[str, Value]:
        """See `translator.units.UnitFamily`."""
        return {"max_ports": controller.ports}

    def seen_unit(self, device: QomDevice, controller: Controller | None, number: int) -> tuple[int, ...] | None:
        """See `translator.units.UnitFamily`."""
        port = device.properties.get("nr")
        return (number, port) if isinstance(port, int) else None

    def seat(self, controller: Controller, device: Device) -> dict[str, Value]:
        """See `translator.units.UnitFamily`."""
        return {"bus": f"{controller.id}.0", "nr": int(device.port.rpartition(".")[2])}


class _Part(UnitPart):
    def missing(self) -> Iterator[int]:
        """Yield the indexes of the controllers that devices need, in the order in which they are found missing."""
        yield from (index for index in dict.fromkeys(self.indexes) if index not in self.slots)

    def seated(self) -> Iterator[tuple[DeviceElement, UnitAddress]]:
        """Yield channels, then consoles.

        libvirt gives ports to channels; a console without an address goes where QEMU puts it, on the newest
        controller. One on port 0, which is a console's alone, takes another port from the channels besides.
        """
        self.indexes = [slot.index for slot in self.listed]
        self.indexes += [index for index in self.named() if index not in self.indexes]
        self.sizes = {slot.index: self.family.ports(slot) for slot in self.listed}
        elements = list(self.context.domain.devices_of(self.family.name))
        asked = [one.unit for one in elements if one.unit is not None]
        self.taken = {(one.controller, one.unit[-1]) for one in asked if one.unit[-1]}
        channels = [one for one in elements if one.kind == "channel"]
        consoles = [one for one in elements if one.kind == "console"]
        for console in consoles:
            # what was seen on a running machine is not translated, and libvirt keeps nothing for it
            if console.translated and console.unit is not None and console.unit.unit[-1] == 0:
                self.next_free(sorted(self.indexes), first=1)
        self.taken |= {(one.unit.controller, 0) for one in consoles if one.unit and one.unit.unit[-1] == 0}
        for element in (*channels, *consoles):
            unit, channel = element.unit, element.kind == "channel"
            if unit is not None and (unit.unit[-1] or not channel):
                self.check_port(element, unit, self.size(unit.controller))
                yield element, unit
            elif unit is not None:
                yield element, self.next_free([unit.controller], first=1)
            elif channel:
                yield element, self.next_free(sorted(self.indexes), first=1)
            else:
                yield element, self.next_free([*reversed(self.indexes)], first=0)

    def named(self) -> Iterator[int]:
        """Yield the indexes that devices name, channels first, and 0 for one that names none."""
        elements = list(self.context.domain.devices_of(self.family.name))
        for kind in ("channel", "console"):
            for element in elements:
                if element.kind == kind:
                    yield element.unit.controller if element.unit else 0

    def size(self, index: int) -> int:
        return self.sizes.get(index, _PORTS)

    def next_free(self, indexes: Sequence[int], first: int) -> UnitAddress:
        """Take the lowest free port of the first controller that has one; where all are full, one comes along."""
        ports = ((index, port) for index in indexes for port in range(first, self.size(index)))
        free = next((port for port in ports if port not in self.taken), None)
        if free is None:
            free = (next(index for index in range(len(self.indexes) + 1) if index not in self.indexes), first)
            self.indexes.append(free[0])
        self.taken.add(free)
        return UnitAddress(free[0], (0, free[1]))

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
