"""Diagnostics of the stages that know no XML get the exact line and column of what they are about.

Those stages name an element or attribute by its path. Only when one is to be shown is the document looked at
again, so a document without faults never pays for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from translator.errors import Diagnostic


def pinpoint(diagnostics: Iterable[Diagnostic], data: bytes) -> tuple[Diagnostic, ...]:
    """Return the diagnostics with the place that their `element` has in the document, sorted by place."""
    diagnostics = tuple(diagnostics)
    if not diagnostics:
        return ()
    from translator.validate import validate

    document = validate(data)
    placed = []
    for diagnostic in diagnostics:
        path, _, attribute = (diagnostic.element or "").partition("/@")
        element = document.root.find(path.removeprefix("/domain").lstrip("/") or ".")
        if element is not None:
            source = document.locator.source(element, attribute or None)
            diagnostic = msgspec.structs.replace(diagnostic, line=source.line, column=source.column)
        placed.append(diagnostic)
    return tuple(sorted(placed, key=lambda one: (one.line or 0, one.column or 0, one.code)))
