"""What a refused document is told: every fault, each with its place and a way out, word for word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import translator
from tests.conftest import FIXTURES, PROJECT, cases
from translator.catalog import CATALOG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REFUSED = cases("errors")


def complaint(case: Path) -> str:
    (file,) = case.glob("domain.*")
    with pytest.raises(translator.DocumentError) as caught:
        translator.plan(translator.load(file.read_bytes(), file=file.name))
    for diagnostic in caught.value.diagnostics:
        assert diagnostic.file == file.name
        assert diagnostic.line
        assert diagnostic.column
        assert diagnostic.code in CATALOG
    return "".join(f"{diagnostic}\n" for diagnostic in caught.value.diagnostics)


@pytest.mark.parametrize("case", REFUSED, ids=[path.name for path in REFUSED])
def test_golden_error(case: Path, check_golden: Callable[[Path, str], None]) -> None:
    check_golden(case / "error.txt", complaint(case))


WORDS = {
    "the domain's name": "<domain type='xen'><name>{}</name></domain>",
    "a backend domain": (
        "<domain type='xen'><name>a</name><devices><controller type='usb' model='qusb2'>"
        "<backenddomain name='{}'/></controller></devices></domain>"
    ),
    "a machine": "<domain type='xen'><name>a</name><os><type machine='{}'>hvm</type></os></domain>",
    "an architecture": "<domain type='xen'><name>a</name><os><type arch='{}'>hvm</type></os></domain>",
}
SMUGGLED = [
    "a/b",
    "/",
    ".",
    "..",
    "../a",
    "a&#10;b",
    "a&#13;b",
    "a&#9;b",
    "a&#x7f;",
    "a&#x9b;31m",
    "a&#x2028;",
    "${domid}",
]


@pytest.mark.parametrize("word", [*SMUGGLED, "a${hostdev:1.2:path}"])
@pytest.mark.parametrize("document", WORDS.values(), ids=WORDS)
def test_no_word_is_more_than_a_word(document: str, word: str) -> None:
    """Names stand in paths of xenstore, in ids of QMP and in a plan's placeholders."""
    with pytest.raises(translator.DocumentError) as caught:
        translator.load(document.format(word).encode())
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["T319"]


PLACES = [
    "<disk type='file'><source file='/a/{}'/><target dev='sda' bus='usb'/></disk>",
    "<redirdev bus='usb' type='tcp'><source mode='connect' host='{}' service='1'/></redirdev>",
    "<serial type='unix'><source mode='bind' path='/{}'/><target type='usb-serial'/></serial>",
    (
        "<smartcard mode='host-certificates'><certificate>a</certificate><certificate>b</certificate>"
        "<certificate>c</certificate><database>/{}</database></smartcard>"
    ),
]


@pytest.mark.parametrize("word", ["${domid}", "$&#123;hostdev:1.2:path}", "&#36;{x"])
@pytest.mark.parametrize("device", PLACES)
def test_no_device_smuggles_a_placeholder(device: str, word: str) -> None:
    text = f"<domain type='kvm'><name>a</name><devices>{device.format(word)}</devices></domain>"
    with pytest.raises(translator.DocumentError, match="begins a placeholder") as caught:
        translator.load(text.encode())
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["T319"]
    translator.plan(translator.load(text.replace(word, "$5 {}").encode()))


@pytest.mark.parametrize("word", ["desk", "a b", "Gäste-VM", "a.b", "...", "$5", "{x}", "a:b", "%s"])
def test_an_odd_name_is_a_name(word: str) -> None:
    assert translator.load(WORDS["the domain's name"].format(word).encode()).name == word


@pytest.mark.parametrize("word", ["", "}", "a}/b", "${domid}"])
def test_a_backend_domains_name_cannot_end_its_placeholder(word: str) -> None:
    with pytest.raises(translator.DocumentError, match=r"T319.*backend domain's name"):
        translator.load(WORDS["a backend domain"].format(word).encode())


@pytest.mark.parametrize(
    "word", ["0fe0f8e3", "x" * 32, "../0fe0f8e3c434d2aa2a28d3b9d5f3c11", "0" * 31 + "\u0663", "${domid}"]
)
def test_a_uuid_is_digits(word: str) -> None:
    with pytest.raises(translator.DocumentError, match="is not a UUID"):
        translator.load(f"<domain type='xen'><name>a</name><uuid>{word}</uuid></domain>".encode())


@pytest.mark.parametrize("word", ["ua-a/b", "ua-..", "ua-a b", "ua-${domid}", "ua-\u00e9", "usb0", "../ua-x"])
def test_an_alias_that_is_no_id_does_not_become_one(word: str) -> None:
    """libvirt drops such an alias too, and gives its own."""
    text = (
        "<domain type='kvm'><name>a</name><devices><input type='tablet' bus='usb'>"
        f"<alias name='{word}'/></input></devices></domain>"
    )
    (device,) = translator.plan(translator.load(text.encode())).topology.devices
    assert device.id == "input0"


def test_every_code_about_documents_has_a_case() -> None:
    said = {code for case in REFUSED for code in re.findall(r"\[(T[123]\d\d)\]", (case / "error.txt").read_text())}
    errors = {code for code, entry in CATALOG.items() if code < "T4" and entry.severity == "error"}
    errors -= {"T107", "T110", "T111", "T112"}  # about plan files: tests/test_plan.py
    errors -= {"T362"}  # about converting: tests/test_xlcfg.py
    errors -= {"T340"}  # about words of a command line: tests/test_words.py
    errors -= {"T130", "T373", "T374"}  # about what is compared: tests/test_review.py, tests/test_check.py
    errors -= {"T392"}  # about what is remembered: tests/test_work.py
    assert errors - said == set(), "add fixtures/errors/<claim>/domain.xml that provokes the code"


def test_every_code_in_the_source_is_in_the_catalog_and_the_other_way_round() -> None:
    used = {
        code
        for file in (PROJECT / "translator").rglob("*.py")
        if file.name != "catalog.py"
        for code in re.findall(r'"(T\d{3})"', file.read_text())
    }
    assert used == set(CATALOG)


def test_every_code_is_met_in_a_test_or_a_golden() -> None:
    files = [*FIXTURES.rglob("*.txt"), *FIXTURES.rglob("*.json"), *(PROJECT / "tests").glob("*.py")]
    met = {code for file in files for code in re.findall(r"T\d{3}", file.read_text(encoding="utf-8"))}
    assert CATALOG.keys() - met == set(), "provoke it in a fixture, or look at the code where its words are"


def test_documentation_is_the_catalogs() -> None:
    from translator.catalog import markdown

    written = (PROJECT / "docs/diagnostics.md").read_text()
    assert written == markdown(PROJECT / "fixtures/errors"), (
        "write it again: python -m translator.catalog > docs/diagnostics.md"
    )
