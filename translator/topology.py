"""What sits where: every controller, hub and port of one domain, named; nothing implicit is left.

A topology is what `resolve` makes of a document and what `observe` reads off a host, so that diff,
apply and verify are one comparison of two of them. Field order is the contract's JSON key order.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from translator.errors import Source

Hypervisor = Literal["xen", "qemu", "kvm"]
Guest = Literal["hvm", "pv", "pvh"]
Type = Literal["emulated", "pv", "qusb", "none"]
Kind = Literal[
    "hostdev",
    "redirdev",
    "tablet",
    "mouse",
    "keyboard",
    "hub",
    "disk",
    "smartcard",
    "sound",
    "serial",
    "net",
    "channel",
    "console",
]
# XenbusState, xen/include/public/io/xenbus.h, by number from 1; None is none of them
XenbusState = Literal[
    "initialising", "waiting", "initialised", "connected", "closing", "closed", "reconfiguring", "reconfigured"
]
# what may sit on a USB port: a ccid controller too, which is no device in a topology
ElementKind = Kind | Literal["ccid"]
Family = str  # a name in translator.families, or ccid, which has USB for a family
Layout = Literal["libxl", "rfc7", "qemu"]

PARAVIRTUAL_TYPES: tuple[Type, ...] = ("pv", "qusb")  # served by a backend, the kernel's or QEMU's
NIL_UUID = "00000000-0000-0000-0000-000000000000"  # what a QEMU says of itself that was started without one
# Xen has no domain beyond. Source: DOMID_FIRST_RESERVED (xen/include/public/xen.h), less one.
DOMID_MAX = 0x7FF0 - 1
PRIMARY = "primary"  # the device model that every domain has
# Another one's: part of a socket's file name and a node of xenstore.
DEVICE_MODEL_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}", re.ASCII)

# What goes over QMP: any JSON value; a device's properties are flat, but what QEMU answers nests.
Value = str | int | bool | list[Any] | dict[str, Any] | None


class DomainIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Which guest this is about. `domid` is None until the plan is bound to a running Xen domain."""

    name: str
    uuid: str | None
    hypervisor: Hypervisor
    guest: Guest
    arch: str
    machine: str
    domid: int | None


class DeviceModel(msgspec.Struct, frozen=True, kw_only=True):
    """One QEMU process; `pci`, `mmio` and `pio` list what it claims when a domain has several.

    `emulator` is the program and `qmp` its monitor's socket, as a path, where they are known.
    """

    name: str
    emulator: str | None = None
    qmp: str | None = None
    pci: tuple[dict[str, int], ...] = ()
    mmio: tuple[dict[str, int], ...] = ()
    pio: tuple[dict[str, int], ...] = ()


class Companion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A controller that serves the slower devices of its master's ports from `startport` (0-based) on.

    `after` is the index of the controller behind which QEMU is told of it, where that is not its master.
    """

    model: str
    driver: str
    startport: int
    pci: str | None
    properties: dict[str, Value]
    source: Source | None
    after: int | None = None


class Place(msgspec.Struct, frozen=True):
    """A port of a USB controller: the controller's index, and the port, dotted, from 1."""

    controller: int
    port: str


