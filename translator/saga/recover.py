"""What a killed apply left is taken back, or finished: for each step that was begun, the host is asked.

A journal says which steps may be in effect; the host says which are. What is in effect is undone, newest first, or
what is not is carried out. A recovery that is killed itself leaves the same journal, and the next one looks again.

Where the domain has gone, or another one has its id, what would be the domain's own is nobody's, or not ours: only
what is left besides is taken away. After the host was started anew, or its QEMU, nothing is left at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from translator.errors import HostError, RollbackError
from translator.hosts.qmp import MonitorGone
from translator.layouts.identity import gone, remains, still_runs
from translator.live.host import Host
from translator.live.performer import Performer
from translator.planning.plan import QmpCommand, SysfsWrites, Transaction, Wait, XenstoreOp
from translator.saga.execute import execute
from translator.saga.look import REMOVALS, look, written
from translator.saga.outcome import telling
from translator.saga.state import State, boot_id, finish
from translator.saga.undo import roll_back
from translator.saga.whole import to_the_end
from translator.topology import PRIMARY, DomainIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from translator.planning.plan import Step
    from translator.saga.journal import Content, Intent, Journal, Outcome
    from translator.saga.outcome import StepEvent
    from translator.saga.state import Found

# `gone`: nothing runs under the id; `other`: another domain does; `restarted`: another QEMU listens at the monitor's
# place, and says the same of its domain; `rebooted`: the host was started anew.
Whereabouts = Literal["same", "gone", "other", "restarted", "rebooted"]

Result = Literal["rolled-back", "finished", "kept", "running"]


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one journal.

    `result` is `kept` for an apply that was confirmed, and `running` for one that somebody still works on;
    `steps` are the ids of those that were undone or carried out, and `left` those that somebody else has changed
    since, which are left as they are.
    """

    domain: DomainIdentity
    journal: str
    result: Result
    whereabouts: Whereabouts
    steps: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


async def recover(
    state: str | Path,
    found: Found,
    *,
    resume: bool = False,
    timeout_s: float | None = None,
    lock_timeout_s: float = 0.0,
    on_step: Callable[[StepEvent], None] | None = None,
) -> Recovered:
    """Take back what the journal's apply did, or finish it.

    Args:
        state: the directory that the journal is in.
        found: the journal; see `State.journals`.
        timeout_s: for each request and wait; the apply's own if None.

    Raises:
        HostError: T501, it could not be finished, and all was taken back.
        RollbackError: T506, the journal is damaged; T510, its domain is gone, and it cannot be finished; T513, it
            cannot be taken back; T502, something could not be undone, or what kept us from the host; the journal
            stays. T507, all was undone or done, and the journal cannot be removed.
    """
    directory = State(state)
    if isinstance(found.content, RollbackError):
        raise found.content
    try:
        async with directory.lock(found.key, lock_timeout_s):
            now = _again(directory, found) or found
            directory.clear(found.key)
            again = _again(directory, found)
            if again is None:
                return Recovered(
                    domain=found.content.intent.domain, journal=found.path, result=_ended(now), whereabouts="same"
                )
            journal = directory.open(again)
            try:
                return await _recover(journal, resume, timeout_s, telling(on_step, journal.content.intent.domain))
            finally:
                journal.close()
    except HostError as error:
        if error.code == "T504":
            return Recovered(
                domain=found.content.intent.domain, journal=found.path, result="running", whereabouts="same"
            )
        if error.code == "T501" or isinstance(error, RollbackError):
            raise
        # the journal stays, and so does what it tells of
        stuck = tuple(step.id for step in reversed(found.content.begun))
        raise RollbackError(error.code, error.message, error.help, error.source, stuck=stuck) from error


def _again(directory: State, found: Found) -> Found | None:
    return next((one for one in directory.journals() if one.path == found.path), None)


def _ended(found: Found) -> Result:
    """Tell how an apply ended that needs no recovery: its own end, or none as it had begun nothing."""
    if found.confirmed:
        return "kept"
    done = not isinstance(found.content, RollbackError) and found.content.outcome == "done"
    return "finished" if done else "rolled-back"


