"""`translator diff`."""

from __future__ import annotations

import sys
from itertools import chain
from typing import TYPE_CHECKING

import click
import msgspec

import translator
from translator.cli import inputs, options, pairs
from translator.cli.options import Planning
from translator.cli.pairs import Pair
from translator.cli.sources import holds_many, why
from translator.cli.work import Blob, Item, Outcome, Session, Told, planned
from translator.comparison import review
from translator.comparison.compare import foreign, lacking
from translator.comparison.delta import Delta
from translator.comparison.review import Compared, Review
from translator.errors import EXIT_DIFFERENT, DocumentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from translator.cli.options import Connecting, Jobs, Reporting
    from translator.cli.report import Report
    from translator.comparison.delta import Change
    from translator.errors import Diagnostic
    from translator.planning.plan import Plan


@click.command(
    "diff",
    epilog=options.examples(
        "translator diff old.xml new.xml",
        "translator diff --guest-visible-only --git main..HEAD -- guests",
    ),
)
@click.argument("files", nargs=-1, metavar="OLD NEW", shell_complete=options.complete_file)
@click.option(
    "--git",
    "revisions",
    metavar="BASE..HEAD",
    help="Compare two revisions; the arguments are files and folders, after `--`, all when there are none.",
)
@click.option("--live", is_flag=True, help="Compare a running domain with the one FILE: what apply would change.")
@click.option("--guest-visible-only", is_flag=True, help="Only what the guest notices is a difference.")
@click.option(
    "--old-may-be-refused",
    is_flag=True,
    help="Where OLD or BASE alone is refused, tell it as repaired, rather than end with 3.",
)
@click.option("--format", "format", type=click.Choice(list(review.FORMS)), default="text", help="What to print.")
@options.output
@options.jobs
@options.planning
@options.connecting
@options.max_size
@options.reporting
def command(
    files: tuple[str, ...],
    revisions: str | None,
    live: bool,
    guest_visible_only: bool,
    old_may_be_refused: bool,
    format: str,
    output: Path | None,
    jobs: Jobs,
    planning: Planning,
    connecting: Connecting,
    max_size: int,
    reporting: Reporting,
) -> None:
    """Compare two documents, plans or folders of them by meaning; exit with 1 where there is a difference.

    \b
    translator diff OLD NEW
    translator diff --git BASE..HEAD -- PATH…
    translator diff --live FILE --domid N
    """
    if not live:
        options.refuse(options.Connecting.__struct_fields__, "no host is asked but with --live")
    report = reporting.report()
    if live and old_may_be_refused:
        inputs.usage("--live compares with a host, so --old-may-be-refused means nothing")
    comparison = Comparison(
        planning, max_size, guest_visible_only, old_may_be_refused=old_may_be_refused, pictures=format == "html"
    )
    if live and (jobs.elsewhere or jobs.since is not None):
        inputs.usage("--live asks a host, now: --jobs, --scheduler and --since do not go with it")
    with Session(comparison, jobs, report, output=output) as session:
        single = False
        if revisions is not None:
            if live:
                inputs.usage("--git compares two revisions, and --live compares with a host: take one of them")
            paths = pairs.of_revisions(revisions, files or (".",), report, max_size)
            found = session.results(map(_item, paths), lambda: None)
        elif live:
            if len(files) != 1:
                inputs.usage(f"--live compares one FILE with a host, and {len(files)} are named")
            found, single = _live(session, comparison, files[0], connecting), True
        else:
            if len(files) != 2:
                inputs.usage(f"diff compares OLD with NEW, and {len(files)} are named")
            two = _two(*files, report, max_size)
            found, single = session.results(map(_item, two), lambda: len(two)), not isinstance(two, pairs.Sides)
        first = next(found, None)
        told = first is not None and (not single or first.status != "refused" or format in review.FINDINGS)
        if report.failed and not told:
            report.exit()  # nothing was compared: "no difference" would not be true
        different = False

        def counted(found: Iterable[Compared]) -> Iterator[Compared]:
            nonlocal different
            for one in found:
                different |= whole.differs(one)
                yield one

        whole = Review(
            files=counted(found if first is None else chain((first,), found)),
            single=single,
            color=output is None and reporting.colors(sys.stdout),
            noticed_only=guest_visible_only,
            failed=lambda: report.code,
        )
        inputs.write_pieces(review.FORMS[format](whole), output)
    report.exit()
    if different:
        sys.exit(EXIT_DIFFERENT)


def _item(pair: Pair) -> Item:
    return Item(pair.path, (pair.old, pair.new))


def _two(old: str, new: str, report: Report, max_size: int) -> Sequence[Pair] | pairs.Sides:
    """Return what is compared: two files, if both can be read, or what two places hold."""
    if old == new == "-":
        inputs.usage("standard input can be one of the two")
    try:
        many = [name != "-" and holds_many(name) for name in (old, new)]
    except OSError as error:
        inputs.usage(f"cannot tell what is there: {why(error)}")
    if all(many):
        return pairs.Sides(old, new, report, max_size)
    if any(many):
        inputs.usage("a folder can be compared with a folder only")
    found = [one for name in (old, new) for one in inputs.found([name], report, max_size)]
    return [Pair(found[1].name, *found)] if len(found) == 2 else []


