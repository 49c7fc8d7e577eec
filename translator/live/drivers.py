"""What QEMUs were found to have, by version: kept in a directory from one process to the next.

It is a cache and nothing more: what cannot be read, or is not as we wrote it, is as if it were not there, and what
cannot be written is asked for again. A driver that a QEMU lacks is never kept, since a package may bring it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec

from translator.topology import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FORMAT: Final = "translator-drivers/1"
LARGEST: Final = 2**20  # bytes; all drivers of the registry take some 20,000


class Property(msgspec.Struct, frozen=True, omit_defaults=True):
    """A property as QEMU tells of it: its word for the type, and the default, None where it names none."""

    type: str
    default: Value = None


Driver = dict[str, Property]


class _File(msgspec.Struct, frozen=True):
    format: str
    version: str
    drivers: dict[str, Driver]


class KnownDrivers:
    """The drivers that each version of QEMU was found to have.

    Args:
        directory: where to keep them: one that is there and that nobody else can write to; None for nowhere.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._known: dict[str, dict[str, Driver]] = {}

    def of(self, version: str) -> Mapping[str, Driver]:
        """Return what is known of a version, by driver; nothing at first."""
        if version not in self._known:
            self._known[version] = self._read(version)
        return self._known[version]

    def add(self, version: str, found: Mapping[str, Driver]) -> None:
        """Keep what was found."""
        if not found:
            return
        self._known[version] = {**self.of(version), **found}
        if self._directory is not None:
            with suppress(OSError):  # asked again next time
                self._write(version, self._directory)

    def _read(self, version: str) -> dict[str, Driver]:
        if self._directory is None:
            return {}
        try:
            with _opened(self._directory) as directory:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                with open(os.open(_name(version), flags, dir_fd=directory), "rb") as file:
                    about = os.fstat(file.fileno())
                    if not stat.S_ISREG(about.st_mode) or not _ours(about) or about.st_size > LARGEST:
                        return {}
                    content = msgspec.json.decode(file.read(LARGEST), type=_File)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}
        same = (content.format, content.version) == (FORMAT, version)
        return content.drivers if same else {}

    def _write(self, version: str, path: Path) -> None:
        data = msgspec.json.encode(_File(FORMAT, version, self._known[version]))
        new = f"{_name(version)}.{secrets.token_hex(8)}"
        with _opened(path) as directory:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(new, flags, 0o600, dir_fd=directory), "wb") as file:
                file.write(data)
            os.rename(new, _name(version), src_dir_fd=directory, dst_dir_fd=directory)


def _name(version: str) -> str:
    """Return the file's name: a version is what a QEMU says, and may be anything."""
    return f"{hashlib.sha256(version.encode()).hexdigest()[:16]}.drivers"


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Give the directory's descriptor; OSError where there is none, or where others can write to it."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not _ours(os.fstat(directory)):
            raise PermissionError(f"{path} can be written by others")
        yield directory
    finally:
        os.close(directory)


def _ours(about: os.stat_result) -> bool:
    return about.st_uid in (0, os.geteuid()) and not about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
