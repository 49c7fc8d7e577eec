"""A document while it is put into other words: what was taken of it, and so what is left over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.document.locate import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml.etree import _Element

    from translator.document.locate import Locator
    from translator.errors import Diagnostic


class Taken:
    """Elements, attributes and texts count as taken once they were asked for."""

    def __init__(self, root: _Element, locator: Locator, file: str | None) -> None:
        self.root = root
        self.locator = locator
        self.file = file
        self.warnings: list[Diagnostic] = []
        self._seen: set[_Element] = {root}
        self._attributes: set[tuple[_Element, str]] = set()
        self._texts: set[_Element] = set()

    def child(self, element: _Element | None, tag: str) -> _Element | None:
        """Return the first child of that name."""
        found = element.find(tag) if element is not None else None
        if found is not None:
            self._seen.add(found)
        return found

    def children(self, element: _Element | None, tag: str) -> list[_Element]:
        """Return the children of that name."""
        found = list(element.iterchildren(tag)) if element is not None else []
        self._seen.update(found)
        return found

    def __contains__(self, element: _Element) -> bool:
        return element in self._seen

    def see(self, element: _Element) -> None:
        """Take an element's presence, and nothing of what it says."""
        self._seen.add(element)

    def attribute(self, element: _Element | None, name: str) -> str | None:
        """Return an attribute."""
        if element is None:
            return None
        self._attributes.add((element, name))
        return element.get(name)

    def text(self, element: _Element | None) -> str | None:
        """Return an element's text without blanks around it; None where there is no element, or nothing in it."""
        if element is None:
            return None
        self._texts.add(element)
        return (element.text or "").strip() or None

    def take(self, element: _Element | None, *names: str) -> None:
        """Take attributes that go without saying."""
        if element is not None:
            self._attributes.update((element, name) for name in names)

    def whole(self, element: _Element | None) -> None:
        """Take an element with all that is in it."""
        if element is not None:
            for one in element.iter("*"):
                self._seen.add(one)
                self._texts.add(one)
                self._attributes.update((one, str(name)) for name in one.attrib)

    def implied(self, element: _Element, tag: str, **attributes: str) -> None:
        """Take a child, if it says no more than these attributes."""
        for one in element.iterchildren(tag):
            if not len(one) and all(attributes.get(str(name)) == value for name, value in one.items()):
                self.whole(one)

    def untaken(self) -> list[Diagnostic]:
        """Return a warning for everything that is left over, the outermost element each."""
        return [
            self.warning("T360", element, attribute, f"{what} has no place in an xl.cfg and is left out")
            for element, attribute, what in self._left(self.root)
        ]

    def warn(
        self, code: str, element: _Element, attribute: str | None, message: str, help: str | None = None
    ) -> None:
        """Note what is odd about an element."""
        self.warnings.append(self.warning(code, element, attribute, message, help))

    def warning(
        self, code: str, element: _Element, attribute: str | None, message: str, help: str | None = None
    ) -> Diagnostic:
        """Return a warning about an element."""
        return self.locator.diagnostic(
            code, message, element, attribute, file=self.file, help=help, severity="warning"
        )

    def _left(self, element: _Element) -> Iterator[tuple[_Element, str | None, str]]:
        for name in map(str, element.attrib):
            if (element, name) not in self._attributes:
                yield element, name, f"{name}={element.get(name)!r} of <{name_of(element)}>"
        if element not in self._texts and (element.text or "").strip():
            yield element, None, f"the text of <{name_of(element)}>"
        for one in element.iterchildren("*"):
            if one in self._seen:
                yield from self._left(one)
            else:
                yield one, None, f"<{name_of(one)}>"
