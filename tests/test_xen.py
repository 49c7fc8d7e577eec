"""Xen hosts: what the store holds, node for node, whose a host device is, and what is refused before a node changes.

A scenario runs on each real xenstored and on the sandbox's. QEMU's monitor and /sys are the sandbox's, which has host
devices to give away and drivers that they can be taken from.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import pytest
from click.testing import CliRunner

import translator
from tests.conftest import FIXTURES, cases
from tests.servers import Backend, CXenStored, OxenStored, Qemu, make_domain, require
from tests.test_apply import host_devices
from translator.cli import cli
from translator.errors import HostError, RollbackError
from translator.hosts.qmp import Qmp
from translator.hosts.sandbox import Sandbox
from translator.hosts.xenstore import Xenstore
from translator.hosts.xenwire import Wire
from translator.hotplug.attach import Given, attach, detach
from translator.layouts.identity import still_runs
from translator.live.binding import bind
from translator.live.observe import observe
from translator.live.performer import Performer
from translator.output import render
from translator.planning.plan import Transaction, XenstoreOp
from translator.saga.undo import roll_back

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from translator.topology import Guest, Layout

DOMID, OTHER, USBVM = 7, 9, 3
UUID = "8a1e5c0e-3f2b-4c1d-9b7a-6d5e4f3a2b1c"
OTHER_UUID = "11111111-2222-3333-4444-555555555555"
SERVERS = {"oxenstored": OxenStored, "xenstored": CXenStored}
BackendMode = Literal["normal", "silent", "late", "dies", "jumps"]


class Xen(NamedTuple):
    """A host with a domain 7 that is paravirtual or not, another one, and a backend domain."""

    store: Xenstore
    socket: str
    sandbox: Sandbox
    qmp: Path
    others: Path  # the monitor of domain 9

    def host(self, timeout_s: float = 5, domid: int | None = DOMID) -> translator.Host:
        qmp = self.others if domid == OTHER else self.qmp
        return translator.Host(xenstore=self.socket, qmp=qmp, sysfs=self.sandbox.sysfs, timeout_s=timeout_s)

    async def apply(self, plan: translator.Plan, *, timeout_s: float = 5, **options: Any) -> Any:
        async with self.host(timeout_s, plan.topology.domain.domid) as host:
            return await host.apply(plan, **options)

    async def nodes(self) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return the whole store: value and permissions by path."""
        values = await self.store.tree("/")
        return {path: (value, await self.store.permissions(path) or ()) for path, value in values.items()}

    async def write(self, *nodes: tuple[str, str]) -> None:
        await self.store.commit([XenstoreOp("write", path, value) for path, value in nodes])

    def drivers(self) -> dict[str, str]:
        """Return which driver each interface of a host device has."""
        folder = self.sandbox.sysfs / "bus/usb/devices"
        links = sorted(path for path in folder.glob("*-[1-9]*:*/driver"))
        return {link.parent.name: link.readlink().name for link in links}


@asynccontextmanager
async def xen(
    kind: str, *, guest: Guest = "pv", backend: BackendMode = "normal", **options: Any
) -> AsyncIterator[Xen]:
    """Start a host; `kind` says whose xenstored it has, `options` are those of oxenstored."""
    delays = {"normal": 0.0, "silent": None, "late": 0.2, "dies": 0.0, "jumps": 0.0}
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox(backend_delay_s=delays[backend]))
        added = sandbox.add_guest(
            "guest", UUID, domid=DOMID, guest=guest, guest_cooperates=True, frontend_connects=False
        )
        other = sandbox.add_guest("other", OTHER_UUID, domid=OTHER, guest="pv", frontend_connects=False)
        socket = str(sandbox.xenstore_socket)
        if kind != "sandbox":
            require(SERVERS[kind])
            socket = stack.enter_context(SERVERS[kind](**options)).socket
        store = await Xenstore.connect(socket)
        stack.push_async_callback(store.close)
        if kind != "sandbox":
            await make_domain(store, DOMID, name="guest", uuid=UUID, guest=guest)
            await make_domain(store, OTHER, name="other", uuid=OTHER_UUID, guest="pv")
            await stack.enter_async_context(Backend(socket, backend))
        home = f"/local/domain/{USBVM}"
        await store.commit(
            [
                XenstoreOp("write", f"{home}/name", "usbvm", ("n0", f"r{USBVM}")),
                XenstoreOp("mkdir", f"{home}/backend", permissions=(f"n{USBVM}",)),
            ]
        )
        sandbox.add_host_device("1-8", bus=1, device=8, vendor=0x046D, product=0xC52B, drivers=("usbhid", "usbhid"))
        sandbox.add_host_device(
            "1-9",
            bus=1,
            device=9,
            vendor=0x0951,
            product=0x1666,
            serial="XENSTICK01",
            drivers=("usb-storage", None),
        )
        sandbox.add_host_device(
            "2-1.4", bus=2, device=3, vendor=0x0951, product=0x1666, serial="XENSTICK02", drivers=("usb-storage",)
        )
        sandbox.add_host_device(
            "1-3", bus=1, device=4, vendor=0x05E3, product=0x0608, device_class=9, drivers=("hub",)
        )
        yield Xen(store, socket, sandbox, added.qmp_socket, other.qmp_socket)


