"""PV SCSI in xenstore: what the toolstack writes for Linux' xen-scsiback, and what is read back.

A controller has a record below /libxl, a frontend in the guest's directory and a backend in the backend domain's;
its devices are directories of the backend, each with a state of its own. To add or remove one on a live controller,
the controller is told to reconfigure. Source: xen/include/public/io/vscsiif.h, the section on the xenstore format.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.layouts import CLOSED, CLOSING, CONNECTED, INIT_WAIT, INITIALISED, INITIALISING, UNKNOWN, Recorded
from translator.layouts.identity import domid_of, guards
from translator.layouts.libxl import (
    CLOSE_TIMEOUT_S,
    INIT_TIMEOUT_S,
    TOOLSTACK,
    backend_domid,
    emptied,
    nodes_of,
    number,
    parents,
)
from translator.planning.plan import Transaction, Wait, XenstoreOp
from translator.topology import Controller, Device, ScsiHost

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from translator.topology import DomainIdentity

RECONFIGURING = 7  # XenbusState
_RECORDED = ("p-dev", "p-devname")  # which device of the host it is, as the backend and as the toolstack was told
_PHYSICAL = re.compile(r"([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9})")
_WWN = re.compile(r"((?:naa|eui|t10)\.[0-9A-Za-z]{1,64}):([0-9]{1,9})")
_NAME = re.compile(r"dev-(0|[1-9][0-9]{0,8})")
_BACKEND = r"/local/domain/(0|[1-9][0-9]{{0,4}})/backend/vscsi/{domid}/{index}"


def directory(unit: tuple[int, ...]) -> str:
    """Return the name of a device's directory: the same unit has the same, and no two units have one."""
    channel, target, lun = unit
    return f"dev-{(channel * 256 + target) * 16384 + lun}"


def record_controller(domain: DomainIdentity, controller: Controller) -> Recorded:
    """Return what makes a controller known to the guest and the backend, and what removes it."""
    domid, backend_id = domid_of(domain), backend_domid(controller)
    record, frontend, backend = _paths(domain, controller)
    guest = f"r{domid}"
    clean = f"nothing is left of an earlier SCSI controller {controller.index}"
    operations = [
        *guards(domain),
        *(XenstoreOp(op="expect-absent", path=path, why=clean) for path in (record, frontend, backend)),
        *parents(record, TOOLSTACK),
        *nodes_of(record, {"frontend": frontend, "backend": backend}, TOOLSTACK),
        *parents(frontend, ("n0", guest)),
        *nodes_of(
            frontend,
            {"backend": backend, "backend-id": backend_id, "state": str(INITIALISING)},
            (f"n{domid}", f"r{backend_id}"),
        ),
        *parents(backend, (f"n{backend_id}",)),
        *nodes_of(
            backend,
            {
                "frontend": frontend,
                "frontend-id": domid,
                "online": "1",
                "state": str(INITIALISING),
                "feature-host": "0",
                "libxl_ctrl_index": str(controller.index),
                "vscsi-devs": "",
            },
            (f"n{backend_id}", guest),
        ),
    ]
    made = [frontend, backend, record]
    return Recorded(
        Transaction(tuple(operations)),
        Transaction((*(XenstoreOp(op="rm", path=path) for path in made), *emptied(made))),
    )


def await_controller(domain: DomainIdentity, controller: Controller, *, connected: bool) -> Recorded:
    """Return the wait for the backend, until it serves the guest where `connected`; and the end of its service."""
    backend = _paths(domain, controller)[2]
    states = (CONNECTED,) if connected else (INIT_WAIT, INITIALISED, CONNECTED)
    return Recorded(
        Wait(f"{backend}/state", tuple(map(str, states)), INIT_TIMEOUT_S),
        Transaction(
            (
                XenstoreOp(op="write", path=f"{backend}/online", value="0"),
                XenstoreOp(op="write", path=f"{backend}/state", value=str(CLOSING)),
            ),
            wait=Wait(f"{backend}/state", (str(CLOSED),), CLOSE_TIMEOUT_S),
        ),
    )


