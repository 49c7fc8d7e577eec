"""Many documents at once: in order, whatever fails, in other processes and on other executors."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import pytest

import translator
from tests.conftest import FIXTURES
from translator.errors import Diagnostic, DocumentError, HostError, RollbackError, Source
from translator.fleet.batch import CHUNK, process_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

GOOD = FIXTURES / "demo/web/domain.xml"
BAD = FIXTURES / "errors/unknown-model/domain.xml"
PLAN = translator.plan(translator.load(GOOD))


def test_results_keep_the_order_and_a_bad_one_stops_nothing(tmp_path: Path) -> None:
    paths = [GOOD, BAD, tmp_path / "none.xml"] * CHUNK
    found = list(translator.plan_many(paths))
    assert [one.path for one in found] == list(map(str, paths))
    assert all(one.plan == PLAN for one in found[::3])
    assert all(isinstance(one.error, DocumentError) for one in found[1::3])
    assert all(isinstance(one.error, FileNotFoundError) for one in found[2::3])
    refused = found[1].error
    assert isinstance(refused, DocumentError)
    with pytest.raises(DocumentError) as here:
        translator.plan(translator.load(BAD))
    assert refused.diagnostics == here.value.diagnostics


def test_any_executor_will_do_and_options_are_for_all() -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(translator.plan_many([GOOD] * 3, pool, coldplug="all"))
    whole = translator.plan(translator.load(GOOD), coldplug="all")
    assert [one.plan for one in found] == [whole] * 3


class Counting(ThreadPoolExecutor):
    """Counts what is on the way."""

    submitted = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.submitted += 1
        return super().submit(fn, *args, **kwargs)


def test_no_more_is_on_the_way_than_is_soon_wanted() -> None:
    taken = 0

    def paths() -> Iterator[str]:
        nonlocal taken
        while True:  # there is no end of them
            taken += 1
            yield str(GOOD)

    with Counting(1) as pool:
        results = translator.plan_many(paths(), pool)
        assert next(results).plan == PLAN
        assert taken == pool.submitted * CHUNK
        results.close()  # type: ignore[attr-defined]  # a generator's
        assert taken == pool.submitted * CHUNK


def test_a_process_with_threads_is_not_forked() -> None:
    with ThreadPoolExecutor(1) as other:
        other.submit(int).result()
        with process_pool(1) as pool:  # a fork server stands between
            assert pool.submit(os.getppid).result() != os.getpid()
    assert [one.plan for one in translator.plan_many([GOOD])] == [PLAN]


@pytest.mark.parametrize(
    "error",
    [
        DocumentError([Diagnostic(code="T301", message="no", line=3)]),
        HostError("T401", "no", "help", Source(1, 2)),
        RollbackError("T502", "no", stuck=("a", "b")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_whole_from_another_process(error: translator.TranslatorError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


class _Killed(ThreadPoolExecutor):
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("A process in the process pool was terminated abruptly"))
        return future


def test_a_process_that_was_killed_is_told_of() -> None:
    with _Killed() as pool, pytest.raises(HostError, match="T429"):
        list(translator.plan_many([GOOD], pool))
