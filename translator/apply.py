"""A running domain is made to match a plan: observe, compare, do only what differs, observe again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from translator.basis import based, policy_of, transition_as_planned
from translator.binding import MISSING, bind
from translator.confirm import confirmation
from translator.errors import HostError
from translator.execute import execute
from translator.host import Performer
from translator.journal import Intent
from translator.observe import observe
from translator.outcome import Applied
from translator.plan import Transaction
from translator.preflight import check_guest_type, preflight
from translator.probe import check
from translator.state import State, boot_id, key_of
from translator.topology import NIL_UUID, PRIMARY
from translator.transition import ADD_ONLY, Policy, room_for, transition

if TYPE_CHECKING:
    from collections.abc import Callable

    from translator.host import Host
    from translator.observe import Observation
    from translator.outcome import StepEvent
    from translator.plan import Plan, Step
    from translator.topology import DomainIdentity


async def apply(
    plan: Plan,
    host: Host,
    *,
    policy: Policy = ADD_ONLY,
    dry_run: bool = False,
    on_step: Callable[[StepEvent], None] | None = None,
    confirm_s: float | None = None,
    on_confirm: Callable[[float], None] | None = None,
) -> Applied:
    """Make the domain match the plan, all or nothing; what already does is left alone.

    Success means that the host was seen to match. With `dry_run` nothing is done, the steps are those that would be,
    and a plan of them comes back that was made against this host. Such a plan is carried out as it stands, and only
    while the host is as it was then; it says itself what may be removed. For another one `policy` does; nothing may,
    by itself. With `confirm_s` all is taken back again unless `translator commit` comes within so many seconds;
    `on_confirm` is told when they begin.

    Raises:
        HostError: the host refused, holds something else in a place that the plan needs, is not as it was when the
            plan was made against it (T426), or cannot be reached; it is as it was before.
        RollbackError: it is not, and a journal stays for `translator recover`.
        ValueError: a policy was given for a plan that has one.
    """
    _running(plan)
    if plan.basis is not None:
        if policy not in (ADD_ONLY, policy_of(plan.basis)):
            raise ValueError("a plan that was made against a host says itself what may be removed")
        policy = policy_of(plan.basis)
    bound = await bind(plan, host)
    applied = await bring_about(
        bound,
        host,
        policy=policy,
        dry_run=dry_run,
        on_step=on_step,
        confirm_s=confirm_s,
        on_confirm=on_confirm,
    )
    return applied._replace(plan=based(bound, applied, policy)) if dry_run else applied


async def bring_about(
    plan: Plan,
    host: Host,
    *,
    policy: Policy,
    dry_run: bool = False,
    on_step: Callable[[StepEvent], None] | None = None,
    confirm_s: float | None = None,
    on_confirm: Callable[[float], None] | None = None,
) -> Applied:
    """Do as `apply` with a plan that is bound to its host."""
    if host.state is None or dry_run:
        if confirm_s is not None:
            raise ValueError("who waits for a confirmation does something, and keeps a journal of it")
        return await _bring_about(plan, host, policy, None, dry_run=dry_run, on_step=on_step)
    state = State(host.state)
    domain = plan.topology.domain
    key = key_of(domain.domid, host.monitor_path(PRIMARY, domain.domid))

    async def let_go() -> None:
        # a monitor serves one client at a time, and whoever holds the lock may want it before we do
        await host.release(domain.domid)

    async with state.lock(key, host.lock_timeout_s, before_waiting=let_go):
        state.refuse_unfinished(key, domain)
        return await _bring_about(
            plan, host, policy, (state, key), on_step=on_step, confirm_s=confirm_s, on_confirm=on_confirm
        )


async def _bring_about(
    plan: Plan,
    host: Host,
    policy: Policy,
    kept: tuple[State, str] | None,
    *,
    dry_run: bool = False,
    on_step: Callable[[StepEvent], None] | None,
    confirm_s: float | None = None,
    on_confirm: Callable[[float], None] | None = None,
) -> Applied:
    topology = plan.topology
    domid = topology.domain.domid
    emulated = any(controller.type == "emulated" for controller in topology.controllers)

    async def look() -> Observation:
        return await observe(host, domid=domid, layout=topology.layout, expect_qmp=emulated, like=topology)

    before = after = await look()
    _same_domain(plan, before)
    await check_guest_type(plan, host)
    change = transition(before, plan, policy) if plan.basis is None else transition_as_planned(before, plan)
    steps = change.steps
    notes = (*(found for found in plan.diagnostics if found.code == MISSING), *change.notes)
    if steps:
        room_for(change.additions, before, change.removals)
        await preflight(plan, change, host)
        await check(change.additions, host, domid, before.topology.domain.machine)
    if dry_run or not steps:
        return Applied(steps, before, notes)

    async def verify() -> None:
        nonlocal after
        after = await look()
        left = transition(after, plan, policy)
        # what was forced to go may be on its way still
        unfinished = left.additions if policy.force else left.steps
        if unfinished:
            raise HostError(
                "T503",
                f"every step succeeded, and yet the host needs {', '.join(step.id for step in unfinished)}",
                "something else changes this domain at the same time; look with: translator observe",
            )

    performer = Performer(host, domid)
    if kept is None:
        await execute(steps, performer, verify=verify, on_step=on_step)
        return Applied(steps, after, notes)
    state, key = kept
    # the host's own identity of the domain: a document may leave the UUID out
    domain = msgspec.structs.replace(topology.domain, uuid=before.topology.domain.uuid)
    async with state.record(key, await intent_of(steps, host, domain)) as journal:

        async def confirm() -> None:
            assert confirm_s is not None
            # whoever has to decide wants to look, and a monitor serves one client at a time
            await host.release(domid)
            if on_confirm is not None:
                on_confirm(confirm_s)
            if not await confirmation(state, journal, confirm_s):
                raise HostError(
                    "T508",
                    f"not confirmed within {confirm_s:g} s",
                    "apply it again, and confirm it in time with: translator commit",
                )

        await execute(
            steps,
            performer,
            verify=verify,
            confirm=None if confirm_s is None else confirm,
            on_step=on_step,
            record=journal,
        )
    return Applied(steps, after, notes)


async def intent_of(steps: tuple[Step, ...], host: Host, domain: DomainIdentity) -> Intent:
    """Return what another process needs to know to take the steps back, or to finish them."""
    directories = sorted(
        {
            operation.path
            for step in steps
            if isinstance(step.undo, Transaction)
            for operation in step.undo.transaction
            if operation.op == "rm-empty"
        }
    )
    absent: tuple[str, ...] = ()
    if directories:
        store = await host.xenstore()
        values = await asyncio.gather(*map(store.read, directories))
        absent = tuple(path for path, value in zip(directories, values, strict=True) if value is None)
    models = {step.device_model or PRIMARY for step in steps if step.target == "qmp"}
    return Intent(
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        boot=boot_id(),
        domain=domain,
        xenstore=str(host.xenstore_path.absolute()),
        qmp={model: str(host.monitor_path(model, domain.domid).absolute()) for model in sorted(models)},
        sysfs=str(host.sysfs_root.absolute()),
        timeout_s=host.timeout_s,
        absent=absent,
        process=(await host.qmp(PRIMARY, None)).process if domain.domid is None else None,
        steps=steps,
    )


def _running(plan: Plan) -> None:
    """Refuse a plan that does not say which running domain it is for."""
    domain = plan.topology.domain
    if domain.hypervisor == "xen" and domain.domid is None:
        raise HostError("T403", "it is not said which running domain is meant", "name it: --domid N or --name NAME")
    if domain.domid == 0:
        raise HostError("T403", "domain 0 is the host itself", "name the guest: --domid N or --name NAME")


def _same_domain(plan: Plan, seen: Observation) -> None:
    wanted, found = plan.topology.domain, seen.topology.domain
    if wanted.uuid:
        # what a QEMU says that was started without -uuid tells nothing
        nil = wanted.hypervisor != "xen" and found.uuid == NIL_UUID
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
