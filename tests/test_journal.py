"""The journal as a file, and the directory it is in: whole or refused, nobody else's, and one apply at a time."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import resource
import stat
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import translator
from tests.conftest import FIXTURES
from tests.test_apply import DOMID, plan_of
from translator.errors import HostError, RollbackError
from translator.hosts.sandbox import Sandbox
from translator.saga import journal
from translator.saga.journal import Intent
from translator.saga.state import State, key_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

PLAN = translator.plan(translator.load(FIXTURES / "hosts/mixed.xml"), domid=DOMID)
INTENT = Intent(
    started="2026-11-21T12:00:00+00:00",
    boot="0a1b2c3d",
    domain=PLAN.topology.domain,
    xenstore="/run/xenstored/socket",
    qmp={"primary": "/run/qmp"},
    sysfs="/sys",
    timeout_s=None,
    absent=("/local/domain/0/backend/qusb",),
    steps=PLAN.steps,
)
WHOLE = journal.encode(INTENT)
KEY = key_of(DOMID, Path("/run/qmp"))


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        await asyncio.wait_for(work, 30)

    asyncio.run(main())


def test_what_was_written_is_read() -> None:
    content = journal.decode(WHOLE, "j")
    assert content.intent == INTENT
    assert content.marks == ("blank",) * len(PLAN.steps)
    assert content.begun == ()
    assert content.outcome is None


def test_no_mark_crosses_a_page() -> None:
    """So that a process that is killed has made it whole, or not at all."""
    assert len(WHOLE) % 32 == 0


def marked(tmp_path: Path) -> bytes:
    """Return a journal with marks of all kinds."""
    path = tmp_path / "j"
    path.write_bytes(WHOLE)
    record = journal.Journal(str(path), os.open(path, os.O_WRONLY), WHOLE, lambda: None)
    for number in range(5):
        record.begin(number)
    record.undone(4)
    record.close()
    return path.read_bytes()


def test_marks_are_read(tmp_path: Path) -> None:
    content = journal.decode(marked(tmp_path), "j")
    assert content.marks[:6] == ("begun",) * 4 + ("undone", "blank")
    assert content.begun == PLAN.steps[:4]


def refused(data: bytes) -> bool:
    try:
        journal.decode(data, "j")
    except RollbackError as error:
        return error.code == "T506"
    return False


@given(st.integers(0, len(WHOLE) - 1))
def test_a_truncated_journal_is_refused(length: int) -> None:
    assert refused(WHOLE[:length])


@given(st.binary(min_size=1, max_size=100))
def test_a_journal_with_more_behind_it_is_refused(more: bytes) -> None:
    assert refused(WHOLE + more)


_END = len(WHOLE)
_MARKS = _END - 32 * (len(PLAN.steps) + 1)


@given(st.one_of(st.integers(0, 98), st.integers(98, _MARKS - 1), st.integers(_MARKS, _END - 1)), st.integers(1, 255))
def test_a_journal_with_another_byte_anywhere_is_refused(place: int, change: int) -> None:
    """In its first line, in what was to be done, and in the marks."""
    data = bytearray(WHOLE)
    data[place] ^= change
    assert refused(bytes(data))


@given(st.integers(0, len(PLAN.steps)), st.integers(0, len(PLAN.steps)))
def test_marks_that_were_moved_are_refused(one: int, other: int) -> None:
    data = bytearray(WHOLE)
    first, second = (slice(_MARKS + 32 * number, _MARKS + 32 * number + 32) for number in (one, other))
    data[first], data[second] = data[second], data[first]
    assert refused(bytes(data)) == (one != other)


@given(st.binary(max_size=200))
def test_anything_else_is_refused(data: bytes) -> None:
    assert refused(data)
    assert refused(b"translator-journal/2" + WHOLE[20:])


@asynccontextmanager
async def sandboxed(tmp_path: Path) -> AsyncIterator[translator.Host]:
    """Give a host with domain 8 that keeps journals in `state`."""
    async with Sandbox() as sandbox:
        plan = plan_of("mixed")
        guest = sandbox.make_host_for(plan)
        async with translator.Host(
            xenstore=sandbox.xenstore_socket,
            qmp=guest.qmp_socket,
            sysfs=sandbox.sysfs,
            state=tmp_path / "state",
        ) as host:
            yield host


def test_it_is_its_owners_alone_and_gone_at_the_end(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    state = tmp_path / "state"

    async def scenario() -> None:
        async with sandboxed(tmp_path) as host:
            await host.apply(
                plan_of("mixed"),
                on_step=lambda _: seen.extend((one.suffix, one.lstat().st_mode) for one in state.glob(f"{KEY}.*")),
            )
            assert stat.S_IMODE(state.lstat().st_mode) == 0o700
            assert not list(state.glob(f"{KEY}.*"))

    run(scenario())
    assert {(suffix, stat.S_IMODE(mode)) for suffix, mode in seen} == {(".journal", 0o600), (".lock", 0o600)}


def test_two_syncs_on_the_way_of_a_plan_that_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The intent (the file, and its name in the directory) before the first step, and the outcome."""
    order: list[str] = []
    sync = os.fsync

    def counted(descriptor: int) -> None:
        order.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)

    async def scenario() -> None:
        async with sandboxed(tmp_path) as host:
            await host.apply(plan_of("mixed"), on_step=lambda event: order.append(event.phase))

    run(scenario())
    assert order[:3] == ["file", "directory", "begin"]
    assert order[-2:] == ["done", "file"]
    assert set(order[3:-2]) == {"begin", "done"}


