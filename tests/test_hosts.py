"""One contract for every host: what holds of a real xenstored or QEMU holds of the sandbox.

A new kind of server is one line in `XENSTORES` or `MONITORS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import signal
import socket
import tempfile
import time
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

import translator
from tests.servers import CXenStored, OxenStored, Qemu, Server, require
from translator.errors import HostError, OutcomeUnknown
from translator.hosts import xenstore as xenstore_module
from translator.hosts.qmp import Qmp, QomDevice
from translator.hosts.sandbox import Sandbox
from translator.hosts.xenstore import Xenstore
from translator.hosts.xenwire import Wire
from translator.planning.plan import XenstoreOp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


class Place:
    """A running server: its socket, and how it ends without a farewell."""

    def __init__(self, socket: str, kill: Callable[[], None]) -> None:
        self.socket = socket
        self.kill = kill


@asynccontextmanager
async def real(server: type[Server], *arguments: Any) -> AsyncIterator[Place]:
    require(server)
    with server(*arguments) as running:
        yield Place(running.socket, running.kill)


@asynccontextmanager
async def sandbox_xenstore() -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory(prefix="translator-") as directory:
        async with Sandbox(directory) as sandbox:

            def hang_up() -> None:
                for connection in list(sandbox.connections):
                    connection.close()

            yield Place(str(sandbox.xenstore_socket), hang_up)


@asynccontextmanager
async def sandbox_monitor(*launch: Mapping[str, str | int]) -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory(prefix="translator-") as directory:
        async with Sandbox(directory, latency_s=0.02) as sandbox:
            guest = sandbox.add_guest("guest", launch=launch, guest_cooperates=False)
            yield Place(str(guest.qmp_socket), lambda: None)


XENSTORES: dict[str, Callable[[], AbstractAsyncContextManager[Place]]] = {
    "oxenstored": functools.partial(real, OxenStored),
    "xenstored": functools.partial(real, CXenStored),
    "sandbox": sandbox_xenstore,
}
MONITORS: dict[str, Callable[..., AbstractAsyncContextManager[Place]]] = {
    "qemu": functools.partial(real, Qemu),
    "sandbox": sandbox_monitor,
}


def on_every(
    starters: Mapping[str, Callable[..., AbstractAsyncContextManager[Place]]], *arguments: Any
) -> Callable[[Callable[[Place], Awaitable[None]]], Callable[..., None]]:
    """Run the test once for each kind of server, on a fresh one started with `arguments`."""

    def decorate(test: Callable[[Place], Awaitable[None]]) -> Callable[..., None]:
        def run(start: Callable[..., AbstractAsyncContextManager[Place]]) -> None:
            async def main() -> None:
                async with start(*arguments) as place, asyncio.timeout(20):
                    await test(place)

            asyncio.run(main())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        kinds = [pytest.param(start, id=name) for name, start in starters.items()]
        marked: Callable[..., None] = pytest.mark.parametrize("start", kinds)(run)
        return marked

    return decorate


@asynccontextmanager
async def client(place: Place, **options: float) -> AsyncIterator[Xenstore]:
    xenstore = await Xenstore.connect(place.socket, **options)
    try:
        yield xenstore
    finally:
        await xenstore.close()


@asynccontextmanager
async def monitor(place: Place, **options: float) -> AsyncIterator[Qmp]:
    qmp = await Qmp.connect(place.socket, **options)
    try:
        yield qmp
    finally:
        await qmp.close()


def write(path: str, value: str = "", *permissions: str) -> XenstoreOp:
    return XenstoreOp("write", path, value, permissions or None)


def mkdir(path: str, *permissions: str) -> XenstoreOp:
    return XenstoreOp("mkdir", path, permissions=permissions or None)


def absent(path: str, why: str | None = None) -> XenstoreOp:
    return XenstoreOp("expect-absent", path, why=why)


async def refusal(call: Awaitable[object]) -> HostError:
    with pytest.raises(HostError) as caught:
        await call
    return caught.value


# A xenstore's nodes


@on_every(XENSTORES)
async def test_values_come_back_as_written(place: Place) -> None:
    values = {"plain": "1-8", "empty": "", "unicode": "Maus 🖱", "lines": "a\n\nb", "longest": "x" * 2048}
    async with client(place) as xenstore:
        await xenstore.commit([write(f"/t/{name}", value) for name, value in values.items()])
        assert {name: await xenstore.read(f"/t/{name}") for name in values} == values


@on_every(XENSTORES)
async def test_an_absent_node_is_none(place: Place) -> None:
    async with client(place) as xenstore:
        assert await xenstore.read("/none/at/all") is None
        assert await xenstore.children("/none") is None
        assert await xenstore.permissions("/none") is None
        assert await xenstore.tree("/none") == {}


@on_every(XENSTORES)
async def test_mkdir_leaves_what_is_there_and_tells_what_it_made(place: Place) -> None:
    async with client(place) as xenstore:
        await xenstore.commit([write("/t/a", "kept"), write("/t/a/below", "too")])
        before = await xenstore.permissions("/t/a")
        done = await xenstore.commit([mkdir("/t/a", "n0", "r7"), mkdir("/t/new", "n0", "r7")])
        assert done.made == {"/t/new"}
        assert await xenstore.tree("/t") == {"/t": "", "/t/a": "kept", "/t/a/below": "too", "/t/new": ""}
        assert (await xenstore.permissions("/t/a"), await xenstore.permissions("/t/new")) == (before, ("n0", "r7"))


@on_every(XENSTORES)
async def test_parents_are_made_with_their_own_parents_permissions(place: Place) -> None:
    async with client(place) as xenstore:
        await xenstore.commit([mkdir("/t", "n7", "r0", "b9"), write("/t/a/b", "v")])
        assert await xenstore.read("/t/a") == ""
        assert await xenstore.permissions("/t/a") == await xenstore.permissions("/t/a/b") == ("n7", "r0", "b9")


@on_every(XENSTORES)
async def test_a_tree_is_ordered_by_components(place: Place) -> None:
    async with client(place) as xenstore:
        await xenstore.commit([write(f"/t/{name}", name) for name in ("a-b", "a/z", "a", "B")])
        assert [*await xenstore.tree("/t")] == ["/t", "/t/B", "/t/a", "/t/a/z", "/t/a-b"]


@on_every(XENSTORES)
async def test_long_listings_are_whole_and_sorted(place: Place) -> None:
    names = [f"a-child-with-a-long-name-{number:04}" for number in range(300)]  # 9000 bytes
    async with client(place) as xenstore:
        await xenstore.commit([mkdir(f"/t/{name}") for name in reversed(names)])
        assert await xenstore.children("/t") == tuple(names)
        assert len(await xenstore.tree("/t")) == 301
        await xenstore.commit([absent("/t/another"), write("/t/another")])
        assert len(await xenstore.children("/t") or ()) == 301


@on_every(XENSTORES)
async def test_removals(place: Place) -> None:
    async with client(place) as xenstore:
        await xenstore.commit(
            [write("/t/full/below"), write("/t/valued", "v"), mkdir("/t/empty"), mkdir("/t/deep/er")]
        )
        await xenstore.commit(
            [
                XenstoreOp("rm", "/t/none"),
                XenstoreOp("rm", "/none/at/all"),
                *(XenstoreOp("rm-empty", f"/t/{name}") for name in ("none", "full", "valued", "empty")),
                XenstoreOp("rm", "/t/deep/er"),
                XenstoreOp("rm-empty", "/t/deep"),
            ]
        )
        assert await xenstore.tree("/t") == {"/t": "", "/t/full": "", "/t/full/below": "", "/t/valued": "v"}
        await xenstore.commit([XenstoreOp("rm", "/t")])
        assert await xenstore.tree("/t") == {}


INVALID = {
    "": write("t"),
    "//": write("/t//a"),
    "trailing": write("/t/"),
    "..": write("/t/../a"),
    "colon": write("/t/1-8:1.0"),
    "placeholder": write("/local/domain/${domid}/device"),
    "newline": write("/t\n"),
    "umlaut": write("/tür"),
    "special": write("@releaseDomain"),
    "long path": write("/" + "p" * 1024),
    "root removed": XenstoreOp("rm", "/"),
    "no value": XenstoreOp("write", "/t"),
    "long value": write("/t", "ü" * 1025),
    "nul": write("/t", "a\0b"),
    "surrogate": write("/t", "\ud800"),
    "permission": mkdir("/t", "x7"),
    "no permissions": XenstoreOp("mkdir", "/t", permissions=()),
}


@on_every(XENSTORES)
async def test_what_a_daemon_would_refuse_or_misread_is_not_sent(place: Place) -> None:
    async with client(place) as xenstore:
        for claim, operation in INVALID.items():
            error = await refusal(xenstore.commit([write("/before"), operation]))
            assert (error.code, error.message[:22]) == ("T405", "not sent to xenstored:"), claim
        for call in (xenstore.read, xenstore.children, xenstore.permissions, xenstore.tree):
            assert (await refusal(call("/t/../a"))).code == "T405"
        assert await xenstore.tree("/before") == {}


# A xenstore's transactions


GUARDS: dict[str, tuple[XenstoreOp, str]] = {
    "another value": (
        XenstoreOp("expect", "/t/a", "2", why="the domain is the one meant"),
        "it does not hold that the domain is the one meant: /t/a: expected '2', found '1'",
    ),
    "no node": (XenstoreOp("expect", "/t/b", "2"), "/t/b: expected '2', found none"),
    "no node, any value": (XenstoreOp("expect", "/t/b"), "/t/b: expected a node, found none"),
    "a node": (
        absent("/t/a", "the port is free"),
        "it does not hold that the port is free: /t/a: expected no node, found '1'",
    ),
}


@on_every(XENSTORES)
async def test_a_failed_guard_says_what_it_found_and_nothing_is_written(place: Place) -> None:
    async with client(place) as xenstore:
        await xenstore.commit([write("/t/a", "1")])
        for claim, (guard, message) in GUARDS.items():
            error = await refusal(xenstore.commit([write("/t/new"), guard, write("/t/newer")]))
            assert (error.code, error.message) == ("T404", message), claim
        await xenstore.commit([XenstoreOp("expect", "/t/a"), XenstoreOp("expect", "/t/a", "1"), absent("/t/x/y")])
        assert await xenstore.tree("/t") == {"/t": "", "/t/a": "1"}


@on_every(XENSTORES)
async def test_guards_see_what_the_transaction_did_before(place: Place) -> None:
    async with client(place) as xenstore:
        await xenstore.commit([write("/t/a", "1"), XenstoreOp("expect", "/t/a", "1")])
        error = await refusal(xenstore.commit([write("/t/b", "2"), absent("/t/b")]))
        assert error.code == "T404"
        assert await xenstore.children("/t") == ("a",)


@on_every(XENSTORES)
async def test_others_see_a_transaction_whole_or_not_at_all(place: Place) -> None:
    nodes = [f"/t/{number}" for number in range(20)]

    async def changes(xenstore: Xenstore) -> None:
        for turn in range(20):
            await xenstore.commit([write(node, str(turn)) for node in nodes])

    async with client(place) as writer, client(place) as reader:
        await writer.commit([write(node, "0") for node in nodes])
        writing = asyncio.create_task(changes(writer))
        while not writing.done():
            # Requests of one turn arrive in one piece, but the daemon may serve others in between: so a
            # listing is older than a later one, and never from another transaction in the middle.
            seen = [int(value or -1) for value in await asyncio.gather(*map(reader.read, nodes))]
            assert all(before <= after for before, after in pairwise(seen))
        await writing


@on_every(XENSTORES)
async def test_no_update_is_lost(place: Place) -> None:
    async def count(xenstore: Xenstore, times: int) -> None:
        while times:
            seen = await xenstore.read("/t/count")
            try:
                await xenstore.commit(
                    [XenstoreOp("expect", "/t/count", seen), write("/t/count", str(int(seen or 0) + 1))]
                )
            except HostError as error:
                assert error.code == "T404"  # noqa: PT017 - a lost race is the point; anything else is not
            else:
                times -= 1

    async with client(place) as first, client(place) as second, client(place) as third:
        await first.commit([write("/t/count", "0")])
        await asyncio.gather(count(first, 20), count(second, 20), count(third, 20), count(first, 20))
        assert await first.read("/t/count") == "80"


@on_every(XENSTORES)
async def test_one_of_several_creators_wins(place: Place) -> None:
    async with client(place) as a, client(place) as b, client(place) as c:
        await a.commit([mkdir("/t")])
        for turn in range(100):
            node = f"/t/{turn}" if turn % 2 else f"/t/{turn}/deep/er"
            outcomes = await asyncio.gather(
                *(
                    xenstore.commit([absent(node, "taken"), write(node, name), mkdir(f"{node}/{name}")])
                    for name, xenstore in (("a", a), ("b", b), ("c", c), ("d", a))
                ),
                return_exceptions=True,
            )
            assert [outcome.code for outcome in outcomes if isinstance(outcome, HostError)] == ["T404"] * 3
            winner = next(
                name for name, outcome in zip("abcd", outcomes, strict=True) if not isinstance(outcome, BaseException)
            )
            assert await a.tree(node) == {node: winner, f"{node}/{winner}": ""}


@on_every(XENSTORES)
async def test_a_guard_holds_until_the_commit_wherever_the_writes_go(place: Place) -> None:
    async with client(place) as a, client(place) as b:
        await a.commit([mkdir("/left"), mkdir("/right")])
        for turn in range(50):
            left, right = f"/left/{turn}", f"/right/{turn}" if turn % 2 else f"/right/{turn}/deep/er"
            outcomes = await asyncio.gather(
                a.commit([absent(left), write(right)]),
                b.commit([absent(right), write(left)]),
                return_exceptions=True,
            )
            assert [outcome.code for outcome in outcomes if isinstance(outcome, HostError)] == ["T404"]


@on_every(XENSTORES)
async def test_a_commit_goes_on_in_what_was_seen(place: Place) -> None:
    """What was seen still holds at the commit, or it is looked at anew; and nothing is asked twice."""
    async with client(place) as a, client(place) as b:
        await a.commit([write("/t/a", "1"), write("/t/long/way"), mkdir("/elsewhere")])
        guards = [XenstoreOp("expect", "/t/a", "1"), absent("/t/b/c")]
        async with a.snapshot() as seen:
            assert (await seen.read("/t/a"), await seen.read("/t/b/c")) == ("1", None)
            assert await seen.children("/t/long") == ("way",)
            await b.commit([write("/elsewhere/x", "1")])
            done = await a.commit([*guards, write("/t/b/c", "2")], seen)
            assert (done.view is seen, seen.transaction) == (True, 0)
            assert (await seen.read("/t/b/c"), await seen.read("/elsewhere/x")) == ("2", "1")
        await a.commit([XenstoreOp("rm", "/t/b")])
        changes = {
            "a value": [write("/t/a", "2")],
            "a node that comes": [write("/t/b/c", "theirs")],
            "its parent": [mkdir("/t/b")],
        }
        for claim, change in changes.items():
            async with a.snapshot() as seen:
                assert (await seen.read("/t/a"), await seen.is_absent("/t/b/c")) == ("1", True)
                await b.commit(change)
                outcome = await asyncio.gather(
                    a.commit([*guards, write("/t/b/c", "ours")], seen), return_exceptions=True
                )
            if claim == "its parent":  # which alone is no obstacle, seen anew
                assert not isinstance(outcome[0], BaseException)
            else:
                assert isinstance(outcome[0], HostError), claim
                assert outcome[0].code == "T404"
            assert await a.read("/t/b/c") == {"a node that comes": "theirs", "its parent": "ours"}.get(claim)
            await a.commit([write("/t/a", "1"), XenstoreOp("rm", "/t/b")])


@on_every(XENSTORES)
async def test_a_snapshot_without_a_commit_leaves_nothing_behind(place: Place) -> None:
    async with client(place) as a, client(place) as b:
        await a.commit([write("/t/a", "1")])
        async with a.snapshot() as seen:
            assert await seen.tree("/t") == {"/t": "", "/t/a": "1"}
            await b.commit([write("/t/a", "2")])
            assert await seen.tree("/t") == {"/t": "", "/t/a": "1"}
        assert await a.tree("/t") == {"/t": "", "/t/a": "2"}
        assert (await a.commit([write("/t/a", "3")], seen)).view is not seen


@on_every(XENSTORES)
async def test_permissions_are_as_asked_for_wherever_they_come_from(place: Place) -> None:
    """Below a directory that has them, below one that has others, on the way, and on what is there already."""
    asked = ("n0", "r7")
    async with client(place) as xenstore:
        await xenstore.commit([mkdir("/t", "n0"), mkdir("/t/same", *asked), mkdir("/t/there", "n9")])
        await xenstore.commit(
            [
                *(mkdir(f"/t/{name}", *asked) for name in ("same/a", "same/a/b", "other", "other/a")),
                *(write(f"/t/{name}", "v", *asked) for name in ("same/a/b/c", "other/a/b", "there")),
                write("/t/other/own", "v", "n7", "r0"),
                write("/t/other/own/below", "v"),
            ]
        )
        found = {path: await xenstore.permissions(path) for path in await xenstore.tree("/t")}
        own = {path: found.pop(path) for path in ("/t", "/t/other/own", "/t/other/own/below")}
        assert own == {"/t": ("n0",), "/t/other/own": ("n7", "r0"), "/t/other/own/below": ("n7", "r0")}
        assert set(found.values()) == {asked}


@on_every(XENSTORES)
async def test_a_pattern_may_leave_out_what_has_a_node(place: Place) -> None:
    async with client(place) as xenstore:
        await xenstore.commit([write("/t/1/port/1", "1-8"), write("/t/2/port/1", "1-9"), write("/t/2/backend", "b")])
        assert await xenstore.matching("/t/*/port/*", "/t/*[not(backend)]/port/*", "/t/*/none") == {
            "/t/*/port/*": {"/t/1/port/1": "1-8", "/t/2/port/1": "1-9"},
            "/t/*[not(backend)]/port/*": {"/t/1/port/1": "1-8"},
            "/t/*/none": {},
        }
        nowhere = XenstoreOp("expect-nowhere", "/t/*[not(backend)]/port/*", "1-9")
        await xenstore.commit([nowhere, write("/t/1/port/1", "1-9")])
        assert (await refusal(xenstore.commit([nowhere, write("/t/1/port/1", "1-8")]))).code == "T418"
        assert (await refusal(xenstore.matching("/t/*[not(/)]/port"))).code == "T405"


def test_conflicts_are_retried_and_then_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with OxenStored(test_eagain=True) as server:
            async with client(Place(server.socket, server.kill)) as xenstore:
                for turn in range(50):
                    await xenstore.commit([write("/t", str(turn))])
                assert await xenstore.read("/t") == "49"
                monkeypatch.setattr(xenstore_module, "ATTEMPTS", 1)
                error = await refusal(asyncio.gather(*(xenstore.commit([write("/t")]) for _ in range(50))))
                assert error.code == "T409"

    require(OxenStored)
    asyncio.run(main())


@on_every(XENSTORES)
async def test_a_cancelled_commit_leaves_the_connection_usable(place: Place) -> None:
    operations = [absent("/t/0"), *(write(f"/t/{number}") for number in range(50))]
    async with client(place) as xenstore:
        await xenstore.commit([mkdir("/t")])
        for turns in range(12):
            commit = asyncio.create_task(xenstore.commit(operations))
            for _ in range(turns):
                await asyncio.sleep(0)
            commit.cancel()
            await asyncio.wait([commit])
            assert len(await xenstore.children("/t") or ()) in (0, 50)
            await xenstore.commit([XenstoreOp("rm", "/t"), mkdir("/t")])


# A xenstore's watches


@on_every(XENSTORES)
async def test_a_wait_is_told_of_the_value(place: Place) -> None:
    async with client(place) as xenstore, client(place) as other:
        await xenstore.commit([write("/t/state", "2")])
        assert await xenstore.wait("/t/state", ["1", "2"], 5) == "2"
        waits = [
            asyncio.create_task(xenstore.wait(path, ["4", "6"], 5)) for path in ("/t/state", "/t/state", "/new/one")
        ]
        for value in ("3", "4"):
            await other.commit([write("/t/state", value), write("/new/one", value)])
        assert await asyncio.gather(*waits) == ["4", "4", "4"]


@on_every(XENSTORES)
async def test_a_wait_that_runs_out_of_time_says_what_it_saw(place: Place) -> None:
    async with client(place) as xenstore:
        await xenstore.commit([write("/t/state", "1")])
        cases = {
            "/t/state": "/t/state did not become '2' or '4' within 0.05 s; last seen: '1'",
            "/t/none": "/t/none did not become '2' or '4' within 0.05 s; last seen: no such node",
        }
        for path, message in cases.items():
            error = await refusal(xenstore.wait(path, ["2", "4"], 0.05))
            assert (error.code, error.message) == ("T407", message)


@on_every(XENSTORES)
async def test_a_watch_tells_of_what_changes_below(place: Place) -> None:
    async with client(place) as xenstore, client(place) as other:
        async with xenstore.watch("/t") as changes:
            assert await changes.next() == ("/t",)
            await other.commit([write("/t/a/b", "1"), write("/elsewhere", "1")])
            assert "/t/a/b" in await changes.next()
            await other.commit([XenstoreOp("rm", "/t/a")])
            assert "/t/a" in await changes.next()
        await other.commit([write("/t/a", "after")])
        assert await xenstore.read("/t/a") == "after"


@on_every(XENSTORES)
async def test_a_dead_daemon_fails_all_that_waits_at_once(place: Place) -> None:
    async with client(place) as xenstore:
        waits = [asyncio.create_task(xenstore.wait(f"/t/{number}", ["1"], 60)) for number in range(3)]
        for _ in range(5):  # the last one is answered when each wait has its watch and has read its node
            await xenstore.read("/t")
        begin = time.monotonic()
        place.kill()
        for wait in waits:
            assert (await refusal(wait)).code == "T408"
        assert (await refusal(xenstore.read("/t"))).code == "T408"
        assert time.monotonic() - begin < 2


# A xenstored that misbehaves


def test_an_answer_that_comes_too_late_is_dropped() -> None:
    async def main() -> None:
        for kind in (OxenStored, CXenStored):
            require(kind)
            with kind() as server:
                async with client(Place(server.socket, server.kill), timeout_s=0.1) as xenstore:
                    await xenstore.commit([write("/t", "1")])
                    os.kill(server.pid, signal.SIGSTOP)
                    calls = [xenstore.read("/t"), xenstore.children("/"), xenstore.commit([write("/t", "2")])]
                    errors = [await refusal(call) for call in calls]
                    async with client(Place(server.socket, server.kill), timeout_s=0.1) as newcomer:
                        errors.append(await refusal(newcomer.read("/t")))  # is it one at all?
                    os.kill(server.pid, signal.SIGCONT)
                    assert [error.code for error in errors] == ["T408"] * 3 + ["T401"]
                    assert await xenstore.read("/t") == "1"

    asyncio.run(main())


def packet(op: int, number: int, payload: bytes) -> bytes:
    return b"".join(part.to_bytes(4, "little") for part in (op, number, 0, len(payload))) + payload


def test_what_is_no_xenstored_is_told_so(tmp_path: Path) -> None:
    answers = {
        b"": "it hung up",
        packet(2, 1, b"value")[:-1]: "it hung up in the middle of an answer",
        b"HTTP/1.1 400 Bad Request\r\n": "it does not speak xenstore's protocol",
        packet(2, 99, b"value"): "it answered a request that was not made",
        packet(1, 1, b"value"): "it answered a request that was not made",
    }

    async def main() -> None:
        for answer, reason in answers.items():
            async with scripted(tmp_path, functools.partial(lambda answer, _: answer, answer)) as place:
                async with client(place) as xenstore:
                    error = await refusal(xenstore.read("/"))
                assert (error.code, error.message.rpartition(": ")[2]) == ("T401", reason)
        for nothing in (tmp_path / "none", tmp_path, "/dev/null"):
            assert (await refusal(Xenstore.connect(nothing))).code == "T401"

    asyncio.run(main())


def test_a_commit_without_an_answer_is_of_unknown_outcome(tmp_path: Path) -> None:
    def answer(request: bytes) -> bytes:
        op, number = request[0], int.from_bytes(request[4:8], "little")
        return b"" if op == 7 else packet(op, number, b"1\0" if op == 6 else b"OK\0")

    async def main() -> None:
        async with scripted(tmp_path, answer) as place, client(place) as xenstore:
            error = await refusal(xenstore.commit([write("/t")]))
            assert isinstance(error, OutcomeUnknown)

    asyncio.run(main())


@pytest.mark.parametrize("late", [False, True], ids=["guard failed", "given up before it began"])
def test_a_transaction_that_is_not_committed_is_aborted(tmp_path: Path, late: bool) -> None:
    async def main() -> None:
        ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def answer(request: bytes) -> bytes:
            op, number = request[0], int.from_bytes(request[4:8], "little")
            if op == 6 and late:
                commit.cancel()
            if op == 7:
                ended.set_result(request[8:12] + request[16:])
            return packet(op, number, {1: b"t\0", 6: b"3\0"}.get(op, b"OK\0"))

        async with scripted(tmp_path, answer) as place, client(place) as xenstore:
            commit = asyncio.create_task(xenstore.commit([absent("/t")]))
            async with asyncio.timeout(5):
                assert await ended == b"\3\0\0\0F\0"
            with pytest.raises(asyncio.CancelledError if late else HostError):
                await commit

    asyncio.run(main())


def test_the_kernels_device_gets_one_message_at_a_time() -> None:
    """Linux sends from the buffer that the next write fills, so a second message must wait for the answer."""

    async def main() -> None:
        ours, kernel = socket.socketpair()
        kernel.setblocking(False)
        loop = asyncio.get_running_loop()
        wire = Wire(ours.detach(), "/dev/xen/xenbus", 5, is_device=True)
        answers = [wire.request(2, f"/t/{number}") for number in range(3)]
        with kernel:
            for number, answer in enumerate(answers):
                message = await loop.sock_recv(kernel, 4096)
                assert message[16:] == f"/t/{number}\0".encode()
                await asyncio.sleep(0)
                with pytest.raises(BlockingIOError):
                    kernel.recv(4096)
                await loop.sock_sendall(kernel, packet(2, int.from_bytes(message[4:8], "little"), b"v"))
                assert await wire.answer(answer) == b"v"
            wire.lose("done")

    asyncio.run(main())


def test_the_kernels_device_is_asked_again_when_it_is_busy() -> None:
    """It never polls as writable, so there is nothing to be told by."""

    async def main() -> None:
        ours, kernel = socket.socketpair()
        loop = asyncio.get_running_loop()
        ours.setblocking(False)
        kernel.setblocking(False)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += ours.send(b"x" * 4096)
        wire = Wire(ours.detach(), "/dev/xen/xenbus", 5, is_device=True)
        answer = wire.request(2, "/t")
        await asyncio.sleep(0)
        assert not loop.remove_writer(wire._descriptor)
        with kernel:
            while filled:
                filled -= len(await loop.sock_recv(kernel, min(filled, 1 << 16)))
            message = await loop.sock_recv(kernel, 4096)
            assert message[16:] == b"/t\0"
            await loop.sock_sendall(kernel, packet(2, int.from_bytes(message[4:8], "little"), b"v"))
            assert await wire.answer(answer) == b"v"
            wire.lose("done")

    asyncio.run(main())


@asynccontextmanager
async def scripted(directory: Path, answer: Callable[[bytes], bytes]) -> AsyncIterator[Place]:
    """Serve a xenstore of which only the answers are given; after an empty or broken one it hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                header = await reader.readexactly(16)
                reply = answer(header + await reader.readexactly(int.from_bytes(header[12:16], "little")))
                writer.write(reply)
                if len(reply) < 16 or len(reply) != 16 + int.from_bytes(reply[12:16], "little"):
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    socket = str(directory / "s")
    async with await asyncio.start_unix_server(serve, socket):
        yield Place(socket, lambda: None)


