"""What `observe` shows of a running domain: the tree, states, names, and what is not as it should be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import translator
from tests.test_apply import DOMID, bench, host_devices, plan_of, run
from translator.hosts.sandbox import Sandbox
from translator.hosts.sysfs import Sysfs
from translator.hosts.usbids import names_of
from translator.hosts.xenstore import Xenstore
from translator.hotplug.watch import observations
from translator.live.observe import observe
from translator.output import render
from translator.planning.plan import SysfsWrites, XenstoreOp
from translator.topology import HostDevice

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bench"]  # a fixture

LIST = """\
# a list of names
0464  Another, Inc.
\tc52b  Not this one
046d  Logitech, Inc.
\tc52b  Unifying Receiver
\t\t00  an interface
0951  Kingston Technology
C 00  (Defined at Interface level)
\tc52b  nor this
"""


def test_the_tree_with_states_and_names(bench: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with bench(plan) as host:
            await host.apply(plan)
            await host.qemu("device_add", driver="usb-wacom-tablet", id="pen", bus="xenusb-0.0", port="4")
            client = await Xenstore.connect(host.xenstore)
            await client.commit([XenstoreOp("write", "/libxl/8/device/vusb/0/port/1", "")])
            await client.close()
            folder = host.sysfs / "bus/usb/devices/1-9"
            (folder / "product").write_text("Stick\x1b[31m\n")
            async with host.host() as connections:
                seen = await observe(connections, domid=DOMID)
            (tmp_path / "usb.ids").write_text(LIST)
            devices = [one.host for one in seen.topology.devices if one.host]
            names = names_of(devices, Sysfs(host.sysfs), [tmp_path / "none", tmp_path / "usb.ids"])
            lines = render.observed(seen, names).splitlines()
            address = seen.topology.controllers[0].pci
            assert lines == [
                "hvm  xen (hvm, xenfv), domid 8",
                f"├─ controller 0: nec-xhci, emulated USB 3, 4 ports, PCI {address}  [xenusb-0]",
                "│  ├─ port 1: hostdev 1.8 046d:c52b at host port 1-8  [xenusb-1-8]"
                "  (Logitech, Inc. Unifying Receiver; the toolstack has no record of it)",
                "│  └─ port 2: tablet  [input0]",
                "├─ controller 1: qusb2, qusb USB 2, 2 ports, backend in domain 0, frontend initialising"
                "  (backend waiting)",
                "│  └─ port 2: hostdev 1.9 0951:1666 at host port 1-9"
                "  (Kingston Technology Stick\N{REPLACEMENT CHARACTER}[31m)",
                "└─ controller 2: xenusb1, pv USB 1, 3 ports, backend in domain 0, frontend initialising"
                "  (backend waiting)",
                "   └─ port 1: hostdev 2.3 0951:1666 at host port 2-1.4  (Kingston Technology)",
                "on port 4 of controller 0, of no kind that is known here: usb-wacom-tablet",
            ]

    run(scenario())


def test_a_removal_that_is_pending() -> None:
    async def scenario() -> None:
        plan = plan_of("mixed")
        async with Sandbox() as sandbox:
            guest = sandbox.make_host_for(plan)
            async with translator.Host(
                xenstore=sandbox.xenstore_socket, qmp=guest.qmp_socket, sysfs=sandbox.sysfs
            ) as host:
                await host.apply(plan)
                sandbox.backends.stubborn.add(guest.domid)
                sandbox.store.write("/local/domain/0/backend/qusb/8/1/state", "5")
                shown = render.observed(await observe(host, domid=guest.domid), {})
            assert "frontend connected  (backend closing, removal pending in the guest)" in shown

    run(scenario())


def test_it_is_shown_again_when_it_has_changed() -> None:
    async def scenario() -> None:
        async with Sandbox() as sandbox:
            sandbox.add_guest("guest", domid=DOMID)
            async with (
                translator.Host(xenstore=sandbox.xenstore_socket, sysfs=sandbox.sysfs) as watching,
                translator.Host(xenstore=sandbox.xenstore_socket, sysfs=sandbox.sysfs) as host,
            ):
                seen = observations(watching, domid=DOMID)
                assert (await anext(seen)).topology.controllers == ()
                change = asyncio.ensure_future(anext(seen))
                await host.attach("controller:qusb2,ports=2", domid=DOMID)
                while not (found := (await change).topology.controllers):
                    change = asyncio.ensure_future(anext(seen))
                assert [one.model for one in found] == ["qusb2"]
                await seen.aclose()

    run(scenario())


def test_what_a_driver_domain_has_given_is_no_device_of_this_one(tmp_path: Path) -> None:
    """Domain 3 serves a controller; its device at 1-8 is not what domain 0 has lent to somebody at its own 1-8."""
    document = (
        f"<domain type='xen' id='{DOMID}'><name>hvm</name><os><type arch='x86_64' machine='xenfv'>hvm</type></os>"
        "<devices><controller type='usb' model='xenusb2'><backenddomain name='driver'/></controller></devices>"
        "</domain>"
    )

    async def scenario() -> None:
        async with Sandbox() as sandbox:
            sandbox.add_guest("driver", domid=3)
            sandbox.add_guest("hvm", domid=DOMID)
            sysfs = host_devices(tmp_path / "sys")
            driver = sysfs / "bus/usb/devices/1-8:1.0/driver"
            async with translator.Host(xenstore=sandbox.xenstore_socket, sysfs=sysfs) as host:
                await host.apply(translator.plan(translator.load(document.encode())))
                sandbox.store.write(f"/local/domain/3/backend/vusb/{DOMID}/0/port/1", "1-8")
                driver.parent.mkdir(exist_ok=True)
                driver.symlink_to("../../drivers/usbback")
                seen = await observe(host, domid=DOMID)
                assert [one.host for one in seen.topology.devices] == [HostDevice(path="unknown")]
                applied = await host.detach("0:1", domid=DOMID)
                assert not any(one.action.writes for one in applied.steps if isinstance(one.action, SysfsWrites))
                assert driver.readlink().name == "usbback"

    run(scenario())
