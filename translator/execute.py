"""Steps change a host, or leave it as it was: on failure whatever was begun is taken back, newest first."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

from translator.errors import HostError, OutcomeUnknown, RollbackError
from translator.outcome import StepEvent
from translator.plan import Wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from translator.plan import Action, Step

_Result = TypeVar("_Result")


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
            try:
                await _whole(performer.perform(current.action, current.device_model), current.action)
            except BaseException as failure:
                if _may_have_happened(current, failure):
                    begun.append(current)
                raise
            begun.append(current)
            tell(StepEvent(current, "done"))
        current = None
        await verify()
    except BaseException as failure:
        stuck = await _to_the_end(_undo(begun, performer, tell))
        at = f"step {current.id}" if current else "the look at the result"
        reason = failure.message if isinstance(failure, HostError) else "interrupted"
        if stuck:
            raise RollbackError(
                "T502",
                f"{at} failed: {reason}; {len(stuck)} of {len(begun)} steps could not be undone: "
                + "; ".join(f"{id} ({why})" for id, why in stuck.items()),
                f"still in effect: {', '.join(stuck)}",
                current.source if current else None,
                stuck=tuple(stuck),
            ) from failure
        if not isinstance(failure, HostError):
            raise  # cancelled, interrupted or a bug: the host is restored, and the signal goes on
        raise HostError(
            "T501",
            f"{at} failed: [{failure.code}] {reason}; the host is as it was before",
            failure.help,
            current.source if current else failure.source,
        ) from failure


def _may_have_happened(step: Step, failure: BaseException) -> bool:
    """A step that failed with an answer had no effect, except that of several writes the first may be done."""
    if isinstance(failure, asyncio.CancelledError):
        return isinstance(failure, _Interrupted)
    return not isinstance(failure, HostError) or isinstance(failure, OutcomeUnknown) or step.target == "sysfs"


class _Interrupted(asyncio.CancelledError):
    """We were told to stop while a step was under way, and it took effect all the same."""


async def _whole(work: Coroutine[object, object, None], action: Action) -> None:
    """Carry a step out whole: told to stop, see it through first, so that its outcome is known.

    Only a wait is given up at once; it has no effect.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if isinstance(action, Wait):
            task.cancel()
            await asyncio.wait([task])
            raise
        try:
            await _to_the_end(task)
        except HostError as error:
            if isinstance(error, OutcomeUnknown):
                raise
            raise asyncio.CancelledError from error  # it had no effect
        raise _Interrupted from None


async def _undo(begun: Sequence[Step], performer: Performer, tell: Callable[[StepEvent], None]) -> dict[str, str]:
    """Undo steps newest first; return those that would not go, with the reason.

    What is still there keeps its record: a toolstack that no longer sees a controller could not remove it.
    Nothing stops the undoing of the rest, neither a fault of ours in one step nor whoever is told.
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
            _tell_safely(tell, StepEvent(step, "undo"))
            try:
                await performer.perform(step.undo, step.device_model)
            except HostError as error:
                # T404: somebody else has changed it meanwhile, and it is no longer ours to undo
                reason = None if error.code == "T404" else error.message
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
        if reason is None:
            _tell_safely(tell, StepEvent(step, "undone"))
        else:
            stuck[step.id] = reason
            holding.setdefault(step.subject, step.id)
            _tell_safely(tell, StepEvent(step, "stuck", reason))
    return stuck


def _tell_safely(tell: Callable[[StepEvent], None], event: StepEvent) -> None:
    """Tell of an undo; a listener that fails (its pipe may be closed) must not keep the host from being restored."""
    with suppress(Exception):
        tell(event)


async def _to_the_end(work: Awaitable[_Result]) -> _Result:
    """Wait for `work` through any number of cancellations: half an undo is worse than a late exit."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()
