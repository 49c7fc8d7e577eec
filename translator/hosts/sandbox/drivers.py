"""What QEMU 7.2 says of its own drivers: busses, ports, speeds and properties, as its monitor reports them.

This is the other side's word, taken from `device-list-properties`, `device_add` and `x-query-usb`; it is
kept apart from the project's own table of models so that each checks the other. USB's is here; the other families'
is `drivers.json`, which `python -m tests.qemu_drivers` makes. Not in it: what Debian's x86
build has not (vt82c686b-usb-uhci), and devices that need hardware or files of the host (u2f-passthru,
usb-mtp) or are plugged in two steps (usb-bot, usb-uas).
"""

from __future__ import annotations

from enum import IntFlag
from pathlib import Path
from typing import Any

import msgspec

Bus = str  # a type of QEMU's: PCI, usb-bus, SCSI, …
Default = int | bool | str | None


class Speed(IntFlag):
    """USB speeds; a port and a device fit when they share one, and then use the highest."""

    LOW = 1
    FULL = 2
    HIGH = 4
    SUPER = 8

    def __str__(self) -> str:
        return "+".join(str(single.name).lower() for single in self)

    @property
    def megabits(self) -> str:
        """The highest speed in it, as `info usb` prints it; none at all reads as low."""
        fastest = max(self, default=Speed.LOW)
        return {Speed.LOW: "1.5", Speed.FULL: "12", Speed.HIGH: "480", Speed.SUPER: "5000"}[fastest]


class Property(msgspec.Struct, frozen=True):
    """A property with its type and default as QEMU names them; None is "no default"."""

    name: str
    type: str
    default: Default = None
    description: str | None = None


def _switch(name: str, default: bool) -> Property:
    return Property(name, "bool", default, "on/off")


# Every PCI device has these (hw/pci/pci.c, pci_props), every USB device those (hw/usb/bus.c, usb_props).
PCI_PROPERTIES = (
    Property("failover_pair_id", "str"),
    Property("romfile", "str"),
    Property("addr", "int32", -1, "Slot and optional function number, example: 06.0 or 06"),
    Property("romsize", "uint32", 0xFFFFFFFF),
    _switch("x-pcie-lnksta-dllla", True),
    Property("rombar", "uint32", 1),
    _switch("x-pcie-extcap-init", True),
    Property("acpi-index", "uint32", 0),
    _switch("multifunction", False),
)
USB_PROPERTIES = (
    Property("pcap", "str"),
    Property("port", "str"),
    _switch("msos-desc", True),
    Property("serial", "str"),
)
ATTACHED = Property("attached", "bool")  # read-only, and listed last

_UHCI = (Property("maxframes", "uint32", 128), Property("bandwidth", "uint32", 1280))
_COMPANION = (Property("firstport", "uint32", 0), Property("masterbus", "str"))
_EHCI = (Property("maxframes", "uint32", 128),)
_XHCI = (Property("p3", "uint32", 4), _switch("streams", True), Property("p2", "uint32", 4))
_NEC = (
    Property("msi", "OnOffAuto", "auto", "on/off/auto"),
    Property("msix", "OnOffAuto", "auto", "on/off/auto"),
    _switch("force-pcie-endcap", False),
    _switch("superspeed-ports-first", True),
    Property("intrs", "uint32", 16),
    Property("slots", "uint32", 64),
)
_HID = (Property("usb_version", "uint32", 2),)
_POINTER = (*_HID, Property("display", "str"), Property("head", "uint32", 0))
_CHARDEV = Property("chardev", "str", None, "ID of a chardev to use as a backend")
_HOST = (
    _switch("pipeline", True),
    Property("hostbus", "uint32", 0),
    Property("isobufs", "uint32", 4),
    Property("vendorid", "uint32", 0),
    Property("productid", "uint32", 0),
    Property("hostport", "str"),
    Property("hostdevice", "str"),
    Property("hostaddr", "uint32", 0),
    Property("suppress-remote-wake", "bool", True),
    Property("loglevel", "uint32", 2),
    Property("isobsize", "uint32", 32),
    Property("guest-resets-all", "bool", False),
    Property("guest-reset", "bool", True),
    Property("bootindex", "int32"),
)
_REDIR = (
    Property("filter", "str"),
    Property("streams", "bool", True),
    _CHARDEV,
    Property("debug", "uint8", 2),
    Property("suppress-remote-wake", "bool", True),
    Property("bootindex", "int32"),
)
_BLOCK_SIZE = "A power of two between 512 B and 2 MiB"
_ON_ERROR = "Error handling policy, report/ignore/enospc/stop/auto"
_STORAGE = (
    Property("commandlog", "bool", False),
    Property("rerror", "BlockdevOnError", "auto", _ON_ERROR),
    Property("min_io_size", "size", 0),
    Property("backend_defaults", "OnOffAuto", "auto", "on/off/auto"),
    Property("removable", "bool", False),
    Property("share-rw", "bool", False),
    Property("account-failed", "OnOffAuto", "auto", "on/off/auto"),
    Property("logical_block_size", "size", 0, _BLOCK_SIZE),
    Property("write-cache", "OnOffAuto", "auto", "on/off/auto"),
    Property("opt_io_size", "size", 0),
    Property("account-invalid", "OnOffAuto", "auto", "on/off/auto"),
    Property("drive", "str", None, "Node name or ID of a block device to use as a backend"),
    Property("discard_granularity", "size", 0xFFFFFFFF),
    Property("physical_block_size", "size", 0, _BLOCK_SIZE),
    Property("werror", "BlockdevOnError", "auto", _ON_ERROR),
    Property("bootindex", "int32"),
)


