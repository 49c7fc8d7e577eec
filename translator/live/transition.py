"""What leads from what a host has to what a plan wants: removals first, then additions.

Nothing is said twice: what is to go is compiled as if it were to come, and each of its steps is turned around,
the last one first. So a removal's undo is the attaching, and devices go before the hubs and controllers below
them. What needs the guest's consent, QEMU's PCI controllers, goes before what can be had back without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.comparison.changes import changes
from translator.errors import Diagnostic, HostError, PlanError
from translator.live.properties import otherwise
from translator.live.removal import foreign, removal
from translator.planning.plan import QmpCommand, Step, Transaction, Wait
from translator.planning.subjects import parts_of, stands_on, subject, told
from translator.topology import Controller, Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from translator.live.observe import Observation
    from translator.planning.plan import Plan
    from translator.topology import Topology


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How far a domain may be changed.

    prune    what the plan does not name goes; where `only` is not None, no more than these subjects
    replace  a controller in the place of another one takes it
    force    controllers go without waiting for the guest and the backend, as with libxl's destroy
    """

    prune: bool = False
    replace: bool = False
    force: bool = False
    only: frozenset[str] | None = None

    def prunes(self, id: str) -> bool:
        """Tell whether a subject may go that the plan does not name."""
        return self.prune and (self.only is None or id in self.only)


ADD_ONLY = Policy()


