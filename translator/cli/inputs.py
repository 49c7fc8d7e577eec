"""What a command reads and writes: documents, plans, folders of them, standard streams."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn, Protocol

import click
import msgspec

import translator
from translator.domain import MAX_SIZE
from translator.plan import is_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from translator.cli.options import Planning
    from translator.drivers import Driver
    from translator.plan import Plan
    from translator.report import Report


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int = ..., /) -> bytes:
        """Return so many bytes, or all that are left, and fewer at the end only."""


def documents(files: Iterable[str], report: Report, max_size: int = MAX_SIZE) -> Iterator[tuple[str, bytes]]:
    """Yield each document with its name; a folder stands for every *.xml below it, sorted.

    What cannot be read is reported, and the others are read all the same. Of what is too large, no more is read
    than shows that it is.
    """
    for name in names(files, report):
        try:
            data = read(sys.stdin.buffer, max_size) if name == "-" else read_file(name, max_size)
        except OSError as error:
            unreadable(name, error, report)
        else:
            if is_plan(data):
                report.plans.add(name)
            yield name, data


def names(files: Iterable[str], report: Report) -> Iterator[str]:
    """Yield the name of each document: of those below a folder in its place, `-` for standard input."""
    for file in files:
        if not file:
            report.unreadable(file, "a file's name is empty")
            continue
        if not os.path.isdir(file):
            yield file
            continue
        from pathlib import Path

        found = sorted(Path(file).rglob("*.xml"))
        if not found:
            report.unreadable(file, f"there is no *.xml below the folder {file!r}")
        yield from map(str, found)


def unreadable(name: str, error: OSError, report: Report) -> None:
    """Report a file that cannot be read."""
    report.unreadable(name, f"cannot read {name!r}: {error.strerror}")


def single(file: str, command: str, report: Report, max_size: int) -> tuple[str, bytes]:
    """Return the one document that the command takes, with its name."""
    inputs = list(documents((file,), report, max_size))
    if report.failed:
        report.exit()
    if len(inputs) != 1:
        usage(f"{command} takes one document, and {file!r} gives {len(inputs)}")
    return inputs[0]


def plan_of(
    data: bytes,
    name: str,
    planning: Planning | None = None,
    max_size: int = MAX_SIZE,
    *,
    probed: Mapping[str, Driver | None] | None = None,
    usbback: bool = False,
) -> Plan:
    """Return the plan that the input is, or that it makes.

    Args:
        probed: what a QEMU was found to have.
        usbback: whether the host has it, where no option says so.
    """
    if is_plan(data):
        made = translator.Plan.from_json(data)
        return made.bind(domid=planning.domid) if planning is not None and planning.domid else made
    options = {} if planning is None else msgspec.structs.asdict(planning)
    if options.get("usbback") is None:
        options["usbback"] = usbback
    return translator.plan(translator.load(data, file=name, max_size=max_size), probed=probed, **options)


def write(text: str | bytes, output: Path | None) -> None:
    """Write a command's result to the file, or to standard output."""
    data = text.encode() if isinstance(text, str) else text
    try:
        if output is None:
            click.echo(data, nl=False)
            sys.stdout.flush()
        else:
            output.write_bytes(data)
    except BrokenPipeError:
        raise  # whoever was reading has read enough: click ends quietly
    except OSError as error:
        usage(f"cannot write {'standard output' if output is None else repr(str(output))}: {error.strerror}")


def write_pieces(pieces: Iterable[str], output: Path | None) -> None:
    """Write a result as it comes, so that one of any size needs no room; a file gets the whole of it or nothing."""
    if output is None:
        for piece in pieces:
            write(piece, None)
        return
    try:
        if output.exists() and not output.is_file():
            with output.open("w", encoding="utf-8", newline="") as stream:  # a pipe, or /dev/null
                stream.writelines(pieces)
        else:
            replace_file(output, (piece.encode() for piece in pieces))
    except OSError as error:
        usage(f"cannot write {str(output)!r}: {error.strerror}")


def usage(message: str) -> NoReturn:
    """End with exit code 2: the command was not called as it must be."""
    raise click.UsageError(message)


def read_file(path: str | Path, max_size: int) -> bytes:
    """Return what a file holds, as `read` does."""
    with open(path, "rb") as stream:
        return read(stream, max_size)


def read(stream: Readable, max_size: int) -> bytes:
    """Return the whole of a plan, which may be many times its document's size, and what matters of a document."""
    data = stream.read(max_size + 1)
    return data + stream.read() if is_plan(data) else data


def replace_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Put new content, which may be read from what is there, in a file's place: whole or not at all; its mode stays.

    Raises:
        OSError: it could not be written, and is as it was.
    """
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as stream:
            if path.exists():
                os.fchmod(descriptor, path.stat().st_mode & 0o7777)
            stream.writelines(pieces)
            stream.flush()
            os.fsync(descriptor)
        os.replace(part, path)
    except BaseException:
        part.unlink()
        raise
