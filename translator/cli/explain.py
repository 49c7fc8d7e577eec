"""`translator explain`."""

from __future__ import annotations

import click

from translator.catalog import CATALOG, text_of
from translator.cli import options
from translator.cli.inputs import usage


@click.command("explain", epilog=options.examples("translator explain T301"))
@click.argument("code", shell_complete=options.complete_word(CATALOG))
def command(code: str) -> None:
    """Print what a diagnostic code means."""
    text = text_of(code.upper())
    if text is None:
        usage(f"there is no code {code!r}; docs/diagnostics.md lists them")
    click.echo(text, nl=False)
