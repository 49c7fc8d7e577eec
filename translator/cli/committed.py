"""Plans that are committed beside their documents: checked, or written again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import translator
from translator.cli import inputs
from translator.comparison import review
from translator.errors import EXIT_DIFFERENT, Diagnostic, PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from translator.cli.options import Planning
    from translator.cli.report import Report
    from translator.planning.plan import Plan

SUFFIX = ".plan.json"
_DOCUMENTS = (".xml", ".cfg")


def beside(document: Path) -> Path:
    """Return where the plan of a document is committed: `guest.plan.json` beside `guest.xml`."""
    stem = document.stem if document.suffix in _DOCUMENTS else document.name
    return document.with_name(stem + SUFFIX)


def check(files: Iterable[str], planning: Planning, report: Report, max_size: int, *, update: bool) -> None:
    """Compare each document's plan with the committed one, or put it there; a difference is exit code 1.

    A plan among the files stands for its document, so that a hook may be given whatever is to be committed.
    """
    files = tuple(files)
    current = written = 0
    for name, data in inputs.documents(_documents(files), report, max_size):
        with report.document(name):
            made = inputs.plan_of(data, name, planning, max_size)
            report.warnings(made.diagnostics, name)
            path = beside(Path(name))
            found = _stale(path, made, name)
            if found is None:
                current += 1
            elif update:
                inputs.write_pieces([made.to_json()], path)
                written += 1
            else:
                report.show(found)
                report.code = max(report.code, EXIT_DIFFERENT)
    for path in _orphans(files):
        message = "there is no document beside this plan"
        report.show(Diagnostic(code="T373", message=message, help=f"remove it: {path}", file=str(path)))
        report.code = max(report.code, EXIT_DIFFERENT)
    words = [f"{count} {what}" for count, what in ((written, "written"), (current, "up to date")) if count]
    if words:
        click.echo(f"plans: {', '.join(words)}")


def _orphans(files: Iterable[str]) -> Iterator[Path]:
    """Yield the plans below the folders whose documents are gone."""
    for folder in map(Path, files):
        if folder.is_dir():
            for path in sorted(folder.rglob(f"*{SUFFIX}")):
                if not any(Path(str(path).removesuffix(SUFFIX) + suffix).exists() for suffix in _DOCUMENTS):
                    yield path


def _documents(files: Iterable[str]) -> Iterator[str]:
    seen = set()
    for file in files:
        if file == "-":
            inputs.usage("a plan lies beside its document, and standard input has no place")
        name = file
        if file.endswith(SUFFIX):
            stem = file.removesuffix(SUFFIX)
            name = next((stem + suffix for suffix in _DOCUMENTS if Path(stem + suffix).exists()), f"{stem}.xml")
        if name not in seen:
            seen.add(name)
            yield name


def _stale(path: Path, made: Plan, name: str) -> Diagnostic | None:
    """Return what is wrong with the committed plan; None if it is the document's, to the byte."""
    remedy = f"translator plan --update {name}"
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
        help=f"{remedy}; what changed: translator diff {path} {name}",
        file=name,
        line=source.line if source else None,
        column=source.column if source else None,
    )
