"""SCSI on a real QEMU: a running machine gets a host adapter and disks, and lets go of them."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING, Literal

import pytest

import translator
from tests.servers import Qemu, require
from translator.errors import HostError
from translator.hosts.scsi import find
from translator.output import render
from translator.topology import ScsiHost

if TYPE_CHECKING:
    from pathlib import Path

DOMAIN = """
<domain type='kvm'><name>guest</name><memory>1</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <controller type='usb' model='none'/>
    {}
  </devices>
</domain>
"""
ADAPTER = "<controller type='scsi' index='{}' model='{}'/>"
DISK = (
    "<disk type='file'><source file='{}'/><target dev='{}' bus='{}'/>"
    "<address type='drive' controller='{}' bus='0' target='0' unit='{}'/></disk>"
)


def plan_of(*devices: str, coldplug: Literal["auto", "all"] = "auto") -> translator.Plan:
    return translator.plan(translator.load(DOMAIN.format("\n".join(devices)).encode()), coldplug=coldplug)


def seen(topology: translator.Topology) -> set[str]:
    """Return who sits where of family scsi, without what nobody can tell a running QEMU from its document."""
    parts = {f"{one.model} {one.index} at {one.pci}" for one in topology.controllers if one.family == "scsi"}
    devices = (one for one in topology.devices if one.family == "scsi")
    return parts | {f"{one.driver} {one.id} on {one.controller} at {one.port}" for one in devices}


@pytest.mark.parametrize("model", ["lsilogic", "virtio-scsi", "lsisas1078", "am53c974"])
def test_a_disk_is_plugged_into_an_adapter_that_is_plugged(model: str, tmp_path: Path) -> None:
    require(Qemu)
    images = [tmp_path / name for name in ("a.img", "b.img")]
    for image in images:
        image.write_bytes(bytes(1 << 16))
    devices = (
        ADAPTER.format(0, model),
        DISK.format(images[0], "sda", "scsi", 0, 3),
        DISK.format(images[1], "sdb", "scsi", 0, 5),
    )
    one, two = plan_of(*devices[:2]), plan_of(*devices)

    async def scenario(qemu: Qemu) -> None:
        async with translator.Host(qmp=qemu.socket) as host:
            for plan in (one, two, one, two):
                applied = await host.apply(plan, prune=True)
                assert applied.steps
                assert seen(applied.observation.topology) == seen(plan.topology)
                assert (await host.apply(plan, prune=True)).steps == ()

    with Qemu() as qemu:
        asyncio.run(scenario(qemu))


def test_what_qemu_was_started_with_is_seen_as_the_document_has_it(tmp_path: Path) -> None:
    require(Qemu)
    image = tmp_path / "a.img"
    image.write_bytes(bytes(1 << 16))
    units = [("hda", "ide", 0), ("sda", "scsi", 3), ("sdb", "sata", 5), ("fda", "fdc", 1)]
    disks = [
        DISK.format(image, name, bus, 0, unit).replace("<source", "<shareable/><source") for name, bus, unit in units
    ]
    disks[-1] = disks[-1].replace("<disk", "<disk device='floppy'")
    others = "<controller type='pci' index='1' model='pci-bridge'/><controller type='virtio-serial' ports='16'/>"
    devices = (ADAPTER.format(1, "lsisas1068"), others, *disks)
    words = shlex.split(render.qemu_args(plan_of(*devices, coldplug="all")))
    plan = plan_of(*devices)

    async def scenario(qemu: Qemu) -> None:
        async with translator.Host(qmp=qemu.socket) as host:
            assert (await host.apply(plan)).steps == ()

    with Qemu(words=words) as qemu:
        asyncio.run(scenario(qemu))


def test_a_unit_that_two_adapters_reach_is_named_by_one_of_them(tmp_path: Path) -> None:
    for place in ("7:0:0:1", "8:0:0:1"):
        device = tmp_path / "class/scsi_device" / place / "device"
        device.mkdir(parents=True)
        (device / "wwid").write_text("naa.60014054ac780582\n")
    with pytest.raises(HostError, match="2 SCSI devices of the host") as caught:
        find(tmp_path, ScsiHost(wwn="naa.60014054ac780582", lun=1))
    assert (caught.value.code, caught.value.help) == ("T472", "name one by its adapter and address: 7:0:0:1, 8:0:0:1")


def test_a_unit_that_qemu_will_refuse_is_told_of() -> None:
    (told,) = plan_of(ADAPTER.format(0, "lsilogic"), DISK.format("/a.img", "sda", "scsi", 0, 9)).diagnostics
    assert (told.code, told.severity, told.help) == ("T387", "warning", "possible: bus 0, target 0, unit 0 to 7")
