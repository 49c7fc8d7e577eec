"""The Python interface refuses what is misused: a type checker before it runs, and else a TypeError that says why."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import translator
from tests.conftest import FIXTURES, PROJECT
from translator import BlockingHost, Host

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

METHODS = ("__init__", "apply", "attach", "detach", "observe", "unfinished", "recover", "close")

RIGHT = """
import translator
from translator import BlockingHost, Plan

def use(plan: Plan) -> bool:
    with BlockingHost(xenstore="/socket", timeout_s=3) as host:
        host.attach("tablet", domid=7, auto_controller=False)
        host.detach(b"<input/>", force=True)
        found = [one.plan for one in translator.plan_many(["guest.xml"], coldplug="all", domid=7)]
        return found == [] and bool(host.apply(plan, prune=True).steps)
"""
WRONG = {
    "prune=": "prun=",
    "timeout_s=": "timeout=",
    "auto_controller=False": "auto_controller='no'",
    "force=": "forced=",
    '"all"': '"some"',
    "use(plan: Plan)": "use(plan: str)",
}


@pytest.mark.parametrize("method", METHODS)
def test_both_hosts_have_the_same_arguments(method: str) -> None:
    assert _arguments(getattr(BlockingHost, method)) == _arguments(getattr(Host, method))


def _arguments(method: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values())


def test_a_type_checker_finds_what_is_misused(tmp_path: Path) -> None:
    """All wrongs in one run, each in a function of its own: a run takes seconds."""
    lines = [RIGHT]
    for number, (right, wrong) in enumerate(WRONG.items()):
        assert right in RIGHT
        lines.append(RIGHT.replace(right, wrong).replace("def use", f"def misuse{number}"))
    program = tmp_path / "program.py"
    program.write_text("\n".join(lines))
    words = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(program)]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True)
    height = RIGHT.count("\n") + 1
    found = {int(line.split(":")[1]) // height for line in done.stdout.splitlines() if ": error:" in line}
    assert found == {number + 1 for number in range(len(WRONG))}, done.stdout + done.stderr


def test_what_is_none_of_those_is_refused() -> None:
    domain: Any = translator.load(FIXTURES / "demo/desk/domain.xml")
    plan: Any = translator.plan(domain)
    nothing: Any = None
    for misused, said in (
        (lambda: translator.load(nothing), "expected a path, bytes or a binary file, and not NoneType"),
        (lambda: translator.plan(plan), r"expected a Domain, as load\(\) returns it, and not Plan"),
        (lambda: translator.diff(domain, plan), "expected a Plan, and not Domain; a document becomes one by"),
        (lambda: translator.diff(plan, domain), "expected a Plan, and not Domain"),
        (lambda: asyncio.run(Host().apply(domain)), "expected a Plan, and not Domain"),
        (lambda: asyncio.run(Host().attach(nothing)), "expected a word or the bytes of a fragment, and not NoneType"),
        (
            lambda: asyncio.run(Host().detach("tablet", plan)),
            "expected a word or the bytes of a fragment, and not Plan",
        ),
    ):
        with pytest.raises(TypeError, match=said):
            misused()
