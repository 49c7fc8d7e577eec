"""Edits of a document's own bytes, in its own manner of quotes, line ends and indents; all else stays as it is."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

from translator.document.spans import span_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lxml.etree import _Element

    from translator.document.validate import Document
    from translator.topology import Place

_BLANKS = (b" ", b"\t")
_INDENT = "  "  # where the document has no manner of its own


_MARKS = {codecs.BOM_UTF8: None, codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


class New(NamedTuple):
    """An element to be written; one with text has no children."""

    tag: str
    attributes: Mapping[str, str]
    children: Sequence[New] = ()
    text: str = ""


class Editor:
    """The edits of one document, which are made when its text is asked for."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.locator = document.locator
        self.original = document.locator.text
        self.edits: list[tuple[int, int, str]] = []  # from where to where in the original, and what stands there now
        self.line_end = "\r\n" if b"\r\n" in self.original else "\n"

    def edited(self) -> bytes:
        pieces, position = [], 0
        for start, end, new in sorted(self.edits, key=lambda edit: edit[:2]):
            pieces += [self.original[position:start], new.encode(self.locator.encoding, "xmlcharrefreplace")]
            position = end
        return b"".join((*pieces, self.original[position:]))

    def drop(self, element: _Element) -> None:
        """Take the element out, with its line where it has one of its own."""
        span = span_of(self.locator, element)
        start, end = span.start, span.end
        line = self.original.rfind(b"\n", 0, start) + 1
        rest = len(self.original) if (at := self.original.find(b"\n", end)) < 0 else at + 1
        if not self.original[line:start].strip() and not self.original[end:rest].strip():
            start, end = line, rest
        self.edits.append((start, end, ""))

    def complete(self, element: _Element, *wanted: New | None) -> None:
        """Let the element's first child of each name be as wanted."""
        missing = []
        for new in present(*wanted):
            child = element.find(new.tag)
            if child is None:
                missing.append(new)
            elif child.get("type", "none") not in ("none", new.attributes.get("type")):
                span = span_of(self.locator, child)  # an address of another kind, which nobody obeys
                self.edits.append((span.start, span.end, self.markup(new, self.quote(child), None)))
            else:
                self.set(child, new.attributes)
        if missing:
            self.insert(element, missing)

    def set(self, element: _Element, attributes: Mapping[str, str]) -> None:
        wanted = {name: value for name, value in attributes.items() if element.get(name) != value}
        span = span_of(self.locator, element) if wanted else None
        quote = self.quote(element)
        for name, value in wanted.items():
            assert span is not None
            if name in span.values:
                self.edits.append((*span.values[name], value))
            else:
                self.edits.append((span.attributes_end, span.attributes_end, _attribute(name, value, quote)))

    def insert(self, element: _Element, new: Sequence[New]) -> None:
        """Put elements at the end of an element, each on a line of its own where lines are the document's manner."""
        span = span_of(self.locator, element)
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

    def markup(self, new: New, quote: str, indent: str | None) -> str:
        start = f"<{new.tag}" + "".join(_attribute(name, value, quote) for name, value in new.attributes.items())
        if not new.children:
            return f"{start}>{escape(new.text)}</{new.tag}>" if new.text else f"{start}/>"
        before = "" if indent is None else f"{self.line_end}{indent}"
        inner = None if indent is None else indent + _INDENT
        deeper = "" if inner is None else before + _INDENT
        children = "".join(deeper + self.markup(child, quote, inner) for child in new.children)
        return f"{start}>{children}{before}</{new.tag}>"

    def quote(self, element: _Element | None) -> str:
        """Return the kind of quotes that the attributes of the element have, or those around it."""
        while element is not None:
            span = span_of(self.locator, element)
            if span.values:
                return self.original[span.attributes_end - 1 : span.attributes_end].decode()
            element = element.getparent()
        return "'"

    def indent(self, offset: int) -> str | None:
        """Return what stands before the offset in its line; None where that is not just white space."""
        begin = offset
        while self.original[begin - 1 : begin] in _BLANKS:  # only so far: a line may be the whole document
            begin -= 1
        alone = not begin or self.original[begin - 1 : begin] == b"\n"
        return self.original[begin:offset].decode(self.locator.encoding) if alone else None

    def inner_indent(self, element: _Element, own: str) -> str:
        """Return the indent of what the element holds: its first child's, or one as deep again as its own."""
        child, parent = next(element.iterchildren("*"), None), element.getparent()
        beside = self.indent(self.locator.start(child)) if child is not None else None
        if beside is not None:
            return beside
        above = self.indent(self.locator.start(parent)) if parent is not None else None
        step = own.removeprefix(above) if above is not None else ""
        return own + (step or _INDENT)


def encoded(text: bytes, original: bytes) -> bytes:
    """Return an edited text in the encoding of the document that it was edited from, mark included."""
    mark = next((mark for mark in _MARKS if original.startswith(mark)), b"")
    encoding = _MARKS.get(mark)
    return mark + (text if encoding is None else text.decode().encode(encoding))


def present(*parts: New | None) -> list[New]:
    """Return those that are there."""
    return [part for part in parts if part is not None]


def usb_address(place: Place) -> New:
    """Return the address of a port."""
    return New("address", {"type": "usb", "bus": str(place.controller), "port": place.port})


def alias(id: str | None) -> New | None:
    """Return the alias of what has that id in QEMU; None for what has none."""
    return New("alias", {"name": id}) if id is not None else None


def _attribute(name: str, value: str, quote: str) -> str:
    return f" {name}={quote}{escape(value, {quote: '&apos;' if quote == chr(39) else '&quot;'})}{quote}"