async def _recover(
    journal: Journal, resume: bool, timeout_s: float | None, tell: Callable[[StepEvent], None]
) -> Recovered:
    content = journal.content
    intent = content.intent
    async with Host(
        xenstore=intent.xenstore,
        qmp=intent.qmp,
        sysfs=intent.sysfs,
        timeout_s=intent.timeout_s if timeout_s is None else timeout_s,
    ) as host:
        async with host.using(intent.domain.domid):
            whereabouts = await where_is(intent, host)
            if resume and whereabouts != "same":
                raise HostError(
                    "T510",
                    f"{journal.path}: {_WHY_NOT[whereabouts].format(intent.domain.domid or intent.domain.name)}",
                    "what is left of it is taken away by: translator recover --rollback",
                    None,
                )
            if whereabouts == "same":
                work = _finish if resume else _take_back
                steps, left = await work(journal, content, host, tell)
            else:
                left = ()
                anew = whereabouts in ("restarted", "rebooted")
                steps = () if anew else await _clean(journal, content, host, whereabouts, tell)
        _end(journal, "done" if resume else "undone")
    return Recovered(
        domain=intent.domain,
        journal=journal.path,
        result="finished" if resume else "rolled-back",
        whereabouts=whereabouts,
        steps=steps,
        left=left,
    )


def _end(journal: Journal, outcome: Outcome) -> None:
    try:
        finish(journal, outcome)
    except HostError as error:
        # nothing is in between any more, but for the file
        raise RollbackError(error.code, error.message, error.help, stuck=()) from error


_WHY_NOT: Mapping[Whereabouts, str] = {
    "gone": "domain {} is gone, so its apply cannot be finished",
    "other": "another domain runs as {} by now, so the apply cannot be finished",
    "restarted": "another QEMU than before listens for domain {}, so the apply to that one cannot be finished",
    "rebooted": "the host was started anew, so the apply to domain {} cannot be finished",
}


async def where_is(intent: Intent, host: Host) -> Whereabouts:
    """Tell whether the journal's domain is still the one that runs."""
    domain = intent.domain
    if intent.boot != boot_id():
        return "rebooted"
    if domain.domid is None:
        try:
            monitor = await host.qmp(PRIMARY, None)
        except MonitorGone:
            return "gone"
        if (await monitor.machine()).uuid != domain.uuid:
            return "other"
        known = None not in (intent.process, monitor.process)
        return "restarted" if known and intent.process != monitor.process else "same"
    store = await host.xenstore()
    name, vm = await store.read(f"/local/domain/{domain.domid}/name"), await store.read(_vm(domain))
    if name is None and vm is None:
        return "gone"
    same = vm == f"/vm/{domain.uuid}" if domain.uuid else name == domain.name
    return "same" if same else "other"


class _Seen(NamedTuple):
    there: dict[int, Step]  # steps to undo, by number
    absent: dict[int, Step]  # begun or not, they are not in effect
    other: dict[int, Step]  # begun, and changed by somebody else since


async def _see(content: Content, host: Host, *, resume: bool) -> _Seen:
    """Look at every step of the journal, of the host whose domain is still the same.

    What has come half way is still to be done, or to be undone: a backend that has said something else than was
    waited for, and of several writes to /sys some. What has no effect to be seen is neither.
    """
    steps, marks = content.intent.steps, content.marks
    seen = _Seen({}, {}, {})
    for number, step in enumerate(steps):
        if marks[number] != "begun":
            seen.absent[number] = step
            continue
        later = (steps[after] for after in range(number + 1, len(steps)) if marks[after] == "begun")
        besides = frozenset[str]().union(*(written(other.action) for other in later))
        sight = await look(step.action, host, step.device_model, content.intent.domain.domid, besides=besides)
        if sight == "other" and isinstance(step.action, (Wait, SysfsWrites)):
            sight = "gone" if resume or await _has_left(step, host) else "there"
        elif sight == "nothing":
            sight = "there" if resume else "gone"
        {"there": seen.there, "gone": seen.absent, "other": seen.other}[sight][number] = step
    return seen


async def _has_left(step: Step, host: Host) -> bool:
    """Tell whether the answer is there that the undo of a wait waits for."""
    undo = step.undo
    if not isinstance(undo, Transaction) or undo.wait is None:
        return False
    return await look(undo.wait, host, None, None) == "there"


