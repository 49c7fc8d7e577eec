"""Devices that come to a running domain and leave it, one by one, on the real servers and in the sandbox."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import translator
from tests.conftest import FIXTURES
from tests.servers import Qemu, require
from tests.test_apply import DOMID, Bench, bench, host_devices, plan_of, run
from translator.document.save import add
from translator.errors import DocumentError, HostError
from translator.hosts.sandbox import Sandbox
from translator.hotplug.attach import Given
from translator.hotplug.attach import attach as attach_given
from translator.hotplug.find import find_part

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from translator.hotplug.wanted import Wanted

__all__ = ["bench"]  # a fixture

Result = TypeVar("Result")

HVM = (FIXTURES / "hosts/hvm.xml").read_bytes()
PVH = HVM[: HVM.index(b"<os>")] + b"<os><type arch='x86_64' machine='xenpvh'>xenpvh</type></os></domain>"
HOSTDEV = b"<hostdev mode='subsystem' type='usb'><source><address bus='1' device='9'/></source></hostdev>"
MOUSE = b"""<?xml version='1.0'?>
<!-- a mouse -->
<input type='mouse' bus='usb'>
  <address type='usb' bus='1' port='3'/>
</input>
"""


def empty(document: bytes = HVM) -> translator.Plan:
    end = document.index(b"</os>") + 5
    return translator.plan(translator.load(document[:end] + b"</domain>"), domid=DOMID)


async def attach(host: Bench, *devices: str | bytes, **options: Any) -> list[str]:
    async with host.host() as connections:
        return [step.id for step in (await connections.attach(*devices, domid=DOMID, **options)).steps]


async def detach(host: Bench, *devices: str | bytes, **options: Any) -> list[str]:
    async with host.host() as connections:
        return [step.id for step in (await connections.detach(*devices, domid=DOMID, **options)).steps]


async def everything(host: Bench) -> tuple[Any, Any]:
    return await host.nodes(), await host.devices()


def test_a_paravirtual_guest_from_nothing_and_back(bench: Any) -> None:
    """The first device brings its controller along; the last controller leaves nothing behind."""

    async def scenario() -> None:
        async with bench(empty(PVH)) as host:
            before = await everything(host)
            first = await attach(host, "hostdev:1.9")
            assert first == ["controller:usb:0", "controller:usb:0:backend", "device:usb:0:1"]
            assert await attach(host, "hostdev:2-1.4", HOSTDEV.replace(b"device='9'", b"device='8'")) == [
                "device:usb:0:2",
                "device:usb:0:3",
            ]
            nodes = await host.nodes()
            served = "/local/domain/0/backend/qusb/8/0/port"
            assert [nodes[f"{served}/{port}"][0] for port in (1, 2, 3, 4)] == ["1-9", "2-1.4", "1-8", ""]
            assert await detach(host, "hostdev:2.3") == ["device:usb:0:2:remove"]
            assert await attach(host, "controller:xenusb1,ports=4") == [
                "controller:usb:1",
                "controller:usb:1:backend",
            ]
            await detach(host, "controller:0", "controller:xenusb1")
            assert await everything(host) == before

    run(scenario())


def test_an_emulated_guest(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("hvm")
        async with bench(plan) as host:
            await host.apply(plan)
            before = await everything(host)
            assert await detach(host, MOUSE) == ["device:usb:1:3:remove"]
            assert await attach(host, MOUSE) == ["device:usb:1:3"]
            assert await everything(host) == before
            # the lowest free port is one of the hub at 2; a hub is plugged in before what may hang on it
            assert await attach(host, "keyboard", "hub") == ["device:usb:0:2.3", "device:usb:0:2.2"]
            assert (await host.devices())["input3"] == "usb-kbd 2.2"
            assert await detach(host, "input3", "0:2.3") == ["device:usb:0:2.2:remove", "device:usb:0:2.3:remove"]
            assert await everything(host) == before
            assert (await detach(host, "hub"))[-1] == "device:usb:0:2:remove"
            assert "input1" not in await host.devices(), "what hung on the hub has gone before it"

    run(scenario())


def test_a_disk_and_what_is_behind_it(bench: Any, tmp_path: Path) -> None:
    for name in ("1.img", "2.img"):
        (tmp_path / name).write_bytes(bytes(2**20))
    disk = (
        f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{tmp_path}/1.img'/>"
        "<target dev='sda' bus='usb'/></disk>"
    ).encode()

    async def scenario() -> None:
        plan = plan_of("hvm")
        async with bench(plan) as host:
            await host.apply(plan)
            before = await everything(host)
            for _ in range(2):
                assert await attach(host, disk) == [
                    "device:usb:0:2.2:storage",
                    "device:usb:0:2.2:format",
                    "device:usb:0:2.2",
                ]
                second = disk.replace(b"'sda'", b"'sdb'").replace(b"1.img", b"2.img")
                await attach(host, second)
                nodes = {one["node-name"] for one in await host.qemu("query-named-block-nodes")}
                assert nodes == {f"libvirt-{n}-{part}" for n in (1, 2) for part in ("storage", "format")}
                await detach(host, second.replace(b"<target", b"<address type='usb' bus='0' port='2.3'/><target"))
                assert await detach(host, "usb-disk0") == [
                    "device:usb:0:2.2:remove",
                    "device:usb:0:2.2:remove-format",
                    "device:usb:0:2.2:remove-storage",
                ]
                assert await host.qemu("query-named-block-nodes") == []
                assert await everything(host) == before

    run(scenario())


REFUSED: dict[str, tuple[str, tuple[str | bytes, ...], str, str]] = {
    "twice": ("attach", ("hostdev:1.9",), "T437", r"host device 1\.9 is attached already: to port 1 of controller 0"),
    "twice at once": ("attach", ("hostdev:1.8", "hostdev:046d:c52b"), "T437", "attached already"),
    "no such device": ("attach", ("hostdev:3.3",), "T411", r"the host has no USB device 3\.3"),
    "two of a make": ("attach", ("hostdev:0951:1666",), "T412", "2 USB devices of the host"),
    "a bus": ("attach", ("hostdev:x.3",), "T340", "the bus 'x' is not a number"),
    "a device number": ("attach", ("hostdev:1.300",), "T340", "the device number '300' is not a number"),
    "a vendor": ("attach", ("hostdev:46g:1",), "T340", "the vendor '46g'"),
    "a kind": ("attach", ("printer",), "T340", "'printer' is no kind of device"),
    "a model": ("attach", ("controller:qusb9",), "T340", "'qusb9' is no model"),
    "an option": ("attach", ("controller:qusb2,color=red",), "T340", "'color=red' is no option"),
    "too many ports": ("attach", ("controller:qusb2,ports=32",), "T307", "cannot have 32 ports"),
    "an emulated one": ("attach", ("controller:nec-xhci",), "T309", "a PVH guest has no emulated USB"),
    "an index": ("attach", ("controller:qusb2,index=0",), "T414", "the domain has a controller 0"),
    "no place": ("attach", ("tablet",), "T419", "no controller of the domain has a free port for a tablet"),
    "no controller": ("attach", (MOUSE.replace(b"bus='1'", b"bus='4'"),), "T419", "no USB controller 4"),
    "no XML": ("attach", (b"<hostdev",), "T101", r"error\[T101\]"),
    "not USB": ("attach", (b"<interface type='bridge'/>",), "T441", "^1: error.*<interface> is nothing that can"),
    "a name": ("attach", ("controller:ehci,ports=7",), "T309", "^error"),
    "libxl's": ("attach", (b"<controller type='sata'/>",), "T441", "<controller> is nothing that can be attached"),
    "what Xen sizes": ("attach", (b"<controller type='xenbus'/>",), "T480", "which has it from its start or not at"),
    "nothing": ("attach", (b"  <!-- nothing -->",), "T441", "there is no device in the fragment"),
    "not attached": ("detach", ("hostdev:1.8",), "T438", r"'hostdev:1.8' is not attached to 'hvm'"),
    "not there": ("detach", ("controller:7",), "T438", "'controller:7' is not attached"),
    "no id": ("detach", ("input0",), "T438", r"'input0' is not attached"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing(name: str, tmp_path: Path) -> None:
    verb, devices, code, message = REFUSED[name]

    async def scenario() -> None:
        async with Sandbox() as embedded:
            guest = embedded.add_guest("hvm", domid=DOMID, guest="pvh", frontend_connects=False)
            host = Bench(str(embedded.xenstore_socket), str(guest.qmp_socket), host_devices(tmp_path / "sys"))
            await attach(host, "hostdev:1.9")
            before = await everything(host)
            with pytest.raises((HostError, DocumentError), match=message) as caught:
                await (attach if verb == "attach" else detach)(host, *devices)
            assert caught.value.diagnostics[0].code == code
            assert await everything(host) == before

    run(scenario())


def test_a_word_for_several_parts_is_told_their_places() -> None:
    tablets = HVM.replace(b"'keyboard'", b"'tablet'")
    with pytest.raises(HostError, match="2 of what 'hvm' has are 'tablet'") as caught:
        find_part(translator.plan(translator.load(tablets)).topology, "tablet")
    assert caught.value.code == "T439"
    assert caught.value.help == "name one by its place: 0:1 (tablet), 0:2.1 (tablet)"


def test_full_controllers_and_none_may_come_along(bench: Any) -> None:
    async def scenario() -> None:
        async with bench(empty(PVH)) as host:
            await attach(host, "controller:qusb1,ports=1", "hostdev:1.8")
            before = await everything(host)
            with pytest.raises(HostError, match="no controller of the domain has a free port") as caught:
                await attach(host, "hostdev:1.9", auto_controller=False)
            assert caught.value.code == "T419"
            assert await everything(host) == before

    run(scenario())


def test_a_controller_that_the_guest_keeps_goes_by_force(bench: Any) -> None:
    async def scenario() -> None:
        async with bench(empty(PVH), backend="clings") as host:
            before = await everything(host)
            await attach(host, "hostdev:1.8")
            attached = await everything(host)
            slow = host._replace(timeout_s=0.5)
            with pytest.raises(HostError, match="removal pending in the guest") as caught:
                await detach(slow, "controller:0")
            assert "--force" in str(caught.value.help)
            assert await everything(host) == attached
            await detach(slow, "controller:0", force=True)
            assert await everything(host) == before

    run(scenario())


def test_a_guest_of_qemu_alone() -> None:
    require(Qemu)

    async def scenario() -> None:
        with Qemu() as qemu:
            async with translator.Host(qmp=qemu.socket) as host:
                await host.attach("controller:qemu-xhci,ports=4", "tablet", "hub", "keyboard")
                seen = await host.observe()
                assert [(one.id, one.port) for one in seen.devices] == [
                    ("input0", "1"),
                    ("hub0", "2"),
                    ("input1", "3"),
                ]
                await host.detach("input0")
                await host.attach("mouse")
                seen = await host.observe()
                assert next((one.kind, one.id) for one in seen.devices) == ("mouse", "input0")
                host.timeout_s = 0.3
                with pytest.raises(HostError, match="removal pending in the guest"):
                    await host.detach("usb")
                assert await host.observe() == seen

    run(scenario())


IMPLICIT = """<domain type='xen'>
  <name>gs</name>
  <os><type arch='x86_64' machine='xenfv'>hvm</type></os>
  <devices>
    <input type='tablet' bus='usb'/>  <!-- as most documents say it -->
  </devices>