# A QEMU's monitor

Properties = dict[str, str | int]

UHCI: Properties = {"driver": "piix3-usb-uhci", "id": "uhci"}
TABLET: Properties = {"driver": "usb-tablet", "id": "tablet", "bus": "uhci.0", "port": "1"}
HUB: Properties = {"driver": "usb-hub", "id": "hub", "bus": "uhci.0", "port": "2"}


async def ids(qmp: Qmp) -> set[str | None]:
    return {device.id for device in await qmp.devices()}


@on_every(MONITORS, {"driver": "ich9-usb-ehci1", "id": "ehci", "addr": "0x1d.0x7", "multifunction": True})
async def test_devices_are_read_back(place: Place) -> None:
    host: Properties = {
        "driver": "usb-host",
        "id": "host",
        "bus": "xhci.0",
        "port": "2",
        "vendorid": 0x046D,
        "productid": 0xC52B,
    }
    async with monitor(place) as qmp:
        xhci: Properties = {"driver": "nec-usb-xhci", "id": "xhci", "p2": 4, "p3": 4}
        for device in (UHCI, xhci, HUB, TABLET, host):
            await qmp.execute("device_add", device)
        await qmp.execute("device_add", {"driver": "usb-mouse", "bus": "uhci.0", "port": "2.3"})
        pci, uhci = "/machine/i440fx/pci.0", "/machine/peripheral/uhci/uhci.0"
        place_of = "/machine/peripheral/"
        wanted = {"usb-host": ("vendorid", "hostbus"), "nec-usb-xhci": ("p2", "no-such-property")}
        assert await qmp.devices(wanted) == (
            QomDevice(path=f"{place_of}ehci", id="ehci", driver="ich9-usb-ehci1", parent_bus=pci),
            QomDevice(
                path=f"{place_of}host",
                id="host",
                driver="usb-host",
                parent_bus="/machine/peripheral/xhci/xhci.0",
                port="2",
                properties={"vendorid": 0x046D, "hostbus": 0},
            ),
            QomDevice(path=f"{place_of}hub", id="hub", driver="usb-hub", parent_bus=uhci, port="2"),
            QomDevice(path=f"{place_of}tablet", id="tablet", driver="usb-tablet", parent_bus=uhci, port="1"),
            QomDevice(path=f"{place_of}uhci", id="uhci", driver="piix3-usb-uhci", parent_bus=pci),
            QomDevice(path=f"{place_of}xhci", id="xhci", driver="nec-usb-xhci", parent_bus=pci, properties={"p2": 4}),
            QomDevice(
                path="/machine/peripheral-anon/device[0]", id=None, driver="usb-mouse", parent_bus=uhci, port="2.3"
            ),
        )


