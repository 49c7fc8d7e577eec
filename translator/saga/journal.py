"""One apply's journal: what it intends, which of its steps were begun, and how it ended.

    translator-journal/1 0000004096 d1a3…               the length of the intent, and its SHA-256
    {"domain": …, "steps": […]}                         the intent, blank-padded to a multiple of 32 bytes
    begun  5f0c…                                        32 bytes for each step, and as many for the outcome:
    blank  91ab…                                        a word, and a checksum of it, its place and the intent

The file has its full size before the first step, and a mark is one write in place: it needs no room on the disk, and
as it lies within one page, a process that is killed has made it whole or not at all. So a file of another size, or
with any other byte in it, is damaged, and a damaged journal is refused.

Only the intent and the outcome are synced to the disk. A mark need not outlive a power failure: xenstore, QEMU and
/sys do not either, which is what `boot` is for.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

import msgspec

from translator.errors import RollbackError
from translator.planning.plan import Step, step_to_wire
from translator.planning.plan_file import step_from_wire
from translator.topology import DomainIdentity

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT: Final = "translator-journal/1"

Mark = Literal["blank", "begun", "undone", "done"]
Outcome = Literal["undone", "done"]

_MARKS: Final = get_args(Mark)
_MARK_BYTES: Final = 32
_CHECK_DIGITS: Final = 24
_HEAD: Final = re.compile(rb"translator-journal/([0-9]{1,9}) ([0-9]{10}) ([0-9a-f]{64})\n")
_HEAD_BYTES: Final = len(FORMAT) + 1 + 10 + 1 + 64 + 1
LARGEST: Final = 1 << 28  # bytes; a plan of the largest document stays far below


class _Facts(msgspec.Struct, frozen=True, kw_only=True):
    started: str
    boot: str | None
    domain: DomainIdentity
    xenstore: str
    qmp: dict[str, str]
    sysfs: str
    timeout_s: float | None
    absent: tuple[str, ...]
    process: str | None = None


class Intent(_Facts, frozen=True, kw_only=True):
    """What an apply is about to do, with all that is needed to take it back from another process.

    The steps are bound, so they are absolute. `boot` names the host's run, None where the kernel does not tell;
    `absent` are the xenstore directories that were not there before; `process` names the one that listens at a QEMU's
    monitor where no domid names the domain; `started` is for people only.
    """

    steps: tuple[Step, ...]


class _WireIntent(_Facts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The intent's JSON: steps as a plan file has them."""

    steps: tuple[dict[str, Any], ...]


class Content(msgspec.Struct, frozen=True):
    """What a journal says: a mark for each step of the intent, and the outcome, None while there is none."""

    intent: Intent
    marks: tuple[Mark, ...]
    outcome: Outcome | None

    @property
    def begun(self) -> tuple[Step, ...]:
        """The steps that may be in effect, oldest first."""
        return tuple(step for step, mark in zip(self.intent.steps, self.marks, strict=True) if mark == "begun")


def encode(intent: Intent) -> bytes:
    """Return the bytes of a journal whose steps have not been begun."""
    fields = {name: getattr(intent, name) for name in Intent.__struct_fields__}
    wire = _WireIntent(**fields | {"steps": tuple(step_to_wire(step) for step in intent.steps)})
    body = msgspec.json.encode(wire)
    body += b" " * (-(_HEAD_BYTES + len(body) + 1) % _MARK_BYTES) + b"\n"
    digest = hashlib.sha256(body).hexdigest()
    blanks = (_mark(digest, number, "blank") for number in range(len(intent.steps) + 1))
    return f"{FORMAT} {len(body):010} {digest}\n".encode() + body + b"".join(blanks)


def decode(data: bytes, path: str) -> Content:
    """Return what a journal says.

    Raises:
        RollbackError: T506, it is not as it was written; `path` names it in the message.
    """
    head = _HEAD.match(data)
    if head is None:
        raise damaged(path, "it does not begin as a journal does")
    if head[1] != FORMAT.rpartition("/")[2].encode():
        raise damaged(path, f"it is of version {int(head[1])}, and this version reads {FORMAT}")
    digest, end = head[3].decode(), head.end() + int(head[2])
    body = data[head.end() : end]
    if hashlib.sha256(body).hexdigest() != digest:
        raise damaged(path, "what it was to do is not as it was written")
    try:
        wire = msgspec.json.decode(body, type=_WireIntent)
        fields = {name: getattr(wire, name) for name in _WireIntent.__struct_fields__}
        intent = Intent(**fields | {"steps": tuple(map(step_from_wire, wire.steps))})
    except (msgspec.DecodeError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    places = len(intent.steps) + 1
    if len(data) != end + places * _MARK_BYTES:
        raise damaged(path, f"it has {len(data)} bytes, and {end + places * _MARK_BYTES} were written")
    marks = [_read_mark(data, end, number, digest, path) for number in range(places)]
    outcome = marks.pop()
    if outcome == "begun" or "done" in marks:
        raise damaged(path, "it has a mark in a place where none of its kind belongs")
    return Content(intent, tuple(marks), None if outcome == "blank" else outcome)


def damaged(path: str, how: str) -> RollbackError:
    """Return T506: what was done to the host cannot be known from this file."""
    return RollbackError(
        "T506",
        f"{path}: the journal is damaged: {how}",
        "look at the domain with: translator observe; when it is as it should be, delete the file",
        stuck=(),
    )


class Journal:
    """An open journal; implements `translator.saga.performer.Record`.

    Args:
        path: for messages.
        descriptor: the file, open for writing; the journal's own from now on.
        data: what is in it.
        remove: deletes the file.
    """

    def __init__(self, path: str, descriptor: int, data: bytes, remove: Callable[[], None]) -> None:
        self.path = path
        self._content = decode(data, path)
        self._descriptor = descriptor
        self._remove = remove
        head = _HEAD.match(data)
        assert head is not None, "decoded above"
        self._digest = head[3].decode()
        self._first_mark = head.end() + int(head[2])

    @property
    def content(self) -> Content:
        """What the file said when it was opened."""
        return self._content

    def begin(self, number: int) -> None:
        """Note that a step, counted from 0, may be in effect from now on.

        Raises:
            OSError: it could not be noted.
        """
        self._write(number, "begun")

    def undone(self, number: int) -> None:
        """Note that a step is not in effect any more."""
        self._write(number, "undone")

    def finish(self, outcome: Outcome) -> None:
        """Note how it ended, durably, and remove the file: nothing is left to recover.

        Raises:
            OSError: the file is still there; it tells the outcome where that could be written.
        """
        try:
            self._write(len(self._content.intent.steps), outcome)
            os.fsync(self._descriptor)
        finally:
            self._remove()

    def close(self) -> None:
        """Let go of the file; without an outcome it stays, for `recover`."""
        os.close(self._descriptor)

    def _write(self, number: int, mark: Mark) -> None:
        os.pwrite(self._descriptor, _mark(self._digest, number, mark), self._first_mark + number * _MARK_BYTES)


def _mark(digest: str, number: int, mark: Mark) -> bytes:
    check = hashlib.sha256(f"{digest} {number} {mark}".encode()).hexdigest()[:_CHECK_DIGITS]
    return f"{mark:7}{check}\n".encode()


def _read_mark(data: bytes, first: int, number: int, digest: str, path: str) -> Mark:
    found = data[first + number * _MARK_BYTES :][:_MARK_BYTES]
    for mark in _MARKS:
        if found == _mark(digest, number, mark):
            return cast("Mark", mark)
    raise damaged(path, f"mark {number + 1} is not as it was written")