</domain>
"""


def saved(text: str, *running: str, word: str) -> str:
    """Attach to the document's domain, which has these too by now, and return the document that follows."""

    async def scenario() -> str:
        plan = translator.plan(translator.load(text.encode()))
        outcome = b""

        def keep(wanted: Wanted) -> None:
            nonlocal outcome
            outcome = add(text.encode(), wanted, file="gs.xml")

        async with Sandbox() as embedded:
            guest = embedded.make_host_for(plan)
            async with translator.Host(xenstore=embedded.xenstore_socket, qmp=guest.qmp_sockets) as host:
                await host.apply(plan.bind(domid=guest.domid))
                for other in running:
                    await host.attach(other, domid=guest.domid)
                before = await host.observe(domid=guest.domid)
                try:
                    await attach_given(host, [Given(word)], domid=guest.domid, before=keep)
                except DocumentError:
                    assert await host.observe(domid=guest.domid) == before
                    raise
        return outcome.decode()

    return asyncio.run(scenario())


def test_a_document_follows_that_leaves_its_controller_out() -> None:
    text = saved(IMPLICIT, word="mouse")
    plan = translator.plan(translator.load(text.encode()))
    assert [(one.index, one.model, one.implicit) for one in plan.topology.controllers if one.family == "usb"] == [
        (0, "piix3-uhci", False)
    ]
    assert [(one.kind, one.port) for one in plan.topology.devices] == [("tablet", "1"), ("mouse", "2")]
    assert "<!-- as most documents say it -->" in text
    assert text.startswith(IMPLICIT[: IMPLICIT.index("<input")])


