"""Normalising: everything about USB becomes explicit, nothing else changes, and the plan stays the same."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import translator
from tests import corpus
from tests.conftest import FIXTURES, cases
from tests.domains import random_domain
from translator.document.normalize import normalize
from translator.document.spans import span_of
from translator.document.validate import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from translator.planning.plan import Plan

# what may become USB devices or controllers, PCI controllers because USB's may need a bus of their own
_SUBJECTS = frozenset(
    (
        *("controller", "hostdev", "input", "hub", "redirdev", "disk", "smartcard", "serial", "sound", "interface"),
        *("channel", "console"),
    )
)
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)

FIXED = sorted(FIXTURES.rglob("domain.xml"))


def essence(plan: Plan) -> dict[str, Any]:
    """Return a plan's JSON without what tells where in a document something stands, and whether it stands there.

    Controllers come by index: libvirt keeps those without one where it read them, and sorts those that have one.
    """
    wire: dict[str, Any] = msgspec.json.decode(plan.to_json())
    for name in ("untranslated", "diagnostics"):
        del wire[name]
    parts = [*wire["controllers"], *wire["devices"], *wire["steps"]]
    for part in (*parts, *(one for controller in wire["controllers"] for one in controller["companions"])):
        for name in ("source", "implicit", "why", "after"):
            part.pop(name, None)
    for controller in wire["controllers"]:
        controller["companions"].sort(key=lambda one: one["startport"])
    wire["controllers"].sort(key=lambda one: (one["family"], one["index"]))
    busses = [step for step in wire["steps"] if step["id"].startswith("controller:usb:")]
    others = [step for step in wire["steps"] if not step["id"].startswith("controller:usb:")]
    wire["steps"] = [*sorted(busses, key=lambda step: str(step["id"])), *others]
    return wire


def check(name: str, data: bytes) -> bool:
    """Check one document; return whether it is one that can be planned."""
    try:
        before = translator.plan(translator.load(data), coldplug="all")
    except translator.DocumentError:
        return False
    if any(warning.code == "T332" for warning in before.diagnostics):
        with pytest.raises(translator.DocumentError, match="T332"):
            normalize(data)
        return False
    normal = normalize(data)
    after = translator.plan(translator.load(normal), coldplug="all")
    assert essence(after) == essence(before), f"{name}\n{normal.decode(errors='replace')}"
    without_usb = any(controller.type == "none" for controller in after.topology.controllers)
    # busses that none of the document's devices is on are added anew
    implicit = {controller.family for controller in after.topology.controllers if controller.implicit} - {"pci"}
    assert not implicit or (without_usb and implicit == {"usb"}), name
    assert not any(device.implicit for device in after.topology.devices), name
    assert normalize(normal) == normal, name
    assert rest(normal) == rest(data) or b"<devices" not in data, name
    return True


def rest(data: bytes) -> list[bytes]:
    """Return what is not about USB, as it stands: the other devices, the comments, and what surrounds <devices>."""
    document = validate(data)
    text = document.locator.text
    devices = document.root.findall("devices")
    if not devices:
        return [text]
    whole = [span_of(document.locator, one) for one in devices]
    spans = [
        span_of(document.locator, one)
        for one in document.root.iterfind("devices/*")
        if _SUBJECTS.isdisjoint([one.tag])
    ]
    kept = [text[: whole[0].inner].rstrip(b" />\t\r\n"), *(text[span.start : span.end] for span in spans)]
    return [*kept, *_COMMENT.findall(text), text[whole[-1].end :]]


@pytest.mark.parametrize("case", cases("normal"), ids=lambda case: case.name)
def test_golden(case: Path, check_golden: Callable[[Path, str], None]) -> None:
    normal = normalize((case / "domain.xml").read_bytes())
    check_golden(case / "normal.xml", normal.decode())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_encoding_and_line_ends_are_kept(encoding: str, line_end: str) -> None:
    lines = [
        f"<?xml version='1.0' encoding='{encoding.removesuffix('-sig')}'?>",
        "<domain type='qemu'>",
        "  <name>gäste</name><os><type machine='pc'>hvm</type></os>",
        "  <devices>",
        "    <input type='tablet' bus='usb'>",
        "      <address type='usb' bus='0' port='2'/>",
        "    </input>",
        "    <controller type='usb' index='0' model='piix4-uhci'>",
        "      <address type='pci' slot='7'/>",
        "    </controller>",
        "  </devices><!-- für alle -->",
        "</domain>",
        "",
    ]
    given = line_end.join(lines)
    lines.insert(6, "      <alias name='input0'/>")
    lines.insert(10, "      <alias name='usb'/>")
    lines.insert(12, "    <controller type='pci' index='0' model='pci-root'/>")
    assert normalize(given.encode(encoding)) == line_end.join(lines).encode(encoding)


def check_all(documents: Iterable[tuple[str, bytes]]) -> int:
    return sum(check(name, data) for name, data in documents)


@pytest.mark.parametrize("path", FIXED, ids=[path.parent.name for path in FIXED])
def test_fixtures(path: Path) -> None:
    check(str(path), path.read_bytes())


def test_corpus() -> None:
    if reason := corpus.missing():
        pytest.skip(reason)
    assert check_all((case.name, case.xml) for case in corpus.read_corpus()) > 1000


def test_random_domains() -> None:
    documents = ((f"seed-{seed}", random_domain(random.Random(seed)).encode()) for seed in range(500))
    assert check_all(documents) > 250
