"""Where a domain's USB records live and what its devices are called, one module for each way.

A layout works both ways: the compiler writes with it and the observer reads with it, so what we write and what
we read cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from translator.topology import Type

if TYPE_CHECKING:
    from translator.planning.plan import Action
    from translator.registry.models import Ports
    from translator.topology import Controller, Device, DomainIdentity, ElementKind, HostDevice, Place, Value
    from translator.topology import Layout as LayoutName


# XenbusState, xen/include/public/io/xenbus.h
INITIALISING, INIT_WAIT, INITIALISED, CONNECTED, CLOSING, CLOSED = range(1, 7)

# The host port path of what a port holds when that is no path.
UNKNOWN = "unknown"
# Where it stands which drivers a host device's interfaces had before the kernel's backend got them.
USBBACK = "/libxl/usbback"


class Recorded(NamedTuple):
    """An action on the host's records, and the one that takes it back."""

    action: Action
    undo: Action


class ControllerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A controller as the records of a host have it; `devices` maps a taken port to the host port path in it.

    `state` is the XenbusState of the backend, `frontend_state` that of the guest's side; None for emulated ones.
    """

    index: int
    type: Type
    version: int
    ports: int
    backend: int | None
    state: int | None
    frontend_state: int | None
    devices: Mapping[str, str]


class Layout(Protocol):
    """What a stage may ask of a layout."""

    name: LayoutName
    pv_ports: Ports
    pv_versions: tuple[int, ...]

    def controller_id(self, index: int, alias: str | None) -> str:
        """Return the id of the controller's device in QEMU; its bus is that id with `.0` behind it."""

    def controller_index(self, id: str) -> int | None:
        """Return the index of the controller that `controller_id` gives this id without an alias."""

    def controller_properties(self, ports: int, asked: int | None) -> dict[str, Value]:
        """Return how QEMU is told the ports of a controller that lets one choose; `asked` is the document's."""

    def device_id(self, kind: ElementKind, ordinal: int, alias: str | None, host: HostDevice | None) -> str:
        """Return the id of a device in QEMU."""

    def host_properties(self, host: HostDevice) -> dict[str, Value]:
        """Return the properties that name the host's device to QEMU."""

    def record_controller(self, domain: DomainIdentity, controller: Controller) -> Recorded | None:
        """Return what makes the controller known on the host; None where this layout keeps no records."""

    def await_backend(self, domain: DomainIdentity, controller: Controller) -> Recorded | None:
        """Return the wait for the backend of a PV controller; None where there is none."""

    def release(self, domain: DomainIdentity, controller: Controller, state: int) -> Recorded | None:
        """Return what makes the guest and the backend, whose state is `state`, let go of a PV controller.

        What takes it back holds also when both have let go, and does nothing when the controller is made anew.
        None where the controller has no backend.
        """

    def record_device(self, domain: DomainIdentity, controller: Controller, device: Device) -> Recorded | None:
        """Return what gives the host's device to the controller's port on the host's records."""

    def borrow(self, controller: Controller, device: Device) -> tuple[Recorded, Recorded] | None:
        """Return what notes a host device's drivers, and what exchanges them for the PV backend's; None: not needed.

        They follow the device's record and are undone before it, so that no other guest gets the device before the
        host's drivers have it again.
        """

    def record_paths(self, domid: int, place: Place | None = None) -> tuple[str, ...]:
        """Return the nodes that tell of the domain's controllers, `*` for one component; none: no records.

        With a place, those that tell of the paravirtual controller there, if it is one.
        """

    def further_paths(self, domid: int, nodes: Mapping[str, str], place: Place | None = None) -> tuple[str, ...]:
        """Return the other nodes to read, as the records (nodes by absolute path) tell; none that a guest names.

        In the guest's own directory each is a single node: it may write what it likes there, and as much. With a
        place, no more than what that port holds.
        """

    def read_controllers(self, domid: int, nodes: Mapping[str, str]) -> tuple[ControllerRecord, ...]:
        """Return the domain's controllers, by index, from the nodes of all those paths."""

    def recorded_hosts(self, domid: int, nodes: Mapping[str, str]) -> frozenset[tuple[int, int]]:
        """Return bus and device numbers of the host devices that have a record which names no port."""


def layout_named(name: LayoutName) -> Layout:
    """Return the layout of that name."""
    if name == "libxl":
        from translator.layouts.libxl import Libxl

        return Libxl()
    if name == "qemu":
        from translator.layouts.qemu import Qemu

        return Qemu()
    if name == "rfc7":
        from translator.layouts.rfc7 import Rfc7

        return Rfc7()
    raise ValueError(f"there is no layout {name!r}")
