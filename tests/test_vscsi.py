"""PV SCSI on both real xenstoreds and in the sandbox: handshake, devices that come and leave, force, and faults."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal

import pytest

import translator
from tests.servers import CXenStored, OxenStored, StandIn, make_domain, require
from tests.test_recover import Faulty
from translator.errors import HostError, RollbackError
from translator.hosts.sandbox import Sandbox
from translator.hosts.xenstore import Xenstore
from translator.live import apply as applying
from translator.planning.plan import XenstoreOp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DOMID = 8
UUID = "5f0e1c52-6a70-4d5e-9a35-0f6f8a1c2d3e"
BACKEND = f"/local/domain/0/backend/vscsi/{DOMID}/0"
ADDRESS = "<adapter name='scsi_host8'/><address bus='0' target='2' unit='1'/>"
SOURCES = {
    "address": f"<source>{ADDRESS}</source>",
    "wwn": "<source wwn='naa.60014054ac780582' lun='0'/>",
    "node": "<source dev='/dev/sdm'/>",
}
PHYSICAL = {"address": "8:0:2:1", "wwn": "naa.60014054ac780582:0", "node": "8:0:3:0"}


def plan_of(*names: str, controller: bool = True, name: str = "guest", domid: int = DOMID) -> translator.Plan:
    devices = "".join(
        f"<hostdev mode='subsystem' type='scsi'>{SOURCES[one]}"
        f"<address type='drive' controller='0' bus='0' target='{list(SOURCES).index(one)}' unit='0'/></hostdev>"
        for one in names
    )
    model = "<controller type='scsi' index='0' model='xenscsi'/>" if controller else ""
    document = (
        f"<domain type='xen'><name>{name}</name><uuid>{UUID}</uuid><os><type>linux</type></os>"
        f"<devices>{model}{devices}</devices></domain>"
    )
    return translator.plan(translator.load(document.encode()), domid=domid)


def scsi_devices(root: Path) -> Path:
    """Make a /sys with two SCSI devices."""
    for place, node in (("8:0:2:1", "sdl"), ("8:0:3:0", "sdm")):
        (root / "class/scsi_device" / place / "device/block" / node).mkdir(parents=True)
    return root


class Scsiback(StandIn):
    """A stand-in for xen-scsiback with a guest whose driver is there.

    `silent` never answers; `refuses` closes each device that is to come; `clings` lets go of none.
    """

    STATE = re.compile(r"/local/domain/\d+/backend/vscsi/\d+/\d+/state")

    def __init__(self, socket: str, mode: Literal["normal", "silent", "refuses", "clings"]) -> None:
        super().__init__(socket)
        self._mode = mode

    async def goes_on(self, path: str) -> bool:
        with suppress(HostError):  # the toolstack has changed its mind meanwhile
            await self._answer(path.removesuffix("/state"))
        return True

    async def _answer(self, backend: str) -> None:
        state = await self._xenstore.read(f"{backend}/state")
        if state not in ("1", "5", "7") or self._mode == "silent":
            return
        answers = [XenstoreOp("expect", f"{backend}/state", state)]
        for name in await self._xenstore.children(f"{backend}/vscsi-devs") or ():
            path = f"{backend}/vscsi-devs/{name}/state"
            answer = {"1": "6" if self._mode == "refuses" else "4", "5": None if self._mode == "clings" else "6"}
            to = answer.get(await self._xenstore.read(path) or "")
            if to is not None and state != "5":
                answers.append(XenstoreOp("write", path, to))
        answers.append(XenstoreOp("write", f"{backend}/state", "6" if state == "5" else "4"))
        await self._xenstore.commit(answers)


class Bench:
    """A host with domain 8 on it."""

    def __init__(self, socket: str, sysfs: Path) -> None:
        self.socket, self.sysfs = socket, sysfs

    async def apply(self, plan: translator.Plan, **options: Any) -> tuple[str, ...]:
        """Apply; return the ids of the steps."""
        async with translator.Host(
            xenstore=self.socket, sysfs=self.sysfs, timeout_s=1, state=self.sysfs / "state"
        ) as host:
            return tuple(step.id for step in (await host.apply(plan, **options)).steps)

    async def nodes(self) -> dict[str, str]:
        client = await Xenstore.connect(self.socket)
        try:
            return dict(await client.tree("/"))
        finally:
            await client.close()

    async def given(self) -> dict[str, tuple[str, str]]:
        """Return what each virtual device is, and its state."""
        nodes = await self.nodes()
        found = {path.rpartition("/")[0]: value for path, value in nodes.items() if path.endswith("/v-dev")}
        return {virtual: (nodes[f"{path}/p-dev"], nodes[f"{path}/state"]) for path, virtual in found.items()}


Mode = Literal["normal", "silent", "refuses", "clings"]


@pytest.fixture(params=["oxenstored", "xenstored", "sandbox"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return how to start a host: `async with bench("silent") as host`."""
    sysfs = scsi_devices(tmp_path / "sys")

    @asynccontextmanager
    async def real(mode: Mode = "normal") -> AsyncIterator[Bench]:
        server = {"oxenstored": OxenStored, "xenstored": CXenStored}[request.param]
        require(server)
        with server() as xenstored:
            client = await Xenstore.connect(xenstored.socket)
            await make_domain(client, DOMID, name="guest", uuid=UUID, guest="pv")
            await client.close()
            async with Scsiback(xenstored.socket, mode):
                yield Bench(xenstored.socket, sysfs)

    @asynccontextmanager
    async def sandbox(mode: Mode = "normal") -> AsyncIterator[Bench]:
        if mode == "refuses":
            pytest.skip("the sandbox's driver takes on what it is given")
        async with Sandbox(backend_delay_s=None if mode == "silent" else 0.0) as embedded:
            embedded.add_guest("guest", UUID, domid=DOMID, guest="pv", guest_cooperates=mode != "clings")
            embedded.backends.frontends.add(DOMID + 1)
            yield Bench(str(embedded.xenstore_socket), sysfs)

    return sandbox if request.param == "sandbox" else real


