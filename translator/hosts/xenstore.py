"""A xenstored, reached over its Unix socket or the kernel's xenbus device: trees, transactions and waits.

What does not depend on an answer is sent without waiting for one, so a transaction costs three round trips
however many nodes it writes.

Source: docs/misc/xenstore.txt in Xen
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

from pyxs._internal import Op

from translator.errors import HostError, OutcomeUnknown
from translator.hosts.xenview import View, check_path, check_pattern, invalid
from translator.hosts.xenwire import (
    DIRECTORY_PART,
    Changes,
    Refusal,
    Wire,
    no_xenstored,
    open_descriptor,
    words,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from translator.planning.plan import XenstoreOp

ATTEMPTS: Final = 32  # how often a conflicting transaction is tried before the conflict is reported
VALUE_BYTES: Final = 2048  # oxenstored's limit; the C daemon takes 4096 less the path

_PERMISSION = re.compile(r"[nrwb][0-9]+")
_VERBS = {
    Op.READ: "read",
    Op.DIRECTORY: "list",
    Op.GET_PERMS: "read the permissions of",
    Op.WRITE: "write",
    Op.MKDIR: "make",
    Op.RM: "remove",
    Op.SET_PERMS: "set the permissions of",
    Op.WATCH: "watch",
}


class Committed(NamedTuple):
    """A transaction that has taken effect: what its mkdirs made, and the store as it was seen to be with it."""

    made: frozenset[str]
    view: View


class Xenstore:
    """The client; implements `XenstoreHost`. Make one with `connect`.

    A lost connection stays lost: every later call raises HostError T408 (T401 where nothing was ever answered), and a
    new client is the way back.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._turn = asyncio.Lock()
        self._committed = 0  # how many transactions

    @classmethod
    async def connect(cls, path: str | os.PathLike[str], timeout_s: float = 10) -> Xenstore:
        """Return a client of the daemon behind `path`; its first answer tells whether it is one.

        Args:
            path: its Unix socket, or a character device (/dev/xen/xenbus).
            timeout_s: the deadline for connecting, and later for each answer.

        Raises:
            HostError: T401, nothing there, or no access. The first request raises it where nothing answers.
        """
        name = os.fspath(path)
        try:
            async with asyncio.timeout(timeout_s):
                descriptor, is_device = await open_descriptor(name)
        except TimeoutError as error:
            raise no_xenstored(f"{name}: xenstored accepts no connection") from error
        except OSError as error:
            raise no_xenstored(f"{name}: no xenstored: {error.strerror or error}") from error
        try:
            return cls(Wire(descriptor, name, timeout_s, is_device))
        except OSError as error:  # as of /dev/null, which tells nobody when there is something to read
            os.close(descriptor)
            raise no_xenstored(f"{name}: no xenstored: {error.strerror or error}") from error

    @property
    def is_open(self) -> bool:
        """Whether the connection was not lost yet."""
        return self._wire.is_open

    async def close(self) -> None:
        """Drop the connection; what waits fails at once with T408."""
        self._wire.close()

    async def read(self, path: str) -> str | None:
        """Return the node's value, or None without a node; bytes that are no UTF-8 come as `\\xNN`."""
        check_path(path)
        return await View(self).read(path)

    async def children(self, path: str) -> tuple[str, ...] | None:
        """Return the names of the node's children, sorted, or None without a node."""
        check_path(path)
        return await View(self).children(path)

    async def permissions(self, path: str, transaction: int = 0) -> tuple[str, ...] | None:
        """Return the node's permissions, the owner first: `("n0", "r7")`; None without a node."""
        check_path(path)
        request = self._wire.request(Op.GET_PERMS, path, transaction=transaction)
        answer = await self.answer_or_none(request, f"{_VERBS[Op.GET_PERMS]} {path}")
        return None if answer is None else tuple(words(answer))

    async def tree(self, path: str) -> dict[str, str]:
        """Return every node at and below `path` with its value, ordered by path components.

        Not a snapshot: a node that goes or comes meanwhile may be in it or not.
        """
        check_path(path)
        return await View(self).tree(path)

    async def matching(self, *patterns: str) -> dict[str, dict[str, str]]:
        """Return, for each pattern, the nodes whose paths fit it, with their values; see `View.matching`.

        Not a snapshot, as `tree`. It is what an `expect-nowhere` of that path looks at.
        """
        for pattern in patterns:
            check_pattern(pattern)
        return await View(self).matching(*patterns)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[View]:
        """Give a view that is one transaction, so that a `commit` which goes on in it guards all that was seen.

        At the end, or with `end`, it is gone without any effect.
        """
        start = self._wire.request(Op.TRANSACTION_START, "")
        view = None
        try:
            view = View(self, int((await self.answer(start, "begin a transaction")).rstrip(b"\0")))
            view.since = self, self._committed
            yield view
        finally:
            if view is None:
                self._wire.abort(start)
            else:
                self.end(view)

    def end(self, view: View) -> None:
        """End the view's transaction without any effect, unless it has ended; the view is of that moment then."""
        if view.transaction and self._wire.is_open:
            self._wire.request(Op.TRANSACTION_END, "F", transaction=view.transaction)
        view.transaction = 0

    async def commit(self, operations: Sequence[XenstoreOp], snapshot: View | None = None) -> Committed:
        """Carry the operations out in one transaction, in order; all of them or none.

        A conflict with another client begins again from the first guard, up to `ATTEMPTS` times.

        Args:
            snapshot: whose transaction the first attempt is, if it has not ended: what was seen there is not asked
                again, and the daemon makes sure that it still holds.

        Raises:
            HostError: T404, a guard failed; T418, an `expect-nowhere` did; T405, xenstored refused or the operation
                is not valid; T408, the connection was lost before anything took effect; T409, still conflicting
                after all attempts.
            OutcomeUnknown: the connection was lost, or the deadline passed, while committing.
        """
        for operation in operations:
            _check(operation)
        # Those of one client take turns: they share the directories above what they make, so each one that is
        # committed would be a conflict of all others under way.
        async with self._turn:
            # after a commit of ours, such as another domain's beside this one, it would be a conflict
            if snapshot is not None and snapshot.transaction and snapshot.since == (self, self._committed):
                made = await self._attempt(operations, snapshot)
                if made is not None:
                    return Committed(made, snapshot)
            for attempt in range(ATTEMPTS):
                async with self.snapshot() as view:
                    made = await self._attempt(operations, view)
                if made is not None:
                    return Committed(made, view)
                await asyncio.sleep(random.uniform(0, min(0.0005 * 2**attempt, 0.05)))
        raise HostError(
            "T409",
            f"the transaction on {operations[0].path} was in conflict with other clients {ATTEMPTS} times",
            "something keeps changing the same nodes; try again when it has finished",
        )

    async def wait(self, path: str, values: Sequence[str], timeout_s: float, refusals: Sequence[str] = ()) -> str:
        """Return the node's value as soon as it is one of `values`, told by a watch.

        Raises:
            HostError: T407, it was not within `timeout_s` seconds, or became one of `refusals`; T408, the
                connection was lost.
        """
        seen = "no answer from xenstored"
        try:
            async with asyncio.timeout(timeout_s), self.watch(path) as changes:
                while True:
                    await changes.next()  # the first one comes by itself
                    value = await self.read(path)
                    if value is not None and value in values:
                        return value
                    if value is not None and value in refusals:
                        raise HostError("T407", f"{path} became {value!r}, and not {_either(values)}")
                    seen = "no such node" if value is None else repr(value)
        except TimeoutError as error:
            raise HostError(
                "T407", f"{path} did not become {_either(values)} within {timeout_s:g} s; last seen: {seen}"
            ) from error

    @asynccontextmanager
    async def watch(self, path: str) -> AsyncIterator[Changes]:
        """Give the changes at and below `path`; the first one tells of the watch itself."""
        check_path(path)
        with self._wire.changes() as changes:
            try:
                await self.answer(self._wire.request(Op.WATCH, path, changes.token), f"watch {path}")
                yield changes
            finally:
                # Without waiting for the answer: it is in order behind the watch, and who is cancelled hurries.
                if self._wire.is_open:
                    self._wire.request(Op.UNWATCH, path, changes.token)

    async def answer(self, request: asyncio.Future[bytes], what: str) -> bytes:
        """Return the answer to a request; a refusal is T405, which says that it was refused to do `what`."""
        try:
            return await self._wire.answer(request)
        except Refusal as error:
            raise _RefusedError(what, error.name) from error

    async def answer_or_none(self, request: asyncio.Future[bytes], what: str) -> bytes | None:
        """Return the answer to a request, None where there is no such node."""
        try:
            return await self._wire.answer(request)
        except Refusal as error:
            if error.name == "ENOENT":
                return None
            raise _RefusedError(what, error.name) from error

    def request(self, op: int, *words: str, value: str | None = None, transaction: int = 0) -> asyncio.Future[bytes]:
        """Send a request; see `Wire.request`."""
        return self._wire.request(op, *words, value=value, transaction=transaction)

    async def listing(self, request: asyncio.Future[bytes], path: str) -> tuple[str, ...] | None:
        """Return the names that a request for them was answered with, sorted; None where there is no such node."""
        try:
            answer = await self.answer_or_none(request, f"list {path}")
        except _RefusedError as error:
            # The C daemon keeps to the protocol's 4096 bytes and gives longer listings in parts.
            if error.name != "E2BIG":
                raise
            return await self._children_in_parts(path)
        return None if answer is None else tuple(sorted(words(answer)))

    async def _children_in_parts(self, path: str) -> tuple[str, ...] | None:
        for _ in range(ATTEMPTS):
            listing, generation = b"", None
            while True:
                request = self._wire.request(DIRECTORY_PART, path, str(len(listing)))
                answer = await self.answer_or_none(request, f"list {path}")
                if answer is None:
                    return None
                stamp, _, part = answer.partition(b"\0")
                if not part or generation not in (None, stamp):
                    break  # the node changed between two parts: from the beginning
                generation = stamp
                listing += part
                if part == b"\0" or part.endswith(b"\0\0"):  # an empty name ends the last part
                    return tuple(sorted(words(listing)))
        raise HostError("T409", f"the children of {path} changed {ATTEMPTS} times while they were listed")

    async def _attempt(self, operations: Sequence[XenstoreOp], view: View) -> frozenset[str] | None:
        """Carry the operations out and end the view's transaction; return what mkdirs made, None after a conflict."""
        try:
            steps = _Steps(self, view, operations)
            await steps.carry_out()
            end = self._wire.request(Op.TRANSACTION_END, "T", transaction=view.transaction)
            view.transaction = 0
            if not await self._end(end):
                return None
            self._committed += 1
            return frozenset(steps.absent)
        finally:
            self.end(view)

    async def _end(self, end: asyncio.Future[bytes]) -> bool:
        try:
            await self.answer(end, "commit the transaction")
        except HostError as error:
            if isinstance(error, _RefusedError) and error.name == "EAGAIN":
                return False
            if error.code == "T408":
                raise OutcomeUnknown(
                    "T408", f"{error.message}; the transaction may or may not have been committed", error.help
                ) from error
            raise
        return True