class Made(msgspec.Struct, frozen=True):
    """A bus that a device makes, or a board has of itself.

    `path` is its QOM path below the device, `{id}` in it the device's id; `hotplug` tells whether it takes devices
    while the machine runs, and `units` is the largest of each number of a unit, nothing for a bus without units.
    """

    path: str
    kind: Bus
    hotplug: bool
    units: tuple[int, ...] = ()


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """One row: where the driver goes, what it offers, and what it needs.

    `bus` is the kind of bus that it sits on, `serves` the kind that it makes and `makes` its busses with units.
    `ports` and `port_speeds` are those of a controller (a hub's and an xHCI's follow from their properties), `speeds`
    those of a device, `product` its name in `info usb`. `link` is the property that names a chardev or block device,
    and `missing` what QEMU says without it (None: it does without). With `listed` the properties are all that it has.
    """

    name: str
    parent: str
    bus: Bus
    serves: Bus | None = None
    pluggable: bool = True
    deletion_is_told: bool = True
    ports: int = 0
    port_speeds: Speed = Speed(0)
    product: str = ""
    speeds: Speed = Speed(0)
    properties: tuple[Property, ...] = ()
    link: str | None = None
    missing: str | None = None
    makes: tuple[Made, ...] = ()
    listed: bool = False

    @property
    def all_properties(self) -> tuple[Property, ...]:
        """In the order of `device-list-properties`."""
        if self.listed:
            return self.properties
        if self.bus == "PCI":
            return (*PCI_PROPERTIES, *self.properties)
        if self.bus == "usb-bus":
            return (*USB_PROPERTIES, *self.properties, ATTACHED)
        return self.properties

    def property(self, name: str) -> Property | None:
        """Return the property of that name, if there is one."""
        return next((entry for entry in self.all_properties if entry.name == name), None)


def _controller(
    name: str,
    parent: str,
    ports: int,
    speeds: Speed,
    properties: tuple[Property, ...],
    *,
    pluggable: bool = True,
    deletion_is_told: bool = True,
) -> Driver:
    return Driver(
        name=name,
        parent=parent,
        bus="PCI",
        serves="usb-bus",
        ports=ports,
        port_speeds=speeds,
        properties=properties,
        pluggable=pluggable,
        deletion_is_told=deletion_is_told,
    )


def _device(
    name: str,
    parent: str,
    product: str,
    speeds: Speed,
    properties: tuple[Property, ...] = (),
    *,
    serves: Bus | None = None,
    link: str | None = None,
    missing: str | None = None,
) -> Driver:
    return Driver(
        name=name,
        parent=parent,
        bus="usb-bus",
        serves=serves,
        product=product,
        speeds=speeds,
        properties=properties,
        link=link,
        missing=missing,
    )


_SLOW = Speed.LOW | Speed.FULL
_FAST = Speed.FULL | Speed.HIGH
_ANY = _FAST | Speed.SUPER
HUB_PORT_SPEEDS = _SLOW

