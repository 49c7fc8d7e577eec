"""Why the schema refused a document: every fault, where it stands, what was found and what is allowed.

The schema as xmlschema reads it is laid over the tree. Nothing here gives a verdict; a refusal that this
walk cannot explain is reported in the words of the engine that refused.
"""

from __future__ import annotations

import os
import threading
from difflib import get_close_matches
from functools import cache, cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import xmlschema
from xmlschema.validators import XsdAnyElement, XsdElement

from translator.document.locate import name_of
from translator.document.validate import schema_dir
from translator.errors import Diagnostic
from translator.findings import MOST_FAULTS, told

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lxml.etree import _Element

    from translator.document.locate import Locator

LONGEST_VALUE = 40
MOST_ATTRIBUTES = 20  # lxml takes quadratic time to list the values of very many
_XMLSCHEMA = threading.Lock()  # which notes a value's faults in one place for all threads


class _Rules:
    """What one type allows, as tables."""

    def __init__(self, xsd_type: Any) -> None:
        self._type = xsd_type
        simple = xsd_type.is_simple()
        self.attributes: Mapping[str, Any] = (
            {} if simple else {name: attribute.type for name, attribute in xsd_type.attributes.items() if name}
        )
        self.required_attributes = (
            ()
            if simple
            else tuple(name for name, attribute in xsd_type.attributes.items() if _is_required(attribute))
        )
        open_attributes = None if simple else xsd_type.attributes.get(None)
        self.any_attribute = open_attributes is not None and open_attributes.is_namespace_allowed("")
        # The type of the text, or None where there is none or any will do.
        self.text = xsd_type if simple else xsd_type.content if xsd_type.has_simple_content() else None
        self.mixed = not simple and xsd_type.mixed

    @cached_property
    def _particles(self) -> list[Any]:
        return [] if self.text is not None else list(self._type.content.iter_elements())

    @cached_property
    def children(self) -> dict[str, Any]:
        """The declared children by name."""
        return {str(item.name): item for item in self._particles if isinstance(item, XsdElement)}

    @cached_property
    def other_children(self) -> str | None:
        """How children that are not declared here are looked at: lax, skip, or None where there may be none."""
        for item in self._particles:
            if isinstance(item, XsdAnyElement) and item.is_namespace_allowed(""):
                return str(item.process_contents)
        return None

    @cached_property
    def vocabularies(self) -> frozenset[str]:
        """The namespaces of the children that are judged, "" for none; others are passed over."""
        return frozenset({"", *(_namespace(name) for name in self.children)})

    @cached_property
    def required_children(self) -> tuple[str, ...]:
        """The children that must be there: those of a sequence that are no part of a choice."""
        if self.text is not None or self._type.content.model != "sequence":
            return ()
        return tuple(
            str(item.name) for item in self._type.content if isinstance(item, XsdElement) and item.min_occurs
        )


def _namespace(name: str) -> str:
    return name[1:].partition("}")[0] if name.startswith("{") else ""


def _is_required(attribute: Any) -> bool:
    return getattr(attribute, "use", None) == "required"


class _Schema:
    def __init__(self, file: str) -> None:
        # a plain table: the one of xmlschema's own composes a name at every look-up
        declared = xmlschema.XMLSchema10(os.path.join(schema_dir(), file)).elements.values()
        self.declarations = {str(declaration.name): declaration for declaration in declared}
        self._rules: dict[Any, _Rules] = {}

    def rules(self, declaration: Any) -> _Rules:
        xsd_type = declaration.type
        if xsd_type not in self._rules:
            self._rules[xsd_type] = _Rules(xsd_type)
        return self._rules[xsd_type]


@cache
def _schema(file: str) -> _Schema:
    return _Schema(file)


def explain(
    root: _Element,
    locator: Locator,
    file: str | None,
    reasons: tuple[tuple[int, str], ...],
    schema: str = "domain.xsd",
) -> list[Diagnostic]:
    """Return the faults of a refused document in document order, at least one.

    Args:
        root: the element that the schema refused.
        locator: where its elements stand.
        file: what the diagnostics call the document.
        reasons: line and words of the engine that refused it, for what cannot be explained better.
        schema: the schema's file.
    """
    faults = list(islice(_Walk(locator, file, _schema(schema)).faults(root), MOST_FAULTS + 1))
    if not faults:
        return [
            Diagnostic(code="T299", message=reason, file=file, line=max(line, 1), column=1)
            for line, reason in reasons
        ]
    return told(sorted(faults, key=lambda fault: (fault.line or 0, fault.column or 0)))


