"""A xenstored on a Unix socket: the wire protocol over the sandbox's tree, every client being domain 0.

The protocol is that of xen/include/public/io/xs_wire.h: a header of four little-endian 32-bit numbers (type,
request, transaction, length), then at most 4096 bytes. A request is answered before the next one is read; a
client that breaks the framing is disconnected, as the real daemons do.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import struct
from typing import TYPE_CHECKING

from translator.hosts.sandbox.store import MAX_PATH, Store, StoreError, View, Watch, check_path

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

MAX_PAYLOAD = 4096  # bytes
_HEADER = struct.Struct("<IIII")
_HOME = "/local/domain/0/"  # what a path without a leading slash is relative to, for domain 0
_SPECIAL = ("@introduceDomain", "@releaseDomain")


class Op(enum.IntEnum):
    """Message types that are served, and the two that only a server sends."""

    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESET_WATCHES = 21
    DIRECTORY_PART = 22


_OK = b"OK\0"


def _words(payload: bytes, least: int, most: int | None = None) -> list[str]:
    """Return the NUL-terminated words of a payload, which must be that many."""
    if not payload.endswith(b"\0"):
        raise StoreError("EINVAL")
    try:
        words = payload[:-1].decode("ascii").split("\0")
    except UnicodeDecodeError:
        raise StoreError("EINVAL") from None
    if len(words) < least or len(words) > (least if most is None else most):
        raise StoreError("EINVAL")
    return words


def _canonical(path: str) -> str:
    return path if path.startswith(("/", "@")) else _HOME + path


def _absolute(path: str) -> str:
    return check_path(_canonical(path))


class Connection(asyncio.Protocol):
    """One client. `domains` are the ids of the domains that exist."""

    def __init__(self, store: Store, domains: Container[int], clients: set[Connection]) -> None:
        self._store = store
        self._domains = domains
        self._clients = clients
        self._input = bytearray()
        self._transactions: dict[int, View] = {}
        self._numbers = itertools.count(1)
        self._watches: dict[tuple[str, str], Watch] = {}
        self._ops: Mapping[int, Callable[[View, bytes], bytes]] = {
            Op.DIRECTORY: self._directory,
            Op.READ: lambda view, payload: view.read(_absolute(*_words(payload, 1))),
            Op.GET_PERMS: self._get_perms,
            Op.GET_DOMAIN_PATH: self._get_domain_path,
            Op.WRITE: self._write,
            Op.MKDIR: self._mkdir,
            Op.RM: self._rm,
            Op.SET_PERMS: self._set_perms,
            Op.IS_DOMAIN_INTRODUCED: self._is_domain_introduced,
            Op.DIRECTORY_PART: self._directory_part,
        }

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.discard(self)
        self._forget()

    def pause_writing(self) -> None:
        # Who does not read its answers is not heard either; else they would pile up here.
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._input += data
        while len(self._input) >= _HEADER.size and not self._transport.is_closing():
            kind, request, transaction, length = _HEADER.unpack_from(self._input)
            if length > MAX_PAYLOAD:
                self._transport.abort()
                return
            end = _HEADER.size + length
            if len(self._input) < end:
                return
            payload = bytes(self._input[_HEADER.size : end])
            del self._input[:end]
            self._serve(kind, request, transaction, payload)

    def close(self) -> None:
        """Disconnect the client."""
        self._transport.abort()

    def _send(self, kind: int, request: int, transaction: int, payload: bytes) -> None:
        self._transport.write(_HEADER.pack(kind, request, transaction, len(payload)) + payload)

    def _serve(self, kind: int, request: int, transaction: int, payload: bytes) -> None:
        try:
            if kind in self._ops:
                answer = self._on_tree(kind, transaction, payload)
                self._send(kind, request, transaction, answer)
            elif kind == Op.WATCH:
                watch = self._watch(payload)
                self._send(kind, request, transaction, _OK)
                watch.notify(watch.path)
            else:
                answer = self._on_connection(kind, transaction, payload)
                self._send(kind, request, transaction, answer)
        except StoreError as error:
            self._send(Op.ERROR, request, transaction, f"{error.name}\0".encode())

    def _on_tree(self, kind: int, transaction: int, payload: bytes) -> bytes:
        if transaction:
            return self._limited(self._ops[kind](self._transaction(transaction), payload))
        view = self._store.begin()
        answer = self._limited(self._ops[kind](view, payload))
        if view.changed:
            self._store.commit(view)
        return answer

    def _on_connection(self, kind: int, transaction: int, payload: bytes) -> bytes:
        if kind == Op.TRANSACTION_START:
            if transaction:
                raise StoreError("EBUSY")
            number = next(self._numbers)
            self._transactions[number] = self._store.begin()
            return f"{number}\0".encode()
        if kind == Op.TRANSACTION_END:
            view = self._transaction(transaction)
            if payload not in (b"T\0", b"F\0"):
                raise StoreError("EINVAL")
            del self._transactions[transaction]
            if payload == b"T\0":
                self._store.commit(view)
            return _OK
        if kind == Op.UNWATCH:
            path, token = _words(payload, 2)
            watch = self._watches.pop((_canonical(path), token), None)
            if watch is None:
                raise StoreError("ENOENT", path)
            self._store.unwatch(watch)
            return _OK
        if kind == Op.RESET_WATCHES:
            self._forget()
            return _OK
        raise StoreError("ENOSYS")

    def _transaction(self, number: int) -> View:
        if number not in self._transactions:
            raise StoreError("ENOENT")
        return self._transactions[number]

    def _forget(self) -> None:
        for watch in self._watches.values():
            self._store.unwatch(watch)
        self._watches.clear()
        self._transactions.clear()

    @staticmethod
    def _limited(answer: bytes) -> bytes:
        if len(answer) > MAX_PAYLOAD:
            raise StoreError("E2BIG")
        return answer

    # One method for each request

    def _directory(self, view: View, payload: bytes) -> bytes:
        return b"".join(f"{name}\0".encode() for name in view.node(_absolute(*_words(payload, 1))).children)

    def _directory_part(self, view: View, payload: bytes) -> bytes:
        """A listing from an offset on, behind the node's generation; an empty name ends the last part."""
        path, offset = _words(payload, 2)
        if not offset.isdecimal():
            raise StoreError("EINVAL")
        node = view.node(_absolute(path))
        answer = bytearray(f"{node.generation}\0".encode())
        position = 0
        for name in node.children:
            entry = f"{name}\0".encode()
            if position >= int(offset):
                if len(answer) + len(entry) > MAX_PAYLOAD - 1:
                    return bytes(answer)
                answer += entry
            position += len(entry)
        return bytes(answer) + b"\0"

    def _get_perms(self, view: View, payload: bytes) -> bytes:
        return b"".join(f"{entry}\0".encode() for entry in view.node(_absolute(*_words(payload, 1))).permissions)

    def _get_domain_path(self, view: View, payload: bytes) -> bytes:
        return f"/local/domain/{self._domid(payload)}\0".encode()

    def _is_domain_introduced(self, view: View, payload: bytes) -> bytes:
        return b"T\0" if self._domid(payload) in self._domains else b"F\0"

    @staticmethod
    def _domid(payload: bytes) -> int:
        (word,) = _words(payload, 1)
        if not word.isdecimal() or int(word) > 0x7FFF:
            raise StoreError("EINVAL")
        return int(word)

    def _write(self, view: View, payload: bytes) -> bytes:
        path, separator, value = payload.partition(b"\0")
        if not separator:
            raise StoreError("EINVAL")
        view.write(_absolute(*_words(path + separator, 1)), value)
        return _OK

    def _mkdir(self, view: View, payload: bytes) -> bytes:
        view.mkdir(_absolute(*_words(payload, 1)))
        return _OK

    def _rm(self, view: View, payload: bytes) -> bytes:
        view.rm(_absolute(*_words(payload, 1)))
        return _OK

    def _set_perms(self, view: View, payload: bytes) -> bytes:
        path, *permissions = _words(payload, 2, MAX_PATH)
        view.set_permissions(_absolute(path), tuple(permissions))
        return _OK

    def _watch(self, payload: bytes) -> Watch:
        # The C daemon ignores a third word: an optional depth.
        path, token = _words(payload, 2, 3)[:2]
        absolute = path if path in _SPECIAL else _absolute(path)
        if (absolute, token) in self._watches:
            raise StoreError("EEXIST", path)
        # Events name the node in the way its watch does: relative to a home, or absolute.
        prefix = len(absolute) - len(path)

        def notify(changed: str) -> None:
            self._send(Op.WATCH_EVENT, 0, 0, f"{changed[prefix:]}\0{token}\0".encode())

        watch = Watch(absolute, notify)
        self._watches[absolute, token] = watch
        self._store.watch(watch)
        return watch
