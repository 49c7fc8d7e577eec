"""A running domain is made to match a plan: observe, compare, do only what differs, observe again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import msgspec

from translator.diff import diff, subject
from translator.errors import Diagnostic, HostError, PlanError
from translator.execute import execute
from translator.host import Performer
from translator.observe import observe
from translator.outcome import Applied
from translator.plan import QmpCommand, Transaction, Wait
from translator.topology import Controller, Device

if TYPE_CHECKING:
    from collections.abc import Callable

    from translator.host import Host
    from translator.observe import Observation
    from translator.outcome import StepEvent
    from translator.plan import Plan, Step


async def apply(
    plan: Plan, host: Host, *, dry_run: bool = False, on_step: Callable[[StepEvent], None] | None = None
) -> Applied:
    """Make the domain match the plan, all or nothing; what already does is left alone.

    Success means that the host was seen to match. With `dry_run` nothing is done, and the steps are those
    that would be.

    Raises:
        HostError: the host refused, holds something else in a place that the plan needs, or cannot be reached;
            it is as it was before.
        RollbackError: it is not.
    """
    plan = await bind(plan, host)
    topology = plan.topology
    domid = topology.domain.domid
    emulated = any(controller.type == "emulated" for controller in topology.controllers)

    async def look() -> Observation:
        return await observe(host, domid=domid, layout=topology.layout, expect_qmp=emulated, like=topology)

    before = after = await look()
    _same_domain(plan, before)
    steps = outstanding(plan, before)
    if dry_run or not steps:
        return Applied(steps, before)
    _room_for(steps, before)

    async def verify() -> None:
        nonlocal after
        after = await look()
        left = outstanding(plan, after)
        if left:
            raise HostError(
                "T503",
                f"every step succeeded, and yet the host lacks {', '.join(step.id for step in left)}",
                "something else changes this domain at the same time; look with: translator observe",
            )

    await execute(steps, Performer(host, domid), verify=verify, on_step=on_step)
    return Applied(steps, after)


async def bind(plan: Plan, host: Host) -> Plan:
    """Return the plan with the host's facts in place of its placeholders.

    Raises:
        HostError: a host device or a backend domain is not there.
    """
    if plan.topology.domain.hypervisor == "xen" and plan.topology.domain.domid is None:
        raise HostError("T403", "it is not said which running domain is meant", "name it: --domid N or --name NAME")
    if plan.topology.domain.domid == 0:
        raise HostError("T403", "domain 0 is the host itself", "name the guest: --domid N or --name NAME")
    hostdevs = {}
    for device in plan.topology.devices:
        if device.host is not None:
            try:
                hostdevs[device.host.selector] = host.sysfs.find(device.host)
            except HostError as error:
                raise HostError(error.code, error.message, error.help, device.source) from error
    served_by = {one.backend for one in plan.topology.controllers if one.backend is not None}
    backends = {}
    for backend in sorted(served_by, key=str):
        if isinstance(backend, str):
            backends[backend] = await domid_of(host, backend)
        elif backend != 0 and await (await host.xenstore()).read(f"/local/domain/{backend}/name") is None:
            raise HostError("T403", f"there is no backend domain {backend}", "see `xl list` for those that run")
    return plan.bind(domid=plan.topology.domain.domid, backends=backends, hostdevs=hostdevs)


async def domid_of(host: Host, name: str) -> int:
    """Return the id of the running domain of that name."""
    xenstore = await host.xenstore()
    found = [
        int(domid)
        for domid in await xenstore.children("/local/domain") or ()
        if domid.isdigit() and await xenstore.read(f"/local/domain/{domid}/name") == name
    ]
    if len(found) != 1:
        what = f"{len(found)} domains are" if found else "no running domain is"
        raise HostError("T403", f"{what} called {name!r}", "name it by its id" if found else "see `xl list`")
    return found[0]


def outstanding(plan: Plan, seen: Observation) -> tuple[Step, ...]:
    """Return the plan's steps whose effect is not there yet, in the plan's order.

    Raises:
        HostError: T414 something else is where the plan needs room; T415 what is missing cannot be added to a
            machine that runs.
    """
    missing: set[str] = set()
    for change in diff(seen.topology, plan.topology):
        if change.action == "add":
            missing.add(change.id)
        elif (
            change.before is not None
            and change.after is not None
            and not (change.id in seen.lacking and _record_fits(change.before, change.after))
        ):
            raise _held(change.before, change.after)
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
        _by_itself(step) if step.id in seen.lacking else step
        for step in plan.steps
        if step.id in seen.lacking or step.subject in missing
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


def _room_for(steps: tuple[Step, ...], seen: Observation) -> None:
    """Refuse before the first step what QEMU would refuse in the middle: a name or a port that is taken."""
    for step in steps:
        if not isinstance(step.action, QmpCommand):
            continue
        arguments = step.action.arguments
        if arguments.get("id") in seen.ids:
            raise HostError(
                "T414",
                f"QEMU has a device {arguments['id']!r} that is not the document's {step.subject}",
                "remove it first: somebody else has made it",
                step.source,
            )
        what, _, place = step.subject.partition(":usb:")
        index, _, port = place.partition(":")
        if what == "device" and (driver := seen.foreign.get((int(index), port))) is not None:
            raise HostError(
                "T414",
                f"port {port} of controller {index} is held by a {driver}, which the document does not name",
                "detach it first, or give the document's device another port",
                step.source,
            )


def _same_domain(plan: Plan, seen: Observation) -> None:
    wanted, found = plan.topology.domain, seen.topology.domain
    if wanted.uuid:
        # what a QEMU says that was started without -uuid tells nothing
        nil = wanted.hypervisor != "xen" and found.uuid == "00000000-0000-0000-0000-000000000000"
        same = nil or found.uuid == wanted.uuid
    else:
        same = found.name == wanted.name or (wanted.hypervisor != "xen" and not found.name)
    if not same:
        raise HostError(
            "T404",
            f"the running domain is {found.name!r} with UUID {found.uuid}, "
            f"and the plan is for {wanted.name!r} with UUID {wanted.uuid}",
            "a domid is given again after its domain is gone: look with `xl list`"
            if wanted.hypervisor == "xen"
            else "the monitor is another domain's",
        )


def _held(before: Controller | Device, after: Controller | Device) -> HostError:
    if isinstance(before, Device) and isinstance(after, Device):
        return HostError(
            "T414",
            f"port {before.port} of controller {before.controller} is held by {_device(before)}, "
            f"and the document puts {_device(after)} there",
            "detach it first, or give the document's device another port",
            after.source,
        )
    return HostError(
        "T414",
        f"{subject(before)} on the host is {_controller(before)}, and the document wants {_controller(after)}",
        "remove it from the domain first, or give the document's controller another index",
        after.source,
    )


def _device(device: Device) -> str:
    return f"host device {device.host.selector}" if device.host else f"a {device.kind}"


def _controller(part: Controller | Device) -> str:
    if isinstance(part, Device):
        return _device(part)
    return f"{part.model} ({part.type}, {part.ports} ports)"