@pytest.mark.parametrize("cause", ["no space", "no room for so large a file"])
def test_a_full_disk_is_found_out_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    async def scenario() -> None:
        async with sandboxed(tmp_path) as host:
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            if cause == "no space":

                def full(descriptor: int, data: Any) -> int:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

                monkeypatch.setattr("translator.saga.state._write_all", full)
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
            events: list[object] = []
            try:
                with pytest.raises(HostError, match="nothing was done") as caught:
                    await host.apply(plan_of("mixed"), on_step=events.append)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert caught.value.code == "T507"
            assert events == []
            assert not list((tmp_path / "state").glob(f"{KEY}.*"))
            assert len((await host.apply(plan_of("mixed"), dry_run=True)).steps) == len(PLAN.steps)

    run(scenario())


def test_a_directory_that_others_may_write_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(HostError, match="can be written by others"):
        State(tmp_path / "state").clear(KEY)


def test_links_are_not_followed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(WHOLE)
    state.mkdir(mode=0o700)
    (state / f"{KEY}.lock").symlink_to(elsewhere)
    (state / f"{KEY}.0123456789abcdef.journal").symlink_to(elsewhere)

    async def scenario() -> None:
        async with State(state).lock(KEY):
            pass

    with pytest.raises(HostError, match="it is a link"):
        run(scenario())
    with pytest.raises(HostError, match="it is a link"):
        State(state).journals()
    assert elsewhere.read_bytes() == WHOLE
    state.rename(tmp_path / "moved")
    state.symlink_to(tmp_path / "moved")
    with pytest.raises(HostError, match="T507"):
        State(state).journals()


def test_what_was_being_written_when_its_apply_died_is_in_nobodys_way(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / f"{KEY}.0123456789abcdef.part").write_bytes(WHOLE[:100])
    begun_nothing = state / f"{KEY}.0123456789abcdef.journal"
    begun_nothing.touch(mode=0o600)
    begun_nothing.write_bytes(WHOLE)
    State(state).refuse_unfinished(KEY, INTENT.domain)
    assert list(state.iterdir()) == []


def test_a_damaged_journal_keeps_its_domain_from_being_changed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    path = state / f"{KEY}.0123456789abcdef.journal"
    path.write_bytes(WHOLE[:-1])
    path.chmod(0o600)
    with pytest.raises(RollbackError, match=f"{path}: the journal is damaged"):
        State(state).refuse_unfinished(KEY, INTENT.domain)
    assert path.exists()


