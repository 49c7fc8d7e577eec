"""Properties of USB's controllers and devices, and of smartcards.

Sources: ranges, hw/usb of QEMU 7.2.
"""

from __future__ import annotations

from translator.registry.knob import Knob, number, switch, text
from translator.registry.knobs.common import BOOT_INDEX, CHARDEV, MSI, MSIX, REMOVABLE

_SUPPRESS_REMOTE_WAKE = switch(
    "suppress-remote-wake",
    True,
    "Hide from the guest that the device can wake it, so that it does not suspend the device and lose input.",
    since="5.0",
)
_USB_VERSION = number(
    "usb_version",
    2,
    "The USB generation that it runs at: 1 is full speed, 2 is high speed, which EHCI and xHCI need.",
    least=1,
    most=2,
)
_DISPLAY = text("display", "The id of the display that input goes to; any display when left out.")
_DEBUG = number("debug", 0, "How much it logs for who debugs QEMU: 0 is nothing.", type="uint8")

GROUPS: dict[str, tuple[Knob, ...]] = {
    # hw/usb/hcd-uhci.c, hcd-ehci-pci.c, hcd-ohci-pci.c
    "uhci": (
        number("bandwidth", 1280, "How many bytes the controller moves within one frame of a millisecond."),
        number("maxframes", 128, "How many missed frames are made up for before the rest is dropped."),
    ),
    "companion": (
        number(
            "firstport",
            0,
            "The first of its master's ports that it serves, counted from 0.",
            most=15,
            xml="master/@startport",
            ours=True,
        ),
        text("masterbus", "The bus of the controller that it is a companion of.", xml="@index", ours=True),
    ),
    "ehci": (number("maxframes", 128, "How many missed microframes are made up for before the rest is dropped."),),
    "pci-ohci": (number("num-ports", 3, "How many ports it has.", least=1, most=15, ours=True),),
    # hw/usb/hcd-xhci-pci.c, hcd-xhci-nec.c
    "xhci": (
        number("p2", 4, "How many ports serve USB 2 and slower.", least=0, most=15, xml="@ports", ours=True),
        number("p3", 4, "How many ports serve USB 3.", least=0, most=15, xml="@ports", ours=True),
        switch("streams", True, "Offer bulk streams, which fast disks use to have several requests under way."),
    ),
    "nec-usb-xhci": (
        switch("force-pcie-endcap", False, "Have the PCI Express capability on a conventional PCI bus as well."),
        number("intrs", 16, "How many interrupters it has, a power of two.", least=1, most=16),
        MSI,
        MSIX,
        number("slots", 64, "How many devices it can address at once, hubs included.", least=1, most=64),
        switch("superspeed-ports-first", True, "Count the USB 3 ports before those for USB 2, as the guest sees it."),
    ),
    # Every USB device: hw/usb/bus.c, usb_props
    "usb": (
        Knob(
            name="attached", type="bool", does="Whether it is connected to its port now; only to be read.", ours=True
        ),
        switch("msos-desc", True, "Offer Windows the descriptors that pick a driver or power settings."),
        text("pcap", "The file on the host that gets all its traffic, as Wireshark reads it.", since="6.0"),
        text("port", "Its port, dotted, from 1.", xml="address/@port", ours=True),
        text("serial", "The serial number that it tells the guest.", xml="serial (disks)"),
    ),
    "usb-hub": (
        switch("port-power", False, "Let the guest switch the power of each port."),
        number("ports", 8, "How many ports it has.", least=1, most=8, ours=True),
    ),
    "usb-tablet": (
        _USB_VERSION,
        _DISPLAY,
        number("head", 0, "The number of the display's output that input goes to."),
    ),
    "usb-mouse": (_USB_VERSION,),
    "usb-kbd": (_USB_VERSION, _DISPLAY),
    # hw/usb/host-libusb.c
    "usb-host": (
        BOOT_INDEX,
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
        ),
        number("hostaddr", 0, "The device's number on its bus there.", xml="source/address/@device", ours=True),
        number("hostbus", 0, "The host's bus that the device is on.", xml="source/address/@bus", ours=True),
        text(
            "hostdevice",
            "The device's node on the host, such as `/dev/bus/usb/001/008`.",
            xml="source/address",
            since="5.1",
            ours=True,
        ),
        text("hostport", "The device's port on its bus of the host, dotted.", xml="source/address/@port", ours=True),
        number("isobsize", 32, "How many packets one isochronous transfer to the host has."),
        number("isobufs", 4, "How many isochronous transfers are under way at once."),
        number("loglevel", 2, "What libusb logs: 0 nothing, 1 errors, 2 warnings, 3 information, 4 all.", most=4),
        switch("pipeline", True, "Have several bulk transfers under way at once."),
        number("productid", 0, "The product's number, 0 for any.", most=0xFFFF, xml="source/product/@id", ours=True),
        _SUPPRESS_REMOTE_WAKE,
        number("vendorid", 0, "The vendor's number, 0 for any.", most=0xFFFF, xml="source/vendor/@id", ours=True),
    ),
    # hw/usb/redirect.c
    "usb-redir": (
        BOOT_INDEX,
        CHARDEV,
        number("debug", 2, "What it logs: 1 errors, 2 warnings, 3 information, from 4 on the traffic.", type="uint8"),
        text(
            "filter",
            "Which devices the other side may redirect, rule after rule: `class:vendor:product:version:allow`.",
            xml="../redirfilter",
        ),
        switch("streams", True, "Pass bulk streams on, which fast disks use."),
        _SUPPRESS_REMOTE_WAKE,
    ),
    # hw/usb/dev-storage-classic.c
    "usb-storage": (
        BOOT_INDEX,
        switch("commandlog", False, "Trace every command of the guest.", since="5.2"),
        REMOVABLE,
    ),
    "usb-serial": (
        switch("always-plugged", False, "Stay plugged in while nobody has the host's end open.", since="5.2"),
        CHARDEV,
    ),
    # hw/usb/dev-audio.c
    "usb-audio": (
        text("audiodev", "The audio backend that it plays on.", xml="audio/@id", ours=True),
        number("buffer", 0, "How many bytes are held back before they play; 0 takes the default of 32 packets."),
        number("debug", 0, "How much it logs for who debugs QEMU: 0 is nothing."),
        switch("multi", False, "Offer 5.1 and 7.1 channels besides stereo."),
    ),
    "usb-net": (
        BOOT_INDEX,
        text("mac", "The MAC address, such as `52:54:00:12:34:56`.", xml="mac/@address"),
        text("netdev", "The network backend that it is connected to.", ours=True),
    ),
    "usb-ccid": (_DEBUG,),
    # hw/usb/ccid-card-emulated.c, ccid-card-passthru.c
    "card": (
        _DEBUG,
        number("slot", 0, "Its slot in the reader, of which there is one.", most=0, xml="address/@slot", ours=True),
    ),
    "ccid-card-emulated": (
        text("backend", "Where the card's keys come from.", words=("nss-emulated", "certificates"), xml="@mode"),
        *(
            text(f"cert{number}", f"The name of certificate {number} in the database.", xml=f"certificate[{number}]")
            for number in (1, 2, 3)
        ),
        text("db", "The folder of the certificates' database.", xml="database"),
    ),
    "ccid-card-passthru": (CHARDEV,),
}
