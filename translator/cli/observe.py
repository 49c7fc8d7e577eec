"""`translator observe`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

import translator
from translator import render
from translator.cli import inputs, options
from translator.cli.hosts import domid_at, host_of, run

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Connecting, Reporting
    from translator.topology import Layout


@click.command("observe")
@options.domid
@options.layout
@click.option("--format", "format", type=click.Choice(["text", "json"]), default="text", help="What to print.")
@options.output
@options.connecting
@options.reporting
def command(
    domid: int | None,
    layout: Layout | None,
    format: str,
    output: Path | None,
    connecting: Connecting,
    reporting: Reporting,
) -> None:
    """Print what a running domain has: --domid or --name for Xen, --qmp alone for QEMU."""
    report = reporting.report()
    if domid is None and connecting.name is None and not connecting.qmp:
        inputs.usage("say which domain: --domid N or --name NAME for Xen, --qmp PATH for QEMU")

    async def work() -> None:
        async with host_of(connecting) as host:
            seen = await host.observe(domid=await domid_at(host, connecting, domid), layout=layout)
            inputs.write(render.FORMATS[format](translator.Plan(topology=seen, steps=())), output)

    with report.document(None):
        run(work())
    report.exit()
