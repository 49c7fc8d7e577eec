"""Properties by `<qemu:override>`: what a document gives past the schema's elements reaches QEMU as it is meant."""

from __future__ import annotations

import asyncio
import shlex
import time
from typing import TYPE_CHECKING

import pytest

import translator
from tests.conftest import FIXTURES
from tests.servers import Qemu, require
from translator.document.normalize import normalize
from translator.hosts.sandbox import Sandbox
from translator.live.drivers import Property
from translator.output import render

if TYPE_CHECKING:
    from pathlib import Path

CASE = FIXTURES / "plans/kvm-overridden-properties/domain.xml"


def test_a_real_qemu_takes_every_value(tmp_path: Path) -> None:
    require(Qemu)
    image = tmp_path / "stick.img"
    image.write_bytes(bytes(1 << 20))
    plan = translator.plan(translator.load(CASE.read_bytes().replace(b"/srv/stick.img", str(image).encode())))
    expected = {
        ("usb", "slots"): 32,
        ("usb", "msi"): "off",
        ("ua-pointer", "usb_version"): 1,
        ("ua-pointer", "msos-desc"): False,
        ("usb-disk0", "removable"): False,
        ("usb-disk0", "logical_block_size"): 4096,
        ("usb-disk0", "physical_block_size"): 4096,
        ("usb-disk0", "werror"): "stop",
    }

    async def scenario(words: list[str]) -> None:
        with Qemu(words=words) as qemu:
            async with translator.Host(qmp=qemu.socket) as host:
                await host.apply(plan)
                monitor = await host.qmp("primary", None)
                for (id, name), value in expected.items():
                    got = await monitor.execute("qom-get", {"path": f"/machine/peripheral/{id}", "property": name})
                    assert (type(got), got) == (type(value), value), f"{id}.{name}"

    asyncio.run(scenario([]))
    launched = translator.plan(
        translator.load(CASE.read_bytes().replace(b"/srv/stick.img", str(image).encode())), coldplug="all"
    )
    asyncio.run(scenario(shlex.split(render.qemu_args(launched))))


RUNNING = """<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>running</name>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <controller type='usb' index='0' model='nec-xhci'/>
    <controller type='usb' index='1' model='nec-xhci'/>
    <input type='tablet' bus='usb'><alias name='ua-pointer'/><address type='usb' bus='0' port='1'/></input>
  </devices>
  <qemu:override>
    <qemu:device alias='{alias}'>
      <qemu:frontend><qemu:property name='{name}' type='unsigned' value='{value}'/></qemu:frontend>
    </qemu:device>
  </qemu:override>
</domain>
"""


@pytest.mark.parametrize(
    ("alias", "name", "before", "after", "subject"),
    [
        ("usb1", "slots", 32, 16, "controller:usb:1"),
        ("ua-pointer", "usb_version", 1, 2, "device:usb:0:1"),
    ],
    ids=["controller", "device"],
)
def test_a_property_that_was_changed_is_told_and_replace_brings_it(
    alias: str, name: str, before: int, after: int, subject: str
) -> None:
    """QEMU sets it when a device comes, and not afterwards."""
    had, wanted = (
        translator.plan(translator.load(RUNNING.format(alias=alias, name=name, value=value).encode()))
        for value in (before, after)
    )

    async def scenario(socket: str, *, replaced: bool) -> None:
        async with translator.Host(qmp=socket) as host:
            await host.apply(had)
            with pytest.raises(translator.HostError) as caught:
                await host.apply(wanted)
            assert caught.value.code == "T473"
            assert (
                f"{subject} on the host has {name} {before}, and the document wants {after}" in caught.value.message
            )
            assert "--replace" in (caught.value.help or "")
            assert (await host.apply(had)).steps == ()
            if not replaced:
                return
            applied = await host.apply(wanted, replace=True)
            assert {step.subject for step in applied.steps} == {subject}
            assert (await host.apply(wanted)).steps == ()
            monitor = await host.qmp("primary", None)
            got = await monitor.execute("qom-get", {"path": f"/machine/peripheral/{alias}", "property": name})
            assert got == after

    async def embedded() -> None:
        async with Sandbox() as sandbox:
            await scenario(str(sandbox.make_host_for(had).qmp_socket), replaced=True)

    asyncio.run(embedded())
    require(Qemu)
    with Qemu() as qemu:
        # this guest is paused, and lets no PCI controller go
        asyncio.run(scenario(qemu.socket, replaced=subject.startswith("device")))


