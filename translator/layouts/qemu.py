"""QEMU/KVM domains: no records in xenstore, and libvirt's aliases for ids.

Source: libvirt's `qemuAssignDeviceAliases` (qemu/qemu_alias.c) and `qemuBuildUSBHostdevDevProps`, as observed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.registry.models import DEVICE_KINDS, Ports

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.layouts import ControllerRecord, Recorded
    from translator.topology import Controller, Device, DomainIdentity, ElementKind, HostDevice, Place, Value
    from translator.topology import Layout as LayoutName


class Qemu:
    """See `translator.layouts.Layout`."""

    name: LayoutName = "qemu"
    pv_ports = Ports(0, 0, 0)
    pv_versions: tuple[int, ...] = ()

    def controller_id(self, index: int, alias: str | None) -> str:
        return alias or f"usb{index or ''}"

    def controller_index(self, id: str) -> int | None:
        match = re.fullmatch(r"usb([1-9][0-9]{0,8})?", id)
        return int(match[1] or 0) if match else None

    def controller_properties(self, ports: int, asked: int | None) -> dict[str, Value]:
        return {} if asked is None else {"p2": asked, "p3": asked}

    def device_id(self, kind: ElementKind, ordinal: int, alias: str | None, host: HostDevice | None) -> str:
        return alias or f"{DEVICE_KINDS[kind].prefix}{ordinal}"

    def host_properties(self, host: HostDevice) -> dict[str, Value]:
        if host.device is not None:
            return {"hostdevice": host.node}
        return {"hostdevice": f"${{hostdev:{host.selector}:node}}"}

    def record_controller(self, domain: DomainIdentity, controller: Controller) -> Recorded | None:
        return None

    def await_backend(self, domain: DomainIdentity, controller: Controller) -> Recorded | None:
        return None

    def release(self, domain: DomainIdentity, controller: Controller, state: int) -> Recorded | None:
        return None

    def record_device(self, domain: DomainIdentity, controller: Controller, device: Device) -> Recorded | None:
        return None

    def borrow(self, controller: Controller, device: Device) -> tuple[Recorded, Recorded] | None:
        return None

    def record_paths(self, domid: int, place: Place | None = None) -> tuple[str, ...]:
        return ()

    def further_paths(self, domid: int, nodes: Mapping[str, str], place: Place | None = None) -> tuple[str, ...]:
        return ()

    def read_controllers(self, domid: int, nodes: Mapping[str, str]) -> tuple[ControllerRecord, ...]:
        return ()

    def recorded_hosts(self, domid: int, nodes: Mapping[str, str]) -> frozenset[tuple[int, int]]:
        return frozenset()
