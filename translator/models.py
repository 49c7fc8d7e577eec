"""The table of controller models and USB device kinds: every fact about one stands in its row.

A model name maps to a (type, version) pair: libvirt names a model after real hardware where there is some,
and after the hypervisor that invented it where there is none. `CANONICAL` is the table read backwards; it
never changes between releases, because a guest would notice.

Sources: drivers and ports, QEMU 7.2 `device-list-properties` and hw/usb; ports that libvirt counts,
`virDomainUSBAddressControllerModelToPorts` (conf/domain_addr.c); limits of (type, version),
`libxl__device_usbctrl_setdefault` (tools/libs/light/libxl_usb.c); paravirtual names, the discussions on
xen-devel and libvir-list in 2014.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from translator.topology import ElementKind, Family, Guest, Hypervisor, Type

# Names that `device_add` takes for drivers which call themselves otherwise. Source: qdev_alias_table
# (softmmu/qdev-monitor.c).
DRIVER_ALIASES = {"ahci": "ich9-ahci", "lsi": "lsi53c895a"}

Speed = Literal["low", "full", "high", "super"]
SLOW: tuple[Speed, ...] = ("low", "full")
UP_TO_HIGH: tuple[Speed, ...] = ("low", "full", "high")
ALL: tuple[Speed, ...] = ("low", "full", "high", "super")

XEN: tuple[Hypervisor, ...] = ("xen",)
ANY: tuple[Hypervisor, ...] = ("xen", "qemu", "kvm")


XEN_MACHINES: dict[Guest, str] = {"hvm": "xenfv", "pv": "xenpv", "pvh": "xenpvh"}


class ControllerKind(NamedTuple):
    """Who provides a controller, and which USB generation it is; version is None for type none."""

    type: Type
    version: int | None


class Ports(NamedTuple):
    """How many ports a model has: the number when none is asked for, and the range that may be asked for."""

    default: int
    least: int
    most: int

    @property
    def fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return self.least == self.most


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One row.

    family       what plugs into it
    kind         the (type, version) pair
    interface    what the guest binds its driver to
    driver       QEMU's device; None where QEMU emulates nothing
    ports        for PV models, those of layout libxl; a layout may have another default
    speeds       of the devices that its own ports serve
    startport    set for a companion: the first of its master's ports that it serves, from 0
    companion    whether QEMU can make it one
    hotplug      whether QEMU can add it to a running machine
    hypervisors  where the model exists
    x86          whether QEMU has it for PCs
    canonical    whether the pair read backwards gives this row
    aliases      other names that documents use for it
    knobs        the groups of `translator.knobs` whose properties the driver has, besides those of its own name
    """

    name: str
    family: Family = "usb"
    kind: ControllerKind
    interface: str
    driver: str | None = None
    ports: Ports
    speeds: tuple[Speed, ...]
    startport: int | None = None
    companion: bool = False
    hotplug: bool = True
    hypervisors: tuple[Hypervisor, ...] = ANY
    x86: bool = True
    canonical: bool = False
    aliases: tuple[str, ...] = ()
    knobs: tuple[str, ...] = ()


def _uhci(name: str, driver: str, *, canonical: bool = False, x86: bool = True) -> Model:
    return Model(
        name=name,
        kind=ControllerKind("emulated", 1),
        interface="uhci",
        driver=driver,
        ports=Ports(2, 2, 2),
        speeds=SLOW,
        x86=x86,
        canonical=canonical,
        knobs=("pci", "uhci"),
    )


def _ich9_companion(number: int, startport: int) -> Model:
    return Model(
        name=f"ich9-uhci{number}",
        kind=ControllerKind("emulated", 1),
        interface="uhci",
        driver=f"ich9-usb-uhci{number}",
        ports=Ports(0, 0, 0),
        speeds=SLOW,
        startport=startport,
        companion=True,
        hotplug=False,
        knobs=("pci", "uhci", "companion"),
    )


def _xhci(name: str, driver: str, *, canonical: bool = False) -> Model:
    return Model(
        name=name,
        kind=ControllerKind("emulated", 3),
        interface="xhci",
        driver=driver,
        ports=Ports(4, 0, 15),
        speeds=ALL,
        canonical=canonical,
        knobs=("pci", "xhci"),
    )


def _paravirtual(name: str, type: Type, version: int, speeds: tuple[Speed, ...], *aliases: str) -> Model:
    return Model(
        name=name,
        kind=ControllerKind(type, version),
        interface="pvusb",
        ports=Ports(8, 1, 31),
        speeds=speeds,
        hypervisors=XEN,
        canonical=True,
        aliases=aliases,
    )


