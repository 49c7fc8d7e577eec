"""The embedded host, where it is more than the contract that every host meets.

`test_hosts.py` holds it to the same contract as the real servers. Here: foreign clients get along with it,
hostile ones do not hurt it, and the parties that only it has (backends, frontends, a guest that does not let
go, a /sys tree) behave.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import struct
from typing import TYPE_CHECKING, Any

import pytest

from tests.servers import do_without
from translator.errors import HostError
from translator.hosts.sandbox import Sandbox
from translator.hosts.sandbox.store import Store, StoreError, Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

UUID = "1f4ff1a7-5d7c-4e0c-8f0e-3e2f7f1f9a10"
READ, WATCH, TRANSACTION_START, TRANSACTION_END, WRITE, WATCH_EVENT, ERROR = 2, 4, 6, 7, 11, 15, 16
B, F = "/local/domain/0/backend/vusb/7/0", "/local/domain/7/device/vusb/0"


def in_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a test on an event loop of its own, and no longer than it may take."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 10))

    return run


async def xenstore(sandbox: Sandbox, tool: str, *arguments: str) -> tuple[int, str]:
    """Run one of Xen's own command-line tools and return its exit code and output."""
    path = shutil.which(f"xenstore-{tool}")
    if path is None:
        do_without("no xenstore-ls and its like: install xenstore-utils")
    process = await asyncio.create_subprocess_exec(
        path,
        *arguments,
        env={**os.environ, "XENSTORED_PATH": str(sandbox.xenstore_socket)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


class Wire:
    """A xenstore client that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, sandbox: Sandbox) -> Wire:
        return cls(*await asyncio.open_unix_connection(str(sandbox.xenstore_socket)))

    async def ask(self, op: int, payload: bytes, transaction: int = 0) -> tuple[int, bytes]:
        self.writer.write(struct.pack("<IIII", op, 5, transaction, len(payload)) + payload)
        return await self.hear()

    async def hear(self) -> tuple[int, bytes]:
        kind, _, _, length = struct.unpack("<IIII", await self.reader.readexactly(16))
        return kind, await self.reader.readexactly(length)

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


class Qmp:
    """A QMP client that keeps the events it hears while it waits for an answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.events: list[tuple[str, str | None]] = []

    @classmethod
    async def open(cls, path: Path) -> Qmp:
        self = cls(*await asyncio.open_unix_connection(str(path)))
        assert "QMP" in json.loads(await self.reader.readline())
        assert await self.ask("qmp_capabilities") == {}
        return self

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Return what the command returns, or what QEMU says against it."""
        arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        self.writer.write(json.dumps({"execute": command, "arguments": arguments}).encode())
        while "event" in (answer := json.loads(await self.reader.readline())):
            self._keep(answer)
        return answer["return"] if "return" in answer else answer["error"]["desc"]

    async def event(self) -> tuple[str, str | None]:
        """Return the next event: its name and whose device it is about."""
        if not self.events:
            self._keep(json.loads(await self.reader.readline()))
        return self.events.pop(0)

    def _keep(self, event: dict[str, Any]) -> None:
        self.events.append((event["event"], event.get("data", {}).get("device")))

    async def devices(self) -> set[str]:
        listing = await self.ask("qom-list", path="/machine/peripheral")
        return {entry["name"] for entry in listing} - {"type"}

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


# Foreign clients


@in_loop
async def test_xens_own_tools_work_on_it() -> None:
    async with Sandbox() as sandbox:
        assert await xenstore(sandbox, "write", "/a/b/c", "1", "/a/b/d", "") == (0, "")
        assert await xenstore(sandbox, "chmod", "/a/b", "n7", "r0") == (0, "")
        assert await xenstore(sandbox, "ls", "-fp", "/a") == (
            0,
            '/a/b = ""   (n7,r0)\n/a/b/c = "1"   (n0)\n/a/b/d = ""   (n0)\n',
        )
        assert await xenstore(sandbox, "list", "/a/b") == (0, "c\nd\n")
        assert await xenstore(sandbox, "exists", "/a/b") == (0, "")
        assert await xenstore(sandbox, "exists", "/a/x") == (1, "")
        assert (await xenstore(sandbox, "rm", "/a/b/missing"))[0] == 0
        assert (await xenstore(sandbox, "rm", "/a/missing/leaf"))[0] == 1
        assert (await xenstore(sandbox, "rm", "/"))[0] == 1
        assert await xenstore(sandbox, "rm", "/a/b") == (0, "")
        assert await xenstore(sandbox, "read", "name") == (0, "Domain-0\n")
        assert await xenstore(sandbox, "watch", "-n", "1", "/a") == (0, "/a\n")


@in_loop
async def test_a_listing_longer_than_a_packet_comes_in_parts() -> None:
    async with Sandbox() as sandbox:
        names = [f"a-child-with-a-long-name-{number}" for number in range(300)]
        await xenstore(sandbox, "write", *(word for name in names for word in (f"/big/{name}", "x")))
        assert await xenstore(sandbox, "list", "/big") == (0, "".join(f"{name}\n" for name in names))


@in_loop
async def test_a_watch_hears_of_a_transaction_at_its_commit() -> None:
    async with Sandbox() as sandbox:
        watcher, wire = await Wire.open(sandbox), await Wire.open(sandbox)
        assert await watcher.ask(WATCH, b"/w\0token\0") == (WATCH, b"OK\0")
        assert await watcher.hear() == (WATCH_EVENT, b"/w\0token\0")
        transaction = int((await wire.ask(TRANSACTION_START, b"\0"))[1][:-1])
        await wire.ask(WRITE, b"/w/one\0001", transaction)
        await wire.ask(WRITE, b"/w/two\0002", transaction)
        assert await watcher.ask(READ, b"/w/one\0") == (ERROR, b"ENOENT\0")
        assert (await wire.ask(TRANSACTION_END, b"T\0", transaction))[1] == b"OK\0"
        assert await watcher.hear() == (WATCH_EVENT, b"/w/one\0token\0")
        assert await watcher.hear() == (WATCH_EVENT, b"/w/two\0token\0")
        await watcher.close()
        await wire.close()


# Hostile clients


@in_loop
@pytest.mark.parametrize(
    ("op", "payload", "errno"),
    [
        pytest.param(99, b"/a\0", b"ENOSYS\0", id="unknown operation"),
        pytest.param(2**32 - 1, b"", b"ENOSYS\0", id="largest operation"),
        pytest.param(READ, b"", b"EINVAL\0", id="no path"),
        pytest.param(READ, b"/a", b"EINVAL\0", id="path without its end"),
        pytest.param(READ, b"/a\0/b\0", b"EINVAL\0", id="two paths"),
        pytest.param(READ, b"/\xff\0", b"EINVAL\0", id="not ASCII"),
        pytest.param(READ, b"/a//b\0", b"EINVAL\0", id="empty name"),
        pytest.param(READ, b"/a/\0", b"EINVAL\0", id="slash at the end"),
        pytest.param(READ, b"/a b\0", b"EINVAL\0", id="blank in a path"),
        pytest.param(READ, b"/" + b"a" * 1024 + b"\0", b"EINVAL\0", id="path too long"),
        pytest.param(WRITE, b"/a\0" + b"x" * 2049, b"E2BIG\0", id="value too long"),
        pytest.param(14, b"/tool\0x9\0", b"EINVAL\0", id="bad permission"),
        pytest.param(22, b"/tool\0-1\0", b"EINVAL\0", id="bad offset"),
        pytest.param(TRANSACTION_END, b"T\0", b"ENOENT\0", id="no transaction"),
        pytest.param(5, b"/a\0token\0", b"ENOENT\0", id="no such watch"),
    ],
)
async def test_a_bad_request_is_refused_by_name(op: int, payload: bytes, errno: bytes) -> None:
    async with Sandbox() as sandbox:
        wire = await Wire.open(sandbox)
        assert await wire.ask(op, payload) == (ERROR, errno)
        assert await wire.ask(READ, b"/local/domain/0/name\0") == (READ, b"Domain-0")
        await wire.close()


@in_loop
async def test_an_oversized_packet_ends_its_connection_and_no_other() -> None:
    async with Sandbox() as sandbox:
        other, hostile = await Wire.open(sandbox), await Wire.open(sandbox)
        hostile.writer.write(struct.pack("<IIII", READ, 0, 0, 4097))
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await hostile.reader.readexactly(16)
        assert await other.ask(READ, b"/local/domain/0/name\0") == (READ, b"Domain-0")
        hostile.writer.close()
        await other.close()


@in_loop
@pytest.mark.parametrize("garbage", [b"}\n", b"nope\n", b'{"execute" "x"}', b'{"a":' * 9 + b"1" + b"}" * 9])
async def test_garbage_on_the_monitor_is_an_error_and_not_its_end(garbage: bytes) -> None:
    async with Sandbox() as sandbox:
        qmp = await Qmp.open(sandbox.qmp_socket)
        qmp.writer.write(garbage)
        assert json.loads(await qmp.reader.readline())["error"]["class"] == "GenericError"
        assert await qmp.ask("query-name") == {"name": "guest"}
        await qmp.close()


# Permissions: what a guest may do with what a toolstack left it


@pytest.mark.parametrize(
    ("permissions", "may_read", "may_write"),
    [
        (("n0",), False, False),
        (("r0",), True, False),
        (("n0", "r7"), True, False),
        (("n0", "b7"), True, True),
        (("n0", "w7"), False, True),
        (("n7", "r0"), True, True),
        (("b0", "n7"), False, False),
    ],
)
def test_a_guest_has_the_rights_that_the_node_gives_it(
    permissions: tuple[str, ...], may_read: bool, may_write: bool
) -> None:
    store = Store()
    store.write("/node", "", permissions)
    assert allowed(lambda: store.read("/node", domid=7)) == may_read
    assert allowed(lambda: store.write("/node", "x", domid=7)) == may_write
    assert allowed(lambda: store.write("/node/child", "x", domid=7)) == may_write


def allowed(call: Callable[[], object]) -> bool:
    try:
        call()
    except StoreError as error:
        if error.name != "EACCES":
            raise
        return False
    return True


def test_removing_a_node_tells_the_watches_below_it_exactly() -> None:
    store, heard = Store(), list[str]()
    store.write("/a/b/c", "")
    for path in ("/a", "/a/b/c", "/a/b/c/d"):
        store.watch(Watch(path, heard.append))
    view = store.begin()
    view.rm("/a/b")
    store.commit(view)
    assert sorted(heard) == ["/a/b", "/a/b/c"]


# Backends and frontends


async def settled(sandbox: Sandbox, path: str, value: str) -> None:
    """Return once the node has the value."""
    reached = asyncio.Event()

    def look(_: str) -> None:
        if sandbox.store.read(path) == value:
            reached.set()

    watch = Watch(path, look)
    sandbox.store.watch(watch)
    look(path)
    await reached.wait()
    sandbox.store.unwatch(watch)


def write_controller(sandbox: Sandbox, kind: str = "vusb") -> str:
    """Write what libxl writes for one PV controller, backend state last; return the backend's path."""
    backend = B.replace("vusb", kind)
    store = sandbox.store
    store.write(F, "", ("n7", "r0"))
    for name, value in (("backend", backend), ("backend-id", "0"), ("state", "1")):
        store.write(f"{F}/{name}", value, ("n7", "r0"))
    store.write(backend, "", ("n0", "r7"))
    for name, value in (("frontend", F), ("frontend-id", "7"), ("online", "1"), ("state", "1")):
        store.write(f"{backend}/{name}", value, ("n0", "r7"))
    return backend


@in_loop
@pytest.mark.parametrize("kind", ["vusb", "qusb"])
@pytest.mark.parametrize("runs", [True, False], ids=["guest runs", "guest has no driver"])
async def test_a_pv_controller_connects_and_closes(kind: str, runs: bool) -> None:
    async with Sandbox() as sandbox:
        sandbox.add_guest("guest", UUID, domid=7, guest="pv", frontend_connects=runs)
        backend = write_controller(sandbox, kind)
        await settled(sandbox, f"{backend}/state", "4" if runs else "2")
        await settled(sandbox, f"{F}/state", "4" if runs else "1")
        sandbox.store.write(f"{backend}/online", "0")
        sandbox.store.write(f"{backend}/state", "5")
        await settled(sandbox, f"{backend}/state", "6")
        assert sandbox.store.read(f"{F}/state") == ("6" if runs else "1")


@in_loop
async def test_a_silent_backend_answers_nothing_and_a_late_one_later() -> None:
    async with Sandbox(backend_delay_s=None) as sandbox:
        sandbox.add_guest("guest", UUID, domid=7)
        write_controller(sandbox)
        await asyncio.sleep(0.02)
        assert sandbox.store.read(f"{B}/state") == "1"
        sandbox.backends.delay_s = 0.01
        sandbox.store.write(f"{B}/state", "1")
        assert sandbox.store.read(f"{B}/state") == "1"
        await settled(sandbox, f"{B}/state", "4")


@in_loop
async def test_a_frontend_without_rights_on_its_node_does_not_connect(caplog: pytest.LogCaptureFixture) -> None:
    async with Sandbox() as sandbox:
        sandbox.add_guest("guest", UUID, domid=7)
        sandbox.store.write(F, "", ("n0", "r7"))
        write_controller(sandbox)
        sandbox.store.write(f"{F}/state", "1", ("n0", "r7"))
        await settled(sandbox, f"{B}/state", "2")
        await asyncio.sleep(0.02)
        assert (sandbox.store.read(f"{F}/state"), sandbox.store.read(f"{B}/state")) == ("1", "2")
        assert "EACCES" in caplog.text


# A guest's QEMU


@in_loop
async def test_a_controller_leaves_with_its_devices_when_the_guest_lets_go() -> None:
    async with Sandbox() as sandbox:
        qmp = await Qmp.open(sandbox.add_guest("guest", UUID, domid=7).qmp_socket)
        await qmp.ask("device_add", driver="piix3-usb-uhci", id="uhci")
        await qmp.ask("device_add", driver="usb-hub", id="hub", bus="uhci.0", port="1")
        await qmp.ask("device_add", driver="usb-tablet", id="tablet", bus="uhci.0", port="1.3")
        assert await qmp.ask("device_del", id="uhci") == {}
        assert [await qmp.event() for _ in range(3)] == [
            ("DEVICE_DELETED", "tablet"),
            ("DEVICE_DELETED", "hub"),
            ("DEVICE_DELETED", "uhci"),
        ]
        assert await qmp.devices() == set()
        await qmp.close()


@in_loop
async def test_an_xhci_leaves_without_a_word() -> None:
    async with Sandbox() as sandbox:
        qmp = await Qmp.open(sandbox.qmp_socket)
        await qmp.ask("device_add", driver="qemu-xhci", id="xhci")
        await qmp.ask("device_del", id="xhci")
        while await qmp.devices():
            pass
        assert qmp.events == []
        await qmp.close()


@in_loop
async def test_a_guest_that_does_not_let_go_keeps_its_controller_until_a_reset() -> None:
    async with Sandbox() as sandbox:
        qmp = await Qmp.open(sandbox.add_guest("guest", UUID, domid=7, guest_cooperates=False).qmp_socket)
        await qmp.ask("device_add", driver="usb-ehci", id="ehci")
        assert await qmp.ask("device_del", id="ehci") == {}
        assert await qmp.ask("device_del", id="ehci") == "Device ehci is already in the process of unplug"
        assert await qmp.ask("device_add", driver="usb-ehci", id="ehci") == "Duplicate device ID 'ehci'"
        assert await qmp.devices() == {"ehci"}
        await qmp.ask("system_reset")
        assert [await qmp.event(), await qmp.event()] == [("RESET", None), ("DEVICE_DELETED", "ehci")]
        assert await qmp.devices() == set()
        await qmp.close()


@in_loop
async def test_the_launch_stage_takes_what_cannot_be_plugged_later() -> None:
    launch = [
        {"driver": "ich9-usb-ehci1", "id": "usb", "bus": "pci.0", "addr": "0x5.0x7", "multifunction": True},
        {"driver": "ich9-usb-uhci1", "masterbus": "usb.0", "firstport": 0, "addr": "0x5", "multifunction": True},
    ]
    async with Sandbox() as sandbox:
        with pytest.raises(HostError, match=r"T406.*USB bus 'usb\.0' not found"):
            sandbox.add_guest("wrong order", UUID, launch=launch[::-1])
        qmp = await Qmp.open(sandbox.add_guest("guest", UUID, launch=launch).qmp_socket)
        hub = {"driver": "usb-hub", "bus": "usb.0"}
        assert await qmp.ask("device_add", **hub, id="hub", port="2") == {}
        assert "speed mismatch" in await qmp.ask("device_add", **hub, id="other", port="3")
        assert "does not support hotplugging" in await qmp.ask("device_del", id="usb")
        await qmp.close()


# The host's USB devices


@in_loop
async def test_usb_host_finds_what_the_host_has() -> None:
    async with Sandbox() as sandbox:
        qmp = await Qmp.open(sandbox.qmp_socket)
        await qmp.ask("device_add", driver="qemu-xhci", id="usb")
        by_address = {"driver": "usb-host", "bus": "usb.0", "id": "host", "hostbus": 1, "hostaddr": 8}
        assert await qmp.ask("device_add", **by_address) == "failed to find host usb device 1:8"
        sandbox.add_host_device("1-8", bus=1, device=8, vendor=0x046D, product=0xC52B, name="Receiver")
        assert await qmp.ask("device_add", **by_address) == {}
        assert "Speed 480 Mb/s, Product Receiver, ID: host" in await qmp.ask(
            "human-monitor-command", command_line="info usb"
        )
        await qmp.close()


@in_loop
async def test_the_sysfs_tree_shows_devices_and_moves_interfaces_between_drivers(tmp_path: Path) -> None:
    async with Sandbox(tmp_path) as sandbox:
        sandbox.add_host_device(
            "1-8.2", bus=1, device=9, vendor=0x0781, product=0x5581, drivers=("usb-storage", None)
        )
        usb = tmp_path / "sys" / "bus" / "usb"
        device = usb / "devices" / "1-8.2"
        facts = ("busnum", "devnum", "idVendor", "idProduct", "speed")
        assert [(device / name).read_text() for name in facts] == ["1\n", "9\n", "0781\n", "5581\n", "480\n"]
        interfaces = [usb / "devices" / f"1-8.2:1.{number}" / "driver" for number in (0, 1)]
        assert interfaces[0].resolve() == usb / "drivers" / "usb-storage"
        assert not interfaces[1].exists()

        (usb / "drivers" / "usb-storage" / "unbind").write_text("1-8.2:1.0")
        for number in (0, 1):
            (usb / "drivers" / "usbback" / "bind").write_text(f"1-8.2:1.{number}")
        for _ in range(2):  # the kernel moves them during the write, the sandbox in the loop's next turn
            await asyncio.sleep(0)
        assert [link.resolve().name for link in interfaces] == ["usbback", "usbback"]
    assert os.listdir(tmp_path) == []


@in_loop
async def test_a_directory_that_cannot_hold_a_socket_is_refused_and_left_clean(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    os.mkdir(deep)
    with pytest.raises(HostError, match=r"T401.*path too long"):
        await Sandbox(deep).__aenter__()
    assert os.listdir(deep) == []
