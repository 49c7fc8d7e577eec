"""What `resolve` finds wrong or odd in a document, gathered as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from translator.errors import Diagnostic

if TYPE_CHECKING:
    from translator.errors import Severity, Source


LONGEST_WORD = 60  # of a document's words, in a message


class Part(Protocol):
    """Anything of the document that knows where it stands."""

    @property
    def path(self) -> str: ...
    @property
    def source(self) -> Source: ...


class Findings:
    """Faults, which refuse the document, and warnings, which do not."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self.faults: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []

    def fault(self, code: str, part: Part, message: str, at: str | None = None, help: str | None = None) -> None:
        """Note a fault; `at` is an XPath below the part, whose line and column are looked up when it is shown."""
        self.faults.append(self._diagnostic(code, part, message, at, help, "error"))

    def warn(self, code: str, part: Part, message: str, at: str | None = None, help: str | None = None) -> None:
        """Note what is odd; see `fault`."""
        self.warnings.append(self._diagnostic(code, part, message, at, help, "warning"))

    def _diagnostic(
        self, code: str, part: Part, message: str, at: str | None, help: str | None, severity: Severity
    ) -> Diagnostic:
        return Diagnostic(
            code=code,
            severity=severity,
            message=message,
            help=help,
            file=self.file,
            line=part.source.line,
            column=part.source.column,
            element=f"{part.path}/{at}" if at else part.path,
        )
