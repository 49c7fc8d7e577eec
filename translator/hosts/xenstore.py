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
from itertools import groupby
from typing import TYPE_CHECKING, Final

from pyxs._internal import Op

from translator.errors import HostError, OutcomeUnknown
from translator.hosts.xenwire import DIRECTORY_PART, Changes, Refusal, Wire, open_descriptor, text, words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from translator.plan import XenstoreOp

ATTEMPTS: Final = 32  # how often a conflicting transaction is tried before the conflict is reported
PATH_BYTES: Final = 1024
VALUE_BYTES: Final = 2048  # oxenstored's limit; the C daemon takes 4096 less the path

_PATH = re.compile(r"/|(/[A-Za-z0-9_@-]+)+")  # both daemons answer EINVAL to anything else, . and : included
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


class Xenstore:
    """The client; implements `XenstoreHost`. Make one with `connect`.

    A lost connection stays lost: every later call raises HostError T408, and a new client is the way back.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._turn = asyncio.Lock()

    @classmethod
    async def connect(cls, path: str | os.PathLike[str], timeout_s: float = 10) -> Xenstore:
        """Return a client of the daemon behind `path` once it has answered.

        Args:
            path: its Unix socket, or a character device (/dev/xen/xenbus).
            timeout_s: the deadline for connecting, and later for each answer.

        Raises:
            HostError: T401, nothing there, no access, or no answer in time.
        """
        name = os.fspath(path)
        help = "is xenstored running? name its socket with --xenstore, or run as a user who may open it"
        try:
            async with asyncio.timeout(timeout_s):
                descriptor, is_device = await open_descriptor(name)
        except TimeoutError as error:
            raise HostError("T401", f"{name}: xenstored accepts no connection", help) from error
        except OSError as error:
            raise HostError("T401", f"{name}: no xenstored: {error.strerror or error}", help) from error
        store = cls(Wire(descriptor, name, timeout_s, is_device))
        try:
            await store.read("/")
        except _RefusedError:
            pass  # a guest may not read the root, but this is a xenstored
        except HostError as error:
            await store.close()
            raise HostError("T401", error.message, help) from error
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def is_open(self) -> bool:
        """Whether the connection was not lost yet."""
        return self._wire.is_open

    async def close(self) -> None:
        """Drop the connection; what waits fails at once with T408."""
        self._wire.lose("it was closed")

    async def read(self, path: str) -> str | None:
        """Return the node's value, or None without a node; bytes that are no UTF-8 come as `\\xNN`."""
        answer = await self._ask(Op.READ, path)
        return None if answer is None else text(answer)

    async def children(self, path: str) -> tuple[str, ...] | None:
        """Return the names of the node's children, sorted, or None without a node."""
        _check_path(path)
        return await self._children(self._wire.request(Op.DIRECTORY, path), path)

    async def permissions(self, path: str) -> tuple[str, ...] | None:
        """Return the node's permissions, the owner first: `("n0", "r7")`; None without a node."""
        answer = await self._ask(Op.GET_PERMS, path)
        return None if answer is None else tuple(words(answer))

    async def tree(self, path: str) -> dict[str, str]:
        """Return every node at and below `path` with its value, ordered by path components.

        Not a snapshot: a node that goes or comes meanwhile may be in it or not.
        """
        _check_path(path)
        found: dict[str, str] = {}
        level = [path]
        while level:
            reads = [self._wire.request(Op.READ, node) for node in level]
            listings = [self._wire.request(Op.DIRECTORY, node) for node in level]
            below: list[str] = []
            for node, read, listing in zip(level, reads, listings, strict=True):
                value = await self.answer_or_none(read, f"read {node}")
                names = await self._children(listing, node)
                if value is not None:
                    found[node] = text(value)
                    below += [f"{node.rstrip('/')}/{name}" for name in names or ()]
            level = below
        return dict(sorted(found.items(), key=lambda item: item[0].split("/")))

    async def commit(self, operations: Sequence[XenstoreOp]) -> frozenset[str]:
        """Carry the operations out in one transaction, in order; all of them or none.

        A conflict with another client begins again from the first guard, up to `ATTEMPTS` times.

        Returns:
            The paths that `mkdir` operations made, because they were not there.

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
            return await self._commit(operations)

    async def matching(self, pattern: str) -> dict[str, str]:
        """Return what an `expect-nowhere` of that path looks at, outside of any transaction: values by path."""
        _check_path(pattern.replace("*", "_"))
        return await _Steps(self, self._wire, 0).matching(pattern)

    async def _commit(self, operations: Sequence[XenstoreOp]) -> frozenset[str]:
        for attempt in range(ATTEMPTS):
            made = await self._attempt(operations)
            if made is not None:
                return made
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
                    value = await self.read(path)
                    if value is not None and value in values:
                        return value
                    if value is not None and value in refusals:
                        raise HostError("T407", f"{path} became {value!r}, and not {_either(values)}")
                    seen = "no such node" if value is None else repr(value)
                    await changes.next()
        except TimeoutError as error:
            raise HostError(
                "T407", f"{path} did not become {_either(values)} within {timeout_s:g} s; last seen: {seen}"
            ) from error

    @asynccontextmanager
    async def watch(self, path: str) -> AsyncIterator[Changes]:
        """Give the changes at and below `path`; the first one tells of the watch itself."""
        _check_path(path)
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

    async def _ask(self, op: int, path: str) -> bytes | None:
        _check_path(path)
        return await self.answer_or_none(self._wire.request(op, path), f"{_VERBS[op]} {path}")

    async def _children(self, listing: asyncio.Future[bytes], path: str) -> tuple[str, ...] | None:
        try:
            answer = await self.answer_or_none(listing, f"list {path}")
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

    async def _attempt(self, operations: Sequence[XenstoreOp]) -> frozenset[str] | None:
        """Run one transaction; return what its mkdirs made, None when it was in conflict."""
        wire = self._wire
        start = wire.request(Op.TRANSACTION_START, "")
        ending = False
        try:
            transaction = int((await self.answer(start, "begin a transaction")).rstrip(b"\0"))
            steps = _Steps(self, wire, transaction)
            await steps.look([operation.path for operation in operations if operation.op == "mkdir"])
            for searching, group in groupby(operations, lambda one: one.op == "expect-nowhere"):
                if searching:
                    await steps.expect_nowhere(list(group))
                else:
                    for operation in group:
                        await steps.perform(operation)
            await steps.settle()
            end = wire.request(Op.TRANSACTION_END, "T", transaction=transaction)
            ending = True
            return frozenset(steps.absent) if await self._end(end) else None
        finally:
            if not ending:
                wire.abort(start)

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

    def __init__(self, store: Xenstore, wire: Wire, transaction: int) -> None:
        self._store = store
        self._wire = wire
        self._transaction = transaction
        self._sent: list[tuple[int, str, asyncio.Future[bytes]]] = []
        self.absent: set[str] = set()  # what mkdir is to make, and will have made

    async def look(self, paths: Sequence[str]) -> None:
        """Find out which of the nodes are absent, in one round trip."""
        requests = {path: self._wire.request(Op.READ, path, transaction=self._transaction) for path in paths}
        for path, request in requests.items():
            if await self._store.answer_or_none(request, f"read {path}") is None:
                self.absent.add(path)

    async def perform(self, operation: XenstoreOp) -> None:
        """Do one operation, as `translator.plan.XenstoreOp` describes it."""
        path = operation.path
        match operation.op:
            case "write":
                self._send(Op.WRITE, path, value=operation.value)
                self._send_permissions(operation)
            case "mkdir":
                if path in self.absent:
                    self._send(Op.MKDIR, path)
                    self._send_permissions(operation)
            case "rm":
                self._send(Op.RM, path)
            case "rm-empty" | "sweep":
                if await self._get(Op.DIRECTORY, path) == b"" and await self._get(Op.READ, path) == b"":
                    self._send(Op.RM, path)
            case "expect":
                await self._expect(operation)
            case "expect-absent":
                await self._expect_absent(operation)
            case "expect-nowhere":
                await self.expect_nowhere([operation])

    async def settle(self) -> None:
        """Wait until all that was sent is answered."""
        for op, path, request in self._sent:
            what = f"{_VERBS[op]} {path}"
            if op == Op.RM:  # where the parent is absent too, the daemons say so: as absent as asked for
                await self._store.answer_or_none(request, what)
            else:
                await self._store.answer(request, what)

    async def _expect(self, operation: XenstoreOp) -> None:
        answer = await self._get(Op.READ, operation.path)
        if answer is None:
            raise _guard_failed(operation, "found none")
        if operation.value is not None and text(answer) != operation.value:
            raise _guard_failed(operation, f"found {text(answer)!r}")

    async def _expect_absent(self, operation: XenstoreOp) -> None:
        answer = await self._get(Op.READ, operation.path)
        if answer is not None:
            raise _guard_failed(operation, f"found {text(answer)!r}")
        # oxenstored commits two transactions that both found nothing and both made the node; a listing that
        # would come out different by now it takes for a conflict. So list the nearest node that is there.
        await self._list_nearest(operation.path)

    async def _list_nearest(self, path: str) -> None:
        parent = path
        while parent != "/":
            parent = parent.rpartition("/")[0] or "/"
            try:
                if await self._get(Op.DIRECTORY, parent) is not None:
                    return
            except _RefusedError as error:
                if error.name == "E2BIG":  # the C daemon's way to say that it is long; it counts as read
                    return
                raise

    async def expect_nowhere(self, operations: Sequence[XenstoreOp]) -> None:
        """Do several of these at once, so that they cost the round trips of one."""
        seen = await asyncio.gather(*(self.matching(operation.path) for operation in operations))
        for operation, values in zip(operations, seen, strict=True):
            found = elsewhere(operation, values)
            if found is not None:
                raise claimed(operation, found)

    async def matching(self, pattern: str) -> dict[str, str]:
        """Return the values of the nodes that the pattern names; each listing guards against a new one."""
        paths = [""]
        for component in pattern.split("/")[1:]:
            paths = await self._below(paths) if component == "*" else [f"{path}/{component}" for path in paths]
        requests = {path: self._wire.request(Op.READ, path, transaction=self._transaction) for path in paths}
        answers = {
            path: await self._store.answer_or_none(request, f"read {path}") for path, request in requests.items()
        }
        return {path: text(answer) for path, answer in answers.items() if answer is not None}

    async def _below(self, paths: Sequence[str]) -> list[str]:
        """Return the paths of all children, sorted; of a node that is not there, its nearest ancestor is listed."""
        requests = {path: self._wire.request(Op.DIRECTORY, path, transaction=self._transaction) for path in paths}
        found: list[str] = []
        for path, request in requests.items():
            try:
                answer = await self._store.answer_or_none(request, f"list {path}")
            except _RefusedError as error:
                if error.name != "E2BIG":
                    raise
                found += [f"{path}/{name}" for name in await self._store.children(path) or ()]
                continue
            if answer is None:
                await self._list_nearest(path)
            else:
                found += [f"{path}/{name}" for name in sorted(words(answer))]
        return found

    async def _get(self, op: int, path: str) -> bytes | None:
        request = self._wire.request(op, path, transaction=self._transaction)
        return await self._store.answer_or_none(request, f"{_VERBS[op]} {path}")

    def _send_permissions(self, operation: XenstoreOp) -> None:
        if operation.permissions is not None:
            self._send(Op.SET_PERMS, operation.path, *operation.permissions)

    def _send(self, op: int, path: str, *words: str, value: str | None = None) -> None:
        request = self._wire.request(op, path, *words, value=value, transaction=self._transaction)
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
    _check_path(path.replace("*", "_") if operation.op == "expect-nowhere" else path)
    if operation.op in ("rm", "rm-empty", "sweep") and path == "/":
        raise _invalid("the root cannot be removed: oxenstored would do it")
    if operation.op == "write":
        if value is None:
            raise _invalid(f"a write of {path} without a value")
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise _invalid(f"the value of {path} is no text: {error.reason}") from error
        if size > VALUE_BYTES:
            raise _invalid(f"the value of {path} has {size} bytes; xenstore takes {VALUE_BYTES}")
        if "\0" in value:
            raise _invalid(f"the value of {path} holds a NUL")
    if operation.permissions is not None and not (
        operation.permissions and all(_PERMISSION.fullmatch(word) for word in operation.permissions)
    ):
        raise _invalid(f"the permissions of {path}, {operation.permissions}: each is n, r, w or b and a domid")


def _check_path(path: str) -> None:
    if not _PATH.fullmatch(path):
        raise _invalid(
            f"{path!r} is no xenstore path",
            "absolute, without an empty component, of letters, digits and - _ @ only",
        )
    if len(path) > PATH_BYTES:
        raise _invalid(f"the path {path[:60]}… has {len(path)} bytes; xenstore takes {PATH_BYTES}")


def _invalid(message: str, help: str | None = None) -> HostError:
    return HostError("T405", f"not sent to xenstored: {message}", help)


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
