"""Plans carried out on real servers, and on the sandbox: what the store and QEMU hold afterwards.

Every scenario runs on each xenstored with a real QEMU, and on the sandbox, which has to be told apart from
them by nothing.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest

import translator
from tests.conftest import FIXTURES, cases
from tests.servers import Backend, CXenStored, OxenStored, Qemu, make_domain, require
from translator.comparison.changes import changes
from translator.errors import HostError, RollbackError
from translator.hosts.qmp import Qmp
from translator.hosts.sandbox import Sandbox
from translator.hosts.sysfs import Sysfs
from translator.hosts.xenstore import Xenstore
from translator.live.binding import bind_host_devices
from translator.live.observe import observe
from translator.live.performer import Performer
from translator.output import render
from translator.planning.plan import Transaction, XenstoreOp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
    from pathlib import Path

    from translator.saga.outcome import Applied

DOMID = 8
SERVERS = {"oxenstored": OxenStored, "xenstored": CXenStored}


class Bench(NamedTuple):
    """A host with domain 8 on it, from the outside."""

    xenstore: str
    qmp: str
    sysfs: Path
    timeout_s: float = 5
    state: Path | None = None
    others: Mapping[str, str] = {}  # monitors of device models besides the primary one, by name

    @property
    def monitors(self) -> dict[str, str]:
        return {"primary": self.qmp, **self.others} if self.qmp else {}

    def host(self) -> translator.Host:
        return translator.Host(
            xenstore=self.xenstore, qmp=self.monitors, sysfs=self.sysfs, timeout_s=self.timeout_s, state=self.state
        )

    async def apply(self, plan: translator.Plan, **options: Any) -> Applied:
        async with self.host() as host:
            return await host.apply(plan, **options)

    async def observe(self) -> translator.Topology:
        async with self.host() as host:
            return await host.observe(domid=DOMID)

    async def nodes(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the whole store: value and permissions by path."""
        client = await Xenstore.connect(self.xenstore)
        try:
            values = await client.tree("/")
            return {path: (value, await client.permissions(path) or ()) for path, value in values.items()}
        finally:
            await client.close()

    async def devices(self) -> dict[str, str]:
        """Return QEMU's devices, or all QEMUs': driver and port by id."""
        found: dict[str, str] = {}
        for path in self.monitors.values():
            monitor = await Qmp.connect(path)
            try:
                devices = await monitor.devices()
                found |= {one.id or one.path: f"{one.driver} {one.port or ''}".strip() for one in devices}
            finally:
                await monitor.close()
        return found

    async def qemu(self, command: str, **arguments: Any) -> Any:
        monitor = await Qmp.connect(self.qmp)
        try:
            return await monitor.execute(command, arguments)
        finally:
            await monitor.close()


def host_devices(root: Path) -> Path:
    """Make a /sys with three USB devices."""
    for path, bus, number, vendor, product in (
        ("1-8", 1, 8, "046d", "c52b"),
        ("1-9", 1, 9, "0951", "1666"),
        ("2-1.4", 2, 3, "0951", "1666"),
    ):
        folder = root / "bus/usb/devices" / path
        folder.mkdir(parents=True)
        for name, value in (("busnum", bus), ("devnum", number), ("idVendor", vendor), ("idProduct", product)):
            (folder / name).write_text(f"{value}\n")
    return root


BackendMode = Literal["normal", "silent", "late", "dies", "clings"]