class _Steps:
    """The operations of one transaction: what does not depend on an answer is sent without waiting for one."""

    def __init__(self, store: Xenstore, view: View, operations: Sequence[XenstoreOp]) -> None:
        self._store = store
        self._view = view
        self._operations = operations
        self._sent: list[tuple[int, str, asyncio.Future[bytes]]] = []
        self.absent: set[str] = set()  # what mkdir is to make, and will have made

    async def carry_out(self) -> None:
        """Do all of them, in order, as `translator.plan.XenstoreOp` describes each."""
        await self._look()
        comes_by_itself = self._with_something_below()
        for number, operation in enumerate(self._operations):
            path = operation.path
            match operation.op:
                case "write":
                    has_permissions = self._view.makes(path, operation.permissions)
                    self._view.writes(path, operation.value or "")
                    self._send(Op.WRITE, path, value=operation.value)
                    self._send_permissions(operation, has_permissions)
                case "mkdir" if path in self.absent:
                    has_permissions = self._view.makes(path, operation.permissions)
                    if not has_permissions or number not in comes_by_itself:
                        self._send(Op.MKDIR, path)
                    self._send_permissions(operation, has_permissions)
                case "rm":
                    self._view.removes(path)
                    self._send(Op.RM, path)
                case "rm-empty" | "sweep":
                    if await self._view.children(path) == () and await self._view.read(path) == "":
                        self._view.removes(path)
                        self._send(Op.RM, path)
                case "expect":
                    await self._expect(operation)
                case "expect-absent":
                    await self._expect_absent(operation)
                case "expect-nowhere":
                    nodes = await self._view.matching(operation.path, sought=True)
                    found = elsewhere(operation, nodes[operation.path])
                    if found is not None:
                        raise claimed(operation, found)
        for op, path, request in self._sent:
            what = f"{_VERBS[op]} {path}"
            if op == Op.RM:  # where the parent is absent too, the daemons say so: as absent as asked for
                await self._store.answer_or_none(request, what)
            else:
                await self._store.answer(request, what)

    async def _look(self) -> None:
        """Ask at once what the guards at the beginning want to know, and find out what mkdir is to make."""
        guards = list(takewhile(lambda one: one.op.startswith("expect"), self._operations))
        await self._view.look(
            nowhere=(one.path for one in guards if one.op == "expect-nowhere"),
            there=(one.path for one in guards if one.op == "expect"),
            absent=(one.path for one in guards if one.op == "expect-absent"),
        )
        made = [one.path for one in self._operations if one.op == "mkdir"]
        await self._view.look(nowhere=(), there=(path for path in made if self._view.knows(path) is None), absent=())
        self.absent = {path for path in made if not self._view.knows(path)}
        # what is made below a directory that is there has its permissions: mostly those that it is to have
        above = {
            one.path.rpartition("/")[0]: None
            for one in self._operations
            if one.op == "mkdir" and one.path in self.absent and one.permissions is not None
        }
        await asyncio.gather(*(self._view.learn_permissions(path) for path in above if self._view.knows(path)))

    def _with_something_below(self) -> frozenset[int]:
        """Return the numbers of the mkdirs behind which something is made below, and so all that leads there."""
        found: set[int] = set()
        below: set[str] = set()
        for number, one in reversed(list(enumerate(self._operations))):
            if one.op == "mkdir" and one.path in below:
                found.add(number)
            if one.op in ("write", "mkdir"):
                parts = one.path.split("/")
                below |= {"/".join(parts[:depth]) for depth in range(2, len(parts))}
        return frozenset(found)

    async def _expect(self, operation: XenstoreOp) -> None:
        answer = await self._view.read(operation.path)
        if answer is None:
            raise _guard_failed(operation, "found none")
        if operation.value is not None and answer != operation.value:
            raise _guard_failed(operation, f"found {answer!r}")

    async def _expect_absent(self, operation: XenstoreOp) -> None:
        if not await self._view.is_absent(operation.path):
            answer = await self._view.read(operation.path)
            raise _guard_failed(operation, f"found {answer or ''!r}")

    def _send_permissions(self, operation: XenstoreOp, has_them: bool) -> None:
        if operation.permissions is not None and not has_them:
            self._send(Op.SET_PERMS, operation.path, *operation.permissions)

    def _send(self, op: int, path: str, *words: str, value: str | None = None) -> None:
        request = self._store.request(op, path, *words, value=value, transaction=self._view.transaction)
        self._sent.append((op, path, request))