REFUSED: dict[str, tuple[Properties, str]] = {
    "the same id": (UHCI, "QEMU refused device_add piix3-usb-uhci uhci: Duplicate device ID 'uhci'"),
    "no such driver": (
        {"driver": "usb-nothing", "id": "x"},
        "QEMU refused device_add usb-nothing x: 'usb-nothing' is not a valid device model name",
    ),
    "a taken port": (
        {"driver": "usb-mouse", "bus": "uhci.0", "port": "1"},
        "QEMU refused device_add usb-mouse: usb port 1 (bus uhci.0) not found (in use?)",
    ),
    "no such bus": (
        {"driver": "usb-mouse", "bus": "ehci.0", "port": "1"},
        "QEMU refused device_add usb-mouse: Bus 'ehci.0' not found",
    ),
    "no hot-plug": (
        {"driver": "ich9-usb-ehci1", "id": "x"},
        "QEMU refused device_add ich9-usb-ehci1 x: Parameter 'driver' expects a pluggable device type",
    ),
}


@on_every(MONITORS, UHCI, TABLET)
async def test_a_refusal_is_in_qemus_own_words(place: Place) -> None:
    async with monitor(place) as qmp:
        for claim, (arguments, message) in REFUSED.items():
            error = await refusal(qmp.execute("device_add", {**arguments}))
            assert (error.code, error.message) == ("T406", message), claim
        assert await ids(qmp) == {"uhci", "tablet"}


