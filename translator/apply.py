"""A running domain is made to match a plan: observe, compare, do only what differs, observe again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from translator.diff import diff, subject
from translator.errors import HostError
from translator.execute import execute
from translator.observe import Observation, observe
from translator.topology import Device

if TYPE_CHECKING:
    from collections.abc import Callable

    from translator.execute import StepEvent
    from translator.host import Host
    from translator.plan import Plan, Step
    from translator.topology import Controller


class Applied(NamedTuple):
    """What was done, and what the host looked like afterwards."""

    steps: tuple[Step, ...]
    observation: Observation


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
    domid, layout = plan.topology.domain.domid, plan.topology.layout
    emulated = any(controller.type == "emulated" for controller in plan.topology.controllers)
    before = await observe(host, domid=domid, layout=layout, expect_qmp=emulated)
    _same_domain(plan, before)
    steps = outstanding(plan, before)
    if dry_run or not steps:
        return Applied(steps, before)
    after = before

    async def verify() -> None:
        nonlocal after
        after = await observe(host, domid=domid, layout=layout, expect_qmp=emulated)
        left = outstanding(plan, after)
        if left:
            raise HostError(
                "T503",
                f"every step succeeded, and yet the host lacks {', '.join(step.id for step in left)}",
                "something else changes this domain at the same time; look with: translator observe",
            )

    await execute(steps, host, verify=verify, on_step=on_step)
    return Applied(steps, after)


async def bind(plan: Plan, host: Host) -> Plan:
    """Return the plan with the host's facts in place of its placeholders.

    Raises:
        HostError: a host device or a backend domain is not there.
    """
    if plan.topology.domain.hypervisor == "xen" and plan.topology.domain.domid is None:
        raise HostError("T403", "it is not said which running domain is meant", "name it: --domid N or --name NAME")
    hostdevs = {device.host.selector: host.sysfs.find(device.host) for device in plan.topology.devices if device.host}
    names = {one.backend for one in plan.topology.controllers if isinstance(one.backend, str)}
    backends = {name: await domid_of(host, name) for name in sorted(names)}
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
    todo = set(seen.lacking)
    for change in diff(seen.topology, plan.topology):
        if change.action == "add":
            todo |= {step.id for step in plan.steps if step.subject == change.id}
        elif change.action == "change" and change.before is not None and change.after is not None:
            raise _held(change.before, change.after)
    steps = tuple(step for step in plan.steps if step.id in todo)
    launch = [step for step in steps if step.stage == "launch"]
    if launch:
        raise HostError(
            "T415",
            f"QEMU cannot be given {', '.join(step.id for step in launch)} while it runs",
            "start it with: " + " ".join(shlex.join(step.launch_words) for step in launch),
        )
    return steps


def _same_domain(plan: Plan, seen: Observation) -> None:
    wanted, found = plan.topology.domain, seen.topology.domain
    nil = "00000000-0000-0000-0000-000000000000"  # what a QEMU says that was started without -uuid
    if wanted.uuid and found.uuid not in (None, nil, wanted.uuid):
        raise HostError(
            "T404",
            f"the running domain is {found.name!r} with UUID {found.uuid}, "
            f"and the plan is for {wanted.name!r} with UUID {wanted.uuid}",
            "a domid is given again after its domain is gone: look with `xl list`",
        )


def _held(before: Controller | Device, after: Controller | Device) -> HostError:
    if isinstance(before, Device) and isinstance(after, Device):
        return HostError(
            "T414",
            f"port {before.port} of controller {before.controller} is held by {_device(before)}, "
            f"and the document puts {_device(after)} there",
            "detach it first, or give the document's device another port",
        )
    return HostError(
        "T414",
        f"{subject(before)} on the host is {_controller(before)}, and the document wants {_controller(after)}",
        "remove it from the domain first, or give the document's controller another index",
    )


def _device(device: Device) -> str:
    return f"host device {device.host.selector}" if device.host else f"a {device.kind}"


def _controller(part: Controller | Device) -> str:
    if isinstance(part, Device):
        return _device(part)
    return f"{part.model} ({part.type}, {part.ports} ports)"
