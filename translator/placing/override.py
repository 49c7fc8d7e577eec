"""Properties that a document gives to QEMU's devices by `<qemu:override>`, checked and put into the topology.

What a property may be is the registry's word, or that of a QEMU that was asked. What the topology decides cannot be
overridden: another port or another backend is said where the document says it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.findings import LONGEST_WORD
from translator.registry.knob import knob_of_type, nearest, spelled
from translator.registry.knobs import knobs_of
from translator.topology import Untranslated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from translator.document.domain import Domain, Override, OverrideProperty
    from translator.errors import Source
    from translator.findings import Findings
    from translator.live.drivers import Driver
    from translator.registry.knob import Kind, Knob
    from translator.topology import Companion, Controller, Device, Topology, Value

# What `device_add` takes that is no property of a driver.
_IDENTITY = {"id": "<alias>", "bus": "<address>", "driver": "the model"}
_NUMBERS = {"signed": re.compile(r"-?[0-9]{1,20}", re.ASCII), "unsigned": re.compile(r"[0-9]{1,20}", re.ASCII)}
_TYPES: Mapping[Kind, str] = {bool: "bool", int: "unsigned", str: "string"}


class _Named(NamedTuple):
    """A device of QEMU's with the names that an override may call it by."""

    names: tuple[str, ...]
    part: Controller | Companion | Device


def override(
    topology: Topology, domain: Domain, findings: Findings, probed: Mapping[str, Driver | None] | None
) -> tuple[Topology, tuple[Untranslated, ...]]:
    """Return the topology with the properties that the document gives, and the overrides of devices that are not its.

    Args:
        findings: gets what cannot be; the place of each is the element's.
        probed: what a QEMU was found to have, whose word then holds for what the registry does not know.
    """
    named = list(_named(topology, domain))
    parts = {name: one.part for one in named for name in one.names}
    silent = set(_aliases(domain).values()) - parts.keys()
    taken = {label.value for label in domain.aliases} - silent
    changed: dict[int, dict[str, Value]] = {}
    given: set[tuple[int, str]] = set()
    elsewhere = []
    for one in domain.overrides:
        part = parts.get(one.alias)
        if part is None:
            if one.elsewhere or one.alias in taken:
                elsewhere.append(Untranslated(one.path, one.source))
            else:
                _unknown(one, one.alias in silent, list(parts), findings)
            continue
        properties = changed.setdefault(id(part), dict(part.properties))
        for property in one.properties:
            if not _knobs(str(part.driver), probed) and property.name not in _IDENTITY:
                # a driver beyond the registry: QEMU is the judge of what it is given
                properties[property.name] = None if property.type == "remove" else _value(property)
                continue
            if (id(part), property.name) in given:
                findings.fault("T379", property, f"{one.alias!r} is given {property.name!r} twice", "@name")
                continue
            given.add((id(part), property.name))
            _change(properties, str(part.driver), property, findings, probed)
    for properties in changed.values():
        for name in [name for name, value in properties.items() if value is None]:
            del properties[name]
    return _with(topology, changed), tuple(elsewhere)


def _aliases(domain: Domain) -> dict[Source, str]:
    """Return the document's own aliases, by their elements."""
    aliases = {one.source: one.alias for one in domain.controllers if one.alias}
    return aliases | {one.source: one.alias for one in domain.devices if one.alias}


def _named(topology: Topology, domain: Domain) -> Iterator[_Named]:
    aliases = _aliases(domain)
    for controller in topology.controllers:
        for companion in controller.companions:
            alias = aliases.get(companion.source) if companion.source else None
            yield _Named((alias,) if alias else (), companion)
    both: list[Controller | Device] = [*topology.controllers, *topology.devices]
    for part in both:
        if part.id is not None and part.driver is not None:
            alias = None if part.implicit or part.source is None else aliases.get(part.source)
            yield _Named((part.id, alias) if alias else (part.id,), part)


def _unknown(one: Override, silent: bool, known: list[str], findings: Findings) -> None:
    alias = one.alias[:LONGEST_WORD]
    if silent:
        findings.fault(
            "T375",
            one,
            f"{alias!r} is paravirtual, and QEMU has no device for it",
            "@alias",
            "only what QEMU emulates has properties",
        )
    else:
        findings.fault("T375", one, f"no device has the alias {alias!r}", "@alias", nearest(alias, known))


def _change(
    properties: dict[str, Value],
    driver: str,
    property: OverrideProperty,
    findings: Findings,
    probed: Mapping[str, Driver | None] | None,
) -> None:
    """Give one property, or take it away; or note why that cannot be."""
    name, knobs = property.name, _knobs(driver, probed)
    knob = knobs.get(name)
    if knob is None and name not in _IDENTITY:
        findings.fault(
            "T376",
            property,
            f"QEMU's {driver} has no property {name!r}" + ("" if probed else " that is known here"),
            "@name",
            nearest(name, [one for one in knobs if not knobs[one].ours]),
        )
        return
    if knob is None or knob.ours:
        said = _IDENTITY[name] if knob is None else knob.xml
        findings.fault(
            "T378",
            property,
            f"property {name!r} of {driver} follows from the document's other elements, and cannot be overridden",
            "@name",
            f"it is said by {said}" if said else "leave it out",
        )
    elif property.type == "remove":
        if properties.pop(name, None) is None:
            findings.fault(
                "T380", property, f"property {name!r} is not set, so it cannot be removed", "@name", "leave it out"
            )
    else:
        value, text = _value(property), (property.value or "")[:LONGEST_WORD]
        fault = f"that is no {property.type} value" if value is None else knob.fault(value)
        if fault is not None:
            findings.fault(
                "T377",
                property,
                f"property {name!r} of {driver} cannot be {property.type} {text!r}: {fault}",
                None if property.value is None else "@value",
                f"such as type='{_TYPES[knob.kind]}' value='{_example(knob)}'",
            )
        else:
            assert value is not None
            properties[name] = value


def _example(knob: Knob) -> str:
    """Return a value as a document spells it: the default, or the first that is possible."""
    if knob.default is not None:
        return spelled(knob.default)
    if knob.kind is bool:
        return "true"
    return str(knob.range[1]) if knob.range else next(iter(knob.choices), "…")


def _knobs(driver: str, probed: Mapping[str, Driver | None] | None) -> Mapping[str, Knob]:
    """Return what may be set: what the registry knows, and besides it what a QEMU that was asked has."""
    ours = knobs_of(driver)
    theirs = (probed or {}).get(driver) or {}
    more = {
        name: knob
        for name, one in theirs.items()
        if name not in ours and (knob := knob_of_type(name, one.type)) is not None
    }
    return {**ours, **more}


def _value(property: OverrideProperty) -> str | int | bool | None:
    """Return the value as its type says; None where it has no such value."""
    text = property.value
    if text is None or property.type == "string":
        return text
    if property.type == "bool":
        return {"true": True, "false": False}.get(text)
    number = _NUMBERS[property.type]
    return int(text) if number.fullmatch(text) else None


def _with(topology: Topology, changed: Mapping[int, dict[str, Value]]) -> Topology:
    def controller(one: Controller) -> Controller:
        companions = tuple(
            msgspec.structs.replace(companion, properties=changed.get(id(companion), companion.properties))
            for companion in one.companions
        )
        return msgspec.structs.replace(one, companions=companions, properties=changed.get(id(one), one.properties))

    return msgspec.structs.replace(
        topology,
        controllers=tuple(map(controller, topology.controllers)),
        devices=tuple(
            msgspec.structs.replace(one, properties=changed.get(id(one), one.properties)) for one in topology.devices
        ),
    )
