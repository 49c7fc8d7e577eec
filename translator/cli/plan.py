"""`translator plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from translator import render
from translator.cli import inputs, options

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Planning, Probing, Reporting


@click.command("plan")
@options.files
@click.option("--format", "format", type=click.Choice(list(render.FORMATS)), default="text", help="What to print.")
@options.output
@options.probing
@options.planning
@options.max_size
@options.reporting
def command(
    files: tuple[str, ...],
    format: str,
    output: Path | None,
    probing: Probing,
    planning: Planning,
    max_size: int,
    reporting: Reporting,
) -> None:
    """Print what would be done for each document."""
    report = reporting.report()
    texts = []
    for name, data in inputs.documents(files, report, max_size):
        with report.document(name):
            made = inputs.plan_of(data, name, planning, max_size)
            report.warnings(made.diagnostics, name)
            if probing.probe is not None:
                from translator.cli.hosts import compare

                report.warnings(compare(made, probing), name)
            texts.append(render.FORMATS[format](made))
    separator = "\n" if format == "text" else ""
    inputs.write(separator.join(texts), output)
    report.exit()
