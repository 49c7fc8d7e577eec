"""A cluster of two worker processes: what comes of a fleet is what comes of one process, whoever dies."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.conftest import FIXTURES
from tests.test_work import named, said, translator
from translator.cli.options import Jobs
from translator.cli.report import Report
from translator.cli.sources import Input
from translator.cli.work import Item, Outcome, Session
from translator.fleet import cluster as fleet
from translator.fleet.batch import CHUNK, plan_many
from translator.fleet.build import build

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from distributed import LocalCluster

    from translator.cli.work import Blob, Told

pytest.importorskip("distributed", reason="the extra `fleet` is not installed")

WEB = (FIXTURES / "demo/web/domain.xml").read_text()
BAD = (FIXTURES / "errors/unknown-model/domain.xml").read_text()


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0", silence_logs=logging.CRITICAL
    ) as cluster:
        yield cluster


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of some chunks of documents, every twentieth of them refused."""
    monkeypatch.chdir(tmp_path)
    folder = Path("guests")
    folder.mkdir()
    for number in range(4 * CHUNK):
        (folder / f"{number:04}.xml").write_text(named(WEB, f"guest{number}") if number % 20 else BAD)
    return folder


class Look(NamedTuple):
    """A task that plans nothing: it tells who did what, and some inputs end the process that takes them."""

    max_size: int = 100

    def outcome(self, path: str, blobs: Sequence[Blob | None]) -> Outcome:
        (blob,) = blobs
        assert blob is not None
        if blob.data == b"deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return Outcome(path, (path, os.getpid()), ())

    def unread(self, path: str, told: Sequence[Told]) -> None:
        pass

    def unchanged(self, path: str) -> Any:
        raise AssertionError("nothing is remembered")


def looked(address: str, items: Iterable[Item], report: Report) -> Iterator[tuple[str, int]]:
    jobs = Jobs(jobs=1, scheduler=address, since=None, progress="none")
    with Session(Look(), jobs, report) as session:
        yield from session.results(items, lambda: None)


@pytest.mark.parametrize(
    "words",
    [
        ("validate", "guests"),
        ("plan", "--format", "json", "guests"),
        ("plan", "file://{}/guests"),  # read by the workers
        ("diff", "guests", "guests"),
    ],
    ids=" ".join,
)
def test_a_cluster_says_what_one_process_says(cluster: LocalCluster, guests: Path, words: tuple[str, ...]) -> None:
    words = tuple(word.format(Path.cwd()) for word in words)
    on_cluster = translator(*words, "--scheduler", cluster.scheduler_address)
    assert said(on_cluster) == said(translator(*words))
    assert on_cluster.exit_code == 3


def test_a_clusters_client_stands_in_for_a_pool(cluster: LocalCluster, guests: Path) -> None:
    from distributed import Client

    paths = sorted(guests.absolute().iterdir())
    with Client(cluster.scheduler_address, set_as_default=False) as client:
        found = list(plan_many(paths, client.get_executor(pure=False)))
    assert [(one.path, one.plan, str(one.error)) for one in found] == [
        (one.path, one.plan, str(one.error)) for one in plan_many(paths)
    ]


def test_a_worker_that_is_killed_loses_nothing_and_does_nothing_twice(cluster: LocalCluster) -> None:
    paths = [f"{number}" for number in range(60 * CHUNK)]
    items = (Item(path, (Input(path, b""),)) for path in paths)
    report = Report(False, "text", "never")
    found = looked(cluster.scheduler_address, items, report)
    first = [next(found) for _ in range(CHUNK)]
    victim = next(worker.pid for worker in cluster.workers.values())
    os.kill(victim, signal.SIGKILL)
    rest = list(found)
    assert [path for path, _ in (*first, *rest)] == paths
    assert report.code == 0
    assert len({process for _, process in (*first, *rest)} - {victim}) >= 1


def test_only_what_workers_die_of_is_lost(
    cluster: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)  # or it would take more of them
    items = [Item(f"{number}", (Input(f"{number}", b"deadly" if number == 5 else b""),)) for number in range(8)]
    report = Report(False, "text", "never")
    assert [path for path, _ in looked(cluster.scheduler_address, items, report)] == list("0123467")
    assert report.code == 4
    assert capsys.readouterr().err.startswith("error[T522]: the workers that took '5' have died, tcp://")


def test_a_worker_that_is_another_translator_is_refused(
    cluster: LocalCluster, guests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = build()
    monkeypatch.setattr(fleet, "build", lambda: "2.0+other")
    done = translator("validate", "--scheduler", cluster.scheduler_address, guests)
    message = f"error[T521]: a worker has another translator, {here}, and this one is 2.0+other\n"
    assert (done.exit_code, done.stderr.startswith(message)) == (4, True), done.stderr


@pytest.mark.parametrize(
    ("address", "code", "says"),
    [
        ("tcp://127.0.0.1:1", 4, "error[T520]: no scheduler answers at tcp://127.0.0.1:1: "),
        ("127.0.0.1:8786", 2, "'127.0.0.1:8786' is no address such as tcp://10.0.0.1:8786"),
    ],
)
def test_an_address_where_no_scheduler_is(
    guests: Path, address: str, code: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "TIMEOUT_S", 0.5)
    done = translator("validate", "--scheduler", address, guests)
    assert (done.exit_code, says in done.stderr) == (code, True), done.stderr


def test_a_scheduler_that_goes_away_ends_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    about = tmp_path / "scheduler.json"
    words = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", about)
    with subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", *map(str, words)], stderr=subprocess.DEVNULL
    ) as scheduler:
        address = _address(about)

        def items() -> Iterator[Item]:
            for number in range(4 * CHUNK):
                if number == CHUNK + 1:
                    scheduler.kill()
                yield Item(f"{number}", (Input(f"{number}", b""),))

        report = Report(False, "text", "never")
        assert list(looked(address, items(), report)) == []
    assert report.code == 4
    err = capsys.readouterr().err
    assert err.startswith(f"waiting for a worker of {address}\nerror[T523]: the scheduler is gone")


def _address(about: Path) -> str:
    """Return the address that a scheduler has written down, once it has."""
    for _ in range(300):
        if about.exists() and (text := about.read_text()):
            return str(json.loads(text)["address"])
        time.sleep(0.1)
    raise TimeoutError("the scheduler does not start")
