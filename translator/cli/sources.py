"""Where documents lie: files, folders, archives of them, and places with a URL.

    guests, guests/a.xml           a folder, a file
    guests.tar.gz, guests.zip      an archive: its documents in its own order, or sorted; read in one pass
    s3://bucket/guests, *.xml      what fsspec knows (the extra `fleet`), below a prefix or by pattern
    zip://a.xml::s3://bucket/g.zip …also in chains, as fsspec spells them

What all those who work can read for themselves is passed on by name; what only this process can, with its bytes.
Names inside archives are for people, and never become paths.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Protocol, Self, TypeVar

import msgspec

from translator.planning.plan import is_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_DROPPED = dict.fromkeys(map(ord, "+-."))  # from a scheme, which else has letters and digits
_BLOCK = 2**16  # bytes


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int = ..., /) -> bytes:
        """Return so many bytes, or all that are left, and fewer at the end only."""


class Input(msgspec.Struct, frozen=True):
    """A document or plan: what diagnostics call it, and its bytes, or why there are none, where that is known.

    `path` is where it is in what it is compared with: a revision's name for it is no place to point at.
    """

    name: str
    data: bytes | None = None
    error: OSError | None = None
    path: str | None = None

    def read(self, max_size: int) -> bytes:
        """Return what it holds, as `read` does.

        Raises:
            OSError: it cannot be read; the reason is its `strerror`.
        """
        if self.error is not None:
            raise self.error
        if self.data is not None:
            return self.data
        if not is_url(self.name):
            with open(self.name, "rb") as stream:
                return read(stream, max_size)
        return _foreign(lambda: _read_url(self.name, max_size))

    def fetched(self, max_size: int) -> Input:
        """Return it with what it holds, or why that cannot be read."""
        try:
            return msgspec.structs.replace(self, data=self.read(max_size))
        except OSError as error:
            return msgspec.structs.replace(self, error=error)


def is_url(name: str) -> bool:
    """Tell whether a name is for fsspec: `s3://…`, or a chain of such."""
    scheme, there, _ = name.partition("://")
    return bool(there) and scheme.rpartition("::")[2].translate(_DROPPED).isalnum()


def is_archive(name: str) -> bool:
    """Tell whether a name is an archive's, whose documents are meant."""
    return name.lower().endswith(_ARCHIVES) and "::" not in name


def below(name: str, max_size: int, suffixes: Sequence[str] = (".xml",)) -> Iterator[tuple[str, Input]]:
    """Yield what lies below a folder, in an archive or below a URL, each with its path from there.

    What is neither is yielded itself, with an empty path. A folder's are sorted, as a tree is: part by part.

    Raises:
        OSError: what there is cannot be told, or not to the end.
    """
    ends = tuple(suffixes)
    if is_archive(name) and not os.path.isdir(name):
        yield from _foreign_each(lambda: _members(name, max_size, ends))
    elif is_url(name):
        yield from _foreign_each(lambda: _listing(name, max_size, ends))
    elif os.path.isdir(name):
        from pathlib import Path

        prefix = str(Path(name, "x"))[:-1]  # as pathlib spells it: nothing for ".", one slash at most
        for path, error in _walk(name, "", ends):
            yield path, Input(prefix + path, error=error)
    else:
        yield "", Input(name)


def holds_many(name: str) -> bool:
    """Tell whether a name stands for what lies in or below it, rather than for itself.

    Raises:
        OSError: what is at a URL cannot be told.
    """
    if os.path.isdir(name) or is_archive(name):
        return True
    return is_url(name) and _foreign(lambda: _is_prefix(*_filesystem(name)))


def read(stream: Readable, max_size: int) -> bytes:
    """Return the whole of a plan, which may be many times its document's size, and what matters of a document."""
    data = stream.read(max_size + 1)
    return data + stream.read() if is_plan(data) else data


def why(error: OSError) -> str:
    """Return the reason in words, which those who raise it do not always give."""
    return error.strerror or str(error) or type(error).__name__


def _walk(folder: str, path: str, suffixes: tuple[str, ...]) -> Iterator[tuple[str, OSError | None]]:
    """Yield the files below, and the folders that cannot be looked into. Links to folders are not followed.

    Memory is bounded by the largest folder's names.
    """
    try:
        with os.scandir(os.path.join(folder, path)) as entries:
            found = sorted(
                (entry.name, entry.is_dir(follow_symlinks=False))
                for entry in entries
                if entry.name.endswith(suffixes) or entry.is_dir(follow_symlinks=False)
            )
    except OSError as error:
        yield path, error
        return
    for name, is_folder in found:
        if is_folder:
            yield from _walk(folder, os.path.join(path, name), suffixes)
        else:
            yield os.path.join(path, name), None


