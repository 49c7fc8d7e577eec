"""Every family on a running QEMU, the real one and the embedded one: what comes, what goes, and what cannot.

The two are told apart by nothing; USB's own scenarios are in test_attach.py.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

import translator
from tests import qemu_drivers
from tests.servers import Qemu, require
from translator.document.save import add, remove
from translator.errors import DocumentError, HostError
from translator.families import by_name
from translator.hosts.qmp import Qmp
from translator.hosts.sandbox import Sandbox
from translator.hosts.sandbox.drivers import BOARDS, DRIVERS
from translator.hotplug import watch
from translator.live.observe import observe
from translator.planning.subjects import parts_of
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Start = Callable[..., AbstractAsyncContextManager[translator.Host]]
    Properties = Mapping[str, Any]

SOURCE = "<source><adapter name='scsi_host8'/><address bus='0' target='2' unit='1'/></source>"
HOSTDEV = f"<hostdev mode='subsystem' type='scsi'>{SOURCE}</hostdev>"
CHANNEL = "<channel type='null'><target type='virtio' name='org.{}'/></channel>"
CONSOLE = "<console type='null'><target type='virtio'/></console>"
CARD = "<smartcard mode='passthrough' type='null'/>"
ADAPTER: Properties = {"driver": "virtio-scsi-pci", "id": "scsi0"}
SERIAL: Properties = {"driver": "virtio-serial-pci", "id": "virtio-serial0", "max_ports": 3}
XHCI: Properties = {"driver": "qemu-xhci", "id": "usb", "p2": 4, "p3": 4}


@pytest.fixture(params=["qemu", "sandbox"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Return how to start a QEMU: `async with start(ADAPTER, machine="q35") as host`."""
    device = tmp_path / "sys/class/scsi_device/8:0:2:1/device"
    (device / "scsi_generic/sg3").mkdir(parents=True)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.img").write_bytes(bytes(1 << 16))

    @asynccontextmanager
    async def real(*devices: Properties, machine: str = "pc") -> AsyncIterator[translator.Host]:
        require(Qemu)
        with Qemu(*devices, machine=machine) as qemu:
            async with translator.Host(qmp=qemu.socket, sysfs=tmp_path / "sys", timeout_s=5) as host:
                yield host

    @asynccontextmanager
    async def embedded(*devices: Properties, machine: Any = "pc") -> AsyncIterator[translator.Host]:
        async with Sandbox() as sandbox:
            guest = sandbox.add_guest("guest", launch=devices, guest_cooperates=False, board=machine)
            async with translator.Host(qmp=guest.qmp_socket, sysfs=tmp_path / "sys", timeout_s=5) as host:
                yield host

    return real if request.param == "qemu" else embedded


@pytest.fixture
def disk(tmp_path: Path) -> Callable[..., str]:
    """Return how to spell a disk: `disk("a")`, `disk("a", "hda", "ide")`, `disk("a", place=(0, 5))`."""

    def spell(name: str, target: str = "sda", bus: str = "scsi", place: tuple[int, int] | None = None) -> str:
        address = f"<address type='drive' controller='{place[0]}' unit='{place[1]}'/>" if place else ""
        device = "floppy" if bus == "fdc" else "disk"
        return (
            f"<disk type='file' device='{device}'><source file='{tmp_path}/{name}.img'/>"
            f"<target dev='{target}' bus='{bus}'/>{address}</disk>"
        )

    return spell


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


async def held(host: translator.Host) -> set[str]:
    """Return what QEMU has: devices, block nodes and character devices."""
    monitor = await host.qmp(PRIMARY, None)
    names = {device.id or device.path for device in await monitor.devices()}
    return names | set(await monitor.backends("blockdev-add")) | set(await monitor.backends("chardev-add"))


class Case(NamedTuple):
    """What comes, the steps that bring it, and the words and steps by which it goes; `there` was there before."""

    comes: str
    steps: tuple[str, ...]
    goes: str
    gone: tuple[str, ...]
    there: tuple[Properties, ...]


