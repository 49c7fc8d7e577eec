"""What can go wrong, sorted by who acts next.

    TranslatorError
    ├── DocumentError     the author edits the document (XML, schema or meaning)      exit 3
    ├── PlanError         the caller plans again (unknown format, a damaged plan)     exit 3
    └── HostError         the operator looks at the host, which is as it was before   exit 4
        ├── OutcomeUnknown    the connection broke or timed out mid-call: look before repeating
        └── RollbackError     the host is not as it was; `.stuck` names what stayed   exit 5

Every one carries `.diagnostics`: the faults as data, each with its code, place and way out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

# What the command line ends with; the first is no error.
EXIT_DIFFERENT, EXIT_USAGE, EXIT_REFUSED, EXIT_HOST, EXIT_DIRTY = 1, 2, 3, 4, 5
EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143  # as of a program that SIGINT or SIGTERM ended

Severity = Literal["error", "warning", "note"]


class Source(msgspec.Struct, frozen=True):
    """Where an element's start tag begins in its document; both count from 1, columns in characters."""

    line: int
    column: int


class Diagnostic(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One finding about a document or a host.

    `code` is a key of `translator.catalog.CATALOG`; `element` is an XPath-like path such as
    `/domain/devices/controller[2]/@model`. A plan's own diagnostics leave `file` at None.
    """

    code: str
    severity: Severity = "error"
    message: str
    help: str | None = None
    file: str | None = None
    line: int | None = None
    column: int | None = None
    element: str | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        text = f"{place}: " if place else ""
        text += f"{self.severity}[{self.code}]: {self.message}"
        if self.help:
            text += f"\n  help: {self.help}"
        return text


class TranslatorError(Exception):
    """Base of every error that this package raises on purpose."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("\n".join(str(diagnostic) for diagnostic in diagnostics))
        self.diagnostics = tuple(diagnostics)

    def __reduce__(self) -> tuple[Any, ...]:
        # an error comes whole from another process, whatever its constructor takes
        return _revived, (type(self), self.args, self.__dict__)


def _revived(kind: type[TranslatorError], args: tuple[object, ...], facts: dict[str, object]) -> TranslatorError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class DocumentError(TranslatorError):
    """The document is refused; all its faults at once, and nothing was touched."""


class PlanError(TranslatorError):
    """A plan file is of an unknown format or damaged."""


class HostError(TranslatorError):
    """The host refused, could not be reached, or is not what the plan was made for.

    Where a step failed (T501, T502), `step` is its id, as in `plan.steps`, and `cause` the code of what it failed
    with, such as T406; of several steps, those of the first. Where all steps succeeded and the look at the result
    failed, there is a `cause` alone.
    """

    def __init__(
        self,
        code: str,
        message: str,
        help: str | None = None,
        source: Source | None = None,
        *,
        step: str | None = None,
        cause: str | None = None,
    ) -> None:
        line, column = (source.line, source.column) if source else (None, None)
        super().__init__([Diagnostic(code=code, message=message, help=help, line=line, column=column)])
        self.code = code
        self.message = message
        self.help = help
        self.source = source  # the element that asked for what failed
        self.step = step
        self.cause = cause


class OutcomeUnknown(HostError):  # noqa: N818 - it says what is known, which is not that there was an error
    """A request was sent and no answer came: it may or may not have taken effect."""


class RollbackError(HostError):
    """A step failed and some of what was done could not be undone.

    `stuck` names the steps that are still in effect, newest first. It is empty where that is not known, as the
    journal of an earlier apply is damaged (T506) and nothing was touched now, and where only a journal is left
    that cannot be removed (T507); `diagnostics[0].message` tells of each case.
    """

    def __init__(
        self,
        code: str,
        message: str,
        help: str | None = None,
        source: Source | None = None,
        *,
        stuck: Sequence[str],
        step: str | None = None,
        cause: str | None = None,
    ) -> None:
        super().__init__(code, message, help, source, step=step, cause=cause)
        self.stuck = tuple(stuck)
