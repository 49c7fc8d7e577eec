"""What leads from what a host has to what a plan wants: removals first, then additions.

Nothing is said twice: what is to go is compiled as if it were to come, and each of its steps is turned around,
the last one first. So a removal's undo is the attaching, and devices go before the hubs and controllers below
them. What needs the guest's consent, QEMU's PCI controllers, goes before what can be had back without it.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.compile import compile_plan
from translator.diff import diff, subject
from translator.errors import Diagnostic, HostError, PlanError
from translator.layouts import CLOSING, CONNECTED, INIT_WAIT, INITIALISED, UNKNOWN, layout_named, vscsi
from translator.plan import LaunchOption, QmpCommand, Step, SysfsWrites, Transaction, Wait
from translator.topology import Controller, Device

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from translator.observe import Observation
    from translator.plan import Action, Plan, XenstoreOp
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
        HostError: T414 something else is in a place that the plan needs, and may not be removed; T415 what is
            missing cannot be added, or T435 what is to go cannot be removed, while the machine runs.
        PlanError: T112, the plan names what it has no steps for.
    """
    parts = _parts(seen.topology)
    named = _parts(plan.topology).keys()
    leaving: set[str] = set()
    missing: set[str] = set()
    notes = []
    for change in diff(seen.topology, plan.topology):
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
    for id, part in parts.items():
        holding = leaving & stands_on(part, seen.topology)
        if holding and id not in leaving:
            if id in named:
                missing.add(id)
            elif not policy.prunes(id):
                raise HostError(
                    "T414",
                    f"{_told(part)} is on {min(holding)}, which is to go, and the document does not name it",
                    "--prune removes it too",
                )
            leaving.add(id)
    leaving |= _idle(seen.topology, plan.topology, leaving, policy)
    removals = removal(seen, leaving, force=policy.force) if leaving else ()
    if policy.prune or leaving:
        removals = (*_foreign(seen, leaving, policy), *removals)
    return Transition(removals, additions(seen, plan, missing), tuple(notes))


# What comes


def additions(seen: Observation, plan: Plan, missing: set[str]) -> tuple[Step, ...]:
    """Return the plan's steps for what is missing, and those that what is there still lacks, in the plan's order."""
    unserved = missing - {step.subject for step in plan.steps}
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
        for step in plan.steps
        if step.subject in missing or step.id in seen.lacking
    )
    launch = [step for step in steps if step.stage == "launch"]
    if launch:
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


# What goes


def removal(seen: Observation, leaving: Iterable[str], *, force: bool = False) -> tuple[Step, ...]:
    """Return the steps that remove what was seen, by subjects; what stands on a subject has to be among them.

    Raises:
        HostError: T435, QEMU has it for as long as it runs.
    """
    topology, wanted = seen.topology, set(leaving)
    parts = _parts(topology)
    hosts = {device.host.selector: device.host for device in topology.devices if device.host}
    plan = compile_plan(topology, running=True).bind(hostdevs=hosts, interfaces=seen.lent)
    steps = [step for step in plan.steps if step.subject in wanted]
    fixed = sorted({step.subject for step in steps if step.stage == "launch"})
    if fixed:
        raise HostError(
            "T435",
            f"QEMU cannot be made to let go of {', '.join(fixed)} while it runs",
            "remove it from the document and start the domain anew",
        )
    waits = {step.subject: step.action for step in steps if isinstance(step.action, Wait)}
    turned: list[Step] = []
    for step in reversed(steps):
        if step.subject.startswith("device-model:"):
            turned.append(_forgotten(step))
            continue
        part = parts[step.subject]
        if isinstance(step.action, LaunchOption) or (step.id in seen.lacking and not isinstance(step.action, Wait)):
            continue  # it goes with QEMU, or is not there
        if isinstance(step.action, Wait):
            if part.family == "scsi":
                turned.append(_let_go(step, part, seen))
                continue
            assert isinstance(part, Controller)
            turned += _released(step, part, seen, force=force)
        else:
            turned.append(_turned(step, part, waits.get(step.subject), force=force))
    return (*turned, *_backends(topology, wanted))


