"""What comes of carrying a plan out: an event for each step as it goes, and the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from translator.planning.plan import Step

if TYPE_CHECKING:
    from translator.errors import Diagnostic
    from translator.live.observe import Observation
    from translator.planning.plan import Plan

Phase = Literal["begin", "done", "undo", "undone", "stuck"]


class StepEvent(msgspec.Struct, frozen=True):
    """What just happened to a step, which is the `number`th of `count`; `error` says why it is stuck."""

    step: Step
    phase: Phase
    number: int
    count: int
    error: str | None = None


class Applied(NamedTuple):
    """The steps that were carried out (or would be, in a dry run), and what the host looked like afterwards.

    `notes` say what the guest sees of them where that is more than something new, and what is left out. `plan` is
    what a dry run of `Host.apply` comes to: its steps, to be carried out while the host is as it was seen.
    """

    steps: tuple[Step, ...]
    observation: Observation
    notes: tuple[Diagnostic, ...] = ()
    plan: Plan | None = None
