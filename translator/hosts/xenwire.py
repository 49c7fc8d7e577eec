"""Packets to and from a xenstored: framing, request ids, deadlines, watch events, and what a dead daemon means.

On pyxs' packet header and operation numbers; its Router and Client stay out, because they wait for ever when
the daemon dies, and refuse the empty values that libxl's layout is full of. Requests made in one turn of the
event loop leave in one write. The answer to a request that was given up is dropped.

Source: xen/include/public/io/xs_wire.h
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from pyxs._internal import Op, Packet

from translator.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY_PART: Final = 22  # younger than pyxs

_HEADER = Packet._struct
_OPERATIONS = frozenset({*Op, DIRECTORY_PART})
_DEVICE_RETRY_S: Final = 0.01
_ANSWER_BYTES: Final = 1 << 24  # oxenstored's listings pass the protocol's 4096; more than this is no answer


class Refusal(Exception):  # noqa: N818 - an answer of the daemon's, on its way to becoming a HostError
    """xenstored answered with an error, whose errno is called `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Changes:
    """What a watch has told since it was last asked; see `Xenstore.watch`."""

    def __init__(self, wire: Wire, token: str) -> None:
        self.token = token
        self._wire = wire
        self._paths: dict[str, None] = {}
        self._woken = asyncio.Event()

    async def next(self) -> tuple[str, ...]:
        """Wait for a change and return the changed paths, each once, in order.

        Raises:
            HostError: T408, the connection was lost.
        """
        await self._woken.wait()
        self._wire.check()
        self._woken.clear()
        paths, self._paths = tuple(self._paths), {}
        return paths

    def wake(self, path: str | None = None) -> None:
        """Note a change of `path`; None when the connection was lost."""
        if path is not None:
            self._paths[path] = None
        self._woken.set()


class _Pending(NamedTuple):
    op: int
    answer: asyncio.Future[bytes]


class Wire:
    """Packets over one descriptor: requests out, answers to their futures, watch events to their `Changes`."""

    def __init__(self, descriptor: int, path: str, timeout_s: float, is_device: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._path = path
        self._timeout_s = timeout_s
        self._is_device = is_device
        self._lost: str | None = None
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._watches: dict[str, Changes] = {}
        self._received = bytearray()
        self._outgoing: list[bytes] = []
        self._flushing = False
        self._answer_due = False  # of the device's one message under way
        self._heard = False  # whether anything that came was xenstore's protocol
        self._loop.add_reader(descriptor, self._receive)

    def request(self, op: int, *words: str, value: str | None = None, transaction: int = 0) -> asyncio.Future[bytes]:
        """Send a request of NUL-terminated words, then a bare value; its future gets the answer's payload.

        Raises:
            HostError: T408, the connection was lost before.
        """
        self.check()
        payload = "".join(f"{word}\0" for word in words).encode() + (value or "").encode()
        number = next(self._ids) & 0xFFFFFFFF
        self._outgoing.append(_HEADER.pack(op, number, transaction, len(payload)) + payload)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._pending[number] = _Pending(op, future)
        return future

    async def answer(self, request: asyncio.Future[bytes]) -> bytes:
        """Return the answer's payload.

        Raises:
            Refusal: the daemon answered with an error.
            HostError: T408, the connection was lost, or there is no answer within the deadline; T401, and there never
                was one.
        """
        if request.done():
            return request.result()
        try:
            async with asyncio.timeout(self._timeout_s):
                return await request
        except TimeoutError as error:
            raise self._failure(f"xenstored did not answer within {self._timeout_s:g} s") from error

    def abort(self, start: asyncio.Future[bytes]) -> None:
        """Abort the transaction that `start` began; where its answer is still to come, when it comes."""
        if start.done() and not start.cancelled() and start.exception() is None and self.is_open:
            self._end_unused(start.result())

    def _end_unused(self, transaction: bytes) -> None:
        self.request(Op.TRANSACTION_END, "F", transaction=int(transaction.rstrip(b"\0")))

    @contextmanager
    def changes(self) -> Iterator[Changes]:
        """Give a place, under a token of its own, where watch events arrive while it is open."""
        token = f"translator-{next(self._ids)}"
        self._watches[token] = Changes(self, token)
        try:
            yield self._watches[token]
        finally:
            del self._watches[token]

    @property
    def is_open(self) -> bool:
        """Whether the connection was not lost yet."""
        return self._lost is None

    def check(self) -> None:
        """Raise HostError T408 when the connection was lost."""
        if self._lost is not None:
            raise self._loss(self._lost)

    def close(self) -> None:
        """Give the connection up, as one that was a xenstored's."""
        self._heard = True
        self.lose("it was closed")

    def lose(self, reason: str) -> None:
        """Give the connection up: all that waits fails now, and all that comes later."""
        if self._lost is not None:
            return
        self._lost = reason
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        os.close(self._descriptor)
        self._outgoing.clear()
        for _, answer in self._pending.values():
            _fail(answer, self._loss(reason))
        self._pending.clear()
        for watch in self._watches.values():
            watch.wake()

    def _loss(self, reason: str) -> HostError:
        return self._failure(f"the connection to xenstored is lost: {reason}")

    def _failure(self, reason: str) -> HostError:
        # who never answered may be no xenstored at all
        return (
            HostError("T408", f"{self._path}: {reason}") if self._heard else no_xenstored(f"{self._path}: {reason}")
        )

    def _flush(self) -> None:
        self._flushing = False
        # The kernel sends a message from the buffer that the next write fills: one at a time, and the next when this
        # one is answered. Seen with Linux 6.1: pipelined requests get each other's bytes.
        if not self._outgoing or (self._is_device and self._answer_due):
            return
        data = self._outgoing[0] if self._is_device else b"".join(self._outgoing)
        try:
            written = os.write(self._descriptor, data)
        except BlockingIOError:
            written = 0
        except OSError as error:
            self.lose(str(error.strerror))
            return
        if self._is_device:
            if written:
                self._answer_due = True
                del self._outgoing[0]
            else:  # which polls never as writable
                self._loop.call_later(_DEVICE_RETRY_S, self._flush)
            return
        self._outgoing = [data[written:]] if written < len(data) else []
        if self._outgoing:
            self._flushing = True
            self._loop.add_writer(self._descriptor, self._flush_more)

    def _flush_more(self) -> None:
        self._loop.remove_writer(self._descriptor)
        self._flush()

    def _receive(self) -> None:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return
        except OSError as error:
            self.lose(str(error.strerror))
            return
        if not data:
            self.lose("it hung up in the middle of an answer" if self._received else "it hung up")
            return
        self._received += data
        offset = 0
        while self._lost is None and len(self._received) - offset >= _HEADER.size:
            op, number, _, size = _HEADER.unpack_from(self._received, offset)
            if op not in _OPERATIONS or size > _ANSWER_BYTES:
                self.lose("it does not speak xenstore's protocol")
                return
            end = offset + _HEADER.size + size
            if end > len(self._received):
                break
            self._dispatch(op, number, bytes(self._received[offset + _HEADER.size : end]))
            offset = end
        del self._received[:offset]

    def _dispatch(self, op: int, number: int, payload: bytes) -> None:
        if op == Op.WATCH_EVENT:
            path, token, *_ = [*words(payload), "", ""]
            if token in self._watches:  # else an event that was under way while its watch ended
                self._watches[token].wake(path)
            return
        if self._is_device:
            self._answer_due = False
            self._flush()
        if number == 0:
            # Linux answers WATCH and UNWATCH itself, in order and without an id (xenbus_dev_frontend.c).
            number = next((key for key, pending in self._pending.items() if pending.op == op), 0)
        pending = self._pending.get(number)
        if pending is None or op not in (Op.ERROR, pending.op):
            self.lose("it answered a request that was not made")
        elif op == Op.TRANSACTION_START and not payload.rstrip(b"\0").isdigit():
            self.lose("it began a transaction without a number")
        else:
            self._heard = True
            del self._pending[number]
            self._settle(pending.answer, op, payload)

    def _settle(self, answer: asyncio.Future[bytes], op: int, payload: bytes) -> None:
        if op == Op.ERROR:
            _fail(answer, Refusal(text(payload.rstrip(b"\0"))))
        elif not answer.done():
            answer.set_result(payload)
        elif op == Op.TRANSACTION_START:  # given up meanwhile
            self._end_unused(payload)


async def open_descriptor(path: str) -> tuple[int, bool]:
    """Return a non-blocking descriptor of the daemon, and whether it is a character device."""
    if stat.S_ISCHR(os.stat(path).st_mode):
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC), True
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        while True:
            try:
                connection.connect(path)
            except BlockingIOError:
                # The queue is full, for which Linux has no event, and xenstored's holds one or two.
                await asyncio.sleep(0.002)
            else:
                return connection.detach(), False


def no_xenstored(message: str) -> HostError:
    """Return the error of a place where no xenstored answers."""
    help = "is xenstored running? name its socket with --xenstore, or run as a user who may open it"
    return HostError("T401", message, help)


def _fail(future: asyncio.Future[bytes], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: who sends many requests at once awaits no more after the first failure


def words(payload: bytes) -> list[str]:
    """Return the NUL-terminated words of a payload."""
    return [text(word) for word in payload.split(b"\0") if word]


def text(value: bytes) -> str:
    """Return a value as text; bytes that are no UTF-8 come as `\\xNN`."""
    return value.decode(errors="backslashreplace")
