"""Applies that have not come to their end, as their journals tell; the host is not asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from translator.errors import RollbackError
from translator.saga.confirm import waiting
from translator.saga.journal import Mark
from translator.topology import DomainIdentity

if TYPE_CHECKING:
    from translator.saga.state import Found, State


class UnfinishedStep(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step: `begun` may be in effect; `undo_reason` says why nothing takes it back, None where something does."""

    id: str
    mark: Mark
    why: str
    undo_reason: str | None = None


class Unfinished(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An apply's journal.

    `state` is `left` where the apply was killed or could not undo everything, which is for `Host.recover`; `running`
    while somebody works on it; `waiting` for `translator commit`; `confirmed` by that; and `damaged`, where `error`
    says how, and nothing else is known.
    """

    journal: str
    state: Literal["left", "running", "waiting", "confirmed", "damaged"]
    error: str | None = None
    domain: DomainIdentity | None = None
    started: str | None = None
    steps: tuple[UnfinishedStep, ...] = ()

    @property
    def begun(self) -> tuple[UnfinishedStep, ...]:
        """The steps that may be in effect, oldest first."""
        return tuple(step for step in self.steps if step.mark == "begun")


def unfinished(directory: State, found: Found) -> Unfinished:
    """Return what there is to say of a journal."""
    if isinstance(found.content, RollbackError):
        return Unfinished(journal=found.path, state="damaged", error=found.content.message)
    content = found.content
    state: Literal["left", "running", "waiting", "confirmed"] = "confirmed" if found.confirmed else "left"
    if directory.is_locked(found.key):
        state = "waiting" if found in waiting(directory) else "running"
    return Unfinished(
        journal=found.path,
        state=state,
        domain=content.intent.domain,
        started=content.intent.started,
        steps=tuple(
            UnfinishedStep(step.id, mark, step.why, None if step.undo is not None else step.undo_reason)
            for step, mark in zip(content.intent.steps, content.marks, strict=True)
        ),
    )