def test_what_a_document_cannot_follow_is_not_attached() -> None:
    with pytest.raises(DocumentError) as caught:
        saved(IMPLICIT, "controller:nec-xhci,ports=4", "mouse", word="keyboard")
    (found,) = caught.value.diagnostics
    assert found.code == "T442"
    assert "the document would be refused with device:usb:1:1 in it: there is no USB controller" in found.message
    assert "nothing was attached" in (found.help or "")
    assert "translator normalize" in (found.help or "")


@pytest.mark.parametrize("model", ["ehci", "piix3-uhci"])
def test_the_speed_of_a_host_device_counts(model: str) -> None:
    """It goes where its speed is served; where that is nowhere, it is told of, and by apply just the same."""
    text = (
        "<domain type='xen'><name>gs</name><os><type arch='x86_64' machine='xenfv'>hvm</type></os><devices>"
        f"<controller type='usb' model='piix3-uhci'/><controller type='usb' model='{model}'/></devices></domain>"
    )
    camera = "<hostdev type='usb'><source><vendor id='0x046d'/><product id='0x082d'/></source>"
    slow = text.replace("</devices>", f"{camera}<address type='usb' bus='0' port='1'/></hostdev></devices>")

    async def scenario() -> None:
        plan = translator.plan(translator.load(text.encode()))
        async with Sandbox() as embedded:
            guest = embedded.make_host_for(plan)
            embedded.add_host_device("1-4", bus=1, device=4, vendor=0x046D, product=0x082D, speed="480")
            async with translator.Host(
                xenstore=embedded.xenstore_socket, qmp=guest.qmp_sockets, sysfs=embedded.sysfs
            ) as host:
                await host.apply(plan.bind(domid=guest.domid))
                given = await attach_given(host, [Given("hostdev:046d:082d")], domid=guest.domid)
                where = {"ehci": "device:usb:1:1", "piix3-uhci": "device:usb:0:1"}[model]
                assert given.applied.steps[-1].id == where
                assert [note.code for note in given.applied.notes] == ["T318"] * (model != "ehci")
                await host.detach("hostdev:046d:082d", domid=guest.domid)
                applied = await host.apply(translator.plan(translator.load(slow.encode()), domid=guest.domid))
                (note,) = applied.notes
                assert note.code == "T318"
                help = {"ehci": "controller 1 (ehci) serves it", "piix3-uhci": "such as 'qemu-xhci'"}[model]
                assert help in (note.help or "")

    run(scenario())


