"""Layout libxl: what Xen 4.7 and later keep in xenstore, so that `xl usb-list` and libvirt see our controllers.

A controller has a record below /libxl (L), and, when it is paravirtual, a frontend (F) in the guest's
directory and a backend (B) in the backend domain's. Nodes, values and permissions are those that xl 4.17 was
seen to write; libxl's own functions are `libxl__device_usbctrl_add_xenstore` and
`libxl__device_usbdev_add_xenstore` (tools/libs/light/libxl_usb.c).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from translator.layouts import (
    CLOSED,
    CLOSING,
    CONNECTED,
    INIT_WAIT,
    INITIALISED,
    INITIALISING,
    UNKNOWN,
    USBBACK,
    ControllerRecord,
    Recorded,
)
from translator.layouts.identity import domid_of, guards
from translator.planning.plan import SysfsWrite, SysfsWrites, Transaction, Wait, XenstoreOp
from translator.registry.models import CANONICAL, DEVICE_KINDS, ControllerKind, Ports

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from translator.topology import (
        Controller,
        Device,
        DomainIdentity,
        ElementKind,
        HostDevice,
        Place,
        Type,
        Value,
    )
    from translator.topology import Layout as LayoutName

# How long libxl waits for a backend to answer, in seconds (LIBXL_INIT_TIMEOUT) and for one to close.
INIT_TIMEOUT_S = 10
CLOSE_TIMEOUT_S = 20

# libxl spells a controller's type in its own way in one case.
_TYPE_WORDS: dict[Type, str] = {"emulated": "devicemodel", "pv": "pv", "qusb": "qusb"}
_BACKENDS: dict[Type, str] = {"pv": "vusb", "qusb": "qusb"}
_SERVED: dict[str, Type] = {kind: type for type, kind in _BACKENDS.items()}

TOOLSTACK = ("n0",)

# What a port may hold. A backend domain may write anything; of anything else only that it is there is passed on.
_HOST_PATH = re.compile(r"[0-9]+-[0-9]+(\.[0-9]+)*")


class Paths(NamedTuple):
    record: str
    frontend: str
    backend: str


class Libxl:
    """See `translator.layouts.Layout`."""

    name: LayoutName = "libxl"
    pv_ports = Ports(8, 1, 31)
    pv_versions: tuple[int, ...] = (1, 2)

    def controller_id(self, index: int, alias: str | None) -> str:
        return f"xenusb-{index}"

    def controller_index(self, id: str) -> int | None:
        match = re.fullmatch(r"xenusb-(0|[1-9][0-9]{0,8})", id)
        return int(match[1]) if match else None

    def controller_properties(self, ports: int, asked: int | None) -> dict[str, Value]:
        return {"p2": ports, "p3": ports}

    def device_id(self, kind: ElementKind, ordinal: int, alias: str | None, host: HostDevice | None) -> str:
        if host is None:
            # libxl names only what it passes through; these are libvirt's names
            return f"{DEVICE_KINDS[kind].prefix}{ordinal}"
        if host.bus is not None and host.device is not None:
            return f"xenusb-{host.bus}-{host.device}"
        return f"xenusb-{fact(host, 'bus')}-{fact(host, 'device')}"

    def host_properties(self, host: HostDevice) -> dict[str, Value]:
        if host.device is not None:
            return {"hostbus": host.bus, "hostaddr": host.device}
        if host.path is not None:
            bus, _, port = host.path.partition("-")
            return {"hostbus": int(bus), "hostport": port}
        if host.serial is not None:  # which QEMU cannot look for
            return {"hostbus": fact(host, "bus"), "hostaddr": fact(host, "device")}
        return {"vendorid": host.vendor, "productid": host.product}

    def record_controller(self, domain: DomainIdentity, controller: Controller) -> Recorded | None:
        if controller.type == "none":
            return None
        domid, paths = domid_of(domain), self._paths(domain, controller)
        guest, backend = f"r{domid}", backend_domid(controller)
        shape = {
            "type": _TYPE_WORDS[controller.type],
            "usb-ver": str(controller.version),
            "num-ports": str(controller.ports),
            "port": "",
        } | {f"port/{port}": "" for port in range(1, controller.ports + 1)}
        operations = [
            *guards(domain),
            XenstoreOp(
                op="expect-absent",
                path=paths.record,
                why=f"the domain has no other controller {controller.index}",
            ),
        ]
        if controller.type != "emulated":
            operations += (
                XenstoreOp(
                    op="expect-absent", path=path, why=f"nothing is left of an earlier controller {controller.index}"
                )
                for path in (paths.frontend, paths.backend)
            )
        if controller.type == "qusb":
            operations.append(
                XenstoreOp(
                    op="expect",
                    path=f"/local/domain/{backend}/device-model/{domid}/backends/qusb",
                    why="the domain has a device model that serves qusb (a PV guest gets one by vfb= or usbctrl=)",
                )
            )
        state = {"online": "1", "state": str(INITIALISING)}
        first, last = self._record(paths, controller, {"frontend-id": domid} | state | shape)
        operations += parents(paths.record, TOOLSTACK)
        operations += nodes_of(paths.record, first, TOOLSTACK)
        made = [paths.record]
        if controller.type != "emulated":
            owner = f"n{domid}", f"r{backend}"
            served = f"n{backend}", guest
            operations += parents(paths.frontend, ("n0", guest))
            operations += nodes_of(
                paths.frontend,
                {"backend": paths.backend, "backend-id": backend, "state": str(INITIALISING)},
                owner,
            )
            operations += parents(paths.backend, (f"n{backend}",))
            operations += nodes_of(
                paths.backend, {"frontend": paths.frontend, "frontend-id": domid} | state | shape, served
            )
            operations += leaves(paths.record, last, TOOLSTACK)
            made = [paths.frontend, paths.backend, paths.record]
        return Recorded(
            Transaction(tuple(operations)),
            Transaction((*(XenstoreOp(op="rm", path=path) for path in made), *emptied(made))),
        )

    def await_backend(self, domain: DomainIdentity, controller: Controller) -> Recorded | None:
        if controller.type not in _BACKENDS:
            return None
        backend = self._paths(domain, controller).backend
        driver = "usbback" if controller.type == "pv" else "qusb"
        return Recorded(
            Wait(
                f"{backend}/state",
                # a guest that is quick may have taken the backend on from 2 before we look
                tuple(map(str, (INIT_WAIT, INITIALISED, CONNECTED))),
                INIT_TIMEOUT_S,
                refusals=tuple(map(str, (CLOSING, CLOSED))),
                unanswered=f"domain {backend_domid(controller)} has no {driver} driver, or it does not answer",
            ),
            Transaction(
                (
                    XenstoreOp(op="write", path=f"{backend}/online", value="0"),
                    XenstoreOp(op="write", path=f"{backend}/state", value=str(CLOSING)),
                ),
                wait=Wait(f"{backend}/state", (str(CLOSED),), CLOSE_TIMEOUT_S),
            ),
        )

    def release(self, domain: DomainIdentity, controller: Controller, state: int) -> Recorded | None:
        connecting = self.await_backend(domain, controller)
        if connecting is None:
            return None
        paths = self._paths(domain, controller)
        closed, opened = f"{paths.backend}/state", f"{paths.frontend}/state"
        online = f"{paths.backend}/online"
        assert isinstance(connecting.action, Wait)
        return Recorded(
            Transaction(
                (
                    *guards(domain),
                    XenstoreOp(
                        op="expect",
                        path=f"{paths.backend}/frontend",
                        value=paths.frontend,
                        why=f"the domain has a controller {controller.index}",
                    ),
                    XenstoreOp(op="write", path=online, value="0"),
                    XenstoreOp(op="write", path=closed, value=str(CLOSING)),
                ),
                wait=Wait(closed, (str(CLOSED),), CLOSE_TIMEOUT_S),
                otherwise=(
                    XenstoreOp(op="expect", path=closed, value=str(CLOSING)),
                    XenstoreOp(op="write", path=online, value="1"),
                    XenstoreOp(op="write", path=closed, value=str(state)),
                ),
            ),
            # as after a crash of the frontend: both begin again (xenbus' reconnection)
            Transaction(
                (
                    XenstoreOp(op="expect", path=online, value="0"),
                    XenstoreOp(op="write", path=online, value="1"),
                    XenstoreOp(op="write", path=opened, value=str(INITIALISING)),
                    XenstoreOp(op="write", path=closed, value=str(INITIALISING)),
                ),
                wait=connecting.action,
                otherwise=(),
            ),
        )

    def record_device(self, domain: DomainIdentity, controller: Controller, device: Device) -> Recorded | None:
        if device.host is None:
            return None
        paths = self._paths(domain, controller)
        # a path has no dots; libxl writes _ for them elsewhere
        port = (
            f"{paths.record if controller.type == 'emulated' else paths.backend}/port/{device.port.replace('.', '_')}"
        )
        path = fact(device.host, "path")
        ours = f"port {device.port} of controller {controller.index} still has this device"
        free = f"port {device.port} of controller {controller.index} is free"
        if "." in device.port:
            # libxl knows root ports only; behind a hub the node is ours, so that the device is found all the same
            return Recorded(
                Transaction(
                    (
                        *guards(domain),
                        *unclaimed(device.host),
                        XenstoreOp(op="expect-absent", path=port, why=free),
                        XenstoreOp(op="write", path=port, value=path, permissions=TOOLSTACK),
                    )
                ),
                Transaction(
                    (XenstoreOp(op="expect", path=port, value=path, why=ours), XenstoreOp(op="rm", path=port))
                ),
            )
        return Recorded(
            Transaction(
                (
                    *guards(domain),
                    *unclaimed(device.host),
                    XenstoreOp(op="expect", path=port, value="", why=free),
                    XenstoreOp(op="write", path=port, value=path),
                )
            ),
            Transaction(
                (
                    XenstoreOp(op="expect", path=port, value=path, why=ours),
                    XenstoreOp(op="write", path=port, value=""),
                )
            ),
        )

    def borrow(self, controller: Controller, device: Device) -> tuple[Recorded, Recorded] | None:
        if controller.type != "pv" or device.host is None:
            return None
        interface, driver = fact(device.host, "interface"), fact(device.host, "driver")
        lent = f"{USBBACK}/{fact(device.host, 'path_node')}"
        drivers = "/sys/bus/usb/drivers"
        remembered = XenstoreOp(
            op="write",
            path=f"{lent}/{fact(device.host, 'interface_node')}/driver_path",
            value=f"{drivers}/{driver}",
            permissions=TOOLSTACK,
        )
        return (
            Recorded(
                Transaction((XenstoreOp(op="mkdir", path=USBBACK, permissions=TOOLSTACK), remembered)),
                Transaction((XenstoreOp(op="rm", path=lent), XenstoreOp(op="rm-empty", path=USBBACK))),
            ),
            Recorded(
                SysfsWrites(
                    (
                        SysfsWrite(f"{drivers}/{driver}/unbind", interface),
                        SysfsWrite(f"{drivers}/usbback/bind", interface),
                    )
                ),
                SysfsWrites(
                    (
                        SysfsWrite(f"{drivers}/usbback/unbind", interface, if_there=True),
                        SysfsWrite(f"{drivers}/{driver}/bind", interface, if_there=True),
                    )
                ),
            ),
        )

    def record_paths(self, domid: int, place: Place | None = None) -> tuple[str, ...]:
        records = f"/libxl/{domid}/device/vusb/{'*' if place is None else place.controller}"
        paths = tuple(f"{records}/{name}" for name in ("backend", "usb-ver", "num-ports"))
        # of a paravirtual controller the backend's path tells the type
        return (*paths, f"{records}[not(backend)]/type") if place is None else paths

    def further_paths(self, domid: int, nodes: Mapping[str, str], place: Place | None = None) -> tuple[str, ...]:
        paths: list[str] = []
        for index in _indexes(domid, nodes):
            record = f"/libxl/{domid}/device/vusb/{index}"
            if (backend := nodes.get(f"{record}/backend")) is None:
                paths.append(f"{record}/port/*")
            elif _served_by(domid, index, backend) is not None:
                paths += service_paths(domid, index, backend, place)
        return tuple(paths)

    def read_controllers(self, domid: int, nodes: Mapping[str, str]) -> tuple[ControllerRecord, ...]:
        records = []
        taken = occupied(nodes)
        for index in _indexes(domid, nodes):
            record = f"/libxl/{domid}/device/vusb/{index}"
            version, ports = (number(nodes.get(f"{record}/{name}")) for name in ("usb-ver", "num-ports"))
            type: Type | None
            if (ports_of := nodes.get(f"{record}/backend")) is None:
                backend, ports_of = None, record
                type = "emulated" if nodes.get(f"{record}/type") == _TYPE_WORDS["emulated"] else None
            elif served_by := _served_by(domid, index, ports_of):
                type, backend = served_by
            else:
                continue
            if type is None or version is None or ports is None or ControllerKind(type, version) not in CANONICAL:
                continue  # half a record is none: its maker has not finished, or died
            records.append(
                ControllerRecord(
                    index=index,
                    type=type,
                    version=version,
                    ports=ports,
                    backend=backend,
                    state=number(nodes.get(f"{ports_of}/state")),
                    frontend_state=number(nodes.get(f"/local/domain/{domid}/device/vusb/{index}/state")),
                    devices=taken.get(ports_of, {}),
                )
            )
        return tuple(records)

    def recorded_hosts(self, domid: int, nodes: Mapping[str, str]) -> frozenset[tuple[int, int]]:
        return frozenset()  # a port tells

    def _paths(self, domain: DomainIdentity, controller: Controller) -> Paths:
        domid, index = domid_of(domain), controller.index
        kind = _BACKENDS.get(controller.type, "")
        return Paths(
            record=self._record_path(domid, controller),
            # the frontend is called vusb for both PV types: the guest's driver is the same
            frontend=f"/local/domain/{domid}/device/vusb/{index}",
            backend=f"/local/domain/{backend_domid(controller)}/backend/{kind}/{domid}/{index}",
        )

    def _record_path(self, domid: str, controller: Controller) -> str:
        return f"/libxl/{domid}/device/vusb/{controller.index}"

    def _record(
        self, paths: Paths, controller: Controller, served: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return what the record holds before frontend and backend are written, and after them."""
        if controller.type == "emulated":
            state = ("frontend-id", "online", "state")
            return {name: value for name, value in served.items() if name not in state}, {}
        return {"frontend": paths.frontend, "backend": paths.backend}, dict(served)