_ROWS = (
    _uhci("piix3-uhci", "piix3-usb-uhci", canonical=True),
    _uhci("piix4-uhci", "piix4-usb-uhci"),
    _uhci("vt82c686b-uhci", "vt82c686b-usb-uhci", x86=False),
    Model(
        name="pci-ohci",
        kind=ControllerKind("emulated", 1),
        interface="ohci",
        driver="pci-ohci",
        ports=Ports(3, 3, 3),
        speeds=SLOW,
        companion=True,
        hotplug=False,
        knobs=("pci", "companion"),
    ),
    Model(
        name="ehci",
        kind=ControllerKind("emulated", 2),
        interface="ehci",
        driver="usb-ehci",
        ports=Ports(6, 6, 6),
        speeds=("high",),
        canonical=True,
        knobs=("pci", "ehci"),
    ),
    Model(
        name="ich9-ehci1",
        kind=ControllerKind("emulated", 2),
        interface="ehci",
        driver="ich9-usb-ehci1",
        ports=Ports(6, 6, 6),
        speeds=("high",),
        hotplug=False,
        knobs=("pci", "ehci"),
    ),
    _ich9_companion(1, 0),
    _ich9_companion(2, 2),
    _ich9_companion(3, 4),
    _ich9_companion(4, 0),
    _ich9_companion(5, 2),
    _ich9_companion(6, 4),
    _xhci("nec-xhci", "nec-usb-xhci", canonical=True),
    _xhci("qemu-xhci", "qemu-xhci"),
    _paravirtual("qusb1", "qusb", 1, SLOW),
    _paravirtual("qusb2", "qusb", 2, UP_TO_HIGH),
    _paravirtual("xenusb1", "pv", 1, SLOW, "pvusb-v1", "xenpvusb1"),
    _paravirtual("xenusb2", "pv", 2, UP_TO_HIGH, "pvusb-v2", "xenpvusb2"),
    _paravirtual("xenusb3", "pv", 3, ALL, "pvusb-v3", "xenpvusb3"),
    Model(
        name="none",
        kind=ControllerKind("none", None),
        interface="none",
        ports=Ports(0, 0, 0),
        speeds=(),
        canonical=True,
    ),
)

MODELS: dict[str, Model] = {row.name: row for row in _ROWS}
NAMES: dict[str, Model] = {name: row for row in _ROWS for name in (row.name, *row.aliases)}
CANONICAL: dict[ControllerKind, Model] = {row.kind: row for row in _ROWS if row.canonical}
DRIVERS: dict[str, Model] = {row.driver: row for row in _ROWS if row.driver}


def automatic(guest: Guest, usbback: bool) -> Model:
    """Return what a Xen domain's controller is that names no model.

    Args:
        usbback: whether the backend domain has the kernel's PVUSB backend.

    Source: libxl__device_usbctrl_setdefault (libxl_usb.c), but for the choice between pv and qusb, which it leaves
    to QEMU's answer alone.
    """
    if guest == "hvm":
        return CANONICAL[ControllerKind("emulated", 2)]
    return CANONICAL[ControllerKind("pv" if usbback else "qusb", 2)]


def brought_along(kind: ElementKind, guest: Guest, usbback: bool) -> Model | None:
    """Return the controller that a Xen domain gets for a device that finds no room; None where none serves it.

    For a device of the host that is libxl's default, USB 2.0. What QEMU emulates libvirt and xl ask for by QEMU's
    -usbdevice, and -usb is a piix3-uhci.
    """
    if guest == "hvm":
        speeds = set(DEVICE_KINDS[kind].speeds)
        versions = (2, 1, 3) if kind == "hostdev" else (1, 2, 3)
        rows = [CANONICAL[ControllerKind("emulated", version)] for version in versions]
        return next(row for row in rows if not speeds or speeds & set(row.speeds))
    return automatic(guest, usbback) if kind == "hostdev" else None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What libvirt does about USB on one machine type of QEMU.

    modelless  the model of a `<controller type='usb'>` that names none; None where USB means nothing
    default    the model of the controller that a domain gets without asking for one; None: it gets none
    board      by whose rules PCI slots are given (`pci.BOARDS`); None: QEMU chooses
    hotplug    whether its first PCI bus takes controllers while it runs
    """

    modelless: str | None
    default: str | None
    board: str | None = None
    hotplug: bool = True


_MACHINES = (
    ("pc-q35", Machine(modelless="piix3-uhci", default="qemu-xhci", board="q35", hotplug=False)),
    ("q35", Machine(modelless="piix3-uhci", default="qemu-xhci", board="q35", hotplug=False)),
    ("pc", Machine(modelless="piix3-uhci", default="piix3-uhci", board="pc")),
    ("pseries", Machine(modelless="pci-ohci", default="pci-ohci", board="pseries")),
    ("virt", Machine(modelless="qemu-xhci", default=None, board="virt", hotplug=False)),
    ("s390", Machine(modelless=None, default=None)),
)
_OTHER_MACHINE = Machine(modelless="piix3-uhci", default=None)


def machine_row(name: str) -> Machine:
    """Return the row of a machine type; versioned names (`pc-q35-7.2`) begin with their type's."""
    return next((row for prefix, row in _MACHINES if name.startswith(prefix)), _OTHER_MACHINE)


