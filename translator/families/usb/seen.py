"""A domain's USB as its records and its QEMUs have it, put together; and what either of the two lacks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, get_args

import msgspec

from translator.hosts.sysfs import fits
from translator.layouts import CONNECTED, INIT_WAIT, INITIALISED, UNKNOWN, USBBACK
from translator.live.binding import own_drivers
from translator.planning.placeholders import node_name
from translator.registry.models import CANONICAL, DEVICE_DRIVERS, DEVICE_KINDS, DRIVERS, ControllerKind
from translator.topology import PRIMARY, Companion, Controller, Device, HostDevice, Place, XenbusState, port_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from translator.hosts.qmp import QomDevice
    from translator.hosts.sysfs import Sysfs
    from translator.layouts import ControllerRecord, Layout
    from translator.topology import Family, Kind, Topology, Value

# What QEMU is asked of a device beyond its place: a choice of ports, a companion's master, all that a document
# can say of a device.
_PLACE = ("id", "bus", "port")
PROPERTIES: dict[str, tuple[str, ...]] = {
    **{driver: ("addr",) if row.ports.fixed else ("addr", "p2", "p3") for driver, row in DRIVERS.items()},
    **{driver: ("addr", "masterbus", "firstport") for driver, row in DRIVERS.items() if row.startport is not None},
    **{driver: tuple(key for key in row.keys if key not in _PLACE) for driver, row in DEVICE_DRIVERS.items()},
}
# What a property is that nobody has set. Source: the DEFINE_PROP of each, in QEMU 7.2's hw/usb.
_DEFAULTS: dict[str, Value] = {"guest-reset": True}
_UNSET: tuple[Value, ...] = ("", 0, -1, "auto")


class Records(NamedTuple):
    """What a host's records tell of a domain's USB.

    `hosts` are bus and device numbers of the host devices that have a record which names no port, `notes` the host's
    on the drivers of what usbback has.
    """

    controllers: tuple[ControllerRecord, ...] = ()
    hosts: frozenset[tuple[int, int]] = frozenset()
    notes: Mapping[str, str] = {}


class UsbSeen:
    """A domain's USB.

    `lacking` and `lent` are as in `translator.live.observe.Observation`, complete once `devices` were asked for.

    Args:
        found: the devices of all its QEMUs.
        expected: whose ids tell the indexes of controllers that have an alias of the user's.
        is_recorded: whether what QEMU has is to have a record.
    """

    def __init__(
        self,
        records: Records,
        found: Sequence[QomDevice],
        layout: Layout,
        sysfs: Sysfs,
        *,
        expected: Topology | None,
        is_recorded: bool,
    ) -> None:
        self.lacking: set[str] = set()
        self.lent: dict[str, Mapping[str, str | None]] = {}
        self._records = records
        self._found = found
        self._layout = layout
        self._sysfs = sysfs
        self._expected = expected
        self._is_recorded = is_recorded
        self._known = {(one.family, one.id): one.index for one in expected.controllers} if expected else {}
        self._names: dict[str, int] = {}  # the index of each controller in QEMU, by its id
        for device in found:
            if device.driver in DRIVERS and device.id is not None and "masterbus" not in device.properties:
                index = self._known.get(("usb", device.id), layout.controller_index(device.id))
                if index is not None:
                    self._names[device.id] = index
        self._readers = self._ccid()

    def controllers(self) -> tuple[Controller, ...]:
        """Return the controllers by index, and the readers for smartcards behind them."""
        by_index = {record.index: record for record in self._records.controllers}
        controllers = []
        for record in self._records.controllers:
            if record.type != "emulated":
                controllers.append(_paravirtual(record))
                if record.state not in (INIT_WAIT, INITIALISED, CONNECTED):
                    self.lacking.add(f"controller:usb:{record.index}:backend")
        seen = {self._names[device.id]: device for device in self._found if device.id in self._names}
        companions: dict[str, list[QomDevice]] = {}
        for device in self._found:
            if device.driver in DRIVERS and isinstance(bus := device.properties.get("masterbus"), str):
                companions.setdefault(bus, []).append(device)
        for index in sorted(seen.keys() | {index for index, record in by_index.items() if record.type == "emulated"}):
            controllers.append(self._emulated(index, by_index.get(index), seen.get(index), companions))
        return (*sorted(controllers, key=lambda controller: controller.index), *self._readers.values())

    def devices(self) -> tuple[Device, ...]:
        """Return what is on the ports, and the cards in the readers, by controller and port."""
        return tuple(sorted(self._devices(), key=lambda device: (device.controller, port_key(device.port))))

    def foreign(self) -> dict[tuple[int, str], QomDevice]:
        """Return what of QEMU's sits on a port and is of no kind of ours, by controller and port."""
        return {
            (self._names[controller], device.port): device
            for device in self._found
            if device.port and device.driver not in DEVICE_DRIVERS and (controller := _bus(device)) in self._names
        }

    def _model_of(self, index: int) -> str:
        """Return the device model that a controller is expected in that no QEMU has."""
        controllers = self._expected.controllers if self._expected else ()
        found = (one.device_model for one in controllers if (one.family, one.index) == ("usb", index))
        return next(found, None) or PRIMARY

    def _emulated(
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
            if record is None and self._is_recorded:
                self.lacking.add(f"controller:usb:{index}:record")
        else:
            assert record is not None, "seen in one of the two"
            row = CANONICAL[ControllerKind("emulated", record.version)]
            self.lacking.add(f"controller:usb:{index}")
        ports = record.ports if record else row.ports.default
        if device is not None and isinstance(device.properties.get("p2"), int):
            ports = msgspec.convert(device.properties["p2"], int)
        id = device.id if device else self._layout.controller_id(index, None)
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
            device_model=device.device_model if device else self._model_of(index),
            backend=None,
            companions=tuple(
                sorted(map(_companion, companions.get(f"{id}.0", ())), key=lambda companion: companion.startport)
            ),
            pci=device.pci if device else None,
            properties={
                name: value for name, value in (device.properties if device else {}).items() if name in ("p2", "p3")
            },
            implicit=False,
            source=None,
        )

    def _ccid(self) -> dict[str, Controller]:
        """Return the ccid controllers by their names in QEMU, which tell the index where libvirt gave them."""
        readers: dict[str, Controller] = {}
        for device in self._found:
            controller = self._names.get(_bus(device))
            if device.driver != DEVICE_KINDS["ccid"].driver or controller is None or not device.port or not device.id:
                continue
            number = device.id.removeprefix("ccid")
            told = int(number) if number.isascii() and number.isdigit() else len(readers)
            readers[device.id] = Controller(
                family="ccid",
                index=self._known.get(("ccid", device.id), told),
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

    def _devices(self) -> Iterable[Device]:
        # what a driver domain has given is its own: a device of the same path here is another one
        given = {
            (record.index, port): UNKNOWN if record.backend else path
            for record in self._records.controllers
            for port, path in record.devices.items()
        }
        emulated = {record.index for record in self._records.controllers if record.type == "emulated"}
        if self._found:
            known = {device.path: device for device in self._sysfs.usb_devices()}
        else:  # the records name what they have by its path
            known = {path: one for path in given.values() if (one := self._sysfs.device_at(path))}
        for device in self._found:
            bus = _bus(device)
            row = DEVICE_DRIVERS.get(device.driver)
            if row is not None and row.kind == "smartcard" and bus in self._readers:
                yield _device(device, "smartcard", "ccid", self._readers[bus].index, "0", None)
            controller = self._names.get(bus)
            if row is None or row.kind == "ccid" or controller is None or not device.port:
                continue
            path = given.pop((controller, device.port), None)
            host = None
            if row.kind == "hostdev":
                host = known.get(path) or _host_device(device, known.values(), path)
                recorded = host.bus is not None and (host.bus, host.device) in self._records.hosts
                if path is None and self._is_recorded and not recorded:
                    self.lacking.add(f"device:usb:{controller}:{device.port}:record")
            yield _device(device, row.kind, "usb", controller, device.port, host)
        pv = {record.index for record in self._records.controllers if record.type == "pv"}
        for (controller, port), path in given.items():
            if controller in emulated:
                self.lacking.add(f"device:usb:{controller}:{port}")
            if controller in pv:
                self._check_drivers(f"device:usb:{controller}:{port}", known.get(path) or HostDevice(path=path))
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

    def _check_drivers(self, id: str, device: HostDevice) -> None:
        """Note whose a PV device's interfaces are, and when the kernel's backend has not got one of them."""
        assert device.path is not None, "a port holds it"
        self.lent[device.selector] = own_drivers(device, self._sysfs, self._records.notes)
        drivers = self._sysfs.interfaces(device.path).values()
        if any(driver != "usbback" for driver in drivers):
            self.lacking.add(f"{id}:usbback")
            if any(drivers) and f"{USBBACK}/{node_name(device.path)}" not in self._records.notes:
                self.lacking.add(f"{id}:drivers")


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
            for name in PROPERTIES[device.driver]
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
        pci=device.pci,
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
