"""The command line's start: `translator plan` of one small document against Python with lxml imported."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.benchmarks.figures import Figure
from tests.conftest import FIXTURES

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 2.0  # times lxml's
_ROUNDS = 20


def figures() -> Iterator[Figure]:
    """Measure both, in turn, so that a machine that slows down does so for both."""
    document = str(FIXTURES / "demo/web/domain.xml")
    floor = [sys.executable, "-c", "import lxml.etree"]
    ours = [sys.executable, "-m", "translator", "plan", document]
    _cost(ours)  # writes the byte code
    pairs = [(_cost(floor), _cost(ours)) for _ in range(_ROUNDS)]
    least, cost = (min(column) for column in zip(*pairs, strict=True))
    yield Figure(
        name="startup",
        what="`translator plan` of one document against `import lxml.etree` (processor time)",
        measured=f"{cost * 1e3:.0f} ms, {least * 1e3:.0f} ms",
        ratio=cost / least,
        bound=MOST,
    )


def _cost(words: list[str]) -> float:
    """Return the processor time of a command, in seconds."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return usage.ru_utime + usage.ru_stime
