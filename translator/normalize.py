"""The same document with everything about USB explicit: each controller, index, address and alias.

What is added is put into the document's own bytes, in its own manner of quotes, line ends and indents; all
else stays as it is, byte for byte. The plan of the outcome is that of the document.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.errors import DocumentError
from translator.parse import parse
from translator.pinpoint import pinpoint
from translator.resolve import resolve
from translator.topology import Place
from translator.validate import validate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lxml.etree import _Element

    from translator.domain import ControllerElement, DeviceElement, Domain
    from translator.pci import AddedBus
    from translator.resolve import Resolution
    from translator.topology import Companion, Controller, Device
    from translator.validate import Document

_MARKS = {codecs.BOM_UTF8: None, codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_INDENT = "  "  # where the document has no manner of its own


def normalize(data: bytes, *, file: str | None = None) -> bytes:
    """Return the document with everything about USB explicit; one that is so already comes back as it is.

    Args:
        data: the document.
        file: what diagnostics call it.

    Raises:
        DocumentError: the document is refused, with all its faults; or it has a hub before the one that this hangs
            on, which has no normal form.
    """
    document = validate(data, file=file)
    domain = parse(document)
    try:
        resolution = resolve(domain)
    except DocumentError as error:
        raise DocumentError(pinpoint(error.diagnostics, data)) from None
    # with ports for both, a hub may not come before the one that it hangs on
    untold = [msgspec.structs.replace(one, severity="error") for one in resolution.warnings if one.code == "T332"]
    if untold:
        raise DocumentError(pinpoint(untold, data))
    text = _Normalizer(document, domain, resolution).text()
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    encoding = _MARKS.get(mark)
    return mark + (text if encoding is None else text.decode().encode(encoding))


class _New(NamedTuple):
    """An element to be written."""

    tag: str
    attributes: Mapping[str, str]
    children: Sequence[_New] = ()


class _Normalizer:
    def __init__(self, document: Document, domain: Domain, resolution: Resolution) -> None:
        self.document = document
        self.locator = document.locator
        self.original = document.locator.text
        self.domain = domain
        self.topology = resolution.topology
        self.busses = resolution.busses.added
        self.called = {override.alias for override in domain.overrides}
        self.edits: list[tuple[int, int, str]] = []  # from where to where in the original, and what stands there now
        self.line_end = "\r\n" if b"\r\n" in self.original else "\n"

    def text(self) -> bytes:
        """Return the document's text with its edits made."""
        root = self.document.root
        elements = {self.locator.source(one): one for one in root.iterfind("devices/*")}
        controllers = {part.source: part for part in self.domain.controllers}
        devices = {part.source: part for part in self.domain.devices}
        for controller in self.topology.controllers:
            if not controller.implicit and controller.source in controllers:
                self.controller(elements[controller.source], controllers[controller.source], controller)
            elif not controller.implicit and controller.source in devices:
                self.ccid(elements[controller.source], devices[controller.source], controller)
            for one in controller.companions:
                if one.source in controllers:
                    self.companion(elements[one.source], controllers[one.source], one, controller.index)
        for device in self.topology.devices:
            if not device.implicit and device.source in devices:
                self.device(elements[device.source], devices[device.source], device)
        if added := self.added():
            all_devices = root.findall("devices")
            self.insert(*((all_devices[-1], added) if all_devices else (root, [_New("devices", {}, added)])))
        return self.edited()

    def edited(self) -> bytes:
        pieces, position = [], 0
        for start, end, new in sorted(self.edits, key=lambda edit: edit[:2]):
            pieces += [self.original[position:start], new.encode(self.locator.encoding)]
            position = end
        return b"".join((*pieces, self.original[position:]))

    # What the document says, and what it leaves open

    def controller(self, element: _Element, said: ControllerElement, controller: Controller) -> None:
        self.set(element, {"index": str(controller.index)} if said.index is None else {})
        self.set(element, {"model": controller.model} if said.model is None else {})
        address = _pci_address(controller) if said.pci is None else None
        self.complete(element, address, self.alias(said, controller.id))

    def companion(self, element: _Element, said: ControllerElement, companion: Companion, index: int) -> None:
        self.set(element, {"index": str(index)} if said.index is None else {})
        self.set(element, {"model": companion.model} if said.model is None else {})
        master = _New("master", {"startport": str(companion.startport)}) if said.startport is None else None
        self.complete(element, master, _pci_address(companion) if said.pci is None else None)

    def ccid(self, element: _Element, said: DeviceElement, controller: Controller) -> None:
        self.set(element, {"index": str(controller.index)} if said.index is None else {})
        address = _usb_address(controller.place) if controller.place and not _explicit(said) else None
        self.complete(element, address, self.alias(said, controller.id))

    def device(self, element: _Element, said: DeviceElement, device: Device) -> None:
        address = _card_address(device) if device.family == "ccid" else _usb_address(_place(device))
        self.complete(element, None if _explicit(said) else address, self.alias(said, device.id))

    def alias(self, said: ControllerElement | DeviceElement, id: str | None) -> _New | None:
        """Return the alias that tells the id; the document's own stays where it is called by that."""
        return None if said.alias is not None and said.alias in self.called else _alias(id)

    def added(self) -> list[_New]:
        """Return the elements of what the document leaves out, hubs in the order of their ids.

        A controller on a PCI bus that was added would make a bus of another kind be added the next time.
        """
        # beside one that says there is no USB no other may be named, though there may be the machine's own
        without_usb = any(controller.type == "none" for controller in self.topology.controllers)
        used = {int(one.pci.split(":")[1], 16) for one in self.topology.controllers if one.pci}
        needed = any(bus.index in used for bus in self.busses)
        controllers = [
            _New(
                "controller",
                {"type": controller.family, "index": str(controller.index)}
                | ({"model": controller.model} if controller.family == "usb" else {}),
                _present(
                    _usb_address(controller.place) if controller.place else _pci_address(controller),
                    _alias(controller.id),
                ),
            )
            for controller in self.topology.controllers
            if controller.implicit and not without_usb
        ]
        hubs = sorted((device for device in self.topology.devices if device.implicit), key=_number)
        return [
            *(_bus(bus) for bus in self.busses if needed),
            *controllers,
            *(_New("hub", {"type": "usb"}, _present(_usb_address(_place(hub)), _alias(hub.id))) for hub in hubs),
        ]

    # Edits

    def complete(self, element: _Element, *wanted: _New | None) -> None:
        """Let the element's first child of each name be as wanted."""
        missing = []
        for new in _present(*wanted):
            child = element.find(new.tag)
            if child is None:
                missing.append(new)
            elif child.get("type", "none") not in ("none", new.attributes.get("type")):
                span = self.locator.span(child)  # an address of another kind, which nobody obeys
                self.edits.append((span.start, span.end, self.markup(new, self.quote(child), None)))
            else:
                self.set(child, new.attributes)
        if missing:
            self.insert(element, missing)

    def set(self, element: _Element, attributes: Mapping[str, str]) -> None:
        wanted = {name: value for name, value in attributes.items() if element.get(name) != value}
        span = self.locator.span(element) if wanted else None
        quote = self.quote(element)
        for name, value in wanted.items():
            assert span is not None
            if name in span.values:
                self.edits.append((*span.values[name], value))
            else:
                self.edits.append((span.attributes_end, span.attributes_end, _attribute(name, value, quote)))

    def insert(self, element: _Element, new: Sequence[_New]) -> None:
        """Put elements at the end of an element, each on a line of its own where lines are the document's manner."""
        span = self.locator.span(element)
        quote, own = self.quote(element), self.indent(span.start)
        content = self.original[span.inner : span.inner_end]
        if own is None or (content.strip() and b"\n" not in content):
            lines = "".join(self.markup(one, quote, None) for one in new)
            own = None
        else:
            inner = self.inner_indent(element, own)
            lines = "".join(f"{self.line_end}{inner}{self.markup(one, quote, inner)}" for one in new)
        close = "" if own is None else self.line_end + own
        if span.inner == span.end:
            self.edits.append((span.attributes_end, span.end, f">{lines}{close}</{element.tag}>"))
            return
        after = span.inner_end - len(content) + len(content.rstrip())
        self.edits.append((after, after, lines if content[after - span.inner :].count(b"\n") else lines + close))

    def markup(self, new: _New, quote: str, indent: str | None) -> str:
        start = f"<{new.tag}" + "".join(_attribute(name, value, quote) for name, value in new.attributes.items())
        if not new.children:
            return f"{start}/>"
        before = "" if indent is None else f"{self.line_end}{indent}"
        inner = None if indent is None else indent + _INDENT
        deeper = "" if inner is None else before + _INDENT
        children = "".join(deeper + self.markup(child, quote, inner) for child in new.children)
        return f"{start}>{children}{before}</{new.tag}>"

    def quote(self, element: _Element | None) -> str:
        """Return the kind of quotes that the attributes of the element have, or those around it."""
        while element is not None:
            span = self.locator.span(element)
            if span.values:
                return self.original[span.attributes_end - 1 : span.attributes_end].decode()
            element = element.getparent()
        return "'"

    def indent(self, offset: int) -> str | None:
        """Return what stands before the offset in its line; None where that is not just white space."""
        head = self.original[self.original.rfind(b"\n", 0, offset) + 1 : offset]
        return None if head.strip() else head.decode(self.locator.encoding)

    def inner_indent(self, element: _Element, own: str) -> str:
        """Return the indent of what the element holds: its first child's, or one as deep again as its own."""
        child, parent = next(element.iterchildren("*"), None), element.getparent()
        beside = self.indent(self.locator.start(child)) if child is not None else None
        if beside is not None:
            return beside
        above = self.indent(self.locator.start(parent)) if parent is not None else None
        step = own.removeprefix(above) if above is not None else ""
        return own + (step or _INDENT)


