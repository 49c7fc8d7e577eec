"""docs/manager.md is what it says: its code serves guests of the embedded host."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import translator
from tests.conftest import FIXTURES
from tests.crashes import Crasher
from tests.test_apply import DOMID, Bench, plan_of, run
from tests.test_xl import serving
from translator.hosts.sandbox import Sandbox

DOCUMENT = Path(__file__).parents[1] / "docs/manager.md"


@pytest.fixture
def manager() -> dict[str, Any]:
    """Return what the document's code defines."""
    names: dict[str, Any] = {}
    for code in re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        exec(compile(code, str(DOCUMENT), "exec"), names)
    return names


def test_many_guests_at_once(manager: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with Sandbox() as sandbox:
            for number in range(1, 9):
                sandbox.add_guest(f"guest{number}", domid=number, guest="pvh")
                sandbox.add_host_device(f"1-{number}", bus=1, device=number + 1, vendor=1, product=number)
            log: list[tuple[int, str]] = []
            async with translator.Host(xenstore=sandbox.xenstore_socket, sysfs=sandbox.sysfs) as host:
                wishes = {number: [f"hostdev:1.{number + 1}"] for number in range(1, 9)}
                wishes[8] = ["tablet"]
                done = await manager["serve"](host, wishes, lambda *line: log.append(line))
                assert done == {number: number != 8 for number in wishes}
                usb = manager["Usb"](host, lambda *line: log.append(line))
                assert await usb.show(1) == {(0, "1"): "1.2"}
                assert await usb.take(1, "hostdev:1.2")
                assert await usb.show(1) == {}
            assert (8, "refused: no controller of the domain has a free port for a tablet") in log
            assert (2, "done: Wait until the kernel's usbback in domain 0 has taken controller 0 on.") in log

    run(scenario())


def test_each_domain_has_its_monitor_and_a_pulled_device_is_told(manager: dict[str, Any]) -> None:
    async def scenario() -> None:
        document = (
            b"<domain type='xen'><name>guest8</name><os><type>hvm</type></os><devices>"
            b"<controller type='usb' index='0' model='piix3-uhci'/><input type='tablet' bus='usb'/>"
            b"<input type='mouse' bus='usb'/></devices></domain>"
        )
        async with Sandbox() as sandbox:
            guests = [sandbox.add_guest(f"guest{number}", domid=number) for number in (7, 8)]
            sandbox.add_host_device("1-8", bus=1, device=8, vendor=0x046D, product=0xC52B)
            async with translator.Host(xenstore=sandbox.xenstore_socket, sysfs=sandbox.sysfs) as host:
                for guest in guests:
                    host.learn_monitor("primary", guest.domid, str(guest.qmp_socket))
                    await host.attach("controller:piix3-uhci", "tablet", domid=guest.domid)
                await host.attach("controller:qusb2", "hostdev:046d:c52b", domid=7)
                sandbox.remove_host_device("1-8")
                (pulled,) = [one.host for one in (await host.observe(domid=7)).devices if one.host]
                assert (pulled.path, pulled.vendor, pulled.product) == ("1-8", None, None)
                await host.detach("1:1", domid=7)
                drift = await manager["drift"](host, 8, document)
                assert [(one.action, one.id) for one in drift.changes] == [("add", "device:usb:0:2")]
            async with translator.Host(
                xenstore=sandbox.xenstore_socket, qmp=guests[0].qmp_socket, sysfs=sandbox.sysfs
            ) as host:
                await host.observe(domid=7)
                with pytest.raises(translator.HostError, match=r"a QEMU without a domid is asked for(.|\n)*domid=…"):
                    await host.observe()

    run(scenario())


def test_who_takes_too_long_is_undone(manager: dict[str, Any]) -> None:
    async def scenario() -> None:
        async with Sandbox(backend_delay_s=None) as sandbox:
            sandbox.add_guest("guest", domid=DOMID, guest="pvh")
            log: list[tuple[int, str]] = []
            async with translator.Host(xenstore=sandbox.xenstore_socket, sysfs=sandbox.sysfs) as host:
                wishes = {DOMID: ["controller:qusb2"]}
                done = await manager["serve"](host, wishes, lambda *line: log.append(line), timeout_s=0.3)
                assert done == {DOMID: False}
                assert (await host.observe(domid=DOMID)).controllers == ()
            assert log[-1] == (DOMID, "took too long; the guest is as it was")
            assert [line for _, line in log if line.startswith("undone")]

    run(scenario())


def test_what_a_killed_process_began_is_settled(manager: dict[str, Any], tmp_path: Path) -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with Sandbox() as sandbox:
            guest = sandbox.make_host_for(plan)
            bench = Bench(
                str(sandbox.xenstore_socket), str(guest.qmp_socket), sandbox.sysfs, state=tmp_path / "state"
            )
            async with Crasher() as crasher:
                document = FIXTURES / "hosts/mixed.xml"
                assert (await crasher.run(bench, "apply", document, domid=DOMID, die=(10, "after"))).code == -9
            async with bench.host() as host:
                assert (await host.observe(domid=DOMID)).controllers  # whose monitor takes one client at a time
                (left,) = host.unfinished()
                assert (left.state, left.domain and left.domain.domid, len(left.begun)) == ("left", DOMID, 11)
                log: list[tuple[int, str]] = []
                await manager["Usb"](host, lambda *line: log.append(line)).settle()
                assert log == []
                assert host.unfinished() == ()
                assert (await host.observe(domid=DOMID)).controllers == ()
                with pytest.raises(translator.HostError, match=r"T511.* is not there any more"):
                    await host.recover(left)
                host.state = None
                with pytest.raises(ValueError, match="keeps no journals"):
                    host.unfinished()

    run(scenario())


def test_a_damaged_journal_is_told_of(manager: dict[str, Any], tmp_path: Path) -> None:
    with serving(tmp_path) as bench:
        state = tmp_path / "state"
        state.mkdir(mode=0o700)
        path = state / f"xen-{DOMID}.0123456789abcdef.journal"
        path.touch(0o600)

        async def scenario() -> None:
            log: list[tuple[int | None, str]] = []
            async with translator.Host(xenstore=bench.xenstore, qmp=bench.qmp, state=state) as host:
                usb = manager["Usb"](host, lambda *line: log.append(line))
                assert not await usb.give(DOMID, "tablet")
                await usb.settle()
            assert [(domid, told.startswith(f"to be recovered: {path}: ")) for domid, told in log] == [
                (DOMID, True),
                (None, True),
            ]

        run(scenario())


def test_without_an_event_loop(manager: dict[str, Any], tmp_path: Path) -> None:
    with serving(tmp_path) as bench:
        with translator.BlockingHost(
            xenstore=bench.xenstore, qmp=bench.qmp, sysfs=bench.sysfs, state=tmp_path / "state"
        ) as host:
            assert host.unfinished() == ()
            assert host.attach("tablet", domid=DOMID).steps
            assert [one.kind for one in host.observe(domid=DOMID).devices] == ["tablet"]
            nothing = b"<domain type='xen'><name>hvm</name><os><type>hvm</type></os></domain>"
            plan = translator.plan(translator.load(nothing), domid=DOMID)
            assert host.detach("tablet", domid=DOMID).steps
            host.release(DOMID)
            assert host.apply(plan, prune=True, dry_run=True).steps
            host.attach("controller:qusb2", "hostdev:1.8", domid=DOMID)
            host.detach("controller:0", domid=DOMID, force=True)
        assert manager["devices_of"](bench.xenstore, DOMID) == ["hostdev"]
