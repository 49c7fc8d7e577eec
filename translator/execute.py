"""Steps change a host, or leave it as it was: on failure whatever was begun is taken back, newest first."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

from translator.errors import HostError, OutcomeUnknown, RollbackError
from translator.outcome import StepEvent
from translator.plan import QmpCommand, Wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Iterator, Sequence

    from translator.plan import Action, Step

_Result = TypeVar("_Result")


class Performer(Protocol):
    """Whatever can carry out an action; it returns when the effect is there, not when it was asked for."""

    async def perform(self, action: Action, device_model: str | None) -> None:
        """Carry the action out.

        Raises:
            HostError: it did not take effect; OutcomeUnknown: it may have.
        """

    async def in_effect(self, action: Action, device_model: str | None) -> bool:
        """Tell whether the action's effect is there, by looking.

        Raises:
            HostError: the host does not let us look.
        """


class Record(Protocol):
    """Where it is noted which steps may be in effect, for whoever comes after us; steps are counted from 0."""

    def begin(self, number: int) -> None:
        """Note that the step may be in effect from now on; an OSError keeps it from being carried out."""

    def undone(self, number: int) -> None:
        """Note that it is not any more."""


async def execute(
    steps: Sequence[Step],
    performer: Performer,
    *,
    verify: Callable[[], Awaitable[None]],
    confirm: Callable[[], Awaitable[None]] | None = None,
    on_step: Callable[[StepEvent], None] | None = None,
    record: Record | None = None,
    done: Collection[int] = (),
) -> None:
    """Carry the steps out in order, `verify`, and `confirm`; when one fails, or we are told to stop, undo all.

    Args:
        record: is told of a step before it is begun, and when it was undone.
        done: the numbers of steps, from 0, that are in effect already and are undone like the others.

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
                await _whole(_surely(performer, step.action, step.device_model), step.action)
            except BaseException as failure:
                if _may_have_happened(step, failure):
                    begun.add(number)
                failed.append((step, failure))
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
        stuck = await to_the_end(roll_back(steps, begun, performer, tell, record))
        reasons = _reasons(failed) or _reason(failure)
        source = failed[0][0].source if failed else None
        if stuck:
            raise RollbackError(
                "T502",
                f"{at}{reasons}; {len(stuck)} of {len(begun)} steps could not be undone: "
                + "; ".join(f"{id} ({why})" for id, why in stuck.items()),
                f"still in effect: {', '.join(stuck)}",
                source,
                stuck=tuple(stuck),
            ) from failure
        if not isinstance(failure, HostError):
            raise  # cancelled, interrupted or a bug: the host is restored, and the signal goes on
        by_itself = not failed and not at
        raise HostError(
            failure.code if by_itself else "T501",
            f"{at}{failure.message if by_itself else reasons}; the host is as it was before",
            failure.help,
            source if failed else failure.source,
        ) from failure


def _reasons(failed: Sequence[tuple[Step, BaseException]]) -> str:
    """Return why the steps failed; of those that were only told to stop no more than one, and where no other has."""
    own = [one for one in failed if not isinstance(one[1], asyncio.CancelledError)]
    return "; ".join(f"step {step.id} failed: {_reason(error)}" for step, error in own or failed[:1])


def _reason(failure: BaseException) -> str:
    return f"[{failure.code}] {failure.message}" if isinstance(failure, HostError) else "interrupted"


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


async def _surely(performer: Performer, action: Action, device_model: str | None) -> None:
    """Carry an action out; when the answer is lost on the way, look whether it took effect before repeating it.

    What answers the look has dealt with all that was sent before, so an effect that is not there by then does not
    come any more.
    """
    try:
        await performer.perform(action, device_model)
    except HostError as lost:
        if not isinstance(lost, OutcomeUnknown) and lost.code != "T408":
            raise
        try:
            if not await performer.in_effect(action, device_model):
                await performer.perform(action, device_model)
        except HostError as error:
            # neither of the two attempts is known to have had no effect
            raise OutcomeUnknown(error.code, error.message, error.help) from lost


def _may_have_happened(step: Step, failure: BaseException) -> bool:
    """A step that failed with an answer had no effect, except that of several writes the first may be done."""
    if isinstance(failure, asyncio.CancelledError):
        if failure.__cause__ is None:
            return isinstance(failure, _Interrupted)
        failure = failure.__cause__  # what it failed with while we were told to stop
    return not isinstance(failure, HostError) or isinstance(failure, OutcomeUnknown) or step.target == "sysfs"


class _Interrupted(asyncio.CancelledError):
    """We were told to stop while a step was under way, and it took effect all the same, or may have."""


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
            await to_the_end(task)
        except HostError as error:
            if isinstance(error, OutcomeUnknown):
                raise
            raise asyncio.CancelledError from error
        except asyncio.CancelledError:
            pass  # the work itself was cancelled, as when an event loop is torn down: nobody knows how far it was
        raise _Interrupted from None


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
            _tell_safely(tell, StepEvent(step, "undo", number + 1, len(steps)))
            try:
                await _surely(performer, step.undo, step.device_model)
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
            _tell_safely(tell, StepEvent(step, "undone", number + 1, len(steps)))
        else:
            stuck[number] = reason
            holding.setdefault(step.subject, step.id)
            _tell_safely(tell, StepEvent(step, "stuck", number + 1, len(steps), reason))
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


def _tell_safely(tell: Callable[[StepEvent], None], event: StepEvent) -> None:
    """Tell of an undo; a listener that fails (its pipe may be closed) must not keep the host from being restored."""
    with suppress(Exception):
        tell(event)


async def to_the_end(work: Awaitable[_Result]) -> _Result:
    """Wait for `work` through any number of cancellations: half an undo is worse than a late exit."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()
