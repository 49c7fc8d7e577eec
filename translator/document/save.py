"""A document gets what was attached to its domain, or loses what was detached; all else stays, byte for byte.

Where a device would move because another one comes or goes, the document is made explicit first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lxml import etree

from translator.comparison.changes import changes
from translator.document.edit import Editor, New, alias, encoded, present, usb_address
from translator.document.normalize import card_words, normalize, pci_address
from translator.document.parse import parse
from translator.document.pinpoint import find, pinpointed
from translator.document.validate import is_config, validate
from translator.errors import Diagnostic, DocumentError
from translator.families import by_name
from translator.placing.resolve import resolve
from translator.planning.subjects import subject
from translator.registry.models import MODELS
from translator.topology import Device

if TYPE_CHECKING:
    from lxml.etree import _Element

    from translator.hotplug.growing import Part
    from translator.hotplug.wanted import Wanted
    from translator.topology import Topology


def add(text: bytes, wanted: Wanted, *, file: str | None = None) -> bytes:
    """Return the document with the parts that come, each with its controller, port and alias.

    A controller that the document leaves out comes into it with what else it leaves open, as `normalize` writes it.

    Raises:
        DocumentError: the document is refused; T442, it has no such controller or port, or would have to move others.
    """
    _check_xml(text, file)
    before = _topology(text, file)
    coming = {subject(part) for part in wanted.parts}
    refused: DocumentError | None = None
    for start in (text, normalize(text, file=file)):
        document = validate(start, file=file)
        editor = Editor(document)
        new = [_element(part, wanted) for part in wanted.parts]
        homes = document.root.findall("devices")
        editor.insert(*((homes[-1], new) if homes else (document.root, [New("devices", {}, new)])))
        outcome = encoded(editor.edited(), text)
        try:
            after = _topology(outcome, file)
        except DocumentError as error:
            refused = error
            continue
        refused = None
        if _moved(before, after) == (coming, set()):
            return outcome
    what = ", ".join(sorted(coming))
    if refused is None:
        raise _refused(file, f"{what} cannot be added without moving what the document has")
    why = refused.diagnostics[0]
    raise _refused(
        file,
        f"the document would be refused with {what} in it: {why.message} ({why.code})",
        "nothing was attached; let the document have the domain's controllers first (what it leaves out is written "
        "into it by `translator normalize`), or do without --save",
    ) from refused


def remove(text: bytes, wanted: Wanted, *, file: str | None = None) -> bytes:
    """Return the document without the parts that go; what nobody had written goes by itself.

    Raises:
        DocumentError: the document is refused, or has no such device.
    """
    _check_xml(text, file)
    leaving = {subject(part) for part in wanted.parts}
    for start in (text, normalize(text, file=file)):
        topology = _topology(start, file)
        document = validate(start, file=file)
        editor = Editor(document)
        elements = {document.locator.source(one): one for one in document.root.iterfind("devices/*")}
        parts: list[Part] = [*topology.controllers, *topology.devices]
        found = {subject(part): part for part in parts if subject(part) in leaving}
        if missing := leaving - found.keys():
            raise _refused(file, f"the document has no {', '.join(sorted(missing))}")
        for part in found.values():
            if not part.implicit and part.source in elements:
                editor.drop(elements[part.source])
        outcome = encoded(editor.edited(), text)
        gone = _moved(_topology(outcome, file), topology)[0]
        if gone <= leaving and _moved(topology, _topology(outcome, file)) == (set(), gone):
            return outcome
    raise _refused(file, f"{', '.join(sorted(leaving))} cannot be removed without moving what the document has")


def _element(part: Part, wanted: Wanted) -> New:
    """Return the element of a part: what the fragment says, with what it leaves open."""
    family = by_name().get(part.family)
    origin = wanted.origins.get(subject(part))
    new = New("controller", {"type": part.family})
    if origin is not None:
        fragment, path = origin
        element = find(validate(fragment.data).root, path)
        assert element is not None, "the fragment was parsed from these bytes"
        new = _new(element)
    others = [child for child in new.children if child.tag not in ("address", "alias")]
    if isinstance(part, Device):
        words = family.address_words(part) if family else card_words(part)
        return new._replace(
            children=[*others, New("address", words), *present(alias(part.id if part.driver else None))]
        )
    said: dict[str, str] = {"index": str(part.index)}
    if family is not None and (model := family.model_word(part)) is not None:
        said["model"] = model
    if part.family == "usb" and not MODELS[part.model].ports.fixed:
        said["ports"] = str(part.ports)
    address = [child for child in new.children if child.tag == "address"]
    if part.place is not None:
        address = [usb_address(part.place)]
    elif not address:
        address = present(pci_address(part))
    return new._replace(attributes={**new.attributes, **said}, children=[*others, *address, *present(alias(part.id))])


def _new(element: _Element) -> New:
    children = [_new(child) for child in element.iterchildren("*")]
    text = "" if children else (element.text or "").strip()
    attributes = {str(name): str(value) for name, value in element.items()}
    return New(etree.QName(element).localname, attributes, children, text)


def _topology(text: bytes, file: str | None) -> Topology:
    domain = parse(validate(text, file=file))
    with pinpointed(text):
        return resolve(domain).topology


def _moved(before: Topology, after: Topology) -> tuple[set[str], set[str]]:
    """Return the subjects that are new, and those that are gone or are something else."""
    moved = changes(before, after)
    return (
        {change.id for change in moved if change.action == "add"},
        {change.id for change in moved if change.action != "add"},
    )


def _check_xml(text: bytes, file: str | None) -> None:
    if is_config(text, file):
        raise _refused(file, "only domain XML is edited, and this is a file in xl's language")


def _refused(
    file: str | None, message: str, help: str = "nothing was done; change the document by hand, or do without --save"
) -> DocumentError:
    return DocumentError([Diagnostic(code="T442", message=message, help=help, file=file)])
