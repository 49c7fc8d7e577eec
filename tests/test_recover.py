"""A host after an apply that failed or was killed, anywhere: as it was before, or as was planned, never in between.

A plan of ten devices on a paravirtual, a qusb and an emulated controller; the emulated controller is there before, as
nothing takes a PCI device away from a guest without an operating system. `pytest --soak` runs more of the same.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

import translator
from tests.crashes import Crasher
from tests.scenes import ACTIONS, ONE, TEN, Scene, looks, scene, split_scene
from tests.servers import Backend, CXenStored, Qemu, make_domain, require
from tests.test_apply import DOMID, Bench, bench, host_devices, plan_of, run
from translator.errors import HostError, OutcomeUnknown, RollbackError
from translator.hosts.xenstore import Xenstore
from translator.live import apply as applying
from translator.live.performer import Performer
from translator.planning.plan import SysfsWrites, XenstoreOp
from translator.saga.journal import Journal
from translator.saga.state import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.crashes import Way, When
    from tests.servers import Server
    from translator.planning.plan import Action
    from translator.saga.journal import Outcome
    from translator.saga.outcome import StepEvent

__all__ = ["bench"]  # a fixture

WAITS = (1, 4)  # for the backends, among the actions
NOWHERE = "11111111-2222-3333-4444-555555555555"

in_the_sandbox = pytest.mark.parametrize("bench", ["sandbox"], indirect=True)


async def command(*words: str) -> tuple[int | None, str, str]:
    """Run translator; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "translator", *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


class Faulty(Performer):
    """Fails at one action of an apply, in one way."""

    at = 0
    how = ""
    count = 0

    async def perform(self, action: Action, device_model: str | None) -> None:
        number, Faulty.count = Faulty.count, Faulty.count + 1
        if number != self.at:
            await super().perform(action, device_model)
            return
        if self.how == "refused":
            raise HostError("T406", "no")
        if "done" in self.how:
            await super().perform(action, device_model)
        raise OutcomeUnknown("T431", "no answer")

    async def in_effect(self, action: Action, device_model: str | None) -> bool:
        if "unseen" in self.how:
            raise HostError("T430", "no look either")
        return await super().in_effect(action, device_model)