class Churn(RuleBasedStateMachine):
    """Devices come and go; the domain is at all times what the model says, and in the end nothing is left."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.sandbox = Sandbox()
        self.host = self.do(self.start())
        self.before = self.store()
        self.model: dict[str, str] = {}  # what each word was attached as: a device's or controller's step id

    async def start(self) -> translator.Host:
        await self.sandbox.__aenter__()
        guest = self.sandbox.add_guest("churn", domid=DOMID)
        for number in range(1, 7):
            self.sandbox.add_host_device(
                f"1-{number}", bus=1, device=number + 1, vendor=0x1000 + number, product=1, drivers=()
            )
        return translator.Host(xenstore=self.sandbox.xenstore_socket, qmp=guest.qmp_socket, sysfs=self.sandbox.sysfs)

    def do(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(work)

    def store(self) -> dict[str, str]:
        async def read() -> dict[str, str]:
            return await (await self.host.xenstore()).tree("/")

        return self.do(read())

    def attach(self, word: str) -> None:
        steps = self.do(self.host.attach(word, domid=DOMID)).steps
        for step in steps:
            self.model[step.subject] = word

    @rule(number=st.integers(2, 7))
    def attach_host_device(self, number: int) -> None:
        word = f"hostdev:1.{number}"
        # a controller that came along has the word too, and may outstay the device
        if any(one == word for id, one in self.model.items() if id.startswith("device")):
            with pytest.raises(HostError, match="T437"):
                self.attach(word)
        else:
            self.attach(word)

    @rule(word=st.sampled_from(["tablet", "keyboard", "mouse", "hub"]))
    def attach_emulated(self, word: str) -> None:
        self.attach(word)

    @rule(word=st.sampled_from(["controller:qusb2,ports=2", "controller:nec-xhci,ports=3", "controller:xenusb1"]))
    @precondition(lambda self: sum(id.startswith("controller") for id in self.model) < 8)
    def attach_controller(self, word: str) -> None:
        self.attach(word)

    @rule(data=st.data())
    @precondition(lambda self: self.model)
    def detach(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.model)))
        what, _, place = id.partition(":usb:")
        steps = self.do(self.host.detach(place if what == "device" else f"controller:{place}", domid=DOMID)).steps
        gone = {step.subject for step in steps}
        assert id in gone
        assert gone == {
            other
            for other in self.model
            if other == id or other.startswith((f"{id}.", f"device:usb:{place}:" if what == "controller" else "-"))
        }
        for one in gone:
            del self.model[one]

    @invariant()
    def the_domain_is_as_the_model_says(self) -> None:
        seen = self.do(self.host.observe(domid=DOMID))
        ids = {f"controller:usb:{one.index}" for one in seen.controllers}
        ids |= {f"device:usb:{one.controller}:{one.port}" for one in seen.devices}
        assert ids == self.model.keys()

    def teardown(self) -> None:
        try:
            for id in sorted(self.model):
                if id.startswith("controller"):
                    self.do(self.host.detach(id.replace(":usb", ""), domid=DOMID))
            assert self.store() == self.before
        finally:
            self.do(self.host.close())
            self.do(self.sandbox.__aexit__())
            self.loop.close()


def test_fifty_devices_come_and_go() -> None:
    run_state_machine_as_test(
        Churn,
        settings=settings(
            max_examples=2,
            phases=[Phase.explicit, Phase.generate],
            stateful_step_count=50,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_commands_and_the_document_that_follows(tmp_path: Path) -> None:
    document = tmp_path / "guest.xml"
    original = (
        "<domain type='xen'>\n  <name>hvm</name>\n  <os><type>hvm</type></os>\n  <devices>\n"
        "    <!-- kept -->\n    <controller type='usb' index='0' model='piix3-uhci'/>\n"
        "    <input type='tablet' bus='usb'/>\n  </devices>\n</domain>\n"
    )
    document.write_text(original)

    async def call(host: Bench, *words: str, stdin: bytes = b"") -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "translator", *words),
            *("--xenstore", host.xenstore, "--qmp", host.qmp, "--sysfs", str(host.sysfs), "--state", str(tmp_path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"COLUMNS": "200"},
        )
        out, err = await process.communicate(stdin)
        return process.returncode or 0, out.decode(), err.decode()

    async def scenario() -> None:
        plan = translator.plan(translator.load(document))
        async with Sandbox() as embedded:
            guest = embedded.add_guest("hvm", domid=DOMID)
            host = Bench(str(embedded.xenstore_socket), str(guest.qmp_socket), host_devices(tmp_path / "sys"))
            assert (await call(host, "apply", str(document), "--domid", str(DOMID)))[0] == 0
            code, out, err = await call(host, "attach", "hvm", "-", "--save", str(document), stdin=HOSTDEV)
            assert (code, out) == (
                4,
                "",
            ), "QEMU has no such device, since the host's USB is not the sandbox's own"
            assert "failed to find host usb device 1:9" in err
            assert document.read_text() == original
            words = ("attach", "hvm", "tablet", "--dry-run", "--qmp", host.qmp, "--state", str(tmp_path))
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "translator", *words),
                stdout=subprocess.DEVNULL,
                env=os.environ | {"XENSTORED_PATH": host.xenstore},
            )
            assert await process.wait() == 0, "a xenstored that the environment names is as good as --xenstore"
            word = "keyboard"
            code, out, err = await call(host, "attach", guest.uuid, word, "--save", str(document))
            assert (code, out) == (0, "attached: keyboard, port 2 of controller 0  [input1]\n"), err
            assert document.read_text() == original.replace(
                "  </devices>",
                "    <input type='keyboard' bus='usb'>\n"
                "      <address type='usb' bus='0' port='2'/>\n"
                "      <alias name='input1'/>\n"
                "    </input>\n"
                "  </devices>",
            )
            code, out, err = await call(host, "detach", str(DOMID), "input1", "--save", str(document))
            assert (code, out) == (0, "detached: keyboard, port 2 of controller 0  [input1]\n"), err
            assert document.read_text() == original
            assert (await call(host, "attach", "nobody", "hub"))[0] == 4
            assert (await call(host, "attach", "hvm", "none.xml"))[0] == 2
            code, out, err = await call(host, "attach", "hvm", "hub", "--controller", "0", "--port", "2", "--dry-run")
            assert out.endswith("1 step would be carried out\n"), err
            assert plan.topology.domain.name == "hvm"

    run(scenario())
