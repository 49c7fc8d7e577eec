"""The host's USB devices, as /sys/bus/usb/devices shows them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.errors import HostError
from translator.topology import HostDevice

if TYPE_CHECKING:
    from pathlib import Path

# A device is named by its bus and the ports that lead to it; usb1 (a root hub) and 1-8:1.0 (an interface) are not.
_DEVICE = re.compile(r"[0-9]+-[0-9]+(\.[0-9]+)*")


class Sysfs:
    """The tree below `root`, /sys on a host."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def usb_devices(self) -> tuple[HostDevice, ...]:
        """Return every device with bus, device, vendor, product and path, by path; none where there is no USB."""
        folder = self.root / "bus/usb/devices"
        try:
            names = sorted(entry.name for entry in folder.iterdir() if _DEVICE.fullmatch(entry.name))
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise HostError("T411", f"cannot list the host's USB devices in {folder}: {error.strerror}") from error
        return tuple(found for name in names if (found := self._read(folder / name)))

    def find(self, wanted: HostDevice) -> HostDevice:
        """Return the one device that `wanted` names, with everything known about it.

        Raises:
            HostError: T411 there is none; T412 several fit, and the message lists them.
        """
        devices = self.usb_devices()
        fitting = [found for found in devices if fits(found, wanted)]
        if not fitting:
            raise HostError(
                "T411",
                f"the host has no USB device {wanted.selector}",
                f"it has: {_list(devices)}" if devices else f"{self.root}/bus/usb/devices lists none at all",
            )
        if len(fitting) > 1:
            raise HostError(
                "T412",
                f"{len(fitting)} USB devices of the host are {wanted.selector}",
                f"name one by <address bus=… device=…/>: {_list(fitting)}",
            )
        return fitting[0]

    def write(self, path: str, value: str) -> None:
        """Write `value` to the file that a plan calls `path`: below /sys, whatever the root here is.

        Raises:
            HostError: T413 the path leads out of /sys, or the kernel refused the write.
        """
        parts = path.split("/")
        if parts[:2] != ["", "sys"] or not {"", ".", ".."}.isdisjoint(parts[2:]):
            raise HostError("T413", f"{path!r} is not a path below /sys")
        try:
            self.root.joinpath(*parts[2:]).write_text(value)
        except OSError as error:
            raise HostError("T413", f"cannot write {value!r} to {path}: {error.strerror}") from error

    def _read(self, device: Path) -> HostDevice | None:
        try:
            bus, number = (int((device / name).read_text()) for name in ("busnum", "devnum"))
            vendor, product = (int((device / name).read_text(), 16) for name in ("idVendor", "idProduct"))
        except FileNotFoundError:
            return None  # pulled while we looked
        except (OSError, ValueError) as error:
            raise HostError("T411", f"cannot read the USB device {device}: {error}") from error
        return HostDevice(bus=bus, device=number, vendor=vendor, product=product, path=device.name)


def fits(found: HostDevice, wanted: HostDevice) -> bool:
    """Tell whether a device of the host is one that `wanted` names: all that `wanted` says is true of it."""
    return all(
        getattr(wanted, name) in (None, getattr(found, name))
        for name in ("bus", "device", "vendor", "product", "path")
    )


def _list(devices: tuple[HostDevice, ...] | list[HostDevice]) -> str:
    return ", ".join(
        f"{found.bus}.{found.device} ({found.vendor:04x}:{found.product:04x}, port {found.path})" for found in devices
    )