def record_device(domain: DomainIdentity, controller: Controller, device: Device) -> Recorded:
    """Return what gives a device to a live controller, and what forgets one that the backend has let go of."""
    backend = _paths(domain, controller)[2]
    own = f"{backend}/vscsi-devs/{device.id}"
    selector = device.scsi.selector if device.scsi else UNKNOWN
    values = {
        "p-dev": str(device.properties.get("p-dev", f"${{scsi:{selector}:pdev}}")),
        "p-devname": str(device.properties.get("p-devname", f"${{scsi:{selector}:name}}")),
        "v-dev": f"{controller.index}:{device.port.replace('.', ':')}",
        "state": str(INITIALISING),
    }
    permissions = (f"n{backend_domid(controller)}", f"r{domid_of(domain)}")
    live = f"the guest's driver has SCSI controller {controller.index}"
    free = f"unit {device.port} of SCSI controller {controller.index} is free"
    return Recorded(
        Transaction(
            (
                *guards(domain),
                XenstoreOp(op="expect", path=f"{backend}/state", value=str(CONNECTED), why=live),
                XenstoreOp(op="expect-absent", path=own, why=free),
                # a driver domain's devices are its own: those of the same place here are others
                XenstoreOp(
                    op="expect-nowhere",
                    path=f"/local/domain/{backend_domid(controller)}/backend/vscsi/*/*/vscsi-devs/*/p-dev",
                    value=values["p-dev"],
                    why=f"SCSI device {selector} is free",
                ),
                *nodes_of(own, values, permissions),
                XenstoreOp(op="write", path=f"{backend}/state", value=str(RECONFIGURING)),
            )
        ),
        Transaction((XenstoreOp(op="rm", path=own),)),
    )


def await_device(domain: DomainIdentity, controller: Controller, device: Device) -> Recorded:
    """Return the wait until the guest has the device, and what lets it go of it."""
    backend = _paths(domain, controller)[2]
    state = f"{backend}/vscsi-devs/{device.id}/state"
    return Recorded(
        Wait(state, (str(CONNECTED),), INIT_TIMEOUT_S),
        Transaction(
            (
                XenstoreOp(op="write", path=state, value=str(CLOSING)),
                XenstoreOp(op="write", path=f"{backend}/state", value=str(RECONFIGURING)),
            ),
            wait=Wait(state, (str(CLOSED),), CLOSE_TIMEOUT_S),
        ),
    )


def await_settled(domain: DomainIdentity, controller: Controller) -> Recorded:
    """Return the wait until the controller has done with its reconfiguration; there is nothing to take back."""
    backend = _paths(domain, controller)[2]
    return Recorded(Wait(f"{backend}/state", (str(CONNECTED),), INIT_TIMEOUT_S), Transaction(()))


class Farewell(NamedTuple):
    """How a device or a controller leaves, and how each part of that is taken back.

    ready  it is in service, and has done with what it was told before; what has let go by the time that this is
           undone, before which all the rest is, is given again
    told   it is told; one that has not let go hears that it stays
    gone   it has let go
    back   a device's nodes, as they were when it had let go
    """

    ready: Recorded
    told: Recorded
    gone: Recorded
    back: Transaction | None = None


def leave_controller(domain: DomainIdentity, controller: Controller) -> Farewell:
    """Return how a controller leaves that has no devices any more."""
    _, frontend, backend = _paths(domain, controller)
    state = f"{backend}/state"

    def served(value: int, online: str) -> tuple[XenstoreOp, ...]:
        return (
            XenstoreOp(op="write", path=f"{backend}/online", value=online),
            XenstoreOp(op="write", path=state, value=str(value)),
        )

    again = XenstoreOp(op="write", path=f"{frontend}/state", value=str(INITIALISING))
    return _farewell(
        state,
        ready=Wait(state, tuple(map(str, (INIT_WAIT, INITIALISED, CONNECTED))), INIT_TIMEOUT_S),
        leave=served(CLOSING, "0"),
        stay=served(CONNECTED, "1"),
        again=(again, *served(INITIALISING, "1")),
    )


def leave_device(domain: DomainIdentity, controller: Controller, device: Device) -> Farewell:
    """Return how a device leaves a controller that goes on."""
    backend = _paths(domain, controller)[2]
    state = f"{backend}/vscsi-devs/{device.id}/state"
    reconfigure = XenstoreOp(op="write", path=f"{backend}/state", value=str(RECONFIGURING))

    def now(value: int) -> XenstoreOp:
        return XenstoreOp(op="write", path=state, value=str(value))

    given = record_device(domain, controller, device).action
    assert isinstance(given, Transaction)
    back = (
        msgspec.structs.replace(one, value=str(CLOSED)) if one.path == state else one
        for one in given.transaction
        if one != reconfigure
    )
    return _farewell(
        state,
        ready=Wait(f"{backend}/state", (str(CONNECTED),), INIT_TIMEOUT_S),
        leave=(now(CLOSING), reconfigure),
        stay=(now(CONNECTED),),
        again=(now(INITIALISING), reconfigure),
    )._replace(back=Transaction(tuple(back)))