# Archives


def _members(name: str, max_size: int, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Input]]:
    with _open(name) as stream:
        members = _zipped(stream, max_size) if name.lower().endswith(".zip") else _tarred(stream, max_size)
        for path, content in members:
            path = posixpath.normpath(path).lstrip("/")
            if path.endswith(suffixes):
                label = f"{name}/{path}"
                try:
                    yield path, Input(label, content())
                except Exception as error:  # damaged, encrypted: zipfile and zlib raise errors of many kinds
                    yield path, Input(label, error=_as_os_error(error))


def _zipped(stream: IO[bytes], max_size: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    from zipfile import ZipFile, ZipInfo

    with ZipFile(stream) as archive:

        def content(member: ZipInfo) -> bytes:
            with archive.open(member) as inside:
                return read(inside, max_size)

        for member in sorted(archive.infolist(), key=lambda one: one.filename):
            is_file = stat.S_IFMT(member.external_attr >> 16) in (0, stat.S_IFREG)
            if not member.is_dir():
                yield member.filename, partial(content, member) if is_file else _no_file


def _tarred(stream: IO[bytes], max_size: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the files of an archive as they come, to the mark at its end: what is cut short is an error."""
    import tarfile

    class Member(tarfile.TarInfo):
        @classmethod
        def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
            try:
                return super().fromtarfile(archive)
            except tarfile.HeaderError as error:
                if type(error).__name__ == "EOFHeaderError":
                    raise
                # which tarfile takes for the end, too
                raise OSError(errno.EIO, f"it is damaged, or cut short: {error}") from error

    plain = _decompressed(stream)
    with tarfile.open(fileobj=plain, mode="r|", tarinfo=Member) as archive:
        for member in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # which would grow with the archive
            if member.isreg():
                inside = archive.extractfile(member)
                assert inside is not None, "a regular file has content"
                yield member.name, partial(read, inside, max_size)
            elif not member.isdir():
                yield member.name, _no_file
    while plain.read(_BLOCK):
        pass  # to the very end, where the checksum is


def _no_file() -> bytes:
    raise OSError(errno.EINVAL, "it is a link in an archive, or no file at all")


def _decompressed(stream: IO[bytes]) -> IO[bytes]:
    import bz2
    import gzip
    import lzma

    magic = stream.read(6)
    stream.seek(0)
    opens: Any = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}.get(magic[:2])
    return stream if opens is None else opens(stream)


# URLs


def _listing(url: str, max_size: int, suffixes: tuple[str, ...]) -> Iterator[tuple[str, Input]]:
    """Yield what is below a prefix, or fits a pattern; all of it is listed first, and sorted."""
    files, root = _filesystem(url)
    if "*" in root:
        found, start = files.glob(root), posixpath.dirname(root.partition("*")[0])
    elif root and files.isfile(root):
        found, start = [root], root
    else:
        found, start = [name for name in files.find(root) if name.endswith(suffixes)], root
    chain = url.partition("::")[1:]
    for name in sorted(found, key=lambda name: name.split("/")):
        one = Input("".join((files.unstrip_protocol(name), *chain)))
        if chain[0] or "memory" in files.protocol:  # one name, or several
            one = one.fetched(max_size)
        yield name[len(start) :].lstrip("/"), one


def _is_prefix(files: Any, root: str) -> bool:
    return not root or "*" in root or not files.isfile(root)


def _read_url(url: str, max_size: int) -> bytes:
    files, name = _filesystem(url)
    with files.open(name, "rb") as stream:
        return read(stream, max_size)


def _open(name: str) -> IO[bytes]:
    if not is_url(name):
        return open(name, "rb")
    files, path = _filesystem(name)
    return files.open(path, "rb")  # type: ignore[no-any-return]


def _filesystem(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        message = "what has a URL is read by fsspec, which is missing: pip install 'translator[fleet]'"
        raise OSError(errno.ENOPKG, message) from error
    found: tuple[Any, str] = url_to_fs(url)
    return found


# fsspec, what stands behind it, and archives have errors of many kinds. They end here.


def _as_os_error(error: Exception) -> OSError:
    if isinstance(error, OSError) and error.strerror:
        return error
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, FileNotFoundError):
        text = os.strerror(errno.ENOENT)
    return OSError(errno.EIO, text or type(error).__name__)


def _foreign(work: Callable[[], T]) -> T:
    try:
        return work()
    except Exception as error:
        raise _as_os_error(error) from error


def _foreign_each(work: Callable[[], Iterator[T]]) -> Iterator[T]:
    items = _foreign(work)
    end = object()
    while (item := _foreign(lambda: next(items, end))) is not end:
        yield item  # type: ignore[misc]
