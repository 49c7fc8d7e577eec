"""What goes from a running domain, and in which order; and that the host is afterwards as if it had never come."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

import translator
from tests.conftest import FIXTURES, cases
from tests.servers import Qemu, require
from tests.test_apply import DOMID, bench, plan_of, run
from translator.errors import HostError
from translator.hosts.qmp import Qmp
from translator.live.observe import Observation
from translator.live.removal import removal
from translator.output import render
from translator.planning.compile import compile_plan
from translator.planning.plan import LaunchOption, Transaction, Wait
from translator.planning.subjects import subject

if TYPE_CHECKING:
    from pathlib import Path

    from tests.test_apply import Bench

__all__ = ["bench"]  # a fixture

PARAVIRTUAL = b"""<domain type='xen'>
  <name>hvm</name>
  <uuid>8a1e5c0e-3f2b-4c1d-9b7a-6d5e4f3a2b1c</uuid>
  <os><type arch='x86_64' machine='xenfv'>hvm</type></os>
  <devices>
    <controller type='usb' index='1' model='qusb2' ports='2'/>
    <controller type='usb' index='2' model='xenusb1' ports='3'/>
    <hostdev mode='subsystem' type='usb'>
      <source><address bus='1' device='9'/></source>
      <address type='usb' bus='1' port='2'/>
    </hostdev>
    <hostdev mode='subsystem' type='usb'>
      <source><address bus='2' port='1.4'/></source>
      <address type='usb' bus='2' port='1'/>
    </hostdev>
  </devices>