@pytest.fixture(params=[*SERVERS, "sandbox"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return how to start a host: `async with bench(plan, backend="silent") as host`."""

    @asynccontextmanager
    async def real(
        plan: translator.Plan, *, backend: BackendMode = "normal", launch: bool = True
    ) -> AsyncIterator[Bench]:
        server = SERVERS[request.param]
        require(server)
        require(Qemu)
        words = shlex.split(render.qemu_args(plan)) if launch else []
        with server() as xenstored, Qemu(words=words) as qemu:
            async with AsyncExitStack() as stack:
                client = await Xenstore.connect(xenstored.socket)
                await make_domain(
                    client,
                    DOMID,
                    name=plan.topology.domain.name,
                    uuid=str(plan.topology.domain.uuid),
                    guest=plan.topology.domain.guest,
                )
                await client.close()
                await stack.enter_async_context(Backend(xenstored.socket, backend))
                yield Bench(xenstored.socket, qemu.socket, host_devices(tmp_path / "sys"))

    @asynccontextmanager
    async def sandbox(
        plan: translator.Plan, *, backend: BackendMode = "normal", launch: bool = True
    ) -> AsyncIterator[Bench]:
        delays = {"silent": None, "late": 0.5}
        async with Sandbox(backend_delay_s=delays.get(backend, 0.0)) as embedded:
            guest = embedded.add_guest(
                plan.topology.domain.name,
                plan.topology.domain.uuid,
                domid=DOMID,
                guest=plan.topology.domain.guest,
                guest_cooperates=False,
                frontend_connects=backend == "clings",
                launch=[step.action.arguments for step in plan.steps if step.stage == "launch"] if launch else [],  # type: ignore[union-attr]  # only QEMU has a launch stage
            )
            yield Bench(str(embedded.xenstore_socket), str(guest.qmp_socket), host_devices(tmp_path / "sys"))

    return sandbox if request.param == "sandbox" else real


def plan_of(name: str) -> translator.Plan:
    return translator.plan(translator.load(FIXTURES / f"hosts/{name}.xml"), domid=DOMID)


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        await work

    asyncio.run(main())


def expected_nodes(plan: translator.Plan) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Read the plan's own xenstore rendering."""
    for line in render.xenstore(plan).splitlines():
        path, rest = line.split(' = "', 1)
        value, permissions = rest.rsplit('"   (', 1)
        yield path, value, tuple(permissions.rstrip(")").split(","))


def test_an_emulated_domain_ends_as_planned(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("hvm")
        async with bench(plan) as host:
            before = await host.nodes()
            first = await host.apply(plan)
            assert first.steps == plan.steps
            after = await host.nodes()
            made = {path: node for path, node in after.items() if before.get(path) != node}
            assert made == {path: (value, permissions) for path, value, permissions in expected_nodes(plan)}
            assert await host.devices() == {
                "xenusb-0": "piix3-usb-uhci",
                "xenusb-1": "nec-usb-xhci",
                "xenusb-2": "usb-ehci",
                "input0": "usb-tablet 1",
                "hub0": "usb-hub 2",
                "input1": "usb-kbd 2.1",
                "input2": "usb-mouse 3",
            }
            shown = await host.qemu("human-monitor-command", **{"command-line": "info usb"})
            assert [line.split(",")[1].strip() for line in shown.split("\n") if line.strip()] == [
                *("Port 2", "Port 1", "Port 2.1", "Port 3"),  # as they were plugged: hubs first
            ]
            second = await host.apply(plan)
            assert second.steps == ()
            assert await host.nodes() == after

    run(scenario())


def test_paravirtual_and_emulated_side_by_side(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with bench(plan) as host:
            await host.apply(plan)
            nodes = await host.nodes()
            bound = bind_host_devices(plan, Sysfs(host.sysfs), {})
            backend_moved = {path for path in nodes if path.endswith("/state")}
            for path, value, permissions in expected_nodes(bound):
                assert nodes[path][1] == permissions, path
                assert nodes[path][0] == value or path in backend_moved, path
            assert nodes["/local/domain/0/backend/qusb/8/1/state"][0] == "2"
            assert nodes["/local/domain/0/backend/qusb/8/1/port/2"][0] == "1-9"
            assert nodes["/local/domain/0/backend/vusb/8/2/port/1"][0] == "2-1.4"
            assert nodes["/libxl/8/device/vusb/0/port/1"][0] == "1-8"
            assert (await host.devices())["xenusb-1-8"] == "usb-host 1"
            assert (await host.apply(plan)).steps == ()

    run(scenario())


@pytest.mark.parametrize("name", ["hvm", "mixed"])
def test_what_is_observed_is_what_was_planned(bench: Any, name: str) -> None:
    async def scenario() -> None:
        plan = plan_of(name)
        async with bench(plan) as host:
            await host.apply(plan)
            seen = await host.observe()
            wanted = plan.topology

            def controllers(topology: translator.Topology) -> list[tuple[object, ...]]:
                return [
                    (one.index, one.model, one.type, one.version, one.ports, one.id, one.driver, one.backend)
                    for one in topology.controllers
                ]

            assert controllers(seen) == controllers(wanted)
            assert [(one.controller, one.port, one.kind) for one in seen.devices] == sorted(
                (one.controller, one.port, one.kind) for one in wanted.devices
            )
            paths = [one.host.path for one in seen.devices if one.host]
            assert paths == ([] if name == "hvm" else ["1-8", "1-9", "2-1.4"])

    run(scenario())


def test_a_silent_backend_is_named_and_leaves_nothing(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with bench(plan, backend="silent") as host:
            before = await host.nodes(), await host.devices()
            with pytest.raises(HostError, match=r"controller:usb:1:backend failed: \[T407\]") as caught:
                await host._replace(timeout_s=0.3).apply(plan)
            assert not isinstance(caught.value, RollbackError)
            assert (await host.nodes(), await host.devices()) == before

    run(scenario())


def test_a_late_backend_is_waited_for(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with bench(plan, backend="late") as host:
            assert len((await host.apply(plan)).steps) == len(plan.steps)

    run(scenario())


def test_what_qemu_refuses_is_undone(bench: Any) -> None:
    """QEMU cannot open the last device: everything before goes again, controllers excepted.

    A PCI controller leaves only with the guest's help, which a guest without an operating system does not
    give; so the error says what is stuck.
    """
    document = (FIXTURES / "hosts/hvm.xml").read_bytes()
    mouse = b"<input type='mouse' bus='usb'>"
    assert mouse in document
    passed = b"<hostdev mode='subsystem' type='usb'><source><address bus='1' device='9'/></source>"
    document = document.replace(mouse, passed).replace(b"port='3'/></input>", b"port='3'/></hostdev>")
    plan = translator.plan(translator.load(document), domid=DOMID)

    async def scenario() -> None:
        async with bench(plan) as host:
            with pytest.raises(RollbackError, match="failed to find host usb device 1:9") as caught:
                await host._replace(timeout_s=0.5).apply(plan)
            assert caught.value.stuck == tuple(
                f"controller:usb:{index}{part}" for index in (2, 1, 0) for part in ("", ":record")
            )
            assert (await host.devices()).keys() == {"xenusb-0", "xenusb-1", "xenusb-2"}
            # a controller that is still there keeps its record, so that the toolstack still sees it
            nodes = await host.nodes()
            records = {path for path in nodes if path.startswith("/libxl/8/device/vusb/")}
            assert records == {
                path for path, _, _ in expected_nodes(plan) if path.startswith("/libxl/8/device/vusb/")
            }
            assert nodes["/libxl/8/device/vusb/1/port/3"][0] == ""

    run(scenario())


@pytest.mark.parametrize(
    ("foreign", "complaint"),
    [
        ({"driver": "usb-mouse", "id": "input2", "bus": "mine.0"}, "QEMU has a device 'input2' that is not"),
        (
            {"driver": "usb-wacom-tablet", "bus": "xenusb-0.0", "port": "1"},
            "port 1 of controller 0 is held by a usb-w",
        ),
        ({"driver": "usb-kbd", "bus": "xenusb-0.0", "port": "1"}, "port 1 of controller 0 is held by a keyboard"),
    ],
    ids=["an id", "a port, by a device of no kind of ours", "a port"],
)
def test_what_is_taken_is_found_before_the_first_step(bench: Any, foreign: dict[str, str], complaint: str) -> None:
    async def scenario() -> None:
        plan = plan_of("hvm")
        async with bench(plan) as host:
            await host.qemu("device_add", driver="piix3-usb-uhci", id="xenusb-0")
            await host.qemu("device_add", driver="piix3-usb-uhci", id="mine")
            await host.qemu("device_add", **foreign)
            before = await host.nodes(), await host.devices()
            with pytest.raises(HostError, match=complaint) as caught:
                await host.apply(plan)
            assert caught.value.code == "T414"
            assert (await host.nodes(), await host.devices()) == before

    run(scenario())


def test_directories_of_others_stay_as_they_are(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with bench(plan, backend="silent") as host:
            client = await Xenstore.connect(host.xenstore)
            theirs = ("/local/domain/0/backend/qusb", f"/local/domain/{DOMID}/device/vusb", f"/libxl/{DOMID}/device")
            await client.commit([XenstoreOp(op="mkdir", path=path, permissions=("n0", "b3")) for path in theirs])
            await client.close()
            before = await host.nodes()
            with pytest.raises(HostError, match="T407"):
                await host._replace(timeout_s=0.3).apply(plan)
            assert await host.nodes() == before

    run(scenario())


def test_what_a_killed_apply_left_is_not_taken_for_done(bench: Any) -> None:
    """A controller whose backend never answered, and a record without a device, are brought to their end."""

    async def scenario() -> None:
        document = (FIXTURES / "hosts/mixed.xml").read_bytes().replace(b"nec-xhci' ports='4'", b"piix4-uhci'")
        plan = translator.plan(translator.load(document), domid=DOMID)
        first = [step for step in plan.steps if step.id in ("controller:usb:1", "controller:usb:0:record")]
        async with bench(plan, backend="silent") as host:
            client = await Xenstore.connect(host.xenstore)
            for step in first:
                assert isinstance(step.action, Transaction)
                await client.commit(step.action.transaction)
            await client.close()
            before = await host.nodes()
            with pytest.raises(HostError, match=r"controller:usb:1:backend failed: \[T407\]"):
                await host._replace(timeout_s=0.3).apply(plan)
            assert await host.nodes() == before
            async with host.host() as connections:
                todo = [step.id for step in (await connections.apply(plan, dry_run=True)).steps]
            assert todo[0] == "controller:usb:1:backend"
            assert "controller:usb:0" in todo
            assert not {step.id for step in first} & set(todo)

    run(scenario())


def test_what_was_observed_is_no_plan_to_apply(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("hvm")
        async with bench(plan) as host:
            seen = translator.Plan(topology=plan.topology, steps=())
            with pytest.raises(translator.PlanError, match="has no steps for it"):
                await host.apply(seen)

    run(scenario())


def test_two_at_once_for_one_domain(bench: Any) -> None:
    """One wins and the other says so, or finds nothing left to do; the domain is as planned, once."""

    async def scenario() -> None:
        plan = plan_of("mixed")
        async with bench(plan) as host:
            # a monitor serves one client at a time, so the two share a host, as a manager would
            async with host.host() as shared:
                outcomes = await asyncio.gather(shared.apply(plan), shared.apply(plan), return_exceptions=True)
            refused = [one for one in outcomes if isinstance(one, BaseException)]
            assert len(refused) < 2
            assert [type(one) for one in refused] in ([], [HostError])
            assert (await host.apply(plan)).steps == ()

    run(scenario())


def test_another_domain_in_the_same_place_is_not_touched(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with bench(plan) as host:
            client = await Xenstore.connect(host.xenstore)
            other = "11111111-2222-3333-4444-555555555555"
            await client.commit([XenstoreOp(op="write", path=f"/local/domain/{DOMID}/vm", value=f"/vm/{other}")])
            await client.close()
            before = await host.nodes()
            with pytest.raises(HostError, match=f"UUID {other}") as caught:
                await host.apply(plan)
            assert caught.value.code in ("T404", "T444"), "the embedded QEMU tells its UUID, and is asked first"
            assert await host.nodes() == before

    run(scenario())


def test_no_such_domain(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with bench(plan) as host:
            with pytest.raises(HostError, match="there is no domain 9"):
                await host.apply(translator.plan(translator.load(FIXTURES / "hosts/mixed.xml"), domid=9))

    run(scenario())


def test_a_held_port_is_never_taken_over(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("hvm")
        async with bench(plan) as host:
            await host.apply(plan)
            await host.qemu("device_del", id="input2")
            await host.qemu("device_add", driver="usb-kbd", id="mine", bus="xenusb-1.0", port="3")
            with pytest.raises(HostError, match="port 3 of controller 1 is held by a keyboard") as caught:
                await host.apply(plan)
            assert caught.value.code == "T414"

    run(scenario())


def test_only_what_is_missing_is_done(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("hvm")
        async with bench(plan) as host:
            await host.apply(plan)
            await host.qemu("device_del", id="input0")
            again = await host.apply(plan, dry_run=True)
            assert [step.id for step in again.steps] == ["device:usb:0:1"]
            assert [step.id for step in (await host.apply(plan)).steps] == ["device:usb:0:1"]

    run(scenario())


def test_a_host_device_that_is_not_there(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with bench(plan) as host:
            before = await host.nodes()
            empty = host.sysfs.parent / "empty"
            with pytest.raises(HostError, match="the host has no USB device 046d:c52b"):
                await host._replace(sysfs=empty).apply(plan)
            twin = host.sysfs / "bus/usb/devices/1-7"
            twin.mkdir()
            for name, value in (("busnum", "1"), ("devnum", "7"), ("idVendor", "046d"), ("idProduct", "c52b")):
                (twin / name).write_text(value)
            with pytest.raises(HostError, match="2 USB devices of the host are 046d:c52b"):
                await host.apply(plan)
            assert await host.nodes() == before

    run(scenario())


# Why a fixture's domain cannot be applied in the sandbox as it is.
UNSTARTED = {
    "kvm-companions-that-qemu-refuses": "firstport must be between",
    "qemu-mips-vt82c686b-uhci": "'vt82c686b-usb-uhci' is not a valid device model name",
}
UNSERVED = {
    "kvm-disks-on-usb": "drive property not set",
    "kvm-disks-that-get-one-id": "Duplicate device ID",
    "kvm-full-speed-hub-on-ehci-warns": "speed mismatch",
    "xen-hvm-backend-domain-by-name": "no running domain is called 'usbvm'",
}


@pytest.mark.parametrize("case", cases("plans"), ids=lambda case: case.name)
def test_every_fixture_applies_in_the_sandbox(case: Path) -> None:
    """It applies, is seen to match, needs nothing more, and is taken back by the undos of its steps."""

    async def scenario() -> None:
        plan = translator.plan(translator.load(case / "domain.xml"))
        async with Sandbox() as embedded:
            if case.name in UNSTARTED:
                with pytest.raises(HostError, match=UNSTARTED[case.name]):
                    embedded.make_host_for(plan)
                return
            guest = embedded.make_host_for(plan)
            if plan.topology.domain.hypervisor == "xen":
                plan = plan.bind(domid=guest.domid)
            async with translator.Host(
                xenstore=embedded.xenstore_socket, qmp=guest.qmp_sockets, sysfs=embedded.sysfs
            ) as host:
                if case.name in UNSERVED:
                    with pytest.raises(HostError, match=UNSERVED[case.name]):
                        await host.apply(plan)
                    return
                domid = plan.topology.domain.domid
                before = await observe(host, domid=domid, layout=plan.topology.layout, like=plan.topology)
                applied = await host.apply(plan)
                assert [step.id for step in applied.steps] == [
                    step.id for step in plan.steps if step.stage == "attach"
                ]
                assert (await host.apply(plan)).steps == ()
                performer = Performer(host, domid)
                for step in reversed(applied.steps):
                    assert step.undo is not None
                    await performer.perform(step.undo, step.device_model)
                after = await observe(host, domid=domid, layout=plan.topology.layout, like=plan.topology)
                assert changes(before.topology, after.topology) == ()

    run(scenario())


@pytest.mark.parametrize("launch", [True, False], ids=["started with it", "started without it"])
def test_qemu_domain_with_a_launch_stage(launch: bool) -> None:
    require(Qemu)
    plan = translator.plan(translator.load(FIXTURES / "hosts/kvm.xml"))

    async def scenario() -> None:
        words = shlex.split(render.qemu_args(plan)) if launch else []
        with Qemu(words=words) as qemu:
            async with translator.Host(qmp=qemu.socket) as host:
                if not launch:
                    with pytest.raises(HostError, match="cannot be given controller:usb:2, ") as caught:
                        await host.apply(plan)
                    assert caught.value.code == "T415"
                    assert str(caught.value.help).startswith('start it with: -device \'{"driver":"ich9-usb-ehci1"')
                    return
                applied = await host.apply(plan)
                assert [step.stage for step in applied.steps] == ["attach"] * len(applied.steps)
                assert (await host.apply(plan)).steps == ()
                seen = await host.observe()
                assert [(one.index, one.driver, one.ports) for one in seen.controllers] == [
                    (0, "piix3-usb-uhci", 2),
                    (1, "qemu-xhci", 6),
                    (2, "ich9-usb-ehci1", 6),
                ]
                assert [one.model for one in seen.controllers[2].companions] == ["ich9-uhci1"]

    run(scenario())


def test_everything_on_the_command_line_starts_a_real_qemu() -> None:
    require(Qemu)
    plan = translator.plan(translator.load(FIXTURES / "hosts/kvm.xml"), coldplug="all")

    async def scenario() -> None:
        with Qemu(words=shlex.split(render.qemu_args(plan))) as qemu:
            async with translator.Host(qmp=qemu.socket) as host:
                assert (await host.apply(plan)).steps == ()

    run(scenario())


def test_interrupted_twice_it_still_undoes_everything(tmp_path: Path) -> None:
    """Ctrl-C while a backend is waited for, and again while undoing: the store is as it was."""
    require(CXenStored)
    plan = plan_of("mixed")
    with CXenStored() as xenstored, Qemu() as qemu:
        bench = Bench(xenstored.socket, qemu.socket, host_devices(tmp_path / "sys"))

        async def domain() -> dict[str, tuple[str, tuple[str, ...]]]:
            client = await Xenstore.connect(xenstored.socket)
            identity = plan.topology.domain
            await make_domain(client, DOMID, name=identity.name, uuid=str(identity.uuid), guest="hvm")
            await client.close()
            return await bench.nodes()

        before = asyncio.run(domain())
        command = [
            sys.executable,
            "-m",
            "translator",
            "apply",
            str(FIXTURES / "hosts/mixed.xml"),
            "--domid",
            str(DOMID),
        ]
        options = [
            "--xenstore",
            bench.xenstore,
            "--qmp",
            bench.qmp,
            "--sysfs",
            str(bench.sysfs),
            "--state",
            str(tmp_path / "state"),
        ]
        with subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True) as apply:
            assert apply.stderr is not None
            while "controller:usb:1:backend" not in apply.stderr.readline():
                assert apply.poll() is None
            apply.send_signal(signal.SIGINT)
            apply.send_signal(signal.SIGINT)
            apply.send_signal(signal.SIGTERM)
            rest = apply.stderr.read()
        assert (apply.returncode, rest.splitlines()[-1]) == (4, "interrupted; the host is as it was before"), rest
        assert asyncio.run(bench.nodes()) == before


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
def test_the_rendering_is_what_xenstore_ls_prints(server: type[OxenStored | CXenStored]) -> None:
    require(server)
    require(Qemu)
    plan = plan_of("hvm")

    async def scenario(xenstore: str, qmp: str) -> None:
        client = await Xenstore.connect(xenstore)
        identity = plan.topology.domain
        await make_domain(client, DOMID, name=identity.name, uuid=str(identity.uuid), guest="hvm")
        await client.close()
        async with translator.Host(xenstore=xenstore, qmp=qmp) as host:
            await host.apply(plan)

    def words(text: str) -> set[tuple[str, ...]]:
        return {tuple(line.split()) for line in text.splitlines()}

    with server() as xenstored, Qemu() as qemu:
        run(scenario(xenstored.socket, qemu.socket))
        listed = subprocess.run(
            ["xenstore-ls", "-fp", f"/libxl/{DOMID}/device"],
            env=os.environ | {"XENSTORED_PATH": xenstored.socket},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    ours = words(render.xenstore(plan))
    assert {line for line in ours if line[0] != f"/libxl/{DOMID}/device"} == words(listed)
