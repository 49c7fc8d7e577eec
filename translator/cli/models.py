"""`translator models`."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import click

from translator.cli import options
from translator.cli.inputs import usage, write
from translator.registry import rows as registry
from translator.topology import Type

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Probing, Reporting
    from translator.registry.manual import Selection
    from translator.registry.models import DeviceKind, Model

FAMILIES = tuple(dict.fromkeys(row.family for row in registry.rows()))
VERSIONS = tuple(sorted({row.kind.version for row in registry.models() if row.kind.version is not None}))
NAMES = tuple(dict.fromkeys(name for row in registry.rows() for name in registry.names(row)))


@click.command(
    "models",
    epilog=options.examples(
        "translator models --family scsi",
        "translator models --type emulated --version 2",
        "translator models qemu-xhci --format json",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME]…", shell_complete=options.complete_word(NAMES))
@click.option("--family", type=click.Choice(FAMILIES), help="Only what plugs into this kind of controller.")
@click.option("--type", "type", type=click.Choice(get_args(Type)), help="Only models provided so.")
@click.option("--version", type=click.Choice([str(number) for number in VERSIONS]), help="Only of this generation.")
@click.option("--format", "format", type=click.Choice(["text", "json", "markdown"]), default="text")
@options.probing
@options.output
@options.reporting
def command(
    names: tuple[str, ...],
    family: str | None,
    type: str | None,
    version: str | None,
    format: str,
    probing: Probing,
    output: Path | None,
    reporting: Reporting,
) -> None:
    """Print the tables of controller models and device kinds; with a NAME, all that is known of it.

    A NAME is a model's, a device kind's or a QEMU driver's. With --probe, print which of them a running QEMU has,
    and in what it differs from the registry.
    """
    from translator.registry import manual

    selection = _named(names)
    devices = selection.devices if type is None and version is None else ()  # only a model has those
    selection = manual.Selection(
        tuple(
            row
            for row in selection.models
            if family in (None, row.family)
            and type in (None, row.kind.type)
            and version in (None, str(row.kind.version))
        ),
        tuple(kind for kind in devices if family in (None, kind.family)),
    )
    if not any(selection):
        usage("there is none of them")
    if probing.probe is not None:
        report = reporting.report()
        with report.document(None):
            write(_probed(probing, selection, format), output)
        report.exit()
    elif format == "json":
        write(manual.to_json(selection), output)
    elif format == "markdown":
        write(manual.markdown(selection), output)
    elif names:
        write(manual.detail(selection), output)
    else:
        # what a pair stands for comes first
        models = sorted(selection.models, key=lambda row: not row.canonical) if type and version else selection.models
        tables = [manual.table(models)] if models else []
        tables += [manual.device_table(selection.devices)] if selection.devices else []
        write("\n".join(tables), output)


def _probed(probing: Probing, selection: Selection, format: str) -> str:
    from translator.cli.hosts import with_monitor
    from translator.live.probe import survey
    from translator.live.survey import FORMATS

    if format not in FORMATS:
        usage(f"what a QEMU has is not printed as {format}")
    return FORMATS[format](with_monitor(probing, survey), selection)


def _named(names: tuple[str, ...]) -> Selection:
    """Return the rows that have one of the names, in the order of the names; all for none."""
    from difflib import get_close_matches

    from translator.registry.manual import Selection, everything

    if not names:
        return everything()
    for name in names:
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1)
            usage(f"unknown model {name!r}; " + (f"did you mean {near[0]!r}?" if near else "see: translator models"))
    models: list[Model] = []
    devices: list[DeviceKind] = []
    for name in names:
        models += [row for row in registry.models() if name in registry.names(row) and row not in models]
        devices += [row for row in registry.kinds() if name in registry.names(row) and row not in devices]
    return Selection(tuple(models), tuple(devices))
