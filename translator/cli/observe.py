"""`translator observe`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import translator
from translator.cli import inputs, options
from translator.cli.hosts import domid_at, host_of, run
from translator.errors import EXIT_HOST
from translator.output import render

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Reaching, Reporting
    from translator.hosts.sysfs import Sysfs
    from translator.live.observe import Observation


@click.command(
    "observe",
    cls=options.NamingCommand,
    epilog=options.examples(
        "translator observe --name guest",
        "translator observe --qmp /run/qemu/guest.sock --format json",
    ),
)
@options.domid
@click.option(
    "--format",
    "format",
    type=click.Choice(["text", "json", "svg", "dot"]),
    default="text",
    help="What to print: a tree with states and names, JSON as `plan` prints it, or a picture.",
)
@click.option("--watch", is_flag=True, help="Print it again whenever it changes, until interrupted.")
@options.output
@options.looking
@options.reporting
def command(
    domid: int | None, format: str, watch: bool, output: Path | None, connecting: Reaching, reporting: Reporting
) -> None:
    """Print what a running domain has: --domid or --name for Xen, --qmp alone for QEMU."""
    report = reporting.report()
    if domid is None and connecting.name is None and not connecting.qmp:
        inputs.usage("say which domain: --domid N or --name NAME for Xen, --qmp PATH for QEMU")

    def show(seen: Observation, sysfs: Sysfs) -> str:
        if format != "text":
            return render.FORMATS[format](translator.Plan(topology=seen.topology, steps=()))
        from translator.hosts.usbids import names_of

        return render.observed(seen, names_of([one.host for one in seen.topology.devices if one.host], sysfs))

    async def work() -> None:
        from translator.hotplug.watch import observations
        from translator.live.observe import observe

        async with host_of(connecting) as host:
            number = await domid_at(host, connecting, domid)
            if not watch:
                inputs.write(show(await observe(host, domid=number, layout=connecting.layout), host.sysfs), output)
                return
            async for seen in observations(host, domid=number, layout=connecting.layout):
                inputs.write(show(seen, host.sysfs) + ("\n" if format == "text" else ""), output)

    with report.document(None):
        run(work(), stopped=0 if watch else EXIT_HOST)
    report.exit()