def _turned(step: Step, part: Controller | Device, wait: Wait | None, *, force: bool) -> Step:
    """Return the step that takes another one back, and whose undo is the other one."""
    action, undo, reason = step.undo, step.action, None
    assert action is not None, "what is attached can be taken back"
    if isinstance(action, Transaction) and isinstance(undo, Transaction):
        action = _guarded(action, undo)
        if isinstance(part, Device) and part.host is not None and part.host.path == UNKNOWN:
            reason = "what the port held is no host device"
        # what is attached again is to be served again
        undo = msgspec.structs.replace(undo, wait=wait, otherwise=() if wait else None)
    elif isinstance(action, QmpCommand):
        if force and isinstance(part, Controller) and part.family == "usb":
            action = msgspec.structs.replace(action, awaited=False)
        if isinstance(part, Device):
            if part.id is None or part.id == "":
                raise HostError("T435", f"{_told(part)} has no name in QEMU, which could be told to let go of it")
            reason = _irretrievable(part)
    return _step(step, action, None if reason else undo, reason, _farewell(step, part))


def _forgotten(step: Step) -> Step:
    """Return the step that takes away the record of a device model."""
    assert isinstance(step.action, Transaction)
    assert isinstance(step.undo, Transaction)
    why = f"Forget device model {step.id.partition(':')[2]!r}, which emulates nothing any more."
    return _step(step, _guarded(step.undo, step.action), step.action, None, why)


def _released(step: Step, controller: Controller, seen: Observation, *, force: bool) -> Iterator[Step]:
    """Let guest and backend agree on the end of a controller; a backend that never answered is not asked."""
    state = seen.states.get(controller.index, (None, None))[0]
    if force or state not in (INIT_WAIT, INITIALISED, CONNECTED, CLOSING):
        return
    release = layout_named(seen.topology.layout).release(seen.topology.domain, controller, state)
    assert release is not None, "what is paravirtual has a backend"
    why = f"Let the guest and the backend let go of controller {controller.index}."
    yield _step(step, release.action, release.undo, None, why)


def _let_go(step: Step, part: Controller | Device, seen: Observation) -> Step:
    """Let the guest and scsiback agree on the end of a SCSI controller or a device of it."""
    domain = seen.topology.domain
    if step.id.endswith(":settled"):  # what is to be told something next has to have done with what it was told
        why = f"Wait until scsiback has done with what it was told before {_told(part)} is to go."
        return _step(step, step.action, Transaction(()), None, why)
    assert isinstance(step.undo, Transaction), "what is waited for can be told to end"
    if isinstance(part, Controller):
        return _step(step, step.undo, vscsi.again(domain, part), None, f"End the service of controller {part.index}.")
    controller = next(
        one for one in seen.topology.controllers if (one.family, one.index) == ("scsi", part.controller)
    )
    again = vscsi.device_again(domain, controller, part)
    action = msgspec.structs.replace(step.undo, otherwise=again.transaction)
    return _step(step, action, again, None, f"Let the guest let go of {_told(part)}.")


def _guarded(undo: Transaction, action: Transaction) -> Transaction:
    """Return an undo as an action of its own.

    It makes sure that the domain is the one that was meant, by the guards that begin the attaching, and takes
    along the directories that become empty.
    """
    touched = {operation.path for operation in action.transaction if operation.op in ("write", "mkdir")}
    guards = []
    for operation in action.transaction:
        if operation.op != "expect":
            break
        if operation.path not in touched:
            guards.append(operation)
    return Transaction((*guards, *map(_lasting, undo.transaction)), wait=undo.wait)