def _explicit(said: DeviceElement) -> bool:
    return said.address is not None and said.address.bus is not None and said.address.port is not None


def _present(*parts: _New | None) -> list[_New]:
    return [part for part in parts if part is not None]


def _place(device: Device) -> Place:
    return Place(device.controller, device.port)


def _usb_address(place: Place) -> _New:
    return _New("address", {"type": "usb", "bus": str(place.controller), "port": place.port})


def _card_address(card: Device) -> _New:
    return _New("address", {"type": "ccid", "controller": str(card.controller), "slot": card.port})


def _pci_address(part: Controller | Companion) -> _New | None:
    if part.pci is None:
        return None
    domain, bus, slot, function = re.split("[:.]", part.pci)
    multifunction = {"multifunction": "on"} if part.properties.get("multifunction") else {}
    return _New(
        "address",
        {"type": "pci", "domain": f"0x{domain}", "bus": f"0x{bus}", "slot": f"0x{slot}", "function": f"0x{function}"}
        | multifunction,
    )


def _bus(bus: AddedBus) -> _New:
    at = bus.address
    numbers = {} if at is None else {"domain": 4, "bus": 2, "slot": 2, "function": 1}
    place = {name: f"0x{getattr(at, name):0{width}x}" for name, width in numbers.items()}
    multifunction = {"multifunction": "on"} if at is not None and at.multifunction else {}
    address = _New("address", {"type": "pci", **place, **multifunction})
    return _New(
        "controller",
        {"type": "pci", "index": str(bus.index), "model": bus.model},
        [address] if at is not None else [],
    )


def _alias(id: str | None) -> _New | None:
    return _New("alias", {"name": id}) if id is not None else None


def _attribute(name: str, value: str, quote: str) -> str:
    return f" {name}={quote}{value}{quote}"  # ids, numbers and models: nothing to escape


def _number(device: Device) -> int:
    return int(re.sub(r"\D+", "", device.id or "0"))
