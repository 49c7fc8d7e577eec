"""What libvirt asks its hooks at each turn of a domain's life, and our part in it.

    prepare     the document is checked; a refusal keeps the domain from being started
    started     a Xen domain gets its paravirtual USB controllers and devices, where libvirt has not made them
    release     what is left of these below a domid that is nobody's any more goes
    all others  nothing; a refusal of `reconnect` would end a guest because libvirt was started anew

A hook must not call libvirt, which waits for it. Source: https://libvirt.org/hooks.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from translator.errors import HostError
from translator.layouts import USBBACK
from translator.layouts.libxl import backend_roots
from translator.live.apply import work_on
from translator.live.binding import own_drivers
from translator.planning.placeholders import node_name
from translator.planning.plan import Plan, XenstoreOp
from translator.topology import PARAVIRTUAL_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.document.domain import Domain
    from translator.hosts.sysfs import Sysfs
    from translator.live.host import Host
    from translator.saga.outcome import Applied
    from translator.topology import HostDevice, Layout


def paravirtual(plan: Plan) -> Plan:
    """Return the part of a plan that is about paravirtual controllers and what sits on them."""
    topology = plan.topology
    controllers = tuple(one for one in topology.controllers if one.type in PARAVIRTUAL_TYPES)
    served = {("usb", one.index) for one in controllers}
    devices = tuple(one for one in topology.devices if (one.family, one.controller) in served)
    subjects = {f"controller:usb:{one.index}" for one in controllers}
    subjects |= {f"device:usb:{one.controller}:{one.port}" for one in devices}
    return msgspec.structs.replace(
        plan,
        topology=msgspec.structs.replace(topology, controllers=controllers, devices=devices),
        steps=tuple(step for step in plan.steps if step.subject in subjects),
    )


async def started(domain: Domain, host: Host, layout: Layout | None = None) -> Applied | None:
    """Give a Xen domain that has just been started what libvirt does not; None where that is nothing.

    Raises:
        DocumentError, HostError: as `translator.plan` and `Host.apply`.
    """
    import translator

    if domain.hypervisor != "xen" or domain.domid is None:
        return None
    plan = paravirtual(translator.plan(domain, layout=layout, usbback=host.sysfs.has_driver("usbback")))
    return await host.apply(plan) if plan.topology.controllers else None


async def release(host: Host, domid: int) -> tuple[str, ...]:
    """Remove what is left of a domain that has gone, and return the directories that were there.

    Host devices that the kernel's usbback had for it go back to their own drivers first.

    Raises:
        HostError: the host cannot be reached; T404, the domid is somebody's; T413, a driver refused its device;
            T504, somebody is at work on it.
    """
    async with work_on(host, domid) as work:
        nodes = work.nodes
        assert nodes is not None, "it has a domid"
        if await nodes.read(f"/local/domain/{domid}/vm") is not None:
            raise HostError("T404", f"domain {domid} runs, and has not been released", "see `xl list`")
        backends = backend_roots(domid)
        paths = (*backends, f"/libxl/{domid}/device/vusb")
        left = [path for path in paths if await nodes.read(path) is not None]
        if not left:
            return ()
        given = set((await nodes.tree(backends[0])).values())
        lent = [device for device in host.sysfs.usb_devices() if device.path in given]
        notes = await nodes.tree(USBBACK)
        for device in lent:
            give_back(device, host.sysfs, notes)
        noted = [f"{USBBACK}/{node_name(str(device.path))}" for device in lent]
        await (await host.xenstore()).commit(
            [
                XenstoreOp(op="expect-absent", path=f"/local/domain/{domid}/vm", why=f"domain {domid} has gone"),
                *(XenstoreOp(op="rm", path=path) for path in (*left, *noted)),
                *(XenstoreOp(op="sweep", path=path.rpartition("/")[0]) for path in (*left, *noted)),
                XenstoreOp(op="sweep", path=f"/libxl/{domid}"),
            ],
            nodes,
        )
        return tuple(left)


def give_back(device: HostDevice, sysfs: Sysfs, notes: Mapping[str, str]) -> None:
    """Bind what usbback has of the device to its own drivers again.

    Args:
        notes: the nodes below `USBBACK`.
    """
    drivers = "/sys/bus/usb/drivers"
    for interface, driver in own_drivers(device, sysfs, notes).items():
        if sysfs.driver_of(interface) == "usbback":
            sysfs.write(f"{drivers}/usbback/unbind", interface)
            if driver is not None:
                sysfs.write(f"{drivers}/{driver}/bind", interface)
