"""What is said about speed is what was measured, and a run that is worse is told of."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import figures
from tests.benchmarks.figures import PAGE, Figure

if TYPE_CHECKING:
    from collections.abc import Callable


def figure(ratio: float, *, at_least: bool = False) -> Figure:
    return Figure(name="it", what="it", measured="2 s, 1 s", ratio=ratio, bound=2.0, at_least=at_least)


def test_the_table_is_made_of_what_is_recorded() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == figures.page(text, figures.read()), "run `make bench`"
    for one in figures.read().figures:
        assert one.what in text


@pytest.mark.parametrize(
    ("recorded", "measured", "at_least", "says"),
    [
        (2.0, [2.3], False, None),
        (2.0, [1.0], False, None),
        (2.0, [2.5, 2.3], False, None),
        (2.0, [2.5, 2.6], False, "more than a fifth worse: it: 2.60, and 2.00 was recorded"),
        (2.0, [4.0], True, None),
        (2.0, [1.5, 1.4], True, "more than a fifth worse: it: 1.40, and 2.00 was recorded"),
    ],
)
def test_what_is_worse_twice_is_told_of(
    monkeypatch: pytest.MonkeyPatch, recorded: float, measured: list[float], at_least: bool, says: str | None
) -> None:
    left = iter(measured)
    this = SimpleNamespace(figures=lambda: [figure(next(left), at_least=at_least)])
    monkeypatch.setitem(sys.modules, "tests.benchmarks.it", this)
    monkeypatch.setattr(benchmarks, "ALL", ["it"])
    run = figures.this_run(0.0, [figure(recorded, at_least=at_least)])
    monkeypatch.setattr(figures, "read", lambda: run)
    assert _ended(lambda: benchmarks.main(["--check"])) == says
    assert list(left) == []


@pytest.mark.parametrize(("ratio", "says"), [(1.9, None), (2.1, "a bound is not kept")])
def test_a_bound_that_is_not_kept_is_told_of(monkeypatch: pytest.MonkeyPatch, ratio: float, says: str | None) -> None:
    kept: list[figures.Run] = []
    monkeypatch.setitem(sys.modules, "tests.benchmarks.it", SimpleNamespace(figures=lambda: [figure(ratio)]))
    monkeypatch.setattr(benchmarks, "ALL", ["it", "other"])
    monkeypatch.setattr(figures, "record", kept.append)
    assert _ended(lambda: benchmarks.main(["it"])) == says
    assert kept == []  # of a part nothing is recorded


def _ended(call: Callable[[], object]) -> object:
    try:
        call()
    except SystemExit as end:
        return end.code
    return None