def service_paths(domid: int, index: int, backend: str, place: Place | None) -> tuple[str, ...]:
    """Return what tells of a paravirtual controller that is recorded: the states of both ends, and its ports.

    With a place, that port alone.
    """
    if place is not None:
        return (f"{backend}/port/{place.port}",)
    return f"/local/domain/{domid}/device/vusb/{index}/state", f"{backend}/state", f"{backend}/port/*"


def backend_roots(domid: int) -> tuple[str, ...]:
    """Return below which nodes domain 0's backends of a guest's USB controllers lie, usbback's first."""
    return tuple(f"/local/domain/0/backend/{kind}/{domid}" for kind in _BACKENDS.values())


def occupied(nodes: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the taken ports by the record or backend that has them, each with the path of what is in it."""
    taken: dict[str, dict[str, str]] = {}
    for path, value in sorted(nodes.items()):
        root, _, port = path.partition("/port/")
        if value and re.fullmatch(r"[0-9]+(_[0-9]+)*", port):
            taken.setdefault(root, {})[port.replace("_", ".")] = value if _HOST_PATH.fullmatch(value) else UNKNOWN
    return taken


def fact(host: HostDevice, name: str) -> str:
    """Return the placeholder of a fact about a host device, see `translator.plan`."""
    return f"${{hostdev:{host.selector}:{name}}}"


def unclaimed(host: HostDevice) -> list[XenstoreOp]:
    """Make sure that no domain has the device: with any protocol, and by the records of any layout.

    Source: is_usbdev_assigned (libxl_usb.c), which looks the same without a transaction.
    """
    why = f"host device {host.selector} is free"
    taken = [
        XenstoreOp(op="expect-nowhere", path=pattern, value=fact(host, "path"), why=why)
        for pattern in (
            "/local/domain/0/backend/vusb/*/*/port/*",
            "/local/domain/0/backend/qusb/*/*/port/*",
            # of a paravirtual controller the backend tells; these are what its ports held when it was made
            "/libxl/*/device/vusb/*[not(backend)]/port/*",
        )
    ]
    record = f"/libxl/*/usb/hostdev-{fact(host, 'bus4')}-{fact(host, 'device4')}"
    return [*taken, XenstoreOp(op="expect-nowhere", path=record, why=why)]


def _indexes(domid: int, nodes: Mapping[str, str]) -> list[int]:
    """Return the devids that have a record, in numerical order whatever order the daemon lists them in."""
    pattern = re.compile(rf"/libxl/{domid}/device/vusb/(0|[1-9][0-9]{{0,8}})/[^/]+")
    return sorted({int(match[1]) for path in nodes if (match := pattern.fullmatch(path))})


def _served_by(domid: int, index: int, path: str) -> tuple[Type, int] | None:
    """Return type and backend's domain of a controller if `path` is where its backend can be, else None."""
    match = re.fullmatch(rf"/local/domain/([0-9]{{1,5}})/backend/(vusb|qusb)/{domid}/{index}", path)
    return (_SERVED[match[2]], int(match[1])) if match else None


def number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else None


def backend_domid(controller: Controller) -> str:
    if isinstance(controller.backend, str):
        return f"${{backend_domid:{controller.backend}}}"
    return str(controller.backend or 0)


def nodes_of(root: str, values: Mapping[str, str], permissions: tuple[str, ...]) -> Iterable[XenstoreOp]:
    """Make `root` and the nodes below it."""
    yield XenstoreOp(op="mkdir", path=root, permissions=permissions)
    yield from leaves(root, values, permissions)


def leaves(root: str, values: Mapping[str, str], permissions: tuple[str, ...]) -> Iterable[XenstoreOp]:
    for name, value in values.items():
        yield XenstoreOp(op="write", path=f"{root}/{name}", value=value, permissions=permissions)


def _between(path: str) -> list[str]:
    """Return what lies between the directory that the toolstack made and `path`, the outermost first."""
    match = re.match(r"/libxl/[^/]+|/local/domain/[^/]+/(?:device|backend)", path)
    root = match[0] if match else ""
    parts = path.removeprefix(root + "/").split("/")[:-1]
    return ["/".join((root, *parts[:depth])) for depth in range(1, len(parts) + 1)]


def parents(path: str, permissions: tuple[str, ...]) -> Iterable[XenstoreOp]:
    return (XenstoreOp(op="mkdir", path=parent, permissions=permissions) for parent in _between(path))


def emptied(made: Iterable[str]) -> Iterable[XenstoreOp]:
    """Remove the parents that the removal of `made` left empty, the deepest first, as libxl does."""
    return (XenstoreOp(op="rm-empty", path=parent) for path in made for parent in reversed(_between(path)))
