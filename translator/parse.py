"""A checked tree becomes a `Domain`: the only stage that knows elements and attributes.

Numbers are read as libvirt reads them (C's strtol over the whole text; decimal for indexes and ports, any C
base for ids), so that a document means here what it means there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from translator.domain import ControllerElement, DeviceElement, Domain, PciAddress, UsbAddress
from translator.errors import Diagnostic, DocumentError
from translator.models import XEN_MACHINES
from translator.topology import HostDevice, Untranslated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lxml.etree import _Element

    from translator.topology import Guest, Hypervisor, Kind
    from translator.validate import Document

HYPERVISORS: dict[str, Hypervisor] = {"xen": "xen", "qemu": "qemu", "kvm": "kvm"}
XEN_GUESTS: dict[str, Guest] = {"hvm": "hvm", "linux": "pv", "xen": "pv", "xenpvh": "pvh"}
QEMU_GUESTS: dict[str, Guest] = {"hvm": "hvm"}
# Source: the default machine that libvirt takes from `qemu-system-ARCH -machine help`.
QEMU_MACHINES = {
    "x86_64": "pc",
    "i686": "pc",
    "aarch64": "virt",
    "ppc64": "pseries",
    "s390x": "s390-ccw-virtio",
}
INPUTS: dict[str, Kind] = {"tablet": "tablet", "mouse": "mouse", "keyboard": "keyboard"}

# Xen has no domain beyond. Source: DOMID_FIRST_RESERVED (xen/include/public/xen.h), less one.
_DOMID_MAX = 0x7FF0 - 1
_SIGNED_MAX = 2**31 - 1
_UNSIGNED_MAX = 2**32 - 1
_NUMBERS = {
    10: re.compile(r"[ \t\n\v\f\r]*(\+?\d+)", re.ASCII),
    0: re.compile(r"[ \t\n\v\f\r]*(\+?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*))", re.ASCII),
}
# A dot between two components may be missing where the next still reads as a number: "1 2" is 1.2. Possessive,
# so that a row of digits is never tried in parts.
_PORT = re.compile(r"[ \t\n\v\f\r]*+\+?\d++(?:\.?[ \t\n\v\f\r]*+\+?\d++){0,3}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{32}")
_USER_ALIAS = re.compile(r"ua-[A-Za-z0-9_-]*")
# More digits than any limit has.
_MOST_DIGITS = 20
_LONGEST_WORD = 60


def parse(document: Document) -> Domain:
    """Return what the document says about its domain.

    Raises:
        DocumentError: with every fault of the document's values; nothing is guessed.
    """
    return _Parser(document).domain()


class _Place(NamedTuple):
    element: _Element
    path: str


class _Parser:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.faults: list[Diagnostic] = []
        self.aliases: set[str] = set()

    def domain(self) -> Domain:
        root = self.document.root
        place = _Place(root, "/domain")
        hypervisor = self.hypervisor(place)
        guest = self.guest(place, hypervisor)
        os_type = root.find("os/type")
        arch = (os_type.get("arch") if os_type is not None else None) or "x86_64"
        machine = os_type.get("machine") if os_type is not None else None
        if os_type is not None:
            for attribute in ("arch", "machine"):
                if os_type.get(attribute):
                    self.check_word(_Place(os_type, f"{place.path}/os/type"), attribute, attribute)
        if not machine:
            machine = XEN_MACHINES[guest] if hypervisor == "xen" else QEMU_MACHINES.get(arch, "none")
        controllers: list[ControllerElement] = []
        devices: list[DeviceElement] = []
        untranslated: list[Untranslated] = []
        ordinals: dict[str, int] = {}
        emulator = None
        for child in self.children(place):
            tag = child.element.tag
            if tag == "emulator":
                emulator = (child.element.text or "").strip() or None
                if emulator:
                    self.check_word(child, None, "emulator", path=True)
                continue
            part: ControllerElement | DeviceElement | None = None
            if tag == "controller" and child.element.get("type") == "usb":
                part = self.controller(child)
                controllers.append(part)
            elif tag in ("hostdev", "input", "hub"):
                ordinal = ordinals.get(tag, 0)
                part = self.device(child, ordinal)
                # libvirt numbers hostdevs past those only that have no alias of the user's
                if tag != "hostdev" or self.alias(child) is None:
                    ordinals[tag] = ordinal + 1
                if part is not None:
                    devices.append(part)
            if part is None:
                untranslated.append(Untranslated(child.path, self.document.locator.source(child.element)))
        domain = Domain(
            file=self.document.file,
            data=self.document.data,
            path=place.path,
            source=self.document.locator.source(root),
            name=self.name(place),
            uuid=self.uuid(place),
            hypervisor=hypervisor,
            guest=guest,
            arch=arch,
            machine=machine,
            domid=self.domid(place) if hypervisor == "xen" else None,
            emulator=emulator,
            controllers=tuple(controllers),
            devices=tuple(devices),
            untranslated=tuple(untranslated),
            warnings=self.document.warnings,
        )
        if self.faults:
            raise DocumentError(self.faults)
        return domain

    # Whose domain it is

    def hypervisor(self, domain: _Place) -> Hypervisor:
        word = domain.element.get("type")
        if word in HYPERVISORS:
            return HYPERVISORS[word]
        self.fault(
            "T316",
            domain,
            "type",
            f"domain type {_quoted(word or '')} is not one that can be translated",
            _possible(HYPERVISORS),
        )
        return "qemu"

    def domid(self, domain: _Place) -> int | None:
        """Return the id of a running Xen domain; QEMU's domains have one too, but only libvirt knows it."""
        if domain.element.get("id") == "-1":
            return None
        return self.number(domain, "id", most=_DOMID_MAX)

    def guest(self, domain: _Place, hypervisor: Hypervisor) -> Guest:
        element = domain.element.find("os/type")
        word = (element.text or "").strip() if element is not None else ""
        if domain.element.get("type") not in HYPERVISORS:
            return "hvm"  # which types there are hangs on what was refused
        known = XEN_GUESTS if hypervisor == "xen" else QEMU_GUESTS
        if word in known:
            return known[word]
        if not word:
            # a Xen guest that pygrub starts has a <bootloader> and no <os>
            return "pv" if hypervisor == "xen" else "hvm"
        place = _Place(element if element is not None else domain.element, f"{domain.path}/os/type")
        self.fault(
            "T316",
            place,
            None,
            f"os type {_quoted(word)} does not exist for domain type {hypervisor!r}",
            _possible(known),
        )
        return "hvm"

    def name(self, domain: _Place) -> str:
        element = domain.element.find("name")
        name = (element.text or "") if element is not None else ""
        place = _Place(element if element is not None else domain.element, f"{domain.path}/name")
        self.check_word(place, None, "domain's name")
        return name

    def uuid(self, domain: _Place) -> str | None:
        element = domain.element.find("uuid")
        if element is None:
            return None
        text = (element.text or "").strip()
        digits = text.replace("-", "").lower()
        if not _UUID.fullmatch(digits):
            self.fault(
                "T319",
                _Place(element, f"{domain.path}/uuid"),
                None,
                f"{_quoted(text)} is not a UUID",
                "a UUID has 32 hexadecimal digits: 8-4-4-4-12",
            )
            return None
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    # Controllers and devices

    def controller(self, place: _Place) -> ControllerElement:
        master = self.child(place, "master")
        backend = self.child(place, "backenddomain")
        address = self.child(place, "address")
        pci = None
        if address is not None and address.element.get("type") == "pci":
            pci = self.pci(address)
        return ControllerElement(
            path=place.path,
            source=self.document.locator.source(place.element),
            index=self.number(place, "index", most=_SIGNED_MAX),
            model=place.element.get("model"),
            ports=self.number(place, "ports", most=_SIGNED_MAX),
            startport=self.number(master, "startport", most=_UNSIGNED_MAX) if master else None,
            pci=pci,
            alias=self.own_alias(place),
            backend=self.backend(backend) if backend else None,
        )

    def backend(self, backend: _Place) -> str | None:
        """Return the backend domain's name, or its id in digits."""
        name = backend.element.get("name", "")
        if name.isascii() and name.isdigit():
            number = self.number(backend, "name", most=_DOMID_MAX)
            return None if number is None else str(number)
        # the name stands in a placeholder, which the first brace would end
        self.check_word(backend, "name", "backend domain's name", forbidden="/}")
        return name

    def device(self, place: _Place, ordinal: int) -> DeviceElement | None:
        """Return the USB device that the element stands for; None when it is none of USB's."""
        element = place.element
        kind: Kind
        host = None
        if element.tag == "hostdev":
            if element.get("mode", "subsystem") != "subsystem" or element.get("type") != "usb":
                return None
            kind = "hostdev"
            host = self.host(place)
        elif element.tag == "input":
            if element.get("bus") != "usb" or element.get("type") not in INPUTS:
                return None
            kind = INPUTS[element.get("type", "")]
        else:
            kind = "hub"
        return DeviceElement(
            path=place.path,
            source=self.document.locator.source(element),
            kind=kind,
            ordinal=ordinal,
            address=self.usb_address(place),
            alias=self.own_alias(place),
            host=host,
        )

    def host(self, hostdev: _Place) -> HostDevice | None:
        source = self.child(hostdev, "source")
        if source is None:
            self.fault(
                "T312",
                hostdev,
                None,
                "the <hostdev> has no <source>",
                "say which device of the host is meant",
            )
            return None
        found: dict[str, int] = {}
        for name in ("vendor", "product"):
            child = self.child(source, name)
            if child is not None:
                number = self.number(child, "id", base=0, most=0xFFFF, required=True)
                if number is not None:
                    found[name] = number
        address = self.child(source, "address")
        path = None
        if address is not None:
            bus = self.number(address, "bus", base=0, most=_UNSIGNED_MAX, required=True)
            port = self.port(address)
            if port is not None:
                path = f"{bus}-{port}"
            else:
                number = self.number(address, "device", base=0, most=_UNSIGNED_MAX, required=True)
                if bus and number:
                    found |= {"bus": bus, "device": number}
        named = "device" in found or path is not None or (found.get("vendor") and "product" in found)
        if not named:
            self.fault(
                "T312",
                source,
                None,
                "the <source> does not name a device of the host",
                "give <vendor id=…/> with <product id=…/>, or <address bus=… device=…/>, or both",
            )
            return None
        return HostDevice(**found, path=path)

    def usb_address(self, device: _Place) -> UsbAddress | None:
        address = self.child(device, "address")
        if address is None:
            return None
        if address.element.get("type") != "usb":
            kind = address.element.get("type")
            self.fault(
                "T306",
                address,
                "type",
                f"a USB device cannot have an address of type {_quoted(kind or '')}",
                _possible(("usb",)),
            )
            return None
        return UsbAddress(self.number(address, "bus", most=_UNSIGNED_MAX), self.port(address))

    def pci(self, address: _Place) -> PciAddress | None:
        numbers = {
            name: self.number(address, name, base=0, most=most) or 0
            for name, most in (("domain", 0xFFFF), ("bus", 0xFF), ("slot", 0x1F), ("function", 7))
        }
        if not any(numbers.values()):
            return None  # libvirt takes an address of zeros for none
        multifunction = {"on": True, "off": False}.get(address.element.get("multifunction", ""))
        return PciAddress(**numbers, multifunction=multifunction)

    def alias(self, place: _Place) -> str | None:
        """Return the user's alias; any other is libvirt's own and not kept."""
        alias = self.child(place, "alias")
        name = alias.element.get("name", "") if alias else ""
        return name if _USER_ALIAS.fullmatch(name) else None

    def own_alias(self, place: _Place) -> str | None:
        """Return the user's alias, which no other element may have: it becomes the id of a QMP device."""
        name = self.alias(place)
        if name is None:
            return None
        if name in self.aliases:
            self.fault(
                "T319",
                self.child(place, "alias") or place,
                "name",
                f"the alias {_quoted(name)} is given twice",
                "each controller and device has an alias of its own",
            )
        self.aliases.add(name)
        return name

    # Words, elements, numbers, faults

    def check_word(
        self, place: _Place, attribute: str | None, what: str, *, path: bool = False, forbidden: str = "/"
    ) -> None:
        """Refuse a text that would be more than a word in a plan: part of a path, a placeholder, a second line."""
        word = (place.element.text if attribute is None else place.element.get(attribute)) or ""
        bad = "" if path else forbidden
        if (
            not word.strip()
            or word in (".", "..")
            or not (word.strip() if path else word).isprintable()
            or "${" in word
            or any(character in word for character in bad)
        ):
            without = ", ".join(repr(sign) for sign in (*bad, "${"))
            self.fault(
                "T319",
                place,
                attribute,
                f"the {what} is {_quoted(word)}",
                f"it is not empty and has no {without}, no line break and no other control character",
            )

    def children(self, domain: _Place) -> list[_Place]:
        counts: dict[str, int] = {}
        places = []
        for devices in domain.element.iterfind("devices"):
            for element in devices.iterchildren("*"):
                counts[element.tag] = count = counts.get(element.tag, 0) + 1
                places.append(_Place(element, f"{domain.path}/devices/{element.tag}[{count}]"))
        return places

    def child(self, place: _Place, name: str) -> _Place | None:
        """Return the first child of that name, the only one that libvirt looks at."""
        element = place.element.find(name)
        return _Place(element, f"{place.path}/{name}") if element is not None else None

    def number(
        self, place: _Place, attribute: str, *, base: int = 10, most: int, required: bool = False
    ) -> int | None:
        text = place.element.get(attribute)
        if text is None:
            if required:
                self.fault("T306", place, None, f"<{place.element.tag}> lacks the attribute {attribute!r}")
            return None
        match = _NUMBERS[base].fullmatch(text)
        if match is None:
            kind = "a whole number" if base == 10 else "a whole number (decimal, 0x… or 0…)"
            self.fault("T306", place, attribute, f"{attribute} is {_quoted(text)}, which is not {kind} of at least 0")
            return None
        value = _c_number(match[1], base)
        if value > most:
            shown = hex(most) if base == 0 else str(most)
            self.fault("T306", place, attribute, f"{attribute} is {_quoted(text)}; the largest possible is {shown}")
            return None
        return value

    def port(self, address: _Place) -> str | None:
        """Read a dotted port; for libvirt a first 0 means "no port", and zeros at the end vanish."""
        text = address.element.get("port")
        if text is None:
            return None
        numbers = [_decimal(digits) for digits in re.findall(r"\d+", text, re.ASCII)]
        if not _PORT.fullmatch(text) or max(numbers) > _UNSIGNED_MAX:
            self.fault(
                "T306",
                address,
                "port",
                f"port is {_quoted(text)}, which is not a USB port",
                "a port is one to four numbers with dots between, from the root port down: '1', '1.2'",
            )
            return None
        while numbers and numbers[-1] == 0:
            numbers.pop()
        return ".".join(map(str, numbers)) if numbers and numbers[0] else None

    def fault(self, code: str, place: _Place, attribute: str | None, message: str, help: str | None = None) -> None:
        source = self.document.locator.source(place.element, attribute)
        self.faults.append(
            Diagnostic(
                code=code,
                message=message,
                help=help,
                file=self.document.file,
                line=source.line,
                column=source.column,
                element=place.path + (f"/@{attribute}" if attribute else ""),
            )
        )


def _possible(words: Iterable[str]) -> str:
    return f"possible: {', '.join(words)}"


def _quoted(word: str) -> str:
    return repr(word if len(word) <= _LONGEST_WORD else word[:_LONGEST_WORD] + "…")


def _decimal(digits: str) -> int:
    """Read decimal digits; a number beyond every limit stays beyond, whose thousands of digits Python refuses."""
    return int(digits.lstrip("0")[:_MOST_DIGITS] or "0")


def _c_number(text: str, base: int) -> int:
    """Read digits as C does: with base 0 a leading 0 means octal."""
    digits = text.lstrip("+")
    if base == 10:
        return _decimal(digits)
    if digits[:2] in ("0x", "0X"):
        return int(digits, 16)
    return int(digits, 8) if digits[0] == "0" else _decimal(digits)
