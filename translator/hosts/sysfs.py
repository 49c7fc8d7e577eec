"""The host's USB devices, as /sys/bus/usb/devices shows them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from translator.errors import HostError
from translator.topology import HostDevice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from translator.registry.models import Speed

# A device is named by its bus and the ports that lead to it; usb1 (a root hub) and 1-8:1.0 (an interface) are not.
_DEVICE = re.compile(r"[0-9]+-[0-9]+(\.[0-9]+)*")
_HUB_CLASS = "09"
_PAGE_BYTES = 4096
# In Mb/s, as the kernel spells them. Source: speed_show (drivers/usb/core/sysfs.c).
_SPEEDS: dict[str, Speed] = {
    "1.5": "low",
    "12": "full",
    "480": "high",
    "5000": "super",
    "10000": "super",
    "20000": "super",
}
_DRIVER_FILE = re.compile(r"/sys/bus/usb/drivers/([^/]+)/(bind|unbind)")


class Sysfs:
    """The tree below `root`, /sys on a host."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._usb = str(root / "bus/usb")

    def usb_devices(self) -> tuple[HostDevice, ...]:
        """Return every device with bus, device, vendor, product and path, by path; none where there is no USB."""
        folder = self.root / "bus/usb/devices"
        try:
            names = sorted(entry.name for entry in folder.iterdir() if _DEVICE.fullmatch(entry.name))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise HostError("T411", f"cannot list the host's USB devices in {folder}: {error.strerror}") from error
        return tuple(found for name in names if (found := self._read(name)))

    def device_at(self, path: str) -> HostDevice | None:
        """Return the device at a host port path, with everything known about it; None: there is none.

        Raises:
            HostError: T411, it cannot be read.
        """
        return self._read(path) if _DEVICE.fullmatch(path) else None

    def find(self, wanted: HostDevice) -> HostDevice:
        """Return the one device that `wanted` names, with everything known about it.

        Raises:
            HostError: T411 there is none; T412 several fit, and the message lists them; T416 it is a hub.
        """
        devices = self.usb_devices()
        fitting = [found for found in devices if fits(found, wanted)]
        if fitting and all(self.is_hub(found) for found in fitting):
            raise HostError(
                "T416",
                f"host device {wanted.selector} is a hub, and a hub cannot be given to a guest",
                "give it the devices behind the hub: "
                + (
                    _list([one for one in devices if _behind(one, fitting) and not self.is_hub(one)])
                    or "there are none"
                ),
            )
        fitting = [found for found in fitting if not self.is_hub(found)]
        if not fitting:
            raise HostError(
                "T411",
                f"the host has no USB device {wanted.selector}",
                f"it has: {_list([one for one in devices if not self.is_hub(one)])}"
                if devices
                else f"{self.root}/bus/usb/devices lists none at all; a sandbox has those that its documents name",
            )
        if len(fitting) > 1:
            raise HostError(
                "T412",
                f"{len(fitting)} USB devices of the host are {wanted.selector}",
                f"name one by <address bus=… device=…/>, by its port or by its <serial>: {_list(fitting)}",
            )
        return fitting[0]

    def is_hub(self, device: HostDevice) -> bool:
        """Tell whether a device that was found is a hub."""
        return self._text(f"devices/{device.path}/bDeviceClass") == _HUB_CLASS

    def attribute(self, path: str, name: str) -> str:
        """Return an attribute of the device at a host port path, such as `product`; empty where it has none."""
        return self._text(f"devices/{path}/{name}") if _DEVICE.fullmatch(path) else ""

    def speed(self, device: HostDevice) -> Speed | None:
        """Return the speed at which a device that was found runs; None where the host does not tell."""
        return _SPEEDS.get(self._text(f"devices/{device.path}/speed"))

    def has_driver(self, name: str) -> bool:
        """Tell whether the kernel has a USB driver of that name loaded."""
        return (self.root / "bus/usb/drivers" / name).is_dir()

    def lacks_driver(self, name: str) -> bool:
        """Tell whether the kernel is known to have no such driver: where it lists none at all, nobody knows."""
        return (self.root / "bus/usb/drivers").is_dir() and not self.has_driver(name)

    def interfaces(self, path: str) -> dict[str, str | None]:
        """Return the interfaces of the device at a host port path, each with its driver's name, by name."""
        folder = self.root / "bus/usb/devices"
        names = sorted(entry.name for entry in folder.glob(f"{path}:*"))
        return {name: self.driver_of(name) for name in names}

    def has_interface(self, interface: str) -> bool:
        """Tell whether there is an interface of that name."""
        return (self.root / "bus/usb/devices" / interface).exists()

    def driver_of(self, interface: str) -> str | None:
        """Return the name of the driver that an interface is bound to."""
        try:
            return (self.root / "bus/usb/devices" / interface / "driver").readlink().name
        except OSError:
            return None

    def write(self, path: str, value: str, *, if_there: bool = False) -> None:
        """Write `value` to the file that a plan calls `path`: below /sys, whatever the root here is.

        An interface that a driver already has, or has no more, is not told to it again; with `if_there`, one that
        is gone is to nobody.

        Raises:
            HostError: T413 the path leads out of /sys, or the kernel refused the write.
        """
        bound = self.is_bound(path, value)
        if bound is not None:
            gone = if_there and not self.has_interface(value)
            if gone or bound == path.endswith("/bind"):
                return
        try:
            self._resolve(path).write_text(value)
        except OSError as error:
            raise HostError("T413", f"cannot write {value!r} to {path}: {error.strerror}") from error

    def is_bound(self, path: str, interface: str) -> bool | None:
        """Tell whether the driver whose `bind` or `unbind` is `path` has the interface; None: it is another file."""
        match = _DRIVER_FILE.fullmatch(path)
        return None if match is None else self.driver_of(interface) == match[1]

    def _resolve(self, path: str) -> Path:
        parts = path.split("/")
        if parts[:2] != ["", "sys"] or not {"", ".", ".."}.isdisjoint(parts[2:]):
            raise HostError("T413", f"{path!r} is not a path below /sys")
        return self.root.joinpath(*parts[2:])

    def _read(self, name: str) -> HostDevice | None:
        folder = f"devices/{name}"
        try:
            bus, number = (int(self._bytes(f"{folder}/{one}")) for one in ("busnum", "devnum"))
            vendor, product = (int(self._bytes(f"{folder}/{one}"), 16) for one in ("idVendor", "idProduct"))
        except FileNotFoundError:
            return None  # pulled while we looked
        except (OSError, ValueError) as error:
            raise HostError("T411", f"cannot read the USB device {self._usb}/{folder}: {error}") from error
        serial = self._text(f"{folder}/serial") or None
        return HostDevice(bus=bus, device=number, vendor=vendor, product=product, path=name, serial=serial)

    def _text(self, file: str) -> str:
        """Return what an attribute says, which not every device has."""
        try:
            return self._bytes(file).decode(errors="replace").strip()
        except OSError:
            return ""

    def _bytes(self, file: str) -> bytes:
        """Return an attribute; there are many, and no file object is needed for a page at most."""
        descriptor = os.open(f"{self._usb}/{file}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _PAGE_BYTES)
        finally:
            os.close(descriptor)


def fits(found: HostDevice, wanted: HostDevice) -> bool:
    """Tell whether a device of the host is one that `wanted` names: all that `wanted` says is true of it."""
    return all(
        getattr(wanted, name) in (None, getattr(found, name))
        for name in ("bus", "device", "vendor", "product", "path", "serial")
    )


def _behind(device: HostDevice, hubs: Sequence[HostDevice]) -> bool:
    """Tell whether the device hangs on one of the hubs, however deep."""
    return any(str(device.path).startswith((f"{hub.path}.", f"{hub.path}-")) for hub in hubs)


def _list(devices: Sequence[HostDevice]) -> str:
    return ", ".join(
        f"{found.bus}.{found.device} ({found.vendor:04x}:{found.product:04x}, port {found.path}"
        + (f", serial {found.serial!r})" if found.serial else ")")
        for found in devices
    )
