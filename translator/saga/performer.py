"""Whoever carries out an action or takes a note of it, and how its outcome is made sure of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from translator.errors import HostError, OutcomeUnknown

if TYPE_CHECKING:
    from translator.planning.plan import Action


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


async def surely(performer: Performer, action: Action, device_model: str | None) -> None:
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
