"""A domain before and after a plan, and what is left of it in between: for tests that fail or kill an apply."""

from __future__ import annotations

import shlex
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import translator
from tests.conftest import FIXTURES
from tests.servers import Backend, Qemu, make_domain, require
from tests.test_apply import DOMID, SERVERS, Bench, host_devices, plan_of
from translator.hosts.xenstore import Xenstore
from translator.live.performer import Performer
from translator.output import render
from translator.saga.undo import roll_back

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from translator.planning.plan import Step
    from translator.saga.recover import Recovered

TEN, ONE = FIXTURES / "hosts/ten.xml", FIXTURES / "hosts/one.xml"
ACTIONS = 18  # that the ten devices take on a domain that has the emulated controller


class Scene(NamedTuple):
    """A domain with one controller, and what it looks like before and after the ten devices are there."""

    bench: Bench
    old: Any
    new: Any
    steps: tuple[Step, ...]

    async def looks(self) -> Any:
        return await looks(self.bench)

    async def reset(self) -> None:
        """Take back what the plan does, by the plan's own undo."""
        async with self.bench.host() as host:
            performer = Performer(host, DOMID, made=self.new[0].keys() - self.old[0].keys())
            assert await roll_back(self.steps, range(len(self.steps)), performer, lambda event: None) == {}
        assert await self.looks() == self.old

    async def recover(self, *, resume: bool = False) -> list[Recovered]:
        async with translator.Host(state=self.bench.state) as host:
            return [await host.recover(one, resume=resume) for one in host.unfinished()]

    def left(self) -> list[str]:
        """Return what is in the state directory, but for what is known of QEMUs."""
        assert self.bench.state is not None
        return sorted(path.name for path in self.bench.state.iterdir() if path.suffix != ".drivers")


async def looks(bench: Bench) -> Any:
    """Return all that can be seen of the host."""
    chardevs = await bench.qemu("query-chardev")
    return await bench.nodes(), await bench.devices(), sorted(one["label"] for one in chardevs)


@asynccontextmanager
async def scene(bench: Any, state: Path) -> AsyncIterator[Scene]:
    async with bench(plan_of("one")) as plain:
        made = await _scene(plain._replace(state=state), plan_of("one"), plan_of("ten"))
        assert len(made.steps) == ACTIONS
        yield made


async def _scene(host: Bench, before: translator.Plan, after: translator.Plan) -> Scene:
    await host.apply(before)
    old = await looks(host)
    applied = await host.apply(after)
    made = Scene(host, old, await looks(host), applied.steps)
    await made.reset()
    return made


SPLIT_DEVICES = "".join(
    f"<input type='{kind}' bus='usb'><address type='usb' bus='{bus}' port='{port}'/></input>"
    for bus in (0, 1)
    for port, kind in enumerate(("tablet", "keyboard", "mouse", "tablet"), start=1)
) + "".join(
    f"<hostdev mode='subsystem' type='usb'><source>{source}</source>"
    f"<address type='usb' bus='{bus}' port='{port}'/></hostdev>"
    for bus, port, source in (
        (0, 5, "<vendor id='0x046d'/><product id='0xc52b'/>"),
        (1, 5, "<address bus='2' port='1.4'/>"),
        (2, 1, "<address bus='1' device='9'/>"),
    )
)


def split_document(*elements: str) -> bytes:
    """Return a document of a domain whose second controller is another QEMU's."""
    return f"""<domain type='xen'>
  <name>hvm</name>
  <uuid>8a1e5c0e-3f2b-4c1d-9b7a-6d5e4f3a2b1c</uuid>
  <metadata><tr:device-models xmlns:tr='urn:translator:device-models:1' policy='named'>
    <tr:device-model name='second'><tr:controller type='usb' index='1'/></tr:device-model>
  </tr:device-models></metadata>
  <os><type arch='x86_64' machine='xenfv'>hvm</type></os>
  <devices>
    <controller type='usb' index='0' model='ich9-ehci1'/>
    <controller type='usb' index='1' model='ich9-ehci1'/>
    {"".join(elements)}
  </devices>
</domain>""".encode()


@asynccontextmanager
async def split_scene(server: str, folder: Path) -> AsyncIterator[tuple[Scene, Path, Mapping[str, Qemu]]]:
    """Give a domain that two QEMUs emulate beside a xenstored, the document that adds to all three, and the QEMUs."""
    require(SERVERS[server])
    require(Qemu)
    documents = [folder / "before.xml", folder / "after.xml"]
    documents[0].write_bytes(split_document())
    documents[1].write_bytes(
        split_document("<controller type='usb' index='2' model='qusb2' ports='2'/>", SPLIT_DEVICES)
    )
    before, after = (translator.plan(translator.load(document), domid=DOMID) for document in documents)
    with ExitStack() as stack:
        xenstored = stack.enter_context(SERVERS[server]())
        qemus = {
            model.name: stack.enter_context(Qemu(words=shlex.split(render.qemu_args(before, model.name))))
            for model in before.topology.device_models
        }
        client = await Xenstore.connect(xenstored.socket)
        domain = before.topology.domain
        await make_domain(client, DOMID, name=domain.name, uuid=str(domain.uuid), guest="hvm")
        await client.close()
        async with Backend(xenstored.socket):
            host = Bench(
                xenstored.socket,
                qemus["primary"].socket,
                host_devices(folder / "sys"),
                state=folder / "state",
                others={name: qemu.socket for name, qemu in qemus.items() if name != "primary"},
            )
            yield await _scene(host, before, after), documents[1], qemus