def test_one_at_a_time_in_one_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        order: list[str] = []

        async def work(name: str, state: State) -> None:
            async with state.lock(KEY):
                order.append(name)
                await asyncio.sleep(0)
                order.append(name)

        await asyncio.gather(*(work(name, State(tmp_path / "state")) for name in "abc"))
        assert [order[index] == order[index + 1] for index in (0, 2, 4)] == [True] * 3
        async with State(tmp_path / "state").lock(KEY):
            async with State(tmp_path / "state").lock("xen-9"):
                pass  # another domain is another matter
            with pytest.raises(HostError, match=f"process {os.getpid()} is working on this domain") as caught:
                async with State(tmp_path / "state").lock(KEY, 0.05):
                    pass
        assert caught.value.code == "T504"

    run(scenario())


@pytest.mark.parametrize("year", [3.2e7, -3.2e7], ids=["forth", "back"])
def test_a_clock_that_jumps_changes_no_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year: float) -> None:
    """The time of day is another year's whenever it is asked for: nothing ends too early, and nothing never."""
    clock = itertools.count(1.7e9, year)
    monkeypatch.setattr(time, "time", lambda: next(clock))

    async def scenario() -> None:
        async with sandboxed(tmp_path) as host:
            async with State(tmp_path / "state").lock(f"xen-{DOMID}"):
                waiting = asyncio.create_task(host.apply(plan_of("mixed"), confirm_s=0.1))
                await asyncio.sleep(0.1)
                assert not waiting.done()
                with pytest.raises(HostError, match="is working on this domain"):
                    async with State(tmp_path / "state").lock(f"xen-{DOMID}", 0.05):
                        pass
            with pytest.raises(HostError, match=r"not confirmed within 0\.1 s"):
                await waiting

    run(scenario())


def test_a_qemu_is_one_domain_whatever_a_document_calls_it(tmp_path: Path) -> None:
    def document(identity: str) -> translator.Plan:
        return translator.plan(
            translator.load(
                f"<domain type='kvm'>{identity}<os><type arch='x86_64' machine='pc'>hvm</type></os>"
                "<devices/></domain>".encode()
            )
        )

    async def scenario() -> None:
        async with Sandbox() as sandbox:
            named = document(f"<name>web</name><uuid>{PLAN.topology.domain.uuid}</uuid>")
            guest = sandbox.make_host_for(named)
            host = translator.Host(qmp=guest.qmp_socket, state=tmp_path / "state", lock_timeout_s=0)
            works = (host.apply(named), host.apply(document("<name>web</name>")), host.attach("tablet"))
            async with host, State(tmp_path / "state").lock(key_of(None, Path(guest.qmp_socket))):
                for work in works:
                    with pytest.raises(HostError) as caught:
                        await work
                    assert caught.value.code == "T504"

    run(scenario())


def test_who_waits_for_a_domain_does_not_keep_its_monitor(tmp_path: Path) -> None:
    """An apply that is not confirmed takes back what it did although somebody has looked and waits for it to end."""

    async def scenario() -> None:
        async with sandboxed(tmp_path) as host:
            other = translator.Host(
                xenstore=host.xenstore_path, qmp=host.qmp_paths, sysfs=host.sysfs_root, state=host.state, timeout_s=1
            )
            host.timeout_s = 1
            waiting: list[asyncio.Task[object]] = []

            def attach(_: float) -> None:
                waiting.append(asyncio.ensure_future(other.attach("tablet", domid=DOMID)))

            async with other:
                with pytest.raises(HostError, match="the host is as it was before") as caught:
                    await host.apply(plan_of("mixed"), confirm_s=1, on_confirm=attach)
                assert caught.value.code == "T508"
                await waiting[0]  # it comes as soon as it may

    run(scenario())
