"""A host becomes a `Topology`: what xenstore and QEMU say of one domain, read back."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, get_args

import msgspec

from translator.binding import own_drivers
from translator.errors import HostError
from translator.families import Placed, families
from translator.hosts.sysfs import fits
from translator.layouts import CONNECTED, INIT_WAIT, INITIALISED, UNKNOWN, USBBACK, emulators, layout_named
from translator.models import CANONICAL, DEVICE_DRIVERS, DEVICE_KINDS, DRIVERS, XEN_MACHINES, ControllerKind
from translator.placeholders import node_name
from translator.topology import (
    PRIMARY,
    Companion,
    Controller,
    Device,
    DeviceModel,
    DomainIdentity,
    HostDevice,
    Place,
    Topology,
    XenbusState,
    port_key,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from translator.host import Host
    from translator.hosts.qmp import Qmp, QomDevice
    from translator.layouts import ControllerRecord, Layout
    from translator.topology import Family, Guest, Kind, Value
    from translator.topology import Layout as LayoutName

# What QEMU is asked of a device beyond its place: a choice of ports, a companion's master, all that a document
# can say of a device.
_PLACE = ("id", "bus", "port")
_PROPERTIES: dict[str, tuple[str, ...]] = {
    **{driver: ("addr",) if row.ports.fixed else ("addr", "p2", "p3") for driver, row in DRIVERS.items()},
    **{driver: ("addr", "masterbus", "firstport") for driver, row in DRIVERS.items() if row.startport is not None},
    **{driver: tuple(key for key in row.keys if key not in _PLACE) for driver, row in DEVICE_DRIVERS.items()},
}
# What a property is that nobody has set. Source: the DEFINE_PROP of each, in QEMU 7.2's hw/usb.
_DEFAULTS: dict[str, Value] = {"guest-reset": True}
_UNSET: tuple[Value, ...] = ("", 0, -1, "auto")

_GUESTS: dict[str, Guest] = {"hvm": "hvm", "pv": "pv", "pvh": "pvh"}


class Observation(NamedTuple):
    """What was seen.

    `lacking` are ids of steps whose effect is not there although another part of the same controller or device
    is: a record that QEMU has no device for, or a device that no record tells of.
    `states` are a PV controller's backend and frontend states (XenbusState), by index. `ids` are the names of
    all devices in QEMU, whoever made them, and `foreign` what of them sits on a port and is of no kind of ours, by
    controller and port. `lent` are the interfaces of the host devices that PV controllers have, by selector, each
    with the driver that gets it back.
    """

    topology: Topology
    lacking: frozenset[str]
    states: Mapping[int, tuple[int | None, int | None]]
    ids: frozenset[str]
    foreign: Mapping[tuple[int, str], QomDevice]
    lent: Mapping[str, Mapping[str, str | None]] = {}


async def observe(
    host: Host,
    *,
    domid: int | None,
    layout: LayoutName | None = None,
    expect_qmp: bool = False,
    records_only: bool = False,
    like: Topology | None = None,
) -> Observation:
    """Return what a running domain has.

    Args:
        domid: a Xen domain's id; None for a QEMU that no xenstore knows of.
        layout: where the records live; libxl for a Xen domain if None.
        like: what is expected, whose ids tell the indexes of controllers that have an alias of the user's.
        expect_qmp: whether a monitor that cannot be reached is an error although no record points at QEMU.
        records_only: whether QEMU is left alone, and only the records tell.

    Raises:
        HostError: the host cannot be reached, or has no such domain.
    """
    reader = _Reader(host, domid, layout_named(layout or ("qemu" if domid is None else "libxl")), like)
    return await reader.read(expect_qmp=expect_qmp, records_only=records_only)


class _Reader:
    def __init__(self, host: Host, domid: int | None, layout: Layout, like: Topology | None) -> None:
        self.known = {(one.family, one.id): one.index for one in like.controllers} if like else {}
        self.expected = like
        self.host = host
        self.domid = domid
        self.layout = layout
        self.lacking: set[str] = set()
        self.recorded_hosts: frozenset[tuple[int, int]] = frozenset()
        self.notes: dict[str, str] = {}  # the host's, on the drivers of what usbback has
        self.lent: dict[str, Mapping[str, str | None]] = {}

    async def read(self, *, expect_qmp: bool, records_only: bool) -> Observation:
        identity = await self.identity()
        records = await self.records()
        emulated = any(record.type == "emulated" for record in records)
        found: tuple[QomDevice, ...] = ()
        asked = emulated or expect_qmp or self.domid is None or self.host.names_monitor(PRIMARY)
        if asked and not records_only:
            found = await self.devices_of(await self.host.qmp(PRIMARY, self.domid))
        models = () if records_only else await self.device_models()
        for model in models:
            found += await self.devices_in(model.name)
        by_index = {record.index: record for record in records}
        names: dict[str, int] = {}
        controllers = []
        for device in found:
            if device.driver in DRIVERS and device.id is not None and "masterbus" not in device.properties:
                index = self.known.get(("usb", device.id), self.layout.controller_index(device.id))
                if index is not None:
                    names[device.id] = index
        for record in records:
            if record.type != "emulated":
                controllers.append(_paravirtual(record))
                if record.state not in (INIT_WAIT, INITIALISED, CONNECTED):
                    self.lacking.add(f"controller:usb:{record.index}:backend")
        seen = {names[device.id]: device for device in found if device.id in names}
        companions: dict[str, list[QomDevice]] = {}
        for device in found:
            if device.driver in DRIVERS and isinstance(bus := device.properties.get("masterbus"), str):
                companions.setdefault(bus, []).append(device)
        for index in sorted(seen.keys() | {record.index for record in records if record.type == "emulated"}):
            controllers.append(self.emulated(index, by_index.get(index), seen.get(index), companions))
        seen_parts = [family.seen(found, self.known, identity.machine) for family in families()]
        seen_parts += [part async for part in self.recorded_parts()]
        topology = Topology(
            domain=identity,
            layout=self.layout.name,
            device_models=(DeviceModel(name=PRIMARY), *models),
            controllers=(
                *sorted(controllers, key=lambda controller: controller.index),
                *self.readers(found, names).values(),
                *(controller for part in seen_parts for controller in part.controllers),
            ),
            devices=(
                *sorted(
                    self.devices(records, found, names),
                    key=lambda device: (device.controller, port_key(device.port)),
                ),
                *(device for part in seen_parts for device in part.devices),
            ),
        )
        states = {
            record.index: (record.state, record.frontend_state) for record in records if record.type != "emulated"
        }
        return Observation(
            topology,
            frozenset(self.lacking),
            states,
            ids=frozenset(device.id for device in found if device.id is not None),
            foreign={
                (names[controller], device.port): device
                for device in found
                if device.port and device.driver not in DEVICE_DRIVERS and (controller := _bus(device)) in names
            },
            lent=self.lent,
        )

    async def devices_of(self, monitor: Qmp) -> tuple[QomDevice, ...]:
        """Return QEMU's devices. A disk does not tell what is behind it: its SCSI child has that."""
        found = await monitor.devices(_asked())
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
        xenstore = await self.host.xenstore()
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
        xenstore = await self.host.xenstore()
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

    async def records(self) -> tuple[ControllerRecord, ...]:
        if self.domid is None:
            return ()
        xenstore = await self.host.xenstore()
        nodes: dict[str, str] = {}
        for root in self.layout.record_roots(self.domid):
            nodes |= await xenstore.tree(root)
        for further in self.layout.further_roots(self.domid, nodes):
            if further.startswith(f"/local/domain/{self.domid}/"):
                # the guest may write what it likes there, and as much: one node is read, and nothing followed
                nodes[further] = await xenstore.read(further) or ""
            else:
                nodes |= await xenstore.tree(further)
        self.recorded_hosts = self.layout.recorded_hosts(self.domid, nodes)
        records = self.layout.read_controllers(self.domid, nodes)
        if any(record.type == "pv" and record.devices for record in records):
            self.notes = await xenstore.tree(USBBACK)
        return records

    async def device_models(self) -> tuple[DeviceModel, ...]:
        """Return the device models besides the primary one: those recorded, and those expected or named."""
        if self.domid is None:
            return ()
        nodes = await (await self.host.xenstore()).tree(emulators.records_of(self.domid))
        models = {model.name: model for model in emulators.read(self.domid, nodes)}
        for model in models.values():
            if model.qmp:
                self.host.learn_monitor(model.name, self.domid, model.qmp)
        expected = [model.name for model in self.expected.device_models] if self.expected else []
        self.lacking |= {f"device-model:{name}" for name in expected if name not in models and name != PRIMARY}
        for name in sorted({*expected, *self.host.qmp_paths} - models.keys() - {PRIMARY}):
            models[name] = DeviceModel(name=name)
        return tuple(models.values())

    async def devices_in(self, model: str) -> tuple[QomDevice, ...]:
        """Return what a device model emulates; nothing, when its process is gone."""
        from translator.hosts.qmp import MonitorGone

        try:
            found = await self.devices_of(await self.host.qmp(model, self.domid))
        except MonitorGone:
            return ()
        return tuple(msgspec.structs.replace(device, device_model=model) for device in found)

    def model_of(self, index: int) -> str:
        """Return the device model that a controller is expected in that no QEMU has."""
        controllers = self.expected.controllers if self.expected else ()
        found = (one.device_model for one in controllers if (one.family, one.index) == ("usb", index))
        return next(found, None) or PRIMARY

    def emulated(
        self,
        index: int,
        record: ControllerRecord | None,
        device: QomDevice | None,
        companions: Mapping[str, Sequence[QomDevice]],
    ) -> Controller:
        """Put together what the record and QEMU say of one controller, and note what either does not.

        `companions` are those of all controllers, by the master's bus.
        """
        if device is not None:
            row = DRIVERS[device.driver]
            if record is None and self.domid is not None:
                self.lacking.add(f"controller:usb:{index}:record")
        else:
            assert record is not None, "seen in one of the two"
            row = CANONICAL[ControllerKind("emulated", record.version)]
            self.lacking.add(f"controller:usb:{index}")
        ports = record.ports if record else row.ports.default
        if device is not None and isinstance(device.properties.get("p2"), int):
            ports = msgspec.convert(device.properties["p2"], int)
        id = device.id if device else self.layout.controller_id(index, None)
        return Controller(
            family="usb",
            index=index,
            model=row.name,
            type="emulated",
            version=row.kind.version,
            interface=row.interface,
            ports=ports,
            id=id,
            driver=row.driver,
            device_model=device.device_model if device else self.model_of(index),
            backend=None,
            companions=tuple(
                sorted(map(_companion, companions.get(f"{id}.0", ())), key=lambda companion: companion.startport)
            ),
            pci=_pci(device) if device else None,
            properties={
                name: value for name, value in (device.properties if device else {}).items() if name in ("p2", "p3")
            },
            implicit=False,
            source=None,
        )

    def readers(self, found: Iterable[QomDevice], names: Mapping[str, int]) -> dict[str, Controller]:
        """Return the ccid controllers by their names in QEMU, which tell the index where libvirt gave them."""
        readers: dict[str, Controller] = {}
        for device in found:
            controller = names.get(_bus(device))
            if device.driver != DEVICE_KINDS["ccid"].driver or controller is None or not device.port or not device.id:
                continue
            number = device.id.removeprefix("ccid")
            told = int(number) if number.isascii() and number.isdigit() else len(readers)
            readers[device.id] = Controller(
                family="ccid",
                index=self.known.get(("ccid", device.id), told),
                model=device.driver,
                type="emulated",
                version=None,
                interface="ccid",
                ports=1,
                id=device.id,
                driver=device.driver,
                device_model=device.device_model,
                backend=None,
                companions=(),
                pci=None,
                properties={},
                implicit=False,
                source=None,
                place=Place(controller, device.port),
            )
        return readers

    def devices(
        self, records: Iterable[ControllerRecord], found: Iterable[QomDevice], names: Mapping[str, int]
    ) -> Iterable[Device]:
        # what a driver domain has given is its own: a device of the same path here is another one
        given = {
            (record.index, port): UNKNOWN if record.backend else path
            for record in records
            for port, path in record.devices.items()
        }
        emulated = {record.index for record in records if record.type == "emulated"}
        known = {device.path: device for device in self.host.sysfs.usb_devices()} if given or found else {}
        readers = self.readers(found, names)
        for device in found:
            bus = _bus(device)
            row = DEVICE_DRIVERS.get(device.driver)
            if row is not None and row.kind == "smartcard" and bus in readers:
                yield _device(device, "smartcard", "ccid", readers[bus].index, "0", None)
            controller = names.get(bus)
            if row is None or row.kind == "ccid" or controller is None or not device.port:
                continue
            path = given.pop((controller, device.port), None)
            host = None
            if row.kind == "hostdev":
                host = known.get(path) or _host_device(device, known.values(), path)
                recorded = host.bus is not None and (host.bus, host.device) in self.recorded_hosts
                if path is None and self.domid is not None and not recorded:
                    self.lacking.add(f"device:usb:{controller}:{device.port}:record")
            yield _device(device, row.kind, "usb", controller, device.port, host)
        pv = {record.index for record in records if record.type == "pv"}
        for (controller, port), path in given.items():
            if controller in emulated:
                self.lacking.add(f"device:usb:{controller}:{port}")
            if controller in pv:
                self.check_drivers(f"device:usb:{controller}:{port}", known.get(path) or HostDevice(path=path))
            yield Device(
                family="usb",
                kind="hostdev",
                id=None,
                driver=None,
                controller=controller,
                port=port,
                host=known.get(path) or HostDevice(path=path),
                properties={},
                implicit=False,
                source=None,
            )

    def check_drivers(self, id: str, device: HostDevice) -> None:
        """Note whose a PV device's interfaces are, and when the kernel's backend has not got one of them."""
        assert device.path is not None, "a port holds it"
        self.lent[device.selector] = own_drivers(device, self.host.sysfs, self.notes)
        drivers = self.host.sysfs.interfaces(device.path).values()
        if any(driver != "usbback" for driver in drivers):
            self.lacking.add(f"{id}:usbback")
            if any(drivers) and f"{USBBACK}/{node_name(device.path)}" not in self.notes:
                self.lacking.add(f"{id}:drivers")