on_each = pytest.mark.parametrize("kind", [*SERVERS, "sandbox"])
on_real = pytest.mark.parametrize("kind", SERVERS)


def run(work: Awaitable[None]) -> None:
    async def main() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(main())


def document(controllers: str, *devices: str, guest: str = "linux", name: str = "guest", uuid: str = UUID) -> bytes:
    return (
        f"<domain type='xen'><name>{name}</name><uuid>{uuid}</uuid><os><type>{guest}</type></os>"
        f"<devices>{controllers}{''.join(devices)}</devices></domain>"
    ).encode()


def plan(text: bytes, domid: int = DOMID, layout: Layout | None = None, **options: Any) -> translator.Plan:
    return translator.plan(translator.load(text), domid=domid, layout=layout, **options)


def given(source: str, port: int = 1, attributes: str = "") -> str:
    return (
        f"<hostdev type='usb'><source {attributes}>{source}</source>"
        f"<address type='usb' bus='0' port='{port}'/></hostdev>"
    )


QUSB = "<controller type='usb' index='0' model='qusb2' ports='2'/>"
PV = "<controller type='usb' index='0' model='xenusb2' ports='2'/>"
UHCI = "<controller type='usb' index='0' model='piix3-uhci'/>"
MOUSE, STICK = "<address bus='1' device='8'/>", "<serial>XENSTICK01</serial>"
EMPTY = document("")


# Trees


@on_each
@pytest.mark.parametrize("case", cases("trees"), ids=lambda case: case.name)
def test_the_tree_is_this_node_for_node(case: Path, kind: str, check_golden: Callable[[Path, str], None]) -> None:
    """What apply makes of the store and of the host's drivers; and that a removal leaves both as they were."""
    layout: Layout = "rfc7" if case.name.startswith("rfc7-") else "libxl"
    wanted = plan((case / "domain.xml").read_bytes(), layout=layout)
    empty = document("", guest="hvm" if wanted.topology.domain.guest == "hvm" else "linux")

    async def scenario() -> None:
        async with xen(kind, guest=wanted.topology.domain.guest) as host:
            before, drivers = await host.nodes(), host.drivers()
            await host.apply(wanted)
            after = await host.nodes()
            lines = [
                f'{path} = "{value}"   ({",".join(permissions)})'
                for path, (value, permissions) in after.items()
                if before.get(path) != (value, permissions)
            ]
            lines += [f"{name} -> {driver}" for name, driver in host.drivers().items() if driver != drivers.get(name)]
            check_golden(case / "tree.txt", "\n".join(lines) + "\n")
            if wanted.topology.domain.guest == "hvm":
                async with host.host() as connections:
                    check_golden(case / "qmp.txt", render.qmp(await bind(wanted, connections)))
            assert before.keys() <= after.keys()
            assert (await host.apply(wanted)).steps == ()
            async with host.host() as connections:
                seen = await observe(connections, domid=DOMID, layout=layout, expect_qmp=True)
            assert seen.lacking == frozenset()
            assert [(one.index, one.model, one.type, one.ports, one.id) for one in seen.topology.controllers] == [
                (one.index, one.model, one.type, one.ports, one.id) for one in wanted.topology.controllers
            ]
            assert sorted((one.kind, one.port) for one in seen.topology.devices) == sorted(
                (one.kind, one.port) for one in wanted.topology.devices
            )
            await host.apply(plan(empty, layout=layout), prune=True)
            assert (await host.nodes(), host.drivers()) == (before, drivers)

    run(scenario())


def test_qemu_reads_the_strings_of_rfc7() -> None:
    """A bus and an address in hexadecimal: QEMU looks for that device, which this host has not."""
    from translator.layouts.rfc7 import Rfc7
    from translator.topology import HostDevice

    require(Qemu)
    host = HostDevice(bus=0x7F, device=0x6E)
    given = Rfc7().host_properties(host) | {"id": Rfc7().device_id("hostdev", 0, None, host)}
    assert given == {"hostbus": "0x7f", "hostaddr": "0x6e", "id": "usb-hostdev-007f.006e"}

    async def scenario() -> None:
        with Qemu({"driver": "piix3-usb-uhci", "id": "hci0"}) as qemu:
            monitor = await Qmp.connect(qemu.socket)
            with pytest.raises(HostError, match="failed to find host usb device 127:110"):
                await monitor.execute("device_add", {"driver": "usb-host", "bus": "hci0.0", "port": "1", **given})
            await monitor.close()

    run(scenario())


# Who answers, and who does not


