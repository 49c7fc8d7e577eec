"""Host devices that are pulled and plugged in again, and a guest that has them whenever the host does."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import translator
from tests.conftest import FIXTURES
from tests.test_apply import DOMID, run
from tests.test_xl import serving
from translator.errors import DocumentError, HostError
from translator.hosts import uevents
from translator.hosts.qmp import Qmp
from translator.hosts.sandbox import Sandbox
from translator.hosts.sysfs import Sysfs
from translator.hotplug.follow import Event, Followed, check, follow, followed_of
from translator.hotplug.words import parse_selector
from translator.topology import HostDevice, Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.test_apply import Bench
    from translator.topology import Guest


class Following:
    """A follower at work, and the events that it tells."""

    def __init__(self, sandbox: Sandbox, host: translator.Host) -> None:
        self.sandbox = sandbox
        self.host = host
        self.events: asyncio.Queue[Event] = asyncio.Queue()

    def plug(self, path: str, device: int, *, product: int = 1, serial: str | None = None) -> None:
        self.sandbox.add_host_device(path, bus=1, device=device, vendor=0x46D, product=product, serial=serial)

    async def next(self) -> tuple[str, str, Place | None]:
        async with asyncio.timeout(20):
            event = await self.events.get()
        return event.kind, event.selector, event.place

    async def hosts(self) -> list[tuple[str, int | None]]:
        seen = await self.host.observe(domid=DOMID)
        return [(str(one.host.path), one.host.device) for one in seen.devices if one.host]


@asynccontextmanager
async def following(
    *followed: Followed, guest: Guest = "hvm", controller: str | None = None
) -> AsyncIterator[Following]:
    async with Sandbox() as sandbox:
        made = sandbox.add_guest("guest", domid=DOMID, guest=guest)
        async with translator.Host(
            xenstore=sandbox.xenstore_socket, qmp=made.qmp_socket, sysfs=sandbox.sysfs
        ) as host:
            at_work = Following(sandbox, host)
            if controller or guest == "hvm":
                await host.attach(f"controller:{controller or 'nec-xhci'},ports=4", domid=DOMID)
            task = asyncio.ensure_future(
                follow(host, followed, domid=DOMID, on_event=at_work.events.put_nowait, settle_s=0.05, poll_s=0.02)
            )
            try:
                yield at_work
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def named(selector: str, place: Place | None = None) -> Followed:
    return Followed(parse_selector(selector), place)


@pytest.mark.parametrize("guest", ["hvm", "pvh"])
def test_a_device_that_comes_and_goes_and_comes_again(guest: Guest) -> None:
    async def scenario() -> None:
        async with following(named("046d:0001"), guest=guest) as at_work:
            at_work.plug("1-4", 7)
            place = Place(0, "1")
            assert await at_work.next() == ("attached", "046d:0001", place)
            if guest == "hvm":  # whose monitor others may have while nothing changes
                await (await Qmp.connect(at_work.host.qmp_paths["primary"], timeout_s=5)).close()
            at_work.sandbox.remove_host_device("1-4")
            assert await at_work.next() == ("detached", "046d:0001", place)
            assert await at_work.hosts() == []
            at_work.plug("1-2", 8)  # another port, another number
            assert await at_work.next() == ("attached", "046d:0001", place)
            assert await at_work.hosts() == [("1-2", 8)]

    run(scenario())


def test_a_replug_that_is_over_before_anybody_looks() -> None:
    async def scenario() -> None:
        async with following(named("1-4", Place(0, "3"))) as at_work:
            at_work.plug("1-4", 7)
            assert await at_work.next() == ("attached", "1-4", Place(0, "3"))
            at_work.sandbox.remove_host_device("1-4")
            at_work.plug("1-4", 8, product=2)
            assert await at_work.next() == ("detached", "1-4", Place(0, "3"))
            assert await at_work.next() == ("attached", "1-4", Place(0, "3"))
            assert await at_work.hosts() == [("1-4", 8)]

    run(scenario())


def test_one_of_several_alike_is_known_by_its_serial_number() -> None:
    async def scenario() -> None:
        async with following(named("046d:0001:B"), named("serial:C")) as at_work:
            at_work.plug("1-3", 6, serial="A")
            at_work.plug("1-4", 7, serial="B")
            assert (await at_work.next())[:2] == ("attached", "046d:0001:B")
            at_work.sandbox.remove_host_device("1-3")
            at_work.plug("1-5", 8, serial="C")
            assert (await at_work.next())[:2] == ("attached", "serial:C")
            assert await at_work.hosts() == [("1-4", 7), ("1-5", 8)]

    run(scenario())


def test_what_the_backend_takes_along_comes_back() -> None:
    """With the device that is pulled QEMU's PV backend takes the others, which the records still have."""

    async def scenario() -> None:
        async with following(named("serial:A"), named("serial:B"), guest="pvh", controller="qusb2") as at_work:
            given = at_work.sandbox.backends.given
            at_work.plug("1-3", 6, serial="A")
            assert await at_work.next() == ("attached", "serial:A", Place(0, "1"))
            at_work.plug("1-4", 7, serial="B")
            assert await at_work.next() == ("attached", "serial:B", Place(0, "2"))
            assert given == {DOMID: {(0, 1): "1-3", (0, 2): "1-4"}}
            at_work.sandbox.remove_host_device("1-3")
            assert given == {DOMID: {}}
            assert await at_work.next() == ("detached", "serial:A", Place(0, "1"))
            assert await at_work.next() == ("detached", "serial:B", Place(0, "2"))
            assert await at_work.next() == ("attached", "serial:B", Place(0, "2"))
            assert given == {DOMID: {(0, 2): "1-4"}}
            at_work.plug("1-3", 8, serial="A")
            assert await at_work.next() == ("attached", "serial:A", Place(0, "1"))
            assert given == {DOMID: {(0, 1): "1-3", (0, 2): "1-4"}}

    run(scenario())


