"""Domain XML being drawn up from a file of another language, each element with the place that asked for it."""

from __future__ import annotations

from bisect import bisect_right
from functools import cached_property
from typing import TYPE_CHECKING

from lxml import etree

from translator.document.locate import Locator
from translator.errors import Source
from translator.xlcfg.language import Items, Setting, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lxml.etree import _Element

    from translator.xlcfg.language import Value


class Draft:
    """A `<domain>` that grows."""

    def __init__(self, **attributes: str) -> None:
        self.root = etree.Element("domain", attributes)
        self._places: dict[tuple[_Element, str | None], Source] = {}

    def add(
        self,
        parent: _Element,
        tag: str,
        attributes: Mapping[str, Text | str | int | None] | None = None,
        text: Text | str | int | None = None,
        *,
        at: Source | None = None,
    ) -> _Element:
        """Add an element, at the place of `at` or else of its text; attributes that are None are left out."""
        element = etree.SubElement(parent, tag)
        for name, value in (attributes or {}).items():
            if isinstance(value, Text):
                self._places[element, name] = value.source
            if value is not None:
                element.set(name, value.value if isinstance(value, Text) else str(value))
        if text is not None:
            element.text = text.value if isinstance(text, Text) else str(text)
        if at is None and isinstance(text, Text):
            at = text.source
        if at is not None:
            self._places[element, None] = at
        return element

    def drop_implied(self) -> None:
        """Remove what nobody asked for and sits on no controller, which domain XML has anyhow."""
        for devices in self.root.iterchildren("devices"):
            for element in list(devices):
                if (element, None) not in self._places and element.tag != "controller":
                    devices.remove(element)

    def xml(self) -> bytes:
        """Return the document's bytes, an element in a line."""
        etree.indent(self.root)
        return etree.tostring(self.root, encoding="utf-8") + b"\n"

    def locator(self, settings: Iterable[Setting]) -> DraftLocator:
        """Return what knows where the elements were asked for, and by which of the settings."""
        return DraftLocator(self.xml(), self.root, self._places, settings)


class DraftLocator(Locator):
    """Where the elements stand in the file that they were drawn up from; `text` is the XML drawn up."""

    def __init__(
        self,
        text: bytes,
        root: _Element,
        places: Mapping[tuple[_Element, str | None], Source],
        settings: Iterable[Setting],
    ) -> None:
        super().__init__(text, root)
        self._places = places
        self._settings = settings

    @cached_property
    def _begun(self) -> list[tuple[tuple[int, int], str]]:
        """Where each setting and each of its values begins; a list may have been added to further down."""
        return sorted((place, one.name) for one in self._settings for place in _places(one))

    def name(self, element: _Element) -> str | None:
        """Return the setting that asked for the element."""
        source = self.source(element)
        number = bisect_right(self._begun, (source.line, source.column), key=lambda one: one[0])
        return self._begun[number - 1][1] if number else None

    def source(self, element: _Element, attribute: str | None = None) -> Source:
        """Return the place of the attribute, or else of the nearest element that has one."""
        if (element, attribute) in self._places:
            return self._places[element, attribute]
        current: _Element | None = element
        while current is not None:
            if (current, None) in self._places:
                return self._places[current, None]
            current = current.getparent()
        return Source(1, 1)


def _places(part: Setting | Value) -> Iterator[tuple[int, int]]:
    yield part.source.line, part.source.column
    inside = (part.value,) if isinstance(part, Setting) else part.values if isinstance(part, Items) else ()
    for one in inside:
        yield from _places(one)