class Controller(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One controller.

    `index` is libvirt's (and libxl's devid); `version` is the USB generation, None for type none;
    `id` is its name in QEMU, None where QEMU has no device for it; `backend` is the domain that
    serves a PV controller (a domid, or a name while unresolved); `pci` is `DDDD:BB:SS.F`, None where QEMU
    chooses; `properties` are the QEMU properties beyond identity and place, in QEMU's order; `place` is the USB
    port that a controller of family ccid sits on; `frontend` is the state in which the guest's driver of a PV one
    was seen. `built_in` is one that a machine has of itself, or that only who makes the domain can give it: no step
    brings it.
    """

    family: Family
    index: int
    model: str
    type: Type
    version: int | None
    interface: str
    ports: int
    id: str | None
    driver: str | None
    device_model: str | None
    backend: int | str | None
    companions: tuple[Companion, ...]
    pci: str | None
    properties: dict[str, Value]
    implicit: bool
    source: Source | None
    place: Place | None = None
    frontend: XenbusState | None = None
    built_in: bool = False


class HostDevice(msgspec.Struct, frozen=True, kw_only=True):
    """How a host's USB device is named: by bus and device number, vendor and product, port, serial, or several.

    `path` is the host port path (sysfs' name of the device, `1-1.2`); None until a host was asked.
    """

    bus: int | None = None
    device: int | None = None
    vendor: int | None = None
    product: int | None = None
    path: str | None = None
    serial: str | None = None

    @property
    def selector(self) -> str:
        """The word behind `hostdev:`, see `words`: by bus and device, host port path, or ids and serial."""
        if self.device is None and self.path is not None:
            return self.path
        if self.bus is not None and self.device is not None:
            return f"{self.bus}.{self.device}"
        ids = "serial" if self.vendor is None and self.serial else f"{self.vendor or 0:04x}:{self.product or 0:04x}"
        return f"{ids}:{self.serial}" if self.serial else ids

    @property
    def node(self) -> str:
        """The device's character device, as libvirt names it to QEMU."""
        return f"/dev/bus/usb/{self.bus:03d}/{self.device:03d}"


class ScsiHost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a host's SCSI device is named: by host, channel, target and LUN, by WWN and LUN, or by its node in /dev.

    What was not said is None until a host was asked.
    """

    host: int | None = None
    channel: int | None = None
    target: int | None = None
    lun: int | None = None
    wwn: str | None = None
    path: str | None = None

    @property
    def selector(self) -> str:
        """`8:0:2:1`, `naa.60014054ac780582:0` or `/dev/sdm`, as typed."""
        if self.path is not None:
            return self.path
        if self.wwn is not None:
            return f"{self.wwn}:{self.lun}"
        return f"{self.host}:{self.channel}:{self.target}:{self.lun}"


BackendKind = Literal["chardev", "blockdev", "audiodev"]


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """The host's driver behind a device, or one of several: what QEMU is told of it, its own name included.

    `part` tells those of one device apart: `chardev`, `storage`, `format`, `audiodev`.
    """

    kind: BackendKind
    part: str
    arguments: dict[str, Value]


class Device(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One device on port `port` of controller `controller`: dotted, from 1; a smartcard's slot counts from 0.

    `properties` are the QEMU properties that it has beyond its place and identity; `backends` are its own, each
    after those that it stands on; `startup_policy` is what to do when a host's device is not there; `scsi` is the
    host's device of family scsi.
    """

    family: Family
    kind: Kind
    id: str | None
    driver: str | None
    controller: int
    port: str
    host: HostDevice | None
    properties: dict[str, Value]
    implicit: bool
    source: Source | None
    backends: tuple[Backend, ...] = ()
    startup_policy: str | None = None
    scsi: ScsiHost | None = None


class Untranslated(msgspec.Struct, frozen=True):
    """An element of the document that no step comes from, by its path; in a file of xl's, a setting by its name."""

    element: str
    source: Source


class Topology(msgspec.Struct, frozen=True, kw_only=True):
    """Controllers and devices in the order in which QEMU is told of them."""

    domain: DomainIdentity
    layout: Layout
    device_models: tuple[DeviceModel, ...]
    controllers: tuple[Controller, ...]
    devices: tuple[Device, ...]


def check_domid(domid: int | None) -> None:
    """Refuse what is no guest's id; None is for a domain that has none, or none yet.

    Raises:
        ValueError: it is none.
    """
    if domid is not None and (isinstance(domid, bool) or domid not in range(1, DOMID_MAX + 1)):
        raise ValueError(f"a domid is a number from 1 to {DOMID_MAX}, and not {domid!r}")


def port_key(port: str) -> tuple[int, ...]:
    """Return the sort key of a dotted port, so that 2 comes before 10 and 1.2 after 1."""
    return tuple(int(part) for part in port.split("."))
