"""The sandbox's host USB devices, and the tree below /sys that shows them.

The tree is plain: `bus/usb/devices/NAME` and `bus/usb/devices/NAME:1.0` are directories where the kernel has
symbolic links into /sys/devices. An interface's `driver` is a symbolic link, as in the kernel's. The `bind` and
`unbind` files of a driver are named pipes that the sandbox listens on, so that writing an interface's name to
one moves that link as the kernel would; the one difference is that the link moves a moment after the write.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from typing import TYPE_CHECKING

import msgspec

from translator.hosts.sandbox.drivers import Speed

if TYPE_CHECKING:
    from pathlib import Path

_SPEEDS = {"1.5": Speed.LOW, "12": Speed.FULL, "480": Speed.HIGH, "5000": Speed.SUPER}
_ROOT_HUB = (0x1D6B, 0x0002)  # Linux Foundation, 2.0 root hub
_HUB_CLASS = 0x09


class HostUsbDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One device. `path` is sysfs' name of it (`1-8`, `1-8.2`); `speed` is in Mb/s, as sysfs spells it."""

    path: str
    bus: int
    device: int
    vendor: int
    product_id: int
    device_class: int
    product: str
    manufacturer: str
    serial: str | None
    speed: str

    @property
    def speeds(self) -> Speed:
        """The speed at which it runs, and the slower one that a high-speed device falls back to."""
        speed = _SPEEDS[self.speed]
        return speed | Speed.FULL if speed == Speed.HIGH else speed


class HostUsb:
    """The devices and their tree. `root` is what stands for /sys; two root hubs are there from the start."""

    def __init__(self, root: Path) -> None:
        self.devices: list[HostUsbDevice] = []
        self._usb = root / "bus" / "usb"
        self._pipes: dict[int, Path] = {}
        (self._usb / "devices").mkdir(parents=True)
        (self._usb / "drivers").mkdir()
        for name in ("usb", "hub", "usbback", "usb-storage", "usbhid"):
            self._add_driver(name)
        for bus in (1, 2):
            self._add_root_hub(bus)

    def add(
        self,
        path: str,
        *,
        bus: int,
        device: int,
        vendor: int,
        product: int,
        name: str = "USB Device",
        manufacturer: str = "Sandbox",
        serial: str | None = None,
        speed: str = "480",
        device_class: int = 0,
        interfaces: tuple[tuple[int, str | None], ...] = ((0x03, "usbhid"),),
    ) -> HostUsbDevice:
        """Plug a device in. `interfaces` are pairs of interface class and driver (None: not bound)."""
        added = HostUsbDevice(
            path=path,
            bus=bus,
            device=device,
            vendor=vendor,
            product_id=product,
            device_class=device_class,
            product=name,
            manufacturer=manufacturer,
            serial=serial,
            speed=speed,
        )
        self._write_device(path, added)
        for number, (interface_class, driver) in enumerate(interfaces):
            self._add_interface(f"{path}:1.{number}", number, interface_class, driver)
        self.devices.append(added)
        return added

    def match(self, *, bus: int, device: int, vendor: int, product: int, port: str) -> HostUsbDevice | None:
        """Return the first device that has all the given facts; 0 and "" stand for any, but not for all."""
        if not (bus or device or vendor or product or port):
            return None
        return next(
            (
                found
                for found in self.devices
                if bus in (0, found.bus)
                and device in (0, found.device)
                and vendor in (0, found.vendor)
                and product in (0, found.product_id)
                and port in ("", found.path.partition("-")[2])
            ),
            None,
        )

    def remove(self, path: str) -> None:
        """Pull a device out."""
        self.devices = [device for device in self.devices if device.path != path]
        for folder in (self._usb / "devices" / path, *(self._usb / "devices").glob(f"{path}:*")):
            shutil.rmtree(folder)

    def close(self) -> None:
        """Stop listening on the drivers' files, and take them away: a write to them would wait for ever."""
        loop = asyncio.get_running_loop()
        for descriptor, path in self._pipes.items():
            loop.remove_reader(descriptor)
            os.close(descriptor)
            path.unlink(missing_ok=True)
        self._pipes.clear()

    def _add_driver(self, name: str) -> None:
        directory = self._usb / "drivers" / name
        directory.mkdir()
        loop = asyncio.get_running_loop()
        for action in ("bind", "unbind"):
            pipe = directory / action
            os.mkfifo(pipe)
            # Open for both, so that there is always a reader and never an end of file.
            descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self._pipes[descriptor] = pipe
            loop.add_reader(descriptor, self._on_write, descriptor, name, action)

    def _on_write(self, descriptor: int, driver: str, action: str) -> None:
        # Two writes may arrive as one, and need no newline between them: look for the names that there are.
        names = sorted((entry.name for entry in (self._usb / "devices").glob("*:*")), key=len, reverse=True)
        written = os.read(descriptor, 65536).decode(errors="replace")
        for interface in re.findall("|".join(map(re.escape, names)), written):
            self._move(interface, driver, bind=action == "bind")

    def _move(self, interface: str, driver: str, *, bind: bool) -> None:
        """Set or take away the interface's driver; who is bound elsewhere is not unbound from here.

        Two pipes have no order between them. A bind takes the place of the former driver, so that an unbind
        from that one and a bind to this one give the same, whichever is heard first.
        """
        link = self._usb / "devices" / interface / "driver"
        if bind or (link.is_symlink() and link.readlink().name == driver):
            link.unlink(missing_ok=True)
        if bind:
            link.symlink_to(f"../../drivers/{driver}")

    def _add_root_hub(self, bus: int) -> None:
        hub = HostUsbDevice(
            path=f"usb{bus}",
            bus=bus,
            device=1,
            vendor=_ROOT_HUB[0],
            product_id=_ROOT_HUB[1],
            device_class=_HUB_CLASS,
            product="Host Controller",
            manufacturer="Sandbox",
            serial=f"0000:00:{bus + 0x13:02x}.0",
            speed="480",
        )
        self._write_device(hub.path, hub)
        self._add_interface(f"{bus}-0:1.0", 0, _HUB_CLASS, "hub")

    def _write_device(self, name: str, device: HostUsbDevice) -> None:
        directory = self._usb / "devices" / name
        directory.mkdir()
        texts = {
            "busnum": str(device.bus),
            "devnum": str(device.device),
            "idVendor": f"{device.vendor:04x}",
            "idProduct": f"{device.product_id:04x}",
            "bDeviceClass": f"{device.device_class:02x}",
            "manufacturer": device.manufacturer,
            "product": device.product,
            "speed": device.speed,
        }
        if device.serial is not None:
            texts["serial"] = device.serial
        for attribute, text in texts.items():
            (directory / attribute).write_text(f"{text}\n")
        (directory / "driver").symlink_to("../../drivers/usb")

    def _add_interface(self, name: str, number: int, interface_class: int, driver: str | None) -> None:
        directory = self._usb / "devices" / name
        directory.mkdir()
        (directory / "bInterfaceClass").write_text(f"{interface_class:02x}\n")
        (directory / "bInterfaceNumber").write_text(f"{number:02x}\n")
        if driver is not None:
            if not (self._usb / "drivers" / driver).is_dir():
                self._add_driver(driver)
            (directory / "driver").symlink_to(f"../../drivers/{driver}")
