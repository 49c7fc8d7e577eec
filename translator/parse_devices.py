"""An element of `<devices>` becomes the `DeviceElement` that it is on USB, kind by kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.domain import DISK_NAME, Audio, Certificates, DeviceElement, Disk, Image, RedirRule
from translator.families import by_tag
from translator.parse_chardev import char_source
from translator.reader import SIGNED_MAX, Place, attributes, possible, quoted
from translator.topology import HostDevice
from translator.words import is_serial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from translator.domain import CharSource, UnitAddress, UsbAddress
    from translator.reader import Reader
    from translator.topology import ElementKind, Family, Hypervisor, ScsiHost

INPUTS: dict[str, ElementKind] = {"tablet": "tablet", "mouse": "mouse", "keyboard": "keyboard"}
# Where a disk goes that names no bus. Source: virDomainDiskDefParseXML (conf/domain_conf.c), as observed.
_DISK_BUSSES = {"f": "fdc", "h": "ide", "s": "scsi", "v": "virtio", "x": "xen", "u": "uml"}
# QEMU's words for the audio drivers that libvirt calls otherwise.
_AUDIO_DRIVERS = {"pulseaudio": "pa", "file": "wav"}
_VERSION = re.compile(r"(\d{1,2})\.(\d{1,2})", re.ASCII)
_CERTIFICATE_DATABASE = "/etc/pki/nssdb"


class Devices:
    """The devices of a document, gathered one after the other."""

    def __init__(self, reader: Reader, hypervisor: Hypervisor, arch: str) -> None:
        self.reader = reader
        self.hypervisor = hypervisor
        self.x86 = arch in ("x86_64", "i686")
        root = reader.document.root
        self.redirects = root.find("devices/redirdev") is not None
        self.plays = root.find("devices/sound[@model='usb']") is not None
        self.ordinals: dict[str, int] = {}
        self.found: list[DeviceElement] = []
        self.disks: list[Disk] = []
        self.disk_numbers: dict[str, int | None] = {}  # by path
        self.audios: list[Audio] = []
        self.filters: list[RedirRule] | None = None
        self.kinds: dict[str, Callable[[Place, int], DeviceElement | None]] = {
            "hostdev": self.hostdev,
            "input": self.input,
            "controller": self.ccid,
            "hub": self.hub,
            "redirdev": self.redirdev,
            "disk": self.disk,
            "smartcard": self.smartcard,
            "sound": self.sound,
            "serial": self.serial,
            "interface": self.interface,
        }

    def read(self, place: Place) -> bool:
        """Note what the element says; tell whether it is on USB, or serves what is."""
        tag = place.element.tag
        if tag == "redirfilter":
            self.filter(place)
            return self.redirects
        if tag == "audio":
            return self.audio(place)
        ordinal = self.ordinals.get(tag, 0)
        found = (family.device(self, place, ordinal) for family in by_tag().get(tag, ()))
        element = next((one for one in found if one is not None), None)
        # libvirt numbers hostdevs past those only that have no alias of the user's
        if tag != "hostdev" or self.reader.alias(place) is None:
            self.ordinals[tag] = ordinal + 1
        if element is not None:
            self.found.append(element)
        return element is not None and element.translated

    def on_usb(self, place: Place, ordinal: int) -> DeviceElement | None:
        """Return what the element says as a USB device; None when it is none."""
        return self.kinds[place.element.tag](place, ordinal)

    def element(
        self,
        place: Place,
        kind: ElementKind,
        ordinal: int,
        *,
        address: UsbAddress | None = None,
        index: int | None = None,
        host: HostDevice | None = None,
        boot: int | None = None,
        guest_reset: str | None = None,
        startup_policy: str | None = None,
        chardev: CharSource | None = None,
        name: str | None = None,
        disk: int | None = None,
        certificates: Certificates | None = None,
        audio: int | None = None,
        mac: str | None = None,
        family: Family = "usb",
        unit: UnitAddress | None = None,
        translated: bool = True,
        scsi: ScsiHost | None = None,
        read_only: bool = False,
    ) -> DeviceElement:
        return DeviceElement(
            path=place.path,
            source=self.reader.source(place),
            kind=kind,
            ordinal=ordinal,
            address=address,
            alias=self.reader.alias(place),
            index=index,
            host=host,
            boot=boot,
            guest_reset=guest_reset,
            startup_policy=startup_policy,
            chardev=chardev,
            name=name,
            disk=disk,
            certificates=certificates,
            audio=audio,
            mac=mac,
            family=family,
            unit=unit,
            translated=translated,
            scsi=scsi,
            read_only=read_only,
        )

    # What has nothing behind it

    def hub(self, place: Place, ordinal: int) -> DeviceElement:
        address = self.reader.child(place, "address")
        foreign = address is not None and address.element.get("type") in _FOREIGN_ADDRESSES
        # libvirt drops a hub's address that is not of USB, and gives it one
        return self.element(place, "hub", ordinal, address=None if foreign else self.reader.usb_address(place))

    def input(self, place: Place, ordinal: int) -> DeviceElement | None:
        type, bus = place.element.get("type", ""), place.element.get("bus")
        if bus is None:
            emulated = self.x86 and type in ("mouse", "keyboard")
            bus = "usb" if type in INPUTS and not emulated and self.hypervisor != "xen" else None
        if bus == "usb" and type in INPUTS:
            return self.element(place, INPUTS[type], ordinal, address=self.reader.usb_address(place))
        if (bus == "usb" and type == "passthrough") or (bus == "ps2" and type == "tablet"):
            instead = "virtio" if type == "passthrough" else "usb or virtio"
            self.reader.fault(
                "T334",
                place,
                "bus",
                f"bus {bus!r} has no input devices of type {type!r}",
                f"possible for a {type}: {instead}",
            )
        elif bus == "xen" and self.hypervisor != "xen":
            self.reader.fault("T334", place, "bus", "only a Xen domain has inputs on bus 'xen'", "possible: ps2, usb")
        return None

    def ccid(self, place: Place, ordinal: int) -> DeviceElement | None:
        if place.element.get("type") != "ccid":
            return None
        index = self.reader.number(place, "index", most=SIGNED_MAX)
        return self.element(place, "ccid", 0, address=self.reader.usb_address(place), index=index)

    # Devices of the host

    def hostdev(self, place: Place, ordinal: int) -> DeviceElement | None:
        if place.element.get("type") != "usb":
            return None
        if place.element.get("mode", "subsystem") != "subsystem":
            self.reader.fault(
                "T334", place, "mode", "only mode 'subsystem' has devices of type 'usb'", "possible: subsystem"
            )
            return None
        source = self.reader.child(place, "source")
        return self.element(
            place,
            "hostdev",
            ordinal,
            address=self.reader.usb_address(place),
            host=self.host(place, source),
            boot=self.boot(place),
            guest_reset=source.element.get("guestReset") if source else None,
            startup_policy=source.element.get("startupPolicy") if source else None,
        )

    def host(self, hostdev: Place, source: Place | None) -> HostDevice | None:
        reader = self.reader
        if source is None:
            reader.fault(
                "T312", hostdev, None, "the <hostdev> has no <source>", "say which device of the host is meant"
            )
            return None
        found: dict[str, int] = {}
        for name in ("vendor", "product"):
            child = reader.child(source, name)
            if child is not None:
                number = reader.number(child, "id", base=0, most=0xFFFF, required=True)
                if number is not None:
                    found[name] = number
        address = reader.child(source, "address")
        path = None
        if address is not None:
            bus = reader.number(address, "bus", base=0, required=True)
            port = reader.port(address)
            if port is not None:
                path = f"{bus}-{port}"
            else:
                number = reader.number(address, "device", base=0, required=True)
                if bus and number:
                    found |= {"bus": bus, "device": number}
        serial = self.serial_number(source)
        half = ("vendor" in found) != ("product" in found) or found.get("vendor") == 0
        if half or not ("vendor" in found or "device" in found or path is not None or serial is not None):
            reader.fault(
                "T312",
                source,
                None,
                "the <source> does not name a device of the host",
                "give <vendor id=…/> with <product id=…/>, <address bus=… device=…/> or bus=… port=…, or <serial>",
            )
            return None
        return HostDevice(**found, path=path, serial=serial)

    def serial_number(self, source: Place) -> str | None:
        """Return the serial number that a host device is named by, if it is."""
        place = self.reader.child(source, "serial")
        if place is None:
            return None
        text = (place.element.text or "").strip()
        if not is_serial(text):
            self.reader.fault(
                "T312",
                place,
                None,
                f"{quoted(text)} is no serial number",
                "it is what the file 'serial' of the device says, in /sys/bus/usb/devices",
            )
        return text

    # What stands on a character device

    def redirdev(self, place: Place, ordinal: int) -> DeviceElement | None:
        return self.element(
            place,
            "redirdev",
            ordinal,
            address=self.reader.usb_address(place),
            boot=self.boot(place),
            chardev=char_source(self.reader, place, place.element.get("type", "")),
        )

    def serial(self, place: Place, ordinal: int) -> DeviceElement | None:
        target = self.reader.child(place, "target")
        type = target.element.get("type") if target else None
        model = self.reader.attribute(place, "target/model", "name")
        if target is not None and model is not None and (type == "usb-serial") != (model == "usb-serial"):
            if "usb-serial" in (type, model):
                self.reader.fault(
                    "T334",
                    target,
                    None,
                    f"model {model!r} does not go with target type {type or 'isa-serial'!r}",
                    "a usb-serial has both, or no model",
                )
            return None
        if type != "usb-serial":
            return None
        return self.element(
            place,
            "serial",
            ordinal,
            address=self.reader.usb_address(place),
            chardev=char_source(self.reader, place, place.element.get("type", "pty")),
        )

    def smartcard(self, place: Place, ordinal: int) -> DeviceElement | None:
        reader, mode = self.reader, place.element.get("mode")
        address = reader.child(place, "address")
        if address is not None and address.element.get("type") != "ccid":
            reader.fault(
                "T306",
                address,
                "type",
                f"a smartcard cannot have an address of type {address.element.get('type')!r}",
                "possible: ccid",
            )
        elif address is not None and any(reader.number(address, name) for name in ("controller", "slot")):
            reader.fault(
                "T327",
                address,
                None,
                "a smartcard can only be in slot 0 of ccid controller 0",
                "leave the address out",
            )
        chardev = certificates = None
        if mode == "passthrough" and place.element.get("type") is None:
            reader.fault("T322", place, None, "a smartcard of mode 'passthrough' needs a type", "such as type='tcp'")
        elif mode == "passthrough":
            chardev = char_source(self.reader, place, place.element.get("type", ""))
        elif mode == "host-certificates":
            names = [(one.text or "").strip() for one in place.element.iterfind("certificate")]
            if len(names) != 3:
                reader.fault("T327", place, None, f"{len(names)} certificates are named, and three are needed")
                return None
            database = place.element.findtext("database") or _CERTIFICATE_DATABASE
            certificates = Certificates((names[0], names[1], names[2]), database)
        return self.element(place, "smartcard", ordinal, chardev=chardev, certificates=certificates)

    def filter(self, place: Place) -> None:
        if self.filters is not None:
            self.reader.fault("T328", place, None, "there is a second <redirfilter>", "put its rules into the first")
            return
        self.filters = []
        for number, element in enumerate(place.element.iterfind("usbdev"), 1):
            rule = Place(element, f"{place.path}/usbdev[{number}]")
            self.filters.append(
                RedirRule(
                    usb_class=self.number_or_any(rule, "class", 0xFF),
                    vendor=self.number_or_any(rule, "vendor", 0xFFFF),
                    product=self.number_or_any(rule, "product", 0xFFFF),
                    version=self.version(rule),
                    allow=element.get("allow") == "yes",
                )
            )

    def number_or_any(self, rule: Place, name: str, most: int) -> int | None:
        if re.fullmatch(r"\s*-\d+", rule.element.get(name, ""), re.ASCII):
            return None
        return self.reader.number(rule, name, base=0, most=most)

    def version(self, rule: Place) -> int | None:
        """Return a version as USB has it: BCD, and 2.5 is 0x0250."""
        text = rule.element.get("version")
        if text is None or text == "-1":
            return None
        match = _VERSION.fullmatch(text)
        if match is None:
            self.reader.fault(
                "T328", rule, "version", f"version {text!r} is none of USB's", "such as 2.0, or -1 for any"
            )
            return None
        return int(match[1] + match[2].ljust(2, "0"), 16)

    # Disks, sound, network

    def disk(self, place: Place, ordinal: int) -> DeviceElement | None:
        number = self.disk_at(place)
        if number is None or self.disks[number].bus != "usb":
            return None
        return self.element(
            place,
            "disk",
            ordinal,
            address=self.reader.usb_address(place),
            boot=self.boot(place),
            disk=number,
        )

    def disk_at(self, place: Place) -> int | None:
        """Return the place in `disks` of the disk that an element is, whatever its bus; None when it is none."""
        if place.element.tag != "disk":
            return None
        if place.path not in self.disk_numbers:
            self.disk_numbers[place.path] = self.any_disk(place)
        return self.disk_numbers[place.path]

    def any_disk(self, place: Place) -> int | None:
        reader, element = self.reader, place.element
        target, device = element.find("target"), element.get("device", "disk")
        name = target.get("dev", "") if target is not None else ""
        bus = target.get("bus") if target is not None else None
        bus = bus or _DISK_BUSSES.get(name[:1], "")
        usb = bus == "usb"
        if not DISK_NAME.fullmatch(name):
            if usb:
                self.disk_fault(place, "target", "dev", f"{name!r} is no disk's name", "a name is such as 'sda'")
            return None
        removable = target.get("removable") if target is not None else None
        if removable is not None and not usb:
            self.disk_fault(
                place, "target", "removable", "only a disk on bus 'usb' can be removable", "leave removable out"
            )
        disk = Disk(path=place.path, source=reader.source(place), target=name, bus=bus, device=device)
        if usb and device not in ("disk", "cdrom"):
            self.disk_fault(
                place, None, "device", f"bus 'usb' has no disks of device {device!r}", possible(("disk", "cdrom"))
            )
        elif usb:
            self.check_usb_disk(place, disk)
        self.disks.append(self.with_image(place, disk, removable == "on"))
        return len(self.disks) - 1

    def check_usb_disk(self, place: Place, disk: Disk) -> None:
        type = place.element.get("type", "file")
        encrypted = self.encrypted(place)
        if type not in ("file", "block") or encrypted:
            what = "that is encrypted" if encrypted else f"of type {type!r}"
            self.reader.fault(
                "T330", place, None, f"a USB disk {what} is not translated", "possible: type file or block"
            )
        elif not self.image_path(place) and disk.device == "disk":
            self.disk_fault(
                place, None, None, f"disk {disk.target!r} has no <source>", "only a CD drive can be empty"
            )

    def encrypted(self, place: Place) -> bool:
        return place.element.find("encryption") is not None or place.element.find("source/encryption") is not None

    def image_path(self, place: Place) -> str | None:
        block = place.element.get("type", "file") == "block"
        return self.reader.attribute(place, "source", "dev" if block else "file") or None

    def with_image(self, place: Place, disk: Disk, removable: bool) -> Disk:
        element, type = place.element, place.element.get("type", "file")
        driver = element.find("driver")
        options: Mapping[str, str] = attributes(driver) if driver is not None else {}
        path = self.image_path(place)
        image = None
        if type in ("file", "block") and path is not None and not self.encrypted(place):
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

    def disk_fault(self, place: Place, below: str | None, attribute: str | None, message: str, help: str) -> None:
        part = self.reader.child(place, below) if below else None
        self.reader.fault("T323", part or place, attribute, message, help)

    def audio(self, place: Place) -> bool:
        id = self.reader.number(place, "id", least=1, required=True)
        type = place.element.get("type", "none")
        if id is not None:
            self.audios.append(Audio(id, _AUDIO_DRIVERS.get(type, type)))
        return self.plays

    def sound(self, place: Place, ordinal: int) -> DeviceElement | None:
        if place.element.get("model") != "usb":
            return None
        audio = self.reader.child(place, "audio")
        return self.element(
            place,
            "sound",
            ordinal,
            address=self.reader.usb_address(place),
            audio=self.reader.number(audio, "id", least=1, required=True) if audio else None,
        )

    def interface(self, place: Place, ordinal: int) -> DeviceElement | None:
        if self.reader.attribute(place, "model", "type") != "usb-net":
            return None
        address = self.reader.child(place, "address")
        if address is None:
            self.reader.fault(
                "T334",
                place,
                None,
                "libvirt has no place for a usb-net that names none",
                "name a port: <address type='usb' bus='0' port='1'/>",
            )
            return None
        return self.element(
            place,
            "net",
            ordinal,
            address=self.reader.usb_address(place),
            boot=self.boot(place),
            mac=self.reader.attribute(place, "mac", "address"),
        )

    def boot(self, place: Place) -> int | None:
        boot = self.reader.child(place, "boot")
        return self.reader.number(boot, "order", least=1, required=True) if boot else None


_FOREIGN_ADDRESSES = (
    "pci",
    "drive",
    "virtio-serial",
    "ccid",
    "spapr-vio",
    "virtio-s390",
    "ccw",
    "virtio-mmio",
    "isa",
    "dimm",
    "unassigned",
)
