"""What the stages find wrong or odd in a document, gathered as they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from translator.errors import Diagnostic, DocumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from translator.errors import Severity, Source


LONGEST_WORD = 60  # of a document's words, in a message
MOST_FAULTS = 100  # told of one document; whoever wrote more knows by then


class Part(Protocol):
    """Anything of the document that knows where it stands."""

    @property
    def path(self) -> str: ...
    @property
    def source(self) -> Source: ...


def told(found: Sequence[Diagnostic]) -> list[Diagnostic]:
    """Return the first hundred of faults or warnings, and where there are more, a note that says so."""
    first = list(found[:MOST_FAULTS])
    if len(found) > MOST_FAULTS:
        what = "faults" if first[0].severity == "error" else "warnings"
        message = f"there are more {what} than these {MOST_FAULTS}"
        first.append(msgspec.structs.replace(first[-1], code="T108", severity="note", message=message, help=None))
    return first


class Findings:
    """Faults, which refuse the document, and warnings, which do not."""

    def __init__(self, file: str | None) -> None:
        self.file = file
        self.faults: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []

    def fault(self, code: str, part: Part, message: str, at: str | None = None, help: str | None = None) -> None:
        """Note a fault; `at` is an XPath below the part, whose line and column are looked up when it is shown.

        Raises:
            DocumentError: it is one more than is told.
        """
        self.faults.append(self._diagnostic(code, part, message, at, help, "error"))
        if len(self.faults) > MOST_FAULTS:
            raise DocumentError(told(self.faults))

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