</domain>"""


def plan(document: bytes) -> translator.Plan:
    return translator.plan(translator.load(document), domid=DOMID)


def without(document: bytes, *cuts: bytes) -> bytes:
    """Leave out the elements that these texts are of, each a whole line or several."""
    for cut in cuts:
        assert cut in document
        document = document.replace(cut, b"")
    return document


EMPTY = plan(PARAVIRTUAL[: PARAVIRTUAL.index(b"<devices>")] + b"</domain>")
HVM = (FIXTURES / "hosts/hvm.xml").read_bytes()
MIXED = (FIXTURES / "hosts/mixed.xml").read_bytes()


async def everything(host: Bench) -> tuple[Any, Any]:
    return await host.nodes(), await host.devices()


def test_what_came_goes_and_leaves_nothing(bench: Any) -> None:
    async def scenario() -> None:
        wanted = plan(PARAVIRTUAL)
        async with bench(wanted) as host:
            before = await everything(host)
            await host.apply(wanted)
            done = await host.apply(EMPTY, prune=True)
            assert [(step.id, step.target) for step in done.steps] == [
                ("device:usb:2:1:remove-usbback", "sysfs"),
                ("device:usb:2:1:remove-drivers", "xenstore"),
                ("device:usb:2:1:remove", "xenstore"),
                ("controller:usb:2:remove-backend", "xenstore"),
                ("controller:usb:2:remove", "xenstore"),
                ("device:usb:1:2:remove", "xenstore"),
                ("controller:usb:1:remove-backend", "xenstore"),
                ("controller:usb:1:remove", "xenstore"),
            ]
            assert await everything(host) == before
            assert (await host.apply(EMPTY, prune=True)).steps == ()

    run(scenario())


def test_without_prune_what_is_not_named_stays(bench: Any) -> None:
    async def scenario() -> None:
        wanted = plan(PARAVIRTUAL)
        async with bench(wanted) as host:
            await host.apply(wanted)
            assert (await host.apply(EMPTY)).steps == ()

    run(scenario())


def test_an_id_that_a_device_of_an_earlier_document_has(bench: Any) -> None:
    """The way out that the refusal names is one."""

    async def scenario() -> None:
        head = b"<domain type='xen'><name>hvm</name><os><type>hvm</type></os><devices>"
        head += b"<controller type='usb' index='1' model='piix3-uhci'/>"
        tail = b"<input type='%s' bus='usb'><address type='usb' bus='1' port='%d'/></input></devices></domain>"
        tablet, keyboard = plan(head + tail % (b"tablet", 1)), plan(head + tail % (b"keyboard", 2))
        async with bench(tablet) as host:
            await host.apply(tablet)
            with pytest.raises(HostError, match="it is device:usb:1:1, a tablet: --prune removes it") as caught:
                await host.apply(keyboard)
            assert caught.value.code == "T414"
            done = await host.apply(keyboard, prune=True)
            assert [step.id for step in done.steps] == ["device:usb:1:1:remove", "device:usb:1:2"]

    run(scenario())


def test_devices_go_before_the_hubs_that_they_hang_on(bench: Any) -> None:
    async def scenario() -> None:
        wanted = plan_of("hvm")
        fewer = plan(
            without(
                HVM,
                b"    <hub type='usb'><address type='usb' bus='0' port='2'/></hub>\n",
                b"    <input type='keyboard' bus='usb'><address type='usb' bus='0' port='2.1'/></input>\n",
            )
        )
        async with bench(wanted) as host:
            await host.apply(wanted)
            nodes, devices = await everything(host)
            done = await host.apply(fewer, prune=True)
            assert [step.id for step in done.steps] == ["device:usb:0:2.1:remove", "device:usb:0:2:remove"]
            assert await everything(host) == (
                nodes,
                {id: device for id, device in devices.items() if id not in ("input1", "hub0")},
            )

    run(scenario())


def test_a_controller_that_the_guest_does_not_let_go_of(bench: Any) -> None:
    """No operating system is there to let go of it: what was removed before comes back, exactly."""

    async def scenario() -> None:
        wanted = plan(MIXED)
        async with bench(wanted) as host:
            await host.apply(wanted)
            before = await everything(host)
            with pytest.raises(
                HostError, match=r"controller:usb:0:remove failed: .*removal pending in the guest"
            ) as caught:
                await host._replace(timeout_s=0.5).apply(EMPTY, prune=True)
            assert caught.value.code == "T501"
            assert await everything(host) == before
            # a removal that is not waited for leaves the records as if the guest had let go
            await host.apply(EMPTY, prune=True, force=True)
            nodes = await host.nodes()
            assert not [path for path in nodes if "usb/8" in path or path.startswith("/libxl/8/device")]

    run(scenario())


def test_a_backend_that_does_not_let_go(bench: Any) -> None:
    async def scenario() -> None:
        wanted = plan(PARAVIRTUAL)
        async with bench(wanted, backend="clings") as host:
            await host.apply(wanted)
            before = await everything(host)
            with pytest.raises(
                HostError, match=r"controller:usb:2:remove-backend failed: .*removal pending"
            ) as caught:
                await host._replace(timeout_s=0.5).apply(EMPTY, prune=True)
            assert caught.value.code == "T501"
            assert await everything(host) == before
            await host.apply(EMPTY, prune=True, force=True)
            assert not [path for path in await host.nodes() if "usb/8" in path or path.startswith("/libxl/8/device")]

    run(scenario())


def test_a_removal_that_is_broken_off_anywhere_is_taken_back(bench: Any) -> None:
    class BrokenOffError(Exception):
        pass

    async def scenario() -> None:
        wanted = plan(PARAVIRTUAL)
        async with bench(wanted) as host:
            await host.apply(wanted)
            before = await everything(host)
            for step in (await host.apply(EMPTY, prune=True, dry_run=True)).steps:

                def break_off(event: translator.StepEvent, id: str = step.id) -> None:
                    if (event.step.id, event.phase) == (id, "done"):
                        raise BrokenOffError

                with pytest.raises(BrokenOffError):
                    await host.apply(EMPTY, prune=True, on_step=break_off)
                assert await everything(host) == before

    run(scenario())


EXCHANGES = {
    "pv": (b"model='xenusb2' ports='2'", "unplugged and plugged in again"),
    "emulated": (b"model='ehci'", "sees pvusb go with its device, and ehci come, for which it needs a driver"),
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_a_controller_takes_the_place_of_another(bench: Any, name: str) -> None:
    model, sees = EXCHANGES[name]
    # QEMU takes a device that it cannot see only by its vendor and product
    document = PARAVIRTUAL.replace(b"<address bus='1' device='9'/>", b"<vendor id='0x046d'/><product id='0xc52b'/>")
    wanted, other = plan(document), plan(document.replace(b"model='qusb2' ports='2'", model))

    async def scenario() -> None:
        async with bench(wanted) as host:
            await host.apply(wanted)
            with pytest.raises(HostError, match="controller:usb:1 on the host is qusb2") as caught:
                await host.apply(other, prune=True)
            assert caught.value.code == "T414"
            done = await host.apply(other, replace=True)
            assert [note.code for note in done.notes] == ["T436"]
            assert sees in done.notes[0].message
            assert (await host.apply(other, replace=True)).steps == ()
            nodes = await host.nodes()
            assert not [path for path in nodes if "backend/qusb" in path]
            served = {"pv": "/local/domain/0/backend/vusb/8/1", "emulated": "/libxl/8/device/vusb/1"}
            assert nodes[f"{served[name]}/port/2"][0] == "1-8"

    run(scenario())


def test_a_device_that_nobody_named_holds_a_controller_that_is_exchanged(bench: Any) -> None:
    async def scenario() -> None:
        wanted = plan(PARAVIRTUAL)
        hostdev = PARAVIRTUAL[PARAVIRTUAL.index(b"    <hostdev") : PARAVIRTUAL.index(b"</hostdev>") + 11]
        other = plan(without(PARAVIRTUAL, hostdev).replace(b"model='qusb2' ports='2'", b"model='xenusb2'"))
        async with bench(wanted) as host:
            await host.apply(wanted)
            before = await everything(host)
            with pytest.raises(HostError, match=r"host device 1\.9 is on controller:usb:1, which is to go") as caught:
                await host.apply(other, replace=True)
            assert caught.value.code == "T414"
            assert await everything(host) == before
            await host.apply(other, replace=True, prune=True)
            assert (await host.nodes())["/local/domain/0/backend/vusb/8/1/port/2"][0] == ""

    run(scenario())


def test_a_held_port_is_taken_over_with_prune(bench: Any) -> None:
    async def scenario() -> None:
        wanted = plan_of("hvm")
        async with bench(wanted) as host:
            await host.apply(wanted)
            before = await everything(host)
            monitor = await Qmp.connect(host.qmp)
            await monitor.remove_devices(["input2", "input0"])
            await monitor.close()
            await host.qemu("device_add", driver="usb-kbd", id="mine", bus="xenusb-1.0", port="3")
            await host.qemu("device_add", driver="usb-wacom-tablet", id="theirs", bus="xenusb-0.0", port="1")
            done = await host.apply(wanted, prune=True)
            assert [step.id for step in done.steps] == [
                "device:usb:0:1:remove",
                "device:usb:1:3:remove",
                "device:usb:0:1",
                "device:usb:1:3",
            ]
            assert await everything(host) == before

    run(scenario())


def test_what_qemu_has_from_its_start_cannot_go() -> None:
    require(Qemu)
    wanted = translator.plan(translator.load(FIXTURES / "hosts/kvm.xml"))
    document = (FIXTURES / "hosts/kvm.xml").read_bytes()
    start = document.index(b"    <controller type='usb' index='2' model='ich9-ehci1'>")
    end = document.rindex(b"</controller>") + len(b"</controller>")
    fewer = translator.plan(translator.load(document[:start] + document[end:]))

    async def scenario() -> None:
        with Qemu(words=shlex.split(render.qemu_args(wanted))) as qemu:
            async with translator.Host(qmp=qemu.socket) as host:
                await host.apply(wanted)
                with pytest.raises(HostError, match="let go of controller:usb:2 while it runs") as caught:
                    await host.apply(fewer, prune=True)
                assert caught.value.code == "T435"

    run(scenario())


@pytest.mark.parametrize("case", cases("plans"), ids=lambda case: case.name)
def test_a_removal_turned_around_is_the_attaching(case: Path) -> None:
    """Whatever can be removed: the undos, the last one first, are the steps that attach it, in their order.

    All but a drive without a disk in it, of which QEMU does not say that it is one, and PV SCSI, which comes back in
    the steps in which it went: tests/test_vscsi.py.
    """
    made = translator.plan(translator.load(case / "domain.xml"))
    topology = made.topology
    if topology.domain.hypervisor == "xen":
        topology = made.bind(domid=DOMID).topology
    running = compile_plan(topology, running=True)
    parts: list[translator.Controller | translator.Device] = [*topology.controllers, *topology.devices]
    leaving = {subject(part) for part in parts} - {step.subject for step in running.steps if step.stage == "launch"}
    leaving -= {subject(part) for part in parts if part.family == "scsi" and part.driver is None}
    hosts = {device.host.selector: device.host for device in topology.devices if device.host}
    empty = {subject(one) for one in topology.devices if one.kind == "disk" and "drive" not in one.properties}
    attaching = [
        step.action
        for step in running.bind(hostdevs=hosts).steps
        if step.subject in leaving - empty and not isinstance(step.action, (Wait, LaunchOption))
    ]
    seen = Observation(topology, frozenset(), {}, frozenset(), {})
    # what is waited for is not attached by the waiting
    turned = [step for step in reversed(removal(seen, leaving)) if not step.id.endswith(("-backend", "-settled"))]
    undone = [step.undo for step in turned if step.undo is not None]
    assert [Transaction(undo.transaction) if isinstance(undo, Transaction) else undo for undo in undone] == attaching
