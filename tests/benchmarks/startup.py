"""The command line's start: `translator plan` of one small document against Python with lxml imported."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.conftest import FIXTURES

MOST = 2.0
_ROUNDS = 20


def run() -> bool:
    """Print the figures; tell whether the bound is kept."""
    document = str(FIXTURES / "demo/web/domain.xml")
    floor = [sys.executable, "-c", "import lxml.etree"]
    ours = [sys.executable, "-m", "translator", "plan", document]
    _cost(ours)  # writes the byte code
    # in turn, so that a machine that slows down does so for both
    pairs = [(_cost(floor), _cost(ours)) for _ in range(_ROUNDS)]
    least, cost = (min(column) for column in zip(*pairs, strict=True))
    print(f"startup: plan {cost * 1e3:.0f} ms, import lxml {least * 1e3:.0f} ms: {cost / least:.2f} (at most {MOST})")
    return bool(cost / least <= MOST)


def _cost(words: list[str]) -> float:
    """Return the processor time of a command, in seconds."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return usage.ru_utime + usage.ru_stime