@cache
def _asked() -> dict[str, tuple[str, ...]]:
    """Return what QEMU is asked of each driver's devices, whichever family needs to know it."""
    asked = {driver: tuple(names) for driver, names in _PROPERTIES.items()}
    for family in families():
        for driver, names in family.asked().items():
            asked[driver] = (*asked.get(driver, ()), *names)
    return asked


def _bus(device: QomDevice) -> str:
    """Return the name of the device that the bus belongs to."""
    return (device.parent_bus or "").rpartition("/")[2].removesuffix(".0")


def _device(
    device: QomDevice, kind: Kind, family: Family, controller: int, port: str, host: HostDevice | None
) -> Device:
    return Device(
        family=family,
        kind=kind,
        id=device.id,
        driver=device.driver,
        controller=controller,
        port=port,
        host=host,
        properties={
            name: value
            for name in _PROPERTIES[device.driver]
            if (value := device.properties.get(name)) is not None
            and (value != _DEFAULTS[name] if name in _DEFAULTS else value not in _UNSET)
        },
        implicit=False,
        source=None,
    )


def _companion(device: QomDevice) -> Companion:
    return Companion(
        model=DRIVERS[device.driver].name,
        driver=device.driver,
        startport=msgspec.convert(device.properties.get("firstport", 0), int),
        pci=_pci(device),
        properties={},
        source=None,
    )


