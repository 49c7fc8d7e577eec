"""xl's configuration files: read as if they were domain XML, and turned into it and back.

    document(data)   what `validate` returns for such a file: all later stages work on it, and name its lines
    to_xml(data)     the domain XML
    to_xl(data)      domain XML as such a file

What one side has no words for is told with its line. `language` knows the grammar, `read` and `write` the settings,
with a module for each subject; `usb` and `usbwrite` are what translator is about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from translator.document.validate import Document, judge, validate

if TYPE_CHECKING:
    from translator.document.domain import Domain
    from translator.errors import Diagnostic
    from translator.topology import Topology
    from translator.xlcfg.read import Drawn


class Converted(NamedTuple):
    """A file in the other language, and what is to be said about it, by place."""

    data: bytes
    warnings: tuple[Diagnostic, ...]


def document(data: bytes, *, file: str | None = None) -> Document:
    """Return the checked tree of a file in xl's language; its places are the file's.

    What domain XML has no place for is left out silently, for no later stage looks at it: `to_xml` tells.

    Raises:
        DocumentError: with all the faults.
    """
    from translator.xlcfg.read import read

    drawn = read(data, file=file)
    drawn.draft.drop_implied()
    return _checked(drawn, data, file)


def to_xml(data: bytes, *, file: str | None = None, keep_unknown: bool = False) -> Converted:
    """Return a file in xl's language as domain XML.

    Args:
        file: what diagnostics call it.
        keep_unknown: whether settings that XML has no place for are kept in `<metadata>`.

    Raises:
        DocumentError: with all the faults, those of what it means included.
    """
    from translator.xlcfg.read import read

    drawn = read(data, file=file, keep_unknown=keep_unknown)
    _topology(_checked(drawn, data, file))
    warnings = (*drawn.warnings, *drawn.lost)
    return Converted(drawn.draft.xml(), tuple(sorted(warnings, key=lambda one: (one.line or 0, one.column or 0))))


def to_xl(data: bytes, *, file: str | None = None) -> Converted:
    """Return domain XML as a file in xl's language; settings that were kept in `<metadata>` are restored.

    Raises:
        DocumentError: the document is refused, with all its faults, or it is not a Xen domain.
    """
    from translator.xlcfg.write import write

    source = validate(data, file=file, max_size=len(data))
    written = write(source, *_topology(source))
    return Converted(written.text.encode(), (*source.warnings, *written.lost))


def _checked(drawn: Drawn, data: bytes, file: str | None) -> Document:
    locator = drawn.draft.locator(drawn.settings)
    judge(drawn.draft.root, locator, file)
    about_usb = tuple(one for one in drawn.lost if (one.element or "").startswith("usb"))
    return Document(drawn.draft.root, data, file, locator, (*drawn.warnings, *about_usb))


def _topology(source: Document) -> tuple[Domain, Topology]:
    """Return what a document says and what comes of it; one that means nothing sound is refused."""
    from translator.document.parse import parse
    from translator.document.pinpoint import pinpointed
    from translator.placing.resolve import resolve

    domain = parse(source)
    with pinpointed(source.data):
        return domain, resolve(domain).topology