@on_every(MONITORS, UHCI, TABLET, HUB, {"driver": "usb-mouse", "id": "mouse", "bus": "uhci.0", "port": "2.1"})
async def test_a_removal_is_done_when_the_device_is_gone(place: Place) -> None:
    async with monitor(place) as qmp:
        await qmp.remove_device("tablet")
        assert await ids(qmp) == {"uhci", "hub", "mouse"}
        await qmp.execute("device_add", TABLET)
        await qmp.remove_device("never-was")
        await qmp.remove_devices(["hub", "tablet"])  # the hub takes along what is plugged into it
        assert await ids(qmp) == {"uhci"}


@on_every(MONITORS, UHCI, {"driver": "qemu-xhci", "id": "xhci"})
async def test_a_controller_leaves_when_the_guest_lets_it_go(place: Place) -> None:
    async with monitor(place) as qmp:
        error = await refusal(qmp.remove_devices(["uhci", "xhci"], 0.15))
        assert (error.code, error.message) == ("T410", "uhci, xhci: removal pending in the guest, after 0.15 s")
        again = asyncio.create_task(qmp.remove_devices(["uhci", "xhci"]))
        await qmp.execute("query-status")  # answered after the requests
        await qmp.execute("system_reset")
        await again  # an XHCI controller goes without an event
        assert await ids(qmp) == set()


