"""What a refused document is told: every fault, each with its place and a way out, word for word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import translator
from tests.conftest import PROJECT, cases
from translator.catalog import CATALOG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REFUSED = cases("errors")


def complaint(case: Path) -> str:
    with pytest.raises(translator.DocumentError) as caught:
        translator.plan(translator.load((case / "domain.xml").read_bytes(), file="domain.xml"))
    for diagnostic in caught.value.diagnostics:
        assert diagnostic.file == "domain.xml"
        assert diagnostic.line
        assert diagnostic.column
        assert diagnostic.code in CATALOG
    return "".join(f"{diagnostic}\n" for diagnostic in caught.value.diagnostics)


@pytest.mark.parametrize("case", REFUSED, ids=[path.name for path in REFUSED])
def test_golden_error(case: Path, check_golden: Callable[[Path, str], None]) -> None:
    check_golden(case / "error.txt", complaint(case))


def test_every_code_about_documents_has_a_case() -> None:
    said = {code for case in REFUSED for code in re.findall(r"\[(T[123]\d\d)\]", (case / "error.txt").read_text())}
    errors = {code for code, entry in CATALOG.items() if code < "T4" and entry.severity == "error"}
    errors -= {"T107", "T110", "T111", "T112"}  # about plan files: tests/test_plan.py
    assert errors - said == set(), "add fixtures/errors/<claim>/domain.xml that provokes the code"


def test_every_code_in_the_source_is_in_the_catalog_and_the_other_way_round() -> None:
    used = {
        code
        for file in (PROJECT / "translator").rglob("*.py")
        if file.name != "catalog.py"
        for code in re.findall(r'"(T\d{3})"', file.read_text())
    }
    assert used == set(CATALOG)


def test_documentation_is_the_catalogs() -> None:
    from translator.catalog import markdown

    written = (PROJECT / "docs/diagnostics.md").read_text()
    assert written == markdown(PROJECT / "fixtures/errors"), (
        "write it again: python -m translator.catalog > docs/diagnostics.md"
    )