@on_real
@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("silent", "did not become '2' or '3' or '4' within 0.3 s; last seen: '1'"),
        ("jumps", "became '6', and not '2' or '3' or '4'"),
    ],
)
@pytest.mark.parametrize(("model", "driver"), [("xenusb2", "usbback"), ("qusb2", "qusb")])
def test_without_a_driver_it_is_said_and_nothing_stays(
    kind: str, mode: BackendMode, said: str, model: str, driver: str
) -> None:
    wanted = plan(document(f"<controller type='usb' model='{model}'/>"))

    async def scenario() -> None:
        async with xen(kind, backend=mode) as host:
            before = await host.nodes()
            with pytest.raises(HostError, match="domain 0 has no") as caught:
                await host.apply(wanted, timeout_s=0.3)
            assert f"domain 0 has no {driver} driver, or it does not answer: " in caught.value.message
            assert said in caught.value.message
            assert not isinstance(caught.value, RollbackError)
            assert await host.nodes() == before

    run(scenario())


@on_real
@pytest.mark.parametrize("mode", ["late", "dies"])
def test_one_answer_is_enough(kind: str, mode: BackendMode) -> None:
    wanted = plan(document(QUSB, given(MOUSE)))

    async def scenario() -> None:
        async with xen(kind, backend=mode) as host:
            assert len((await host.apply(wanted)).steps) == 3
            assert (await host.apply(wanted)).steps == ()

    run(scenario())


def test_conflicts_without_a_reason_are_tried_again() -> None:
    """oxenstored with test-eagain fails every other transaction."""
    wanted = plan(document(PV, given(MOUSE), given(STICK, 2)))

    async def scenario() -> None:
        async with xen("oxenstored", test_eagain=True) as host:
            before, drivers = await host.nodes(), host.drivers()
            await host.apply(wanted)
            await host.apply(plan(EMPTY), prune=True)
            assert (await host.nodes(), host.drivers()) == (before, drivers)

    run(scenario())


@pytest.mark.parametrize("model", ["xenusb2", "qusb2"])
def test_the_guests_driver_is_seen(model: str) -> None:
    wanted = plan(document(f"<controller type='usb' model='{model}'/>"))

    async def scenario() -> None:
        async with xen("sandbox") as host, host.host() as connections:
            await connections.apply(wanted)
            assert (await connections.observe(domid=DOMID)).controllers[0].frontend == "initialising"
            await host.write((f"/local/domain/{DOMID}/device/vusb/0/state", "4"))
            assert (await connections.observe(domid=DOMID)).controllers[0].frontend == "connected"

    run(scenario())


# What a guest may write

LIES: Mapping[str, Sequence[tuple[str, str]]] = {
    "garbage": [("state", "\x7f${domid};rm -rf"), ("backend", "../../../0"), ("backend-id", "-1")],
    "a huge value": [("state", "4" * 2048), ("backend", "/" + "a" * 2047)],
    "a state that is none": [("state", "99")],
    "another backend's path": [
        ("backend", f"/local/domain/0/backend/qusb/{OTHER}/0"),
        ("backend-id", str(USBVM)),
        ("state", "6"),
    ],
    "a tree": [(f"state/{number}/port/1", "1-9") for number in range(50)],
}


@on_each
@pytest.mark.parametrize("lies", LIES.values(), ids=LIES)
def test_a_guest_is_not_followed(lies: Sequence[tuple[str, str]], kind: str) -> None:
    wanted = plan(document(QUSB, given(MOUSE)))
    frontend = f"/local/domain/{DOMID}/device/vusb/0"

    async def scenario() -> None:
        async with xen(kind) as host:
            before = await host.nodes()
            await host.apply(plan(document(QUSB, name="other", uuid=OTHER_UUID), OTHER))
            others = await host.nodes()
            await host.apply(wanted)
            async with host.host() as connections:
                honest = await connections.observe(domid=DOMID)
            await host.write(*((f"{frontend}/{name}", value) for name, value in lies))
            async with host.host() as connections:
                seen = await connections.observe(domid=DOMID)
                lied = [one.frontend for one in seen.controllers]
                assert lied in ([None], ["closed"], ["initialising"])
                assert seen.devices == honest.devices
                assert [one.backend for one in seen.controllers] == [0]
            assert (await host.apply(wanted)).steps == ()
            await host.apply(plan(EMPTY), prune=True)
            assert await host.nodes() == others
            assert before.items() <= others.items()

    run(scenario())


# Whose a host device is

CLAIMS = {
    "the kernel's backend": ("/local/domain/0/backend/vusb/9/4/port/2", "1-9"),
    "QEMU's backend": ("/local/domain/0/backend/qusb/9/0/port/1", "1-9"),
    "an emulated controller": ("/libxl/9/device/vusb/0/port/1", "1-9"),
    "a port behind a hub": ("/libxl/9/device/vusb/0/port/1_2", "1-9"),
    "a record of layout rfc7": ("/libxl/9/usb/hostdev-0001-0009", ""),
    "this domain, elsewhere": ("/local/domain/0/backend/qusb/7/5/port/1", "1-9"),
}


@on_each
@pytest.mark.parametrize("layout", ["libxl", "rfc7"])
@pytest.mark.parametrize(("path", "value"), CLAIMS.values(), ids=CLAIMS)
def test_a_device_that_somebody_has_is_not_given_again(path: str, value: str, layout: Layout, kind: str) -> None:
    wanted = plan(document(QUSB, given(MOUSE), given(STICK, 2)), layout=layout)

    async def scenario() -> None:
        async with xen(kind) as host:
            await host.write((path, value))
            before = await host.nodes()
            with pytest.raises(HostError, match=f"it is in {path}") as caught:
                await host.apply(wanted)
            assert caught.value.code == "T418"  # and not T501: no step had begun
            assert await host.nodes() == before

    run(scenario())


