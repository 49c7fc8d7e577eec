"""Where things stand in a document: line and column of tags and attributes, and XPath-like paths.

libxml2 keeps only the last line of a start tag. But the n-th start tag of a well-formed document is its n-th
element in document order, so one pass over the bytes finds them all. That pass is made when first asked.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from translator.errors import Diagnostic, Source

if TYPE_CHECKING:
    from lxml.etree import _Element

    from translator.errors import Severity

# From the end of one start tag's "<" to the end of the next one's: end tags and what may hold a "<" that opens
# nothing come between. An attribute's value may hold ">" but never "<". Possessive, so never tried twice.
_TO_NEXT_TAG = re.compile(rb"[^<]*+(?:(?:</|<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>)[^<]*+)*+<", re.DOTALL)
TAG_NAME = re.compile(rb"<[^\s/>]+")
ATTRIBUTE = re.compile(rb"\s+([^\s=/>]+)\s*=\s*(?:\"[^\"]*\"|'[^']*')")


class Lines:
    """The lines of a text; turns an offset in bytes into a line and a column in characters.

    `text` is encoded in `encoding`, which must have ASCII's markup characters as ASCII has them.
    """

    def __init__(self, text: bytes, encoding: str) -> None:
        self._text = text
        self._encoding = encoding
        self._last = (0, 0, 0)  # the line, offset and column where the last one asked for stood

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(map(len, self._text.splitlines(keepends=True)))]

    def source(self, offset: int) -> Source:
        """Return where the byte at `offset` stands."""
        line = bisect_right(self._starts, offset)
        # From the last place on, if it is in the same line: a document may be one line of a million elements.
        last_line, begin, column = self._last
        if line != last_line or offset < begin:
            begin, column = self._starts[line - 1], 0
        between = self._text[begin:offset]
        column += len(between if between.isascii() else between.decode(self._encoding, "replace"))
        self._last = (line, offset, column)
        return Source(line, column + 1)


class Locator:
    """Where the elements of one document stand.

    Args:
        text: the document without a byte order mark, in `encoding`.
        root: its root element, parsed from the same bytes and not changed since.
        encoding: a codec that keeps ASCII's bytes, such as utf-8 or iso-8859-1.
    """

    def __init__(self, text: bytes, root: _Element, encoding: str = "utf-8") -> None:
        self.text = text
        self._root = root
        self._lines = Lines(text, encoding)
        self.encoding = encoding
        self._segments: dict[_Element, str] = {}

    @cached_property
    def _offsets(self) -> dict[_Element, int]:
        # Without comments to leave out, lxml iterates in half the time.
        elements = self._root.iter("*") if b"<!--" in self.text else self._root.iter()
        # One "<" more ends the last stretch, which would otherwise be searched again from each of its bytes.
        stretches = _TO_NEXT_TAG.findall(self.text + b"<")[:-1]
        return dict(zip(elements, accumulate(map(len, stretches)), strict=True))

    def name(self, element: _Element) -> str | None:
        """Return what the file itself calls what the element says; None where it has the element itself."""
        return None

    def source(self, element: _Element, attribute: str | None = None) -> Source:
        """Return where the element's start tag begins, or its attribute's name.

        `attribute` is spelled as lxml does (`{namespace}name`); one that is absent stands where its element does.
        """
        offset = self._offsets[element] - 1
        if attribute is not None:
            offset = self._attribute_offset(offset, element, attribute)
        return self._lines.source(offset)

    def start(self, element: _Element) -> int:
        """Return where the element begins, in bytes."""
        return self._offsets[element] - 1

    def _attribute_offset(self, tag: int, element: _Element, attribute: str) -> int:
        namespace, _, name = attribute.rpartition("}")
        spellings = {name}
        if namespace:
            known = {**element.nsmap, "xml": "http://www.w3.org/XML/1998/namespace"}
            spellings = {f"{prefix}:{name}" for prefix, uri in known.items() if uri == namespace[1:]}
        opening = TAG_NAME.match(self.text, tag)
        position = opening.end() if opening else tag
        while found := ATTRIBUTE.match(self.text, position):
            if found[1].decode(self.encoding) in spellings:
                return found.start(1)
            position = found.end()
        return tag

    def diagnostic(
        self,
        code: str,
        message: str,
        element: _Element,
        attribute: str | None = None,
        *,
        file: str | None,
        help: str | None = None,
        severity: Severity = "error",
    ) -> Diagnostic:
        """Return a finding about the element or its attribute, at its place."""
        source = self.source(element, attribute)
        return Diagnostic(
            code=code,
            severity=severity,
            message=message,
            help=help,
            file=file,
            line=source.line,
            column=source.column,
            element=self.path(element, attribute),
        )

    def path(self, element: _Element, attribute: str | None = None) -> str:
        """Return a path such as `/domain/devices/controller[2]/@index`; only namesakes are numbered."""
        segments = [] if attribute is None else [f"@{attribute.rpartition('}')[2]}"]
        current: _Element | None = element
        while current is not None:
            segments.append(self._segment(current))
            current = current.getparent()
        return "/" + "/".join(reversed(segments))

    def _segment(self, element: _Element) -> str:
        if element not in self._segments:
            parent = element.getparent()
            # A whole family at once: a path for each of n siblings must not cost n² steps.
            families: dict[tuple[str, str | None], list[_Element]] = {}
            for sibling in [element] if parent is None else parent.iterchildren("*"):
                families.setdefault((sibling.tag, sibling.prefix), []).append(sibling)
            for siblings in families.values():
                name = name_of(siblings[0])
                for number, sibling in enumerate(siblings, 1):
                    self._segments[sibling] = f"{name}[{number}]" if len(siblings) > 1 else name
        return self._segments[element]


def name_of(element: _Element) -> str:
    """Return the element's name as the document spells it, with its prefix."""
    local = str(element.tag).rpartition("}")[2]
    return f"{element.prefix}:{local}" if element.prefix else local