def hot_plugs(row: Model, machine: str) -> bool:
    """Return whether the model can be added to a running machine of that type; a paravirtual one to any."""
    return row.hotplug and (row.driver is None or machine_row(machine).hotplug)


class DeviceKind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of USB device.

    driver   QEMU's device
    speeds   those that it can run at; empty for a host's device, whose speed only the host knows
    prefix   of the ids that libvirt gives
    keys     what a `-device` of this kind may say, in libvirt's order
    ports    how many a hub offers
    others   other drivers of this kind
    knobs    the groups of `translator.knobs` that its drivers have, besides those of their own names
    """

    kind: ElementKind
    family: Family = "usb"
    driver: str
    speeds: tuple[Speed, ...]
    prefix: str
    keys: tuple[str, ...] = ("id", "bus", "port")
    ports: int = 0
    others: tuple[str, ...] = ()
    knobs: tuple[str, ...] = ("usb",)


_HOST_KEYS = ("hostdevice", "hostbus", "hostaddr", "hostport", "vendorid", "productid")
_DISK_KEYS = (
    "bus",
    "port",
    "share-rw",
    "drive",
    "id",
    "bootindex",
    "removable",
    "write-cache",
    "serial",
    "werror",
    "rerror",
)
_CARD_KEYS = ("backend", "cert1", "cert2", "cert3", "db", "chardev", "id", "bus")

# Sources: usb_desc of each driver in QEMU 7.2 (hw/usb/dev-*.c), which of .full, .high and .super it fills; what a
# host's or a redirected device runs at, only that device knows. Ids and order of keys, libvirt's qemu_alias.c and
# qemu_command.c, as observed.
DEVICE_KINDS: dict[ElementKind, DeviceKind] = {
    row.kind: row
    for row in (
        DeviceKind(kind="hub", driver="usb-hub", speeds=("full",), prefix="hub", ports=8),
        DeviceKind(
            kind="hostdev",
            driver="usb-host",
            speeds=(),
            prefix="hostdev",
            keys=(*_HOST_KEYS, "id", "bootindex", "guest-reset", "guest-resets-all", "bus", "port"),
        ),
        DeviceKind(kind="tablet", driver="usb-tablet", speeds=("full", "high"), prefix="input"),
        DeviceKind(kind="mouse", driver="usb-mouse", speeds=("full", "high"), prefix="input"),
        DeviceKind(kind="keyboard", driver="usb-kbd", speeds=("full", "high"), prefix="input"),
        DeviceKind(
            kind="redirdev",
            driver="usb-redir",
            speeds=(),
            prefix="redir",
            keys=("chardev", "id", "filter", "bootindex", "bus", "port"),
        ),
        DeviceKind(
            kind="disk",
            driver="usb-storage",
            speeds=("full", "high", "super"),
            prefix="usb-disk",
            keys=_DISK_KEYS,
        ),
        DeviceKind(
            kind="serial",
            driver="usb-serial",
            speeds=("full",),
            prefix="serial",
            keys=("chardev", "id", "bus", "port"),
        ),
        DeviceKind(
            kind="sound",
            driver="usb-audio",
            speeds=("full",),
            prefix="sound",
            keys=("id", "audiodev", "bus", "port"),
        ),
        DeviceKind(
            kind="net",
            driver="usb-net",
            speeds=("full",),
            prefix="net",
            keys=("id", "mac", "bootindex", "bus", "port"),
        ),
        DeviceKind(kind="ccid", driver="usb-ccid", speeds=("full",), prefix="ccid"),
        DeviceKind(
            kind="smartcard",
            family="ccid",
            driver="ccid-card-emulated",
            speeds=(),
            prefix="smartcard",
            keys=_CARD_KEYS,
            others=("ccid-card-passthru",),
            knobs=("card",),
        ),
    )
}
DEVICE_DRIVERS: dict[str, DeviceKind] = {
    driver: row for row in DEVICE_KINDS.values() for driver in (row.driver, *row.others)
}
