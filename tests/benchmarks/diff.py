"""Comparing two folders: at most 1.3 times the time that planning the same files takes, in memory that stays flat."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks.figures import Figure
from tests.conftest import FIXTURES, PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAIRS = (1_000, 10_000)
MOST_TIME = 1.3  # times that of `plan` for the same files
MOST_MEMORY = 1.2  # times that for the smaller folder: the names of the files


class Cost(NamedTuple):
    """What a command took: processor time and the most memory."""

    cpu_s: float
    memory_mib: float


def figures() -> Iterator[Figure]:
    """Measure a small folder, and one ten times as large."""
    memory = []
    for pairs in PAIRS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            size = _write(folder, pairs)
            plan = _cost("plan", "--format", "json", folder)
            diff = _cost("diff", folder / "old", folder / "new")
        memory.append(diff.memory_mib)
    yield Figure(
        name="diff",
        what=f"comparing {pairs:,} pairs of documents of {size} bytes against planning them (processor time)",
        measured=f"{diff.cpu_s:.1f} s, {plan.cpu_s:.1f} s",
        ratio=diff.cpu_s / plan.cpu_s,
        bound=MOST_TIME,
    )
    yield Figure(
        name="diff, memory",
        what=f"… its memory, against {PAIRS[0]:,} pairs",
        measured=f"{memory[-1]:.0f} MiB, {memory[0]:.0f} MiB",
        ratio=memory[-1] / memory[0],
        bound=MOST_MEMORY,
    )


def _write(folder: Path, pairs: int) -> int:
    """Write two folders of domains; one pair in ten differs by what it means, all of them by their bytes."""
    text = (FIXTURES / "diffs/everything-at-once/before.xml").read_text()
    text = text.replace("<devices>", f"<!-- {'a comment that fills up ' * 9}-->\n  <devices>")
    for side in ("old", "new"):
        (folder / side).mkdir()
    for number in range(pairs):
        old = text.replace("<name>web</name>", f"<name>web{number}</name>")
        new = old.replace("port='2.2'", "port='2.3'") if number % 10 == 0 else old.replace("<devices>", "<devices> ")
        (folder / f"old/{number}.xml").write_text(old)
        (folder / f"new/{number}.xml").write_text(new)
    return len(text)


def _cost(*words: object) -> Cost:
    process = subprocess.Popen(
        [sys.executable, "-m", "translator", *map(str, words)], stdout=subprocess.DEVNULL, cwd=PROJECT
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode > 1:
        raise RuntimeError(f"translator {words[0]} ended with {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
