"""`translator validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from translator.cli import inputs, options

if TYPE_CHECKING:
    from translator.cli.options import Reporting


@click.command(
    "validate",
    epilog=options.examples(
        "translator validate guest.xml",
        "translator validate --strict --diagnostics github guests",
    ),
)
@options.files
@options.max_size
@options.reporting
def command(files: tuple[str, ...], max_size: int, reporting: Reporting) -> None:
    """Check documents against the schema and for what they mean."""
    report = reporting.report()
    for name, data in inputs.documents(files, report, max_size):
        with report.document(name):
            report.warnings(inputs.plan_of(data, name, max_size=max_size).diagnostics, name)
    report.exit()
