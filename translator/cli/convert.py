"""`translator convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from translator.cli import inputs, options

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Reporting


@click.command("convert", epilog=options.examples("translator convert guest.cfg --to xml --output guest.xml"))
@options.file
@click.option("--to", "to", type=click.Choice(["xl", "xml"]), required=True, help="The language to put it into.")
@click.option("--keep-unknown", is_flag=True, help="Keep in <metadata> what domain XML has no place for.")
@options.output
@options.max_size
@options.reporting
def command(
    file: str, to: Literal["xl", "xml"], keep_unknown: bool, output: Path | None, max_size: int, reporting: Reporting
) -> None:
    """Put an xl.cfg into domain XML, or domain XML into an xl.cfg, and tell what there are no words for."""
    from translator import xlcfg
    from translator.document.validate import is_config

    report = reporting.report()
    name, data = inputs.single_document(file, "convert", report, max_size)
    if is_config(data, name) == (to == "xl"):
        inputs.usage(f"{name!r} is {'an xl.cfg' if to == 'xl' else 'domain XML'} already")
    if keep_unknown and to == "xl":
        inputs.usage("--keep-unknown goes with --to xml; the way back restores what it kept")
    with report.document(name):
        if to == "xml":
            converted = xlcfg.to_xml(data, file=name, keep_unknown=keep_unknown)
        else:
            converted = xlcfg.to_xl(data, file=name)
        report.warnings(converted.warnings, name)
        if not report.failed:
            inputs.write(converted.data, output)
    report.exit()
