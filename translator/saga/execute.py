"""Steps change a host, or leave it as it was: on failure whatever was begun is taken back."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from translator.errors import HostError, OutcomeUnknown, RollbackError
from translator.saga.outcome import StepEvent
from translator.saga.performer import surely
from translator.saga.undo import roll_back, tell_safely
from translator.saga.whole import to_the_end, whole

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence

    from translator.planning.plan import Step
    from translator.saga.performer import Performer, Record


async def execute(
    steps: Sequence[Step],
    performer: Performer,
    *,
    verify: Callable[[], Awaitable[None]],
    confirm: Callable[[], Awaitable[None]] | None = None,
    on_step: Callable[[StepEvent], None] | None = None,
    record: Record | None = None,
    done: Collection[int] = (),
    backwards: Performer | None = None,
) -> None:
    """Carry the steps out in order, `verify`, and `confirm`; when one fails, or we are told to stop, undo all.

    Args:
        record: is told of a step before it is begun, and when it was undone.
        done: the numbers of steps, from 0, that are in effect already and are undone like the others.
        backwards: what carries the undos out, if that is not the same.

    Raises:
        HostError: T501, a step failed and the host is as it was; what `confirm` raised, likewise.
        RollbackError: T502, some steps could not be undone; `.stuck` names them.
    """
    tell = on_step or (lambda event: None)
    begun = set(done)
    at = ""
    failed: list[tuple[Step, BaseException]] = []  # in the order of time; several where there are several lanes

    async def carry_out(numbers: Iterable[int]) -> None:
        for number in numbers:
            if number in begun:
                continue
            step = steps[number]
            tell(StepEvent(step, "begin", number + 1, len(steps)))
            try:
                _note(record, number)
                await whole(surely(performer, step.action, step.device_model), step.action)
            except BaseException as failure:
                if _may_have_happened(step, failure):
                    begun.add(number)
                failed.append((step, failure))
                tell_safely(tell, StepEvent(step, "failed", number + 1, len(steps), _reason(failure)))
                raise
            begun.add(number)
            tell(StepEvent(step, "done", number + 1, len(steps)))

    try:
        for lanes in _lanes(steps):
            await _abreast([carry_out(lane) for lane in lanes])
        at = "the look at the result failed: "
        await verify()
        at = ""
        if confirm is not None:
            await confirm()
    except BaseException as failure:
        stuck = await to_the_end(roll_back(steps, begun, backwards or performer, tell, record))
        told = _worth_telling(failed)
        reasons = "; ".join(f"step {step.id} failed: {_reason(error)}" for step, error in told) or _reason(failure)
        source = failed[0][0].source if failed else None
        at_step, why = (told[0][0].id, told[0][1]) if told else (None, failure)
        cause = why.code if isinstance(why, HostError) else None
        if stuck:
            raise RollbackError(
                "T502",
                f"{at}{reasons}; {len(stuck)} of {len(begun)} steps could not be undone: "
                + "; ".join(f"{id} ({why})" for id, why in stuck.items()),
                f"still in effect: {', '.join(stuck)}",
                source,
                stuck=tuple(stuck),
                step=at_step,
                cause=cause,
            ) from failure
        if not isinstance(failure, HostError):
            raise  # cancelled, interrupted or a bug: the host is restored, and the signal goes on
        by_itself = not failed and not at
        raise HostError(
            failure.code if by_itself else "T501",
            f"{at}{failure.message if by_itself else reasons}; the host is as it was before",
            failure.help,
            source if failed else failure.source,
            step=at_step,
            cause=None if by_itself else cause,
        ) from failure


def _worth_telling(failed: Sequence[tuple[Step, BaseException]]) -> Sequence[tuple[Step, BaseException]]:
    """Return the steps that failed; of those that were only told to stop no more than one, and where no other has."""
    own = [one for one in failed if not isinstance(one[1], asyncio.CancelledError)]
    return own or failed[:1]


def _reason(failure: BaseException) -> str:
    if isinstance(failure, HostError):
        return f"[{failure.code}] {failure.message}"
    return f"{type(failure).__name__}: {failure}" if isinstance(failure, Exception) else "interrupted"


def _lanes(steps: Sequence[Step]) -> Iterator[list[list[int]]]:
    """Yield numbers of steps in lanes that do not depend on each other: one for each device model.

    What several device models need, or none, is between them in a lane of its own.
    """
    for shared, group in itertools.groupby(range(len(steps)), key=lambda number: steps[number].device_model is None):
        lanes: dict[str | None, list[int]] = {}
        for number in group:
            lanes.setdefault(None if shared else steps[number].device_model, []).append(number)
        yield list(lanes.values())


async def _abreast(lanes: Sequence[Coroutine[object, object, None]]) -> None:
    """Run the lanes at once; when one fails, stop the others between two steps, and fail with its reason."""
    if len(lanes) == 1:
        await lanes[0]
        return
    tasks = [asyncio.ensure_future(lane) for lane in lanes]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await to_the_end(asyncio.gather(*tasks, return_exceptions=True))
    for task in tasks:
        if task in done:
            task.result()  # or what it failed with


def _note(record: Record | None, number: int) -> None:
    if record is None:
        return
    try:
        record.begin(number)
    except OSError as error:
        raise HostError("T507", f"the journal cannot be written: {error.strerror}") from error


def _may_have_happened(step: Step, failure: BaseException) -> bool:
    """A step that failed with an answer had no effect, except that of several writes the first may be done."""
    if isinstance(failure, asyncio.CancelledError):
        if failure.__cause__ is None:
            return False  # it was a wait, or not begun
        failure = failure.__cause__  # what it failed with while we were told to stop, or that nobody knows
    return not isinstance(failure, HostError) or isinstance(failure, OutcomeUnknown) or step.target == "sysfs"
