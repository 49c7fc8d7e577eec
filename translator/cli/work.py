"""Work on many inputs: one after the other, by processes of this machine, or by a cluster's; told as if by one.

A task is what is done to one input, or to one pair of them. It runs wherever it is sent, so it prints nothing and
returns what is to be told; a `Session` sends it, and tells what comes back, in the order of the inputs.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol, Self

import click
import msgspec
from msgspec.structs import replace

from translator.cli import inputs
from translator.cli.sources import Input, is_url
from translator.errors import EXIT_INTERRUPTED, Diagnostic, HostError, TranslatorError
from translator.planning.plan import is_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path
    from types import TracebackType

    from translator.cli.bar import Bar
    from translator.cli.options import Jobs
    from translator.cli.report import Report
    from translator.cli.since import Since
    from translator.planning.plan import Plan


class Item(msgspec.Struct, frozen=True):
    """What is worked on at a time: its path, and what is to be read for it; None where there is nothing."""

    path: str
    inputs: tuple[Input | None, ...]
    remembered: bytes | None = None  # the digest that it had when there was nothing to be told of it


class Blob(msgspec.Struct, frozen=True):
    """A document or plan, with what diagnostics call it, and its path where that is another one: see `Input`."""

    name: str
    data: bytes
    path: str | None = None


class Told(msgspec.Struct, frozen=True):
    """What is to be told of one input."""

    name: str
    is_plan: bool = False
    error: TranslatorError | OSError | None = None
    warnings: tuple[Diagnostic, ...] = ()

    @property
    def is_nothing(self) -> bool:
        return self.error is None and not self.warnings


class Outcome(msgspec.Struct, frozen=True):
    """What became of an item.

    `result` is the task's, and None where there is none. `settled` says that nobody need look at the item again
    while it stays as it is: nothing is to be told of it, and it makes no difference.
    """

    path: str
    result: Any
    told: tuple[Told, ...]
    settled: bool = False
    digest: bytes | None = None
    unchanged: bool = False


class Task(Protocol):
    """What is done to each item; it is sent to other processes, with all that it depends on."""

    @property
    def max_size(self) -> int:
        """The largest document that is read, in bytes."""

    def outcome(self, path: str, blobs: Sequence[Blob | None]) -> Outcome:
        """Return what becomes of the item."""

    def unchanged(self, path: str) -> Any:
        """Return the result for an item that was settled before, and is what it was."""

    def unread(self, path: str, told: Sequence[Told]) -> Any:
        """Return the result for an item of which something could not be read."""


def planned(
    blob: Blob,
    make: Callable[[bytes], Plan],
    warnings: Callable[[Plan], Iterable[Diagnostic]] = lambda plan: plan.diagnostics,
) -> tuple[Plan | None, Told]:
    """Return the plan of an input, None of one that is refused, and what is to be told of it."""
    try:
        plan = make(blob.data)
        return plan, Told(blob.name, is_plan(blob.data), warnings=tuple(warnings(plan)))
    except TranslatorError as error:
        return None, Told(blob.name, is_plan(blob.data), error)


def do_chunk(task: Task, context: bytes | None, items: Sequence[Item]) -> list[Outcome]:
    """Return what becomes of each item. `context` is what digests depend on besides the inputs; none if None."""
    return [_do(task, context, item) for item in items]


def _do(task: Task, context: bytes | None, item: Item) -> Outcome:
    blobs: list[Blob | None] = []
    unread: list[Told] = []
    for one in item.inputs:
        try:
            blobs.append(None if one is None else Blob(one.name, one.read(task.max_size), one.path))
        except OSError as error:
            assert one is not None
            unread.append(Told(one.name, error=error))
    if unread:
        return Outcome(item.path, task.unread(item.path, unread), tuple(unread))
    if context is None:
        return task.outcome(item.path, blobs)
    digest = _digest(context, blobs)
    if digest == item.remembered:
        told = tuple(Told(blob.name) for blob in blobs if blob is not None)
        return Outcome(item.path, task.unchanged(item.path), told, True, digest, unchanged=True)
    return replace(task.outcome(item.path, blobs), digest=digest)


def _digest(context: bytes, blobs: Sequence[Blob | None]) -> bytes:
    from hashlib import blake2b

    digest = blake2b(context, digest_size=16)
    for blob in blobs:
        for part in (None, None) if blob is None else (os.fsencode(blob.name), blob.data):
            digest.update(b"-" if part is None else b"%d:" % len(part))
            digest.update(part or b"")
    return digest.digest()


class Session:
    """One task's run over many items. A context manager, at whose end nobody works any more, and STATE is written.

    `prints` says that results go to standard output as they come; where they go to a file, which is whole or not
    there, nothing is remembered of a run that has not come to its end.
    """

    def __init__(
        self, task: Task, jobs: Jobs, report: Report, *, output: Path | None = None, prints: bool = True
    ) -> None:
        self.task = task
        self.jobs = jobs
        self.report = report
        self._whole = output is not None
        self._stack = ExitStack()
        self._since: Since | None = None
        self._bar: Bar | None = None
        self._looked_at = (
            jobs.progress == "auto"
            and report.for_people
            and sys.stderr.isatty()
            and not (prints and output is None and sys.stdout.isatty())  # results, not a bar among them
        )

    def __enter__(self) -> Self:
        if self.jobs.since is not None:
            from translator.cli.since import Since

            self._since = Since(self.jobs.since, self.task, self.report)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._bar is not None:
            self._bar.clear()
        self._stack.close()
        if self._since is not None and (kind is None or not self._whole):
            self._since.keep(complete=kind is None)
            if kind is None and self.report.for_people:
                click.echo(f"unchanged since the last run: {self._since.unchanged} of {self._since.met}", err=True)
        if isinstance(error, KeyboardInterrupt):
            if self.report.for_people:
                click.echo("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)
        return self.report.document(None).__exit__(kind, error, trace)

    def documents(self, files: Sequence[str]) -> Iterator[Any]:
        """Yield the results for all documents that the files, folders, archives and URLs are or have."""
        items = (Item(one.name, (one,)) for one in inputs.found(files, self.report, self.task.max_size))
        return self.results(items, lambda: inputs.count(files))

    def results(self, items: Iterable[Item], count: Callable[[], int | None]) -> Iterator[Any]:
        """Yield the task's results, where there is one, in order; what is to be told is told before.

        `count` tells how many items there are, if that is known.
        """
        if self._looked_at:
            from translator.cli.bar import Bar

            self._bar = Bar(count)
        for outcome in self._outcomes(items):
            self.tell(outcome.told)
            if outcome.result is not None:
                yield outcome.result
            if self._since is not None:
                self._since.note(outcome)
                if not self._whole:
                    self._since.keep_now_and_then()
            if self._bar is not None:
                self._bar.advance()

    def _outcomes(self, items: Iterable[Item]) -> Iterator[Outcome]:
        context = None
        if self._since is not None:
            context, items = self._since.context, self._since.reminded(items)
        if self.jobs.scheduler is not None:
            yield from self._on_cluster(self.jobs.scheduler, context, items)
        elif self.jobs.jobs > 1:
            from translator.fleet.batch import in_order, process_pool, result_of

            pool = self._stack.enter_context(process_pool(self.jobs.jobs))
            for _, future in in_order(lambda chunk: pool.submit(do_chunk, self.task, context, chunk), items):
                yield from result_of(future)
        else:
            for item in items:
                yield from do_chunk(self.task, context, (item,))

    def _on_cluster(self, address: str, context: bytes | None, items: Iterable[Item]) -> Iterator[Outcome]:
        import logging

        from translator.fleet import cluster as fleet
        from translator.fleet.batch import in_order

        # dask tells of what it overcomes, and with a traceback of what ends the run
        logging.disable(logging.CRITICAL)
        self._stack.callback(logging.disable, logging.NOTSET)
        try:
            workers = self._stack.enter_context(fleet.cluster(address))
        except fleet.MissingExtraError as error:
            inputs.usage(f"--scheduler: {error}")
        if self.report.for_people and not workers.has_workers():
            click.echo(f"waiting for a worker of {address}", err=True)

        def submit(chunk: Sequence[Item]) -> Future[list[Outcome]]:
            return workers.submit(do_chunk, self.task, context, chunk)

        for chunk, future in in_order(submit, map(self._fetched, items), workers.most):
            try:
                yield from workers.result(future)
            except fleet.WorkersLostError:
                for item in chunk:  # one at a time, so that only the one that is to blame is lost
                    try:
                        yield from workers.result(submit([item]))
                    except fleet.WorkersLostError as lost:
                        message = f"the workers that took {item.path!r} have died, {lost} the last of them"
                        failure = HostError("T522", message, "their logs say of what; it may be too little memory")
                        yield Outcome(item.path, None, (Told(item.path, error=failure),))

    def _fetched(self, item: Item) -> Item:
        """Return the item with what only this machine can read."""
        inputs = (one if one is None or is_url(one.name) else one.fetched(self.task.max_size) for one in item.inputs)
        return replace(item, inputs=tuple(inputs))

    def tell(self, told: Iterable[Told]) -> None:
        """Tell what is to be told, of each input in turn."""
        for one in told:
            if self._bar is not None and (one.error is not None or one.warnings):
                self._bar.clear()
            if one.is_plan:
                self.report.plans.add(one.name)
            with self.report.document(one.name):
                if isinstance(one.error, OSError):
                    inputs.unreadable(one.name, one.error, self.report)
                elif one.error is not None:
                    raise one.error
                self.report.warnings(one.warnings, one.name)
