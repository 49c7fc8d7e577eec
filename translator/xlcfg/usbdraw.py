"""The controllers and devices of a file in xl's language as elements of domain XML."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lxml.etree import _Element

    from translator.xlcfg.draft import Draft
    from translator.xlcfg.usb import Device, Usb


def draw(usb: Usb, draft: Draft, devices: _Element, targets: Iterable[str]) -> None:
    """Add the elements; `targets` are the disk targets that others have."""
    for controller in usb.controllers:
        draft.add(
            devices,
            "controller",
            {"type": "usb", "index": controller.index, "model": controller.model, "ports": controller.ports},
            at=controller.source,
        )
    if usb.off is not None:
        draft.add(devices, "controller", {"type": "usb", "index": 0, "model": "none"}, at=usb.off)
    free = (f"sd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz" if f"sd{letter}" not in set(targets))
    for device in usb.devices:
        _draw_device(device, draft, devices, free)


def _draw_device(device: Device, draft: Draft, devices: _Element, targets: Iterable[str]) -> None:
    if device.kind == "hostdev":
        element = draft.add(
            devices, "hostdev", {"mode": "subsystem", "type": "usb", "managed": "no"}, at=device.source
        )
        source = draft.add(element, "source")
        host = device.host or {}
        for name in ("vendor", "product"):
            if name in host:
                draft.add(source, name, {"id": host[name]})
        if "bus" in host:
            draft.add(source, "address", {name: host.get(name) for name in ("bus", "device", "port")})
    elif device.kind == "hub":
        element = draft.add(devices, "hub", {"type": "usb"}, at=device.source)
    elif device.kind == "disk":
        assert device.file is not None
        element = draft.add(devices, "disk", {"type": "file", "device": "disk"}, at=device.source)
        draft.add(element, "driver", {"name": "qemu", "type": device.file[1]})
        draft.add(element, "source", {"file": device.file[0]})
        draft.add(element, "target", {"dev": next(iter(targets), "sdz"), "bus": "usb"})
    else:
        element = draft.add(devices, "input", {"type": device.kind, "bus": "usb"}, at=device.source)
    if device.controller is not None or device.port is not None:
        draft.add(
            element, "address", {"type": "usb", "bus": device.controller, "port": device.port}, at=device.source
        )
