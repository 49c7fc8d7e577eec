"""One domain emulated by two and three processes: real QEMUs beside each xenstored, and the sandbox."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import translator
from tests.servers import CXenStored, OxenStored, Qemu, make_domain, require
from translator.errors import HostError
from translator.hosts.sandbox import Sandbox
from translator.hosts.xenstore import Xenstore
from translator.output import render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

DOMID = 8
UUID = "5a1e5c0e-3f2b-4c1d-9b7a-6d5e4f3a2b1c"
SERVERS = {"oxenstored": OxenStored, "xenstored": CXenStored}


class Bench(NamedTuple):
    xenstore: str
    sockets: Mapping[str, str]
    kill: Callable[[str], None]  # a device model's process
    sysfs: Path

    def host(self) -> translator.Host:
        return translator.Host(xenstore=self.xenstore, qmp=self.sockets, sysfs=self.sysfs, timeout_s=5)

    async def nodes(self) -> dict[str, str]:
        client = await Xenstore.connect(self.xenstore)
        try:
            return await client.tree(f"/libxl/{DOMID}")
        finally:
            await client.close()


async def devices(host: translator.Host, model: str) -> set[str]:
    """Return the names of what a device model has."""
    return {one.id for one in await (await host.qmp(model, DOMID)).devices() if one.id is not None}


@pytest.fixture(params=[*SERVERS, "sandbox"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return how to start a host with a process for each of the plan's device models."""

    @asynccontextmanager
    async def real(plan: translator.Plan) -> AsyncIterator[Bench]:
        server = SERVERS[request.param]
        require(server)
        require(Qemu)
        with ExitStack() as stack:
            xenstored = stack.enter_context(server())
            client = await Xenstore.connect(xenstored.socket)
            await make_domain(client, DOMID, name="split", uuid=UUID, guest="hvm")
            await client.close()
            qemus = {
                model.name: stack.enter_context(Qemu(words=shlex.split(render.qemu_args(plan, model.name))))
                for model in plan.topology.device_models
            }
            sockets = {name: qemu.socket for name, qemu in qemus.items()}
            yield Bench(xenstored.socket, sockets, lambda name: qemus[name].kill(), tmp_path)

    @asynccontextmanager
    async def sandbox(plan: translator.Plan) -> AsyncIterator[Bench]:
        async with AsyncExitStack() as stack:
            embedded = await stack.enter_async_context(Sandbox())
            guest = embedded.make_host_for(plan)
            sockets = {name: str(path) for name, path in guest.qmp_sockets.items()}
            yield Bench(
                str(embedded.xenstore_socket), sockets, lambda name: embedded.end_emulator(guest, name), tmp_path
            )

    return sandbox if request.param == "sandbox" else real


def plan_of(controllers: int, *devices: str) -> translator.Plan:
    """A controller for each device model that QEMU has from its start, and what is plugged into it."""
    document = (
        f"<domain type='xen' id='{DOMID}'><name>split</name><uuid>{UUID}</uuid>"
        "<os><type arch='x86_64' machine='xenfv'>hvm</type></os><devices>"
        + "".join(f"<controller type='usb' index='{n}' model='ich9-ehci1'/>" for n in range(controllers))
        + "".join(devices)
        + "</devices></domain>"
    )
    return translator.plan(translator.load(document.encode()), device_models="per-controller")


def tablet(controller: int) -> str:
    return f"<input type='tablet' bus='usb'><address type='usb' bus='{controller}' port='1'/></input>"


@pytest.mark.parametrize("number", [1, 2], ids=["two", "three"])
def test_each_process_gets_its_own_and_nothing_twice(bench: Any, number: int) -> None:
    async def scenario() -> None:
        plan = plan_of(number, *(tablet(n) for n in range(number)))
        assert len(plan.topology.device_models) == number + 1
        async with bench(plan) as there, there.host() as host:
            await host.apply(plan)
            for n in range(number):
                assert {f"xenusb-{n}", f"input{n}"} <= await devices(host, f"usb-{n}")
            assert not {"input0", "xenusb-0"} & await devices(host, "primary")
            assert (await host.apply(plan)).steps == ()
            seen = await host.observe(domid=DOMID)
            assert {one.index: one.device_model for one in seen.controllers} == {n: f"usb-{n}" for n in range(number)}
            assert [(one.name, one.pci) for one in seen.device_models] == [
                (one.name, one.pci if one.name != "primary" else ()) for one in plan.topology.device_models
            ]

    asyncio.run(scenario())


def test_the_records_tell_where_the_others_listen(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of(1, tablet(0))
        async with bench(plan) as there:
            async with there.host() as host:
                await host.apply(plan)
            root = f"/libxl/{DOMID}/device-model/usb-0"
            nodes = {path: value for path, value in (await there.nodes()).items() if path.startswith(root)}
            assert nodes == {root: "", f"{root}/qmp": there.sockets["usb-0"], f"{root}/pci": "0000:00:1f.0"}
            # whoever comes next is told of the primary one only
            only = translator.Host(xenstore=there.xenstore, qmp=there.sockets["primary"], sysfs=there.sysfs)
            async with only as host:
                assert [device.kind for device in (await host.observe(domid=DOMID)).devices] == ["tablet"]

    asyncio.run(scenario())


def test_when_one_process_dies_the_others_are_as_before(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of(2, tablet(0), tablet(1))
        async with bench(plan) as there, there.host() as host:
            before = await there.nodes()

            def kill(event: translator.StepEvent) -> None:
                if (event.step.id, event.phase) == ("device:usb:1:1", "begin"):
                    there.kill("usb-1")

            with pytest.raises(HostError) as caught:
                await host.apply(plan, on_step=kill)
            assert caught.value.code == "T501", caught.value
            assert await there.nodes() == before
            assert "input0" not in await devices(host, "usb-0")

    asyncio.run(scenario())


def test_who_is_to_confirm_may_look_at_every_process(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of(1, tablet(0))
        async with bench(plan) as there:
            looks: list[asyncio.Task[translator.Topology]] = []

            async def look() -> translator.Topology:
                other: translator.Host
                async with there.host() as other:
                    return await other.observe(domid=DOMID)

            host = translator.Host(
                xenstore=there.xenstore, qmp=there.sockets, sysfs=there.sysfs, state=there.sysfs / "state"
            )
            async with host:
                with pytest.raises(HostError, match="T508"):  # its steps are for one of the two
                    await host.apply(
                        plan, confirm_s=1, on_confirm=lambda _: looks.append(asyncio.ensure_future(look()))
                    )
            assert [device.kind for device in (await looks[0]).devices] == ["tablet"]

    asyncio.run(scenario())


def test_a_controller_in_another_process_is_no_match(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of(1, tablet(0))
        async with bench(plan) as there, there.host() as host:
            await host.apply(plan)
            moved = translator.plan(
                translator.load(
                    f"<domain type='xen' id='{DOMID}'><name>split</name><uuid>{UUID}</uuid>"
                    "<os><type arch='x86_64' machine='xenfv'>hvm</type></os><devices>"
                    f"<controller type='usb' model='ich9-ehci1'/>{tablet(0)}</devices></domain>".encode()
                )
            )
            with pytest.raises(HostError, match="T414"):
                await host.apply(moved)

    asyncio.run(scenario())


def test_two_device_models_cannot_have_one_socket() -> None:
    with pytest.raises(HostError, match=r"T402.*'primary' and 'usb'"):
        translator.Host(qmp={"primary": "/run/qmp", "usb": "/run/qmp"})
