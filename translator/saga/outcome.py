"""What comes of carrying a plan out: an event for each step as it goes, and the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from translator.planning.plan import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from translator.errors import Diagnostic
    from translator.live.observe import Observation
    from translator.planning.plan import Plan
    from translator.topology import DomainIdentity

Phase = Literal["begin", "done", "failed", "undo", "undone", "stuck"]


class StepEvent(msgspec.Struct, frozen=True):
    """What just happened to a step, which is the `number`th of `count`.

    What begins is `done` or has `failed`; what is taken back, a failed one too where it may have had an effect, goes
    from `undo` to `undone` or is `stuck`. `error` says why it failed or is stuck. `domid` and `domain` are the
    running domain's id, None of one that has none, and name.
    """

    step: Step
    phase: Phase
    number: int
    count: int
    error: str | None = None
    domid: int | None = None
    domain: str = ""


def telling(on_step: Callable[[StepEvent], None] | None, domain: DomainIdentity) -> Callable[[StepEvent], None]:
    """Return what tells `on_step`, if there is one, of steps on the domain."""

    def tell(event: StepEvent) -> None:
        if on_step is not None:
            on_step(msgspec.structs.replace(event, domid=domain.domid, domain=domain.name))

    return tell


class Applied(NamedTuple):
    """The steps that were carried out (or would be, in a dry run), and what the host looked like afterwards.

    A detach from a port of a paravirtual controller looks at that controller alone, and at what the port holds.
    `notes` say what the guest sees of them where that is more than something new, and what is left out. `plan` is
    what a dry run of `Host.apply` comes to: its steps, to be carried out while the host is as it was seen.
    """

    steps: tuple[Step, ...]
    observation: Observation
    notes: tuple[Diagnostic, ...] = ()
    plan: Plan | None = None
