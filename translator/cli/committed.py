"""Plans that are committed beside their documents: checked, or written again."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

import translator
from translator.cli import inputs
from translator.cli.sources import is_archive, is_url
from translator.comparison import review
from translator.errors import EXIT_DIFFERENT, Diagnostic, PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from translator.cli.options import Planning
    from translator.cli.report import Report
    from translator.planning.plan import Plan

SUFFIX = ".plan.json"
_DOCUMENTS = (".xml", ".cfg")
_COUNTED = ("written", "up to date", "out of date", "missing", "refused", "without a document")


def beside(document: Path) -> Path:
    """Return where the plan of a document is committed: `guest.plan.json` beside `guest.xml`."""
    stem = document.stem if document.suffix in _DOCUMENTS else document.name
    return document.with_name(stem + SUFFIX)


def check(files: Iterable[str], planning: Planning, report: Report, max_size: int, *, update: bool) -> None:
    """Compare each document's plan with the committed one, or put it there; a difference is exit code 1.

    A plan among the files stands for its document, so that a hook may be given whatever is to be committed. A plan
    without a document is told of, and left for whoever knows why it is there to remove.
    """
    files = tuple(files)
    for file in files:
        _refuse_elsewhere(file)
    counts = dict.fromkeys(_COUNTED, 0)
    for name, data in inputs.documents(_documents(files), report, max_size):
        counts["refused"] += 1  # until it is known to be something else
        with report.document(name):
            made = inputs.plan_of(data, name, planning, max_size)
            report.warnings(made.diagnostics, name)
            counts["refused"] -= 1
            path = beside(Path(name))
            found = _stale(path, made, name)
            if found is None:
                counts["up to date"] += 1
            elif update:
                inputs.write_pieces([made.to_json()], path)
                counts["written"] += 1
            else:
                counts["missing" if found.code == "T374" else "out of date"] += 1
                report.show(found)
                report.code = max(report.code, EXIT_DIFFERENT)
    for orphan in dict.fromkeys(_orphans(files)):
        counts["without a document"] += 1
        message = "there is no document beside this plan"
        report.show(Diagnostic(code="T373", message=message, help=f"remove it: git rm {quote(orphan)}", file=orphan))
        report.code = max(report.code, EXIT_DIFFERENT)
    words = [f"{count} {what}" for what, count in counts.items() if count]
    if words:
        click.echo(f"plans: {', '.join(words)}")


def _refuse_elsewhere(file: str) -> None:
    """Refuse what a plan cannot lie beside."""
    if file == "-":
        inputs.usage("a plan lies beside its document, and standard input has no place")
    if is_url(file):
        inputs.usage(f"a plan lies beside its document, and {file!r} is a URL: take the folder that it is made from")
    if is_archive(file) and not Path(file).is_dir():
        inputs.usage(f"a plan lies beside its document, and {file!r} is an archive: unpack it, and take the folder")


def _orphans(files: Iterable[str]) -> Iterator[str]:
    """Yield the plans whose documents are gone: those named, and those below the folders."""
    for file in files:
        found = map(str, sorted(Path(file).rglob(f"*{SUFFIX}"))) if Path(file).is_dir() else [file]
        yield from (path for path in found if _is_orphan(path))


def _is_orphan(path: str) -> bool:
    return path.endswith(SUFFIX) and Path(path).exists() and _document_of(path) is None


def _document_of(plan: str) -> str | None:
    """Return the document beside a plan."""
    stem = plan.removesuffix(SUFFIX)
    return next((stem + suffix for suffix in _DOCUMENTS if Path(stem + suffix).exists()), None)


def _documents(files: Iterable[str]) -> Iterator[str]:
    seen = set()
    for file in files:
        name = (_document_of(file) or file) if file.endswith(SUFFIX) else file
        if name not in seen and not _is_orphan(name):
            seen.add(name)
            yield name


def _stale(path: Path, made: Plan, name: str) -> Diagnostic | None:
    """Return what is wrong with the committed plan; None if it is the document's, to the byte."""
    remedy = f"translator plan --update {quote(name)}"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Diagnostic(code="T374", message=f"there is no {path.name} beside it", help=remedy, file=name)
    except OSError as error:
        return Diagnostic(code="T374", message=f"cannot read {path.name}: {error.strerror}", help=remedy, file=name)
    if data == made.to_json().encode():
        return None
    try:
        delta = translator.diff(translator.Plan.from_json(data), made)
    except PlanError as error:
        message = f"{path.name}: {error.diagnostics[0].message}"
        return Diagnostic(code="T373", message=message, help=remedy, file=name)
    if not delta:
        message = f"{path.name} is out of date: it means the same, but lines or the words of steps are others"
        return Diagnostic(code="T373", message=message, help=remedy, file=name)
    first = delta.changes[0]
    source = review.source(first)
    return Diagnostic(
        code="T373",
        message=f"{path.name} is out of date: {review.sentence(delta)}",
        help=f"{remedy}; what changed: translator diff {quote(str(path))} {quote(name)}",
        file=name,
        line=source.line if source else None,
        column=source.column if source else None,
    )