class _RefusedError(HostError):
    """T405 that remembers the errno's name."""

    def __init__(self, what: str, name: str) -> None:
        number = getattr(errno, name, None)
        reason = f" ({os.strerror(number)})" if isinstance(number, int) else ""
        super().__init__("T405", f"xenstored refused to {what}: {name}{reason}")
        self.name = name


def _either(values: Sequence[str]) -> str:
    return " or ".join(repr(value) for value in values)


def _check(operation: XenstoreOp) -> None:
    path, value = operation.path, operation.value
    if operation.op == "expect-nowhere":
        check_pattern(path)
    else:
        check_path(path)
    if operation.op in ("rm", "rm-empty", "sweep") and path == "/":
        raise invalid("the root cannot be removed: oxenstored would do it")
    if operation.op == "write":
        if value is None:
            raise invalid(f"a write of {path} without a value")
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise invalid(f"the value of {path} is no text: {error.reason}") from error
        if size > VALUE_BYTES:
            raise invalid(f"the value of {path} has {size} bytes; xenstore takes {VALUE_BYTES}")
        if "\0" in value:
            raise invalid(f"the value of {path} holds a NUL")
    if operation.permissions is not None and not (
        operation.permissions and all(_PERMISSION.fullmatch(word) for word in operation.permissions)
    ):
        raise invalid(f"the permissions of {path}, {operation.permissions}: each is n, r, w or b and a domid")


def elsewhere(operation: XenstoreOp, values: Mapping[str, str]) -> str | None:
    """Return the first of the paths that an `expect-nowhere` does not want to have its value; None: there is none."""
    return next((path for path, value in values.items() if operation.value in (None, value)), None)


def claimed(operation: XenstoreOp, found: str) -> HostError:
    """Return the error of an `expect-nowhere` that found what it should not."""
    return HostError(
        "T418",
        f"it does not hold that {operation.why or 'this is nowhere'}: it is in {found}",
        "take it away there first; if that domain is gone, remove what it has left in xenstore",
    )


def _guard_failed(operation: XenstoreOp, found: str) -> HostError:
    if operation.op == "expect-absent":
        expected = "no node"
    else:
        expected = "a node" if operation.value is None else repr(operation.value)
    reason = f"it does not hold that {operation.why}: " if operation.why else ""
    return HostError("T404", f"{reason}{operation.path}: expected {expected}, {found}")
