"""An element of `<devices>` becomes the `DeviceElement` that its family says it is; what serves devices is kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.document.domain import Audio, DeviceElement, RedirRule
from translator.document.parse_disks import Disks
from translator.document.reader import Place
from translator.families import by_tag

if TYPE_CHECKING:
    from translator.document.domain import Certificates, CharSource, UnitAddress, UsbAddress
    from translator.document.reader import Reader
    from translator.topology import ElementKind, Family, HostDevice, Hypervisor, ScsiHost

# QEMU's words for the audio drivers that libvirt calls otherwise.
_AUDIO_DRIVERS = {"pulseaudio": "pa", "file": "wav"}
_VERSION = re.compile(r"(\d{1,2})\.(\d{1,2})", re.ASCII)


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
        self.disks = Disks(reader)
        self.audios: list[Audio] = []
        self.filters: list[RedirRule] | None = None

    def read(self, place: Place) -> bool:
        """Note what the element says; tell whether it is on USB, or serves what is."""
        tag = place.element.tag
        if tag == "redirfilter":
            self._filter(place)
            return self.redirects
        if tag == "audio":
            return self._audio(place)
        ordinal = self.ordinals.get(tag, 0)
        found = (family.device(self, place, ordinal) for family in by_tag().get(tag, ()))
        element = next((one for one in found if one is not None), None)
        # libvirt numbers hostdevs past those only that have no alias of the user's
        if tag != "hostdev" or self.reader.alias(place) is None:
            self.ordinals[tag] = ordinal + 1
        if element is not None:
            self.found.append(element)
        return element is not None and element.translated

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

    def boot(self, place: Place) -> int | None:
        boot = self.reader.child(place, "boot")
        return self.reader.number(boot, "order", least=1, required=True) if boot else None

    def _filter(self, place: Place) -> None:
        if self.filters is not None:
            self.reader.fault("T328", place, None, "there is a second <redirfilter>", "put its rules into the first")
            return
        self.filters = []
        for number, element in enumerate(place.element.iterfind("usbdev"), 1):
            rule = Place(element, f"{place.path}/usbdev[{number}]")
            self.filters.append(
                RedirRule(
                    usb_class=self._number_or_any(rule, "class", 0xFF),
                    vendor=self._number_or_any(rule, "vendor", 0xFFFF),
                    product=self._number_or_any(rule, "product", 0xFFFF),
                    version=self._version(rule),
                    allow=element.get("allow") == "yes",
                )
            )

    def _number_or_any(self, rule: Place, name: str, most: int) -> int | None:
        if re.fullmatch(r"\s*-\d+", rule.element.get(name, ""), re.ASCII):
            return None
        return self.reader.number(rule, name, base=0, most=most)

    def _version(self, rule: Place) -> int | None:
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

    def _audio(self, place: Place) -> bool:
        id = self.reader.number(place, "id", least=1, required=True)
        type = place.element.get("type", "none")
        if id is not None:
            self.audios.append(Audio(id, _AUDIO_DRIVERS.get(type, type)))
        return self.plays
