"""Every property that QEMU gives our controllers and devices: type, default, range, age, and what it is for.

A row of `translator.models` names the groups that its driver has; a group of the driver's own name comes on top.
The documents' way to a property is in `xml`; one without is reached by `<qemu:override>` alone. Not imported to
make a plan, unless the document overrides a property.

Sources: names, types and defaults, QEMU 7.2 `device-list-properties`, which a test compares; ranges, hw/usb and
hw/block/block.c; `since`, QEMU's change logs and machine compatibility tables (hw/core/machine.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.knob import Knob, Type
from translator.models import DEVICE_DRIVERS, DRIVERS

if TYPE_CHECKING:
    from collections.abc import Mapping


def knobs_of(driver: str) -> Mapping[str, Knob]:
    """Return a driver's properties by name, sorted; empty for a driver that no row has."""
    row = DRIVERS.get(driver) or DEVICE_DRIVERS.get(driver)
    if row is None:
        return {}
    found = [knob for group in (*row.knobs, driver) for knob in GROUPS.get(group, ())]
    return {knob.name: knob for knob in sorted(found, key=lambda knob: knob.name)}


def _switch(name: str, default: bool, does: str, *, since: str | None = None) -> Knob:
    return Knob(name=name, type="bool", default=default, does=does, since=since)


def _number(
    name: str,
    default: int,
    does: str,
    *,
    type: Type = "uint32",
    least: int | None = None,
    most: int | None = None,
    since: str | None = None,
    xml: str | None = None,
    ours: bool = False,
) -> Knob:
    return Knob(
        name=name, type=type, default=default, does=does, least=least, most=most, since=since, xml=xml, ours=ours
    )


def _text(
    name: str,
    does: str,
    *,
    words: tuple[str, ...] = (),
    since: str | None = None,
    xml: str | None = None,
    ours: bool = False,
) -> Knob:
    return Knob(name=name, type="str", does=does, words=words, since=since, xml=xml, ours=ours)


_BOOT_INDEX = Knob(
    name="bootindex",
    type="int32",
    least=-1,
    does="When the firmware tries to start from it: lower numbers first; -1 is never.",
    xml="boot/@order",
)
_CHARDEV = _text("chardev", "The character device on the host that it stands on.", xml="@type and source", ours=True)
_SUPPRESS_REMOTE_WAKE = _switch(
    "suppress-remote-wake",
    True,
    "Hide from the guest that the device can wake it, so that it does not suspend the device and lose input.",
    since="5.0",
)
_USB_VERSION = _number(
    "usb_version",
    2,
    "The USB generation that it runs at: 1 is full speed, 2 is high speed, which EHCI and xHCI need.",
    least=1,
    most=2,
)
_DISPLAY = _text("display", "The id of the display that input goes to; any display when left out.")
_DEBUG = _number("debug", 0, "How much it logs for who debugs QEMU: 0 is nothing.", type="uint8")

