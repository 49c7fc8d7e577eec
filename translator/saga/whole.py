"""Work that is seen through to its end although we are told to stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from translator.errors import HostError, OutcomeUnknown
from translator.planning.plan import Wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from translator.planning.plan import Action

_Result = TypeVar("_Result")


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


class Interrupted(Exception):  # noqa: N818 - what is known of the step, which is not that it went wrong
    """The cause of a CancelledError that came while a step was under way: it took effect all the same, or may have.

    Not a kind of CancelledError: `asyncio.timeout` and task groups know that very class alone before Python 3.13.
    """


async def whole(work: Coroutine[object, object, None], action: Action) -> None:
    """Carry a step out whole: told to stop, see it through first, so that its outcome is known.

    Only a wait is given up at once; it has no effect.

    Raises:
        CancelledError: we were told to stop; its cause is what the step failed with, or that it is `Interrupted`.
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
        raise asyncio.CancelledError from Interrupted()
