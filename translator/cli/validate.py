"""`translator validate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from translator.cli import inputs, options
from translator.cli.work import Outcome, Session, planned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from translator.cli.options import Jobs, Reporting
    from translator.cli.work import Blob, Told


@click.command(
    "validate",
    epilog=options.examples(
        "translator validate guest.xml",
        "translator validate --strict --diagnostics github guests",
    ),
)
@options.files
@options.jobs
@options.max_size
@options.reporting
def command(files: tuple[str, ...], jobs: Jobs, max_size: int, reporting: Reporting) -> None:
    """Check documents against the schema and for what they mean."""
    report = reporting.report()
    with Session(Check(max_size), jobs, report, prints=False) as session:
        for _ in session.documents(files):
            pass
    report.exit()


class Check(msgspec.Struct, frozen=True):
    """Planning, of which nothing is kept but what there is to be told."""

    max_size: int

    def outcome(self, path: str, blobs: Sequence[Blob | None]) -> Outcome:
        """Return what is to be told of a document."""
        (blob,) = blobs
        assert blob is not None
        _, told = planned(blob, lambda data: inputs.plan_of(data, blob.name, max_size=self.max_size))
        return Outcome(path, None, (told,), settled=told.is_nothing)

    def unchanged(self, path: str) -> None:
        """Nothing is to be told again."""

    def unread(self, path: str, told: Sequence[Told]) -> None:
        """Nothing is kept of what could not be read."""
