"""What a row of the registry is, of any family, and the table of USB's: every fact about a model stands in its row.

A family's module has the rows of its models and device kinds, in `models` and `kinds` of its `FAMILY`; USB's are
here. `translator.registry.rows` has all of them.

A model name maps to a (type, version) pair: libvirt names a model after real hardware where there is some,
and after the hypervisor that invented it where there is none. `CANONICAL` is USB's table read backwards; it
never changes between releases, because a guest would notice.

Sources: drivers and ports, QEMU 7.2 `device-list-properties` and hw/usb; ports that libvirt counts,
`virDomainUSBAddressControllerModelToPorts` (conf/domain_addr.c); limits of (type, version),
`libxl__device_usbctrl_setdefault` (tools/libs/light/libxl_usb.c); paravirtual names, the discussions on
xen-devel and libvir-list in 2014.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

from translator.topology import ElementKind, Family, Guest, Hypervisor, Type

if TYPE_CHECKING:
    from collections.abc import Iterator

# Names that `device_add` takes for drivers which call themselves otherwise. Source: qdev_alias_table
# (softmmu/qdev-monitor.c).
DRIVER_ALIASES = {"ahci": "ich9-ahci", "lsi": "lsi53c895a"}

Speed = Literal["low", "full", "high", "super"]
SLOW: tuple[Speed, ...] = ("low", "full")
UP_TO_HIGH: tuple[Speed, ...] = ("low", "full", "high")
ALL: tuple[Speed, ...] = ("low", "full", "high", "super")

XEN: tuple[Hypervisor, ...] = ("xen",)
NOT_XEN: tuple[Hypervisor, ...] = ("qemu", "kvm")
ANY: tuple[Hypervisor, ...] = (*XEN, *NOT_XEN)

# Architectures that have what others have not, in libvirt's words.
X86 = ("x86_64", "i686")
MIPS = ("mips", "mipsel", "mips64", "mips64el")
PPC = ("ppc", "ppc64", "ppc64le")
SPARC = ("sparc",)


XEN_MACHINES: dict[Guest, str] = {"hvm": "xenfv", "pv": "xenpv", "pvh": "xenpvh"}


class ControllerKind(NamedTuple):
    """Who provides a controller, and which USB generation it is; version is None for type none and for no USB."""

    type: Type
    version: int | None


EMULATED = ControllerKind("emulated", None)
PARAVIRTUAL = ControllerKind("pv", None)


class Ports(NamedTuple):
    """How many ports a model has: the number when none is asked for, and the range that may be asked for."""

    default: int
    least: int
    most: int

    @property
    def fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return self.least == self.most


class DomainKind(Protocol):
    """What of a domain decides which models it may have."""

    @property
    def hypervisor(self) -> Hypervisor:
        """Whose domain it is."""

    @property
    def guest(self) -> Guest:
        """What hardware the guest sees."""

    @property
    def arch(self) -> str:
        """Its architecture, in libvirt's words."""

    @property
    def machine(self) -> str:
        """Its machine type."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One row, as every family has it.

    family       what plugs into it
    kind         the (type, version) pair
    interface    what the guest binds its driver to
    driver       QEMU's device, as libvirt names it; None where QEMU emulates nothing, or nothing of that name
    hotplug      whether a plan adds it to a running machine, as QEMU can
    hypervisors  where the model exists
    arches       the architectures whose QEMU has it; none named: all
    canonical    whether the pair read backwards gives this row
    aliases      other names that documents use for it
    others       other drivers that a document may name for it
    refused      why no document can have it
    knobs        the groups of `translator.registry.knobs` whose properties the driver has, besides those of its
                 own name
    """

    family: Family
    name: str
    kind: ControllerKind = EMULATED
    interface: str
    driver: str | None = None
    hotplug: bool = True
    hypervisors: tuple[Hypervisor, ...] = ANY
    arches: tuple[str, ...] = ()
    canonical: bool = False
    aliases: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    refused: str | None = None
    knobs: tuple[str, ...] = ()

    @property
    def own_driver(self) -> str | None:
        """What the device calls itself."""
        return DRIVER_ALIASES.get(self.driver, self.driver) if self.driver else None

    @property
    def drivers(self) -> tuple[str, ...]:
        """All that QEMU has for it, by their own names."""
        return ((self.own_driver,) if self.own_driver else ()) + self.others

    @property
    def ports(self) -> Ports:
        """How many devices it takes; for PV models of USB, in layout libxl: a layout may have another default."""
        raise NotImplementedError(f"a model of family {self.family} tells how many devices it takes")

    def exists(self, domain: DomainKind) -> bool:
        """Tell whether such a domain can have the model at all; which layouts can record it is theirs to say."""
        return (
            domain.hypervisor in self.hypervisors
            and self.refused is None
            and (not self.arches or domain.arch in self.arches)
            and (self.kind.type != "emulated" or domain.guest == "hvm")
        )

    def features(self) -> dict[str, int | bool | tuple[str, ...] | dict[str, int] | None]:
        """Return what models of its family have and others have not, for programs."""
        return {}

    def told(self) -> Iterator[tuple[str, str]]:
        """Yield the same for readers: what it is called, and what it is."""
        yield from ()


