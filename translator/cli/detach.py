"""`translator detach`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from translator.cli import options
from translator.cli.attach import Saved, given_of, tell
from translator.cli.hosts import domain_at, host_of, run
from translator.cli.progress import progress_of

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Journaling, Reaching, Reporting


@click.command(
    "detach",
    epilog=options.examples("translator detach guest hostdev:046d:c52b", "translator detach guest 1:2 controller:2"),
)
@options.domain
@click.argument("devices", nargs=-1, required=True, metavar="DEVICE…", shell_complete=options.complete_file)
@click.option("--force", is_flag=True, help="Do not wait for the guest and the backend to let go of a controller.")
@click.option(
    "--save",
    type=options.PathType(exists=True, dir_okay=False),
    metavar="FILE.xml",
    help="Take it out of this document too.",
)
@click.option("--dry-run", is_flag=True, help="Look at the host, and print the steps that would be carried out.")
@options.reaching
@options.journaling
@options.max_size
@options.reporting
def command(
    domain: str,
    devices: tuple[str, ...],
    force: bool,
    save: Path | None,
    dry_run: bool,
    connecting: Reaching,
    journaling: Journaling,
    max_size: int,
    reporting: Reporting,
) -> None:
    """Detach devices and controllers from a running domain, named by id, name or UUID.

    DEVICE is an id in QEMU or an alias, a port such as 1:2, controller:1, or what it was attached by: a word or a
    file with a fragment of domain XML. What stands on a controller or a hub goes with it.
    """
    report = reporting.report()
    given = given_of(devices, report, max_size)

    async def work() -> None:
        from translator.attach import detach

        document = Saved(save, max_size) if save is not None else None
        async with host_of(connecting, journaling) as host:
            with progress_of(journaling.progress, report.for_people) as progress:
                moved = await detach(
                    host,
                    given,
                    domid=await domain_at(host, connecting, domain),
                    layout=connecting.layout,
                    force=force,
                    dry_run=dry_run,
                    on_step=progress.tell,
                    before=None if document is None else document.remove,
                )
        if document is not None and not dry_run:
            document.write()
        tell(moved.parts, moved.applied, "detached", dry_run=dry_run)

    with report.document(None):
        run(work())
    report.exit()
