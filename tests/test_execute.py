"""A plan that fails at any step, in any way, leaves the host as it was, or says exactly what is left."""

from __future__ import annotations

import asyncio
import errno
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import translator
from tests.conftest import FIXTURES
from translator.errors import HostError, OutcomeUnknown, RollbackError
from translator.planning.plan import Action, QmpCommand, Step, SysfsWrite, SysfsWrites, Wait
from translator.saga.execute import execute
from translator.saga.outcome import telling

if TYPE_CHECKING:
    from translator.saga.outcome import StepEvent

PLAN = translator.plan(translator.load(FIXTURES / "demo/web/domain.xml"), domid=7)
WEB = PLAN.topology.domain
STEPS = tuple(step for step in PLAN.steps if step.stage == "attach")


class Ledger:
    """A host that keeps a list of what is in effect, and fails where it is told to."""

    def __init__(self, fail_at: int | None = None, how: str = "refused", stuck: frozenset[int] = frozenset()) -> None:
        self.effects: list[Action] = []
        self.fail_at = fail_at
        self.how = how
        self.stuck = stuck
        self.tries = 0
        self.running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        self.running = asyncio.ensure_future(execute(STEPS, self, verify=self.verify))
        await self.running

    async def perform(self, action: Action, device_model: str | None) -> None:
        index = next((number for number, step in enumerate(STEPS) if step.action == action), None)
        if index is None:
            self.take_back(action)
            return
        if index == self.fail_at and not (self.how == "lost once" and self.tries):
            self.tries += 1
            if self.how == "refused":
                raise HostError("T406", "no")
            if self.how == "crashed":
                raise KeyError(index)
            if self.how.startswith("interrupted"):
                assert self.running is not None
                self.running.cancel()
                await asyncio.sleep(0)
                if self.how == "interrupted and refused":
                    raise HostError("T406", "no")
            if self.how in ("interrupted", "happened", "happened unseen"):
                self.effects.append(action)
            if self.how != "interrupted":
                raise OutcomeUnknown("T408", "no answer")
            return
        self.effects.append(action)

    async def in_effect(self, action: Action, device_model: str | None) -> bool:
        if self.how.endswith("unseen"):
            raise HostError("T408", "no answer either")
        return action in self.effects

    def take_back(self, undo: Action) -> None:
        index = next(number for number, step in enumerate(STEPS) if step.undo == undo)
        if index in self.stuck:
            raise HostError("T410", "pending in the guest")
        # undoing what never happened must be harmless
        if STEPS[index].action in self.effects:
            self.effects.remove(STEPS[index].action)

    async def verify(self) -> None:
        if self.fail_at == len(STEPS):
            raise HostError("T503", "not there")


def lasting(effects: list[Action]) -> list[Action]:
    return [action for action in effects if not isinstance(action, Wait)]


@given(
    st.integers(0, len(STEPS)),
    st.sampled_from(
        ["refused", "lost", "lost unseen", "happened unseen", "crashed", "interrupted", "interrupted and refused"]
    ),
)
def test_a_failed_plan_leaves_the_host_as_it_was(fail_at: int, how: str) -> None:
    host = Ledger(fail_at, how)
    with pytest.raises((HostError, asyncio.CancelledError, KeyError)) as caught:
        asyncio.run(host.run())
    assert not isinstance(caught.value, RollbackError)
    assert lasting(host.effects) == []


@pytest.mark.parametrize("how", ["lost once", "happened"])
@pytest.mark.parametrize("fail_at", range(len(STEPS)))
def test_an_answer_that_is_lost_is_looked_for_before_the_step_is_repeated(fail_at: int, how: str) -> None:
    host = Ledger(fail_at, how)
    asyncio.run(host.run())
    assert host.effects == [step.action for step in STEPS]


@given(st.integers(1, len(STEPS)), st.data())
def test_what_cannot_be_undone_is_named_and_keeps_its_record(fail_at: int, data: st.DataObject) -> None:
    stuck = data.draw(st.integers(0, fail_at - 1))
    host = Ledger(fail_at, stuck=frozenset({stuck}))
    with pytest.raises(RollbackError) as caught:
        asyncio.run(execute(STEPS, host, verify=host.verify))
    kept = [step for step in STEPS[: stuck + 1] if step.subject == STEPS[stuck].subject]
    assert caught.value.stuck == tuple(step.id for step in reversed(kept))
    assert (caught.value.step, caught.value.cause) == (
        (STEPS[fail_at].id, "T406") if fail_at < len(STEPS) else (None, "T503")
    )
    assert host.effects == [step.action for step in kept]