def cases(disk: Callable[..., str]) -> dict[str, Case]:
    node = ("remove", "remove-format", "remove-storage")
    return {
        "a disk by its letters": Case(
            disk("a", "sdb"),
            tuple(f"device:scsi:0:0.0.1{part}" for part in (":storage", ":format", "")),
            disk("a", "sdb"),
            tuple(f"device:scsi:0:0.0.1:{part}" for part in node),
            (ADAPTER,),
        ),
        "a disk by its address": Case(
            disk("a", place=(0, 5)),
            tuple(f"device:scsi:0:0.0.5{part}" for part in (":storage", ":format", "")),
            "device:scsi:0:0.0.5",
            tuple(f"device:scsi:0:0.0.5:{part}" for part in node),
            (ADAPTER,),
        ),
        "a channel": Case(
            CHANNEL.format("x"),
            ("device:virtio-serial:0:0.1:chardev", "device:virtio-serial:0:0.1"),
            CHANNEL.format("x"),
            ("device:virtio-serial:0:0.1:remove", "device:virtio-serial:0:0.1:remove-chardev"),
            (SERIAL,),
        ),
        "a console": Case(
            CONSOLE,
            ("device:virtio-serial:0:0.0:chardev", "device:virtio-serial:0:0.0"),
            "console0",
            ("device:virtio-serial:0:0.0:remove", "device:virtio-serial:0:0.0:remove-chardev"),
            (SERIAL,),
        ),
        "a reader": Case(
            "<controller type='ccid' index='3'/>",
            ("controller:ccid:3",),
            "controller:ccid:3",
            ("controller:ccid:3:remove",),
            (XHCI,),
        ),
        "a card and the reader that it needs": Case(
            CARD,
            ("controller:ccid:0", "device:ccid:0:0:chardev", "device:ccid:0:0"),
            "ccid0",
            ("device:ccid:0:0:remove", "controller:ccid:0:remove", "device:ccid:0:0:remove-chardev"),
            (XHCI,),
        ),
    }


NAMES = list(cases(lambda *_, **__: ""))


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_goes_again(start: Start, disk: Callable[..., str], name: str) -> None:
    case = cases(disk)[name]

    async def scenario() -> None:
        async with start(*case.there) as host:
            before = await held(host)
            for _ in range(2):
                dry = await host.attach(case.comes.encode(), dry_run=True)
                assert await held(host) == before
                assert tuple(step.id for step in dry.steps) == case.steps
                applied = await host.attach(case.comes.encode())
                assert applied.steps == dry.steps
                seen = await host.observe()
                assert case.steps[-1] in {
                    f"device:{one.family}:{one.controller}:{one.port}" for one in seen.devices
                } | {f"controller:{one.family}:{one.index}" for one in seen.controllers}
                word = case.goes.encode() if case.goes.startswith("<") else case.goes
                assert tuple(step.id for step in (await host.detach(word)).steps) == case.gone
                assert await held(host) == before

    run(scenario())


def test_a_controller_comes_along_and_takes_the_next(start: Start, disk: Callable[..., str]) -> None:
    async def scenario() -> None:
        async with start() as host:
            with pytest.raises(HostError, match="no scsi controller of the domain has room"):
                await host.attach(disk("a").encode(), auto_controller=False)
            await host.attach(disk("a").encode(), CHANNEL.format("x").encode(), CONSOLE.encode())
            await host.attach(b"<controller type='scsi' model='virtio-scsi'/><controller type='sata'/>")
            await host.attach(disk("b", place=(1, 3)).encode(), CHANNEL.format("y").encode())
            seen = await host.observe()
            assert [(one.family, one.index, one.model) for one in seen.controllers] == [
                ("scsi", 0, "lsilogic"),
                ("scsi", 1, "virtio-scsi"),
                ("sata", 0, "ahci"),
                ("virtio-serial", 0, "virtio"),
            ]
            assert [(one.id, one.controller, one.port) for one in seen.devices] == [
                ("scsi0-0-0", 0, "0.0.0"),
                ("scsi1-0-0-3", 1, "0.0.3"),
                ("console0", 0, "0.0"),
                ("channel0", 0, "0.1"),
                ("channel1", 0, "0.2"),
            ]
            attached = await held(host)
            # a PCI controller leaves with the guest's help only, which none gives here: all is as it was
            host.timeout_s = 0.5
            with pytest.raises(HostError, match="removal pending in the guest"):
                await host.detach(b"<controller type='scsi' index='1'/>")
            assert await held(host) == attached

    run(scenario())


