"""What any bytes at all must come to, and how documents are damaged to try it."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING

from lxml import etree

import translator
from tests.conftest import FIXTURES
from translator.catalog import CATALOG

if TYPE_CHECKING:
    from random import Random

    from lxml.etree import _Element

LONGEST_S = 2

_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)

# What a number, a path, an id or a placeholder may stumble over, and then a parser.
ODD = (
    *("", " ", "0", "-1", "+1", "00", "0x", "0x1f", "1.2", "1.2.3.4.5", "1 2", "31", "32", "32751", "99999", "1e3"),
    *("2147483648", "18446744073709551616", "1" * 5000, "1." * 50, "\u0661", "none", "auto", "usb", "xen", "kvm"),
    *("hvm", "xenpvh", "linux", "pc", "q35", "ua-a", "ua-b", "..", "a/b", "a\nb", "\x9b", "\u2028", "\U0001f600"),
    *("${domid}", "${backend_domid:x}", "}", "%s", "x" * 200),
)
BYTES = (
    *(b"&lt;", b"&x;", b"&#0;", b"\xef\xbb\xbf", b"\xff", b"\x00", b"]]>", b"<!--", b"-->", b"<![CDATA[", b"<?a?>"),
    *(b"<!DOCTYPE a>", b"<hub type='usb'/>", b"<a>", b"</a>", b"'", b'"', b">", b"<", b"=", b" xmlns='u'"),
)


def check(data: bytes) -> bool:
    """Load the document and plan it; return whether it is accepted.

    Any outcome but a plan or a refusal, both well-formed and in time, is a failure.
    """
    began = time.perf_counter()
    try:
        plan = translator.plan(translator.load(data, file="fuzz.xml"))
    except translator.DocumentError as error:
        accepted, findings = False, error.diagnostics
        assert findings, "refused without a reason"
        assert any(finding.severity == "error" for finding in findings)
    else:
        accepted, findings = True, plan.diagnostics
        assert translator.Plan.from_json(plan.to_json()) == plan
        hosts = r"hostdev:[^${}\x00-\x1f\x7f]+:[a-z4_]+|scsi:[A-Za-z0-9:/._-]+:[a-z]+"
        allowed = rf"domid|qmp:[a-z][a-z0-9-]*|backend_domid:[^/{{}}\n]+|{hosts}"
        assert all(re.fullmatch(allowed, word) for word in plan.placeholders())
    took = time.perf_counter() - began
    assert took < LONGEST_S, f"it took {took:.1f} s"
    for finding in findings:
        assert finding.code in CATALOG
        assert finding.line
        assert finding.column
        assert str(finding).encode()
    return accepted


@cache
def seeds() -> tuple[bytes, ...]:
    """Return every document among the fixtures but the largest, each once."""
    found = {file.read_bytes() for file in FIXTURES.rglob("*.xml")}
    return tuple(sorted(data for data in found if len(data) < 10_000))


@cache
def _attributes() -> dict[str, tuple[str, ...]]:
    """Return the values that each attribute has somewhere."""
    found: dict[str, set[str]] = {}
    for root in _trees():
        for element in root.iter("*"):
            for name, value in element.items():
                found.setdefault(str(name), set()).add(str(value))
    return {name: tuple(sorted(values)) for name, values in sorted(found.items())}


@cache
def _trees() -> tuple[_Element, ...]:
    parsed = []
    for seed in seeds():
        with suppress(etree.XMLSyntaxError):
            parsed.append(etree.fromstring(seed, _PARSER))
    return tuple(parsed)


def mutate(data: bytes, random: Random) -> bytes:
    """Return the document with a few things changed: mostly in its tree, so that it stays XML."""
    if random.random() < 0.2:
        return _other_bytes(data, random)
    try:
        root = etree.fromstring(data, _PARSER)
    except etree.XMLSyntaxError:
        return _other_bytes(data, random)
    for _ in range(random.choice([1, 1, 2, 3, 6])):
        random.choice([_other_value, _other_value, _other_text, _remove, _double, _bring, _bring])(root, random)
    return etree.tostring(root)


def _some(root: _Element, random: Random) -> _Element:
    return random.choice(list(root.iter("*")))


def _other_value(root: _Element, random: Random) -> None:
    element = _some(root, random)
    name = random.choice([str(name) for name in element.keys()] or ["id"])  # noqa: SIM118
    if random.random() < 0.1:
        name = random.choice(list(_attributes()))
    if random.random() < 0.1:
        element.attrib.pop(name, "")
    else:
        values = _attributes().get(name, ODD) if random.random() < 0.8 else ODD
        element.set(name, random.choice(values))


def _other_text(root: _Element, random: Random) -> None:
    element = _some(root, random)
    if len(element) == 0 and element.text:
        element.text = random.choice(ODD)


def _remove(root: _Element, random: Random) -> None:
    element = _some(root, random)
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def _double(root: _Element, random: Random) -> None:
    element = _some(root, random)
    parent = element.getparent()
    if parent is not None:
        for _ in range(random.choice([1, 1, 2, 9])):
            parent.insert(random.randint(0, len(parent)), deepcopy(element))


def _bring(root: _Element, random: Random) -> None:
    """Put an element of another document beside one that has its name, or into the devices."""
    element = _some(random.choice(_trees()), random)
    namesakes = [one.getparent() for one in root.iter(str(element.tag))]
    parent = random.choice([*namesakes, root.find("devices")])
    if parent is not None and element.getparent() is not None:
        parent.insert(random.randint(0, len(parent)), deepcopy(element))


def _other_bytes(data: bytes, random: Random) -> bytes:
    if random.random() < 0.1:
        text = data.decode("utf-8", "replace")
        return text.encode(random.choice(["utf-16", "utf-16-be", "utf-32", "latin-1", "utf-7"]), "replace")
    for _ in range(random.randint(1, 3)):
        at = random.randint(0, len(data))
        instead = random.choice([random.randbytes(random.randint(0, 3)), random.choice(BYTES)])
        data = data[:at] + instead + data[at + random.choice([0, 0, 1, 5, 50]) :]
    return data
