"""A plan gets the facts of the host that it is carried out on: domids, and which host device a selector names."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import msgspec

from translator.errors import Diagnostic, HostError
from translator.families.usb.speeds import mismatches
from translator.hosts.scsi import ScsiFacts, find
from translator.layouts import CLOSED, USBBACK
from translator.planning.placeholders import node_name
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from translator.hosts.sysfs import Sysfs
    from translator.live.host import Host
    from translator.planning.plan import Plan
    from translator.topology import Device, HostDevice, Topology

_P_DEV_PARTS = 11  # of /local/domain/0/backend/vscsi/DOMID/INDEX/vscsi-devs/dev-N/p-dev
_DRIVER = re.compile(r"/sys/bus/usb/drivers/([A-Za-z0-9_.-]+)")


async def bind(plan: Plan, host: Host) -> Plan:
    """Return the plan with the host's facts in place of its placeholders.

    Raises:
        HostError: a host device or a backend domain is not there.
    """
    served_by = {one.backend for one in plan.topology.controllers if one.backend is not None}
    backends = {}
    for backend in sorted(served_by, key=str):
        if isinstance(backend, str):
            backends[backend] = await domid_of(host, backend)
        elif backend != 0 and await (await host.xenstore()).read(f"/local/domain/{backend}/name") is None:
            raise HostError("T403", f"there is no backend domain {backend}", "see `xl list` for those that run")
    lent: Mapping[str, str] = {}
    if any(step.target == "sysfs" for step in plan.steps):
        lent = await (await host.xenstore()).tree(USBBACK)
    plan = bind_host_devices(plan, host.sysfs, lent)
    plan = await bind_scsi(plan, host)
    domid = plan.topology.domain.domid
    others = [one.name for one in plan.topology.device_models if one.name != PRIMARY]
    sockets = {name: str(host.monitor_path(name, domid).absolute()) for name in others}
    return plan.bind(domid=domid, backends=backends, qmps=sockets)


async def bind_scsi(plan: Plan, host: Host) -> Plan:
    """Return the plan with what its SCSI selectors name.

    A driver domain's devices are out of sight: they are what their addresses and names say.

    Raises:
        HostError: T470 there is no such device; T471 another guest has it; T472 several fit; T483 a driver domain's
            device cannot be named like that.
    """
    found: dict[str, ScsiFacts] = {}
    backends = {one.index: one.backend for one in plan.topology.controllers if one.family == "scsi"}
    for device in plan.topology.devices:
        if device.scsi is None:
            continue
        try:
            found[device.scsi.selector] = _scsi_facts(device, backends.get(device.controller), host)
        except HostError as error:
            raise HostError(error.code, error.message, error.help, device.source) from error
    if found and plan.topology.domain.hypervisor == "xen":
        await _not_lent(plan, host, found)
    return plan.bind(scsi=found) if found else plan


def seen_scsi(topology: Topology) -> dict[str, ScsiFacts]:
    """Return what a domain has already: what its devices are called is all that their steps need to know."""
    return {
        one.scsi.selector: ScsiFacts(one.scsi, None, "") for one in topology.devices if one.scsi and not one.driver
    }


def _scsi_facts(device: Device, backend: int | str | None, host: Host) -> ScsiFacts:
    assert device.scsi is not None
    if backend not in (None, 0):
        if device.scsi.path is not None:
            raise HostError(
                "T483",
                f"{device.scsi.path} is a node of this host's /dev, and controller {device.controller} is served by "
                f"domain {backend}",
                "name the device by its adapter and address there, or by its WWN",
            )
        return ScsiFacts(device.scsi, None, "")
    facts = find(host.sysfs.root, device.scsi)
    if device.driver is not None and facts.generic is None:
        raise HostError("T470", f"SCSI device {device.scsi.selector} has no generic node for QEMU to open")
    return facts


async def _not_lent(plan: Plan, host: Host, found: Mapping[str, ScsiFacts]) -> None:
    """Refuse what a unit of another guest, or another unit of this one, has already of the same backend domain."""
    xenstore = await host.xenstore()
    domid = plan.topology.domain.domid
    backends = {one.index: one.backend for one in plan.topology.controllers if one.family == "scsi"}
    wanted: dict[int, dict[str, tuple[str, str]]] = {}
    for one in plan.topology.devices:
        if one.scsi is None or one.scsi.selector not in found:
            continue
        backend = backends.get(one.controller) or 0
        served = backend if isinstance(backend, int) else await domid_of(host, backend)
        unit = str(one.controller), f"{one.controller}:{one.port.replace('.', ':')}"
        wanted.setdefault(served, {})[found[one.scsi.selector].physical] = unit
    for served, units in wanted.items():
        nodes = await xenstore.tree(f"/local/domain/{served}/backend/vscsi")
        for path, physical in nodes.items():
            parts = path.split("/")
            if parts[-1] != "p-dev" or physical not in units or len(parts) < _P_DEV_PARTS:
                continue
            holder, index, directory = parts[6], parts[7], path.rpartition("/")[0]
            if nodes.get(f"{directory}/state") == str(CLOSED):
                continue
            if holder == str(domid) and (index, nodes.get(f"{directory}/v-dev")) == units[physical]:
                continue
            raise HostError(
                "T471",
                f"SCSI device {physical} is domain {holder}'s already, as {nodes.get(f'{directory}/v-dev')}",
                "a device of the host is one guest's at a time: detach it there first",
            )


def bind_host_devices(plan: Plan, sysfs: Sysfs, lent: Mapping[str, str]) -> Plan:
    """Return the plan with what its selectors name, without optional devices that are not there.

    Args:
        lent: the nodes at and below `USBBACK`: which drivers the interfaces had that usbback has now.

    Raises:
        HostError: T411, T412, T416, see `Sysfs.find`.
    """
    hostdevs: dict[str, HostDevice] = {}
    absent: list[Device] = []
    for device in plan.topology.devices:
        if device.host is None:
            continue
        try:
            hostdevs[device.host.selector] = sysfs.find(device.host)
        except HostError as error:
            # requisite differs from mandatory for a domain that migrates or is restored, which none is here
            if error.code != "T411" or device.startup_policy != "optional":
                raise HostError(error.code, error.message, error.help, device.source) from error
            absent.append(device)
    speeds = {selector: speed for selector, found in hostdevs.items() if (speed := sysfs.speed(found))}
    interfaces = {selector: own_drivers(found, sysfs, lent) for selector, found in hostdevs.items()}
    notes = (*_absent(absent), *mismatches(plan.topology, plan.topology.devices, speeds))
    return _noting(_without(plan, absent), notes).bind(hostdevs=hostdevs, interfaces=interfaces)


def own_drivers(device: HostDevice, sysfs: Sysfs, lent: Mapping[str, str]) -> dict[str, str | None]:
    """Return a device's interfaces with the host's own drivers: those they have, or had before usbback."""
    assert device.path is not None, "it was found in sysfs"
    found: dict[str, str | None] = {}
    for interface, driver in sysfs.interfaces(device.path).items():
        if driver in (None, "usbback"):
            note = lent.get(f"{USBBACK}/{node_name(device.path)}/{node_name(interface)}/driver_path", "")
            match = _DRIVER.fullmatch(note)
            driver = match[1] if match else None
        found[interface] = driver
    return found


def _without(plan: Plan, absent: list[Device]) -> Plan:
    """Leave the devices out."""
    if not absent:
        return plan
    gone = {f"device:{device.family}:{device.controller}:{device.port}" for device in absent}
    kept = tuple(device for device in plan.topology.devices if device not in absent)
    return msgspec.structs.replace(
        plan,
        topology=msgspec.structs.replace(plan.topology, devices=kept),
        steps=tuple(step for step in plan.steps if step.subject not in gone),
    )


def _absent(devices: Sequence[Device]) -> list[Diagnostic]:
    return [
        Diagnostic(
            code="T424",
            severity="warning",
            message=f"the host has no USB device {device.host.selector if device.host else ''}: it is left out",
            help="it is startupPolicy='optional'; apply again when it is there",
            line=device.source.line if device.source else None,
            column=device.source.column if device.source else None,
        )
        for device in devices
    ]


def _noting(plan: Plan, notes: Sequence[Diagnostic]) -> Plan:
    """Add what is not in the plan yet: one that was bound before has its notes."""
    new = tuple(note for note in notes if note not in plan.diagnostics)
    return msgspec.structs.replace(plan, diagnostics=(*plan.diagnostics, *new)) if new else plan


async def domid_of(host: Host, name: str, *, is_guest: bool = False) -> int:
    """Return the id of the running domain of that name; a guest is not looked for in domain 0."""
    if is_guest and name == "Domain-0":
        raise HostError("T403", "domain 0 is the host itself", "name a guest")
    xenstore = await host.xenstore()
    running = await xenstore.children("/local/domain") or ()
    domids = [one for one in running if one.isdigit() and not (is_guest and one == "0")]
    names = await asyncio.gather(*(xenstore.read(f"/local/domain/{domid}/name") for domid in domids))
    found = [int(domid) for domid, its in zip(domids, names, strict=True) if its == name]
    if len(found) != 1:
        what = f"{len(found)} domains are" if found else "no running domain is"
        raise HostError("T403", f"{what} called {name!r}", "name it by its id" if found else "see `xl list`")
    return found[0]
