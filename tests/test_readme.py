"""What README shows is what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import FIXTURES, PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")
SESSIONS = [
    (command, output)
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for command, output in re.findall(r"^\$ translator (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]


@pytest.mark.parametrize(("command", "output"), SESSIONS, ids=[command for command, _ in SESSIONS])
def test_session(command: str, output: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "translator", *shlex.split(command)], capture_output=True, text=True, cwd=PROJECT
    )
    assert timeless(done.stderr + done.stdout) == timeless(output)


def timeless(text: str) -> str:
    return re.sub(r"\d+\.\d{3}\b", "0.000", text)


def test_the_document_shown_is_the_one_that_is_planned() -> None:
    shown = re.findall(r"```xml\n(.*?)```", README, re.DOTALL)
    assert shown == [(FIXTURES / "demo/desk/domain.xml").read_text(encoding="utf-8")]