@on_every(MONITORS, UHCI)
async def test_what_is_behind_a_device_goes_as_soon_as_the_device_lets_go(place: Place) -> None:
    async with monitor(place) as qmp:
        await qmp.execute("chardev-add", {"id": "end", "backend": {"type": "null", "data": {}}})
        serial = {"driver": "usb-serial", "id": "serial", "chardev": "end", "bus": "uhci.0", "port": "1"}
        await qmp.execute("device_add", serial)
        assert "busy" in (await refusal(qmp.remove_backend("chardev-remove", {"id": "end"}))).message
        await qmp.execute("device_del", {"id": "serial"})  # asked for, and not waited for
        await qmp.remove_backend("chardev-remove", {"id": "end"})
        assert "end" not in await qmp.backends("chardev-add")


@on_every(MONITORS)
async def test_a_monitor_serves_one_client_at_a_time(place: Place) -> None:
    async with monitor(place):
        error = await refusal(Qmp.connect(place.socket, timeout_s=0.1))
        assert error.code == "T430"
        assert re.search(r"the monitor is busy: it says nothing for 0.1 s, as while another", error.message)
    async with monitor(place) as qmp:
        wanted = {"usb-host": ("vendorid", "hostbus"), "nec-usb-xhci": ("p2", "no-such-property")}
        assert await qmp.devices(wanted) == ()