def test_on_q35_a_controller_takes_a_free_root_port(start: Start, disk: Callable[..., str]) -> None:
    ports = [
        {"driver": "pcie-root-port", "id": f"pci.{n}", "bus": "pcie.0", "addr": hex(n + 1), "port": n, "chassis": n}
        for n in (1, 2, 3)
    ]

    async def scenario() -> None:
        async with start(*ports, {**XHCI, "bus": "pci.2", "addr": "0x0"}, machine="q35") as host:
            with pytest.raises(HostError, match=r"lsilogic\), which is none of PCI Express") as caught:
                await host.attach(disk("a").encode())
            assert caught.value.code == "T481"
            await host.attach(b"<controller type='scsi' model='virtio-scsi'/>")
            await host.attach(disk("a").encode(), b"<controller type='usb' model='qemu-xhci'/>", b"<hub type='usb'/>")
            seen = await host.observe()
            assert {(one.family, one.index): one.pci for one in seen.controllers if one.family != "pci"} == {
                ("usb", 0): "0000:02:00.0",
                ("usb", 1): "0000:03:00.0",
                ("scsi", 0): "0000:01:00.0",
            }
            with pytest.raises(HostError, match="no PCI Express root port is free"):
                await host.attach(CONSOLE.encode())

    run(scenario())


def test_what_cannot_come_changes_nothing(start: Start, disk: Callable[..., str]) -> None:
    refused: dict[str, tuple[str, str, str]] = {
        "a drive of the chipset's": (disk("c", "hda", "ide"), "T480", "a disk on bus 'ide' cannot come to a running"),
        "a SATA drive": (disk("c", "sdq", "sata"), "T480", "a disk on bus 'sata' cannot"),
        "a floppy": (disk("c", "fda", "fdc"), "T480", "a disk on bus 'fdc' cannot"),
        "an IDE controller": ("<controller type='ide' index='1'/>", "T480", "which has it from its start or not at"),
        "a bus": ("<controller type='pci' model='pci-bridge'/>", "T480", "a pci controller of model 'pci-bridge'"),
        "the root": ("<controller type='pci' model='pci-root'/>", "T480", "a pci controller of model 'pci-root'"),
        "a floppy controller": ("<controller type='fdc'/>", "T480", "a fdc controller"),
        "ISA": ("<controller type='isa'/>", "T480", "a isa controller"),
        "a model that QEMU has not": ("<controller type='scsi' model='buslogic'/>", "T386", "it is VMware's"),
        "an unknown model": ("<controller type='scsi' model='lsi'/>", "T301", "unknown model 'lsi' of a scsi"),
        "a taken index": ("<controller type='scsi' index='0'/>", "T414", "the domain has a scsi controller 0"),
        "a taken unit": (disk("c"), "T414", r"unit 0\.0\.0 of scsi controller 0 is held by a disk \[scsi0-0-0-0\]"),
        "two on a unit": (disk("b", "sdb") + disk("c", "sdb"), "", "sdb|unit 0.0.1"),
        "an image of another kind": (
            "<disk type='network'><source protocol='nbd' name='x'/><target dev='sdb' bus='scsi'/></disk>",
            "T482",
            "nothing can be made of this disk",
        ),
        "a channel without a path": (
            "<channel type='unix'><target type='virtio' name='x'/></channel>",
            "T482",
            "nothing can be made of this channel",
        ),
        "a port that is not there": (
            CHANNEL.format("z").replace("</c", "<address type='virtio-serial' port='9'/></c"),
            "T302",
            "there is no port 9",
        ),
        "no family's": ("<interface type='bridge'/>", "T441", "<interface> is nothing that can be attached here"),
        "no such SCSI device": (
            HOSTDEV.replace("unit='1'", "unit='4'"),
            "T470",
            "the host has no SCSI device 8:0:2:4",
        ),
    }

    async def scenario() -> None:
        async with start(ADAPTER, SERIAL) as host:
            await host.attach(disk("a").encode())
            before = await held(host)
            for claim, (text, code, message) in refused.items():
                with pytest.raises((HostError, DocumentError), match=message) as caught:
                    await host.attach(text.encode())
                assert not code or caught.value.diagnostics[0].code == code, claim
                assert await held(host) == before, claim
            missing = {
                disk("b", "sda"): "a disk with .*b.img",  # it is where the letters say, and not this one
                CHANNEL.format("x"): "channel org.x",
                "<controller type='scsi' index='4'/>": "scsi controller 4",
            }
            for text, message in missing.items():
                with pytest.raises(HostError, match=message) as caught:
                    await host.detach(text.encode())
                assert caught.value.diagnostics[0].code == "T438"
                assert await held(host) == before

    run(scenario())


