"""A folder of any size: memory that does not grow with it, and a parent that leaves the work to the other processes.

How many cores are busy depends on what else runs. What does not is for how long the processes had something to do:
they ran, or were ready to and had no core.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks.figures import Figure
from tests.conftest import FIXTURES, PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENTS = (1_000, 10_000)
JOBS = 2
MOST_MEMORY = 1.2  # times that for the smaller folder
LEAST_BUSY = 0.9  # of the time
_TICK_S = 0.05


class Cost(NamedTuple):
    """What a command took: time, the sum of those in which its processes had work, and the most memory of one."""

    wall_s: float
    busy_s: float
    memory_mib: float


def figures() -> Iterator[Figure]:
    """Plan a small folder, and one ten times as large."""
    with tempfile.TemporaryDirectory() as name:
        small, large = (_cost(_folder(Path(name) / str(count), count)) for count in DOCUMENTS)
    yield Figure(
        name="fleet, memory",
        what=f"the most memory of a process, planning {DOCUMENTS[1]:,} files with {JOBS} jobs, "
        f"against {DOCUMENTS[0]:,} files",
        measured=f"{large.memory_mib:.0f} MiB, {small.memory_mib:.0f} MiB",
        ratio=large.memory_mib / small.memory_mib,
        bound=MOST_MEMORY,
    )
    yield Figure(
        name="fleet, busy",
        what=f"… for how long each of the {JOBS} processes worked, or waited for a core, against the whole time",
        measured=f"{large.busy_s / JOBS:.1f} s, {large.wall_s:.1f} s",
        ratio=large.busy_s / JOBS / large.wall_s,
        bound=LEAST_BUSY,
        at_least=True,
    )


def _folder(folder: Path, count: int) -> Path:
    text = (FIXTURES / "demo/web/domain.xml").read_text()
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("<name>web</name>", f"<name>web{number}</name>"))
    return folder


def _cost(folder: Path) -> Cost:
    began = time.perf_counter()
    words = [sys.executable, "-m", "translator", "plan", "--format", "json", "--jobs", str(JOBS), str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=PROJECT)
    memory = 0.0
    busy: dict[int, float] = {}
    while True:
        done, status, _ = os.wait4(process.pid, os.WNOHANG)
        if done:
            break
        children = _children(process.pid)
        memory = max(memory, *map(_memory_mib, (process.pid, *children)))
        busy |= {child: max(busy.get(child, 0.0), _busy_s(child)) for child in children}
        time.sleep(_TICK_S)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return Cost(time.perf_counter() - began, sum(busy.values()), memory)


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _busy_s(pid: int) -> float:
    """Return for how long the process has run, or had no core to run on; nothing of one that is gone."""
    try:
        ran, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    except OSError:
        return 0.0
    return (int(ran) + int(waited)) / 1e9


def _memory_mib(pid: int) -> float:
    """Return the most that the process has had at a time; nothing of one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)
