"""Every kind of USB device on a real QEMU: from its command line, hot-plugged, and taken back."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

import translator
from tests.conftest import FIXTURES
from tests.servers import Qemu, require
from translator.errors import HostError
from translator.live.observe import observe
from translator.output import render
from translator.registry.models import DEVICE_KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from translator.topology import Topology

# Not here: hostdev, which needs a device of the host that runs the test.
DOCUMENT = """<domain type='qemu'>
  <name>every-kind</name>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <controller type='usb' model='qemu-xhci' ports='8'>
      <alias name='ua-ports'/>
      <address type='pci' domain='0' bus='0' slot='0x06' function='0'/>
    </controller>
    <controller type='ccid' index='0'><address type='usb' bus='0' port='8.1'/></controller>
    <hub type='usb'><address type='usb' bus='0' port='8'/></hub>
    <input type='tablet' bus='usb'/>
    <input type='mouse' bus='usb'/>
    <input type='keyboard' bus='usb'/>
    <smartcard mode='passthrough' type='null'/>
    <disk type='file' device='disk'>
      <driver name='qemu' cache='none' error_policy='enospace' discard='unmap'/>
      <source file='{folder}/disk.img'/>
      <target dev='sda' bus='usb' removable='on'/>
      <serial>A-1</serial>
      <boot order='1'/>
    </disk>
    <disk type='file' device='cdrom'>
      <source file='{folder}/cd.iso'/>
      <target dev='sdb' bus='usb'/>
    </disk>
    <serial type='pty'><target type='usb-serial'/></serial>
    <serial type='file'>
      <source path='{folder}/serial,log' append='on'/>
      <target type='usb-serial'/>
    </serial>
    <redirdev bus='usb' type='unix'><source mode='bind' path='{folder}/redir'/></redirdev>
    <redirdev bus='usb' type='tcp'>
      <source mode='bind' host='127.0.0.1' service='0'/>
      <protocol type='telnet'/>
      <boot order='2'/>
    </redirdev>
    <redirdev bus='usb' type='tcp'>
      <source mode='connect' host='127.0.0.1' service='1'><reconnect enabled='yes' timeout='60'/></source>
    </redirdev>
    <redirdev bus='usb' type='udp'>
      <source mode='bind' host='127.0.0.1' service='0'/>
      <source mode='connect' host='127.0.0.1' service='9'/>
      <log file='{folder}/redir.log' append='off'/>
    </redirdev>
    <redirdev bus='usb' type='pipe'><source path='{folder}/pipe'/></redirdev>
    <redirfilter>
      <usbdev class='0x08' vendor='0x0951' version='2.5' allow='yes'/>
      <usbdev allow='no'/>
    </redirfilter>
    <interface type='user'>
      <mac address='52:54:00:12:34:56'/>
      <model type='usb-net'/>
      <address type='usb' bus='0' port='8.8'/>
    </interface>
    {more}
  </devices>
</domain>
"""
SOUND = "<sound model='usb'/>"


@pytest.fixture
def document(tmp_path: Path) -> Any:
    """Return the document with some more elements, its files in place."""
    require(Qemu)
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    (tmp_path / "cd.iso").write_bytes(bytes(1 << 20))
    for end in ("in", "out"):
        path = tmp_path / f"pipe.{end}"
        path.write_bytes(b"")
    return lambda more="": translator.load(DOCUMENT.format(folder=tmp_path, more=more).encode())


def places(topology: Topology) -> set[tuple[str, str | None, str]]:
    """Return driver, id and port of all that QEMU has."""
    readers = {(one.driver or "", one.id, one.place.port) for one in topology.controllers if one.place}
    return readers | {(one.driver or "", one.id, one.port) for one in topology.devices}


async def backends(host: translator.Host) -> set[str]:
    """Return the names of QEMU's character devices and block nodes, but for the monitor's."""
    monitor = await host.qmp("primary", None)
    chardevs: Any = await monitor.execute("query-chardev")
    nodes: Any = await monitor.execute("query-named-block-nodes")
    names = {one["label"] for one in chardevs} | {one["node-name"] for one in nodes}
    return {name for name in names if name.startswith(("char", "libvirt-"))}


def test_everything_on_the_command_line(document: Any) -> None:
    plan = translator.plan(document(SOUND), coldplug="all")

    async def scenario() -> None:
        with Qemu(words=shlex.split(render.qemu_args(plan))) as qemu:
            async with translator.Host(qmp=qemu.socket) as host:
                assert places((await observe(host, domid=None, like=plan.topology)).topology) == places(plan.topology)
                assert (await host.apply(plan)).steps == ()

    asyncio.run(scenario())


def test_everything_hot_plugged(document: Any) -> None:
    """Sound cannot be: its backend has to be there from the start."""
    plan = translator.plan(document(SOUND))
    launched = [step.id for step in plan.steps if step.stage == "launch"]

    async def scenario() -> None:
        with Qemu(words=shlex.split(render.qemu_args(plan))) as qemu:
            async with translator.Host(qmp=qemu.socket) as host:
                applied = await host.apply(plan)
                assert [step.id for step in applied.steps] == [one.id for one in plan.steps if one.id not in launched]
                assert places(applied.observation.topology) == places(plan.topology)
                assert (await host.apply(plan)).steps == ()

    asyncio.run(scenario())


def test_what_was_hot_plugged_is_taken_back_with_its_backends(document: Any) -> None:
    plan = translator.plan(
        document(
            "<serial type='file'><source path='/nowhere/log'/><target type='usb-serial'/></serial>",
        )
    )

    async def scenario() -> None:
        # a controller leaves only when its guest lets it go, and this guest is paused
        with Qemu(words=plan.steps[0].launch_words) as qemu:
            async with translator.Host(qmp=qemu.socket) as host:
                with pytest.raises(HostError, match=r"step device:usb:0:\S+:chardev failed") as caught:
                    await host.apply(plan)
                assert caught.value.code == "T501"
                assert places((await observe(host, domid=None, like=plan.topology)).topology) == set()
                assert await backends(host) == set()

    asyncio.run(scenario())


def test_every_kind_has_a_plan() -> None:
    text = "".join(path.read_text() for path in (FIXTURES / "plans").glob("*/plan.json"))
    plans = [json.loads(part) for part in text.replace("}\n{", "}\n\0{").split("\0")]
    planned = {device["kind"] for plan in plans for device in plan["devices"]}
    readers = {controller["family"] for plan in plans for controller in plan["controllers"]}
    assert set(DEVICE_KINDS) - planned - readers == set(), "add fixtures/plans/<claim>/domain.xml with this kind"
