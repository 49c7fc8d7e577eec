"""`translator diff`."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

import translator
from translator import review
from translator.cli import inputs, options, pairs
from translator.cli.pairs import Pair
from translator.compare import foreign, lacking
from translator.delta import Delta
from translator.review import Compared, Review

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from translator.cli.options import Connecting, Planning, Reporting
    from translator.delta import Change
    from translator.plan import Plan
    from translator.report import Report

EXIT_DIFFERENT = 1


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
@click.option("--format", "format", type=click.Choice(list(review.FORMS)), default="text", help="What to print.")
@options.output
@options.planning
@options.connecting
@options.max_size
@options.reporting
def command(
    files: tuple[str, ...],
    revisions: str | None,
    live: bool,
    guest_visible_only: bool,
    format: str,
    output: Path | None,
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
    report = reporting.report()
    comparison = _Comparison(report, planning, max_size, guest_visible_only)
    single = False
    if revisions is not None:
        if live:
            inputs.usage("--git compares two revisions, and --live compares with a host: take one of them")
        found = comparison.compared(pairs.of_revisions(revisions, files or (".",), report, max_size))
    elif live:
        if len(files) != 1:
            inputs.usage(f"--live compares one FILE with a host, and {len(files)} are named")
        found, single = comparison.live(files[0], connecting), True
    else:
        if len(files) != 2:
            inputs.usage(f"diff compares OLD with NEW, and {len(files)} are named")
        folders = [Path(name).is_dir() for name in files]
        if all(folders):
            found = comparison.compared(pairs.of_folders(Path(files[0]), Path(files[1]), report, max_size))
        elif any(folders):
            inputs.usage("a folder can be compared with a folder only")
        else:
            found, single = comparison.compared(comparison.two(*files)), True
    first = next(found, None)
    if report.failed and (first is None or (single and first.status == "refused")):
        report.exit()  # nothing was compared: "no difference" would not be true
    results = found if first is None else chain((first,), found)
    color = output is None and reporting.colors(sys.stdout)
    inputs.write_pieces(review.FORMS[format](Review(files=results, single=single, color=color)), output)
    report.exit()
    if comparison.different:
        sys.exit(EXIT_DIFFERENT)


class _Comparison:
    """Compares one pair after the other, and remembers whether there was a difference."""

    def __init__(self, report: Report, planning: Planning, max_size: int, noticed_only: bool) -> None:
        self.report = report
        self.planning = planning
        self.max_size = max_size
        self.noticed_only = noticed_only
        self.different = False

    def two(self, old: str, new: str) -> Iterator[Pair]:
        """Yield the pair of two files, if both can be read."""
        if old == new == "-":
            inputs.usage("standard input can be one of the two")
        found = [next(iter(inputs.documents([name], self.report, self.max_size)), None) for name in (old, new)]
        if found[0] is not None and found[1] is not None:
            yield Pair(new, pairs.Blob(*found[0]), pairs.Blob(*found[1]))

    def compared(self, found: Iterable[Pair]) -> Iterator[Compared]:
        for path, old, new in found:
            if old is None and new is None:
                yield Compared(path=path, status="same")
            elif old is not None and new is not None:
                yield self.both(path, old, new)
            else:
                one = old or new
                assert one is not None, "of the two"
                made = self.plan(one)
                if made is None:
                    yield Compared(path=path, status="refused")
                elif old is not None:
                    self.different = True
                    yield Compared(path=path, status="removed", old=made)
                else:
                    self.different = True
                    yield Compared(path=path, status="added", new=made)

    def both(self, path: str, old: pairs.Blob, new: pairs.Blob) -> Compared:
        after = self.plan(new, warn=True)
        before = after if old.data == new.data else self.plan(old)
        if before is None or after is None:
            return Compared(path=path, status="refused")
        if before is after:
            return Compared(path=path, status="same", old=before, new=after)
        return self.differing(path, before, after)

    def differing(self, path: str, before: Plan, after: Plan, further: tuple[Change, ...] = ()) -> Compared:
        delta = Delta((*translator.diff(before, after).changes, *further))
        if self.noticed_only:
            delta = Delta(tuple(change for change in delta.changes if change.guest_visible))
        if delta:
            self.different = True
        return Compared(path=path, status="changed" if delta else "same", old=before, new=after, delta=delta)

    def plan(self, blob: pairs.Blob, *, warn: bool = False) -> Plan | None:
        """Return the plan; None, with findings, of what is refused. The old side's warnings are no news."""
        with self.report.document(blob.name):
            made = inputs.plan_of(blob.data, blob.name, self.planning, self.max_size)
            if warn:
                self.report.warnings(made.diagnostics, blob.name)
            return made
        return None

    def live(self, file: str, connecting: Connecting) -> Iterator[Compared]:
        """Yield what leads from a running domain to the document."""
        from translator.cli.hosts import domid_at, host_of, run
        from translator.observe import observe

        name, data = inputs.single(file, "diff --live", self.report, self.max_size)
        found: list[Compared] = []

        async def work() -> None:
            async with host_of(connecting) as host:
                domid = await domid_at(host, connecting, self.planning.domid)
                blob = pairs.Blob(name, data)
                made = self.plan(blob, warn=True)
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
                told = {change.id for change in translator.diff(before, made).changes}
                halves = lacking(made, {id for id in seen.lacking if id not in told})
                found.append(
                    self.differing(
                        name,
                        before,
                        made,
                        (*halves, *foreign({place: one.driver for place, one in seen.foreign.items()})),
                    )
                )

        with self.report.document(None):
            run(work())
        yield from found
