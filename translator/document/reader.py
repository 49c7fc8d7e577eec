"""An element's children and attributes, read as libvirt reads them, with a fault for each that cannot be.

Numbers are C's strtol over the whole text: decimal for indexes and ports, any C base for ids. Of several
children of one name only the first counts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from translator.document.domain import PciAddress, UsbAddress
from translator.errors import Diagnostic, DocumentError
from translator.findings import LONGEST_WORD, MOST_FAULTS, told
from translator.topology import DOMID_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lxml.etree import _Element

    from translator.document.validate import Document
    from translator.errors import Source

SIGNED_MAX = 2**31 - 1
UNSIGNED_MAX = 2**32 - 1
_NUMBERS = {
    10: re.compile(r"[ \t\n\v\f\r]*(\+?\d+)", re.ASCII),
    0: re.compile(r"[ \t\n\v\f\r]*(\+?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9]\d*))", re.ASCII),
}
# A dot between two components may be missing where the next still reads as a number: "1 2" is 1.2.
# Possessive, so that a row of digits is never tried in parts.
_PORT = re.compile(r"[ \t\n\v\f\r]*+\+?\d++(?:\.?[ \t\n\v\f\r]*+\+?\d++){0,3}", re.ASCII)
# More digits than any limit has.
_MOST_DIGITS = 20
_USER_ALIAS = re.compile(r"ua-[A-Za-z0-9_-]*")


class Place(NamedTuple):
    """An element, and its path for diagnostics; `source` is where it stands, for those that are asked often."""

    element: _Element
    path: str
    source: Source | None = None


class Reader:
    """A document whose faults are gathered as it is read."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.faults: list[Diagnostic] = []

    def source(self, place: Place) -> Source:
        """Return where the element stands."""
        return place.source or self.document.locator.source(place.element)

    def child(self, place: Place, name: str) -> Place | None:
        """Return the first child of that name, the only one that libvirt looks at."""
        element = _below(place.element, name)
        return Place(element, f"{place.path}/{name}") if element is not None else None

    def attribute(self, place: Place, path: str, name: str) -> str | None:
        """Return an attribute of the first element on a path below; None when there is none of either."""
        element = _below(place.element, path)
        return element.get(name) if element is not None else None

    def alias(self, place: Place) -> str | None:
        """Return the user's alias; any other is libvirt's own and not kept."""
        name = self.attribute(place, "alias", "name")
        return name if name is not None and _USER_ALIAS.fullmatch(name) else None

    def number(
        self,
        place: Place,
        attribute: str,
        *,
        base: int = 10,
        least: int = 0,
        most: int = UNSIGNED_MAX,
        required: bool = False,
    ) -> int | None:
        """Return an attribute's number; None, with a fault, when it is none or out of range."""
        text = place.element.get(attribute)
        if text is None:
            if required:
                self.fault("T306", place, None, f"<{place.element.tag}> lacks the attribute {attribute!r}")
            return None
        match = _NUMBERS[base].fullmatch(text)
        if match is None:
            kind = "a whole number" if base == 10 else "a whole number (decimal, 0x… or 0…)"
            hexadecimal = base == 0 and re.fullmatch("[0-9a-fA-F]{1,8}", text)
            self.fault(
                "T306",
                place,
                attribute,
                f"{attribute} is {quoted(text)}, which is not {kind} of at least {least}",
                f"did you mean 0x{text}?" if hexadecimal else None,
            )
            return None
        value = _c_number(match[1], base)
        if value > most:
            shown = hex(most) if base == 0 else str(most)
            self.fault("T306", place, attribute, f"{attribute} is {quoted(text)}; the largest possible is {shown}")
            return None
        if value < least:
            self.fault("T306", place, attribute, f"{attribute} is {quoted(text)}; the smallest possible is {least}")
            return None
        return value

    def port(self, address: Place) -> str | None:
        """Read a dotted port; for libvirt a first 0 means "no port", and zeros at the end vanish."""
        text = address.element.get("port")
        if text is None:
            return None
        numbers = [_decimal(digits) for digits in re.findall(r"\d+", text, re.ASCII)]
        if not _PORT.fullmatch(text) or max(numbers) > UNSIGNED_MAX:
            self.fault(
                "T306",
                address,
                "port",
                f"port is {quoted(text)}, which is not a USB port",
                "a port is one to four numbers with dots between, from the root port down: '1', '1.2'",
            )
            return None
        while numbers and numbers[-1] == 0:
            numbers.pop()
        return ".".join(map(str, numbers)) if numbers and numbers[0] else None

    def backend(self, controller: Place) -> str | None:
        """Return the name of the domain that serves a controller, or its id in digits; None when nobody says."""
        backend = self.child(controller, "backenddomain")
        if backend is None:
            return None
        name = backend.element.get("name", "")
        if name.isascii() and name.isdigit():
            number = self.number(backend, "name", most=DOMID_MAX)
            return None if number is None else str(number)
        # the name stands in a placeholder, which the first brace would end
        self.check_word(backend, "name", "backend domain's name", forbidden="/}")
        return name

    def usb_address(self, device: Place) -> UsbAddress | None:
        """Return where on USB the document puts a device; one of another type is a fault."""
        address = self.child(device, "address")
        if address is None:
            return None
        if address.element.get("type") != "usb":
            kind = address.element.get("type")
            self.fault(
                "T306",
                address,
                "type",
                f"a USB device cannot have an address of type {quoted(kind or '')}",
                possible(("usb",)),
            )
            return None
        return UsbAddress(self.number(address, "bus"), self.port(address))

    def pci(self, address: Place) -> PciAddress | None:
        """Return a PCI address; libvirt takes one of zeros for none, whatever its function."""
        numbers = {
            name: self.number(address, name, base=0, most=most) or 0
            for name, most in (("domain", 0xFFFF), ("bus", 0xFF), ("slot", 0x1F), ("function", 7))
        }
        if not any((numbers["domain"], numbers["bus"], numbers["slot"])):
            return None
        multifunction = {"on": True, "off": False}.get(address.element.get("multifunction", ""))
        return PciAddress(**numbers, multifunction=multifunction)

    def check_word(
        self, place: Place, attribute: str | None, what: str, *, path: bool = False, forbidden: str = "/"
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
                f"the {what} is {quoted(word)}",
                f"it is not empty and has no {without}, no line break and no other control character",
            )

    def check_placeholders(self, place: Place) -> None:
        """Refuse what a plan would take for a placeholder of its own, in any value or text of a device."""
        for element in place.element.iter("*"):
            below = Place(element, self.document.locator.path(element))
            values = [(None, element.text or ""), *((str(name), str(value)) for name, value in element.items())]
            for attribute, value in values:
                # an alias that is no id is not kept
                if "${" in value and element.tag != "alias":
                    self.fault(
                        "T319",
                        below,
                        attribute,
                        f"{quoted(value)} has a '${{'",
                        "in a plan, that begins a placeholder",
                    )

    def fault(self, code: str, place: Place, attribute: str | None, message: str, help: str | None = None) -> None:
        """Note what is wrong with an element, or with an attribute of it.

        Raises:
            DocumentError: it is one more than is told.
        """
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
        if len(self.faults) > MOST_FAULTS:
            raise DocumentError(told(self.faults))


def _below(element: _Element, path: str) -> _Element | None:
    # most elements of a large document have nothing below, which is found out sooner than searched; and a child by
    # its name sooner than by a path
    if not len(element):
        return None
    return element.find(path) if "/" in path else next(element.iterchildren(path), None)


def attributes(element: _Element) -> dict[str, str]:
    """Return an element's attributes."""
    return {str(name): str(value) for name, value in element.items()}


def possible(words: Iterable[str]) -> str:
    """Return the help that lists what may be said."""
    return f"possible: {', '.join(words)}"


def quoted(word: str) -> str:
    """Return a document's word for a message, cut where it is longer than a reader wants to see."""
    return repr(word if len(word) <= LONGEST_WORD else word[:LONGEST_WORD] + "…")


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
