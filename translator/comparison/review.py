"""What a comparison found, for those who decide on it: text, JSON, Markdown, JUnit and SARIF; `page` has HTML.

Each form is a generator over the files compared, one at a time: a folder of any size is told as it is read, and what
is kept of a file is what has to be told of it at the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

import click
import msgspec

from translator.comparison.delta import FORMAT, REQUIREMENTS, Delta, Summary
from translator.errors import EXIT_DIFFERENT, Diagnostic
from translator.output import escape
from translator.planning.plan import Plan
from translator.topology import Controller, Device

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from translator.comparison.delta import Change, Field, Requires
    from translator.errors import Source
    from translator.output.ci import Run

Status = Literal["same", "changed", "renamed", "added", "removed", "repaired", "refused"]

SIGNS: Mapping[str, str] = {"add": "+", "remove": "-", "change": "~", "move": "→"}
_COLORS: Mapping[str, str] = {"add": "green", "remove": "red", "change": "yellow", "move": "cyan"}
_LONGEST_COMMENT = 60_000  # characters; GitHub takes 65,536 in a comment
NOT_COMPARED = "Not compared: memory, vcpus, and elements that no plan translates."
MARKER = "<!-- translator-diff -->"  # by which a bot finds the comment to update


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One file of either side: its path, and the plans and what differs, where it is not refused.

    `was` is the path that it had on the old side, where that is another one: `renamed` says that nothing else
    differs. Of what is `repaired`, the old side was refused. `refusals` are the findings about a side that was.
    """

    path: str
    status: Status
    was: str | None = None
    refusals: tuple[Diagnostic, ...] = ()
    old: Plan | None = None
    new: Plan | None = None
    delta: Delta = Delta(())

    @property
    def noticed(self) -> bool:
        """Whether a guest notices. One whose document comes, goes or moves is none that runs on."""
        return self.delta.guest_visible

    @property
    def told(self) -> str:
        """What became of the file, in words."""
        if self.was is None:
            return self.status
        moved = f"renamed from {self.was}"
        return moved if self.status == "renamed" else f"{moved}, {self.status}"


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared: `single` is one file with another, and then there are no paths to tell of.

    `noticed_only` says that only what a guest notices is a difference. `failed` returns the exit code that something
    other than a difference has led to; it is asked when all files have been compared.
    """

    files: Iterable[Compared]
    single: bool
    color: bool = False
    noticed_only: bool = False
    failed: Callable[[], int] = lambda: 0

    def differs(self, one: Compared) -> bool:
        """Tell whether that is a difference, and the exit code 1."""
        return one.status == "changed" or (not self.noticed_only and one.status not in ("same", "refused"))


class Tally:
    """Counts what passes by."""

    def __init__(self) -> None:
        self.files: dict[Status, int] = dict.fromkeys(get_args(Status), 0)
        self.changes = Summary()
        self.requires: Requires = "none"

    def count(self, one: Compared) -> None:
        self.files[one.status] += 1
        if one.delta:
            self.changes += one.delta.summary
            self.requires = max(self.requires, one.delta.requires, key=REQUIREMENTS.index)

    @property
    def total(self) -> int:
        changes = self.changes
        return changes.add + changes.remove + changes.change + changes.move

    def sentence(self) -> str:
        """Say how much there is of what."""
        return _sentence(self.changes, self.requires)

    def about_files(self) -> str:
        """Say how many files are how."""
        told = [f"{count} {'the same' if name == 'same' else name}" for name, count in self.files.items() if count]
        return f"{_count(sum(self.files.values()), 'file')}: {', '.join(told) or 'none'}"

    def headline(self) -> str:
        """Say all in one line: "no difference" only where there is none, within documents or of them."""
        whole = [f"{count} {name}" for name, count in self.files.items() if count and name not in ("same", "changed")]
        told = [self.sentence()] if self.total or not whole else []
        return ". ".join([*told, *(["Documents: " + ", ".join(whole)] if whole else [])])


def sentence(delta: Delta) -> str:
    """Say how much there is of what."""
    return _sentence(delta.summary, delta.requires)


def _sentence(changes: Summary, requires: Requires) -> str:
    names = ("add", "remove", "change", "move")
    what = ", ".join(f"{getattr(changes, name)} to {name}" for name in names if getattr(changes, name))
    if not what:
        return "no difference"
    noticed = f"guests notice {changes.guest_visible}" if changes.guest_visible else "no guest notices"
    needs = {"none": "nothing to be done", "hot-plug": "hot-plug", "restart": "a restart"}[requires]
    return f"{what}; {noticed}; requires {needs}"


# What a change is called


def headline(change: Change) -> str:
    """Return what a change is about; names stand as they are, for the form to escape."""
    part = change.before if change.after is None else change.after
    if isinstance(part, Device):
        subject: str = part.kind if part.host is None else f"{part.kind} {part.host.selector}"
        return f"{subject} on {_place(part)}"
    if isinstance(part, Controller):
        ports = f", {_count(part.ports, 'port')}" if change.action in ("add", "remove") and part.ports else ""
        return f"{part.family} controller {part.index}: {part.model}{ports}"
    if change.what == "domain":
        return f"domain {part['name']}"
    if change.what == "device":  # of a kind that only QEMU knows
        return f"{part['driver']} on {change.family} controller {part['controller']} port {part['port']}"
    return change.id if "why" in part else f"PCI bus {change.id.rpartition(':')[2]}"


def happened(change: Change) -> str:
    """Return what became of what a change is about, with the facts that differ."""
    told = "; ".join(f"{name}: {before} → {after}" for name, before, after in map(facts, change.fields))
    words = {"add": "added", "remove": "removed", "change": "changed", "move": "moved"}[change.action]
    return f"{headline(change)} was {words}" + (f" ({told})" if told else "")


def _place(device: Device) -> str:
    return f"{device.family} controller {device.controller} port {device.port}"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def facts(field: Field) -> tuple[str, str, str]:
    """Return a fact's name, and what it was and is, in words."""
    return field.name, _value(field.before), _value(field.after)


