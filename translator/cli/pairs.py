"""What `diff` compares, two at a time: of two folders, archives or URLs, or of two revisions of a git repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, NamedTuple

import click
import msgspec

import translator
from translator.cli.inputs import nothing_below, unreadable
from translator.cli.sources import Input, below, read
from translator.errors import EXIT_USAGE, Diagnostic, TranslatorError
from translator.planning.plan import is_plan
from translator.topology import NIL_UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence, Set
    from types import TracebackType

    from translator.cli.report import Report
    from translator.document.domain import Domain
    from translator.topology import DomainIdentity

# What a folder holds, the first of a name alone: a plan may lie beside the document that it was made from.
_SUFFIXES = (".xml", ".cfg", ".plan.json")
_ASIDE = 2**24  # bytes of an archive that are held in memory; more lies in an unnamed file


class Pair(NamedTuple):
    """One path with what is there on either side; None where nothing is, and on both where git says they are one."""

    path: str
    old: Input | None
    new: Input | None


class Sides:
    """What lies in two folders or archives, or below two URLs, matched by relative path; for one command."""

    def __init__(self, old: str, new: str, report: Report, max_size: int) -> None:
        self._max_size = max_size
        self._old, self._new = (_Side(place, report, max_size) for place in (old, new))
        both = self._old.suffixes and self._new.suffixes
        self._stems = sorted(self._old.suffixes.keys() | self._new.suffixes.keys()) if both else []

    def __len__(self) -> int:
        return len(self._stems)

    def __iter__(self) -> Iterator[Pair]:
        """Yield the pairs, sorted by path; what was renamed stands where it is now."""
        old, new = self._old.suffixes, self._new.suffixes
        moved = _renamed(
            [stem for stem in self._stems if stem not in new],
            [stem for stem in self._stems if stem not in old],
            self._old.input,
            self._new.input,
            self._max_size,
        )
        left = set(moved.values())
        for stem in self._stems:
            if stem in left:
                continue
            before = moved.get(stem, stem)
            one = self._old.input(before)
            if one is not None and before != stem:
                one = msgspec.structs.replace(one, path=before + old[before])
            yield Pair(stem + (new.get(stem) or old[stem]), one, self._new.input(stem))


class _Side:
    """What lies in one place: the suffix of each, by its path without it. What an archive holds is put aside."""

    def __init__(self, place: str, report: Report, max_size: int) -> None:
        self.suffixes: dict[str, str] = {}
        self._name = ("", "")  # what stands around the path in a name
        self._errors: dict[str, OSError] = {}
        self._data: dict[str, tuple[int, int]] = {}  # offset and size
        self._aside = click.get_current_context().with_resource(SpooledTemporaryFile(max_size=_ASIDE))  # noqa: SIM115
        try:
            for path, one in below(place, max_size, _SUFFIXES):
                if one.error is not None and not path.endswith(_SUFFIXES):
                    raise one.error  # a folder: what is in it must not pass for removed
                self._add(path, one)
        except OSError as error:
            self.suffixes.clear()
            unreadable(place, error, report)
        else:
            if not self.suffixes:
                report.unreadable(place, nothing_below(place))

    def _add(self, path: str, one: Input) -> None:
        suffix = next(end for end in _SUFFIXES if path.endswith(end))
        stem = path.removesuffix(suffix)
        known = self.suffixes.get(stem)
        if known is not None and _SUFFIXES.index(known) <= _SUFFIXES.index(suffix):
            return
        self.suffixes[stem] = suffix
        head, _, tail = one.name.partition(path)
        self._name = (head, tail)
        if one.error is not None:
            self._errors[stem] = one.error
        if one.data is not None:
            self._data[stem] = (self._aside.seek(0, os.SEEK_END), len(one.data))
            self._aside.write(one.data)

    def input(self, stem: str) -> Input | None:
        """Return what is there, None if there is nothing."""
        suffix = self.suffixes.get(stem)
        if suffix is None:
            return None
        name = f"{stem}{suffix}".join(self._name)
        data = None
        if stem in self._data:
            offset, size = self._data[stem]
            self._aside.seek(offset)
            data = self._aside.read(size)
        return Input(name, data, self._errors.get(stem))


# Documents of one domain, by another path on either side


def _renamed(
    gone: Sequence[str],
    come: Sequence[str],
    old: Callable[[str], Input | None],
    new: Callable[[str], Input | None],
    max_size: int,
) -> dict[str, str]:
    """Return the old path by the new one of what is one domain's, where only one on either side can be meant."""
    if not gone or not come:
        return {}
    before, after = _by_identity(gone, old, max_size), _by_identity(come, new, max_size)
    return {path: before[who] for who, path in after.items() if who in before}


def _by_identity(
    paths: Iterable[str], side: Callable[[str], Input | None], max_size: int
) -> dict[tuple[str, str], str]:
    """Return the path of each domain that has one only."""
    found: dict[tuple[str, str], str | None] = {}
    for path in paths:
        one = side(path)
        who = None if one is None else _identity(one, max_size)
        if who is not None:
            found[who] = None if who in found else path
    return {who: path for who, path in found.items() if path is not None}


def _identity(one: Input, max_size: int) -> tuple[str, str] | None:
    """Return the domain's UUID, or its name where it has none; None of what is refused."""
    try:
        data = one.read(max_size)
        domain: Domain | DomainIdentity = (
            translator.Plan.from_json(data).topology.domain
            if is_plan(data)
            else translator.load(data, max_size=max_size)
        )
    except (TranslatorError, OSError):
        return None  # whoever plans it tells why
    return ("uuid", domain.uuid.lower()) if domain.uuid and domain.uuid != NIL_UUID else ("name", domain.name)


