"""`translator sandbox`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from translator.cli import inputs, options
from translator.cli.hosts import run
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Reporting
    from translator.topology import HostDevice


def _selectors(context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> tuple[HostDevice, ...]:
    """Read which devices the host is to have."""
    from translator.errors import DocumentError
    from translator.hotplug.words import parse_selector

    try:
        return tuple(map(parse_selector, value))
    except DocumentError as error:
        raise click.BadParameter(error.diagnostics[0].message) from error


@click.command(
    "sandbox",
    epilog=options.examples(
        "translator sandbox guest.xml --directory /tmp/sandbox",
        "translator sandbox guest.xml --device 046d:c52b --device 0951:1666",
    ),
)
@click.argument("files", nargs=-1, metavar="[FILE]…", shell_complete=options.complete_file)
@click.option("--directory", type=options.PathType(file_okay=False), help="Where the sockets are made.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    callback=_selectors,
    metavar="VENDOR:PRODUCT",
    help="A USB device that the host has besides.",
)
@options.reporting
def command(
    files: tuple[str, ...], directory: Path | None, devices: tuple[HostDevice, ...], reporting: Reporting
) -> None:
    """Run the embedded host until interrupted, with a guest for each document; print how to reach it.

    The host has the USB and SCSI devices that the documents name, and those of --device; no others.
    """
    if directory is not None and not directory.is_dir():
        inputs.usage(f"there is no directory {str(directory)!r}: make it first, or name none")
    report = reporting.report()
    plans = []
    for name, data in inputs.documents(files, report):
        with report.document(name):
            plans.append(inputs.plan_of(data, name))
    if report.failed:
        report.exit()

    async def work() -> None:
        import asyncio

        from translator.hosts.sandbox import Sandbox

        async with Sandbox(directory) as embedded:
            guests = [embedded.make_host_for(made) for made in plans] or [embedded.add_guest("sandbox")]
            for device in devices:
                embedded.plug(device)
            for guest in guests:
                click.echo(
                    f"{guest.name}: --domid {guest.domid} --xenstore {embedded.xenstore_socket} "
                    + "".join(f"--qmp {_named(model, path)} " for model, path in guest.qmp_sockets.items())
                    + f"--sysfs {embedded.sysfs}"
                )
            sys.stdout.flush()
            await asyncio.Event().wait()

    with report.document(None):
        run(work(), stopped=0)
    report.exit()


def _named(model: str, path: Path) -> str:
    return str(path) if model == PRIMARY else f"{model}={path}"