class Comparison(msgspec.Struct, frozen=True):
    """Compares one pair."""

    planning: Planning
    max_size: int
    noticed_only: bool
    old_may_be_refused: bool
    pictures: bool  # of both sides, for which the plans are needed

    def outcome(self, path: str, blobs: Sequence[Blob | None]) -> Outcome:
        """Return how the sides differ."""
        old, new = blobs
        told: list[Told] = []

        def plan(blob: Blob, *, warn: bool = False) -> Plan | None:
            """Return the plan. The old side's warnings are no news."""
            made, about = self.plan(blob)
            told.append(about if warn or made is None else msgspec.structs.replace(about, warnings=()))
            return made

        after = None if new is None else plan(new, warn=old is not None)
        same = old is not None and new is not None and old.data == new.data
        before = after if same else None if old is None else plan(old)
        refused = new is not None and after is None
        repaired = old is not None and before is None and not refused
        if old is not None and before is None and not same:
            told[-1] = _of_old(told[-1], old, blameless=repaired and self.old_may_be_refused)
        refusals = tuple(
            finding
            for one in told
            if one.error is not None or (repaired and one is told[-1])
            for finding in _refusals(one)
        )
        if refused or (repaired and not self.old_may_be_refused):
            found = Compared(path=path, status="refused")
        elif repaired:
            found = Compared(path=path, status="removed" if new is None else "repaired", new=after)
        else:
            found = self.compared(path, before, after)
        was = None if old is None or old.path in (None, path) else old.path
        if was is not None and found.status == "same":
            found = msgspec.structs.replace(found, status="renamed")
        found = msgspec.structs.replace(found, was=was, refusals=refusals)
        if not self.pictures:
            found = msgspec.structs.replace(found, old=None, new=None)
        return Outcome(path, found, tuple(told), found.status == "same" and all(one.is_nothing for one in told))

    def unchanged(self, path: str) -> Compared:
        """What was the same, and has not changed, is the same."""
        return Compared(path=path, status="same")

    def unread(self, path: str, told: Sequence[Told]) -> Compared:
        """What cannot be read cannot be compared."""
        return Compared(path=path, status="refused", refusals=tuple(chain.from_iterable(map(_refusals, told))))

    def plan(self, blob: Blob) -> tuple[Plan | None, Told]:
        """Return the plan of one side, and what is to be told of it."""
        return planned(blob, lambda data: inputs.plan_of(data, blob.name, self.planning, self.max_size))

    def compared(self, path: str, before: Plan | None, after: Plan | None) -> Compared:
        if before is after:  # nothing on either side that would have to be read, or one document
            return Compared(path=path, status="same", old=before, new=after)
        if before is None:
            return Compared(path=path, status="added", new=after)
        if after is None:
            return Compared(path=path, status="removed", old=before)
        return self.differing(path, before, after)

    def differing(self, path: str, before: Plan, after: Plan, further: tuple[Change, ...] = ()) -> Compared:
        delta = Delta((*translator.diff(before, after).changes, *further))
        if self.noticed_only:
            delta = Delta(tuple(change for change in delta.changes if change.guest_visible))
        return Compared(path=path, status="changed" if delta else "same", old=before, new=after, delta=delta)


def _of_old(told: Told, old: Blob, *, blameless: bool) -> Told:
    """Return what is to be told of an old side that is refused: as notes where that is no fault of the new one.

    What a revision has is told at the path that it has now, where a line would be another one.
    """
    found = _refusals(told)
    if old.path is not None:
        about = [f"line {one.line} of {old.name}" if one.line else old.name for one in found]
        found = tuple(
            msgspec.structs.replace(
                one, message=f"{one.message} (on the old side: {where})", file=old.path, line=None, column=None
            )
            for one, where in zip(found, about, strict=True)
        )
    name = old.path or old.name
    if blameless:
        return Told(
            name, told.is_plan, warnings=tuple(msgspec.structs.replace(one, severity="note") for one in found)
        )
    return msgspec.structs.replace(told, name=name, error=DocumentError(found))


def _refusals(told: Told) -> tuple[Diagnostic, ...]:
    """Return the findings for which a side is refused, or that say so."""
    if isinstance(told.error, OSError):
        return (inputs.finding_of(told.name, told.error),)
    found = told.warnings if told.error is None else told.error.diagnostics
    return tuple(one if one.file else msgspec.structs.replace(one, file=told.name) for one in found)


def _live(session: Session, comparison: Comparison, file: str, connecting: Connecting) -> Iterator[Compared]:
    """Yield what leads from a running domain to the document."""
    from translator.cli.hosts import domid_at, host_of, run
    from translator.live.observe import observe

    blob = Blob(*inputs.single(file, "diff --live", session.report, comparison.max_size))
    found: list[Compared] = []

    async def work() -> None:
        async with host_of(connecting) as host:
            domid = await domid_at(host, connecting, comparison.planning.domid)
            made, told = comparison.plan(blob)
            session.tell([told])
            if made is None:
                return
            topology = made.topology
            seen = await observe(
                host,
                domid=topology.domain.domid if domid is None else domid,
                layout=topology.layout,
                expect_qmp=any(one.type == "emulated" for one in topology.controllers),
                like=topology,
            )
            before = translator.Plan(topology=seen.topology, steps=())
            changes = {change.id for change in translator.diff(before, made).changes}
            halves = lacking(made, {id for id in seen.lacking if id not in changes})
            others = foreign({place: one.driver for place, one in seen.foreign.items()})
            found.append(comparison.differing(blob.name, before, made, (*halves, *others)))

    with session.report.document(None):
        run(work())
    yield from found
