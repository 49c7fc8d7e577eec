"""What is to go, compiled as if it were to come, and turned around: the last step first, actions for undos.

What an undo is by itself, and what an action has to be, differ: an action makes sure which domain it is for, takes
along the directories that become empty, and waits for a guest that has to let go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from translator.errors import HostError
from translator.layouts import CLOSING, CONNECTED, INIT_WAIT, INITIALISED, UNKNOWN, layout_named, vscsi
from translator.live.binding import seen_scsi
from translator.planning.compile import compile_plan
from translator.planning.plan import LaunchOption, QmpCommand, Step, SysfsWrites, Transaction, Wait
from translator.planning.subjects import model_at, model_of, parts_of, subject, told
from translator.topology import Controller, Device

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from translator.live.observe import Observation
    from translator.live.transition import Policy
    from translator.planning.plan import Action, XenstoreOp
    from translator.topology import Topology


def removal(seen: Observation, leaving: Iterable[str], *, force: bool = False) -> tuple[Step, ...]:
    """Return the steps that remove what was seen, by subjects; what stands on a subject has to be among them.

    Raises:
        HostError: T435, QEMU has it for as long as it runs.
    """
    topology, wanted = seen.topology, set(leaving)
    parts = parts_of(topology)
    hosts = {device.host.selector: device.host for device in topology.devices if device.host}
    plan = compile_plan(topology, running=True).bind(hostdevs=hosts, interfaces=seen.lent, scsi=seen_scsi(topology))
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
                turned += _let_go(step, part, seen, force=force)
                continue
            assert isinstance(part, Controller)
            turned += _released(step, part, seen, force=force)
        else:
            turned.append(_turned(step, part, waits.get(step.subject), force=force))
            if isinstance(part, Device) and part.family == "scsi" and part.driver is None:
                # its nodes come back as they were, and what let it go gives it again
                turned[-1] = msgspec.structs.replace(turned[-1], undo=_farewell_of(part, topology).back)
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
                raise HostError("T435", f"{told(part)} has no name in QEMU, which could be told to let go of it")
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


def _let_go(step: Step, part: Controller | Device, seen: Observation, *, force: bool) -> Iterator[Step]:
    """Let the guest and scsiback agree on the end of a SCSI controller or a device of it; by force they are told."""
    if step.id.endswith(":settled"):
        return
    farewell = _farewell_of(part, seen.topology)
    if not force:
        why = f"Wait until scsiback has done with what it was told before {told(part)} is to go."
        yield _step(step, *farewell.ready, None, why, "settled")
    yield _step(step, *farewell.told, None, f"Tell the guest and scsiback that {told(part)} is to go.", "told")
    if not force:
        yield _step(step, *farewell.gone, None, f"Wait until the guest has let go of {told(part)}.")


def _farewell_of(part: Controller | Device, topology: Topology) -> vscsi.Farewell:
    if isinstance(part, Controller):
        return vscsi.leave_controller(topology.domain, part)
    own = (one for one in topology.controllers if (one.family, one.index) == ("scsi", part.controller))
    return vscsi.leave_device(topology.domain, next(own), part)


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
                device_model=model_of(topology, device),
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


def foreign(seen: Observation, leaving: set[str], policy: Policy) -> Iterator[Step]:
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
            device_model=model_at(seen.topology, index),
            action=QmpCommand("device_del", {"id": device.id}),
            undo=None,
            undo_reason=f"a {device.driver} is of no kind that is known here",
            why=f"Unplug the {device.driver} from port {port} of controller {index}, which somebody else has made.",
            source=None,
        )


def _step(
    step: Step, action: Action, undo: Action | None, reason: str | None, why: str, part: str | None = None
) -> Step:
    part = step.id.removeprefix(step.subject).removeprefix(":") if part is None else part
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
            return f"Unplug {told(part)} from {where}."
        if isinstance(step.action, SysfsWrites):
            return f"Give {told(part)} back to its own drivers."
        if step.id.endswith(":drivers"):
            return f"Forget which drivers {told(part)} had, now that it has them again."
        return f"Take {told(part)} off {where}."
    what = f"{part.model} controller {part.index}"
    if isinstance(step.action, QmpCommand):
        return f"Unplug the {what}; the guest has to let go of it."
    if part.type == "emulated":
        return f"Take the record of controller {part.index} from where the toolstack looks for it."
    return f"Remove {what} from the guest's and the backend's view."