# git. Only objects are read: no work tree, no index, no filter, no hook, and nothing is fetched for want of one.

_QUIET = ("git", "--no-pager", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
_ENVIRONMENT = {
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_CHUNK = 2**16  # bytes
_FILE_MODES = ("100644", "100755")
_FETCH = "fetch it, with its history: git fetch --unshallow, fetch-depth: 0 on GitHub, GIT_DEPTH: 0 on GitLab"


class GitError(Exception):
    """Git has no such thing; the message is git's, and `help` what to do."""

    def __init__(self, message: str, help: str = "name it as git does: main..HEAD") -> None:
        super().__init__(message)
        self.help = help


def of_revisions(revisions: str, paths: Sequence[str], report: Report, max_size: int) -> Iterator[Pair]:
    """Yield the files below `paths` in two revisions, sorted; what is one object in both is not read.

    `revisions` is BASE..HEAD, or BASE...HEAD for what HEAD changed since it left BASE; HEAD when left out.
    """
    try:
        base, head = _revisions(revisions)
        old, new = _tree(base, paths), _tree(head, paths)
        _report_misses(paths, old.keys() | new.keys(), report)
        with _Objects() as objects:

            def before(path: str) -> Input | None:
                id = old.get(path)
                return Input(f"{base[:12]}:{path}", objects.read(id, max_size), path=path) if id else None

            def after(path: str) -> Input | None:
                id = new.get(path)
                return Input(path, objects.read(id, max_size)) if id else None

            gone, come = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
            moved = _renamed(gone, come, before, after, max_size)
            for path in sorted((old.keys() | new.keys()) - set(moved.values())):
                if old.get(path) == new.get(path):
                    yield Pair(path, None, None)
                else:
                    yield Pair(path, before(moved.get(path, path)), after(path))
    except GitError as error:
        report.code = max(report.code, EXIT_USAGE)
        report.show(Diagnostic(code="T130", message=f"cannot compare {revisions!r}: {error}", help=error.help))


def _report_misses(paths: Sequence[str], found: Set[str], report: Report) -> None:
    """Report each path below which neither revision has a document: a misspelled one must not pass for no change."""
    covered = found | {str(folder) for name in found for folder in PurePosixPath(name).parents}
    for path in paths:
        if (below := os.path.relpath(path)) != "." and below not in covered:
            report.unreadable(path, f"neither revision has a document at {path!r}")


def _git(*words: str) -> bytes:
    try:
        done = subprocess.run(
            [*_QUIET, *words],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=os.environ | _ENVIRONMENT,
            check=False,
        )
    except OSError as error:
        raise GitError(f"git cannot be run: {error.strerror}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        message = said[0].removeprefix("fatal: ") if said else f"git ended with {done.returncode}"
        if message.startswith("not a git repository"):
            raise GitError(message, "go into the repository, or compare two folders: translator diff OLD NEW")
        raise GitError(message)
    return done.stdout


def _revisions(words: str) -> tuple[str, str]:
    """Return the two commits' ids."""
    fork = "..." in words
    base, dots, head = words.partition("..." if fork else "..")
    if not dots:
        raise GitError("it is not of the form BASE..HEAD")
    _git("rev-parse", "--git-dir")  # so that what is said below is about the sides
    ids = [_commit(base or "HEAD", "old"), _commit(head or "HEAD", "new")]
    if fork:
        try:
            ids[0] = _git("merge-base", *ids).decode().strip()
        except GitError as error:
            raise GitError(
                f"{base or 'HEAD'!r} and {head or 'HEAD'!r} have no commit in common here",
                f"{_FETCH}; where they have none at all: BASE..HEAD, with two dots",
            ) from error
    return ids[0], ids[1]


def _commit(name: str, side: str) -> str:
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").decode().strip()
    except GitError as error:
        raise GitError(f"the {side} side, {name!r}, is no revision that is known here", _FETCH) from error


def _tree(commit: str, paths: Sequence[str]) -> dict[str, str]:
    """Return the ids of the regular files that are a document's, by path from here."""
    found: dict[str, str] = {}
    for entry in _git("ls-tree", "-r", "-z", commit, "--", *(os.path.normpath(path) for path in paths)).split(b"\0"):
        if not entry:
            continue
        facts, _, name = entry.partition(b"\t")
        mode, _, id = facts.decode().split(" ")
        path = os.fsdecode(name)
        if mode in _FILE_MODES and (path.endswith((".xml", ".cfg")) or path in paths):
            found[path] = id
    return found


class _Objects:
    """Reads objects through one git that stays."""

    def __enter__(self) -> _Objects:
        self.git = subprocess.Popen(
            [*_QUIET, "cat-file", "--batch"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | _ENVIRONMENT,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.git.stdin is not None
        assert self.git.stdout is not None
        self.git.stdin.close()
        self.git.stdout.close()
        self.git.wait()

    def read(self, id: str, max_size: int) -> bytes:
        """Return what the object holds, as `inputs.read` does of a file."""
        assert self.git.stdin is not None
        assert self.git.stdout is not None
        self.git.stdin.write(f"{id}\n".encode())
        self.git.stdin.flush()
        words = self.git.stdout.readline().split()
        if len(words) != 3:
            raise GitError(f"object {id} is missing")
        blob = _Blob(self.git.stdout, int(words[2]))
        data = read(blob, max_size)
        while blob.read(_CHUNK):
            pass  # what is too large is passed over
        self.git.stdout.read(1)  # a line end follows
        return data


class _Blob:
    """One object in the stream of many."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data
