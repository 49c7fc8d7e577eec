"""The directory where applies keep their journals, and the locks that keep two from working on one domain.

    DOMAIN.lock              held, by flock(2), while somebody works on the domain
    DOMAIN.ID.journal        an apply that has not come to its end; see `translator.saga.journal`
    DOMAIN.ID.part           a journal that was being written when its apply died: nothing had been begun
    DOMAIN.ID.unconfirmed    an apply that waits for `translator commit`, which renames the file
    DOMAIN.ID.confirmed      an apply that was told to stay

Every file is opened below the directory's own descriptor and without following links; the directory and its files
are their owner's alone.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shlex
import stat
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from translator.errors import HostError, RollbackError
from translator.saga import journal
from translator.saga.journal import Journal, damaged
from translator.saga.whole import to_the_end
from translator.topology import NIL_UUID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from translator.saga.journal import Content, Intent
    from translator.topology import DomainIdentity

LOCK_TIMEOUT_S: Final = 10.0

POLL_S: Final = 0.02  # between two looks at a lock or a confirmation: the kernel tells of neither
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_JOURNAL: Final = re.compile(r"([A-Za-z0-9_-]+)\.([0-9a-f]{16})\.(journal|part)")


class Found(NamedTuple):
    """A journal in the directory: the domain's key, the apply's id, and what the journal says or why it cannot."""

    key: str
    id: str
    path: str
    content: Content | RollbackError
    confirmed: bool  # whether it was told to stay


def key_of(domid: int | None, monitor: Path) -> str:
    """Return the word that stands for a running domain in file names: a Xen domain's id, or where its QEMU listens.

    What a document says of a QEMU's domain is not asked: another one may leave out its UUID, or give it another name.
    """
    if domid is not None:
        return f"xen-{domid}"
    return f"qemu-{hashlib.sha256(os.fsencode(monitor.resolve())).hexdigest()[:32]}"


def boot_id() -> str | None:
    """Return what names this run of the host, None where the kernel does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return None


