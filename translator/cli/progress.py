"""How steps are told as they go, on standard error: live on a terminal, a line each, or a JSON event each."""

from __future__ import annotations

import json
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import click

from translator.output.escape import visible

if TYPE_CHECKING:
    from collections.abc import Collection, Sized

    from translator.cli.options import Progress as Form
    from translator.planning.plan import Step
    from translator.saga.outcome import StepEvent

_WORDS = {"begin": "…", "failed": "failed", "undo": "undoing", "stuck": "STUCK"}


class Progress:
    """Tells nothing; the others tell more. A context manager, at whose end the times are summed up."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._step_began: dict[int, float] = {}
        self._spent: dict[str, float] = {}  # seconds by target
        self._count = {"done": 0, "failed": 0, "undone": 0, "stuck": 0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._step_began:
            self._safely(self.summary)

    def tell(self, event: StepEvent) -> None:
        """Tell of a step; whoever was reading may have gone, and the work goes on."""
        now = time.monotonic()
        if event.phase in ("begin", "undo"):
            self._step_began[event.number] = now
        else:
            self._spent[event.step.target] = self._spent.get(event.step.target, 0.0) + self.seconds(event)
            self._count[event.phase] += 1
        self._safely(lambda: self.show(event))

    def waiting(self, seconds: float) -> None:
        """Tell that all is done and waits to be confirmed."""
        self._safely(lambda: self.show_waiting(seconds))

    def seconds(self, event: StepEvent) -> float:
        """Return for how long the step has been under way."""
        now = time.monotonic()
        return now - self._step_began.get(event.number, now)

    def show(self, event: StepEvent) -> None:
        """Show what happened to a step."""

    def show_waiting(self, seconds: float) -> None:
        """Show that a confirmation is waited for."""

    def summary(self) -> None:
        """Show how much was done, in how much time."""

    def total(self) -> str:
        """Return the summary as text."""
        counts = ", ".join(f"{number} {word}" for word, number in self._count.items() if number)
        spent = ", ".join(f"{target} {seconds:.3f}" for target, seconds in self._spent.items())
        return f"{counts or 'nothing done'} in {time.monotonic() - self._began:.3f} s ({spent})"

    @staticmethod
    def _safely(show: Any) -> None:
        with suppress(OSError):
            show()


class Plain(Progress):
    """A line for each step as it begins, or is taken back."""

    def show(self, event: StepEvent) -> None:
        if event.phase in _WORDS:
            error = f": {visible(event.error)}" if event.error else ""
            click.echo(f"{_WORDS[event.phase]:8} {event.step.target:8} {event.step.id}{error}", err=True)

    def show_waiting(self, seconds: float) -> None:
        click.echo(f"waiting for `translator commit` for {seconds:g} s, then all is taken back", err=True)

    def summary(self) -> None:
        click.echo(self.total(), err=True)


class Json(Progress):
    """A JSON object a line for each event."""

    def show(self, event: StepEvent) -> None:
        self._emit(
            event=event.phase,
            step=event.step.id,
            target=event.step.target,
            number=event.number,
            count=event.count,
            seconds=round(self.seconds(event), 6),
            error=event.error,
            domid=event.domid,
            domain=event.domain,
        )

    def show_waiting(self, seconds: float) -> None:
        self._emit(event="waiting", seconds=seconds)

    def summary(self) -> None:
        spent = {target: round(seconds, 6) for target, seconds in self._spent.items()}
        self._emit(event="summary", **self._count, seconds=round(time.monotonic() - self._began, 6), spent=spent)

    @staticmethod
    def _emit(**fields: object) -> None:
        click.echo(json.dumps(fields, ensure_ascii=False), err=True)


class Live(Progress):
    """A line on a terminal that says what is under way, and one above it for each step that is done."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._status = self._console.status("looking at the host")

    def __enter__(self) -> Self:
        self._status.start()
        return super().__enter__()

    def __exit__(self, *about: object) -> None:
        self._status.stop()
        super().__exit__(*about)

    def show(self, event: StepEvent) -> None:
        from rich.markup import escape

        where = f"{event.number}/{event.count} {escape(event.step.id)}"
        if event.phase in ("begin", "undo"):
            verb = "" if event.phase == "begin" else "undoing "
            self._status.update(f"{verb}{where}: {escape(visible(event.step.why))}")
            return
        marks = {"done": "[green]✓[/]", "failed": "[red]✗[/]", "undone": "[yellow]↺[/]", "stuck": "[red]✗[/]"}
        mark = marks[event.phase]
        error = f": {escape(visible(event.error))}" if event.error else ""
        self._console.print(f"{mark} {where}  [dim]{self.seconds(event):.3f} s[/]{error}")

    def show_waiting(self, seconds: float) -> None:
        self._status.update(f"waiting for `translator commit` for {seconds:g} s, then all is taken back")

    def summary(self) -> None:
        self._console.print(self.total())


def counted(steps: Sized) -> str:
    """Return how many steps these are."""
    return f"{len(steps)} step{'' if len(steps) == 1 else 's'}"


def would_do(steps: Collection[Step]) -> str:
    """Return what a dry run prints: the steps, a line each, and how many."""
    lines = (f"{step.target:8}  {step.id}: {visible(step.why)}\n" for step in steps)
    return f"{''.join(lines)}{counted(steps)} would be carried out\n"


def progress_of(form: Form, for_people: bool) -> Progress:
    """Return what tells of the steps; `auto` tells people, live where they look at a terminal."""
    if form == "auto":
        form = "plain" if for_people else "none"
        if for_people and sys.stderr.isatty():
            return Live()
    return {"plain": Plain, "json": Json, "none": Progress}[form]()
