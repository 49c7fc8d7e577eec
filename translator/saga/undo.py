"""Steps are taken back, newest first, each by its own undo; nothing stops the undoing of the rest."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from translator.errors import HostError
from translator.planning.plan import QmpCommand
from translator.saga.outcome import StepEvent
from translator.saga.performer import surely
from translator.saga.whole import to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from translator.planning.plan import Action, Step
    from translator.saga.performer import Performer, Record


async def roll_back(
    steps: Sequence[Step],
    begun: Collection[int],
    performer: Performer,
    tell: Callable[[StepEvent], None],
    record: Record | None = None,
) -> dict[str, str]:
    """Undo the steps numbered `begun`, from 0, newest first; return the ids of those that would not go, and why.

    What is still there keeps its record: a toolstack that no longer sees a controller could not remove it.
    Nothing stops the undoing of the rest, neither a fault of ours in one step nor whoever is told; nor the end of an
    event loop, which cancels every task by itself.
    """
    settled: set[int] = set()
    stuck: dict[int, str] = {}
    holding: dict[str, str] = {}

    async def take_back(number: int) -> None:
        step = steps[number]
        if step.subject in holding:
            reason: str | None = f"kept, as {holding[step.subject]} is still there"
        elif step.undo is None:
            reason = step.undo_reason or "it cannot be undone"
        else:
            tell_safely(tell, StepEvent(step, "undo", number + 1, len(steps)))
            try:
                await surely(performer, step.undo, step.device_model)
                reason = None
            except HostError as error:
                # T404: somebody else has changed it meanwhile, and it is no longer ours to undo
                reason = None if error.code == "T404" else error.message
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
        if reason is None:
            if record is not None:
                with suppress(OSError):  # whoever comes after us looks, and finds it undone
                    record.undone(number)
            tell_safely(tell, StepEvent(step, "undone", number + 1, len(steps)))
        else:
            stuck[number] = reason
            holding.setdefault(step.subject, step.id)
            tell_safely(tell, StepEvent(step, "stuck", number + 1, len(steps), reason))
        settled.add(number)

    for group in _together(steps, begun):
        await to_the_end(asyncio.gather(*map(take_back, group), return_exceptions=True))
        for number in group:
            if number not in settled:  # it was cancelled; an undo is absolute and may be repeated
                await to_the_end(take_back(number))
    return {steps[number].id: stuck[number] for number in sorted(stuck, reverse=True)}


def _together(steps: Sequence[Step], begun: Collection[int]) -> Iterator[list[int]]:
    """Yield the steps in the order in which they are undone, and at once those whose undoing only takes time.

    A removal from QEMU is a request and then a wait, and nothing that we undo has to be undone before it, but for
    the devices of a controller before the controller.
    """
    newest_first = sorted(begun, reverse=True)
    removals = [number for number in newest_first if _is_removal(steps[number].undo)]
    devices = [number for number in removals if steps[number].subject.startswith("device:")]
    for group in (devices, [number for number in removals if number not in devices]):
        if group:
            yield group
    yield from ([number] for number in newest_first if number not in removals)


def _is_removal(undo: Action | None) -> bool:
    return isinstance(undo, QmpCommand) and undo.execute == "device_del"


def tell_safely(tell: Callable[[StepEvent], None], event: StepEvent) -> None:
    """Tell of a failure or an undo.

    A listener that fails (its pipe may be closed) must not keep the host from being restored.
    """
    with suppress(Exception):
        tell(event)