@on_each
def test_of_two_that_want_a_device_one_gets_it(kind: str) -> None:
    """The transactions themselves, without the look before: from two connections, again and again."""
    plans = (
        plan(document(QUSB, given(MOUSE))),
        plan(document(QUSB, given(MOUSE), name="other", uuid=OTHER_UUID), OTHER, layout="rfc7"),
    )

    async def scenario() -> None:
        async with xen(kind) as host:
            steps = []
            for made in plans:
                async with host.host(domid=made.topology.domain.domid) as connections:
                    await connections.apply(
                        translator.Plan(
                            topology=translator.plan(
                                translator.load(
                                    document(
                                        QUSB, name=made.topology.domain.name, uuid=str(made.topology.domain.uuid)
                                    )
                                ),
                                domid=made.topology.domain.domid,
                                layout=made.topology.layout,
                            ).topology,
                            steps=made.steps[:2],
                        )
                    )
                    bound = await bind(made, connections)
                steps.append(next(step for step in bound.steps if step.id == "device:usb:0:1"))
            clients = [await Xenstore.connect(host.socket) for _ in steps]
            for _ in range(20):
                outcomes = await asyncio.gather(
                    *(
                        client.commit(step.action.transaction)
                        for client, step in zip(clients, steps, strict=True)
                        if isinstance(step.action, Transaction)
                    ),
                    return_exceptions=True,
                )
                refused = [one for one in outcomes if isinstance(one, HostError)]
                assert [one.code for one in refused] == ["T418"]
                winner = next(number for number, one in enumerate(outcomes) if not isinstance(one, HostError))
                undo = steps[winner].undo
                assert isinstance(undo, Transaction)
                await clients[winner].commit([one for one in undo.transaction if one.op != "rm-empty"])
            for client in clients:
                await client.close()

    run(scenario())


@on_each
def test_a_domid_that_is_given_again_inherits_nothing(kind: str) -> None:
    """What an earlier domain 7 left in its backend's directory is not taken for the new one's."""

    async def scenario() -> None:
        async with xen(kind) as host:
            left = f"/local/domain/0/backend/qusb/{DOMID}/0"
            await host.write((f"{left}/state", "2"), (f"{left}/port/1", "2-1.4"))
            before = await host.nodes()
            async with host.host() as connections:
                assert (await connections.observe(domid=DOMID)).controllers == ()
            with pytest.raises(HostError, match=f"{left} is left of an earlier domain") as caught:
                await host.apply(plan(document(QUSB)))
            assert caught.value.code == "T425"
            assert caught.value.help == f"nobody serves it any more: remove it with `xenstore-rm {left}`"
            assert await host.nodes() == before
            await host.store.commit([XenstoreOp("rm", left)])
            await host.apply(plan(document(QUSB)))

    run(scenario())


@on_each
def test_an_empty_port_is_told_what_the_domain_has(kind: str) -> None:
    """By its port, a device is looked for in one place; that it is not there is said of the whole domain."""

    async def scenario() -> None:
        async with xen(kind) as host:
            await host.apply(plan(document(QUSB, given(MOUSE))))
            before = await host.nodes()
            async with host.host() as connections:
                for place in ("0:2", "0:9", "1:1"):
                    with pytest.raises(HostError, match=f"'{place}' is not attached to 'guest'") as caught:
                        await connections.detach(place, domid=DOMID)
                    assert caught.value.help == "it has: controller:0 (qusb2), 0:1 (hostdev:1.8)"
            assert await host.nodes() == before

    run(scenario())


def settled(nodes: Mapping[str, object]) -> dict[str, object]:
    """Return the nodes that do not change by themselves."""
    return {path: node for path, node in nodes.items() if not path.endswith("/state")}


@on_each
@pytest.mark.parametrize(("backend", "fate"), [("late", "another"), ("silent", "another"), ("silent", "gone")])
def test_who_gets_the_domid_on_the_way_has_nothing_of_it(kind: str, backend: BackendMode, fate: str) -> None:
    """Neither the steps that follow, nor the undos of those before; the document says no more than a name.

    What is there of the successor is in the very places. Of a domain that is gone all goes.
    """
    wanted = plan(document(QUSB, given(MOUSE)).replace(f"<uuid>{UUID}</uuid>".encode(), b""))
    backends = "/local/domain/0/backend/qusb"

    async def scenario() -> None:
        async with xen(kind, backend=backend) as host:
            applying = asyncio.create_task(host.apply(wanted, timeout_s=1))
            await host.store.wait(f"{backends}/{DOMID}/0/type", ["qusb"], 10)
            if fate == "another":
                await host.write((f"/local/domain/{DOMID}/vm", f"/vm/{OTHER_UUID}"))
            else:
                await host.store.commit([XenstoreOp("rm", f"/{root}/{DOMID}") for root in ("local/domain", "libxl")])
            after = settled(await host.nodes())
            with pytest.raises(HostError) as caught:
                await applying
            assert caught.value.cause == ("T404" if backend == "late" else "T407")
            assert not isinstance(caught.value, RollbackError)
            if fate == "gone":
                after = {path: node for path, node in after.items() if not path.startswith(backends)}
            assert settled(await host.nodes()) == after

    run(scenario())


