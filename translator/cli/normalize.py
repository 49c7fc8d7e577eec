"""`translator normalize`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from translator.cli import inputs, options
from translator.document.normalize import normalize

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Reporting


@click.command("normalize", epilog=options.examples("translator normalize guest.xml --output explicit.xml"))
@options.file
@options.output
@options.max_size
@options.reporting
def command(file: str, output: Path | None, max_size: int, reporting: Reporting) -> None:
    """Print the document with every USB controller, index, address and alias explicit, all else untouched."""
    report = reporting.report()
    name, data = inputs.single_document(file, "normalize", report, max_size)
    with report.document(name):
        report.warnings(inputs.plan_of(data, name, max_size=max_size).diagnostics, name)
        normal = normalize(data, file=name)
        if not report.failed:
            inputs.write(normal, output)
    report.exit()
