"""Where a device goes that is attached to a running domain and does not say where.

A paravirtual controller that the guest has connected to comes first, then an emulated one; the lowest free port
of the first suitable controller. Before all that counts whether the port serves the speed of a host device, where
that is known. Where every one is full, a Xen domain gets another controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from translator.errors import Diagnostic, DocumentError, HostError
from translator.families.usb.speeds import speeds_at
from translator.layouts import CONNECTED, INIT_WAIT, INITIALISED, layout_named
from translator.placing.ports import PortError, PortTree
from translator.registry.models import DEVICE_KINDS, MODELS, brought_along
from translator.topology import PRIMARY, Controller, port_key

if TYPE_CHECKING:
    from collections.abc import Iterable

    from translator.live.observe import Observation
    from translator.registry.models import Speed, UsbModel
    from translator.topology import ElementKind, Topology


class Seat(NamedTuple):
    """A port of a controller; `is_new`: the controller is not there yet, and comes along with the device."""

    controller: Controller
    port: str
    is_new: bool = False


def choose_port(
    seen: Observation,
    kind: ElementKind,
    *,
    controller: int | None = None,
    port: str | None = None,
    usbback: bool = False,
    speed: Speed | None = None,
) -> Seat:
    """Return where a device of that kind goes.

    Args:
        controller: the index of the one that is asked for.
        port: the port of it that is asked for, dotted.
        usbback: whether the backend domain has the kernel's PVUSB backend, for a controller that comes along.
        speed: at which a host device runs; None: not known, and any port will do.

    Raises:
        DocumentError: T317, a port and no controller to count it on.
        HostError: T414, something sits there; T419, there is no such place, or none is free.
    """
    if controller is None:
        if port is not None:
            raise DocumentError(
                [
                    Diagnostic(
                        code="T317",
                        message=f"port {port} is named, and no controller to count it on",
                        help="name the controller too",
                    )
                ]
            )
        return _first_free(seen, kind, usbback, speed)
    named = next((one for one in _usb(seen.topology) if one.index == controller), None)
    if named is None:
        have = ", ".join(str(one.index) for one in _usb(seen.topology)) or "none"
        raise HostError(
            "T419",
            f"the domain has no USB controller {controller}",
            f"it has: {have}; leave the controller out to get one chosen",
        )
    if not _carries(named, kind):
        raise HostError(
            "T419", f"controller {controller} ({named.model}) cannot have a {kind}", "leave the controller out"
        )
    tree = _ports(seen, named)
    free = tree.lowest_free()
    if port is None:
        if free is None:
            raise HostError(
                "T419", f"no port of controller {controller} is free", "leave the controller out to get another one"
            )
        return Seat(named, _dotted(free))
    try:
        tree.take(port_key(port))
    except PortError as error:
        raise _refusal(error, named, free) from error
    return Seat(named, port)


def _first_free(seen: Observation, kind: ElementKind, usbback: bool, speed: Speed | None) -> Seat:
    suitable = [one for one in _usb(seen.topology) if _carries(one, kind) and _works(one, seen)]
    seats = [
        Seat(one, _dotted(free))
        for one in sorted(suitable, key=lambda one: (_rank(one, seen), one.index))
        if (free := _ports(seen, one).lowest_free()) is not None
    ]
    if seats:
        serving = (seat for seat in seats if speed is None or speed in speeds_at(seat.controller, seat.port))
        return next(serving, seats[0])
    domain = seen.topology.domain
    row = brought_along(kind, domain.guest, usbback) if domain.hypervisor == "xen" else None
    if row is None:
        raise HostError(
            "T419",
            f"no controller of the domain has a free port for a {kind}",
            "a guest without emulated USB takes host devices only"
            if domain.guest != "hvm"
            else "add a controller first",
        )
    return Seat(_another(seen.topology, row), "1", is_new=True)


def _usb(topology: Topology) -> tuple[Controller, ...]:
    return tuple(one for one in topology.controllers if one.family == "usb" and one.type != "none")


def _carries(controller: Controller, kind: ElementKind) -> bool:
    """Tell whether the controller can have such a device at all; a PV one only devices of this host."""
    if controller.type != "emulated":
        return kind == "hostdev" and controller.backend == 0
    speeds = DEVICE_KINDS[kind].speeds
    return not speeds or bool(set(speeds) & _speeds(controller))


def _speeds(controller: Controller) -> set[Speed]:
    models = (controller.model, *(one.model for one in controller.companions if one.model in MODELS))
    return {speed for model in models for speed in MODELS[model].speeds}


def _rank(controller: Controller, seen: Observation) -> int:
    """A PV controller that nobody in the guest has connected to may wait for its driver for ever."""
    if controller.type == "emulated":
        return 1
    return 0 if seen.states.get(controller.index, (None, None))[1] == CONNECTED else 2


def _works(controller: Controller, seen: Observation) -> bool:
    """Tell whether a device would get through: QEMU has the controller, or a backend and, if need be, a guest."""
    if controller.type == "emulated":
        return f"controller:usb:{controller.index}" not in seen.lacking
    if _rank(controller, seen) == 0:
        return True
    backend = seen.states.get(controller.index, (None, None))[0]
    return seen.topology.domain.guest != "hvm" and backend in (INIT_WAIT, INITIALISED, CONNECTED)


def _ports(seen: Observation, controller: Controller) -> PortTree:
    """Return the controller's ports with all that sits on them, whoever put it there."""
    topology, index = seen.topology, controller.index
    taken = {
        one.port: DEVICE_KINDS[one.kind].ports
        for one in topology.devices
        if one.family == "usb" and one.controller == index
    }
    taken |= {one.place.port: 0 for one in topology.controllers if one.place and one.place.controller == index}
    taken |= {port: 0 for where, port in seen.foreign if where == index}
    tree = PortTree(controller.ports)
    for port in sorted(taken, key=port_key):
        try:
            tree.take(port_key(port), taken[port])
        except PortError:
            continue  # a host may have what no document could say: a port beyond num-ports, as xl lets through
    return tree


def _another(topology: Topology, row: UsbModel) -> Controller:
    """Return the controller that comes along: one more than the highest index, as libxl numbers them."""
    layout = layout_named(topology.layout)
    index = 1 + max((one.index for one in _usb(topology)), default=-1)
    emulated = row.kind.type == "emulated"
    ports = row.ports.default if emulated else layout.pv_ports.default
    return Controller(
        family="usb",
        index=index,
        model=row.name,
        type=row.kind.type,
        version=row.kind.version,
        interface=row.interface,
        ports=ports,
        id=layout.controller_id(index, None) if emulated else None,
        driver=row.driver,
        device_model=PRIMARY if emulated else None,
        backend=None if emulated else 0,
        companions=(),
        pci=None,
        properties=layout.controller_properties(ports, None) if emulated and not row.ports.fixed else {},
        implicit=True,
        source=None,
    )


def _refusal(error: PortError, controller: Controller, free: tuple[int, ...] | None) -> HostError:
    where = f"controller {controller.index} ({controller.model})"
    if error.kind == "taken":
        help = f"the lowest free port is {_dotted(free)}" if free else "no port of it is free"
        return HostError("T414", f"port {error.port} of {where} is taken", help)
    if error.kind == "hub":
        return HostError("T419", f"there is no hub at port {error.port} of {where}", "attach one there first")
    return HostError("T419", f"there is no port {error.port} on {where}", f"its ports are 1 to {error.size}")


def _dotted(path: Iterable[int]) -> str:
    return ".".join(map(str, path))
