"""Steps change a host, or leave it as it was: on failure whatever was begun is taken back, newest first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from translator.errors import HostError, OutcomeUnknown, RollbackError
from translator.plan import Step, Wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from translator.plan import Action

Phase = Literal["begin", "done", "undo", "undone", "stuck"]


class StepEvent(msgspec.Struct, frozen=True):
    """What just happened to a step; `error` says why it is stuck."""

    step: Step
    phase: Phase
    error: str | None = None


class Performer(Protocol):
    """Whatever can carry out an action; it returns when the effect is there, not when it was asked for."""

    async def perform(self, action: Action, device_model: str | None) -> None:
        """Carry the action out.

        Raises:
            HostError: it did not take effect; OutcomeUnknown: it may have.
        """


async def execute(
    steps: Sequence[Step],
    performer: Performer,
    *,
    verify: Callable[[], Awaitable[None]],
    on_step: Callable[[StepEvent], None] | None = None,
) -> None:
    """Carry the steps out in order, then `verify`; when either fails, or we are told to stop, undo what was begun.

    Raises:
        HostError: T501, a step failed and the host is as it was.
        RollbackError: T502, some steps could not be undone; `.stuck` names them.
    """
    tell = on_step or (lambda event: None)
    begun: list[Step] = []
    current: Step | None = None
    try:
        for current in steps:
            tell(StepEvent(current, "begin"))
            begun.append(current)
            await performer.perform(current.action, current.device_model)
            tell(StepEvent(current, "done"))
        current = None
        await verify()
    except BaseException as failure:
        if current is not None and begun and not _may_have_happened(current, failure):
            begun.pop()
        stuck = await _to_the_end(_undo(begun, performer, tell))
        at = f"step {current.id}" if current else "the look at the result"
        reason = failure.message if isinstance(failure, HostError) else "interrupted"
        if stuck:
            raise RollbackError(
                "T502",
                f"{at} failed: {reason}; {len(stuck)} of {len(begun)} steps could not be undone: "
                + "; ".join(f"{id} ({why})" for id, why in stuck.items()),
                f"still in effect: {', '.join(stuck)}",
                stuck=tuple(stuck),
            ) from failure
        if not isinstance(failure, HostError):
            raise  # cancelled, interrupted or a bug: the host is restored, and the signal goes on
        raise HostError(
            "T501", f"{at} failed: [{failure.code}] {reason}; the host is as it was before", failure.help
        ) from failure


def _may_have_happened(step: Step, failure: BaseException) -> bool:
    """A step that failed with an answer had no effect; a wait never has one until it is over."""
    if isinstance(step.action, Wait):
        return False
    return isinstance(failure, OutcomeUnknown) or not isinstance(failure, HostError)


async def _undo(begun: Sequence[Step], performer: Performer, tell: Callable[[StepEvent], None]) -> dict[str, str]:
    """Undo steps newest first; return those that would not go, with the reason.

    What is still there keeps its record: a toolstack that no longer sees a controller could not remove it.
    """
    stuck: dict[str, str] = {}
    holding: dict[str, str] = {}
    for step in reversed(begun):
        reason: str | None = None
        if step.subject in holding:
            reason = f"kept, as {holding[step.subject]} is still there"
        elif step.undo is None:
            reason = step.undo_reason or "it cannot be undone"
        else:
            tell(StepEvent(step, "undo"))
            try:
                await performer.perform(step.undo, step.device_model)
            except HostError as error:
                reason = error.message
        if reason is None:
            tell(StepEvent(step, "undone"))
        else:
            stuck[step.id] = reason
            holding.setdefault(step.subject, step.id)
            tell(StepEvent(step, "stuck", reason))
    return stuck


async def _to_the_end(work: Coroutine[object, object, dict[str, str]]) -> dict[str, str]:
    """Wait for `work` through any number of cancellations: half an undo is worse than a late exit."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()
