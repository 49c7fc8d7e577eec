"""libvirt's hooks: what is refused before a start, made after it, and cleaned up at the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import translator
from tests.conftest import FIXTURES
from tests.test_apply import DOMID, SERVERS, run
from tests.test_transition import PARAVIRTUAL
from tests.test_xl import serving
from translator.cli import cli
from translator.errors import HostError
from translator.hosts.sandbox import Sandbox
from translator.hosts.xenstore import Xenstore
from translator.hotplug.hook import release, started
from translator.planning.plan import XenstoreOp
from translator.saga.state import State, key_of

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from tests.test_apply import Bench

LIVE = PARAVIRTUAL.replace(b"<domain type='xen'>", f"<domain type='xen' id='{DOMID}'>".encode()).replace(
    b"  <devices>",
    b"  <devices>\n    <controller type='usb' index='0' model='piix3-uhci'/>\n    <input type='tablet' bus='usb'/>",
)


def hook(document: bytes, operation: str, host: Bench | None, tmp_path: Path) -> Result:
    words = ["hook", "hvm", operation, "end" if operation == "release" else "begin", "-"]
    words += ["--state", str(tmp_path / "state")]
    if host is not None:
        words += ["--xenstore", host.xenstore, "--sysfs", str(host.sysfs)]
    return CliRunner().invoke(cli, words, input=document)


@pytest.mark.parametrize("name", ["three-faults-at-once", "end-tag-missing"])
def test_prepare_refuses(name: str, tmp_path: Path) -> None:
    case = FIXTURES / "errors" / name / "domain.xml"
    result = hook(case.read_bytes(), "prepare", None, tmp_path)
    assert (result.exit_code, result.stdout) == (3, "")
    assert "error[T" in result.stderr


def test_prepare_lets_pass(tmp_path: Path) -> None:
    result = hook((FIXTURES / "hosts/kvm.xml").read_bytes(), "prepare", None, tmp_path)
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize("operation", ["reconnect", "start", "stopped", "migrate", "restore", "attach", "unheard-of"])
def test_the_rest_is_let_pass_unread(operation: str, tmp_path: Path) -> None:
    result = hook(b"<nonsense", operation, None, tmp_path)
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize("server", [*SERVERS, "sandbox"])
def test_started_and_release(tmp_path: Path, server: str) -> None:
    """Only what is paravirtual is made, once; and when the domain has gone, nothing is left of it."""
    for driver in ("usbback", "usb-storage"):
        (tmp_path / "sys/bus/usb/drivers" / driver).mkdir(parents=True)
    with serving(tmp_path, server) as host:
        before = asyncio.run(host.nodes())
        for _ in range(2):
            result = hook(LIVE, "started", host, tmp_path)
            assert (result.exit_code, result.stdout) == (0, ""), result.stderr
        nodes = asyncio.run(host.nodes())
        assert nodes["/local/domain/0/backend/qusb/8/1/port/2"][0] == "1-9"
        assert nodes["/local/domain/0/backend/vusb/8/2/port/1"][0] == "2-1.4"
        assert "/libxl/8/device/vusb/0" not in nodes
        # it runs still: nothing is touched
        assert hook(LIVE, "release", host, tmp_path).exit_code == 4
        assert asyncio.run(host.nodes()) == nodes

        async def destroy() -> None:
            client = await Xenstore.connect(host.xenstore)
            await client.commit([XenstoreOp("rm", f"/local/domain/{DOMID}")])
            await client.close()

        asyncio.run(destroy())
        assert hook(PARAVIRTUAL, "release", host, tmp_path).exit_code == 0
        gone = f"/local/domain/{DOMID}"
        after = asyncio.run(host.nodes())
        assert after == {path: node for path, node in before.items() if not path.startswith(gone)}
        assert hook(PARAVIRTUAL, "release", host, tmp_path).exit_code == 0


def test_release_waits_for_whoever_is_at_work(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            Sandbox() as sandbox,
            translator.Host(
                xenstore=sandbox.xenstore_socket, sysfs=sandbox.sysfs, state=tmp_path, lock_timeout_s=0
            ) as host,
        ):
            async with State(tmp_path).lock(key_of(DOMID, host.monitor_path("primary", DOMID))):
                with pytest.raises(HostError) as caught:
                    await release(host, DOMID)
            assert caught.value.code == "T504"
            assert await release(host, DOMID) == ()

    run(scenario())


@pytest.mark.parametrize("text", ["", "0\n", "8 9", "\N{ARABIC-INDIC DIGIT EIGHT}", "9" * 5000])
def test_a_damaged_note_is_told_of(tmp_path: Path, text: str) -> None:
    with serving(tmp_path) as host:
        note = tmp_path / "state/hook" / str(translator.load(PARAVIRTUAL).uuid)
        note.parent.mkdir(parents=True)
        note.write_text(text)
        result = hook(PARAVIRTUAL, "release", host, tmp_path)
        assert (result.exit_code, "T507" in result.stderr, note.exists()) == (4, True, True), result


def test_what_usbback_had_goes_back_to_its_driver(tmp_path: Path) -> None:
    document = (
        b"<domain type='xen' id='8'><name>guest</name><os><type>xen</type></os><devices>"
        b"<controller type='usb' index='0' model='xenusb2' ports='2'/>"
        b"<hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>"
        b"</devices></domain>"
    )

    async def scenario() -> None:
        async with Sandbox() as sandbox:
            sandbox.add_host_device("1-1", bus=1, device=2, vendor=1, product=1, drivers=("usb-storage",))
            sandbox.add_guest("guest", domid=DOMID, guest="pv")
            async with translator.Host(xenstore=sandbox.xenstore_socket, sysfs=sandbox.sysfs) as host:
                await started(translator.load(document), host)
                assert host.sysfs.driver_of("1-1:1.0") == "usbback"
                with pytest.raises(HostError, match="domain 8 runs"):
                    await release(host, DOMID)
                view = sandbox.store.begin()
                view.rm(f"/local/domain/{DOMID}")
                sandbox.store.commit(view)
                assert len(await release(host, DOMID)) == 2
                async with asyncio.timeout(10):  # the sandbox's drivers hear of it a moment later
                    while host.sysfs.driver_of("1-1:1.0") != "usb-storage":  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                assert await (await host.xenstore()).tree("/libxl/usbback") == {}
                assert await release(host, DOMID) == ()

    run(scenario())


def test_started_refuses_what_the_host_has_not(tmp_path: Path) -> None:
    with serving(tmp_path) as host:
        before = asyncio.run(host.nodes())
        result = hook(LIVE.replace(b"device='9'", b"device='99'"), "started", host, tmp_path)
        assert result.exit_code == 4
        assert "T411" in result.stderr
        assert asyncio.run(host.nodes()) == before
