"""A `<disk>` becomes the `Disk` that it is, whatever its bus: families ask for theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.document.domain import DISK_NAME, Disk, Image
from translator.document.reader import attributes, possible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.document.reader import Place, Reader

# Where a disk goes that names no bus. Source: virDomainDiskDefParseXML (conf/domain_conf.c), as observed.
_BUSSES = {"f": "fdc", "h": "ide", "s": "scsi", "v": "virtio", "x": "xen", "u": "uml"}


class Disks:
    """The disks of a document, each read when it is first asked for."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.found: list[Disk] = []
        self._numbers: dict[str, int | None] = {}  # by path

    def at(self, place: Place) -> int | None:
        """Return the place in `found` of the disk that an element is, whatever its bus; None when it is none."""
        if place.element.tag != "disk":
            return None
        if place.path not in self._numbers:
            self._numbers[place.path] = self._read(place)
        return self._numbers[place.path]

    def _read(self, place: Place) -> int | None:
        reader, element = self.reader, place.element
        target, device = element.find("target"), element.get("device", "disk")
        name = target.get("dev", "") if target is not None else ""
        bus = target.get("bus") if target is not None else None
        bus = bus or _BUSSES.get(name[:1], "")
        usb = bus == "usb"
        if not DISK_NAME.fullmatch(name):
            if usb:
                self._fault(place, "target", "dev", f"{name!r} is no disk's name", "a name is such as 'sda'")
            return None
        removable = target.get("removable") if target is not None else None
        if removable is not None and not usb:
            self._fault(
                place, "target", "removable", "only a disk on bus 'usb' can be removable", "leave removable out"
            )
        disk = Disk(path=place.path, source=reader.source(place), target=name, bus=bus, device=device)
        if usb and device not in ("disk", "cdrom"):
            self._fault(
                place, None, "device", f"bus 'usb' has no disks of device {device!r}", possible(("disk", "cdrom"))
            )
        elif usb:
            self._check_on_usb(place, disk)
        self.found.append(self._with_image(place, disk, removable == "on"))
        return len(self.found) - 1

    def _check_on_usb(self, place: Place, disk: Disk) -> None:
        type = place.element.get("type", "file")
        encrypted = self._encrypted(place)
        if type not in ("file", "block") or encrypted:
            what = "that is encrypted" if encrypted else f"of type {type!r}"
            self.reader.fault(
                "T330", place, None, f"a USB disk {what} is not translated", "possible: type file or block"
            )
        elif not self._image_path(place) and disk.device == "disk":
            self._fault(place, None, None, f"disk {disk.target!r} has no <source>", "only a CD drive can be empty")

    def _encrypted(self, place: Place) -> bool:
        return place.element.find("encryption") is not None or place.element.find("source/encryption") is not None

    def _image_path(self, place: Place) -> str | None:
        block = place.element.get("type", "file") == "block"
        return self.reader.attribute(place, "source", "dev" if block else "file") or None

    def _with_image(self, place: Place, disk: Disk, removable: bool) -> Disk:
        element, type = place.element, place.element.get("type", "file")
        driver = element.find("driver")
        options: Mapping[str, str] = attributes(driver) if driver is not None else {}
        path = self._image_path(place)
        image = None
        if type in ("file", "block") and path is not None and not self._encrypted(place):
            image = Image(
                driver="host_device" if type == "block" else "file",
                path=path,
                format=options.get("type", "raw"),
            )
        return Disk(
            path=disk.path,
            source=disk.source,
            target=disk.target,
            bus=disk.bus,
            device=disk.device,
            image=image,
            read_only=disk.device == "cdrom" or element.find("readonly") is not None,
            shareable=element.find("shareable") is not None,
            removable=removable,
            serial=(element.findtext("serial") or "").strip() or None,
            cache=options.get("cache"),
            discard=options.get("discard"),
            detect_zeroes=options.get("detect_zeroes"),
            io=options.get("io"),
            error_policy=options.get("error_policy"),
            read_error_policy=options.get("rerror_policy"),
        )

    def _fault(self, place: Place, below: str | None, attribute: str | None, message: str, help: str) -> None:
        part = self.reader.child(place, below) if below else None
        self.reader.fault("T323", part or place, attribute, message, help)