def test_what_cannot_be_attached_is_told_and_tried_again() -> None:
    async def scenario() -> None:
        async with following(named("1-4", Place(0, "1"))) as at_work:
            at_work.plug("1-3", 6)
            await at_work.host.attach("tablet", domid=DOMID)
            at_work.plug("1-4", 7)
            assert (await at_work.next())[:2] == ("failed", "1-4")
            await at_work.host.detach("tablet", domid=DOMID)
            at_work.sandbox.remove_host_device("1-3")  # any change will do
            assert await at_work.next() == ("attached", "1-4", Place(0, "1"))

    run(scenario())


def test_the_domain_goes() -> None:
    async def scenario() -> None:
        async with following(named("1-4")) as at_work:
            view = at_work.sandbox.store.begin()
            view.rm(f"/local/domain/{DOMID}")
            at_work.sandbox.store.commit(view)
            with pytest.raises(HostError, match=f"there is no domain {DOMID}"):
                await follow(at_work.host, [], domid=DOMID, on_event=print)

    run(scenario())


def test_only_what_the_kernel_says_of_usb_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    said = [
        (b"add@/devices/x\0ACTION=add\0SUBSYSTEM=usb\0", (4711, 1)),  # somebody else's process
        (b"add@/devices/y\0ACTION=add\0SUBSYSTEM=net\0", (0, 1)),
        (b"add@/devices/z\0ACTION=add\0SUBSYSTEM=usb\0", (0, 1)),
        (b"never read", (0, 1)),
    ]

    async def received(listener: socket.socket) -> tuple[bytes, tuple[int, int]]:
        return said.pop(0)

    monkeypatch.setattr(uevents, "_listener", lambda: socket.socket(socket.AF_UNIX))
    monkeypatch.setattr(uevents, "_received", received)

    async def scenario() -> None:
        with uevents.usb_changes(Sysfs(Path("/sys"))) as change:
            await change()
        assert len(said) == 1

    run(scenario())


def test_what_a_document_wants_followed() -> None:
    plan = translator.plan(translator.load(FIXTURES / "hosts/mixed.xml"))
    with pytest.raises(DocumentError, match=r"1\.9 is named by its number") as caught:
        followed_of(plan.topology)
    assert [(one.code, one.line is not None) for one in caught.value.diagnostics] == [("T443", True)]
    assert check(HostDevice(path="1-1")) == HostDevice(path="1-1")


def test_the_command(tmp_path: Path) -> None:
    """It says what it did, and ends quietly when it is told to."""
    with serving(tmp_path) as host:
        words = ["follow", "hvm", "hostdev:046d:c52b", "--poll", "0.1", "--state", str(tmp_path / "state")]
        words += ["--xenstore", host.xenstore, "--sysfs", str(host.sysfs)]
        command = [sys.executable, "-m", "translator", *words, "--qmp", host.qmp]
        (host.sysfs / "bus/usb/devices/1-8:1.0").mkdir()
        asyncio.run(_give(host, "controller:qusb2"))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate()
        assert told == "attached: host device 046d:c52b, port 1 of controller 0\n", err
        assert process.returncode == 0, err


async def _give(host: Bench, word: str) -> None:
    async with host.host() as connections:
        await connections.attach(word, domid=DOMID)