def _lasting(operation: XenstoreOp) -> XenstoreOp:
    if operation.op == "rm-empty":
        return msgspec.structs.replace(operation, op="sweep")
    if operation.op == "expect" and operation.value == UNKNOWN:
        return msgspec.structs.replace(operation, value=None)
    return operation


def _irretrievable(device: Device) -> str | None:
    """Return why a device cannot be plugged in again, None if it can."""
    if device.backends:
        return None
    if device.kind == "redirdev":
        return "its chardev goes with it"
    if device.kind == "disk" and "drive" not in device.properties:
        return "QEMU does not say what is behind it"
    return None


def _backends(topology: Topology, leaving: set[str]) -> Iterator[Step]:
    """Remove what was seen of the host's drivers behind devices; last, as QEMU does not say how they were made."""
    for device in topology.devices:
        if subject(device) not in leaving or device.backends:
            continue
        for part, action in _backends_of(device):
            yield Step(
                id=f"{subject(device)}:remove-{part}",
                stage="attach",
                device_model=_model_of(topology, device),
                action=action,
                undo=None,
                undo_reason="QEMU does not say how it was made",
                why=f"Close the host's end of the {device.kind}.",
                source=None,
            )


def _backends_of(device: Device) -> Iterator[tuple[str, QmpCommand]]:
    """Give the removals of what is behind one device; a redirdev's QEMU has taken along."""
    chardev, drive = device.properties.get("chardev"), device.properties.get("drive")
    if isinstance(chardev, str) and device.kind != "redirdev":
        yield "chardev", QmpCommand("chardev-remove", {"id": chardev})
    if isinstance(drive, str) and drive.endswith("-format"):  # ours, or libvirt's: see `blockdev`
        yield "format", QmpCommand("blockdev-del", {"node-name": drive})
        yield "storage", QmpCommand("blockdev-del", {"node-name": f"{drive.removesuffix('-format')}-storage"})
    if isinstance(drive, str) and drive.endswith("-backend"):  # a SCSI device of the host
        yield "storage", QmpCommand("blockdev-del", {"node-name": drive})


def _foreign(seen: Observation, leaving: set[str], policy: Policy) -> Iterator[Step]:
    """Remove what somebody else has plugged into our controllers and is of no kind of ours."""
    for (index, port), device in sorted(seen.foreign.items()):
        goes_along = f"controller:usb:{index}" in leaving
        if not policy.prune or not (goes_along or policy.only is None):
            if goes_along:
                raise HostError(
                    "T414",
                    f"controller {index} is to go, and on its port {port} is a {device.driver} that the document "
                    "does not name",
                    "--prune removes it too",
                )
            continue
        if device.id is None:
            raise HostError("T435", f"the {device.driver} on port {port} of controller {index} has no name in QEMU")
        yield Step(
            id=f"device:usb:{index}:{port}:remove",
            stage="attach",
            device_model=_model(seen.topology, index),
            action=QmpCommand("device_del", {"id": device.id}),
            undo=None,
            undo_reason=f"a {device.driver} is of no kind that is known here",
            why=f"Unplug the {device.driver} from port {port} of controller {index}, which somebody else has made.",
            source=None,
        )


def _step(step: Step, action: Action, undo: Action | None, reason: str | None, why: str) -> Step:
    part = step.id.removeprefix(step.subject).removeprefix(":")
    return msgspec.structs.replace(
        step,
        id=f"{step.subject}:remove" + (f"-{part}" if part else ""),
        action=action,
        undo=undo,
        undo_reason=reason,
        why=why,
        source=None,
    )