def test_steps_are_told_as_they_go_and_undone_newest_first() -> None:
    events: list[StepEvent] = []
    host = Ledger(2)
    with pytest.raises(HostError, match=STEPS[2].id) as caught:
        asyncio.run(execute(STEPS, host, verify=host.verify, on_step=telling(events.append, WEB)))
    assert (caught.value.code, caught.value.step, caught.value.cause) == ("T501", STEPS[2].id, "T406")
    told = [(event.phase, STEPS.index(event.step)) for event in events]
    assert told == [
        *(("begin", 0), ("done", 0), ("begin", 1), ("done", 1), ("begin", 2), ("failed", 2)),
        *(("undo", 1), ("undone", 1), ("undo", 0), ("undone", 0)),
    ]
    assert [event.error for event in events if event.error] == ["[T406] no"]
    assert {(event.domid, event.domain) for event in events} == {(7, "web")}


@pytest.mark.parametrize("at", range(len(STEPS)))
def test_a_step_that_cannot_be_noted_is_not_begun(at: int) -> None:
    """A file system may need room to write in place, and a disk may break; the undoing goes on without notes."""

    class Broken:
        def begin(self, number: int) -> None:
            if number == at:
                raise OSError(errno.ENOSPC, "No space left on device")

        def undone(self, number: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    host = Ledger()
    noted = rf"step {STEPS[at].id} failed: \[T507\] the journal cannot be written: No space left on device"
    with pytest.raises(HostError, match=noted) as caught:
        asyncio.run(execute(STEPS, host, verify=host.verify, record=Broken()))
    assert caught.value.code == "T501"
    assert not isinstance(caught.value, RollbackError)
    assert lasting(host.effects) == []


def test_a_listener_that_fails_does_not_stop_the_undoing() -> None:
    def closed_pipe(event: StepEvent) -> None:
        if event.phase == "undo":
            raise BrokenPipeError

    host = Ledger(len(STEPS) - 1)
    with pytest.raises(HostError):
        asyncio.run(execute(STEPS, host, verify=host.verify, on_step=closed_pipe))
    assert lasting(host.effects) == []


def test_what_somebody_else_has_changed_meanwhile_is_not_ours_to_undo() -> None:
    class Changed(Ledger):
        def take_back(self, undo: Action) -> None:
            raise HostError("T404", "the port has another device by now")

    host = Changed(3)
    with pytest.raises(HostError) as caught:
        asyncio.run(execute(STEPS, host, verify=host.verify))
    assert not isinstance(caught.value, RollbackError)


def test_a_second_interruption_does_not_stop_the_undoing() -> None:
    undone = asyncio.Event()

    class Slow(Ledger):
        async def perform(self, action: Action, device_model: str | None) -> None:
            if action in [step.undo for step in STEPS]:
                undone.set()
                await asyncio.sleep(0)
            await super().perform(action, device_model)

    async def run() -> Ledger:
        host = Slow(len(STEPS) - 1, "lost")
        task = asyncio.ensure_future(execute(STEPS, host, verify=host.verify))
        await undone.wait()
        task.cancel()
        with pytest.raises(HostError):
            await task
        return host

    assert lasting(asyncio.run(run()).effects) == []


@pytest.mark.parametrize("at", range(len(STEPS)))
def test_a_deadline_in_a_step_is_a_timeout_once_all_is_undone(at: int) -> None:
    """As asyncio's own timeout and task groups see it, to which no other class than CancelledError will do."""
    host = Ledger()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:

            def expire(event: StepEvent) -> None:
                if (event.phase, event.number) == ("begin", at + 1):
                    limit.reschedule(loop.time())

            await execute(STEPS, host, verify=host.verify, on_step=expire)

    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert lasting(host.effects) == []


def step(id: str, action: Action, undo: Action, device_model: str | None = None) -> Step:
    return Step(
        id=id,
        stage="attach",
        device_model=device_model,
        action=action,
        undo=undo,
        undo_reason=None,
        why="",
        source=None,
    )


def test_writes_that_fail_half_way_are_taken_back_though_we_were_told_to_stop() -> None:
    bind, unbind = SysfsWrites((SysfsWrite("/bind", "1-8:1.0"),)), SysfsWrites((SysfsWrite("/unbind", "1-8:1.0"),))
    told: list[Action] = []

    class HalfWay(Ledger):
        async def perform(self, action: Action, device_model: str | None) -> None:
            told.append(action)
            if action == bind:
                raise HostError("T413", "the second write is refused")

    def stop(event: StepEvent) -> None:
        if event.phase == "begin":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    async def run() -> None:
        host = HalfWay()
        steps = (step("device:usb:0:1:usbback", bind, unbind),)
        await execute(steps, host, verify=host.verify, on_step=stop)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert told == [bind, unbind]


@pytest.mark.parametrize("turns", [(0, 1), (1, 0), (1, 1)])
def test_of_two_device_models_that_fail_at_once_each_is_named_with_its_own_reason(turns: tuple[int, int]) -> None:
    models = ("usb-0", "usb-1")
    adds = {model: QmpCommand("device_add", {"id": model}) for model in models}
    steps = [
        step(f"controller:usb:{number}", adds[model], QmpCommand("device_del", {"id": model}), model)
        for number, model in enumerate(models)
    ]

    class Refusing(Ledger):
        async def perform(self, action: Action, device_model: str | None) -> None:
            assert device_model is not None
            for _ in range(turns[models.index(device_model)]):
                await asyncio.sleep(0)
            raise HostError("T406", f"{device_model} refused")

    host = Refusing()
    with pytest.raises(HostError) as caught:
        asyncio.run(execute(steps, host, verify=host.verify))
    assert "step controller:usb:0 failed: [T406] usb-0 refused" in caught.value.message
    assert "step controller:usb:1 failed: [T406] usb-1 refused" in caught.value.message


@pytest.mark.parametrize("moment", ["a step", "an undo"])
def test_an_event_loop_that_is_torn_down_leaves_the_host_as_it_was(moment: str) -> None:
    """A second Ctrl-C makes `asyncio.run` cancel every task there is, those that must not be among them."""

    class TornDown(Ledger):
        torn = False

        async def perform(self, action: Action, device_model: str | None) -> None:
            adding = action in [step.action for step in STEPS]
            if adding and moment == "a step":
                await super().perform(action, device_model)
            if action == (STEPS[3].action if moment == "a step" else STEPS[1].undo) and not self.torn:
                self.torn = True
                for task in asyncio.all_tasks():
                    task.cancel()
                await asyncio.sleep(0)
            if not adding or moment != "a step":
                await super().perform(action, device_model)

    async def run() -> Ledger:
        host = TornDown(fail_at=None if moment == "a step" else len(STEPS) - 1)
        task = asyncio.ensure_future(execute(STEPS, host, verify=host.verify))
        with suppress(asyncio.CancelledError):  # this task is among them
            await asyncio.wait([task])
        await asyncio.wait([task])
        assert task.cancelled() or not isinstance(task.exception(), RollbackError)
        return host

    assert lasting(asyncio.run(run()).effects) == []


def test_device_models_are_served_at_the_same_time() -> None:
    """Each model's first step ends when the other's has begun: one after the other, neither would."""
    steps = [
        Step(
            id=f"controller:usb:{number}",
            stage="attach",
            device_model=model,
            action=QmpCommand("device_add", {"id": model}),
            undo=QmpCommand("device_del", {"id": model}),
            undo_reason=None,
            why="",
            source=None,
        )
        for number, model in enumerate(("one", "other"))
    ]

    class Meeting:
        def __init__(self) -> None:
            self.begun = {"one": asyncio.Event(), "other": asyncio.Event()}

        async def perform(self, action: Action, device_model: str | None) -> None:
            self.begun[device_model or ""].set()
            async with asyncio.timeout(2):
                for event in self.begun.values():
                    await event.wait()

        async def in_effect(self, action: Action, device_model: str | None) -> bool:
            raise AssertionError("nothing was lost")

    async def scenario() -> None:
        async def verify() -> None:
            pass

        await execute(steps, Meeting(), verify=verify)

    asyncio.run(scenario())
