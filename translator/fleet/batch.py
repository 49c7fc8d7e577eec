"""Many documents become plans, on as many cores as there are or on whatever an executor stands for.

Documents go out and plans come back in chunks, of which only so many are on the way at a time: memory is bounded by
the chunks, however many documents there are. Results keep the order of the input, and one that fails is a result.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from translator.document.domain import MAX_SIZE
from translator.errors import HostError, TranslatorError
from translator.planning.plan import is_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from concurrent.futures import Executor, Future
    from pathlib import Path

    from translator.document.domain import Domain, SharePolicy
    from translator.live.drivers import Driver
    from translator.planning.plan import Plan
    from translator.planning.steps import Coldplug
    from translator.topology import Layout

T = TypeVar("T")
R = TypeVar("R")

# Documents that travel together: enough that the way there costs little, few enough to keep all cores busy.
CHUNK = 32


class Planned(NamedTuple):
    """What became of one document: its plan, or why there is none."""

    path: str
    plan: Plan | None
    error: TranslatorError | OSError | None


def plan_many(
    paths: Iterable[str | Path],
    executor: Executor | None = None,
    *,
    max_size: int = MAX_SIZE,
    domid: int | None = None,
    layout: Layout | None = None,
    coldplug: Coldplug = "auto",
    usbback: bool = False,
    device_models: SharePolicy | None = None,
    probed: Mapping[str, Driver | None] | None = None,
) -> Iterator[Planned]:
    """Yield what becomes of each document, in the order of the paths.

    Args:
        paths: files, each with a document or a plan; taken from the iterable as they are needed.
        executor: whatever has the interface of `concurrent.futures.Executor`; its own pool of processes if None.
        max_size: the largest document that is read, in bytes.
        domid, layout, coldplug, usbback, device_models, probed: as for `translator.plan`, for all of them.

    A document that is refused or cannot be read is a result with an `error`. Whoever stops taking results, or is
    interrupted, leaves nothing running.

    Raises:
        HostError: T429, a process of the pool was killed.
        ValueError: an argument is none of those possible.
    """
    from translator.api import plan

    make = partial(
        plan,
        domid=domid,
        layout=layout,
        coldplug=coldplug,
        usbback=usbback,
        device_models=device_models,
        probed=probed,
    )
    names = (os.fspath(path) for path in paths)
    with process_pool() if executor is None else nullcontext(executor) as pool:
        for _, future in in_order(lambda chunk: pool.submit(_plan_chunk, chunk, max_size, domid, make), names):
            yield from result_of(future)


@contextmanager
def process_pool(processes: int | None = None) -> Iterator[Executor]:
    """Yield a pool of so many processes, one for each core if None; at its end none of them is left.

    What is interrupted is this process, which then ends the others: Ctrl-C at a terminal does not reach them.
    """
    import multiprocessing
    import signal
    import threading
    from concurrent.futures import ProcessPoolExecutor

    # a process with threads is not to be forked: what they hold would be held for ever
    context = None if threading.active_count() == 1 else multiprocessing.get_context("forkserver")
    pool = ProcessPoolExecutor(processes, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))
    try:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            pool.submit(int)  # starts them, with the signal blocked until they ignore it
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    submit: Callable[[list[T]], Future[R]], items: Iterable[T], most: Callable[[], int] | None = None
) -> Iterator[tuple[list[T], Future[R]]]:
    """Yield each chunk of the items with its future, in order, while those after it are under way.

    Args:
        submit: has one chunk worked on.
        items: taken as they are needed.
        most: how many chunks may be under way; asked again and again. Somewhat more than there are cores if None.

    What is still under way when nobody takes any more is cancelled.
    """
    left = iter(items)
    under_way: deque[tuple[list[T], Future[R]]] = deque()
    most = most or (lambda: 2 * (os.cpu_count() or 1) + 2)
    try:
        while True:
            while len(under_way) < most() and (chunk := list(islice(left, CHUNK))):
                under_way.append((chunk, submit(chunk)))
            if not under_way:
                return
            yield under_way.popleft()
    finally:
        for _, future in under_way:
            future.cancel()


def result_of(future: Future[R]) -> R:
    """Return the result, once it is there.

    Raises:
        HostError: T429, the process that worked on it was killed.
    """
    from concurrent.futures import BrokenExecutor

    try:
        return future.result()
    except BrokenExecutor as error:
        raise HostError(
            "T429",
            "a process that plans has ended, and what it was planning is lost",
            "something has killed it, perhaps for want of memory; with --jobs 1 it is seen at which document",
        ) from error


def _plan_chunk(paths: list[str], max_size: int, domid: int | None, make: Callable[[Domain], Plan]) -> list[Planned]:
    return [_plan(path, max_size, domid, make) for path in paths]


def _plan(path: str, max_size: int, domid: int | None, make: Callable[[Domain], Plan]) -> Planned:
    import translator

    try:
        with open(path, "rb") as stream:
            data = stream.read(max_size + 1)
            if is_plan(data):
                plan = translator.Plan.from_json(data + stream.read())
                return Planned(path, plan.bind(domid=domid), None)
        domain = translator.load(data, file=path, max_size=max_size)
        return Planned(path, make(domain), None)
    except (TranslatorError, OSError) as error:
        return Planned(path, None, error)