class State:
    """The directory; it is made, for its owner alone, when it is first needed."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @asynccontextmanager
    async def lock(
        self,
        key: str,
        timeout_s: float = LOCK_TIMEOUT_S,
    ) -> AsyncIterator[None]:
        """Keep everybody else from working on the domain.

        Raises:
            HostError: T504, somebody else has been for `timeout_s` seconds; T507, the directory cannot be used.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        with self.directory() as directory:
            name = f"{key}.lock"
            while (held := self._try_lock(directory, name)) is None:
                if loop.time() >= deadline:
                    raise HostError(
                        "T504",
                        f"{self._holder(directory, name)} is working on this domain ({self.path / name})",
                        "wait for it to finish, or for longer: --lock-timeout SECONDS",
                    )
                await asyncio.sleep(POLL_S)
            try:
                yield
            finally:
                # While it is held: whoever has opened it meanwhile finds it unlinked, and begins again.
                take(directory, name)
                # the last close of a file without a name waits for the disk
                await to_the_end(asyncio.to_thread(os.close, held))

    def is_locked(self, key: str) -> bool:
        """Tell whether somebody works on the domain."""
        with self.directory() as directory:
            try:
                descriptor = os.open(f"{key}.lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            except FileNotFoundError:
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return os.fstat(descriptor).st_nlink > 0
            finally:
                os.close(descriptor)
            return False

    @asynccontextmanager
    async def record(self, key: str, intent: Intent) -> AsyncIterator[Journal]:
        """Give the journal of an apply that is about to begin; at the end it is gone, unless something is stuck.

        Raises:
            HostError: T507, it cannot be written, and nothing was done.
        """
        creation = asyncio.ensure_future(asyncio.to_thread(self._create, key, intent))
        try:
            record = await asyncio.shield(creation)
        except asyncio.CancelledError:
            record = await to_the_end(creation)
            record.finish("undone")
            record.close()
            raise
        try:
            yield record
        except RollbackError:
            record.close()  # it stays: what is stuck is still to be taken back
            raise
        except BaseException:
            await to_the_end(asyncio.to_thread(_finish, record, "undone"))
            raise
        else:
            await to_the_end(asyncio.to_thread(_finish, record, "done"))

    def journals(self) -> tuple[Found, ...]:
        """Return the journals that are there, by name; none where there is no directory."""
        if not self.path.exists():
            return ()
        with self.directory() as directory:
            names = sorted(os.listdir(directory))
            return tuple(
                Found(
                    key=match[1],
                    id=match[2],
                    path=str(self.path / name),
                    content=content,
                    confirmed=f"{match[1]}.{match[2]}.confirmed" in names,
                )
                for name in names
                if (match := _JOURNAL.fullmatch(name)) and match[3] == "journal"
                if (content := self._content(directory, name)) is not None
            )

    def open(self, found: Found) -> Journal:
        """Open a journal, to go on with it; the domain's lock must be held, and `confirm` comes too late now.

        Raises:
            RollbackError: T506, it is damaged.
            HostError: T507, it cannot be opened, or is gone.
        """
        name = f"{found.key}.{found.id}.journal"
        with self.directory() as directory:
            take(directory, f"{found.key}.{found.id}.unconfirmed")
            try:
                descriptor, data = _read(directory, name, self.path / name)
            except OSError as error:
                raise self.unusable(error) from error
            try:
                return Journal(str(self.path / name), descriptor, data, lambda: self._remove(found.key, found.id))
            except BaseException:
                os.close(descriptor)
                raise

    def refuse_unfinished(self, key: str, domain: DomainIdentity) -> None:
        """Refuse to begin on a domain that an earlier apply has left in between; its lock must be held.

        A journal of which no step was begun, or that has its outcome, is in nobody's way and is removed.

        Raises:
            HostError: T505.
            RollbackError: T506, its journal is damaged.
        """
        if not self.path.exists():
            return
        self.clear(key)
        for found in self.journals():
            if found.key != key:
                continue
            if isinstance(found.content, RollbackError):
                raise found.content
            if found.content.intent.boot != boot_id() or not _may_be_same(found.content.intent.domain, domain):
                continue
            where = f"--state {shlex.quote(str(self.path.absolute()))}"
            raise HostError(
                "T505",
                f"an earlier apply has left this domain in between: {found.path}",
                f"take it back with: translator recover {where}, "
                f"or finish it with: translator recover --resume {where}",
            )

    def clear(self, key: str) -> None:
        """Remove what a dead apply on the domain left that stands for nothing; the domain's lock must be held."""
        with self.directory() as directory:
            for name in os.listdir(directory):
                match = _JOURNAL.fullmatch(name)
                if match and match[1] == key and match[3] == "part":
                    os.unlink(name, dir_fd=directory)
        for found in self.journals():
            content = found.content
            if found.key != key or isinstance(content, RollbackError):
                continue
            if found.confirmed or content.outcome is not None or not content.begun:
                self._remove(found.key, found.id)

    @contextmanager
    def directory(self) -> Iterator[int]:
        """Give the directory's descriptor; it is made if it is not there."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise self.unusable(error) from error
        try:
            about = os.fstat(directory)
            if about.st_uid not in (0, os.geteuid()) or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise HostError(
                    "T507",
                    f"{self.path} can be written by others",
                    "a journal says what is done to the host: its directory must be yours alone",
                )
            yield directory
        finally:
            os.close(directory)

    def _try_lock(self, directory: int, name: str) -> int | None:
        """Return the lock's descriptor, None while somebody else holds it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, 0o600, dir_fd=directory)
        except OSError as error:
            raise self.unusable(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink:
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
        except BlockingIOError:
            pass
        except OSError as error:
            os.close(descriptor)
            raise self.unusable(error) from error
        os.close(descriptor)
        return None

    def _holder(self, directory: int, name: str) -> str:
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            return "another process"
        with open(descriptor, "rb") as file:
            number = file.read(20).strip()
        return f"process {int(number)}" if number.isdigit() else "another process"

    def _create(self, key: str, intent: Intent) -> Journal:
        """Write the journal so that it is there whole, on the disk, or not at all."""
        id = secrets.token_hex(8)
        part, name = f"{key}.{id}.part", f"{key}.{id}.journal"
        data = journal.encode(intent)
        with self.directory() as directory:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(part, flags, 0o600, dir_fd=directory)
                try:
                    _write_all(descriptor, data)
                    os.fsync(descriptor)
                    os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
                    os.fsync(directory)
                except BaseException:
                    os.close(descriptor)
                    for left in (part, name):
                        take(directory, left)
                    raise
            except OSError as error:
                raise self.unusable(error) from error
        return Journal(str(self.path / name), descriptor, data, lambda: self._remove(key, id))

    def _remove(self, key: str, id: str) -> None:
        """Remove an apply's files, the journal first: the others say nothing without it."""
        with self.directory() as directory:
            for suffix in ("journal", "unconfirmed", "confirmed"):
                take(directory, f"{key}.{id}.{suffix}")

    def _content(self, directory: int, name: str) -> Content | RollbackError | None:
        """Return what a journal says, or what is wrong with it; None when it has just gone."""
        try:
            descriptor, data = _read(directory, name, self.path / name)
        except RollbackError as error:
            return error
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.unusable(error) from error
        os.close(descriptor)
        try:
            return journal.decode(data, str(self.path / name))
        except RollbackError as error:
            return error

    def unusable(self, error: OSError) -> HostError:
        """Return T507: why the directory cannot be used."""
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror
        return HostError(
            "T507",
            f"cannot keep a journal in {self.path}: {reason}; nothing was done",
            "name another directory: --state DIR",
        )


def finish(record: Journal, outcome: journal.Outcome) -> None:
    """Note how an apply ended, and remove its journal.

    Raises:
        HostError: T507, one of them could not be done.
    """
    try:
        record.finish(outcome)
    except OSError as error:
        what = "matches" if outcome == "done" else "is as it was before"
        raise HostError(
            "T507",
            f"{record.path}: cannot be ended: {error.strerror}; the domain {what}",
            "delete the file by hand, or `translator recover` will look at what it names",
        ) from error


def _finish(record: Journal, outcome: journal.Outcome) -> None:
    try:
        finish(record, outcome)
    finally:
        record.close()


def _may_be_same(one: DomainIdentity, other: DomainIdentity) -> bool:
    """Tell whether two identities with one domid or monitor can be one domain: not when their UUIDs differ."""
    unknown = (None, NIL_UUID)
    return one.uuid in unknown or other.uuid in unknown or one.uuid == other.uuid


def _read(directory: int, name: str, path: Path) -> tuple[int, bytes]:
    """Return a journal's descriptor and bytes."""
    descriptor = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_uid not in (0, os.geteuid()) or about.st_mode & 0o022:
            raise damaged(str(path), "it is not a file of ours alone")
        if about.st_size > journal.LARGEST:
            raise damaged(str(path), f"it has {about.st_size} bytes")
        with open(descriptor, "rb", closefd=False) as file:
            return descriptor, file.read()
    except BaseException:
        os.close(descriptor)
        raise


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def take(directory: int, name: str) -> bool:
    """Remove the file; tell whether it was there to be removed."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True
