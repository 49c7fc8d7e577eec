"""Two topologies become the list of what differs, in the order of their controllers and ports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from translator.planning.subjects import subject
from translator.topology import Controller, Device, port_key

if TYPE_CHECKING:
    from translator.topology import HostDevice, Topology

Action = Literal["add", "remove", "change"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One controller or device that is in one topology only, or is another in each.

    `id` is that of its main step: `controller:usb:0`, `device:usb:0:1.2`.
    """

    action: Action
    id: str
    before: Controller | Device | None
    after: Controller | Device | None


def changes(old: Topology, new: Topology) -> tuple[Change, ...]:
    """Return the changes that lead from `old` to `new`; ids, sources and what was implicit make no difference."""
    before, after = _parts(old), _parts(new)
    found = []
    for key in sorted(before.keys() | after.keys()):
        was, will = before.get(key), after.get(key)
        if was is not None and will is not None:
            if not _same(was, will):
                found.append(Change(action="change", id=subject(will), before=was, after=will))
        elif will is not None:
            found.append(Change(action="add", id=subject(will), before=None, after=will))
        elif was is not None:
            found.append(Change(action="remove", id=subject(was), before=was, after=None))
    return tuple(found)


def _parts(topology: Topology) -> dict[tuple[str, int, tuple[int, ...]], Controller | Device]:
    # a controller of type none says that there is none, and what is built in makes no difference
    return {
        (one.family, one.index, ()): one for one in topology.controllers if one.type != "none" and not one.built_in
    } | {(one.family, one.controller, port_key(one.port)): one for one in topology.devices}


def _same(one: Controller | Device, other: Controller | Device) -> bool:
    if isinstance(one, Controller) and isinstance(other, Controller):
        return _shape(one) == _shape(other) and not _elsewhere(one.pci, other.pci)
    if isinstance(one, Device) and isinstance(other, Device):
        scsi = None in (one.scsi, other.scsi) or one.scsi == other.scsi
        return one.kind == other.kind and same_host_device(one.host, other.host) and scsi
    return False


def _shape(controller: Controller) -> tuple[object, ...]:
    companions = sorted((one.startport, one.driver) for one in controller.companions)
    shape = controller.type, controller.version, controller.driver, controller.ports, controller.backend
    return *shape, controller.device_model, companions, controller.place


def _elsewhere(one: str | None, other: str | None) -> bool:
    """Tell whether two PCI addresses differ; one that nobody chose is no other."""
    return None not in (one, other) and one != other


def same_host_device(one: HostDevice | None, other: HostDevice | None) -> bool:
    """Tell whether two names are of one device, by the most telling thing that both know."""
    if one is None or other is None:
        return one is other
    if one.path is not None and other.path is not None:
        return one.path == other.path
    if one.device is not None and other.device is not None:
        return (one.bus, one.device) == (other.bus, other.device)
    if one.serial is not None and other.serial is not None and one.serial != other.serial:
        return False
    if one.vendor is None or other.vendor is None:
        return one.serial is not None and one.serial == other.serial
    return (one.vendor, one.product) == (other.vendor, other.product)
