"""`translator models`."""

from __future__ import annotations

import click

from translator.cli.inputs import usage
from translator.models import MODELS, NAMES


@click.command("models")
@click.argument("models", nargs=-1, metavar="[MODEL]…")
def command(models: tuple[str, ...]) -> None:
    """Print the table of controller models."""
    unknown = [name for name in models if name not in NAMES]
    if unknown:
        usage(f"unknown model {unknown[0]!r}; known: {', '.join(MODELS)}")
    rows = [NAMES[name] for name in models] or list(MODELS.values())
    table = [("MODEL", "TYPE", "VERSION", "INTERFACE", "PORTS", "QEMU DRIVER", "HOT-PLUG")]
    for row in rows:
        ports = (
            str(row.ports.default) if row.ports.fixed else f"{row.ports.least}-{row.ports.most} ({row.ports.default})"
        )
        hotplug = "yes" if row.hotplug else "no"
        version = "-" if row.kind.version is None else str(row.kind.version)
        table.append((row.name, row.kind.type, version, row.interface, ports, row.driver or "-", hotplug))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
