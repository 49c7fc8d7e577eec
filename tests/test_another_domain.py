"""A monitor that was named for one domain and is another's: nothing is asked of it, and nothing is recorded."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import translator
from tests.servers import CXenStored, Qemu, make_domain, require
from translator.errors import HostError
from translator.hosts.qmp import MonitorGone, Qmp
from translator.hosts.sandbox import Sandbox
from translator.hosts.xenstore import Xenstore
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

OTHER, WIN10 = 1, 5
UUIDS = {OTHER: "00000000-0000-4000-8000-000000000001", WIN10: "00000000-0000-4000-8000-000000000005"}
UHCI = {"driver": "piix3-usb-uhci", "id": "xenusb-0"}


class Two(NamedTuple):
    """A host with the domains 'other' and 'win10', and the monitors of both."""

    xenstore: str
    own: str
    qmp: str

    async def state(self) -> tuple[dict[str, str], list[str]]:
        xenstore, monitor = await Xenstore.connect(self.xenstore), await Qmp.connect(self.qmp)
        try:
            return await xenstore.tree("/"), sorted(str(one.id) for one in await monitor.devices())
        finally:
            await xenstore.close()
            await monitor.close()


@pytest.fixture(params=["servers", "sandbox"])
def two(request: pytest.FixtureRequest) -> Any:
    @asynccontextmanager
    async def servers(*words: str) -> AsyncIterator[Two]:
        require(CXenStored)
        require(Qemu)
        with CXenStored() as xenstored, Qemu() as own, Qemu(UHCI, words=words) as qemu:
            client = await Xenstore.connect(xenstored.socket)
            await make_domain(client, OTHER, name="other", uuid=UUIDS[OTHER], guest="hvm")
            await make_domain(client, WIN10, name="win10", uuid=UUIDS[WIN10], guest="hvm")
            await client.close()
            yield Two(xenstored.socket, own.socket, qemu.socket)

    @asynccontextmanager
    async def sandbox(*words: str) -> AsyncIterator[Two]:
        async with Sandbox() as embedded:
            own = embedded.add_guest("other", UUIDS[OTHER], domid=OTHER)
            guest = embedded.add_guest("win10", UUIDS[WIN10], domid=WIN10, launch=[UHCI])
            yield Two(str(embedded.xenstore_socket), str(own.qmp_socket), str(guest.qmp_socket))

    return sandbox if request.param == "sandbox" else servers


PLAN = translator.plan(
    translator.load(
        b"<domain type='xen'><name>other</name><os><type arch='x86_64' machine='xenfv'>hvm</type></os><devices>"
        b"<controller type='usb' model='piix3-uhci'/><input type='mouse' bus='usb'/></devices></domain>"
    ),
    domid=OTHER,
)
WORK: dict[str, Callable[[translator.Host], Awaitable[object]]] = {
    "attach": lambda host: host.attach("mouse", domid=OTHER),
    "a dry run": lambda host: host.attach("mouse", domid=OTHER, dry_run=True),
    "detach": lambda host: host.detach("controller:0", domid=OTHER),
    "apply": lambda host: host.apply(PLAN),
    "observe": lambda host: host.observe(domid=OTHER),
}


@pytest.mark.parametrize("named", ["primary", "second"])
def test_another_domains_monitor_is_refused(two: Any, named: str) -> None:
    async def scenario() -> None:
        async with two("-name", "win10", "-uuid", UUIDS[WIN10]) as there:
            before = await there.state()
            for work in WORK.values():
                monitors = {"primary": there.own, named: there.qmp}
                async with translator.Host(xenstore=there.xenstore, qmp=monitors, timeout_s=5) as host:
                    with pytest.raises(HostError, match="runs 'win10' with UUID") as caught:
                        await work(host)
                    assert caught.value.code == "T444"
                assert await there.state() == before

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("words", "is_other"),
    [
        ((), False),
        (("-name", "other"), False),
        (("-name", "other--incoming"), False),  # how xl receives a domain that migrates
        (("-uuid", UUIDS[OTHER]), False),
        (("-name", "before-its-rename", "-uuid", UUIDS[OTHER]), False),
        (("-name", "win10"), True),
        (("-uuid", UUIDS[WIN10]), True),
        (("-name", "other", "-uuid", UUIDS[WIN10]), True),
    ],
    ids=str,
)
def test_what_a_qemu_tells_of_itself_decides(words: tuple[str, ...], is_other: bool) -> None:
    """A QEMU of the field's is given a name, and seldom a UUID; one that was given neither is taken as named."""

    async def scenario() -> None:
        require(CXenStored)
        require(Qemu)
        with CXenStored() as xenstored, Qemu(words=words) as qemu:
            client = await Xenstore.connect(xenstored.socket)
            await make_domain(client, OTHER, name="other", uuid=UUIDS[OTHER], guest="hvm")
            await client.close()
            async with translator.Host(xenstore=xenstored.socket, qmp=qemu.socket) as host:
                refused = None
                try:
                    await host.observe(domid=OTHER)
                except HostError as error:
                    refused = error.code
                assert refused == ("T444" if is_other else None)

    asyncio.run(scenario())


def test_a_qemu_that_takes_over_a_socket_on_the_way_is_left_alone() -> None:
    """It has a device of the name that a step is to give, and one of the name that an undo would take away."""
    require(Qemu)
    plan = translator.plan(
        translator.load(
            b"<domain type='qemu'><name>any</name><os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
            b"<controller type='usb' index='0' model='ehci'/><controller type='usb' index='1' model='nec-xhci'/>"
            b"</devices></domain>"
        )
    )
    ids = [one.id for one in plan.topology.controllers if one.family == "usb"]

    async def scenario() -> None:
        with Qemu() as qemu:

            def on_step(event: translator.StepEvent) -> None:
                if (event.phase, event.number) == ("begin", 2):
                    qemu.start_anew({"driver": "piix3-usb-uhci", "id": str(ids[0])})

            async with translator.Host(qmp=qemu.socket) as host:
                with pytest.raises(HostError, match="another QEMU listens there than before") as caught:
                    await host.apply(plan, on_step=on_step)
                assert (caught.value.code, caught.value.cause) == ("T501", "T402")
                assert [one.model for one in (await host.observe()).controllers if one.family == "usb"] == [
                    "piix3-uhci"
                ]

    asyncio.run(scenario())


def test_another_piece_of_work_meets_the_new_qemu() -> None:
    """Only who was at work on the one before is told that it is gone."""
    require(Qemu)

    async def scenario() -> None:
        with Qemu() as qemu:
            async with translator.Host(qmp=qemu.socket) as host:
                met, gone = asyncio.Event(), asyncio.Event()

                async def work() -> None:
                    async with host.using(None):
                        await host.qmp(PRIMARY, None)
                        met.set()
                        await gone.wait()
                        for _ in range(2):
                            with pytest.raises(MonitorGone, match="another QEMU listens there than before"):
                                await host.qmp(PRIMARY, None)

                working = asyncio.create_task(work())
                await met.wait()
                qemu.start_anew()
                await asyncio.sleep(0.2)  # until the connection is known to be lost
                for _ in range(2):
                    await host.observe()
                gone.set()
                await working
                await host.observe()

    asyncio.run(scenario())
