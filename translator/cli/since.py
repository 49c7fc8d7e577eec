"""What `--since STATE` remembers between two runs: of which inputs nothing had to be told.

Such an input is passed over while it is what it was, and so are what it is called, the options and the translator:
all of it is in the digest. Every other one is looked at again, so that findings and exit codes are those of a run
without STATE. A damaged STATE can thus only make work. One that somebody else could have written is refused.
"""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING, Literal

import msgspec

from translator.cli import inputs
from translator.errors import EXIT_USAGE, Diagnostic
from translator.fleet.build import build

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from translator.cli.report import Report
    from translator.cli.work import Item, Outcome, Task

_BEGIN = b'{"format":"translator-since/1"'
_LARGEST = 2**30  # bytes: some ten million inputs
_EVERY_S = 30.0  # how much work a kill can undo


class _State(msgspec.Struct):
    format: Literal["translator-since/1"]
    settled: dict[str, str]  # digest by path


class Since:
    """The inputs that were settled by earlier runs, and by this one."""

    def __init__(self, path: Path, task: Task, report: Report) -> None:
        from hashlib import blake2b

        self.context = blake2b(f"{build()} {task!r}".encode(), digest_size=16).digest()
        self.met = self.unchanged = 0
        self._path = path
        self._report = report
        self._before = self._read()
        self._settled: dict[str, str] = {}
        self._written = time.monotonic()

    def reminded(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, each with the digest that it had when it was settled."""
        for item in items:
            digest = self._before.get(item.path)
            yield item if digest is None else msgspec.structs.replace(item, remembered=bytes.fromhex(digest))

    def note(self, outcome: Outcome) -> None:
        """Remember an item whose result has been delivered, or that it has one again."""
        self.met += 1
        self.unchanged += outcome.unchanged
        self._before.pop(outcome.path, None)
        if outcome.settled and outcome.digest is not None and _is_text(outcome.path):
            self._settled[outcome.path] = outcome.digest.hex()

    def keep(self, *, complete: bool) -> None:
        """Write STATE, whole or not at all; what a complete run has not met is forgotten."""
        settled = self._settled if complete else self._before | self._settled
        state = msgspec.json.encode(_State("translator-since/1", dict(sorted(settled.items()))))
        try:
            inputs.replace_file(self._path, (state, b"\n"), 0o600)
        except OSError as error:
            message = f"cannot write {str(self._path)!r}: {error.strerror}"
            self._report.code = max(self._report.code, EXIT_USAGE)
            self._report.show(Diagnostic(code="T392", message=message))
        self._written = time.monotonic()

    def keep_now_and_then(self) -> None:
        """Write STATE when that is some time ago, so that a run that is killed is not for nothing."""
        if time.monotonic() - self._written > _EVERY_S:
            self.keep(complete=False)

    def _read(self) -> dict[str, str]:
        try:
            data = _owned(self._path)
        except FileNotFoundError:
            return {}
        except OSError as error:
            inputs.usage(f"--since cannot use {str(self._path)!r}: {error.strerror}")
        try:
            settled = msgspec.json.decode(data, type=_State).settled
            for digest in settled.values():
                bytes.fromhex(digest)
        except (msgspec.DecodeError, ValueError) as error:
            if not data.startswith(_BEGIN[: len(data)]):
                inputs.usage(f"{str(self._path)!r} is not what --since has written, and is left alone")
            message = f"{str(self._path)!r} is damaged, so everything is looked at again: {error}"
            self._report.show(Diagnostic(code="T391", severity="warning", message=message))
            return {}
        return settled


def _owned(path: Path) -> bytes:
    """Return what the file holds, if nobody else could have written it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as stream:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise OSError(0, "it is no regular file")
        if about.st_uid not in (0, os.geteuid()) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OSError(0, "somebody else may write it, and could have things passed over")
        if about.st_size > _LARGEST:
            raise OSError(0, f"it is larger than {_LARGEST} bytes")
        return stream.read()


def _is_text(path: str) -> bool:
    """Tell whether JSON can hold the path; others are looked at each time."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
