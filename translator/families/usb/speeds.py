"""At which speeds the ports of a controller serve, and which host devices will not do there what they do at home.

A host device's speed is known to its host alone, so this is told where one is bound, and not while planning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.errors import Diagnostic
from translator.families.usb.slots import companion_ports
from translator.layouts import layout_named
from translator.registry.models import ALL, CANONICAL, MODELS, SLOW, ControllerKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from translator.registry.models import Speed
    from translator.topology import Controller, Device, Topology


def speeds_at(controller: Controller, port: str) -> frozenset[Speed]:
    """Return the speeds that a port serves: a companion adds its own to a few, and behind a hub all is slow."""
    if "." in port:
        return frozenset(SLOW)
    speeds = set(MODELS[controller.model].speeds)
    for companion in controller.companions:
        row = MODELS.get(companion.model)
        if row is not None and port.isdigit() and int(port) in companion_ports(row, companion.startport):
            speeds |= set(row.speeds)
    return frozenset(speeds)


def mismatches(topology: Topology, devices: Iterable[Device], speeds: Mapping[str, Speed]) -> tuple[Diagnostic, ...]:
    """Return a warning (T318) for each host device whose speed its port does not serve.

    QEMU and usbback lend a device at its own speed. QEMU runs one slower where its endpoints allow that, which sysfs
    does not tell of all its settings. Source: usb_host_speed_compat (hw/usb/host-libusb.c), usbstub_probe.

    Args:
        speeds: at which the host's devices run, by selector; one that is not known is not judged.
    """
    controllers = {one.index: one for one in topology.controllers if one.family == "usb"}
    found = []
    for device in devices:
        speed = speeds.get(device.host.selector) if device.family == "usb" and device.host else None
        controller = controllers.get(device.controller)
        if speed is None or controller is None or device.host is None:
            continue
        served = speeds_at(controller, device.port)
        if speed in served:
            continue
        better = next(
            (
                one
                for one in controllers.values()
                if one.type == controller.type and speed in MODELS[one.model].speeds
            ),
            None,
        )
        found.append(
            Diagnostic(
                code="T318",
                severity="warning",
                message=f"the guest may not see host device {device.host.selector}: it runs at {speed} speed, and "
                f"port {device.port} of controller {controller.index} ({controller.model}) serves only "
                f"{', '.join(one for one in ALL if one in served)} speed",
                help=f"{'a root port of ' if better is controller else ''}controller {better.index} ({better.model}) "
                "serves it"
                if better
                else _elsewhere(controller, speed, topology),
                line=device.source.line if device.source else None,
                column=device.source.column if device.source else None,
            )
        )
    return tuple(found)


def _elsewhere(controller: Controller, speed: Speed, topology: Topology) -> str:
    """Say what would serve the speed: a controller of the same type if there is one, else an emulated one."""
    models = ["qemu-xhci"] if topology.domain.guest == "hvm" else []
    if controller.type in ("pv", "qusb"):
        kinds = (ControllerKind(controller.type, version) for version in layout_named(topology.layout).pv_versions)
        models = [CANONICAL[kind].name for kind in kinds if kind in CANONICAL] + models
    for model in models:
        if speed in MODELS[model].speeds:
            return f"give it a controller that does, such as {model!r}"
    return "no controller of this guest can; plugged into a USB 2 port or hub of the host the device runs slower"