def noticed_first(changes: Iterable[Change]) -> list[Change]:
    """Return the changes that the guest notices before the others."""
    return sorted(changes, key=lambda change: not change.guest_visible)


def source(change: Change) -> Source | None:
    """Return where in the new document it stands; None for what is not there."""
    return change.after.source if isinstance(change.after, (Controller, Device)) else None


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


# Text


def text(review: Review) -> Iterator[str]:
    """Tell each change on a line, with the facts that differ below it."""

    def styled(words: str, **style: Any) -> str:
        return click.style(words, **style) if review.color else words

    tally = Tally()
    for one in review.files:
        tally.count(one)
        if one.status == "same":
            continue
        if not review.single:
            yield styled(f"{escape.visible(f'{one.path}: {one.told}')}\n", bold=True)
        for change in one.delta.changes:
            yield from (f"  {line}\n" for line in _change(change, styled))
    if not review.single:
        yield f"{tally.about_files()}\n"
    if review.single or tally.total:
        yield f"{tally.sentence()}\n"


def _change(change: Change, styled: Callable[..., str]) -> Iterator[str]:
    color = _COLORS[change.action]
    notes = f"guest notices: {change.reason}" if change.reason else "backend only"
    place = source(change)
    where = f" (line {place.line})" if place else ""
    sign = styled(SIGNS[change.action], fg=color, bold=True)
    note = styled(f"[{notes}; requires {change.needs}]", bold=change.guest_visible, dim=not change.guest_visible)
    yield f"{sign} {styled(escape.visible(headline(change)), fg=color)}{where}  {note}"
    for field in change.fields:
        name, before, after = map(escape.visible, facts(field))
        yield f"    {name}: {before} → {after}"


# JSON


def to_json(review: Review) -> Iterator[str]:
    """Give one document in the contract's form; the changes of several files tell theirs."""
    tally = Tally()
    differing: list[dict[str, Any]] = []
    yield f'{{\n  "format": "{FORMAT}",\n  "changes": ['
    between = "\n"
    for one in review.files:
        tally.count(one)
        if not review.single and one.status != "same":
            was = {} if one.was is None else {"was": one.was}
            differing.append({"path": one.path, "status": one.status, **was, "summary": one.delta.summary})
        for change in one.delta.changes:
            wire = msgspec.to_builtins(change) | ({} if review.single else {"file": one.path})
            yield between + _indented(wire, 4)
            between = ",\n"
    yield "]" if between == "\n" else "\n  ]"
    summary = msgspec.to_builtins(tally.changes)
    if not review.single:
        yield f',\n  "files": {_indented(differing, 2).lstrip()}'
        summary |= {"files": tally.files}
    yield f',\n  "summary": {_indented(summary, 2).lstrip()}\n}}\n'