@on_each
@pytest.mark.parametrize("fate", ["another", "gone"])
def test_what_was_lent_comes_home_whoever_has_the_domid(kind: str, fate: str) -> None:
    """The notes on a device's drivers are the host's, and not the domain's; no more is lent to it."""

    async def scenario() -> None:
        async with xen(kind) as host, host.host() as connections:
            before, drivers = await host.nodes(), host.drivers()
            bound = await bind(plan(document(PV, given(MOUSE))), connections)
            *steps, last = bound.steps
            assert last.id == "device:usb:0:1:usbback"
            performer = Performer(connections, DOMID, guards=still_runs(bound.topology.domain))
            for step in steps:
                await performer.perform(step.action, None)
            if fate == "another":
                await host.write((f"/local/domain/{DOMID}/vm", f"/vm/{OTHER_UUID}"))
            else:
                await host.store.commit([XenstoreOp("rm", f"/{root}/{DOMID}") for root in ("local/domain", "libxl")])
            after = await host.nodes()
            with pytest.raises(HostError, match=f"it does not hold that domain {DOMID} is 'guest'"):
                await performer.perform(last.action, None)
            assert host.drivers() == drivers
            assert not await roll_back(
                bound.steps, range(len(bound.steps)), performer.backwards(), lambda event: None
            )
            assert host.drivers() == drivers
            ours = "/libxl/usbback" if fate == "another" else ("/libxl/usbback", "/local/domain/0/backend/vusb")
            assert settled(await host.nodes()) == settled(
                {path: node for path, node in after.items() if path in before or not path.startswith(ours)}
            )

    run(scenario())


@on_each
@pytest.mark.parametrize("name", ["guest", "successor"])
def test_a_domain_without_a_uuid_is_known_by_its_name(kind: str, name: str) -> None:
    """It runs, or another one does: of neither is a node removed that a guard of its own was to keep."""

    async def scenario() -> None:
        async with xen(kind) as host, host.host() as connections:
            await host.store.commit([XenstoreOp("rm", f"/local/domain/{DOMID}/vm")])
            node = f"/libxl/{DOMID}/device/vusb/0/port/1_2"
            await host.write((node, "somebody else's"), (f"/local/domain/{DOMID}/name", name))
            domain = msgspec.structs.replace(plan(EMPTY).topology.domain, uuid=None)
            undo = Transaction((XenstoreOp("expect", node, "1-8"), XenstoreOp("rm", node)))
            with pytest.raises(HostError) as caught:
                await Performer(connections, DOMID, guards=still_runs(domain), outlives=True).perform(undo, None)
            assert caught.value.code == "T404"
            assert await host.store.read(node) == "somebody else's"

    run(scenario())


RECORD = f"/libxl/{DOMID}/device/vusb/0"


@pytest.mark.parametrize(
    ("type", "backend", "model"),
    [
        ("pv", "qusb", "qusb2"),
        ("devicemodel", "vusb", "xenusb2"),
        (None, "qusb", "qusb2"),
        ("qusb", None, None),
        (None, None, None),
        ("pv", f"qusb/{OTHER}", None),
    ],
)
def test_where_type_and_backend_contradict_the_backend_counts(
    type: str | None, backend: str | None, model: str | None
) -> None:
    """It is where the ports are; a record without either, or with a backend that cannot be its own, is none."""

    async def scenario() -> None:
        async with xen("sandbox") as host:
            where = f"/local/domain/0/backend/{backend}/{DOMID}/0"
            words = {"type": type, "backend": backend and where, "usb-ver": "2", "num-ports": "2"}
            await host.write(*((f"{RECORD}/{name}", word) for name, word in words.items() if word is not None))
            await host.write((f"{where}/port/1", ""))
            async with host.host() as connections:
                found = (await connections.observe(domid=DOMID)).controllers
            assert [one.model for one in found] == ([] if model is None else [model])

    run(scenario())


@pytest.mark.parametrize("word", ["0:1", "hostdev:1-8", "hostdev:046d:c52b"])
def test_a_detach_waits_for_no_backend(word: str) -> None:
    """However the device is named: the backend has closed, and nobody repairs that by taking something away."""

    async def scenario() -> None:
        async with xen("sandbox") as host:
            await host.apply(plan(document(QUSB, given(MOUSE))))
            await host.write((f"/local/domain/0/backend/qusb/{DOMID}/0/state", "6"))
            async with host.host() as connections:
                assert [step.id for step in (await connections.detach(word, domid=DOMID)).steps] == [
                    "device:usb:0:1:remove"
                ]

    run(scenario())