class UsbModel(Model, frozen=True, kw_only=True):
    """One row of USB's.

    speeds       of the devices that its own ports serve
    startport    set for a companion: the first of its master's ports that it serves, from 0
    companion    whether QEMU can make it one
    """

    family: Family = "usb"
    ports: Ports
    speeds: tuple[Speed, ...]
    startport: int | None = None
    companion: bool = False

    def features(self) -> dict[str, int | bool | tuple[str, ...] | dict[str, int] | None]:
        """See `Model`."""
        return {"speeds": self.speeds, "companion": self.companion, "startport": self.startport}

    def told(self) -> Iterator[tuple[str, str]]:
        """See `Model`."""
        if self.startport is not None:
            yield "ports", f"its master's, from port {self.startport + 1} on"
        elif not self.ports.fixed:
            yield "ports", f"{max(self.ports.least, 1)} to {self.ports.most}, {self.ports.default} when not said"
        else:
            yield "ports", str(self.ports.default)
        if self.speeds:
            yield "speeds", ", ".join(self.speeds)
        if self.companion:
            yield "companion", "of an EHCI controller" + ("" if self.startport is not None else ", or on its own")


def _uhci(
    name: str, driver: str, *, canonical: bool = False, hotplug: bool = True, arches: tuple[str, ...] = ()
) -> UsbModel:
    return UsbModel(
        name=name,
        kind=ControllerKind("emulated", 1),
        interface="uhci",
        driver=driver,
        ports=Ports(2, 2, 2),
        speeds=SLOW,
        hotplug=hotplug,
        arches=arches,
        canonical=canonical,
        knobs=("pci", "uhci"),
    )


