"""What a command reads and writes: documents, plans, folders of them, standard streams."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import click
import msgspec

import translator
from translator.cli.sources import Input, below, is_archive, is_url, read, why
from translator.document.domain import MAX_SIZE
from translator.errors import EXIT_TERMINATED, Diagnostic
from translator.planning.plan import is_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from translator.cli.options import Planning
    from translator.cli.report import Report
    from translator.live.drivers import Driver
    from translator.planning.plan import Plan


def documents(files: Iterable[str], report: Report, max_size: int = MAX_SIZE) -> Iterator[tuple[str, bytes]]:
    """Yield each document with its name; a folder stands for every *.xml below it, sorted.

    What cannot be read is reported, and the others are read all the same. Of what is too large, no more is read
    than shows that it is.
    """
    for one in found(files, report, max_size):
        try:
            data = one.read(max_size)
        except OSError as error:
            unreadable(one.name, error, report)
        else:
            if is_plan(data):
                report.plans.add(one.name)
            yield one.name, data


def found(files: Iterable[str], report: Report, max_size: int) -> Iterator[Input]:
    """Yield each document: of a folder or an archive those in it, and standard input for `-`.

    What cannot be looked into is reported.
    """
    for file in files:
        if not file:
            report.unreadable(file, "a file's name is empty")
            continue
        empty = True
        try:
            here = Input(file, read(sys.stdin.buffer, max_size)) if file == "-" else None
            for _, one in below(file, max_size) if here is None else [("", here)]:
                empty = False
                yield one
        except OSError as error:
            unreadable(file, error, report)
        else:
            if empty:
                report.unreadable(file, nothing_below(file))


def count(files: Iterable[str]) -> int | None:
    """Return how many documents there are, if that can be told without opening anything."""
    try:
        number = 0
        for file in files:
            if is_url(file) or (is_archive(file) and not os.path.isdir(file)):
                return None
            number += sum(1 for _ in below(file, 0))
    except OSError:
        return None
    return number


def nothing_below(file: str) -> str:
    """Say that there are no documents where they are looked for."""
    return f"there is no *.xml {'in the archive' if is_archive(file) else 'below the folder'} {file!r}"


def unreadable(name: str, error: OSError, report: Report) -> None:
    """Report a file that cannot be read."""
    report.unreadable(name, finding_of(name, error).message)


def finding_of(name: str, error: OSError) -> Diagnostic:
    """Return what is told of a file that cannot be read."""
    return Diagnostic(code="T107", message=f"cannot read {name!r}: {why(error)}", file=name)


def single(file: str, command: str, report: Report, max_size: int) -> tuple[str, bytes]:
    """Return the one document that the command takes, with its name."""
    inputs = list(documents((file,), report, max_size))
    if report.failed:
        report.exit()
    if len(inputs) != 1:
        usage(f"{command} takes one document, and {file!r} gives {len(inputs)}")
    return inputs[0]


def single_document(file: str, command: str, report: Report, max_size: int) -> tuple[str, bytes]:
    """Return the one document that the command takes, with its name; a plan is none."""
    name, data = single(file, command, report, max_size)
    if is_plan(data):
        usage(f"{command} takes a document, and {name!r} is a plan")
    return name, data


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


def replace_file(path: Path, pieces: Iterable[bytes], mode: int = 0o666) -> None:
    """Put new content, which may be read from what is there, in a file's place: whole or not at all; its mode stays.

    `mode` is that of a new file, less the umask.

    Raises:
        OSError: it could not be written, and is as it was.
    """
    path = path.resolve()
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with _ending_in_order():
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
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


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Have SIGTERM end this process as an exit does, so that nothing half done stays."""
    import signal
    import threading

    owner = os.getpid()

    def end(number: int, frame: object) -> None:
        if os.getpid() != owner:  # a process that was begun meanwhile
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        sys.exit(EXIT_TERMINATED)

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
