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


@click.command("sandbox", epilog=options.examples("translator sandbox guest.xml --directory /tmp/sandbox"))
@click.argument("files", nargs=-1, metavar="[FILE]…", shell_complete=options.complete_file)
@click.option("--directory", type=options.PathType(file_okay=False), help="Where the sockets are made.")
@options.reporting
def command(files: tuple[str, ...], directory: Path | None, reporting: Reporting) -> None:
    """Run the embedded host until interrupted, with a guest for each document; print how to reach it."""
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