def _paravirtual(record: ControllerRecord) -> Controller:
    row = CANONICAL[ControllerKind(record.type, record.version)]
    return Controller(
        family="usb",
        index=record.index,
        model=row.name,
        type=record.type,
        version=record.version,
        interface=row.interface,
        ports=record.ports,
        id=None,
        driver=None,
        device_model=None,
        backend=record.backend,
        companions=(),
        pci=None,
        properties={},
        implicit=False,
        source=None,
        frontend=dict(enumerate(get_args(XenbusState), 1)).get(record.frontend_state or 0),
    )


def _pci(device: QomDevice) -> str | None:
    """Return the PCI address of a controller on the root bus; behind a bridge only the guest gives the numbers."""
    addr = device.properties.get("addr")
    if not isinstance(addr, int) or addr < 0 or not device.parent_bus.endswith(("/pci.0", "/pcie.0")):
        return None
    return f"0000:00:{addr >> 3:02x}.{addr & 7:x}"


def _host_device(device: QomDevice, known: Iterable[HostDevice], path: str | None) -> HostDevice:
    """Return which host device a `usb-host` stands for, completed from sysfs where that has exactly one such."""

    def number(name: str) -> int | None:
        return msgspec.convert(device.properties.get(name) or 0, int) or None

    told = HostDevice(
        bus=number("hostbus"),
        device=number("hostaddr"),
        vendor=number("vendorid"),
        product=number("productid"),
        path=path,
    )
    if match := re.fullmatch(r"/dev/bus/usb/([0-9]{3,})/([0-9]{3,})", str(device.properties.get("hostdevice") or "")):
        told = HostDevice(bus=int(match[1]), device=int(match[2]), path=path)
    elif told.bus is not None and path is None and (port := device.properties.get("hostport")):
        told = msgspec.structs.replace(told, path=f"{told.bus}-{port}")
    if told == HostDevice():
        return told
    fitting = [found for found in known if fits(found, told)]
    return fitting[0] if len(fitting) == 1 else told