async def _take_back(
    journal: Journal, content: Content, host: Host, tell: Callable[[StepEvent], None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    seen = await _see(content, host, resume=False)
    for_good = [step for step in seen.there.values() if step.undo is None]
    if for_good:
        told = ", ".join(f"{step.id} ({step.undo_reason})" for step in for_good)
        raise RollbackError(
            "T513",
            f"{journal.path}: cannot be taken back, as nothing undoes {told}; nothing was changed",
            "finish it with: translator recover --resume",
            stuck=_ids(seen.there)[::-1],
        )
    performer = _performer(content.intent, host, still_runs(content.intent.domain)).backwards()
    await _undo(seen.there, journal, performer, tell)
    return _ids(seen.there), _ids(seen.other)


async def _finish(
    journal: Journal, content: Content, host: Host, tell: Callable[[StepEvent], None]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Carry out what is not in effect, as an apply does: if that fails, all of it is taken back."""
    intent = content.intent
    seen = await _see(content, host, resume=True)
    if seen.other:
        raise RollbackError(
            "T512",
            f"{journal.path}: somebody else has changed {', '.join(_ids(seen.other))} since",
            "take the rest back with: translator recover --rollback",
            stuck=_ids(seen.there)[::-1],
        )
    performer = _performer(intent, host, still_runs(intent.domain))

    async def verify() -> None:
        after = await _see(msgspec.structs.replace(content, marks=("begun",) * len(intent.steps)), host, resume=True)
        if len(after.there) < len(intent.steps):
            lacking = ", ".join(_ids({**after.absent, **after.other}))
            raise HostError("T503", f"every step succeeded, and yet the host lacks {lacking}")

    try:
        await execute(
            intent.steps,
            performer,
            verify=verify,
            on_step=tell,
            record=journal,
            done=seen.there,
            backwards=performer.backwards(),
        )
    except RollbackError:
        raise
    except BaseException:
        _end(journal, "undone")
        raise
    return _ids(seen.absent), ()


async def _clean(
    journal: Journal, content: Content, host: Host, whereabouts: Whereabouts, tell: Callable[[StepEvent], None]
) -> tuple[str, ...]:
    """Take away what is left of a domain that is gone, and what is not the domain's where another has its id."""
    intent = content.intent
    left = {}
    for number, (step, mark) in enumerate(zip(intent.steps, content.marks, strict=True)):
        rest = _remains(step, intent.domain, whereabouts) if mark == "begun" else None
        if rest is None:
            continue
        if rest.target != "qmp" or await look(rest.action, host, rest.device_model, intent.domain.domid) == "there":
            left[number] = rest
    domid = intent.domain.domid
    guards = () if domid is None or whereabouts == "other" else gone(domid)
    await _undo(left, journal, _performer(intent, host, guards), tell)
    return _ids(left)


def _remains(step: Step, domain: DomainIdentity, whereabouts: Whereabouts) -> Step | None:
    """Return the step with as much of its undo as does not concern a domain that is not there any more."""
    if step.undo is None:
        return None
    if isinstance(step.undo, QmpCommand):
        if step.undo.execute not in REMOVALS:
            return None
        # its QEMU has gone with it; one that another domain has is not ours to ask
        return step if whereabouts == "gone" and domain.domid is not None else None
    if isinstance(step.undo, Transaction):
        kept = remains(step.undo.transaction, domain.domid, is_gone=whereabouts == "gone")
        return msgspec.structs.replace(step, undo=Transaction(kept)) if kept else None
    lends = isinstance(step.undo, SysfsWrites) and any(one.path.endswith("/usbback/bind") for one in step.undo.writes)
    return None if lends else step


async def _undo(
    steps: Mapping[int, Step], journal: Journal, performer: Performer, tell: Callable[[StepEvent], None]
) -> None:
    every = [steps.get(number, step) for number, step in enumerate(journal.content.intent.steps)]
    stuck = await to_the_end(roll_back(every, steps, performer, tell, journal))
    if stuck:
        raise RollbackError(
            "T502",
            f"{journal.path}: {len(stuck)} of {len(steps)} steps could not be undone: "
            + "; ".join(f"{id} ({why})" for id, why in stuck.items()),
            "they stay in the journal: try again with translator recover",
            stuck=tuple(stuck),
        )


def _performer(intent: Intent, host: Host, guards: Sequence[XenstoreOp]) -> Performer:
    return Performer(host, intent.domain.domid, made=set(intent.absent), guards=guards)


def _vm(domain: DomainIdentity) -> str:
    return f"/local/domain/{domain.domid}/vm"


def _ids(steps: Mapping[int, Step]) -> tuple[str, ...]:
    return tuple(steps[number].id for number in sorted(steps))