_ROWS = (
    _controller("piix3-usb-uhci", "pci-uhci-usb", 2, _SLOW, _UHCI),
    _controller("piix4-usb-uhci", "pci-uhci-usb", 2, _SLOW, _UHCI),
    *(
        _controller(f"ich9-usb-uhci{n}", "pci-uhci-usb", 2, _SLOW, (*_UHCI, *_COMPANION), pluggable=False)
        for n in range(1, 7)
    ),
    _controller("usb-ehci", "pci-ehci-usb", 6, Speed.HIGH, _EHCI),
    _controller("ich9-usb-ehci1", "pci-ehci-usb", 6, Speed.HIGH, _EHCI, pluggable=False),
    _controller("ich9-usb-ehci2", "pci-ehci-usb", 6, Speed.HIGH, _EHCI, pluggable=False),
    _controller(
        "pci-ohci", "pci-device", 3, _SLOW, (Property("num-ports", "uint32", 3), *_COMPANION), pluggable=False
    ),
    _controller("nec-usb-xhci", "pci-xhci", 0, Speed(0), (*_NEC, *_XHCI), deletion_is_told=False),
    _controller("qemu-xhci", "pci-xhci", 0, Speed(0), _XHCI, deletion_is_told=False),
    _device(
        "usb-hub",
        "usb-device",
        "QEMU USB Hub",
        Speed.FULL,
        (Property("ports", "uint32", 8), Property("port-power", "bool", False)),
    ),
    _device("usb-tablet", "usb-hid", "QEMU USB Tablet", _FAST, _POINTER),
    _device("usb-mouse", "usb-hid", "QEMU USB Mouse", _FAST, _HID),
    _device("usb-kbd", "usb-hid", "QEMU USB Keyboard", _FAST, (*_HID, Property("display", "str"))),
    _device("usb-wacom-tablet", "usb-device", "QEMU PenPartner Tablet", Speed.FULL),
    _device("usb-host", "usb-device", "USB Host Device", Speed(0), _HOST),
    _device(
        "usb-redir",
        "usb-device",
        "USB Redirection Device",
        Speed(0),
        _REDIR,
        link="chardev",
        missing="Parameter 'chardev' is missing",
    ),
    _device(
        "usb-storage",
        "usb-storage-dev",
        "QEMU USB MSD",
        _ANY,
        _STORAGE,
        link="drive",
        missing="drive property not set",
    ),
    _device(
        "usb-ccid",
        "usb-device",
        "QEMU USB CCID",
        Speed.FULL,
        (Property("debug", "uint8", 0),),
        serves="ccid-bus",
    ),
    _device(
        "usb-audio",
        "usb-device",
        "QEMU USB Audio Interface",
        Speed.FULL,
        (
            Property("multi", "bool", False),
            Property("audiodev", "str", None, "ID of an audiodev to use as a backend"),
            Property("debug", "uint32", 0),
            Property("buffer", "uint32", 0),
        ),
    ),
    _device(
        "usb-serial",
        "usb-serial-dev",
        "QEMU USB Serial",
        Speed.FULL,
        (Property("always-plugged", "bool", False), _CHARDEV),
        link="chardev",
        missing="Property chardev is required",
    ),
    _device(
        "usb-braille",
        "usb-serial-dev",
        "QEMU USB Braille",
        Speed.FULL,
        (_CHARDEV,),
        link="chardev",
        missing="Property chardev is required",
    ),
    _device(
        "usb-net",
        "usb-device",
        "QEMU USB Network Interface",
        Speed.FULL,
        (
            Property("netdev", "str", None, "ID of a netdev to use as a backend"),
            Property("mac", "str", None, "Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56"),
            Property("bootindex", "int32"),
        ),
        link="netdev",
    ),
    Driver(
        name="ccid-card-emulated",
        parent="ccid-card",
        bus="ccid-bus",
        properties=(
            Property("slot", "uint32", 0),
            Property("db", "str"),
            Property("cert2", "str"),
            Property("debug", "uint8", 0),
            Property("backend", "str"),
            Property("cert3", "str"),
            Property("cert1", "str"),
        ),
    ),
    Driver(
        name="ccid-card-passthru",
        parent="ccid-card",
        bus="ccid-bus",
        properties=(Property("slot", "uint32", 0), _CHARDEV, Property("debug", "uint8", 0)),
        link="chardev",
        missing="missing chardev",
    ),
)
# What a drive says that has nothing behind it; a CD drive may be empty.
_EMPTY = {
    **dict.fromkeys(("scsi-hd", "scsi-block", "scsi-generic"), "drive property not set"),
    "ide-hd": "No drive specified",
}


def _row(name: str, row: dict[str, Any]) -> Driver:
    properties = tuple(
        Property(one["name"], one["type"], one.get("default-value"), one.get("description"))
        for one in row["properties"]
    )
    names = {one.name for one in properties}
    makes = msgspec.convert(row["makes"], tuple[Made, ...])
    return Driver(
        name=name,
        parent=row["parent"],
        bus=row["bus"],
        serves="PCI" if any(one.kind in ("PCI", "PCIE") for one in makes) else None,
        pluggable=row["pluggable"],
        properties=properties,
        link=next((one for one in ("drive", "chardev") if one in names), None),
        missing=_EMPTY.get(name),
        makes=makes,
        listed=True,
    )


_TABLE: dict[str, Any] = msgspec.json.decode(Path(__file__).with_name("drivers.json").read_bytes())
DRIVERS: dict[str, Driver] = {row.name: row for row in _ROWS} | {
    name: _row(name, row) for name, row in _TABLE["drivers"].items()
}
ALIASES: dict[str, str] = {row["alias"]: name for name, row in _TABLE["drivers"].items() if row["alias"]}
# The busses with units that a board has of itself.
BOARDS = {name: msgspec.convert(busses, tuple[Made, ...]) for name, busses in _TABLE["boards"].items()}

# The types above them that cannot be instantiated, each with its own parent.
ABSTRACT = {
    "usb-device": "device",
    "usb-hid": "usb-device",
    "usb-storage-dev": "usb-device",
    "usb-serial-dev": "usb-device",
    "ccid-card": "device",
    "pci-device": "device",
    "pci-uhci-usb": "pci-device",
    "pci-ehci-usb": "pci-device",
    "pci-xhci": "pci-device",
}


def is_a(name: str, ancestor: str) -> bool:
    """Whether the type is `ancestor` or comes below it, as `qom-list-types` sees it."""
    while name != ancestor:
        parent = DRIVERS[name].parent if name in DRIVERS else ABSTRACT.get(name)
        if parent is None:
            return False
        name = parent
    return True