class Transition(NamedTuple):
    """The steps in order, and what is to be said about them."""

    removals: tuple[Step, ...]
    additions: tuple[Step, ...]
    notes: tuple[Diagnostic, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, in order."""
        return self.removals + self.additions


def transition(seen: Observation, plan: Plan, policy: Policy) -> Transition:
    """Return what makes a domain as it was seen match the plan.

    Raises:
        HostError: T414 something else is in a place that the plan needs, and may not be removed; T473 what is there
            has another property than the plan gives it; T415 what is missing cannot be added, or T435 what is to go
            cannot be removed, while the machine runs.
        PlanError: T112, the plan names what it has no steps for.
    """
    parts = parts_of(seen.topology)
    named = parts_of(plan.topology).keys()
    leaving: set[str] = set()
    missing: set[str] = set()
    notes = []
    for change in changes(seen.topology, plan.topology):
        before, after = change.before, change.after
        if before is None:
            missing.add(change.id)
        elif after is None:
            if policy.prunes(change.id):
                leaving.add(change.id)
        elif change.id in seen.lacking and _record_fits(before, after):
            pass  # what is there is the plan's, and the rest of it comes
        elif policy.replace or (isinstance(before, Device) and policy.prunes(change.id)):
            leaving.add(change.id)
            missing.add(change.id)
            notes.append(_exchanged(seen.topology, before, after))
        else:
            raise _held(before, after)
    for id, other in otherwise(seen, plan.topology):
        if id in leaving or id in missing:
            continue
        if not policy.replace:
            raise HostError(
                "T473",
                f"{id} on the host has {other}",
                "--replace exchanges it, which the guest sees; QEMU sets this only when a device comes",
                other.part.source,
            )
        leaving.add(id)
        missing.add(id)
        notes.append(_exchanged(seen.topology, parts[id], other.part))
    for id, part in parts.items():
        holding = leaving & stands_on(part, seen.topology)
        if holding and id not in leaving:
            if id in named:
                missing.add(id)
            elif not policy.prunes(id):
                raise HostError(
                    "T414",
                    f"{told(part)} is on {min(holding)}, which is to go, and the document does not name it",
                    "--prune removes it too",
                )
            leaving.add(id)
    leaving |= _idle(seen.topology, plan.topology, leaving, policy)
    removals = removal(seen, leaving, force=policy.force) if leaving else ()
    if policy.prune or leaving:
        removals = (*foreign(seen, leaving, policy), *removals)
    # who takes something away repairs nothing else, and waits for nobody
    lacking = seen.lacking if policy.only is None else frozenset[str]()
    return Transition(removals, additions(lacking, plan, missing), tuple(notes))


def additions(lacking: frozenset[str], plan: Plan, missing: set[str]) -> tuple[Step, ...]:
    """Return the plan's steps for what is missing, and those that what is there is lacking, in the plan's order."""
    coming = [step for step in plan.steps if not step.removes]
    unserved = missing - {step.subject for step in coming}
    if unserved:
        raise PlanError(
            [
                Diagnostic(
                    code="T112",
                    message=f"the plan names {', '.join(sorted(unserved))} and has no steps for it",
                    help="what `observe` prints is not a plan to apply; make one from a document",
                )
            ]
        )
    steps = tuple(
        step if step.subject in missing else _by_itself(step)
        for step in coming
        if step.subject in missing or step.id in lacking
    )
    launch = [step for step in steps if step.stage == "launch"]
    if launch:
        import shlex

        raise HostError(
            "T415",
            f"QEMU cannot be given {', '.join(step.id for step in launch)} while it runs",
            "start it with: " + " ".join(shlex.join(step.launch_words) for step in launch),
            launch[0].source,
        )
    return steps


def _record_fits(before: Controller | Device, after: Controller | Device) -> bool:
    """Tell whether a record without a device may be the plan's: it knows type, version and ports, not the model."""
    if not isinstance(before, Controller) or not isinstance(after, Controller):
        return False
    return (before.type, before.version, before.ports) == (after.type, after.version, after.ports)


def _by_itself(step: Step) -> Step:
    """A wait for a backend that was there before us: undoing it must not close somebody's controller."""
    if not isinstance(step.action, Wait):
        return step
    return msgspec.structs.replace(step, undo=Transaction(()))


def _idle(seen: Topology, wanted: Topology, leaving: set[str], policy: Policy) -> set[str]:
    """Return the subjects of the device models that will have nothing to emulate and that nobody wants."""
    idle = set()
    for name in {model.name for model in seen.device_models} - {model.name for model in wanted.device_models}:
        theirs = {subject(one) for one in seen.controllers if one.device_model == name}
        if theirs <= leaving and (theirs or policy.prune):
            idle.add(f"device-model:{name}")
    return idle


def _exchanged(topology: Topology, before: Controller | Device, after: Controller | Device) -> Diagnostic:
    """Say what the guest will see of an exchange."""
    source = after.source
    if isinstance(before, Controller) and isinstance(after, Controller):
        moved = sum(device.family == "usb" and device.controller == before.index for device in topology.devices)
        same = before.interface == after.interface
        what = f"controller {after.index}: {told(after)} takes the place of {told(before)}"
        sees = (
            f"the guest sees it and {_devices(moved)} unplugged and plugged in again"
            if same
            else f"the guest sees {before.interface} go with {_devices(moved)}, and {after.interface} come, "
            "for which it needs a driver"
        )
    else:
        what = f"{subject(after)}: {told(after)} takes the place of {told(before)}"
        sees = "the guest sees one unplugged and the other plugged in"
    return Diagnostic(
        code="T436",
        severity="note",
        message=f"{what}; {sees}",
        line=source.line if source else None,
        column=source.column if source else None,
    )


def _devices(number: int) -> str:
    return "its device" if number == 1 else f"its {number} devices"


def _held(before: Controller | Device, after: Controller | Device) -> HostError:
    if isinstance(before, Device) and isinstance(after, Device):
        return HostError(
            "T414",
            f"port {before.port} of controller {before.controller} is held by {told(before)}, "
            f"and the document puts {told(after)} there",
            "--prune removes it; or give the document's device another port",
            after.source,
        )
    return HostError(
        "T414",
        f"{subject(before)} on the host is {told(before)}, and the document wants {told(after)}",
        "--replace exchanges them, which the guest sees; or give the document's controller another index",
        after.source,
    )


def _way_out(id: str, topology: Topology) -> str:
    """Say how a name in QEMU becomes free."""
    for part in parts_of(topology).values():
        if part.id == id:
            return (
                f"it is {subject(part)}, {told(part)}: --prune removes it where the document does not name it, "
                f"and `translator detach DOMAIN {id}` in any case"
            )
    return "remove it first: somebody else has made it"


def room_for(steps: Sequence[Step], seen: Observation, gone: Sequence[Step]) -> None:
    """Refuse before the first step what QEMU would refuse in the middle: a name or a port that is taken.

    Raises:
        HostError: T414, and it is not among what is `gone` by then.
    """
    freed = {
        step.action.arguments["id"]
        for step in gone
        if isinstance(step.action, QmpCommand) and step.action.execute == "device_del"
    }
    for step in steps:
        if not isinstance(step.action, QmpCommand):
            continue
        id = step.action.arguments.get("id")
        if id in seen.ids and id not in freed:
            raise HostError(
                "T414",
                f"QEMU has a device {id!r} that is not the document's {step.subject}",
                _way_out(id, seen.topology),
                step.source,
            )
        what, _, place = step.subject.partition(":usb:")
        index, _, port = place.partition(":")
        if what != "device" or (other := seen.foreign.get((int(index), port))) is None or other.id in freed:
            continue
        raise HostError(
            "T414",
            f"port {port} of controller {index} is held by a {other.driver}, which the document does not name",
            "--prune removes it; or give the document's device another port",
            step.source,
        )
