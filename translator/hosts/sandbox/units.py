"""Busses with units in the sandbox's QEMU: who sits where, and what QEMU says of a unit that cannot be had.

Sources of rules and words: scsi_bus_check_address (hw/scsi/scsi-bus.c), virtser_port_device_plug
(hw/char/virtio-serial-bus.c), ide_qdev_realize (hw/ide/qdev.c) and floppy_drive_realize (hw/block/fdc.c) of QEMU 7.2.
"""

from __future__ import annotations

from itertools import count, product
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from translator.hosts.sandbox.drivers import Made
    from translator.hosts.sandbox.qemu import QemuDevice

Unit = tuple[int, ...]
_UNSET = 0xFFFFFFFF  # a number that nobody gave


class UnitError(Exception):
    """A unit that cannot be had, in QEMU's words."""


class UnitBus:
    """A bus whose devices have units.

    Args:
        made: its kind, whether it takes devices while the machine runs, and its largest unit.
        path: where it hangs in QEMU's tree; its name is the last part.
    """

    def __init__(self, made: Made, path: str, owner: QemuDevice | None) -> None:
        self.kind = made.kind
        self.path = path
        self.name = path.rpartition("/")[2]
        self.owner = owner
        self.hotplug = made.hotplug
        self.most = made.units
        if owner is not None and (ports := owner.values.get("max_ports")) is not None:
            self.most = (int(ports) - 1,)
        self.devices: dict[Unit, QemuDevice] = {}

    def claim(self, device: QemuDevice) -> Mapping[str, int]:
        """Return the unit that a device gets, as the properties that tell it.

        Raises:
            UnitError: it cannot have the one that it asks for, or there is none.
        """
        return _CLAIMS[self.kind](self, device)

    def put(self, device: QemuDevice) -> None:
        """Seat a device, whose properties tell the unit by now."""
        self.devices[tuple(int(device.values[part]) for part in PARTS[self.kind])] = device

    def drop(self, device: QemuDevice) -> None:
        """Let a device's unit become free."""
        self.devices = {unit: other for unit, other in self.devices.items() if other is not device}


PARTS: dict[str, tuple[str, ...]] = {
    "SCSI": ("channel", "scsi-id", "lun"),
    "virtio-serial-bus": ("nr",),
    "IDE": ("unit",),
    "floppy-bus": ("unit",),
}


def _asked(device: QemuDevice, part: str) -> int | None:
    value: Any = device.values.get(part)
    return None if value in (None, _UNSET, -1) else int(value)


def _scsi(bus: UnitBus, device: QemuDevice) -> Mapping[str, int]:
    channel, target, lun = (_asked(device, part) for part in PARTS["SCSI"])
    channel = channel or 0
    for what, asked, most in zip(
        ("channel id", "device id", "device lun"), (channel, target, lun), bus.most, strict=True
    ):
        if asked is not None and asked > most:
            raise UnitError(f"bad scsi {what}: {asked}")
    targets = [target] if target is not None else list(range(bus.most[1] + 1))
    luns = [lun] if lun is not None else [0] if target is None else list(range(bus.most[2] + 1))
    free = next((unit for unit in product([channel], targets, luns) if unit not in bus.devices), None)
    if free is not None:
        return dict(zip(PARTS["SCSI"], free, strict=True))
    if target is None:
        raise UnitError("no free target")
    if lun is None:
        raise UnitError("no free lun")
    raise UnitError(f"lun already used by '{bus.devices[channel, target, lun].id or '(null)'}'")


def _serial(bus: UnitBus, device: QemuDevice) -> Mapping[str, int]:
    port, console = _asked(device, "nr"), device.driver.name == "virtconsole"
    if port == 0 and not console:
        raise UnitError(
            "Port number 0 on virtio-serial devices reserved for virtconsole devices for backward compatibility."
        )
    if port is not None and (port,) in bus.devices:
        raise UnitError(f"virtio-serial-bus: A port already exists at id {port}")
    name = device.values.get("name")
    if name and any(other.values.get("name") == name for other in bus.devices.values()):
        raise UnitError(f"virtio-serial-bus: A port already exists by name {name}")
    if port is None:
        first = 0 if console and (0,) not in bus.devices else 1
        port = next(number for number in count(first) if (number,) not in bus.devices)
    if port > bus.most[0]:
        raise UnitError(f"virtio-serial-bus: Out-of-range port id specified, max. allowed: {bus.most[0]}")
    return {"nr": port}


def _drive(what: str) -> Callable[[UnitBus, QemuDevice], Mapping[str, int]]:
    def claim(bus: UnitBus, device: QemuDevice) -> Mapping[str, int]:
        unit, most = _asked(device, "unit"), bus.most[0]
        if unit is None:
            unit = next((number for number in range(most + 1) if (number,) not in bus.devices), most)
        if unit > most:
            raise UnitError(f"Can't create {what} unit {unit}, bus supports only {most + 1} units")
        if (unit,) in bus.devices:
            raise UnitError(f"{what[0].upper()}{what[1:]} unit {unit} is in use")
        return {"unit": unit}

    return claim


_CLAIMS: dict[str, Callable[[UnitBus, QemuDevice], Mapping[str, int]]] = {
    "SCSI": _scsi,
    "virtio-serial-bus": _serial,
    "IDE": _drive("IDE"),
    "floppy-bus": _drive("floppy"),
}


def made_by(device: QemuDevice) -> Iterator[UnitBus]:
    """Yield the busses with units that a device makes."""
    for made in device.driver.makes:
        if made.kind in PARTS:
            yield UnitBus(made, f"{device.path}/{made.path.replace('{id}', device.id or made.kind.lower())}", device)
