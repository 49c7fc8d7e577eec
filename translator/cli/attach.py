"""`translator attach`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from translator.cli import inputs, options
from translator.cli.hosts import domain_at, host_of, run
from translator.cli.progress import progress_of
from translator.topology import Controller, Place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from translator.attach import Given
    from translator.cli.options import Journaling, Reaching, Reporting
    from translator.growing import Part
    from translator.hotplug import Wanted
    from translator.outcome import Applied
    from translator.report import Report


@click.command(
    "attach",
    epilog=options.examples(
        "translator attach guest hostdev:046d:c52b",
        "translator attach guest tablet --save guest.xml",
    ),
)
@options.domain
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE…", shell_complete=options.complete_file)
@click.option("--controller", type=click.IntRange(0), help="The controller that a device goes to.")
@click.option("--port", help="The port of it, such as 2 or 2.1.")
@click.option("--no-auto-controller", is_flag=True, help="Let no controller come along where no port is free.")
@click.option(
    "--save",
    type=options.PathType(exists=True, dir_okay=False),
    metavar="FILE.xml",
    help="Add it to this document too.",
)
@click.option("--dry-run", is_flag=True, help="Look at the host, and print the steps that would be carried out.")
@options.reaching
@options.journaling
@options.max_size
@options.reporting
def command(
    domain: str,
    devices: tuple[str, ...],
    controller: int | None,
    port: str | None,
    no_auto_controller: bool,
    save: Path | None,
    dry_run: bool,
    connecting: Reaching,
    journaling: Journaling,
    max_size: int,
    reporting: Reporting,
) -> None:
    """Attach devices to a running domain, named by id, name or UUID.

    DEVICE is a file with a fragment of domain XML (or -), or one of hostdev:1.8, hostdev:1-1.2, hostdev:046d:c52b,
    tablet, mouse, keyboard, hub, controller:MODEL,ports=N.
    """
    report = reporting.report()
    if port is not None and not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", port):
        inputs.usage(f"{port!r} is not a port, such as 2 or 2.1")
    if port is not None and controller is None:
        inputs.usage("--port counts on a controller; name it: --controller N")
    place = None if controller is None else Place(controller, port or "")
    given = given_of(devices, report, max_size)

    async def work() -> None:
        from translator.attach import attach

        document = Saved(save, max_size) if save is not None else None
        async with host_of(connecting, journaling) as host:
            with progress_of(journaling.progress, report.for_people) as progress:
                moved = await attach(
                    host,
                    given,
                    domid=await domain_at(host, connecting, domain),
                    layout=connecting.layout,
                    place=place,
                    auto_controller=not no_auto_controller,
                    dry_run=dry_run,
                    on_step=progress.tell,
                    before=None if document is None else document.add,
                )
        if document is not None and not dry_run:
            document.write()
        tell(moved.parts, moved.applied, "attached", dry_run=dry_run)

    with report.document(None):
        run(work())
    report.exit()


class Saved:
    """A document that gets what is attached, or loses what is detached."""

    def __init__(self, path: Path, max_size: int) -> None:
        self.path = path
        try:
            self.text = path.read_bytes()[: max_size + 1]
        except OSError as error:
            inputs.usage(f"cannot read {str(path)!r}: {error.strerror}")

    def add(self, wanted: Wanted) -> None:
        """Take up what comes; refused before anything is done."""
        from translator.save import add

        self.text = add(self.text, wanted, file=str(self.path))

    def remove(self, wanted: Wanted) -> None:
        """Leave out what goes."""
        from translator.save import remove

        self.text = remove(self.text, wanted, file=str(self.path))

    def write(self) -> None:
        """Put the new text in the file's place, whole or not at all."""
        try:
            inputs.replace_file(self.path, (self.text,))
        except OSError as error:
            inputs.usage(f"cannot write {str(self.path)!r}: {error.strerror}")


def given_of(devices: Sequence[str], report: Report, max_size: int) -> list[Given]:
    """Return words as they are, and files as their bytes: `-`, and what has a slash or ends in .xml."""
    from translator.attach import Given

    given = []
    for device in devices:
        if device == "-" or "/" in device or device.endswith(".xml"):
            name, data = inputs.single(device, "a device", report, max_size)
            given.append(Given(data, name))
        else:
            given.append(Given(device))
    report.exit()
    return given


def tell(parts: Sequence[Part], applied: Applied, verb: str, *, dry_run: bool) -> None:
    """Print what came or went, and where."""
    if dry_run:
        click.echo("".join(f"{step.target:8}  {step.id}: {step.why}\n" for step in applied.steps), nl=False)
        count = len(applied.steps)
        click.echo(f"{count} step{'' if count == 1 else 's'} would be carried out")
        return
    for part in parts:
        click.echo(f"{verb}: {_place(part)}")


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
