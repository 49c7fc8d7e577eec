"""Layout rfc7: records and ids of the series that proposed USB hot-plug for libxl in 2014.

Each host device has a record of its own, `/libxl/DOMID/usb/hostdev-BBBB-AAAA`, named by bus and address in
hexadecimal; it tells protocol, backend and device, and no port: for an emulated device QEMU knows that, for a
paravirtual one its backend. The series left open how controllers are recorded. Here each has
`/libxl/DOMID/usbctrl/NAME`, with the names and the properties of the series' design, beside the devices and not
among them, where the series' own tools would take a controller for a device that is broken.

What guest and backend of a paravirtual controller see is the PVUSB protocol's, and so layout libxl's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.layouts import ControllerRecord, Recorded
from translator.layouts.identity import domid_of, guards
from translator.layouts.libxl import (
    TOOLSTACK,
    Libxl,
    backend_domid,
    emptied,
    fact,
    nodes_of,
    number,
    occupied,
    parents,
    service_paths,
    unclaimed,
)
from translator.planning.plan import Transaction, XenstoreOp
from translator.registry.models import CANONICAL, ControllerKind, Ports

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.layouts.libxl import Paths
    from translator.topology import Controller, Device, DomainIdentity, ElementKind, HostDevice, Place, Type, Value
    from translator.topology import Layout as LayoutName

_TYPES: dict[str, Type] = {"emulated": "emulated", "pv": "pv", "qusb": "qusb"}
_DEVICE = re.compile(r"hostdev-([0-9a-f]{4})-([0-9a-f]{4})")


class Rfc7(Libxl):
    """See `translator.layouts.Layout`."""

    name: LayoutName = "rfc7"
    pv_ports = Ports(16, 1, 31)
    pv_versions: tuple[int, ...] = (1, 2, 3)

    def controller_id(self, index: int, alias: str | None) -> str:
        return f"hci{index}"

    def controller_index(self, id: str) -> int | None:
        match = re.fullmatch(r"hci(0|[1-9][0-9]{0,8})", id)
        return int(match[1]) if match else None

    def device_id(self, kind: ElementKind, ordinal: int, alias: str | None, host: HostDevice | None) -> str:
        if host is None:
            return super().device_id(kind, ordinal, alias, host)
        return f"usb-hostdev-{_bus(host)}.{_address(host)}"

    def host_properties(self, host: HostDevice) -> dict[str, Value]:
        if host.bus is not None and host.device is not None:
            return {"hostbus": f"{host.bus:#x}", "hostaddr": f"{host.device:#x}"}
        return {"hostbus": f"0x{fact(host, 'xbus')}", "hostaddr": f"0x{fact(host, 'xdevice')}"}

    def record_device(self, domain: DomainIdentity, controller: Controller, device: Device) -> Recorded | None:
        host = device.host
        if host is None:
            return None
        record = f"/libxl/{domid_of(domain)}/usb/hostdev-{_bus(host)}-{_address(host)}"
        values = {
            "protocol": "devicemodel" if controller.type == "emulated" else "pv",
            "backend_domid": backend_domid(controller),
            "type": "hostdev",
            "hostbus": fact(host, "bus") if host.bus is None else str(host.bus),
            "hostaddr": fact(host, "device") if host.device is None else str(host.device),
        }
        made = (*parents(record, TOOLSTACK), *nodes_of(record, values, TOOLSTACK))
        gone = (XenstoreOp(op="rm", path=record), *emptied([record]))
        if controller.type != "emulated":
            served = super().record_device(domain, controller, device)
            assert served is not None, "it is a host device"
            assert isinstance(served.action, Transaction)
            assert isinstance(served.undo, Transaction)
            return Recorded(
                Transaction((*served.action.transaction, *made)), Transaction((*served.undo.transaction, *gone))
            )
        return Recorded(Transaction((*guards(domain), *unclaimed(host), *made)), Transaction(gone))

    def record_paths(self, domid: int, place: Place | None = None) -> tuple[str, ...]:
        records = f"/libxl/{domid}/usbctrl/{'*' if place is None else f'pv{place.controller}'}"
        names = ("type", "usbversion", "numports", "backend_domid")
        return (f"/libxl/{domid}/usb/*", *(f"{records}/{name}" for name in names))

    def further_paths(self, domid: int, nodes: Mapping[str, str], place: Place | None = None) -> tuple[str, ...]:
        paths: list[str] = []
        for record, index in self._recorded(domid, nodes):
            backend = self._served(domid, index, record, nodes)
            if backend:
                paths += service_paths(domid, index, backend, place)
        return tuple(paths)

    def read_controllers(self, domid: int, nodes: Mapping[str, str]) -> tuple[ControllerRecord, ...]:
        records = []
        taken = occupied(nodes)
        for record, index in self._recorded(domid, nodes):
            type = _TYPES.get(nodes.get(f"{record}/type", ""))
            version, ports = (number(nodes.get(f"{record}/{name}")) for name in ("usbversion", "numports"))
            if type is None or version is None or ports is None or ControllerKind(type, version) not in CANONICAL:
                continue  # half a record is none
            served = self._served(domid, index, record, nodes)
            if type != "emulated" and served is None:
                continue
            records.append(
                ControllerRecord(
                    index=index,
                    type=type,
                    version=version,
                    ports=ports,
                    backend=number(nodes.get(f"{record}/backend_domid")) if served else None,
                    state=number(nodes.get(f"{served}/state")),
                    frontend_state=number(nodes.get(f"/local/domain/{domid}/device/vusb/{index}/state")),
                    devices=taken.get(served or "", {}),
                )
            )
        return tuple(records)

    def recorded_hosts(self, domid: int, nodes: Mapping[str, str]) -> frozenset[tuple[int, int]]:
        found = (_DEVICE.fullmatch(path.removeprefix(f"/libxl/{domid}/usb/")) for path in nodes)
        return frozenset((int(match[1], 16), int(match[2], 16)) for match in found if match)

    def _recorded(self, domid: int, nodes: Mapping[str, str]) -> list[tuple[str, int]]:
        """Return the controllers' records with their indexes, in the order of these."""
        pattern = re.compile(rf"(/libxl/{domid}/usbctrl/(?:hci|pv)(0|[1-9][0-9]{{0,8}}))/[^/]+")
        found = {(match[1], int(match[2])) for path in nodes if (match := pattern.fullmatch(path))}
        return sorted(found, key=lambda one: one[1])

    def _served(self, domid: int, index: int, record: str, nodes: Mapping[str, str]) -> str | None:
        """Return where the backend of a PV controller is, by the toolstack's word alone."""
        kind = {"pv": "vusb", "qusb": "qusb"}.get(nodes.get(f"{record}/type", ""))
        backend = number(nodes.get(f"{record}/backend_domid"))
        if kind is None or backend is None:
            return None
        return f"/local/domain/{backend}/backend/{kind}/{domid}/{index}"

    def _record_path(self, domid: str, controller: Controller) -> str:
        return f"/libxl/{domid}/usbctrl/{'hci' if controller.type == 'emulated' else 'pv'}{controller.index}"

    def _record(
        self, paths: Paths, controller: Controller, served: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        values: dict[str, str] = {"type": controller.type}
        if controller.type != "emulated":
            values["backend_domid"] = backend_domid(controller)
        return values | {"usbversion": str(controller.version), "numports": str(controller.ports)}, {}


def _bus(host: HostDevice) -> str:
    return fact(host, "bus4") if host.bus is None or host.device is None else f"{host.bus:04x}"


def _address(host: HostDevice) -> str:
    return fact(host, "device4") if host.bus is None or host.device is None else f"{host.device:04x}"