def test_a_scsi_device_of_the_host_is_given_once(tmp_path: Path) -> None:
    """In the sandbox alone: a real QEMU wants a real device."""
    generic = tmp_path / "sys/class/scsi_device/8:0:2:1/device/scsi_generic/sg3"
    generic.mkdir(parents=True)

    async def scenario() -> None:
        async with Sandbox() as sandbox:
            guest = sandbox.add_guest("guest", launch=[ADAPTER])
            async with translator.Host(qmp=guest.qmp_socket, sysfs=tmp_path / "sys") as host:
                await host.attach(HOSTDEV.encode())
                assert [(one.id, one.port) for one in (await host.observe()).devices] == [("hostdev0", "0.0.0")]
                for again in (HOSTDEV, HOSTDEV.replace("</h", "<address type='drive' unit='3'/></h")):
                    with pytest.raises(HostError, match="SCSI device 8:0:2:1 is attached already") as caught:
                        await host.attach(again.encode())
                    assert caught.value.code == "T437"
                await host.detach(HOSTDEV.encode())
                assert (await host.observe()).devices == ()

    run(scenario())


def test_the_document_follows(start: Start, disk: Callable[..., str]) -> None:
    document = (
        b"<domain type='kvm'><name>guest</name>"
        b"<os><type arch='x86_64' machine='pc'>hvm</type><boot dev='network'/></os><devices>\n"
        b"  <controller type='usb' model='none'/>\n"
        b"  <controller type='scsi' model='virtio-scsi'/>\n"
        b"</devices></domain>\n"
    )

    async def scenario() -> None:
        from translator.hotplug.attach import Given, attach, detach

        async with start(ADAPTER) as host:
            saved = document
            fragments = [Given(disk("a", "sdc").encode(), "a.xml"), Given(CHANNEL.format("x").encode(), "x.xml")]

            def follow(edit: Callable[..., bytes]) -> Callable[[Any], None]:
                def before(wanted: Any) -> None:
                    nonlocal saved
                    saved = edit(saved, wanted)

                return before

            await attach(host, fragments, domid=None, before=follow(add))
            seen = await observe(host, domid=None)
            plan = translator.plan(translator.load(saved))
            wanted = parts_of(plan.topology)
            assert {id: part.id for id, part in parts_of(seen.topology).items()} == {
                id: part.id for id, part in wanted.items() if not part.implicit and part.family != "usb"
            }
            assert (await host.apply(plan, dry_run=True)).steps == ()
            await detach(host, [Given("scsi0-0-0-2"), Given("channel0")], domid=None, before=follow(remove))
            assert b"disk" not in saved
            assert b"channel" not in saved

    run(scenario())


