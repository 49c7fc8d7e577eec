"""Diagnostics of the stages that know no XML get the exact line and column of what they are about.

Those stages name an element or attribute by its path. Only when one is to be shown is the document looked at
again, so a document without faults never pays for it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from translator.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lxml.etree import _Element

    from translator.errors import Diagnostic

_SEGMENT = re.compile(r"([^\[]+)(?:\[(\d+)\])?")


def pinpoint(diagnostics: Iterable[Diagnostic], data: bytes) -> tuple[Diagnostic, ...]:
    """Return the diagnostics of an accepted document, each with the place of its `element`, by place, notes last."""
    diagnostics = tuple(diagnostics)
    if not diagnostics:
        return ()
    from translator.document.validate import revisit

    document = revisit(data)
    find = _Finder(document.root).find
    placed = []
    for diagnostic in diagnostics:
        path, _, attribute = (diagnostic.element or "").partition("/@")
        element = find(path)
        if element is not None:
            source = document.locator.source(element, attribute or None)
            diagnostic = msgspec.structs.replace(diagnostic, line=source.line, column=source.column)
        placed.append(diagnostic)
    return tuple(sorted(placed, key=lambda one: (one.severity == "note", one.line or 0, one.column or 0, one.code)))


@contextmanager
def pinpointed(data: bytes) -> Iterator[None]:
    """Let the faults that a stage raises have the places of their elements in the document that it was given."""
    try:
        yield
    except DocumentError as error:
        raise DocumentError(pinpoint(error.diagnostics, data)) from None


def find(root: _Element, path: str) -> _Element | None:
    """Return the first element at a diagnostic's path, such as `/domain/devices/input[3]/address`."""
    return _Finder(root).find(path)


class _Finder:
    """Finds elements by path. Each list of siblings is made once: lxml's own look-up would make it at every step."""

    def __init__(self, root: _Element) -> None:
        self._found: dict[str, list[_Element]] = {"/domain": [root]}

    def find(self, path: str) -> _Element | None:
        """Return the first element at `path`, such as `/domain/devices/input[3]/address`."""
        return next(iter(self._all(path)), None)

    def _all(self, path: str) -> list[_Element]:
        if path not in self._found:
            parent, _, segment = path.rpartition("/")
            match = _SEGMENT.fullmatch(segment)
            if match is None or not parent:
                return []
            name, number = match.groups()
            if number is None:
                self._found[path] = [child for one in self._all(parent) for child in one.iterchildren(name)]
            else:
                self._found[path] = self._all(f"{parent}/{name}")[int(number) - 1 : int(number)]
        return self._found[path]
