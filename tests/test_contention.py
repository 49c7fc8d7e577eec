"""Several at once: in one process over one connection, and processes that fight for one place or one device."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

import translator
from tests.crashes import Crasher
from tests.servers import Backend, make_domain, require
from tests.test_apply import SERVERS, Bench, host_devices, run
from translator.hosts.sandbox import Sandbox
from translator.hosts.xenstore import Xenstore
from translator.live.performer import Performer
from translator.saga.undo import roll_back

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 5


def document(number: int, *elements: str) -> bytes:
    """Return a PV domain's document: a controller of two ports, and what is given."""
    controller = "<controller type='usb' index='1' model='qusb2' ports='2'/>"
    return f"""<domain type='xen'>
  <name>guest{number}</name>
  <uuid>00000000-0000-4000-8000-{number:012}</uuid>
  <os><type arch='x86_64' machine='xenpv'>linux</type></os>
  <devices>{controller}{"".join(elements)}</devices>
</domain>""".encode()


def hostdev(bus: int, device: int, port: int = 1) -> str:
    source = f"<source><address bus='{bus}' device='{device}'/></source>"
    address = f"<address type='usb' bus='1' port='{port}'/>"
    return f"<hostdev mode='subsystem' type='usb'>{source}{address}</hostdev>"


# Two applies, each the domain and what is added to it
FIGHTS = {
    "one port of one domain": ((8, hostdev(1, 8)), (8, hostdev(1, 9))),
    "one host device": ((8, hostdev(1, 9)), (9, hostdev(1, 9, port=2))),
}


@pytest.mark.parametrize("server", SERVERS.values(), ids=SERVERS)
@pytest.mark.parametrize("fight", FIGHTS.values(), ids=FIGHTS)
def test_exactly_one_of_two_processes_wins(server: Any, fight: Any, tmp_path: Path) -> None:
    """They have no directory in common, so only xenstored can tell one from the other."""
    require(server)
    documents = []
    for number, (domid, element) in enumerate(fight):
        documents.append(tmp_path / f"{number}.xml")
        documents[-1].write_bytes(document(domid, element))

    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            xenstored = stack.enter_context(server())
            client = await Xenstore.connect(xenstored.socket)
            for domid in (8, 9):
                uuid = f"00000000-0000-4000-8000-{domid:012}"
                await make_domain(client, domid, name=f"guest{domid}", uuid=uuid, guest="pv")
            await client.close()
            await stack.enter_async_context(Backend(xenstored.socket))
            sysfs = host_devices(tmp_path / "sys")
            benches = [Bench(xenstored.socket, "", sysfs, state=tmp_path / f"state{n}") for n in range(2)]
            processes = [await stack.enter_async_context(Crasher()) for _ in range(2)]
            for domid in (8, 9):
                await benches[0].apply(translator.plan(translator.load(document(domid)), domid=domid))
            before = await benches[0].nodes()
            alone = []
            plans = [
                translator.plan(translator.load(path), domid=domid)
                for path, (domid, _) in zip(documents, fight, strict=True)
            ]
            for bench, plan in zip(benches, plans, strict=True):
                steps = (await bench.apply(plan)).steps
                alone.append((await bench.nodes(), steps))
                await take_back(bench, plan, steps)
                assert await bench.nodes() == before
            for _ in range(ROUNDS):
                ended = await asyncio.gather(
                    *(
                        process.run(bench, "apply", path, domid=domid)
                        for process, bench, path, (domid, _) in zip(processes, benches, documents, fight, strict=True)
                    )
                )
                assert sorted(one.code for one in ended) == [0, 4], ended
                winner = [one.code for one in ended].index(0)
                assert await benches[0].nodes() == alone[winner][0], ended
                assert not list((tmp_path / f"state{1 - winner}").glob("*.journal"))
                await take_back(benches[winner], plans[winner], alone[winner][1])

    run(scenario())


async def take_back(bench: Bench, plan: translator.Plan, steps: tuple[translator.Step, ...]) -> None:
    async with bench.host() as host:
        performer = Performer(host, plan.topology.domain.domid)
        assert await roll_back(steps, range(len(steps)), performer, lambda event: None) == {}


def test_fifty_domains_over_one_connection(tmp_path: Path) -> None:
    """Their transactions do not get into each other's way, and their backends are waited for all at once."""
    domids = range(1, 51)

    async def scenario() -> None:
        async with Sandbox(backend_delay_s=0.1) as sandbox:
            for domid in domids:
                sandbox.add_guest(f"guest{domid}", domid=domid, guest="pv", frontend_connects=False)
            plans = [translator.plan(translator.load(document(domid)), domid=domid) for domid in domids]
            async with translator.Host(
                xenstore=sandbox.xenstore_socket, sysfs=sandbox.sysfs, state=tmp_path / "state"
            ) as host:
                applied = await asyncio.gather(*map(host.apply, plans))
                assert [len(one.steps) for one in applied] == [2] * len(plans)
                assert len(sandbox.connections) == 1
                again = await asyncio.gather(*map(host.apply, plans))
                assert [one.steps for one in again] == [()] * len(plans)

    run(scenario())
