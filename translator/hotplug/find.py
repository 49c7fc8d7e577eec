"""Which controller or device of a running domain is meant, by a word or by an element of a fragment."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.document.domain import ControllerElement
from translator.errors import HostError
from translator.hosts.sysfs import fits
from translator.hotplug.words import PLAIN, parse_device_word
from translator.planning.subjects import parts_of, subject
from translator.topology import Controller, Device
from translator.units import dotted

if TYPE_CHECKING:
    from translator.document.domain import DeviceElement, Domain
    from translator.hotplug.growing import Facts, Part
    from translator.topology import Topology


def find_part(topology: Topology, name: str) -> Part:
    """Return the controller or device that is meant.

    Args:
        name: its id in QEMU or alias; `1:2.1`, the port of a USB controller; `controller:1`, a USB controller;
            `controller:scsi:1` or `device:scsi:1:0.0.3`, whatever its family; or what it was attached by:
            `hostdev:1.8`, `tablet`.

    Raises:
        DocumentError: T340, the word is no device.
        HostError: T438, nothing of it is attached; T439, several things are.
    """
    parts = parts_of(topology)
    if fitting := [part for part in parts.values() if part.id == name]:
        return fitting[0]
    if name in parts:
        return parts[name]
    usb = [one for one in topology.controllers if one.family == "usb"]
    if match := re.fullmatch(r"controller:([0-9]{1,9})", name):
        return _one(topology, name, [one for one in usb if one.index == int(match[1])])
    if match := re.fullmatch(r"([0-9]{1,9}):([0-9]{1,3}(?:\.[0-9]{1,3}){0,3})", name):
        place = int(match[1]), match[2]
        there = [one for one in topology.devices if one.family == "usb" and (one.controller, one.port) == place]
        return _one(topology, name, there)
    if name.startswith("controller:"):
        model = name.partition(":")[2].partition(",")[0]
        return _one(topology, name, [one for one in usb if one.model == model])
    if name.startswith("hostdev:"):
        wanted = parse_device_word(name).host
        assert wanted is not None
        return _one(topology, name, [one for one in topology.devices if one.host and fits(one.host, wanted)])
    if name in PLAIN:
        return _one(topology, name, [one for one in topology.devices if one.kind == PLAIN[name]])
    return _one(topology, name, [])


def find_element(
    topology: Topology, element: ControllerElement | DeviceElement, fragment: Domain, facts: Facts
) -> Part:
    """Return what an element of a fragment describes.

    By index or place, else by what it is on the host: a device, an image or a channel's name; else by alias or kind.
    Where a disk's letters would put it is no place: on the host it may be elsewhere.

    Raises:
        HostError: as `find_part`.
    """
    if isinstance(element, ControllerElement):
        return _controller(topology, element)
    name = _place_of(element)
    if name is not None:
        return find_part(topology, name)
    if element.host is not None:
        return find_part(topology, f"hostdev:{element.host.selector}")
    candidates = [one for one in topology.devices if one.family == element.family and one.kind == element.kind]
    if element.scsi is not None:
        known = facts.scsi.get(element.scsi.selector)
        names = {element.scsi} | ({known.device} if known else set())
        nodes = {known.generic} - {None} if known else set()
        fitting = [one for one in candidates if one.scsi in names or _image(one, facts) in nodes]
        return _one(topology, f"SCSI device {element.scsi.selector}", fitting)
    image = fragment.disks[element.disk].image if element.disk is not None else None
    if image is not None:
        fitting = [one for one in candidates if _image(one, facts) == image.path]
        return _one(topology, f"a {element.kind} with {image.path}", fitting)
    if element.name is not None:
        fitting = [one for one in candidates if one.properties.get("name") == element.name]
        return _one(topology, f"{element.kind} {element.name}", fitting)
    if element.alias is not None:
        return find_part(topology, element.alias)
    return _one(topology, f"a {element.kind}", candidates)


def _controller(topology: Topology, element: ControllerElement) -> Part:
    there = [one for one in topology.controllers if one.family == element.family]
    if element.index is not None:
        what = f"{element.family} controller {element.index}"
        return _one(topology, what, [one for one in there if one.index == element.index])
    if element.family == "usb":
        return find_part(topology, f"controller:{element.model or 'usb'}")
    fitting = [one for one in there if element.model in (None, one.model)]
    return _one(topology, f"a {element.family} controller", fitting)


def _place_of(element: DeviceElement) -> str | None:
    """Return where an element says that it is, as `find_part` reads it."""
    if element.unit is not None:
        return f"device:{element.family}:{element.unit.controller}:{dotted(element.unit.unit)}"
    address = element.address
    if address is not None and address.port is not None:
        return f"{address.bus or 0}:{address.port}"
    return None


def _image(device: Device, facts: Facts) -> str | None:
    """Return the file behind a device in QEMU."""
    drive = device.properties.get("drive")
    return facts.images.get(drive) if isinstance(drive, str) else None


def _one(topology: Topology, name: str, fitting: list[Controller] | list[Device]) -> Part:
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise HostError(
            "T439",
            f"{len(fitting)} of what {topology.domain.name!r} has are {name!r}",
            f"name one by its place: {', '.join(map(_place, fitting))}",
        )
    parts: list[Part] = [*topology.controllers, *topology.devices]
    have = ", ".join(map(_place, parts))
    raise HostError(
        "T438",
        f"{name!r} is not attached to {topology.domain.name!r}",
        f"it has: {have}" if have else "it has no controller and no device",
    )


def _place(part: Part) -> str:
    if isinstance(part, Controller):
        name = f"controller:{part.index}" if part.family == "usb" else part.id or subject(part)
        return f"{name} ({part.model})"
    named = part.host or part.scsi
    what = f"hostdev:{named.selector}" if named else part.kind
    if part.family == "usb":
        return f"{part.controller}:{part.port} ({what})"
    return f"{part.id if part.driver else subject(part)} ({what})"