GROUPS: dict[str, tuple[Knob, ...]] = {
    # Every PCI device: hw/pci/pci.c, pci_props
    "pci": (
        _number(
            "acpi-index",
            0,
            "The number that firmware tells the guest, which may name the device by it; 0 is none.",
            most=16383,
            since="6.0",
        ),
        _number(
            "addr",
            -1,
            "Slot and function on its PCI bus, spelled as `0x1.0x2`; -1 lets QEMU take a free one.",
            type="int32",
            least=-1,
            most=255,
            xml="address",
            ours=True,
        ),
        _text("failover_pair_id", "The id of the network device that it stands in for during migration."),
        Knob(
            name="multifunction",
            type="bool",
            default=False,
            does="Say in function 0 that the slot has further functions.",
            xml="address/@multifunction",
            ours=True,
        ),
        _number("rombar", 1, "Whether the guest sees the option ROM: 0 is no.", most=1),
        _text("romfile", "The file with the option ROM; empty for none."),
        _number(
            "romsize",
            2**32 - 1,
            "The size of the option ROM's window, in bytes, a power of two; the largest number means the file's.",
            since="6.0",
        ),
        _switch("x-pcie-extcap-init", True, "Experimental: begin the list of PCI Express extended capabilities."),
        _switch("x-pcie-lnksta-dllla", True, "Experimental: report that the PCI Express link is active."),
    ),
    # hw/usb/hcd-uhci.c, hcd-ehci-pci.c, hcd-ohci-pci.c
    "uhci": (
        _number("bandwidth", 1280, "How many bytes the controller moves within one frame of a millisecond."),
        _number("maxframes", 128, "How many missed frames are made up for before the rest is dropped."),
    ),
    "companion": (
        _number(
            "firstport",
            0,
            "The first of its master's ports that it serves, counted from 0.",
            most=15,
            xml="master/@startport",
            ours=True,
        ),
        _text("masterbus", "The bus of the controller that it is a companion of.", xml="@index", ours=True),
    ),
    "ehci": (_number("maxframes", 128, "How many missed microframes are made up for before the rest is dropped."),),
    "pci-ohci": (_number("num-ports", 3, "How many ports it has.", least=1, most=15, ours=True),),
    # hw/usb/hcd-xhci-pci.c, hcd-xhci-nec.c
    "xhci": (
        _number("p2", 4, "How many ports serve USB 2 and slower.", least=0, most=15, xml="@ports", ours=True),
        _number("p3", 4, "How many ports serve USB 3.", least=0, most=15, xml="@ports", ours=True),
        _switch("streams", True, "Offer bulk streams, which fast disks use to have several requests under way."),
    ),
    "nec-usb-xhci": (
        _switch("force-pcie-endcap", False, "Have the PCI Express capability on a conventional PCI bus as well."),
        _number("intrs", 16, "How many interrupters it has, a power of two.", least=1, most=16),
        Knob(name="msi", type="OnOffAuto", default="auto", does="Whether it can interrupt by message (MSI)."),
        Knob(name="msix", type="OnOffAuto", default="auto", does="Whether it can interrupt by message (MSI-X)."),
        _number("slots", 64, "How many devices it can address at once, hubs included.", least=1, most=64),
        _switch(
            "superspeed-ports-first", True, "Count the USB 3 ports before those for USB 2, as the guest sees it."
        ),
    ),
    # Every USB device: hw/usb/bus.c, usb_props
    "usb": (
        Knob(
            name="attached", type="bool", does="Whether it is connected to its port now; only to be read.", ours=True
        ),
        _switch("msos-desc", True, "Offer Windows the descriptors that pick a driver or power settings."),
        _text("pcap", "The file on the host that gets all its traffic, as Wireshark reads it.", since="6.0"),
        _text("port", "Its port, dotted, from 1.", xml="address/@port", ours=True),
        _text("serial", "The serial number that it tells the guest.", xml="serial (disks)"),
    ),
    "usb-hub": (
        _switch("port-power", False, "Let the guest switch the power of each port."),
        _number("ports", 8, "How many ports it has.", least=1, most=8, ours=True),
    ),
    "usb-tablet": (
        _USB_VERSION,
        _DISPLAY,
        _number("head", 0, "The number of the display's output that input goes to."),
    ),
    "usb-mouse": (_USB_VERSION,),
    "usb-kbd": (_USB_VERSION, _DISPLAY),
    # hw/usb/host-libusb.c
    "usb-host": (
        _BOOT_INDEX,
        Knob(
            name="guest-reset",
            type="bool",
            default=True,
            does="Pass the guest's first reset on to the device; some devices do not survive one.",
            xml="source/@guestReset",
        ),
        Knob(
            name="guest-resets-all",
            type="bool",
            default=False,
            does="Pass every reset by the guest on, not only the first.",
            xml="source/@guestReset",
            since="5.0",
        ),
        _number("hostaddr", 0, "The device's number on its bus there.", xml="source/address/@device", ours=True),
        _number("hostbus", 0, "The host's bus that the device is on.", xml="source/address/@bus", ours=True),
        _text(
            "hostdevice",
            "The device's node on the host, such as `/dev/bus/usb/001/008`.",
            xml="source/address",
            since="5.1",
            ours=True,
        ),
        _text("hostport", "The device's port on its bus of the host, dotted.", xml="source/address/@port", ours=True),
        _number("isobsize", 32, "How many packets one isochronous transfer to the host has."),
        _number("isobufs", 4, "How many isochronous transfers are under way at once."),
        _number("loglevel", 2, "What libusb logs: 0 nothing, 1 errors, 2 warnings, 3 information, 4 all.", most=4),
        _switch("pipeline", True, "Have several bulk transfers under way at once."),
        _number("productid", 0, "The product's number, 0 for any.", most=0xFFFF, xml="source/product/@id", ours=True),
        _SUPPRESS_REMOTE_WAKE,
        _number("vendorid", 0, "The vendor's number, 0 for any.", most=0xFFFF, xml="source/vendor/@id", ours=True),
    ),
    # hw/usb/redirect.c
    "usb-redir": (
        _BOOT_INDEX,
        _CHARDEV,
        _number(
            "debug", 2, "What it logs: 1 errors, 2 warnings, 3 information, from 4 on the traffic.", type="uint8"
        ),
        _text(
            "filter",
            "Which devices the other side may redirect, rule after rule: `class:vendor:product:version:allow`.",
            xml="../redirfilter",
        ),
        _switch("streams", True, "Pass bulk streams on, which fast disks use."),
        _SUPPRESS_REMOTE_WAKE,
    ),
    # hw/usb/dev-storage-classic.c, include/hw/block/block.h
    "usb-storage": (
        _BOOT_INDEX,
        Knob(
            name="account-failed",
            type="OnOffAuto",
            default="auto",
            does="Count requests that failed in the statistics.",
            since="7.2",
        ),
        Knob(
            name="account-invalid",
            type="OnOffAuto",
            default="auto",
            does="Count requests that made no sense in the statistics.",
            since="7.2",
        ),
        Knob(
            name="backend_defaults",
            type="OnOffAuto",
            default="auto",
            does="Take block sizes that are not given from what is behind the disk.",
            since="6.1",
        ),
        _switch("commandlog", False, "Trace every command of the guest.", since="5.2"),
        _number("discard_granularity", 2**32 - 1, "The unit in which the guest can discard, in bytes.", type="size"),
        _text("drive", "The block node that holds the disk's data.", xml="source", ours=True),
        _number(
            "logical_block_size",
            0,
            "The unit in which the guest addresses the disk, in bytes, a power of two; 0 takes the default of 512.",
            type="size",
            most=2 << 20,
        ),
        _number("min_io_size", 0, "The least that is worth one request, in bytes; 0 says nothing.", type="size"),
        _number("opt_io_size", 0, "What is best for one request, in bytes; 0 says nothing.", type="size"),
        _number(
            "physical_block_size",
            0,
            "The unit in which the disk writes at once, in bytes, a power of two; 0 takes the default of 512.",
            type="size",
            most=2 << 20,
        ),
        Knob(
            name="removable",
            type="bool",
            default=False,
            does="Call it a medium that can be taken out, as a stick is.",
            xml="target/@removable",
        ),
        Knob(
            name="rerror",
            type="BlockdevOnError",
            default="auto",
            does="What to do when reading fails: tell the guest, go on, or stop the machine.",
            words=("report", "ignore", "stop", "auto"),
            xml="driver/@rerror_policy",
        ),
        Knob(
            name="share-rw",
            type="bool",
            default=False,
            does="Allow others to write to what is behind the disk at the same time.",
            xml="shareable",
        ),
        Knob(
            name="werror",
            type="BlockdevOnError",
            default="auto",
            does="What to do when writing fails: tell the guest, go on, or stop the machine; `enospc` stops it for "
            "want of space only.",
            xml="driver/@error_policy",
        ),
        Knob(
            name="write-cache",
            type="OnOffAuto",
            default="auto",
            does="Whether the guest sees a cache that it has to flush.",
            xml="driver/@cache",
        ),
    ),
    "usb-serial": (
        _switch("always-plugged", False, "Stay plugged in while nobody has the host's end open.", since="5.2"),
        _CHARDEV,
    ),
    # hw/usb/dev-audio.c
    "usb-audio": (
        _text("audiodev", "The audio backend that it plays on.", xml="audio/@id", ours=True),
        _number("buffer", 0, "How many bytes are held back before they play; 0 takes the default of 32 packets."),
        _number("debug", 0, "How much it logs for who debugs QEMU: 0 is nothing."),
        _switch("multi", False, "Offer 5.1 and 7.1 channels besides stereo."),
    ),
    "usb-net": (
        _BOOT_INDEX,
        _text("mac", "The MAC address, such as `52:54:00:12:34:56`.", xml="mac/@address"),
        _text("netdev", "The network backend that it is connected to.", ours=True),
    ),
    "usb-ccid": (_DEBUG,),
    # hw/usb/ccid-card-emulated.c, ccid-card-passthru.c
    "card": (
        _DEBUG,
        _number("slot", 0, "Its slot in the reader, of which there is one.", most=0, xml="address/@slot", ours=True),
    ),
    "ccid-card-emulated": (
        _text("backend", "Where the card's keys come from.", words=("nss-emulated", "certificates"), xml="@mode"),
        *(
            _text(f"cert{number}", f"The name of certificate {number} in the database.", xml=f"certificate[{number}]")
            for number in (1, 2, 3)
        ),
        _text("db", "The folder of the certificates' database.", xml="database"),
    ),
    "ccid-card-passthru": (_CHARDEV,),
}