def _farewell(
    state: str,
    *,
    ready: Wait,
    leave: tuple[XenstoreOp, ...],
    stay: tuple[XenstoreOp, ...],
    again: tuple[XenstoreOp, ...],
) -> Farewell:
    def expect(value: int) -> XenstoreOp:
        return XenstoreOp(op="expect", path=state, value=str(value))

    settled = Wait(ready.path, (str(CONNECTED),), INIT_TIMEOUT_S)
    return Farewell(
        Recorded(ready, Transaction((expect(CLOSED), *again), wait=settled, otherwise=())),
        # who was told may be about to answer: what becomes of that, the next undo sees
        Recorded(Transaction(leave), Transaction((expect(CLOSING), *stay), wait=settled)),
        Recorded(
            Wait(state, (str(CLOSED),), CLOSE_TIMEOUT_S, unanswered="removal pending in the guest"), Transaction(())
        ),
        None,
    )


def record_root(domid: int) -> str:
    """Return the path below which a domain's controllers are recorded."""
    return f"/libxl/{domid}/device/vscsi"


def backends(domid: int, nodes: Mapping[str, str]) -> dict[int, str]:
    """Return the backend's path of each controller that is recorded, by index; none but a backend's is believed."""
    found: dict[int, str] = {}
    for path, value in nodes.items():
        match = re.fullmatch(rf"{record_root(domid)}/(0|[1-9][0-9]{{0,8}})/backend", path)
        if match and re.fullmatch(_BACKEND.format(domid=domid, index=match[1]), value):
            found[int(match[1])] = value
    return found


def read(domid: int, nodes: Mapping[str, str]) -> Iterator[tuple[Controller, int | None, tuple[Device, ...]]]:
    """Yield the controllers with their backends' states and their devices, by index."""
    for index, path in sorted(backends(domid, nodes).items()):
        state = number(nodes.get(f"{path}/state"))
        controller = Controller(
            family="scsi",
            index=index,
            model="xenscsi",
            type="pv",
            version=None,
            interface="pvscsi",
            ports=0,
            id=None,
            driver=None,
            device_model=None,
            backend=int(path.split("/")[3]),
            companions=(),
            pci=None,
            properties={},
            implicit=False,
            source=None,
        )
        yield controller, state, tuple(_devices(index, path, nodes))


def _devices(index: int, backend: str, nodes: Mapping[str, str]) -> Iterator[Device]:
    root = f"{backend}/vscsi-devs"
    for path, virtual in sorted(nodes.items()):
        name = path.removeprefix(f"{root}/").removesuffix("/v-dev")
        place = _PHYSICAL.fullmatch(virtual)
        if path != f"{root}/{name}/v-dev" or not _NAME.fullmatch(name) or place is None:
            continue
        if nodes.get(f"{root}/{name}/state") == str(CLOSED):
            continue
        yield Device(
            family="scsi",
            kind="hostdev",
            id=name,
            driver=None,
            controller=index,
            port=".".join(place.groups()[1:]),
            host=None,
            properties={key: nodes.get(f"{root}/{name}/{key}", "") for key in _RECORDED},
            implicit=False,
            source=None,
            scsi=_host(nodes.get(f"{root}/{name}/p-dev", "")),
        )


def _host(physical: str) -> ScsiHost | None:
    """Return what a p-dev names; a backend domain may write anything, and of anything else nothing is known."""
    if match := _PHYSICAL.fullmatch(physical):
        host, channel, target, lun = map(int, match.groups())
        return ScsiHost(host=host, channel=channel, target=target, lun=lun)
    if match := _WWN.fullmatch(physical):
        return ScsiHost(wwn=match[1], lun=int(match[2]))
    return None


def _paths(domain: DomainIdentity, controller: Controller) -> tuple[str, str, str]:
    domid = domid_of(domain)
    return (
        f"/libxl/{domid}/device/vscsi/{controller.index}",
        f"/local/domain/{domid}/device/vscsi/{controller.index}",
        f"/local/domain/{backend_domid(controller)}/backend/vscsi/{domid}/{controller.index}",
    )