@pytest.mark.parametrize("how", ["refused", "lost", "lost, and done", "lost and unseen", "lost, done and unseen"])
def test_a_fault_at_every_step(
    bench: Any, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(applying, "Performer", Faulty)
    everywhere = request.node.callspec.params["bench"] == "sandbox" or request.config.getoption("--soak")

    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host:
            for at in range(ACTIONS) if everywhere else (1, ACTIONS - 1):
                Faulty.at, Faulty.how, Faulty.count = at, how, 0
                if how in ("lost", "lost, and done"):
                    await host.bench.apply(plan_of("ten"))
                    assert await host.looks() == host.new, at
                    await host.reset()
                else:
                    with pytest.raises(HostError) as caught:
                        await host.bench.apply(plan_of("ten"))
                    assert not isinstance(caught.value, RollbackError), caught.value
                    assert await host.looks() == host.old, at
                assert host.left() == []

    run(scenario())


@in_the_sandbox
@pytest.mark.parametrize("way", ["rollback", "resume"])
def test_killed_at_every_step(bench: Any, way: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host, Crasher() as crasher:
            for at in range(ACTIONS):
                for when in ("before", "after") if way == "rollback" or not at else ("after",):
                    ended = await crasher.run(host.bench, "apply", TEN, die=(at, when))
                    assert ended.code == -9, ended
                    (recovered,) = await host.recover(resume=way == "resume")
                    done = at + (when == "after")
                    found = done + (when == "before" and at in WAITS)  # what was waited for may have come by itself
                    if way == "rollback":
                        seen = [step.id for step in host.steps[:found] if step.action != SysfsWrites(())]
                        assert list(recovered.steps) == seen
                    assert await host.looks() == (host.old if way == "rollback" else host.new), (at, when)
                    assert host.left() == []
                    if way == "resume":
                        await host.reset()

    run(scenario())


@in_the_sandbox
@pytest.mark.parametrize("way", ["rollback", "resume"])
def test_a_removal_that_is_killed_at_every_step(bench: Any, way: str, tmp_path: Path) -> None:
    """The ten devices are there and go: what was taken away comes back, or the rest of it goes.

    But for the chardev of the serial port: QEMU does not say how it was made, so it goes last of all.
    """

    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host, Crasher() as crasher:
            await host.bench.apply(plan_of("ten"))
            there = await host.looks()
            count = len((await host.bench.apply(plan_of("one"), prune=True, dry_run=True)).steps)
            for at in range(count):
                ended = await crasher.run(host.bench, "apply", ONE, die=(at, "after"), prune=True)
                assert ended.code == -9, ended
                if way == "rollback" and at == count - 1:
                    code, _, told = await command("recover", "--state", str(host.bench.state))
                    assert code == 5
                    assert "error[T513]" in told
                    assert "nothing undoes device:usb:0:3:remove-chardev (QEMU does not say how it was made)" in told
                    assert await host.looks() == host.old
                    _, listed, _ = await command("recover", "--list", "--state", str(host.bench.state))
                    assert "device:usb:0:3:remove-chardev (nothing undoes it: QEMU does not say how" in listed
                    (recovered,) = await host.recover(resume=True)
                    assert (recovered.result, recovered.steps) == ("finished", ())
                    return
                await host.recover(resume=way == "resume")
                assert host.left() == [], at
                assert await host.looks() == (there if way == "rollback" else host.old), at
                if way == "resume":
                    await host.bench.apply(plan_of("ten"))

    run(scenario())


@in_the_sandbox
def test_a_recovery_that_is_killed_after_each_of_its_steps_comes_to_its_end(bench: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host, Crasher() as crasher:
            ways: tuple[tuple[Way, tuple[int, When]], ...] = (
                ("resume", (0, "before")),
                ("rollback", (ACTIONS - 1, "after")),
            )
            for way, die in ways:
                assert (await crasher.run(host.bench, "apply", TEN, die=die)).code == -9
                kills = 0
                while (ended := await crasher.run(host.bench, way, die=(0, "after"))).code == -9:
                    kills += 1
                    assert kills <= ACTIONS, (way, State(tmp_path / "state").journals()[0].content)
                    # from here on nothing but a recovery may go on
                    with pytest.raises(HostError, match="left this domain in between") as caught:
                        await host.bench.apply(plan_of("ten"))
                    assert caught.value.code == "T505"
                assert ended.code == 0, ended
                assert kills > ACTIONS / 2  # removals from QEMU are asked for at once
                if way == "resume":
                    assert await host.looks() == host.new
                    await host.reset()
            assert await host.looks() == host.old
            assert host.left() == []

    run(scenario())


async def write(host: Scene, *operations: XenstoreOp) -> None:
    client = await Xenstore.connect(host.bench.xenstore)
    await client.commit(operations)
    await client.close()


@in_the_sandbox
def test_a_domain_that_has_another_ones_id_is_not_touched(bench: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host, Crasher() as crasher:
            assert (await crasher.run(host.bench, "apply", TEN, die=(9, "after"))).code == -9
            await write(host, XenstoreOp("write", f"/local/domain/{DOMID}/vm", f"/vm/{NOWHERE}"))
            nodes, devices, chardevs = await host.looks()
            with pytest.raises(RollbackError, match="another domain runs as 8 by now") as caught:
                await host.recover(resume=True)
            assert caught.value.code == "T510"
            (recovered,) = await host.recover()
            assert recovered.whereabouts == "other"
            del nodes["/libxl/usbback"]  # which is no domain's
            assert await host.looks() == (nodes, devices, chardevs)
            assert host.left() == []

    run(scenario())


@in_the_sandbox
def test_what_is_left_of_a_domain_that_is_gone_is_taken_away(bench: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host, Crasher() as crasher:
            assert (await crasher.run(host.bench, "apply", TEN, die=(9, "after"))).code == -9
            gone = [XenstoreOp("rm", path) for path in (f"/local/domain/{DOMID}", f"/libxl/{DOMID}")]
            await write(host, *gone)
            (recovered,) = await host.recover()
            assert recovered.whereabouts == "gone"
            nodes, devices, _ = await host.looks()
            assert [path for path in nodes if f"/{DOMID}/" in path and "/backend/" in path] == []
            assert devices == host.old[1]  # its QEMU is still there, and has nothing of ours
            assert host.left() == []

    run(scenario())


@in_the_sandbox
@pytest.mark.parametrize("outcome", ["done", "undone"])
def test_an_apply_that_was_killed_at_its_very_end_is_told_as_it_ended(
    bench: Any, outcome: Outcome, tmp_path: Path
) -> None:
    """It had noted how it ended, and had its journal still."""

    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host, Crasher() as crasher:
            assert (await crasher.run(host.bench, "apply", TEN, die=(ACTIONS - 1, "after"))).code == -9
            (path,) = (tmp_path / "state").glob("*.journal")
            ending = Journal(str(path), os.open(path, os.O_WRONLY), path.read_bytes(), remove=lambda: None)
            ending.finish(outcome)
            ending.close()
            before = await host.looks()
            (recovered,) = await host.recover()
            assert (recovered.result, recovered.steps) == ("finished" if outcome == "done" else "rolled-back", ())
            assert await host.looks() == before
            assert host.left() == []

    run(scenario())


@in_the_sandbox
def test_nothing_comes_back_to_a_domain_that_went_in_the_middle_of_a_removal(bench: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host, Crasher() as crasher:
            await host.bench.apply(plan_of("ten"))
            steps = (await host.bench.apply(plan_of("one"), prune=True, dry_run=True)).steps
            last = len(steps) - 2  # but for the chardev, which nothing brings back
            assert (await crasher.run(host.bench, "apply", ONE, die=(last, "after"), prune=True)).code == -9
            await write(host, *(XenstoreOp("rm", path) for path in (f"/local/domain/{DOMID}", f"/libxl/{DOMID}")))
            before = await host.bench.devices()
            (recovered,) = await host.recover()
            assert recovered.whereabouts == "gone"
            assert await host.bench.devices() == before
            assert host.left() == []

    run(scenario())


@in_the_sandbox
@pytest.mark.parametrize("way", ["rollback", "resume"])
def test_a_journal_that_cannot_be_ended_is_told_of(
    bench: Any, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_disk(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host, Crasher() as crasher:
            assert (await crasher.run(host.bench, "apply", TEN, die=(9, "after"))).code == -9
            monkeypatch.setattr("os.fsync", broken_disk)
            with pytest.raises(RollbackError, match=r"cannot be ended: Input/output error; the domain") as caught:
                await host.recover(resume=way == "resume")
            assert (caught.value.code, caught.value.stuck) == ("T507", ())
            assert await host.looks() == (host.old if way == "rollback" else host.new)

    run(scenario())


@in_the_sandbox
def test_after_the_host_was_started_anew_nothing_is_ours(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same domain runs under the same id, and has what its own document says."""

    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host, Crasher() as crasher:
            assert (await crasher.run(host.bench, "apply", TEN, die=(9, "after"))).code == -9
            before = await host.looks()
            monkeypatch.setattr("translator.saga.recover.boot_id", lambda: "another run")
            (recovered,) = await host.recover()
            assert (recovered.whereabouts, recovered.steps) == ("rebooted", ())
            assert await host.looks() == before

    run(scenario())


@in_the_sandbox
def test_what_somebody_else_has_changed_since_is_left_and_named(bench: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with scene(bench, tmp_path / "state") as host, Crasher() as crasher:
            assert (await crasher.run(host.bench, "apply", TEN, die=(ACTIONS - 1, "after"))).code == -9
            port = f"/local/domain/0/backend/qusb/{DOMID}/1/port/2"
            await write(host, XenstoreOp("write", port, "3-7"))
            with pytest.raises(RollbackError, match=r"T512.*somebody else has changed device:usb:1:2 since"):
                await host.recover(resume=True)
            (recovered,) = await host.recover()
            assert recovered.left == ("device:usb:1:2",)

    run(scenario())


TABLET_ON_XHCI = (
    b"<domain type='kvm'><name>guest</name><os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
    b"<controller type='usb' model='qemu-xhci'/><input type='tablet' bus='usb'/></devices></domain>"
)
XHCI: dict[str, str | int] = {"driver": "qemu-xhci", "id": "usb"}


def test_a_qemu_that_was_started_anew_keeps_what_it_was_started_with(tmp_path: Path) -> None:
    """Neither has a UUID, and both listen at one place and have devices of one name: the process tells them apart."""
    require(Qemu)
    document = tmp_path / "guest.xml"
    document.write_bytes(TABLET_ON_XHCI)

    async def scenario() -> None:
        with Qemu(XHCI) as qemu:
            async with Crasher() as crasher:
                host = Bench("", qemu.socket, tmp_path, state=tmp_path / "state")
                assert (await crasher.run(host, "apply", document, domid=None, die=(0, "after"))).code == -9
            qemu.start_anew(XHCI, {"driver": "usb-tablet", "id": "input0"})
            devices = await host.devices()
            left = Scene(host, devices, None, ())
            with pytest.raises(RollbackError, match="another QEMU than before listens for domain guest") as caught:
                await left.recover(resume=True)
            assert caught.value.code == "T510"
            (recovered,) = await left.recover()
            assert (recovered.whereabouts, recovered.steps) == ("restarted", ())
            assert await host.devices() == devices
            assert left.left() == []

    run(scenario())


def test_a_qemu_that_takes_the_place_of_the_other_during_a_recovery_keeps_its_devices(tmp_path: Path) -> None:
    require(Qemu)
    document = tmp_path / "guest.xml"
    document.write_bytes(TABLET_ON_XHCI)

    async def scenario() -> None:
        with Qemu(XHCI) as qemu:
            async with Crasher() as crasher:
                bench = Bench("", qemu.socket, tmp_path, state=tmp_path / "state")
                assert (await crasher.run(bench, "apply", document, domid=None, die=(0, "after"))).code == -9

            def on_step(event: StepEvent) -> None:
                if event.phase == "undo":
                    qemu.start_anew(XHCI, {"driver": "usb-tablet", "id": "input0"})

            async with translator.Host(qmp=qemu.socket, state=tmp_path / "state") as host:
                (left,) = host.unfinished()
                assert (await host.recover(left, on_step=on_step)).result == "rolled-back"
            assert "input0" in str(await bench.devices())

    run(scenario())


@asynccontextmanager
async def mortal(tmp_path: Path) -> AsyncIterator[tuple[Scene, CXenStored, Qemu]]:
    """Give a scene with the servers behind it."""
    require(CXenStored)
    require(Qemu)
    identity = plan_of("one").topology.domain
    with CXenStored() as xenstored, Qemu() as qemu:
        client = await Xenstore.connect(xenstored.socket)
        await make_domain(client, DOMID, name=identity.name, uuid=str(identity.uuid), guest="hvm")
        await client.close()
        backend = await Backend(xenstored.socket).__aenter__()
        try:
            sysfs = host_devices(tmp_path / "sys")
            host = Bench(xenstored.socket, qemu.socket, sysfs, state=tmp_path / "state", timeout_s=2)
            await host.apply(plan_of("one"))
            yield Scene(host, await looks(host), None, ()), xenstored, qemu
        finally:
            with suppress(HostError):  # its connection may have been lost
                await backend.__aexit__()


def kill_at(number: int, server: Server) -> Callable[[StepEvent], None]:
    def kill(event: StepEvent) -> None:
        if (event.phase, event.number) == ("begin", number):
            server.kill()

    return kill


@pytest.mark.parametrize("at", [3, 10, ACTIONS])
def test_a_qemu_that_dies_takes_its_devices_along(tmp_path: Path, at: int) -> None:
    async def scenario() -> None:
        async with mortal(tmp_path) as (host, _, qemu):
            with pytest.raises(HostError) as caught:
                await host.bench.apply(plan_of("ten"), on_step=kill_at(at, qemu))
            assert not isinstance(caught.value, RollbackError), caught.value
            assert await host.bench.nodes() == host.old[0]
            assert host.left() == []

    run(scenario())


@pytest.mark.parametrize("model", ["primary", "second"])
def test_of_two_qemus_one_dies_and_nothing_is_left_in_the_other(tmp_path: Path, model: str) -> None:
    async def scenario() -> None:
        async with split_scene("xenstored", tmp_path) as (host, document, qemus):
            monitors = host.bench.monitors

            def kill(event: StepEvent) -> None:
                if event.step.device_model == model and event.phase == "done":
                    qemus[model].kill()

            with pytest.raises(HostError) as caught:
                await host.bench.apply(translator.plan(translator.load(document), domid=DOMID), on_step=kill)
            assert not isinstance(caught.value, RollbackError), caught.value
            assert await host.bench.nodes() == host.old[0]
            (other,) = (path for name, path in monitors.items() if name != model)
            assert (await Bench("", other, tmp_path).devices()).items() <= host.old[1].items()
            assert host.left() == []

    run(scenario())


@pytest.mark.parametrize("at", [3, 12, ACTIONS])
def test_a_xenstored_that_dies_leaves_a_journal(tmp_path: Path, at: int) -> None:
    """What QEMU had been given is taken back at once, or by a recovery when there is a xenstored again."""

    async def scenario() -> None:
        async with mortal(tmp_path) as (host, xenstored, _):
            with pytest.raises(RollbackError) as caught:
                await host.bench.apply(plan_of("ten"), on_step=kill_at(at, xenstored))
            assert "controller:usb:1" in caught.value.stuck
            assert len(host.left()) == 1
            with pytest.raises(RollbackError, match="no xenstored"):
                await host.recover()
            xenstored.__enter__()  # it has no memory of what was in it
            (recovered,) = await host.recover()
            assert recovered.whereabouts == "gone"
            assert await host.bench.devices() == host.old[1]
            assert host.left() == []

    run(scenario())
