"""What was measured: as a table in docs/performance.md, and as what a later run is compared with.

`recorded.json` is the one place for the figures of the last whole run; the table is made of it.
"""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

RECORDED = Path(__file__).with_name("recorded.json")
PAGE = Path(__file__).parents[2] / "docs/performance.md"
MOST_WORSE = 1.2  # times what was recorded
_PLACE = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A ratio of two measurements of one run, and what was promised of it."""

    name: str  # by which it is found again
    what: str  # in the table
    measured: str
    ratio: float
    bound: float
    at_least: bool = False

    @property
    def kept(self) -> bool:
        return self.ratio >= self.bound if self.at_least else self.ratio <= self.bound

    def __str__(self) -> str:
        most = "at least" if self.at_least else "at most"
        return f"{self.name}: {self.measured}: {self.ratio:.2f} ({most} {self.bound:g})"

    def worse(self, recorded: Figure) -> float:
        """Return how many times worse it is than it was."""
        return recorded.ratio / self.ratio if self.at_least else self.ratio / recorded.ratio


class Run(msgspec.Struct, frozen=True):
    """One run of all benchmarks, and what it ran on."""

    date: str
    cpu: str
    cores: int
    load: float  # processes that wanted to run, before and besides
    python: str
    figures: tuple[Figure, ...]


def this_run(load: float, figures: Iterable[Figure]) -> Run:
    """Return the run that ends now."""
    cpus = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return Run(
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        cpu=cpus[0] if cpus else platform.machine(),
        cores=os.cpu_count() or 1,
        load=round(load, 1),
        python=platform.python_version(),
        figures=tuple(figures),
    )


def read() -> Run:
    """Return the last whole run."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=Run)


def record(run: Run) -> None:
    """Keep a whole run, and make the table of it."""
    RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), run), encoding="utf-8")


def page(text: str, run: Run) -> str:
    """Return the page with the run's figures in their place."""
    busy = f"while {run.load:g} other processes wanted to run" if run.load >= 0.5 else "and nothing else to do"
    about = f"Python {run.python} on {run.cores} cores ({run.cpu}), {busy}"
    rows = "".join(f"| {one.what} | {one.measured} | {_ratio(one)} | {_bound(one)} |\n" for one in run.figures)
    missed = sum(not one.kept for one in run.figures)
    return _PLACE.sub(
        lambda _: (
            f"Measured on {run.date}, in one run, with {about}. "
            f"{len(run.figures) - missed} of {len(run.figures)} bounds are kept; the others are in bold.\n\n"
            f"| what | figure | ratio | bound |\n|---|---|---|---|\n{rows}\n"
        ),
        text,
    )


def _ratio(one: Figure) -> str:
    text = f"{one.ratio:.1f}" if one.ratio >= 10 else f"{one.ratio:.2f}"
    return text if one.kept else f"**{text}**"


def _bound(one: Figure) -> str:
    return f"at least {one.bound:g}" if one.at_least else f"{one.bound:g}"