def _indented(value: Any, by: int) -> str:
    indent = " " * by
    return indent + msgspec.json.format(msgspec.json.encode(value), indent=2).decode().replace("\n", f"\n{indent}")


# Markdown


def markdown(review: Review) -> Iterator[str]:
    """Give a comment for a merge request; what would make it too long is counted and left out."""
    tally = Tally()
    pieces: dict[bool, list[str]] = {True: [], False: []}  # what guests notice first: a reader may stop there
    length = left_out = 0
    for one in review.files:
        tally.count(one)
        if one.status == "same":
            continue
        piece = _markdown_file(one, single=review.single)
        if length + len(piece) > _LONGEST_COMMENT:
            left_out += 1
        else:
            length += len(piece)
            pieces[one.noticed].append(piece)
    yield f"{MARKER}\n"
    yield f"**USB hardware:** {tally.headline()}\n"
    if not review.single:
        yield f"\n{tally.about_files()}\n"
    yield from (*pieces[True], *pieces[False])
    if left_out:
        yield f"\n… and {_count(left_out, 'more file')}, left out here for its length.\n"
    yield f"\n*{NOT_COMPARED}*\n"


def _markdown_file(one: Compared, *, single: bool) -> str:
    was = "" if one.was is None else f"renamed from {escape.code(one.was)}, "
    lines = [] if single else [f"#### {escape.code(one.path)}: {(was + one.status).removesuffix(', renamed')}", ""]
    if one.delta:
        lines += ["| | what | change | guest notices | requires |", "|---|---|---|---|---|"]
        for change in noticed_first(one.delta.changes):
            told = (
                f"{escape.code(name)} {escape.code(before)} → {escape.code(after)}"
                for name, before, after in map(facts, change.fields)
            )
            noticed = f"**{change.reason}**" if change.reason else "no"
            cells = (f"`{SIGNS[change.action]}`", escape.code(headline(change)), "<br>".join(told), noticed)
            lines.append(f"| {' | '.join(cells)} | {change.needs} |")
    return "\n" + "\n".join(lines).rstrip() + "\n"


# SARIF and JUnit: changes as findings


def findings(one: Compared) -> Iterator[Diagnostic]:
    """Give each change as a finding at its line of the new document, or of the file where it has none."""
    for finding in one.refusals:
        yield msgspec.structs.replace(finding, file=one.path)
    if one.was is not None or one.status in ("added", "removed", "repaired"):
        what = "this domain was " + escape.visible(one.told.removesuffix(", changed"))
        yield Diagnostic(code="T372", severity="warning", message=what, file=one.path)
    for change in one.delta.changes:
        noticed = f"the guest notices: {change.reason}" if change.reason else "the guest does not notice"
        place = source(change)
        yield Diagnostic(
            code="T370" if change.guest_visible else "T371",
            severity="warning" if change.guest_visible else "note",
            message=escape.visible(f"{happened(change)}; {noticed}; requires {change.needs}"),
            file=one.path,
            line=place.line if place else None,
            column=place.column if place else None,
        )


def sarif(review: Review) -> Iterator[str]:
    """Give a SARIF log with a result for each change."""
    from translator.output import ci

    yield ci.sarif(_run(review))


def junit(review: Review) -> Iterator[str]:
    """Give a test suite with a case for each file, which fails where there is a difference, or it was refused."""
    from translator.output import ci

    yield ci.junit(_run(review, failing=True))


def _run(review: Review, *, failing: bool = False) -> Run:
    """Return what was found as a run; `failing`: each difference as an error."""
    from translator.output.ci import Run

    files: list[str] = []
    found: list[Diagnostic] = []
    code = 0
    for one in review.files:
        files.append(one.path)
        differs = review.differs(one)
        for finding in findings(one):
            fails = failing and differs and finding.code in ("T370", "T371", "T372")
            found.append(msgspec.structs.replace(finding, severity="error") if fails else finding)
        if differs:
            code = EXIT_DIFFERENT
    return Run(tuple(files), tuple(found), review.failed() or code)


def html(review: Review) -> Iterator[str]:
    """Give one page that needs nothing else, with pictures of both sides."""
    from translator.comparison.page import page

    return page(review)


FORMS: Mapping[str, Callable[[Review], Iterator[str]]] = {
    "text": text,
    "json": to_json,
    "markdown": markdown,
    "junit": junit,
    "sarif": sarif,
    "html": html,
}
FINDINGS = frozenset(("junit", "sarif"))  # the forms that tell of what was refused, too
