"""From where to where an element stands, and its attributes' values: what an edit of a document's bytes needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from translator.document.locate import ATTRIBUTE, TAG_NAME

if TYPE_CHECKING:
    from lxml.etree import _Element

    from translator.document.locate import Locator

# Whole; its attributes' values may hold ">" and "/".
_START_TAG = re.compile(rb"<[^\s/>]+(?:\s+[^\s=/>]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*+\s*(/?)>")
_NEXT_TAG = re.compile(rb"(?:[^<]++|<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>)*+", re.DOTALL)


class Span(NamedTuple):
    """Where an element stands, in bytes: `start` to `end`, and between them what it holds, `inner` to `inner_end`.

    An empty-element tag `<a/>` has both of the latter at its end. `values` are those of its attributes, by their
    names as spelled, each without the quotes; `attributes_end` is behind the last of them.
    """

    start: int
    attributes_end: int
    inner: int
    inner_end: int
    end: int
    values: dict[str, tuple[int, int]]


def span_of(locator: Locator, element: _Element) -> Span:
    """Return where the element stands; this takes as long as it is."""
    start, text = locator.start(element), locator.text
    opening = TAG_NAME.match(text, start)
    tag = _START_TAG.match(text, start)
    assert opening is not None, "the document is well-formed"
    assert tag is not None, "the document is well-formed"
    values, position = {}, opening.end()
    while found := ATTRIBUTE.match(text, position):
        position = found.end()
        value = found[0].partition(b"=")[2].strip()
        values[found[1].decode(locator.encoding)] = (position - len(value) + 1, position - 1)
    if tag[1]:
        return Span(start, position, tag.end(), tag.end(), tag.end(), values)
    inner_end = _end_tag(text, tag.end())
    return Span(start, position, tag.end(), inner_end, text.index(b">", inner_end) + 1, values)


def _end_tag(text: bytes, position: int) -> int:
    """Return where the element's end tag begins whose start tag ends at `position`."""
    depth = 1
    while True:
        between = _NEXT_TAG.match(text, position)
        assert between is not None
        position = between.end()
        if text.startswith(b"</", position):
            depth -= 1
            if not depth:
                return position
            position = text.index(b">", position)
        else:
            tag = _START_TAG.match(text, position)
            assert tag is not None, "the document is well-formed"
            depth += not tag[1]
            position = tag.end()