def test_normalize_leaves_overrides_alone() -> None:
    data = CASE.read_bytes()
    normal = normalize(data)
    begin, end = data.index(b"  <qemu:override>"), data.index(b"</domain>")
    assert data[begin:end] in normal
    assert [step.action for step in translator.plan(translator.load(normal)).steps] == [
        step.action for step in translator.plan(translator.load(data)).steps
    ]


def test_what_only_a_qemu_knows_is_taken_on_its_word() -> None:
    data = CASE.read_bytes().replace(b"name='slots'", b"name='lanes'")
    with pytest.raises(translator.DocumentError, match=r"T376.*no property 'lanes' that is known here"):
        translator.plan(translator.load(data))
    probed = {"nec-usb-xhci": {"lanes": Property("uint8", 1), "map": Property("list")}}
    plan = translator.plan(translator.load(data), probed=probed)
    assert '"lanes": 32' in plan.to_json()
    for wrong, message in (
        (data.replace(b"value='32'", b"value='256'"), "T377.*it takes 0 to 255"),
        (data.replace(b"lanes", b"tracks"), "T376.*has no property 'tracks'\n"),
        (data.replace(b"lanes", b"map"), "T376"),  # of a type that no document can write
    ):
        with pytest.raises(translator.DocumentError, match=message):
            translator.plan(translator.load(wrong), probed=probed)


@pytest.mark.parametrize(
    "alias", ["video0", "net0", "input2", "hostdev0", "pci.3", "scsi0-0-0-1", "virtio-disk12", "ua-card", "balloon0"]
)
def test_what_is_no_device_of_ours_is_left_to_others(alias: str) -> None:
    text = CASE.read_text().replace("alias='video0'", f"alias='{alias}'")
    text = text.replace(
        "<video>",
        "<interface type='user'/><memballoon model='virtio'/>"
        "<hostdev mode='subsystem' type='pci'><source><address bus='5'/></source></hostdev>"
        "<sound model='ich9'><alias name='ua-card'/></sound><video>",
    )
    plan = translator.plan(translator.load(text.encode()))
    assert plan.untranslated[-1].element == "/domain/qemu:override[1]/qemu:device[4]"


@pytest.mark.parametrize("alias", ["net1", "input9", "video7", "usb1", "hub0", "ua-none", "sausage", "usb-disk1"])
def test_an_alias_that_nothing_has_is_refused(alias: str) -> None:
    text = CASE.read_text().replace("alias='video0'", f"alias='{alias}'")
    with pytest.raises(translator.DocumentError, match=f"T375.*no device has the alias '{alias}'"):
        translator.plan(translator.load(text.encode()))


def test_a_placeholder_cannot_be_smuggled_in() -> None:
    text = CASE.read_text().replace("value='stop'", "value='${domid}'")
    with pytest.raises(translator.DocumentError, match="T319"):
        translator.plan(translator.load(text.encode()))


def test_elements_of_other_vocabularies_are_passed_over() -> None:
    """Also what has the name of one that is read, in one of theirs."""
    text = CASE.read_text().replace("</domain>", "<f:x xmlns:f='urn:x'><controller/><override/></f:x></domain>")
    assert translator.plan(translator.load(text.encode())).steps


def test_many_faults_do_not_take_long() -> None:
    many = "".join(f"<qemu:property name='slot{number}' type='remove'/>" for number in range(50_000))
    text = CASE.read_text().replace("<qemu:property name='slots' type='unsigned' value='32'/>", many)
    began = time.process_time()
    with pytest.raises(translator.DocumentError) as caught:
        translator.plan(translator.load(text.encode()))
    assert time.process_time() - began < 2
    assert [fault.code for fault in caught.value.diagnostics[-2:]] == ["T376", "T108"]