def _ich9_companion(number: int, startport: int) -> UsbModel:
    return UsbModel(
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


def _xhci(name: str, driver: str, *, canonical: bool = False) -> UsbModel:
    return UsbModel(
        name=name,
        kind=ControllerKind("emulated", 3),
        interface="xhci",
        driver=driver,
        ports=Ports(4, 0, 15),
        speeds=ALL,
        canonical=canonical,
        knobs=("pci", "xhci"),
    )


def _paravirtual(name: str, type: Type, version: int, speeds: tuple[Speed, ...], *aliases: str) -> UsbModel:
    return UsbModel(
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
    # QEMU makes it part of the chipset alone (hw/usb/vt82c686-uhci-pci.c, `notuser`).
    _uhci("vt82c686b-uhci", "vt82c686b-usb-uhci", hotplug=False, arches=(*MIPS, *PPC)),
    UsbModel(
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
    UsbModel(
        name="ehci",
        kind=ControllerKind("emulated", 2),
        interface="ehci",
        driver="usb-ehci",
        ports=Ports(6, 6, 6),
        speeds=("high",),
        canonical=True,
        knobs=("pci", "ehci"),
    ),
    UsbModel(
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
    UsbModel(
        name="none",
        kind=ControllerKind("none", None),
        interface="none",
        ports=Ports(0, 0, 0),
        speeds=(),
        canonical=True,
    ),
)

MODELS: dict[str, UsbModel] = {row.name: row for row in _ROWS}
NAMES: dict[str, UsbModel] = {name: row for row in _ROWS for name in (row.name, *row.aliases)}
CANONICAL: dict[ControllerKind, UsbModel] = {row.kind: row for row in _ROWS if row.canonical}
DRIVERS: dict[str, UsbModel] = {row.driver: row for row in _ROWS if row.driver}


def automatic(guest: Guest, usbback: bool) -> UsbModel:
    """Return what a Xen domain's controller is that names no model.

    Args:
        usbback: whether the backend domain has the kernel's PVUSB backend.

    Source: libxl__device_usbctrl_setdefault (libxl_usb.c), but for the choice between pv and qusb, which it leaves
    to QEMU's answer alone.
    """
    if guest == "hvm":
        return CANONICAL[ControllerKind("emulated", 2)]
    return CANONICAL[ControllerKind("pv" if usbback else "qusb", 2)]


def brought_along(kind: ElementKind, guest: Guest, usbback: bool) -> UsbModel | None:
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
    """One kind of device, or those of a kind that one driver of QEMU's serves.

    family   what it plugs into
    driver   QEMU's device
    others   other drivers of this kind
    knobs    the groups of `translator.registry.knobs` that its drivers have, besides those of their own names
    speeds   those that it can run at; empty for a host's device, whose speed only the host knows, and for no USB
    prefix   of the ids that libvirt gives, where they are numbered
    keys     what a `-device` of this kind may say, in libvirt's order
    ports    how many a hub offers
    """

    family: Family
    kind: ElementKind
    driver: str
    others: tuple[str, ...] = ()
    knobs: tuple[str, ...] = ()
    speeds: tuple[Speed, ...] = ()
    prefix: str = ""
    keys: tuple[str, ...] = ("id", "bus", "port")
    ports: int = 0

    @property
    def drivers(self) -> tuple[str, ...]:
        """All of them."""
        return (self.driver, *self.others)


_usb = partial(DeviceKind, family="usb", knobs=("usb",))

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
        _usb(kind="hub", driver="usb-hub", speeds=("full",), prefix="hub", ports=8),
        _usb(
            kind="hostdev",
            driver="usb-host",
            prefix="hostdev",
            keys=(*_HOST_KEYS, "id", "bootindex", "guest-reset", "guest-resets-all", "bus", "port"),
        ),
        _usb(kind="tablet", driver="usb-tablet", speeds=("full", "high"), prefix="input"),
        _usb(kind="mouse", driver="usb-mouse", speeds=("full", "high"), prefix="input"),
        _usb(kind="keyboard", driver="usb-kbd", speeds=("full", "high"), prefix="input"),
        _usb(
            kind="redirdev",
            driver="usb-redir",
            prefix="redir",
            keys=("chardev", "id", "filter", "bootindex", "bus", "port"),
        ),
        _usb(
            kind="disk",
            driver="usb-storage",
            speeds=("full", "high", "super"),
            prefix="usb-disk",
            knobs=("usb", "medium", "block", "errors"),
            keys=_DISK_KEYS,
        ),
        _usb(
            kind="serial",
            driver="usb-serial",
            speeds=("full",),
            prefix="serial",
            keys=("chardev", "id", "bus", "port"),
        ),
        _usb(
            kind="sound",
            driver="usb-audio",
            speeds=("full",),
            prefix="sound",
            keys=("id", "audiodev", "bus", "port"),
        ),
        _usb(
            kind="net",
            driver="usb-net",
            speeds=("full",),
            prefix="net",
            keys=("id", "mac", "bootindex", "bus", "port"),
        ),
        _usb(kind="ccid", driver="usb-ccid", speeds=("full",), prefix="ccid"),
        DeviceKind(
            kind="smartcard",
            family="ccid",
            driver="ccid-card-emulated",
            prefix="smartcard",
            keys=_CARD_KEYS,
            others=("ccid-card-passthru",),
            knobs=("card",),
        ),
    )
}
DEVICE_DRIVERS: dict[str, DeviceKind] = {driver: row for row in DEVICE_KINDS.values() for driver in row.drivers}
