"""What `attach` and `detach` have in common: how they are called, the document that is kept in step, what is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from translator.cli import inputs
from translator.cli.hosts import domain_at, host_of, run
from translator.cli.progress import progress_of, would_do
from translator.output.escape import visible
from translator.topology import Controller

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from translator.cli.options import Moving
    from translator.cli.report import Report
    from translator.hotplug.attach import Given, Moved
    from translator.hotplug.growing import Part
    from translator.hotplug.wanted import Wanted


def move(
    moving: Moving, work: Callable[..., Awaitable[Moved]], change: Callable[..., bytes], *, verb: str, done: str
) -> None:
    """Let the devices come or go, and tell which did.

    Args:
        work: `translator.hotplug.attach.attach` or `detach`, with the arguments that are its own.
        change: what does the same to a document: `translator.document.save.add` or `remove`.
        verb: the command's name.
        done: the verb of what is done.
    """
    report = moving.reporting.report()
    given = _given(moving.devices, verb, report, moving.max_size)

    async def carry_out() -> None:
        document = None if moving.save is None else _Saved(moving.save, change, moving.max_size)
        async with host_of(moving.connecting, moving.journaling) as host:
            with progress_of(moving.journaling.progress, report.for_people) as progress:
                moved = await work(
                    host,
                    given,
                    domid=await domain_at(host, moving.connecting, moving.domain),
                    layout=moving.connecting.layout,
                    dry_run=moving.dry_run,
                    on_step=progress.tell,
                    before=None if document is None else document.change,
                )
        report.warnings(moved.applied.notes, None)
        if moving.dry_run:
            click.echo(would_do(moved.applied.steps), nl=False)
            return
        if document is not None:
            document.write()
        for part in moved.parts:
            click.echo(visible(f"{done}: {_place(part)}"))

    with report.document(None):
        run(carry_out())
    report.exit()


class _Saved:
    """A document that gets what is attached, or loses what is detached."""

    def __init__(self, path: Path, change: Callable[..., bytes], max_size: int) -> None:
        self.path = path
        self._change = change
        try:
            self.text = path.read_bytes()[: max_size + 1]
        except OSError as error:
            inputs.usage(f"cannot read {str(path)!r}: {error.strerror}")

    def change(self, wanted: Wanted) -> None:
        """Take up what comes, or leave out what goes; refused before anything is done."""
        self.text = self._change(self.text, wanted, file=str(self.path))

    def write(self) -> None:
        """Put the new text in the file's place, whole or not at all."""
        try:
            inputs.replace_file(self.path, (self.text,))
        except OSError as error:
            inputs.usage(f"cannot write {str(self.path)!r}: {error.strerror}")


def _given(devices: Sequence[str], verb: str, report: Report, max_size: int) -> list[Given]:
    """Return words as they are, and files as their bytes: `-`, and what has a slash or ends in .xml."""
    from translator.hotplug.attach import Given

    given = []
    for device in devices:
        if device == "-" or "/" in device or device.endswith(".xml"):
            name, data = inputs.single_document(device, verb, report, max_size)
            given.append(Given(data, name))
        else:
            given.append(Given(device))
    report.exit()
    return given


def _place(part: Part) -> str:
    id = f"  [{part.id}]" if part.id else ""
    of = "" if part.family == "usb" else f"{part.family} "
    if isinstance(part, Controller):
        ports = f", {part.ports} ports" if part.family == "usb" else ""
        return f"{of}controller {part.index}: {part.model}{ports}{id}"
    named = part.host or part.scsi
    what = f"host device {named.selector}" if named else part.kind
    seat = "unit" if of else "port"
    return f"{what}, {seat} {part.port} of {of}controller {part.controller}{id}"