def _farewell(step: Step, part: Controller | Device) -> str:
    if isinstance(part, Device):
        where = f"port {part.port} of controller {part.controller}"
        if isinstance(step.action, QmpCommand):
            return f"Unplug {_told(part)} from {where}."
        if isinstance(step.action, SysfsWrites):
            return f"Give {_told(part)} back to its own drivers."
        if step.id.endswith(":drivers"):
            return f"Forget which drivers {_told(part)} had, now that it has them again."
        return f"Take {_told(part)} off {where}."
    what = f"{part.model} controller {part.index}"
    if isinstance(step.action, QmpCommand):
        return f"Unplug the {what}; the guest has to let go of it."
    if part.type == "emulated":
        return f"Take the record of controller {part.index} from where the toolstack looks for it."
    return f"Remove {what} from the guest's and the backend's view."


# What stands on what


def _parts(topology: Topology) -> Mapping[str, Controller | Device]:
    parts: list[Controller | Device] = [*topology.controllers, *topology.devices]
    return {subject(part): part for part in parts}


def _idle(seen: Topology, wanted: Topology, leaving: set[str], policy: Policy) -> set[str]:
    """Return the subjects of the device models that will have nothing to emulate and that nobody wants."""
    idle = set()
    for name in {model.name for model in seen.device_models} - {model.name for model in wanted.device_models}:
        theirs = {subject(one) for one in seen.controllers if one.device_model == name}
        if theirs <= leaving and (theirs or policy.prune):
            idle.add(f"device-model:{name}")
    return idle


def stands_on(part: Controller | Device, topology: Topology) -> set[str]:
    """Return the subjects that the part stands on: hubs, card readers and controllers."""
    if isinstance(part, Controller):
        return set() if part.place is None else _way(part.place.controller, part.place.port)
    if part.family == "usb":
        return _way(part.controller, part.port) - {subject(part)}
    if part.family != "ccid":
        return {f"controller:{part.family}:{part.controller}"}
    readers = {f"controller:{one.family}:{one.index}": one for one in topology.controllers if one.family == "ccid"}
    id = f"controller:ccid:{part.controller}"
    return {id} | stands_on(readers[id], topology)


def _way(controller: int, port: str) -> set[str]:
    way = {f"controller:usb:{controller}"}
    while port:
        way.add(f"device:usb:{controller}:{port}")
        port = port.rpartition(".")[0]
    return way


def _model(topology: Topology, index: int) -> str | None:
    return next((one.device_model for one in topology.controllers if (one.family, one.index) == ("usb", index)), None)


def _model_of(topology: Topology, device: Device) -> str | None:
    if device.family == "usb":
        return _model(topology, device.controller)
    return next((one.device_model for one in topology.controllers if one.family == device.family), None)


# What is said


def _exchanged(topology: Topology, before: Controller | Device, after: Controller | Device) -> Diagnostic:
    """Say what the guest will see of an exchange."""
    source = after.source
    if isinstance(before, Controller) and isinstance(after, Controller):
        moved = sum(device.family == "usb" and device.controller == before.index for device in topology.devices)
        same = before.interface == after.interface
        what = f"controller {after.index}: {_told(after)} takes the place of {_told(before)}"
        sees = (
            f"the guest sees it and {_devices(moved)} unplugged and plugged in again"
            if same
            else f"the guest sees {before.interface} go with {_devices(moved)}, and {after.interface} come, "
            "for which it needs a driver"
        )
    else:
        what = f"{subject(after)}: {_told(after)} takes the place of {_told(before)}"
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
            f"port {before.port} of controller {before.controller} is held by {_told(before)}, "
            f"and the document puts {_told(after)} there",
            "--prune removes it; or give the document's device another port",
            after.source,
        )
    return HostError(
        "T414",
        f"{subject(before)} on the host is {_told(before)}, and the document wants {_told(after)}",
        "--replace exchanges them, which the guest sees; or give the document's controller another index",
        after.source,
    )


def _told(part: Controller | Device) -> str:
    if isinstance(part, Device):
        return f"host device {part.host.selector}" if part.host else f"a {part.kind}"
    return f"{part.model} ({part.type}, {part.ports} ports)"


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
                "remove it first: somebody else has made it",
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
