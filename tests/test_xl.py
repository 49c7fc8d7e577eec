"""`translator xl` says what xl says: its list was read off xl 4.17.7 on a Xen host, its words off its source."""

from __future__ import annotations

import asyncio
import re
import threading
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from click.testing import CliRunner

from tests.servers import Backend, Qemu, make_domain, require
from tests.test_apply import DOMID, SERVERS, Bench, bench, host_devices, plan_of, run
from tests.test_attach import everything
from translator.cli import cli
from translator.hosts.sandbox import Sandbox
from translator.hosts.xenstore import Xenstore
from translator.hotplug.xl import XlWordError, controller_word, device_word, usb_list
from translator.live.observe import observe
from translator.planning.plan import XenstoreOp

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from translator.topology import Guest

__all__ = ["bench"]  # a fixture

Result = TypeVar("Result")

# As xl prints it for such a domain; blanks at the ends of lines included.
LISTED = """\
Devid  Type         BE  state usb-ver ports
0      devicemodel  0   0     3       4    
  Port 1: Bus 001 Device 008
  Port 2:
  Port 3:
  Port 4:
Devid  Type         BE  state usb-ver ports
1      qusb         0   1     2       2    
  Port 1:
  Port 2: Bus 001 Device 009
Devid  Type         BE  state usb-ver ports
2      pv           0   1     1       3    
  Port 1: Bus 002 Device 003
  Port 2:
  Port 3:
"""  # noqa: W291


def test_the_list_is_xls_character_for_character(bench: Any) -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with bench(plan) as host:
            await host.apply(plan)
            # a tablet without a record is nothing that libxl knows of, and QEMU is not asked
            async with host._replace(qmp="/nonexistent").host() as connections:
                assert usb_list(await observe(connections, domid=DOMID, records_only=True)) == LISTED

    run(scenario())


SERVED = """\
Devid  Type         BE  state usb-ver ports
0      qusb         0   {}     1       2    
  Port 1: Bus 001 Device 009
  Port 2: Bus 002 Device 003
Devid  Type         BE  state usb-ver ports
1      devicemodel  0   0     3       4    
  Port 1:
  Port 2:
  Port 3:
  Port 4:
"""  # noqa: W291

CONTROLLERS: dict[tuple[str, ...], tuple[Guest, str]] = {
    (): ("hvm", "controller:ehci"),
    ("type=auto", "version=1"): ("hvm", "controller:piix3-uhci"),
    ("type=auto",): ("pv", "controller:qusb2"),
    ("type=pv", "version=1", "ports=31"): ("pv", "controller:xenusb1,ports=31"),
    ("type=qusb,version=2,ports=0x4",): ("hvm", "controller:qusb2,ports=4"),
    ("type=devicemodel", "version=3"): ("hvm", "controller:nec-xhci,ports=8"),
}


@pytest.mark.parametrize("words", CONTROLLERS, ids=" ".join)
def test_controllers(words: tuple[str, ...]) -> None:
    guest, word = CONTROLLERS[words]
    assert controller_word(words, guest, usbback=False) == word