def test_a_qemu_that_stops_or_dies_leaves_the_outcome_unknown() -> None:
    async def main() -> None:
        with Qemu() as server:
            async with monitor(Place(server.socket, server.kill), timeout_s=0.1) as qmp:
                os.kill(server.pid, signal.SIGSTOP)
                assert isinstance(await refusal(qmp.execute("device_add", UHCI)), OutcomeUnknown)
                os.kill(server.pid, signal.SIGCONT)
                while not await qmp.devices():  # done all the same
                    pass
            async with monitor(Place(server.socket, server.kill), timeout_s=10) as qmp:
                os.kill(server.pid, signal.SIGSTOP)
                calls = [asyncio.create_task(qmp.execute("query-status")) for _ in range(3)]
                await asyncio.sleep(0)
                begin = time.monotonic()
                server.kill()
                for call in calls:
                    assert isinstance(await refusal(call), OutcomeUnknown)
                error = await refusal(qmp.execute("query-status"))
                assert (error.code, type(error)) == ("T408", HostError)
                assert time.monotonic() - begin < 2

    require(Qemu)
    asyncio.run(main())


def test_what_is_no_monitor_is_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        for greeting, reason in ((b"", "it hung up"), (b"SSH-2.0\r\n", "Did not understand Greeting")):

            async def serve(
                _: asyncio.StreamReader, writer: asyncio.StreamWriter, greeting: bytes = greeting
            ) -> None:
                writer.write(greeting)
                writer.close()

            async with await asyncio.start_unix_server(serve, str(tmp_path / "s")):
                error = await refusal(Qmp.connect(tmp_path / "s"))
                assert error.code == "T402"
                assert f"no QMP monitor: {reason}" in error.message
        error = await refusal(Qmp.connect(tmp_path / "none"))
        assert (error.code, error.message) == ("T402", f"{tmp_path}/none: no QMP monitor: No such file or directory")

    asyncio.run(main())


def test_a_monitor_that_does_not_answer_holds_up_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with Sandbox() as sandbox:
            guest = sandbox.add_guest("guest")
            silent = tmp_path / "silent"
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(silent))
                listener.listen()
                paths = {"primary": silent, "other": guest.qmp_socket}
                async with asyncio.timeout(20), translator.Host(qmp=paths, timeout_s=60) as host:
                    waiting = asyncio.ensure_future(host.qmp("primary", None))
                    await asyncio.sleep(0)
                    assert await (await host.qmp("other", None)).execute("query-status")
                    assert not waiting.done()
                    waiting.cancel()
                    await asyncio.wait([waiting])

    asyncio.run(main())
