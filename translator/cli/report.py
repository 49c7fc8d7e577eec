"""How findings are told: as lines while they are made, or as one document about the whole run at its end.

All of it goes to standard error.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

import click
import msgspec

from translator.errors import (
    EXIT_DIRTY,
    EXIT_HOST,
    EXIT_REFUSED,
    EXIT_USAGE,
    Diagnostic,
    DocumentError,
    PlanError,
    RollbackError,
    TranslatorError,
)
from translator.output.ci import DOCUMENTS, Run, github
from translator.output.escape import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

LINES = ("text", "json", "github")


class Report:
    """Tells findings in the form asked for, and keeps the exit code: the worst of what was met.

    Must be made inside a command, at whose end, however it ends, the document about the whole run is written.
    """

    def __init__(self, strict: bool, form: str, color: str) -> None:
        self.strict = strict
        self.form = form
        self.color = colored(color, sys.stderr)
        self.code = 0
        self.files: dict[str, None] = {}
        self.findings: list[Diagnostic] = []
        self.plans: set[str] = set()  # the inputs that are plans: a line in them is their document's
        if form in DOCUMENTS:
            click.get_current_context().call_on_close(self._write_document)

    @property
    def failed(self) -> bool:
        return self.code != 0

    @property
    def for_people(self) -> bool:
        """Whether other lines may stand among the findings: a program that reads them would stumble."""
        return self.form in ("text", "github")

    def document(self, name: str | None) -> Guard:
        """Turn the errors of one document or host into findings and an exit code."""
        if name is not None:
            self._about(name)
        return Guard(self, name)

    def warnings(self, findings: Iterable[Diagnostic], name: str | None) -> None:
        for finding in findings:
            if self.strict and finding.severity == "warning":
                finding = msgspec.structs.replace(finding, severity="error")
                self.code = max(self.code, EXIT_REFUSED)
            self.show(msgspec.structs.replace(finding, file=name))

    def unreadable(self, name: str, message: str) -> None:
        """Tell of an input that is not there; wrong usage, unless something worse is met."""
        self._about(name)
        self.code = max(self.code, EXIT_USAGE)
        self.show(Diagnostic(code="T107", message=message, file=name))

    def show(self, finding: Diagnostic) -> None:
        if finding.file in self.plans and finding.line is not None:
            finding = msgspec.structs.replace(
                finding, message=f"{finding.message} (line {finding.line} of its document)", line=None, column=None
            )
        if finding.file is not None:
            finding = msgspec.structs.replace(finding, file=_clean(finding.file))
        if self.form in DOCUMENTS:
            self.findings.append(finding)
        elif self.form == "json":
            click.echo(msgspec.json.encode(finding), err=True)
        elif self.form == "github":
            click.echo(github(finding), err=True)
        else:
            click.echo(self._styled(finding), err=True, color=self.color)

    def _about(self, name: str) -> None:
        if self.form in DOCUMENTS:  # only these tell of every input at the end, and there may be very many
            self.files[_clean(name)] = None

    def exit(self) -> None:
        if self.code:
            sys.exit(self.code)

    def _styled(self, finding: Diagnostic) -> str:
        told = {name: getattr(finding, name) for name in ("file", "message", "help")}
        finding = msgspec.structs.replace(finding, **{name: text and visible(text) for name, text in told.items()})
        if not self.color:
            return str(finding)
        word = f"{finding.severity}[{finding.code}]"
        colored = click.style(word, fg="red" if finding.severity == "error" else "yellow", bold=True)
        return str(finding).replace(word, colored, 1)

    def _write_document(self) -> None:
        run = Run(tuple(self.files), tuple(self.findings), self.code)
        click.echo(DOCUMENTS[self.form](run), err=True, nl=False)


def colored(color: str, stream: TextIO) -> bool:
    """Tell whether words for a stream are coloured: `always`, `never`, or where people look on."""
    return {"always": True, "never": False}.get(color, stream.isatty() and "NO_COLOR" not in os.environ)


class Guard:
    """Where the errors of one document or host end; anything else passes through."""

    def __init__(self, report: Report, name: str | None) -> None:
        self.report = report
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, TranslatorError):
            return False
        in_document = isinstance(error, (DocumentError, PlanError))
        for finding in error.diagnostics:
            # what a host refused may say which line asked for it
            file = finding.file or (self.name if in_document or finding.line is not None else None)
            self.report.show(msgspec.structs.replace(finding, file=file))
        code = EXIT_HOST
        if in_document:
            code = EXIT_REFUSED
        elif isinstance(error, RollbackError):
            code = EXIT_DIRTY
        self.report.code = max(self.report.code, code)
        return True


def _clean(name: str) -> str:
    """Return a file's name with what is not UTF-8 in it replaced: every form has to spell it."""
    return os.fsencode(name).decode("utf-8", "replace")
