"""What an operator does about an apply that waits, was killed or is in the way: commands and exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.conftest import FIXTURES, PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

DESK = str(FIXTURES / "demo/desk/domain.xml")
STEPS = 6
TRANSLATOR = (sys.executable, "-m", "translator")


class House(NamedTuple):
    """A sandbox that runs by itself, and where journals are kept."""

    host: Sequence[str]
    state: Path

    def __call__(self, command: str, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.words(command, *words), capture_output=True, text=True, cwd=PROJECT, timeout=60)
        assert "Traceback" not in done.stderr
        return done

    def words(self, command: str, *words: str) -> list[str]:
        reaching = self.host if command in ("apply", "observe") else ()
        state = ("--state", str(self.state)) if command != "observe" else ()
        return [*TRANSLATOR, command, *words, *reaching, *state]

    @contextmanager
    def waiting(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Give an apply that has done all and waits for `translator commit`."""
        command = self.words("apply", DESK, "--no-commit", "--progress", "json", *words)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=PROJECT) as apply:
            assert apply.stderr is not None
            try:
                while json.loads(apply.stderr.readline())["event"] != "waiting":
                    assert apply.poll() is None
                deadline = time.monotonic() + 10
                while "waiting" not in self("recover", "--list").stdout:
                    assert time.monotonic() < deadline
                yield apply
            finally:
                apply.kill()

    def devices(self) -> str:
        done = self("observe")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def journal(self) -> Path:
        (path,) = self.state.glob("*.journal")
        return path


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    directory = tmp_path / "host"
    directory.mkdir()
    command = [*TRANSLATOR, "sandbox", "--directory", str(directory), DESK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as sandbox:
        assert sandbox.stdout is not None
        try:
            host = sandbox.stdout.readline().split()[1:]
            yield House(host, tmp_path / "state")
        finally:
            sandbox.terminate()


def test_nothing_to_recover_and_nothing_to_confirm(house: House) -> None:
    done = house("recover")
    assert (done.returncode, done.stdout) == (0, "nothing to recover\n")
    assert json.loads(house("recover", "--list", "--format", "json").stdout) == []
    done = house("recover", "--list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "nothing to recover\n")
    done = house("commit")
    assert (done.returncode, "error[T509]: no apply waits to be confirmed" in done.stderr) == (4, True)
    assert not house.state.exists()


def test_what_is_confirmed_stays(house: House) -> None:
    with house.waiting() as apply:
        with_it = house.devices()
        done = house("apply", DESK, "--lock-timeout", "0.2")
        assert (done.returncode, f"T504]: process {apply.pid} is working on this" in done.stderr) == (4, True)
        assert "left alone" in house("recover").stdout
        assert house("commit", "--domid", "99").returncode == 4
        done = house("commit", "--domid", "1")
        assert (done.returncode, done.stdout) == (0, "desk stays as it is\n")
        assert apply.wait(10) == 0
    assert house.devices() == with_it
    assert not list(house.state.glob("xen-1.*"))
    assert house("apply", DESK).stdout == "no change\n"


@pytest.mark.parametrize("how", ["nobody confirms", signal.SIGHUP, signal.SIGTERM], ids=str)
def test_what_is_not_confirmed_is_taken_back(house: House, how: str | signal.Signals) -> None:
    before = house.devices()
    with house.waiting("--commit-timeout", "5" if isinstance(how, str) else "60") as apply:
        if isinstance(how, signal.Signals):
            apply.send_signal(how)  # as when the terminal goes away
        assert apply.wait(20) == 4
    assert house.devices() == before
    assert not list(house.state.glob("xen-1.*"))


def test_what_a_kill_left_is_taken_back_or_finished(house: House) -> None:
    before = house.devices()
    with house.waiting() as apply:
        with_it = house.devices()
        apply.kill()
        apply.wait()
    done = house("commit")
    assert done.returncode == 4  # too late: nobody is there to hear it
    (listed,) = json.loads(house("recover", "--list", "--format", "json").stdout)
    assert (listed["state"], listed["domain"]["domid"]) == ("left", 1)
    assert [step["mark"] for step in listed["steps"]] == ["begun"] * STEPS
    done = house("apply", DESK)
    assert f"error[T505]: an earlier apply has left this domain in between: {house.state}" in done.stderr
    assert f"take it back with: translator recover --state {house.state}, or finish it" in done.stderr
    assert done.returncode == 4
    done = house("recover", "--resume")
    assert (done.returncode, done.stdout) == (0, "desk: 0 steps carried out; as planned\n")
    assert house.devices() == with_it
    assert house("recover").stdout == "nothing to recover\n"
    assert before != with_it


def test_a_rollback_by_hand(house: House) -> None:
    before = house.devices()
    with house.waiting() as apply:
        apply.kill()
        apply.wait()
    done = house("recover", "--format", "json", "--progress", "none")
    (result,) = json.loads(done.stdout)
    assert done.returncode == 0
    assert (result["result"], result["whereabouts"], len(result["steps"])) == ("rolled-back", "same", STEPS)
    assert house.devices() == before
    assert house("apply", DESK).returncode == 0


def test_a_damaged_journal_is_refused(house: House) -> None:
    with house.waiting() as apply:
        apply.kill()
        apply.wait()
    with_it = house.devices()
    data = house.journal().read_bytes()
    house.journal().write_bytes(data[:-1])
    for command in (("recover",), ("recover", "--resume")):
        done = house(*command)
        assert (done.returncode, "error[T506]" in done.stderr) == (5, True), done.stderr
    assert "damaged" in house("recover", "--list").stdout
    assert house.devices() == with_it
    house.journal().write_bytes(data)
    assert house("recover").returncode == 0


def test_events_as_json(house: House) -> None:
    done = house("apply", DESK, "--progress", "json")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["begin", "done"] * STEPS + ["summary"]
    assert [(event["number"], event["count"]) for event in events[:-1:2]] == [(n, STEPS) for n in range(1, STEPS + 1)]
    assert events[-1]["done"] == STEPS
    assert events[-1]["seconds"] > 0


def test_live_on_a_terminal(house: House) -> None:
    terminal, other_end = pty.openpty()
    with subprocess.Popen(
        house.words("apply", DESK),
        stdout=subprocess.PIPE,
        stderr=other_end,
        cwd=PROJECT,
        env=os.environ | {"TERM": "xterm"},
    ) as apply:
        os.close(other_end)
        shown = b""
        try:
            while part := os.read(terminal, 4096):
                shown += part
        except OSError:
            pass  # the last one on the other end has closed it
        assert apply.wait() == 0
    os.close(terminal)
    text = shown.decode()
    assert all(f"{number}/{STEPS} " in text for number in range(1, STEPS + 1))
    assert f"{STEPS} done in " in text


def test_wrong_usage(house: House) -> None:
    done = house("recover", "--resume", "--list")
    assert (done.returncode, "take one of them" in done.stderr) == (2, True), done.stderr
    for words, says in (
        (("--no-commit", "--dry-run"), "--no-commit means nothing with --dry-run"),
        (("--commit-timeout", "5"), "--commit-timeout is for --no-commit"),
        (("--format", "json"), "--format and --output are for --dry-run"),
        (("--lock-timeout", "soon"), "'soon' is not a number of seconds"),
    ):
        done = house("apply", DESK, *words)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    plan = str(house.state.with_name("plan.json"))
    assert house("apply", DESK, "--dry-run", "--format", "json", "--output", plan).returncode == 0
    done = house("apply", plan, "--prune")
    assert (done.returncode, "says itself what may be removed" in done.stderr) == (2, True), done.stderr