class _Walk:
    def __init__(self, locator: Locator, file: str | None, schema: _Schema) -> None:
        self._schema = schema
        self._locator = locator
        self._file = file
        self._good: set[tuple[object, ...]] = set()
        self._judged: dict[tuple[Any, str], tuple[str, str | None] | None] = {}

    def _value_fault(self, simple: Any, value: str) -> tuple[str, str | None] | None:
        key = (simple, value)  # documents repeat themselves, and judging a value is the slow part
        if key not in self._judged:
            self._judged[key] = _value_fault(simple, value)
        return self._judged[key]

    def faults(self, root: _Element) -> Iterator[Diagnostic]:
        """Yield the faults of the element and of all below it that the schema looks at."""
        waiting: list[tuple[_Element, Any]] = [(root, self._schema.declarations[str(root.tag)])]
        while waiting:
            element, declaration = waiting.pop()
            if declaration is None:  # unknown: anything goes, but what it contains is looked at
                below = [
                    (child, self._schema.declarations.get(str(child.tag))) for child in element.iterchildren("*")
                ]
            else:
                rules = self._schema.rules(declaration)
                if not len(element) and len(names := element.keys()) <= MOST_ATTRIBUTES:
                    # documents repeat themselves: what has been found good is not looked at again
                    shape = (rules, element.text, *zip(names, element.values(), strict=True))
                    if shape not in self._good:
                        faults = [*self._attribute_faults(element, rules), *self._text_faults(element, rules)]
                        faults += self._child_faults(element, rules)
                        yield from faults
                        if not faults:
                            self._good.add(shape)
                    continue
                yield from self._attribute_faults(element, rules)
                yield from self._text_faults(element, rules)
                yield from self._child_faults(element, rules)
                below = list(self._below(element, rules))
            waiting.extend(reversed(below))

    def _below(self, element: _Element, rules: _Rules) -> Iterator[tuple[_Element, Any]]:
        """Yield the children that are looked at, each with its declaration, or None for an unknown one."""
        for child in element.iterchildren("*"):
            name = str(child.tag)
            if name in rules.children:
                yield child, rules.children[name]
            elif rules.other_children == "lax" and not name.startswith("{"):
                yield child, self._schema.declarations.get(name)

    def _attribute_faults(self, element: _Element, rules: _Rules) -> Iterator[Diagnostic]:
        meant = set()
        # only the values of those declared are read: see MOST_ATTRIBUTES
        for key in element.keys():  # noqa: SIM118 - an element is a sequence of its children
            name = str(key)
            if name in rules.attributes:
                fault = self._value_fault(rules.attributes[name], str(element.get(name)))
                if fault:
                    message, help = fault
                    message = f"attribute {_quoted(name)} of {_tag(element)} is {message}"
                    yield self._diagnostic("T204", message, help, element, name)
            elif not (rules.any_attribute or name.startswith("{")):
                message = f"attribute {_quoted(name)} is not allowed on {_tag(element)}"
                meant.add(_nearest(name, list(rules.attributes)))
                yield self._diagnostic("T202", message, _suggestion(name, list(rules.attributes)), element, name)
        for name in rules.required_attributes:
            if name not in element.attrib and name not in meant:
                message = f"{_tag(element)} lacks the attribute {name!r}"
                values = rules.attributes[name].enumeration
                yield self._diagnostic("T203", message, f"one of: {_listed(values)}" if values else None, element)

    def _text_faults(self, element: _Element, rules: _Rules) -> Iterator[Diagnostic]:
        if rules.mixed:
            return
        if rules.text is not None:
            fault = self._value_fault(rules.text, "".join(map(str, element.itertext(with_tail=False))))
            if fault:
                yield self._diagnostic("T204", f"the text of {_tag(element)} is {fault[0]}", fault[1], element)
            return
        texts = chain([element.text], (child.tail for child in element))
        stray = next((text.strip() for text in texts if text and text.strip()), None)
        if stray is not None:
            message = f"the text {_quoted(stray)} is not allowed in {_tag(element)}"
            yield self._diagnostic("T201", message, "put it into an element, or remove it", element)

    def _child_faults(self, element: _Element, rules: _Rules) -> Iterator[Diagnostic]:
        present: set[str | None] = set()
        for child in element.iterchildren("*"):
            name = str(child.tag)
            if _namespace(name) not in rules.vocabularies:
                continue
            present.add(name)
            if name not in rules.children and rules.other_children is None:
                message = f"element {_tag(child)} is not allowed in {_tag(element)}"
                present.add(_nearest(name, list(rules.children)))
                local = [one.rpartition("}")[2] for one in rules.children]
                yield self._diagnostic("T201", message, _suggestion(name.rpartition("}")[2], local), child)
        for name in rules.required_children:
            if name not in present:
                yield self._diagnostic("T205", f"{_tag(element)} lacks a <{name}> element", None, element)

    def _diagnostic(
        self, code: str, message: str, help: str | None, element: _Element, attribute: str | None = None
    ) -> Diagnostic:
        return self._locator.diagnostic(code, message, element, attribute, file=self._file, help=help)


def _value_fault(simple: Any, value: str) -> tuple[str, str | None] | None:
    """Return how a sentence that begins "… is" goes on and what helps, or None for a good value."""
    with _XMLSCHEMA:
        if simple.text_is_valid(value):
            return None
    if simple.enumeration:
        allowed = [str(item) for item in simple.enumeration]
        return f"{_quoted(value)}, which is not one of its values", _suggestion(value, allowed)
    return f"{_quoted(value)}, which is not {simple.annotation.appinfo[0].text}", None


def _suggestion(found: str, allowed: list[str]) -> str | None:
    if not allowed:
        return "nothing is allowed here"
    near = _nearest(found, allowed)
    return (f"did you mean {near!r}? " if near else "") + f"allowed: {_listed(sorted(allowed))}"


def _nearest(found: str, allowed: list[str]) -> str | None:
    word = found.strip().lower()
    # what is long resembles nothing, and finding that out would take seconds
    return next(iter(get_close_matches(word, allowed, n=1)), None) if len(word) <= 2 * LONGEST_VALUE else None


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def _tag(element: _Element) -> str:
    return f"<{_short(name_of(element))}>"


def _quoted(value: str) -> str:
    return repr(_short(value))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "…"