def test_devices_come_to_a_live_controller_and_leave_it(bench: Any) -> None:
    async def scenario() -> None:
        async with bench() as host:
            empty = await host.nodes()
            assert await host.apply(plan_of("address", "wwn"))
            first, second = ("0:0:0:0", (PHYSICAL["address"], "4")), ("0:0:1:0", (PHYSICAL["wwn"], "4"))
            assert await host.given() == dict([first, second])
            nodes = await host.nodes()
            assert nodes[f"{BACKEND}/state"] == "4"
            assert nodes[f"{BACKEND}/frontend"] == f"/local/domain/{DOMID}/device/vscsi/0"
            assert await host.apply(plan_of("address", "wwn")) == ()
            # another one
            steps = await host.apply(plan_of("address", "wwn", "node"))
            assert steps == tuple(f"device:scsi:0:0.2.0{part}" for part in ("", ":backend", ":settled"))
            assert (await host.given())["0:0:2:0"] == (PHYSICAL["node"], "4")
            assert (await host.nodes())[f"{BACKEND}/vscsi-devs/dev-32768/p-devname"] == "/dev/sdm"
            # one less
            await host.apply(plan_of("address", "node"), prune=True)
            assert await host.given() == dict([first, ("0:0:2:0", (PHYSICAL["node"], "4"))])
            assert not any("/dev-16384" in path for path in await host.nodes())
            # none at all
            await host.apply(plan_of(controller=False), prune=True)
            assert {path for path in await host.nodes() if "vscsi" in path} == {
                path for path in empty if "vscsi" in path
            }

    asyncio.run(scenario())


@pytest.mark.parametrize("mode", ["silent", "refuses"])
def test_a_backend_that_does_not_serve_changes_nothing(bench: Any, mode: str) -> None:
    async def scenario() -> None:
        async with bench(mode) as host:
            before = await host.nodes()
            with pytest.raises(HostError) as caught:
                await host.apply(plan_of("address"))
            assert caught.value.code == "T501"
            assert await host.nodes() == before

    asyncio.run(scenario())


def test_a_device_that_the_guest_keeps_stays(bench: Any) -> None:
    async def scenario() -> None:
        async with bench("clings") as host:
            await host.apply(plan_of("address"))
            before = await host.nodes()
            with pytest.raises(HostError, match="dev-0/state"):
                await host.apply(plan_of(), prune=True)
            assert await host.nodes() == before

    asyncio.run(scenario())


def test_by_force_nobody_is_waited_for(bench: Any) -> None:
    async def scenario() -> None:
        async with bench("clings") as host:
            empty = await host.nodes()
            await host.apply(plan_of("address", "node"))
            await host.apply(plan_of("address"), prune=True, force=True)
            assert await host.given() == {"0:0:0:0": (PHYSICAL["address"], "4")}
            await host.apply(plan_of(controller=False), prune=True, force=True)
            left = {path for path in await host.nodes() if "vscsi" in path}
            assert left == {path for path in empty if "vscsi" in path}

    asyncio.run(scenario())


