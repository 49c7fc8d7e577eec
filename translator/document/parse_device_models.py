"""`<tr:device-models>` of a domain's metadata: which device models there are and what each is to emulate.

The element has a schema of its own, schemas/device-models.xsd: that of domain XML passes over metadata, which
holds anybody's elements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from translator.document.domain import ControllerName, DeviceModelElement, DeviceModelsElement, SharePolicy
from translator.document.reader import Place, attributes, possible, quoted
from translator.topology import DEVICE_MODEL_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml.etree import _Element

    from translator.document.reader import Reader

NAMESPACE = "urn:translator:device-models:1"
POLICIES: tuple[SharePolicy, ...] = get_args(SharePolicy)


def read_device_models(reader: Reader, domain: _Element) -> DeviceModelsElement | None:
    """Return what the document says of its device models; None where it says nothing."""
    places = [
        Place(element, "/domain/metadata/tr:device-models")
        for element in domain.iterfind(f"metadata/{{{NAMESPACE}}}device-models")
    ]
    if not places:
        return None
    for place in places[1:]:
        reader.fault("T201", place, None, "a second <tr:device-models>", "say everything in one")
    place = places[0]
    policy = _required(reader, place, "policy")
    if policy is not None and policy not in POLICIES:
        reader.fault("T204", place, "policy", f"there is no policy {quoted(policy)}", possible(POLICIES))
    _check_attributes(reader, place, "policy")
    return DeviceModelsElement(
        path=place.path,
        source=reader.source(place),
        policy=next((word for word in POLICIES if word == policy), "primary"),
        models=tuple(_device_model(reader, child) for child in _children(reader, place, "device-model")),
    )


def _device_model(reader: Reader, place: Place) -> DeviceModelElement:
    name = _required(reader, place, "name")
    if name is not None and not DEVICE_MODEL_NAME.fullmatch(name):
        help = "1 to 31 lower-case letters, digits and hyphens, a letter first: the name of a socket is made of it"
        reader.fault("T204", place, "name", f"{quoted(name)} cannot be a device model's name", help)
    emulator = place.element.get("emulator")
    if emulator is not None:
        reader.check_word(place, "emulator", "emulator", path=True)
    _check_attributes(reader, place, "name", "emulator")
    return DeviceModelElement(
        path=place.path,
        source=reader.source(place),
        name=name or "",
        emulator=emulator,
        controllers=tuple(_controller(reader, child) for child in _children(reader, place, "controller")),
    )


def _controller(reader: Reader, place: Place) -> ControllerName:
    family = _required(reader, place, "type") or ""
    index = reader.number(place, "index") if _required(reader, place, "index") is not None else None
    _check_attributes(reader, place, "type", "index")
    list(_children(reader, place))
    return ControllerName(
        path=place.path, source=reader.source(place), family=family, index=-1 if index is None else index
    )


def _children(reader: Reader, place: Place, name: str = "") -> Iterator[Place]:
    """Yield the children of that name, which are all that may be there."""
    number = 0
    for element in place.element.iterchildren("*"):
        if name and element.tag == f"{{{NAMESPACE}}}{name}":
            number += 1
            yield Place(element, f"{place.path}/tr:{name}[{number}]")
        else:
            help = possible([f"tr:{name}"]) if name else "it has none"
            tag = str(element.tag).rpartition("}")[2]
            child = Place(element, f"{place.path}/{tag}")
            reader.fault("T201", child, None, f"<{tag}> cannot stand in <{place.path.rpartition('/')[2]}>", help)
    texts = (place.element.text, *(element.tail for element in place.element))
    if any(text and text.strip() for text in texts):
        reader.fault("T201", place, None, "text cannot stand here")


def _required(reader: Reader, place: Place, name: str) -> str | None:
    value = place.element.get(name)
    if value is None:
        reader.fault("T203", place, None, f"the attribute {name!r} is missing")
    return value


def _check_attributes(reader: Reader, place: Place, *known: str) -> None:
    for name in attributes(place.element):
        if name not in known:
            reader.fault("T202", place, str(name), f"there is no attribute {quoted(str(name))} here", possible(known))
