"""`translator capabilities`."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import click

from translator.cli import options
from translator.cli.inputs import usage, write
from translator.document.parse import QEMU_MACHINES
from translator.registry import capabilities
from translator.registry.models import XEN_MACHINES
from translator.topology import Guest, Hypervisor

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Probing, Reporting


@click.command(
    "capabilities",
    epilog=options.examples("translator capabilities --virttype xen --guest pvh --format xml"),
)
@click.option("--virttype", type=click.Choice(get_args(Hypervisor)), default="xen", help="The domain's type.")
@click.option("--guest", type=click.Choice(get_args(Guest)), default="hvm", help="The guest's kind.")
@click.option("--arch", default="x86_64", help="The guest's architecture.")
@click.option("--machine", help="QEMU's machine type [default: the architecture's, or the probed QEMU's].")
@click.option("--format", "format", type=click.Choice(list(capabilities.FORMATS)), default="json")
@options.probing
@options.output
@options.reporting
def command(
    virttype: Hypervisor,
    guest: Guest,
    arch: str,
    machine: str | None,
    format: str,
    probing: Probing,
    output: Path | None,
    reporting: Reporting,
) -> None:
    """Print what a document may ask for: layouts, models, types, versions, limits; with --probe, on that QEMU."""
    if virttype != "xen" and guest != "hvm":
        usage(f"a domain of type {virttype} has no {guest} guests")
    report = reporting.report()
    with report.document(None):
        survey = None
        if probing.probe is not None:
            from translator.cli.hosts import with_monitor
            from translator.live import probe

            survey = with_monitor(probing, probe.survey)
        if virttype == "xen":
            default = XEN_MACHINES[guest]
        else:
            default = survey.machine if survey else QEMU_MACHINES.get(arch, "none")
        offer = capabilities.capabilities(
            capabilities.Kind(hypervisor=virttype, guest=guest, arch=arch, machine=machine or default),
            qemu=survey.version if survey else None,
            drivers=survey.drivers if survey else None,
        )
        write(capabilities.FORMATS[format](offer), output)
    report.exit()