@pytest.mark.parametrize("prune", [False, True], ids=["coming", "going"])
def test_a_fault_at_any_step_leaves_all_as_it_was(bench: Any, prune: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with bench() as host:
            if prune:
                await host.apply(plan_of("address", "node"))
            plan = plan_of(controller=False) if prune else plan_of("address", "node")
            async with translator.Host(xenstore=host.socket, sysfs=host.sysfs) as connections:
                steps = len((await connections.apply(plan, prune=prune, dry_run=True)).steps)
            assert steps == (12 if prune else 8)
            before = await lasting(host)
            monkeypatch.setattr(applying, "Performer", Faulty)
            for at in range(steps):
                for how in ("refused", "lost and unseen", "lost, done and unseen"):
                    Faulty.at, Faulty.how, Faulty.count = at, how, 0
                    with pytest.raises(HostError) as caught:
                        await host.apply(plan, prune=prune)
                    assert not isinstance(caught.value, RollbackError), (at, how, caught.value)
                    assert await lasting(host) == before, (at, how)
            monkeypatch.undo()
            assert len(await host.apply(plan, prune=prune)) == steps

    asyncio.run(scenario())


async def lasting(host: Bench) -> dict[str, str]:
    """Return the nodes without what the two drivers agree on anew."""
    moving = ("/ring-ref", "/event-channel")
    return {path: value for path, value in (await host.nodes()).items() if not path.endswith(moving)}


def test_a_driver_domains_devices_are_its_own(bench: Any) -> None:
    """The same place in two backend domains is two devices, and in one of them one."""

    def served(name: str, domid: int, backend: int, source: str = "address") -> translator.Plan:
        document = (
            f"<domain type='xen'><name>{name}</name><uuid>{UUID}</uuid><os><type>linux</type></os><devices>"
            f"<controller type='scsi' index='0' model='xenscsi'><backenddomain name='{backend}'/></controller>"
            f"<hostdev mode='subsystem' type='scsi'>{SOURCES[source]}"
            "<address type='drive' controller='0' bus='0' target='0' unit='0'/></hostdev></devices></domain>"
        )
        return translator.plan(translator.load(document.encode()), domid=domid)

    async def scenario() -> None:
        async with bench() as host:
            client = await Xenstore.connect(host.socket)
            for domid, name in ((3, "storage"), (DOMID + 1, "other")):
                await make_domain(client, domid, name=name, uuid=UUID, guest="pv")
            await client.close()
            await host.apply(served("guest", DOMID, 0))
            await host.apply(served("other", DOMID + 1, 3))
            assert {path.split("/")[3] for path in await host.nodes() if path.endswith("/p-dev")} == {"0", "3"}
            with pytest.raises(HostError, match=f"SCSI device 8:0:2:1 is domain {DOMID}'s already") as caught:
                await host.apply(plan_of("address", name="other", domid=DOMID + 1), replace=True)
            assert caught.value.code == "T471"
            with pytest.raises(HostError, match="/dev/sdm is a node of this host's /dev") as caught:
                await host.apply(served("other", DOMID + 1, 3, "node"))
            assert caught.value.code == "T483"

    asyncio.run(scenario())


def test_a_device_of_the_host_is_one_guests(bench: Any) -> None:
    async def scenario() -> None:
        async with bench() as host:
            client = await Xenstore.connect(host.socket)
            other = "/local/domain/0/backend/vscsi/9/0/vscsi-devs/dev-0"
            await client.commit(
                [
                    XenstoreOp("write", f"{other}/p-dev", PHYSICAL["node"]),
                    XenstoreOp("write", f"{other}/v-dev", "0:0:0:0"),
                    XenstoreOp("write", f"{other}/state", "4"),
                ]
            )
            await client.close()
            with pytest.raises(HostError, match="SCSI device 8:0:3:0 is domain 9's already") as caught:
                await host.apply(plan_of("node"))
            assert caught.value.code == "T471"

    asyncio.run(scenario())


def test_of_two_guests_that_want_a_device_at_once_one_has_it(bench: Any) -> None:
    async def scenario() -> None:
        async with bench() as host:
            client = await Xenstore.connect(host.socket)
            await make_domain(client, DOMID + 1, name="other", uuid=UUID, guest="pv")
            await client.close()
            for plan in (plan_of(), plan_of(name="other", domid=DOMID + 1)):
                await host.apply(plan)
            wanted = [plan_of("node"), plan_of("node", name="other", domid=DOMID + 1)]
            ended = await asyncio.gather(*map(host.apply, wanted), return_exceptions=True)
            refused = [one for one in ended if isinstance(one, HostError)]
            assert len(refused) == 1, ended
            nodes = await host.nodes()
            assert [value for path, value in nodes.items() if path.endswith("/p-dev")] == [PHYSICAL["node"]]

    asyncio.run(scenario())


def test_a_device_that_the_host_lacks(bench: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bench() as host:
            host.sysfs = tmp_path / "none"
            with pytest.raises(HostError, match="the host has no SCSI device 8:0:2:1") as caught:
                await host.apply(plan_of("address"))
            assert caught.value.code == "T470"

    asyncio.run(scenario())
