"""`translator commit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from translator.cli import inputs, options
from translator.cli.hosts import state_of
from translator.errors import HostError, RollbackError
from translator.output.escape import visible

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Reporting


@click.command("commit", cls=options.NamingCommand, epilog=options.examples("translator commit --name guest"))
@options.domid
@click.option("--name", help="The domain's name.")
@options.state
@options.reporting
def command(domid: int | None, name: str | None, state: Path | None, reporting: Reporting) -> None:
    """Let what `apply --no-commit` has done stay."""
    from translator.saga.confirm import confirm, waiting
    from translator.saga.state import State

    report = reporting.report()
    with report.document(None):
        directory = State(state_of(state))
        fitting = [
            (found, found.content.intent.domain)
            for found in waiting(directory)
            if not isinstance(found.content, RollbackError)
            and domid in (None, found.content.intent.domain.domid)
            and name in (None, found.content.intent.domain.name)
        ]
        if len(fitting) > 1:
            told = ", ".join(str(domain.domid or domain.name) for _, domain in fitting)
            inputs.usage(f"several domains wait to be confirmed: {told}; say which: --domid N or --name NAME")
        if not fitting or not confirm(directory, fitting[0][0]):
            raise HostError(
                "T509",
                "no apply waits to be confirmed" if domid is None and name is None else "no such apply waits",
                "begin one with: translator apply --no-commit",
            )
        click.echo(visible(f"{fitting[0][1].name} stays as it is"))
    report.exit()
