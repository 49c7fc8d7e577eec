"""Run the benchmarks named, or all; what all of them say is recorded, or with --check compared with what is.

A figure that is more than a fifth worse than the recorded one is measured once more, and the better of both counts.
"""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import tests.benchmarks
from tests.benchmarks import figures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.figures import Figure

HELPERS = {"__main__", "figures"}
ALL = sorted({one.name for one in pkgutil.iter_modules(tests.benchmarks.__path__)} - HELPERS)


def main(words: list[str] | None = None) -> None:
    """Do what the words say, or else the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ALL))
    parser.add_argument("--check", action="store_true", help="fail where a ratio is worse than recorded")
    arguments = parser.parse_args(words)
    names = arguments.names or ALL
    if unknown := set(names) - set(ALL):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    load = os.getloadavg()[0]
    measured = list(_measured(names))
    if arguments.check:
        sys.exit(_check(measured))
    if not arguments.names:
        figures.record(figures.this_run(load, (one for _, one in measured)))
    if not all(one.kept for _, one in measured):
        sys.exit("a bound is not kept")


def _measured(names: list[str]) -> Iterator[tuple[str, Figure]]:
    for name in names:
        for one in import_module(f"tests.benchmarks.{name}").figures():
            print(one, flush=True)
            yield name, one


def _check(measured: list[tuple[str, Figure]]) -> str | None:
    """Return what is wrong, if anything is."""
    recorded = {one.name: one for one in figures.read().figures}
    worse = _worse(measured, recorded)
    if worse:
        again = _worse(list(_measured(sorted({benchmark for benchmark, _ in worse.values()}))), recorded)
        worse = {name: again[name] for name in worse.keys() & again.keys()}
    told = [
        f"{name}: {one.ratio:.2f}, and {recorded[name].ratio:.2f} was recorded" for name, (_, one) in worse.items()
    ]
    return f"more than a fifth worse: {'; '.join(told)}" if told else None


def _worse(measured: list[tuple[str, Figure]], recorded: dict[str, Figure]) -> dict[str, tuple[str, Figure]]:
    return {
        one.name: (benchmark, one)
        for benchmark, one in measured
        if one.name in recorded and one.worse(recorded[one.name]) > figures.MOST_WORSE
    }


if __name__ == "__main__":
    main()
