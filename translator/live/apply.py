"""A running domain is made to match a plan: observe, compare, do only what differs, observe again."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.errors import HostError
from translator.layouts.identity import still_runs
from translator.live.basis import based, policy_of, transition_as_planned
from translator.live.binding import bind
from translator.live.observe import observe
from translator.live.performer import Performer
from translator.live.preflight import check_guest_type, preflight
from translator.live.probe import check
from translator.live.transition import ADD_ONLY, Policy, room_for, transition
from translator.planning.plan import Transaction
from translator.saga.confirm import confirmation
from translator.saga.execute import execute
from translator.saga.journal import Intent
from translator.saga.outcome import Applied, telling
from translator.saga.state import State, boot_id, key_of
from translator.topology import NIL_UUID, PRIMARY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from translator.errors import Diagnostic
    from translator.hosts.xenview import View
    from translator.live.host import Host
    from translator.live.observe import Observation
    from translator.planning.plan import Plan, Step
    from translator.saga.outcome import StepEvent
    from translator.topology import DomainIdentity, Place


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
    async with work_on(host, bound.topology.domain.domid, dry_run=dry_run) as work:
        applied = await bring_about(
            bound,
            host,
            work,
            policy=policy,
            dry_run=dry_run,
            on_step=on_step,
            confirm_s=confirm_s,
            on_confirm=on_confirm,
            notes=tuple(note for note in bound.diagnostics if note not in plan.diagnostics),
        )
    return applied._replace(plan=based(bound, applied, policy)) if dry_run else applied


class Work(NamedTuple):
    """A piece of work on one domain: where its journal goes, if anywhere, and a Xen domain's nodes as seen by it."""

    kept: tuple[State, str] | None
    nodes: View | None


@asynccontextmanager
async def work_on(host: Host, domid: int | None, *, dry_run: bool = False) -> AsyncIterator[Work]:
    """Keep everybody else from working on the domain meanwhile; for a `dry_run`, nobody.

    What is seen of xenstore is seen in one transaction, in which the first step goes on.

    Raises:
        HostError: T504, somebody else is at work for too long.
    """
    async with AsyncExitStack() as stack:
        kept = None
        if host.state is not None and not dry_run:
            kept = state, key = State(host.state), key_of(domid, host.monitor_path(PRIMARY, domid))
            await stack.enter_async_context(state.lock(key, host.lock_timeout_s))
        # not before: whoever has the lock may want the monitor, which serves one client at a time
        await stack.enter_async_context(host.using(domid))
        nodes = None
        if domid is not None:
            nodes = await stack.enter_async_context((await host.xenstore()).snapshot())
        yield Work(kept, nodes)


async def bring_about(
    plan: Plan,
    host: Host,
    work: Work,
    *,
    policy: Policy,
    dry_run: bool = False,
    on_step: Callable[[StepEvent], None] | None = None,
    confirm_s: float | None = None,
    on_confirm: Callable[[float], None] | None = None,
    notes: tuple[Diagnostic, ...] = (),
    place: Place | None = None,
) -> Applied:
    """Do as `apply` with a plan that is bound to its host, on whose domain we are at work; `notes` are told too.

    With a `place`, as for `observe`, the plan is of what was seen there.
    """
    if work.kept is not None:
        state, key = work.kept
        state.refuse_unfinished(key, plan.topology.domain)
    elif confirm_s is not None:
        raise ValueError("who waits for a confirmation does something, and keeps a journal of it")
    topology = plan.topology
    domid = topology.domain.domid
    emulated = any(controller.type == "emulated" for controller in topology.controllers)

    async def look(nodes: View | None) -> Observation:
        return await observe(
            host, domid=domid, layout=topology.layout, expect_qmp=emulated, like=topology, nodes=nodes, place=place
        )

    before = after = await look(work.nodes)
    _same_domain(plan, before)
    if work.nodes is not None:
        await check_guest_type(plan, work.nodes)
    change = transition(before, plan, policy) if plan.basis is None else transition_as_planned(before, plan)
    steps = change.steps
    notes = (*notes, *change.notes)
    if steps:
        room_for(change.additions, before, change.removals)
        if work.nodes is not None:
            await preflight(plan, change, host, work.nodes)
        await check(change.additions, host, domid, before.topology.domain.machine)
    if dry_run or not steps:
        return Applied(steps, before, notes)

    async def verify() -> None:
        nonlocal after
        after = await look(performer.seen)
        left = transition(after, plan, policy)
        # what was forced to go may be on its way still
        unfinished = left.additions if policy.force else left.steps
        if unfinished:
            raise HostError(
                "T503",
                f"every step succeeded, and yet the host needs {', '.join(step.id for step in unfinished)}",
                "something else changes this domain at the same time; look with: translator observe",
            )

    # the host's own identity of the domain: a document may leave the UUID out
    domain = msgspec.structs.replace(topology.domain, uuid=before.topology.domain.uuid)
    # and it is the one that was looked at, whatever has its id and its name by the time of a step
    performer = Performer(host, domid, guards=still_runs(domain), snapshot=work.nodes)
    backwards = performer.backwards()
    tell = telling(on_step, domain)
    if work.kept is None:
        await execute(steps, performer, verify=verify, on_step=tell, backwards=backwards)
        return Applied(steps, after, notes)
    async with state.record(key, await intent_of(steps, host, domain, work.nodes)) as journal:

        async def confirm() -> None:
            assert confirm_s is not None
            # whoever has to decide wants to look, and a monitor serves one client at a time
            async with host.resting(domid):
                if on_confirm is not None:
                    on_confirm(confirm_s)
                confirmed = await confirmation(state, journal, confirm_s)
            if not confirmed:
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
            on_step=tell,
            record=journal,
            backwards=backwards,
        )
    return Applied(steps, after, notes)


async def intent_of(steps: tuple[Step, ...], host: Host, domain: DomainIdentity, nodes: View | None) -> Intent:
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
    if nodes is not None:
        # the innermost first: where that is, those around it are too
        absent = tuple(sorted([path for path in reversed(directories) if await nodes.is_absent(path)]))
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