def test_an_empty_paravirtual_port_needs_no_monitor() -> None:
    both = f"{UHCI}<controller type='usb' index='1' model='qusb2' ports='2'/>"

    async def scenario() -> None:
        async with xen("sandbox", guest="hvm") as host:
            await host.apply(plan(document(both, guest="hvm")))
            async with translator.Host(xenstore=host.socket, sysfs=host.sandbox.sysfs) as alone:
                for place, code in (("1:2", "T438"), ("0:1", "T402"), ("2:1", "T402")):
                    with pytest.raises(HostError) as caught:
                        await alone.detach(place, domid=DOMID)
                    assert caught.value.code == code

    run(scenario())


# What it costs

# Requests to xenstored on a host with two guests, without those for states. docs/xen.md has them beside xl's.
REQUESTS: Mapping[str, tuple[int, Callable[[translator.Host], Awaitable[Any]]]] = {
    "a controller and a device": (59, lambda host: host.apply(plan(document(QUSB, given(MOUSE))))),
    "no change": (14, lambda host: host.apply(plan(document(QUSB, given(MOUSE))))),
    "a look": (12, lambda host: host.observe(domid=DOMID)),
    "the device goes": (15, lambda host: host.detach("hostdev:1-8", domid=DOMID)),
    "a device": (21, lambda host: host.attach("hostdev:1-8", domid=DOMID)),
    "what is in a port goes": (10, lambda host: host.detach("0:1", domid=DOMID)),
    "a device again": (21, lambda host: host.attach("hostdev:1-8", domid=DOMID)),
    "both go": (43, lambda host: host.apply(plan(EMPTY), prune=True)),
    "a controller": (44, lambda host: host.apply(plan(document(QUSB)))),
}