REFUSED = {
    "usbctrl-attach 8 bla": "Unknown string `bla' in usbctrl spec",
    "usbctrl-attach 8 type=foo": "Invalid usb controller type 'foo'",
    "usbctrl-attach 8 version=4": "no controller of type auto and version 4",
    "usbctrl-attach 8 ports=many": "ports=many is not a number",
    "usbdev-attach 8 hostbus=1": "hostaddr=N is missing",
    "usbdev-attach 8 hostbus=1 hostaddr=8x": "hostaddr=8x is not a number",
    "usbdev-attach 8 hostbus=1 hostaddr=300": "hostaddr=300 is not between 1 and 255",
    "usbdev-attach 8 hostbus=1 hostaddr=8 port=1": "USB controller must be specified if you specify port",
    "usbdev-attach 8 hostbus=1 color=red": "Unknown string `color=red' in usbdev spec",
    "usbdev-attach 8 type=disk hostbus=1 hostaddr=1": "Invalid usb device type: disk",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_xl_does_not_take(line: str) -> None:
    verb, _, *words = line.split()
    read = partial(controller_word, guest="hvm", usbback=False) if verb == "usbctrl-attach" else device_word
    with pytest.raises(XlWordError, match=re.escape(REFUSED[line])):
        read(words)


def test_numbers_are_read_as_c_reads_them() -> None:
    assert device_word(["hostbus=0x1", "hostaddr=012"])[0] == "hostdev:1.10"


@contextmanager
def serving(tmp_path: Path, server: str = "sandbox") -> Iterator[Bench]:
    """Run a host with a guest beside a command, which has the main thread for its signals.

    The embedded host, or the PV backends of a real one, run in a thread of their own.
    """
    name, uuid = "hvm", "8a1e5c0e-3f2b-4c1d-9b7a-6d5e4f3a2b1c"
    sysfs = host_devices(tmp_path / "sys")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)

    def there(work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    async def make(socket: str) -> None:
        client = await Xenstore.connect(socket)
        await make_domain(client, DOMID, name=name, uuid=uuid, guest="hvm")
        await client.close()

    with ExitStack() as stack:
        stack.callback(loop.close)
        thread.start()
        stack.callback(thread.join)
        stack.callback(lambda: loop.call_soon_threadsafe(loop.stop))
        if server == "sandbox":
            sandbox = there(Sandbox().__aenter__())
            stack.callback(lambda: there(sandbox.__aexit__()))

            async def add() -> str:
                return str(sandbox.add_guest(name, uuid, domid=DOMID).qmp_socket)

            yield Bench(str(sandbox.xenstore_socket), there(add()), sysfs)
            return
        require(SERVERS[server])
        require(Qemu)
        xenstored, qemu = stack.enter_context(SERVERS[server]()), stack.enter_context(Qemu())
        there(make(xenstored.socket))
        backend = there(Backend(xenstored.socket).__aenter__())
        stack.callback(lambda: there(backend.__aexit__()))
        yield Bench(xenstored.socket, qemu.socket, sysfs)


@pytest.mark.parametrize("server", [*SERVERS, "sandbox"])
def test_the_verbs(tmp_path: Path, server: str) -> None:
    """From nothing to two controllers and two devices, and back, by xl's words alone."""
    with serving(tmp_path, server) as host:

        def call(line: str) -> tuple[int, str]:
            reach = ["--xenstore", host.xenstore, "--qmp", host.qmp, "--sysfs", str(host.sysfs)]
            result = CliRunner().invoke(cli, ["xl", *reach, "--state", str(tmp_path / "state"), *line.split()])
            return result.exit_code, result.stdout

        before = asyncio.run(everything(host))
        for line in (
            "usbctrl-attach hvm type=qusb version=1 ports=2",
            "usbctrl-attach 8 type=devicemodel version=3 ports=4",
            "usbdev-attach hvm hostbus=1 hostaddr=9 controller=0",
            "usbdev-attach hvm hostbus=2 hostaddr=3 controller=0 port=2",
        ):
            assert call(line) == (0, "")
        # the real servers have no guest that would connect
        assert call("usb-list hvm") == (0, SERVED.format(4 if server == "sandbox" else 1))
        for line, code in (
            ("usbdev-attach hvm hostbus=1 hostaddr=9", 4),
            ("usbdev-detach hvm 0 7", 4),
            ("usbctrl-detach hvm 9", 4),
            ("usb-list nobody", 4),
            ("usbctrl-attach hvm bla", 2),
            ("usbctrl-attach hvm type=qusb ports=32", 3),
        ):
            assert call(line) == (code, ""), line
        for line in ("usbdev-detach hvm 0 1", "usbctrl-detach hvm 0"):
            assert call(line) == (0, "")
        if server != "sandbox":
            # nor one that would let go of a PCI controller
            assert call("--timeout 0.5 usbctrl-detach hvm 1") == (4, "")
            assert call("usb-list hvm")[1].splitlines()[1].startswith("1      devicemodel ")
            return
        assert call("usbctrl-detach hvm 1") == (0, "")
        assert call("usb-list hvm") == (0, "")
        assert asyncio.run(everything(host)) == before


async def connect(host: Bench) -> None:
    """Do as a guest's driver that has found its controller, and as the backend that then serves it."""
    client = await Xenstore.connect(host.xenstore)
    for end in (f"/local/domain/{DOMID}/device/vusb/0", f"/local/domain/0/backend/qusb/{DOMID}/0"):
        await client.commit([XenstoreOp("write", f"{end}/state", "4")])
    await client.close()


@pytest.mark.parametrize("server", [*SERVERS, "sandbox"])
def test_the_verbs_of_2014(tmp_path: Path, server: str) -> None:
    with serving(tmp_path, server) as host:

        def call(line: str) -> tuple[int, str]:
            reach = ["--xenstore", host.xenstore, "--qmp", host.qmp, "--sysfs", str(host.sysfs), "--layout", "rfc7"]
            result = CliRunner().invoke(cli, ["xl", *reach, "--state", str(tmp_path / "state"), *line.split()])
            return result.exit_code, result.stdout

        before = asyncio.run(everything(host))
        assert call("usbctrl-attach hvm type=qusb") == (0, "")
        if server != "sandbox":
            asyncio.run(connect(host))
        assert call("usb-attach hvm hostdev:1.9") == (0, "")
        assert call("usb-attach hvm hostdev:002.003") == (0, "")
        assert call("usb-list hvm") == (
            0,
            "protocol    backend  type     device\n"
            "        pv        0  hostdev  001.009\n"
            "        pv        0  hostdev  002.003\n",
        )
        for line, code in (
            ("usb-attach hvm hostdev:1.9", 4),
            ("usb-detach hvm hostdev:1.8", 4),
            ("usb-attach hvm disk:1.9", 2),
            ("usb-attach hvm hostdev:1", 2),
            ("usb-attach hvm hostdev:1.x", 2),
        ):
            assert call(line) == (code, ""), line
        for line in ("usb-detach hvm hostdev:1.9", "usb-detach hvm hostdev:2.3", "usbctrl-detach hvm 0"):
            assert call(line) == (0, "")
        assert call("usb-list hvm") == (0, "")
        assert asyncio.run(everything(host)) == before


def test_twenty_guests_come_and_go_and_leave_nothing() -> None:
    async def scenario() -> None:
        async with Sandbox() as sandbox:
            for number in (1, 2):
                sandbox.add_host_device(f"1-{number}", bus=1, device=number + 1, vendor=1, product=number)
            guests = [sandbox.add_guest(f"guest{n}", domid=n) for n in range(1, 21)]
            host = Bench(str(sandbox.xenstore_socket), "", sandbox.sysfs)
            before = await host.nodes()
            for guest in guests:
                domid = guest.domid
                async with host._replace(qmp=str(guest.qmp_socket)).host() as connections:
                    words = ("hostdev:1.2", "controller:qusb2", "tablet", "hub", "hostdev:1.3")
                    await connections.attach(*words, domid=domid)
                    await connections.detach("hostdev:1.2", "hostdev:1.3", "tablet", domid=domid)
                    left = (await connections.observe(domid=domid)).controllers
                    await connections.detach(*(f"controller:{one.index}" for one in left), domid=domid)
            assert await host.nodes() == before

    run(scenario())
