"""Comparing two folders: at most 1.3 times the time that planning the same files takes, in memory that stays flat."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.conftest import FIXTURES, PROJECT

PAIRS = (1_000, 10_000)
MOST_TIME = 1.3  # times that of `plan` for the same files
MOST_GROWTH = 16.0  # MiB from the smaller folder to the larger: their paths


class Cost(NamedTuple):
    """What a command took: processor time and the most memory."""

    cpu_s: float
    memory_mib: float


def run() -> bool:
    """Print the figures; tell whether the bounds are kept."""
    kept = True
    memory = []
    for pairs in PAIRS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            size = _write(folder, pairs)
            plan = _cost("plan", "--format", "json", folder)
            diff = _cost("diff", folder / "old", folder / "new")
        ratio = diff.cpu_s / plan.cpu_s
        memory.append(diff.memory_mib)
        kept &= ratio <= MOST_TIME
        print(
            f"diff: {pairs} pairs of {size} bytes: {diff.cpu_s:.1f} s, plan {plan.cpu_s:.1f} s: "
            f"{ratio:.2f} (at most {MOST_TIME}); {diff.memory_mib:.0f} MiB, plan {plan.memory_mib:.0f} MiB"
        )
    growth = memory[-1] - memory[0]
    print(f"diff: {growth:.0f} MiB more for {PAIRS[-1] // PAIRS[0]} times the files (at most {MOST_GROWTH:.0f})")
    return kept and growth <= MOST_GROWTH


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
