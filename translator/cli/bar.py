"""How far a long run is, on standard error, for people at a terminal; it is gone when the run is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.progress import Progress

QUICK_S = 1.0  # what takes no longer shows nothing, and does not wait for rich
_TICK_S = 0.2


class Bar:
    """Counts what is done. Where `total` cannot tell how much there is, it shows no end."""

    def __init__(self, total: Callable[[], int | None]) -> None:
        self._total = total
        self._progress: Progress | None = None
        self._count = 0
        self._next = time.monotonic() + QUICK_S

    def advance(self) -> None:
        """Count one more."""
        self._count += 1
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _TICK_S
        if self._progress is None:
            self._progress = self._made()
        self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=self._count)
        self._progress.refresh()

    def clear(self) -> None:
        """Leave the terminal to other lines; the next tick shows the bar below them."""
        if self._progress is not None:
            self._progress.stop()

    def _made(self) -> Progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        made = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,  # a thread would be in the way of processes that are forked
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        made.add_task("documents", total=self._total())
        return made
