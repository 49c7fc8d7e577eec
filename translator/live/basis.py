"""A plan that was made against a host: what was seen there goes along with it, and it is for no other state of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from translator.errors import HostError, PlanError
from translator.live.transition import Policy, transition
from translator.planning.plan import Basis, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from translator.live.observe import Observation
    from translator.live.transition import Transition
    from translator.planning.plan import Step
    from translator.saga.outcome import Applied
    from translator.topology import Topology

_MOST_TOLD = 10  # differences; the rest are counted


def based(plan: Plan, applied: Applied, policy: Policy) -> Plan:
    """Return the plan with the steps that a dry run came to, and with what was seen of the host."""
    basis = Basis(
        topology=_lasting(applied.observation.topology),
        lacking=tuple(sorted(_parts(applied.observation.lacking))),
        prune=policy.prune,
        replace=policy.replace,
        force=policy.force,
    )
    return msgspec.structs.replace(plan, steps=applied.steps, basis=basis)


def policy_of(basis: Basis) -> Policy:
    """Return how far the domain may be changed."""
    return Policy(prune=basis.prune, replace=basis.replace, force=basis.force)


def transition_as_planned(seen: Observation, plan: Plan) -> Transition:
    """Return what makes the domain match the plan: the plan's own steps, or none where it matches already.

    Raises:
        HostError: T426, the domain is not as it was when the plan was made against it.
    """
    assert plan.basis is not None, "made against a host"
    since = list(_since(plan.basis, seen))
    try:
        found = transition(seen, plan, policy_of(plan.basis))
    except (HostError, PlanError) as error:
        if since:
            raise _stale(since) from error
        raise
    if not found.steps:
        return found
    since = since or list(_other_steps(plan.steps, found.steps))
    if since:
        raise _stale(since)
    return found


def _lasting(topology: Topology) -> Topology:
    """Return what was seen without what changes by itself: the states of the guest's own drivers."""
    controllers = tuple(msgspec.structs.replace(one, frontend=None) for one in topology.controllers)
    return msgspec.structs.replace(topology, controllers=controllers)


def _parts(ids: Iterable[str]) -> frozenset[str]:
    """Return the ids without those of the backends' answers, which come and go by themselves."""
    return frozenset(id for id in ids if not id.endswith(":backend"))


def _since(then: Basis, now: Observation) -> Iterator[str]:
    """Yield what has become of the domain, in words."""
    from translator.comparison.compare import compare
    from translator.comparison.review import happened

    old, new = (Plan(topology=_lasting(topology), steps=()) for topology in (then.topology, now.topology))
    yield from map(happened, compare(old, new).changes)
    lacking = _parts(now.lacking)
    yield from (f"{id} is not there any more" for id in sorted(lacking.difference(then.lacking)))
    yield from (f"{id} is there now" for id in then.lacking if id not in lacking)


def _other_steps(planned: Sequence[Step], needed: Sequence[Step]) -> Iterator[str]:
    """Yield which steps it needs now and did not, and the other way round: for what is of no kind of ours."""
    before, after = (_parts(step.id for step in steps) for steps in (planned, needed))
    yield from (f"{id} is needed now" for id in sorted(after - before))
    yield from (f"{id} is not needed any more" for id in sorted(before - after))


def _stale(since: Sequence[str]) -> HostError:
    from translator.output.escape import visible

    rest = len(since) - _MOST_TOLD
    told = "; ".join(map(visible, since[:_MOST_TOLD])) + (f"; and {rest} more" if rest > 0 else "")
    return HostError(
        "T426",
        f"the domain is not as it was when the plan was made: {told}",
        "make the plan again, and look at what it does now: translator apply --dry-run --format json",
    )