def test_a_host_that_has_nothing_to_do_leaves_the_monitor_to_others(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that waits for a change hold it; while another client does, it is patient."""
    monkeypatch.setattr(watch, "LOOK_S", 0.05)

    async def scenario() -> None:
        async with start(XHCI) as host:
            path = host.qmp_paths["primary"]
            host.timeout_s = 0.5
            await host.attach("tablet")
            await (await Qmp.connect(path, timeout_s=2)).close()
            seen = watch.observations(host, domid=None)
            assert [one.kind for one in (await anext(seen)).topology.devices] == ["tablet"]
            change = asyncio.ensure_future(anext(seen))
            other = await Qmp.connect(path, timeout_s=5)
            await other.execute("device_add", {"driver": "usb-mouse", "id": "input1", "port": "2"})
            with pytest.raises(HostError, match="the monitor is busy"):
                await host.observe()
            assert not change.done()
            await other.close()
            assert sorted(one.kind for one in (await change).topology.devices) == ["mouse", "tablet"]
            await seen.aclose()

    run(scenario())


# The embedded QEMU speaks as the real one does

WORDS: Sequence[tuple[Properties, str]] = (
    ({"driver": "scsi-cd", "bus": "scsi0.0", "scsi-id": 1, "lun": 2}, ""),
    ({"driver": "scsi-cd", "id": "b", "bus": "scsi0.0", "scsi-id": 1, "lun": 2}, "lun already used by '(null)'"),
    ({"driver": "scsi-cd", "id": "b", "bus": "scsi0.0", "channel": 1}, "bad scsi channel id: 1"),
    ({"driver": "scsi-cd", "id": "b", "bus": "scsi0.0", "scsi-id": 256}, "bad scsi device id: 256"),
    ({"driver": "scsi-cd", "id": "b", "bus": "scsi0.0", "lun": 16384}, "bad scsi device lun: 16384"),
    ({"driver": "scsi-hd", "id": "b", "bus": "scsi0.0"}, "drive property not set"),
    (
        {"driver": "scsi-cd", "id": "b", "bus": "virtio-serial0.0"},
        "Device 'scsi-cd' can't go on virtio-serial-bus bus",
    ),
    ({"driver": "virtserialport", "id": "p", "bus": "scsi0.0"}, "Device 'virtserialport' can't go on SCSI bus"),
    (
        {"driver": "virtserialport", "id": "p", "nr": 0},
        "Port number 0 on virtio-serial devices reserved for virtconsole devices for backward compatibility.",
    ),
    ({"driver": "virtconsole", "id": "con"}, ""),
    ({"driver": "virtconsole", "id": "p", "nr": 0}, "virtio-serial-bus: A port already exists at id 0"),
    ({"driver": "virtserialport", "id": "one", "name": "x"}, ""),
    ({"driver": "virtserialport", "id": "p", "name": "x"}, "virtio-serial-bus: A port already exists by name x"),
    (
        {"driver": "virtserialport", "id": "p", "nr": 3},
        "virtio-serial-bus: Out-of-range port id specified, max. allowed: 2",
    ),
    ({"driver": "ide-hd", "id": "i", "bus": "ide.0"}, "Bus 'ide.0' does not support hotplugging"),
    ({"driver": "floppy", "id": "f"}, "Bus 'floppy-bus.0' does not support hotplugging"),
    ({"driver": "isa-fdc", "id": "f"}, "Bus 'isa.0' does not support hotplugging"),
    ({"driver": "piix3-ide", "id": "i"}, "Parameter 'driver' expects a pluggable device type"),
    ({"driver": "lsi", "id": "scsi1"}, ""),
)


def test_units_and_words(start: Start) -> None:
    async def said(monitor: Qmp, arguments: Properties) -> str:
        try:
            await monitor.execute("device_add", {**arguments})
        except HostError as error:
            return error.message.partition(": ")[2]
        return ""

    async def scenario() -> None:
        async with start(ADAPTER, SERIAL) as host:
            monitor = await host.qmp(PRIMARY, None)
            assert [await said(monitor, arguments) for arguments, _ in WORDS] == [words for _, words in WORDS]
            asked = {
                "scsi-cd": ("channel", "scsi-id", "lun"),
                "virtconsole": ("nr",),
                "virtserialport": ("nr", "name"),
            }
            found = await monitor.devices(asked)
            assert [(one.id, one.driver, one.parent_bus, one.properties) for one in found] == [
                ("con", "virtconsole", f"{AT}virtio-serial0/virtio-backend/virtio-serial0.0", {"nr": 0}),
                (
                    "one",
                    "virtserialport",
                    f"{AT}virtio-serial0/virtio-backend/virtio-serial0.0",
                    {"nr": 1, "name": "x"},
                ),
                ("scsi0", "virtio-scsi-pci", "/machine/i440fx/pci.0", {}),
                ("scsi1", "lsi53c895a", "/machine/i440fx/pci.0", {}),
                ("virtio-serial0", "virtio-serial-pci", "/machine/i440fx/pci.0", {}),
                (None, "scsi-cd", f"{AT}scsi0/virtio-backend/scsi0.0", {"channel": 0, "scsi-id": 1, "lun": 2}),
            ]

    run(scenario())


AT = "/machine/peripheral/"


def test_the_embedded_qemus_table_is_the_real_ones_word() -> None:
    """Names, busses and properties; the units are in `test_units_and_words`, and in the making of the table."""
    require(Qemu)
    installed = qemu_drivers.installed()
    assert {name for name in DRIVERS if DRIVERS[name].listed} == set(qemu_drivers.named())
    assert BOARDS.keys() == {"pc", "q35"}
    for model in by_name()["scsi"].rows:  # type: ignore[attr-defined]  # a family with units
        if model.own_driver in DRIVERS:
            (bus,) = (one for one in DRIVERS[model.own_driver].makes if one.kind == "SCSI")
            # an LSI's unit is a target of QEMU's
            assert (tuple(model.limits.values()) if model.name != "lsilogic" else (0, 7, 0)) == bus.units, model.name

    async def scenario() -> None:
        with Qemu() as qemu:
            monitor = await Qmp.connect(qemu.socket)
            for name, row in DRIVERS.items():
                if row.listed:
                    assert row.bus == installed[name][0]
                    said: Any = await monitor.execute("device-list-properties", {"typename": name})
                    told = [
                        {key: value for key, value in msgspec.to_builtins(one).items() if value is not None}
                        for one in row.properties
                    ]
                    assert [one | {"default": one.pop("default-value", None)} for one in said] == [
                        {"default": None} | one for one in told
                    ], name
            await monitor.close()

    run(scenario())
