"""The parts of a topology: what they are called in a message, and what stands on what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.topology import Controller, Device

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.topology import Topology


def subject(part: Controller | Device) -> str:
    """Return the id of the steps that serve a controller or device, without a step's part."""
    if isinstance(part, Controller):
        return f"controller:{part.family}:{part.index}"
    return f"device:{part.family}:{part.controller}:{part.port}"


def parts_of(topology: Topology) -> Mapping[str, Controller | Device]:
    parts: list[Controller | Device] = [*topology.controllers, *topology.devices]
    return {subject(part): part for part in parts}


def stands_on(part: Controller | Device, topology: Topology) -> set[str]:
    """Return the subjects that the part stands on: hubs, card readers and controllers."""
    if isinstance(part, Controller):
        return set() if part.place is None else _way(part.place.controller, part.place.port)
    if part.family == "usb":
        return _way(part.controller, part.port) - {subject(part)}
    if part.family != "ccid":
        return {f"controller:{part.family}:{part.controller}"}
    readers = {f"controller:{one.family}:{one.index}": one for one in topology.controllers if one.family == "ccid"}
    id = f"controller:ccid:{part.controller}"
    return {id} | stands_on(readers[id], topology)


def _way(controller: int, port: str) -> set[str]:
    way = {f"controller:usb:{controller}"}
    while port:
        way.add(f"device:usb:{controller}:{port}")
        port = port.rpartition(".")[0]
    return way


def model_at(topology: Topology, index: int) -> str | None:
    return next((one.device_model for one in topology.controllers if (one.family, one.index) == ("usb", index)), None)


def model_of(topology: Topology, device: Device) -> str | None:
    if device.family == "usb":
        return model_at(topology, device.controller)
    return next((one.device_model for one in topology.controllers if one.family == device.family), None)


def told(part: Controller | Device) -> str:
    if isinstance(part, Device):
        named = part.host or part.scsi
        return f"host device {named.selector}" if named else f"a {part.kind}"
    return f"{part.model} ({part.type}, {part.ports} ports)"