@on_each
def test_requests_are_few(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each from a new connection on, and but for states, which are read and written as often as they change."""
    sent: list[tuple[Wire, str]] = []
    request = Wire.request

    def counting(self: Wire, op: int, *words: str, **options: Any) -> asyncio.Future[bytes]:
        sent.append((self, f"{op} {words[0]}"))
        return request(self, op, *words, **options)

    monkeypatch.setattr(Wire, "request", counting)

    async def scenario() -> None:
        async with xen(kind) as host:
            for name, (count, work) in REQUESTS.items():
                async with host.host() as connections:
                    sent.clear()
                    await work(connections)
                    ours, _ = sent[0]  # the backend of these tests has one too
                asked = [one for wire, one in sent if wire is ours and not one.endswith("/state")]
                assert len(asked) == count, f"{name}: {asked}"

    run(scenario())


# The host's drivers


@on_each
def test_a_failure_gives_the_device_back_to_its_drivers(kind: str) -> None:
    """The second device does not leave its driver: the kernel refuses the write."""
    wanted = plan(document(PV, given(MOUSE), given(STICK, 2)))

    async def scenario() -> None:
        async with xen(kind) as host:
            before, drivers = await host.nodes(), host.drivers()
            unbind = host.sandbox.sysfs / "bus/usb/drivers/usb-storage/unbind"
            unbind.unlink()
            unbind.symlink_to("/nowhere/at/all")
            with pytest.raises(HostError, match="device:usb:0:2:usbback failed") as caught:
                await host.apply(wanted)
            assert not isinstance(caught.value, RollbackError)
            assert (await host.nodes(), host.drivers()) == (before, drivers)

    run(scenario())


def test_what_is_bound_elsewhere_is_bound_again() -> None:
    """Somebody has given an interface back to its driver: applying again takes it, and detaching restores it."""
    wanted = plan(document(PV, given(STICK)))

    async def scenario() -> None:
        async with xen("sandbox") as host:
            before, drivers = await host.nodes(), host.drivers()
            await host.apply(wanted)
            (host.sandbox.sysfs / "bus/usb/drivers/usb-storage/bind").write_text("1-9:1.0")
            await asyncio.sleep(0)  # for the sandbox's kernel to hear of it
            await asyncio.sleep(0)
            assert host.drivers()["1-9:1.0"] == "usb-storage"
            again = await host.apply(wanted)
            assert [step.id for step in again.steps] == ["device:usb:0:1:usbback"]
            await host.apply(plan(EMPTY), prune=True)
            assert (await host.nodes(), host.drivers()) == (before, drivers)

    run(scenario())


@on_each
@pytest.mark.parametrize("layout", ["libxl", "rfc7"])
def test_attach_and_detach_lend_and_return(layout: Layout, kind: str) -> None:
    """A word, a place chosen, the drivers exchanged; and back, to the node."""

    async def scenario() -> None:
        async with xen(kind) as host:
            await host.apply(plan(document(PV), layout=layout))
            before, drivers = await host.nodes(), host.drivers()
            async with host.host() as connections:
                await attach(connections, [Given("hostdev:serial:XENSTICK01")], domid=DOMID, layout=layout)
                assert (host.drivers()["1-9:1.0"], host.drivers()["1-9:1.1"]) == ("usbback", "usbback")
                assert await host.store.read(f"/local/domain/0/backend/vusb/{DOMID}/0/port/1") == "1-9"
                await detach(connections, [Given("hostdev:1-9")], domid=DOMID, layout=layout)
            assert (await host.nodes(), host.drivers()) == (before, drivers)

    run(scenario())


# What is refused before anything is touched


async def nothing(host: Xen) -> None:
    """The host is as it is."""


def nodes(*written: tuple[str, str]) -> Callable[[Xen], Awaitable[None]]:
    async def prepare(host: Xen) -> None:
        await host.write(*written)

    return prepare


async def no_qemu(host: Xen) -> None:
    await host.store.commit([XenstoreOp("rm", f"/local/domain/0/device-model/{DOMID}")])


async def no_usbback(host: Xen) -> None:
    folder = host.sandbox.sysfs / "bus/usb/drivers"
    (folder / "usbback").rename(folder / "no-usbback")


TRADITIONAL = nodes((f"/libxl/{DOMID}/dm-version", "qemu_xen_traditional"))
STUB_DOMAIN = nodes(
    ("/local/domain/12/target", str(DOMID)), (f"/local/domain/{DOMID}/image/device-model-domid", "12")
)


async def traditional_without_qusb(host: Xen) -> None:
    await TRADITIONAL(host)
    await no_qemu(host)


REFUSALS: Mapping[str, tuple[Callable[[Xen], Awaitable[None]], bytes, Guest]] = {
    "qemu-traditional": (TRADITIONAL, document(UHCI, guest="hvm"), "hvm"),
    "qemu-traditional-and-qusb": (traditional_without_qusb, document(QUSB), "pv"),
    "stub-domain": (STUB_DOMAIN, document(UHCI, guest="hvm"), "hvm"),
    "pv-document-for-an-hvm-domain": (nothing, document(QUSB), "hvm"),
    "hvm-document-for-a-pv-domain": (nothing, document(UHCI, guest="hvm"), "pv"),
    "hvm-document-for-a-pvh-domain": (nothing, document(UHCI, guest="hvm"), "pvh"),
    "qusb-without-qemu": (no_qemu, document(QUSB), "pv"),
    "pv-without-usbback": (no_usbback, document(PV), "pv"),
    "no-such-backend-domain": (
        nothing,
        document("<controller type='usb' model='qusb2'><backenddomain name='nobody'/></controller>"),
        "pv",
    ),
    "no-such-backend-domid": (
        nothing,
        document("<controller type='usb' model='qusb2'><backenddomain name='99'/></controller>"),
        "pv",
    ),
    "another-uuid": (nothing, document(QUSB, uuid=OTHER_UUID), "pv"),
    "a-hub": (nothing, document(QUSB, given("<address bus='1' port='3'/>")), "pv"),
    "no-such-host-device": (nothing, document(QUSB, given("<address bus='1' device='99'/>")), "pv"),
    "a-requisite-host-device": (
        nothing,
        document(QUSB, given("<serial>XENSTICK99</serial>", 1, "startupPolicy='requisite'")),
        "pv",
    ),
    "an-ambiguous-host-device": (
        nothing,
        document(QUSB, given("<vendor id='0x0951'/><product id='0x1666'/>", 1, "startupPolicy='optional'")),
        "pv",
    ),
    "a-host-device-of-another-domain": (
        nodes(("/local/domain/0/backend/qusb/9/0/port/1", "1-8")),
        document(QUSB, given(MOUSE)),
        "pv",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_golden_refusal(name: str, check_golden: Callable[[Path, str], None]) -> None:
    prepare, text, guest = REFUSALS[name]

    async def scenario() -> None:
        async with xen("sandbox", guest=guest) as host:
            await prepare(host)
            before = await host.nodes(), host.drivers()
            with pytest.raises(HostError) as caught:
                await host.apply(plan(text))
            assert caught.value.help
            check_golden(FIXTURES / f"refusals/{name}.txt", f"{caught.value}\n")
            assert (await host.nodes(), host.drivers()) == before

    run(scenario())


def test_no_such_domain() -> None:
    async def scenario() -> None:
        async with xen("sandbox") as host:
            with pytest.raises(HostError, match="there is no domain 77"):
                await host.apply(plan(document(QUSB), 77))

    run(scenario())


def test_the_fixtures_are_the_refusals() -> None:
    assert {path.stem for path in (FIXTURES / "refusals").iterdir()} == set(REFUSALS)


# What a plan leaves open


def test_an_optional_device_may_be_missing() -> None:
    text = document(QUSB, given("<serial>XENSTICK99</serial>", 1, "startupPolicy='optional'"), given(STICK, 2))

    async def scenario() -> None:
        async with xen("sandbox") as host:
            done = await host.apply(plan(text))
            assert [step.id for step in done.steps] == [
                "controller:usb:0",
                "controller:usb:0:backend",
                "device:usb:0:2",
            ]
            (note,) = done.notes
            assert (note.code, note.severity, note.line) == ("T424", "warning", 1)
            assert note.message == "the host has no USB device serial:XENSTICK99: it is left out"
            again = await host.apply(plan(text))
            assert (again.steps, again.notes) == ((), done.notes)

    run(scenario())


def test_the_selector_is_looked_up_when_the_plan_is_carried_out() -> None:
    """The stick is plugged into another port between plan and apply."""
    wanted = translator.Plan.from_json(plan(document(QUSB, given("<serial>XENSTICK77</serial>"))).to_json())
    assert "hostdev:serial:XENSTICK77:path" in wanted.placeholders()

    async def scenario() -> None:
        async with xen("sandbox") as host:
            host.sandbox.add_host_device("1-2.3", bus=1, device=44, vendor=1, product=2, serial="XENSTICK77")
            await host.apply(wanted)
            assert await host.store.read(f"/local/domain/0/backend/qusb/{DOMID}/0/port/1") == "1-2.3"

    run(scenario())


@pytest.mark.parametrize(
    ("os", "usbback", "model"),
    [("linux", True, "xenusb2"), ("linux", False, "qusb2"), ("xenpvh", True, "xenusb2"), ("hvm", True, "ehci")],
)
def test_auto_is_what_the_host_has(os: str, usbback: bool, model: str) -> None:
    made = plan(document("<controller type='usb'/>", guest=os), usbback=usbback)
    assert [one.model for one in made.topology.controllers] == [model]


@on_each
def test_many_domains_at_once(kind: str) -> None:
    """Claims read half the store, and yet those of one process do not starve each other."""

    async def scenario() -> None:
        async with (
            xen(kind) as host,
            translator.Host(xenstore=host.socket, sysfs=host.sandbox.sysfs, timeout_s=10) as shared,
        ):
            domids = range(20, 36)
            for domid in domids:
                uuid = f"00000000-0000-4000-8000-{domid:012}"
                await make_domain(host.store, domid, name=f"guest{domid}", uuid=uuid, guest="pv")
                host.sandbox.add_host_device(f"1-{domid}", bus=1, device=domid, vendor=1, product=domid)
            plans = [
                plan(
                    document(
                        QUSB,
                        given(f"<address bus='1' device='{domid}'/>"),
                        name=f"guest{domid}",
                        uuid=f"00000000-0000-4000-8000-{domid:012}",
                    ),
                    domid,
                )
                for domid in domids
            ]
            done = await asyncio.gather(*(shared.apply(one) for one in plans))
            assert [len(one.steps) for one in done] == [3] * len(plans)

    run(scenario())


# The command line


def test_plan_looks_at_the_host_that_it_is_told_of(tmp_path: Path) -> None:
    file = tmp_path / "guest.xml"
    file.write_bytes(
        document("<controller type='usb' index='0'/>", given("<vendor id='0x046d'/><product id='0xc52b'/>"))
    )
    sysfs = host_devices(tmp_path / "sys")
    (sysfs / "bus/usb/drivers/usbback").mkdir(parents=True)

    def planned(*options: str) -> tuple[str, str | None, set[str]]:
        done = CliRunner().invoke(cli, ["plan", "--format", "json", *options, str(file)])
        assert done.exit_code == 0, done.output
        made = translator.Plan.from_json(done.stdout)
        (device,) = made.topology.devices
        assert device.host is not None
        return (
            made.topology.controllers[0].model,
            device.host.path,
            {one.split(":")[0] for one in made.placeholders()},
        )

    assert planned() == ("qusb2", None, {"domid", "hostdev"})
    assert planned("--usbback") == ("xenusb2", None, {"domid", "hostdev"})
    assert planned("--sysfs", str(sysfs)) == ("xenusb2", "1-8", {"domid"})
    assert planned("--sysfs", str(sysfs), "--no-usbback") == ("qusb2", "1-8", {"domid"})
    assert planned("--sysfs", str(sysfs), "--late-binding") == ("xenusb2", None, {"domid", "hostdev"})
    done = CliRunner().invoke(cli, ["plan", "--sysfs", str(tmp_path), str(file)])
    assert done.exit_code == 4
    assert "the host has no USB device 046d:c52b" in done.stderr


@pytest.mark.parametrize(("usbback", "model"), [(True, "xenusb2"), (False, "qusb2")])
def test_apply_takes_what_the_host_has(usbback: bool, model: str, tmp_path: Path) -> None:
    """And observe shows it, by the records of the layout that it is told."""
    file = tmp_path / "guest.xml"
    file.write_bytes(document("<controller type='usb' index='0'/>"))

    async def scenario() -> None:
        async with xen("sandbox") as host:
            if not usbback:
                await no_usbback(host)
            options = ["--domid", str(DOMID), "--layout", "rfc7", "--xenstore", host.socket, "--qmp", str(host.qmp)]
            options += ["--sysfs", str(host.sandbox.sysfs)]
            await command("apply", str(file), *options, "--state", str(tmp_path / "state"))
            seen = await command("observe", *options)
            assert f"controller 0: {model}, " in seen
            more = [*options[2:], "--state", str(tmp_path / "state")]
            assert "attached: host device 1.9, port 1 of controller 0" in await command(
                "attach", str(DOMID), "hostdev:serial:XENSTICK01", *more
            )
            assert "detached: host device 1.9" in await command("detach", str(DOMID), "hostdev:1.9", *more)
            assert "16 ports, backend in domain 0, frontend initialising" in seen

    async def command(*words: str) -> str:
        done = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "translator", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        output, errors = await done.communicate()
        assert done.returncode == 0, errors.decode()
        return output.decode()

    run(scenario())
