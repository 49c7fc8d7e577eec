"""A host becomes a `Topology`: what xenstore and QEMU say of one domain, read back."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.errors import HostError
from translator.families import Placed, families
from translator.families.usb.seen import Records, UsbSeen
from translator.layouts import USBBACK, emulators, layout_named
from translator.live.properties import asked_of
from translator.registry.models import DEVICE_KINDS, XEN_MACHINES
from translator.topology import (
    NIL_UUID,
    PRIMARY,
    DeviceModel,
    DomainIdentity,
    Topology,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from translator.hosts.qmp import Qmp, QomDevice
    from translator.hosts.xenview import View
    from translator.layouts import Layout
    from translator.live.host import Host
    from translator.topology import Guest, Place, Value
    from translator.topology import Layout as LayoutName

_GUESTS: dict[str, Guest] = {"hvm": "hvm", "pv": "pv", "pvh": "pvh"}


class Observation(NamedTuple):
    """What was seen.

    `lacking` are ids of steps whose effect is not there although another part of the same controller or device
    is: a record that QEMU has no device for, or a device that no record tells of.
    `states` are a PV controller's backend and frontend states (XenbusState), by index. `ids` are the names of
    all devices in QEMU, whoever made them, and `foreign` what of them sits on a port and is of no kind of ours, by
    controller and port. `lent` are the interfaces of the host devices that PV controllers have, by selector, each
    with the driver that gets it back. `values` is what QEMU was asked of its devices, by id and property.
    """

    topology: Topology
    lacking: frozenset[str]
    states: Mapping[int, tuple[int | None, int | None]]
    ids: frozenset[str]
    foreign: Mapping[tuple[int, str], QomDevice]
    lent: Mapping[str, Mapping[str, str | None]] = {}
    values: Mapping[str, Mapping[str, Value]] = {}


async def observe(
    host: Host,
    *,
    domid: int | None,
    layout: LayoutName | None = None,
    expect_qmp: bool = False,
    records_only: bool = False,
    like: Topology | None = None,
    nodes: View | None = None,
    place: Place | None = None,
) -> Observation:
    """Return what a running domain has.

    Args:
        domid: a Xen domain's id; None for a QEMU that no xenstore knows of.
        layout: where the records live; libxl for a Xen domain if None.
        like: what is expected, whose ids tell the indexes of controllers that have an alias of the user's, and whose
            properties are read.
        expect_qmp: whether a monitor that cannot be reached is an error although no record points at QEMU.
        records_only: whether QEMU is left alone, and only the records tell.
        nodes: a Xen domain's, if they were seen already; else they are asked for.
        place: a port of a paravirtual controller; no more than this controller and what is in the port is looked at,
            not even the states of its two ends. What is seen is empty when there is no such controller.

    Raises:
        HostError: the host cannot be reached, or has no such domain.
    """
    reader = _Reader(host, domid, layout_named(layout or ("qemu" if domid is None else "libxl")), like, nodes)
    if place is not None:
        return await reader.read_place(place)
    async with host.using(domid):
        return await reader.read(expect_qmp=expect_qmp, records_only=records_only)


class _Reader:
    def __init__(
        self, host: Host, domid: int | None, layout: Layout, like: Topology | None, nodes: View | None
    ) -> None:
        self.known = {(one.family, one.id): one.index for one in like.controllers} if like else {}
        self.expected = like
        self.asked = _asked() if like is None else _and(_asked(), asked_of(like))
        self.host = host
        self.domid = domid
        self.layout = layout
        self._nodes = nodes
        self.lacking: set[str] = set()

    async def read_place(self, place: Place) -> Observation:
        identity = await self.identity()
        usb = UsbSeen(await self.records(place), (), self.layout, self.host.sysfs, expected=None, is_recorded=True)
        topology = Topology(
            domain=identity,
            layout=self.layout.name,
            device_models=(DeviceModel(name=PRIMARY),),
            controllers=usb.controllers(),
            devices=usb.devices(),
        )
        # of the controller's service nothing is known
        device = f"device:usb:{place.controller}:{place.port}:"
        lacking = frozenset(id for id in usb.lacking if id.startswith(device))
        return Observation(topology, lacking, states={}, ids=frozenset(), foreign={}, lent=usb.lent)

    async def read(self, *, expect_qmp: bool, records_only: bool) -> Observation:
        identity = await self.identity()
        records = await self.records()
        emulated = any(record.type == "emulated" for record in records.controllers)
        found: tuple[QomDevice, ...] = ()
        asked = emulated or expect_qmp or self.domid is None or self.host.names_monitor(PRIMARY)
        if asked and not records_only:
            found = await self.devices_of(await self.monitor(PRIMARY, identity))
        models = () if records_only else await self.device_models()
        for model in models:
            found += await self.devices_in(model.name, identity)
        usb = UsbSeen(
            records,
            found,
            self.layout,
            self.host.sysfs,
            expected=self.expected,
            is_recorded=self.domid is not None,
        )
        controllers, devices = usb.controllers(), usb.devices()
        seen_parts = [family.seen(found, self.known, identity.machine) for family in families()]
        seen_parts += [part async for part in self.recorded_parts()]
        topology = Topology(
            domain=identity,
            layout=self.layout.name,
            device_models=(DeviceModel(name=PRIMARY), *models),
            controllers=(*controllers, *(controller for part in seen_parts for controller in part.controllers)),
            devices=(*devices, *(device for part in seen_parts for device in part.devices)),
        )
        states = {
            record.index: (record.state, record.frontend_state)
            for record in records.controllers
            if record.type != "emulated"
        }
        return Observation(
            topology,
            frozenset(self.lacking | usb.lacking),
            states,
            ids=frozenset(device.id for device in found if device.id is not None),
            foreign=usb.foreign(),
            lent=usb.lent,
            values={device.id: device.properties for device in found if device.id is not None},
        )

    async def nodes(self) -> View:
        """Return the view of a Xen domain that all is read in."""
        if self._nodes is None:
            from translator.hosts.xenview import View

            self._nodes = View(await self.host.xenstore())
        return self._nodes

    async def devices_of(self, monitor: Qmp) -> tuple[QomDevice, ...]:
        """Return QEMU's devices. A disk does not tell what is behind it: its SCSI child has that."""
        found = await monitor.devices(self.asked)
        disk = DEVICE_KINDS["disk"].driver
        if not any(device.driver == disk for device in found):
            return found
        drives = await monitor.drives()

        def node(device: QomDevice) -> str | None:
            return next((node for path, node in drives.items() if path.startswith(f"{device.path}/")), None)

        return tuple(
            msgspec.structs.replace(device, properties={**device.properties, "drive": node(device)})
            if device.driver == disk
            else device
            for device in found
        )

    async def identity(self) -> DomainIdentity:
        if self.domid is None:
            machine = await (await self.host.qmp(PRIMARY, None)).machine()
            return DomainIdentity(
                name=machine.name,
                uuid=machine.uuid,
                hypervisor="qemu",
                guest="hvm",
                arch=machine.arch,
                machine=machine.type,
                domid=None,
            )
        xenstore = await self.nodes()
        name = await xenstore.read(f"/local/domain/{self.domid}/name")
        if name is None:
            raise HostError("T403", f"there is no domain {self.domid}", "see `xl list` for those that run")
        vm = await xenstore.read(f"/local/domain/{self.domid}/vm")
        guest = _GUESTS.get(await xenstore.read(f"/libxl/{self.domid}/type") or "", "hvm")
        return DomainIdentity(
            name=name,
            uuid=vm.removeprefix("/vm/") if vm else None,
            hypervisor="xen",
            guest=guest,
            arch="x86_64",
            machine=XEN_MACHINES[guest],
            domid=self.domid,
        )

    async def recorded_parts(self) -> AsyncIterator[Placed]:
        """Yield what xenstore has of the families that keep records there themselves."""
        if self.domid is None:
            return
        xenstore = await self.nodes()
        for family in families():
            root = family.record_root(self.domid)
            if root is None:
                continue
            nodes = await xenstore.tree(root)
            for further in family.further_roots(self.domid, nodes):
                nodes = nodes | await xenstore.tree(further)
            found = family.recorded(self.domid, nodes)
            self.lacking |= found.lacking
            yield found.placed

    async def records(self, place: Place | None = None) -> Records:
        if self.domid is None:
            return Records()
        xenstore = await self.nodes()
        if place is None:
            # which families have records at all: most of what is looked for is not there
            await xenstore.children(f"/libxl/{self.domid}/device")
        nodes = _merged(await xenstore.matching(*self.layout.record_paths(self.domid, place)))
        nodes |= _merged(await xenstore.matching(*self.layout.further_paths(self.domid, nodes, place)))
        controllers = self.layout.read_controllers(self.domid, nodes)
        notes: Mapping[str, str] = {}
        if any(record.type == "pv" and record.devices for record in controllers):
            notes = await xenstore.tree(USBBACK)
        return Records(controllers, self.layout.recorded_hosts(self.domid, nodes), notes)

    async def device_models(self) -> tuple[DeviceModel, ...]:
        """Return the device models besides the primary one: those recorded, and those expected or named."""
        if self.domid is None:
            return ()
        nodes = await (await self.nodes()).tree(emulators.records_of(self.domid))
        models = {model.name: model for model in emulators.read(self.domid, nodes)}
        for model in models.values():
            if model.qmp:
                self.host.learn_monitor(model.name, self.domid, model.qmp)
        expected = [model.name for model in self.expected.device_models] if self.expected else []
        self.lacking |= {f"device-model:{name}" for name in expected if name not in models and name != PRIMARY}
        for name in sorted({*expected, *self.host.qmp_paths} - models.keys() - {PRIMARY}):
            models[name] = DeviceModel(name=name)
        return tuple(models.values())

    async def monitor(self, model: str, domain: DomainIdentity) -> Qmp:
        """Return the client of a device model's monitor, which is not another domain's.

        A socket that libxl or the records name is the domain's, whatever its QEMU is called: `xl rename` leaves that
        as it was. Of one that a user names, the QEMU has to be called as the domain, or as it was while it came here
        (source: create_domain of xl, which receives a migrated domain as NAME--incoming). UUIDs never change.

        Raises:
            HostError: T444, it is.
        """
        monitor = await self.host.qmp(model, self.domid)
        if self.domid is None:
            return monitor
        told = await monitor.guest()
        if domain.uuid and told.uuid and told.uuid != NIL_UUID:
            same = told.uuid.lower() == domain.uuid.lower()
        else:
            names = ("", domain.name, f"{domain.name}--incoming")
            same = told.name in names or not self.host.names_monitor(model)
        if not same:
            path = self.host.monitor_path(model, self.domid)
            raise HostError(
                "T444",
                f"the QEMU at {path} runs {told.name!r} with UUID {told.uuid}, "
                f"and domain {self.domid} is {domain.name!r} with UUID {domain.uuid}",
                "nothing was done; name the domain's own monitor, or leave --qmp out to use libxl's own socket",
            )
        return monitor

    async def devices_in(self, model: str, domain: DomainIdentity) -> tuple[QomDevice, ...]:
        """Return what a device model emulates; nothing, when its process is gone."""
        from translator.hosts.qmp import MonitorGone

        try:
            found = await self.devices_of(await self.monitor(model, domain))
        except MonitorGone:
            return ()
        return tuple(msgspec.structs.replace(device, device_model=model) for device in found)


def _merged(found: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return the nodes that any of the patterns fits."""
    return {path: value for nodes in found.values() for path, value in nodes.items()}


@cache
def _asked() -> dict[str, tuple[str, ...]]:
    """Return what QEMU is asked of each driver's devices, whichever family needs to know it."""
    asked: dict[str, tuple[str, ...]] = {}
    for family in families():
        asked = _and(asked, family.asked())
    return asked


def _and(asked: Mapping[str, tuple[str, ...]], more: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return what is asked of each driver's devices, and more, each property once."""
    both = {driver: (*asked.get(driver, ()), *names) for driver, names in more.items()}
    return {**asked, **{driver: tuple(dict.fromkeys(names)) for driver, names in both.items()}}
