"""Properties of disks on any bus, and of what they are plugged into but for USB and virtio.

Sources: include/hw/block/block.h, hw/scsi, hw/ide, hw/block/fdc.c of QEMU 7.2.
"""

from __future__ import annotations

from translator.registry.knob import Knob, choice, number, switch, text
from translator.registry.knobs.common import BOOT_INDEX, MSI, MSIX

_SERIAL = text("serial", "The serial number that it tells the guest.", xml="serial")
_VERSION = text("ver", "The firmware's version that it tells the guest.")
_WWN = number("wwn", 0, "The world-wide name that it tells the guest; 0 is none.", type="uint64")
_SAS_ADDRESS = number("sas_address", 0, "Its own address among SAS devices; 0 makes one up.", type="uint64")
_IO_TIMEOUT = number("io_timeout", 30, "How long the host may take for a command, in seconds.", since="6.0")
_MAX_UNMAP = number("max_unmap_size", 1 << 30, "How much one command may discard, in bytes.", type="uint64")
_MAX_IO = number("max_io_size", 2**31 - 1, "How much one command may move, in bytes.", type="uint64")
_ROTATION = number(
    "rotation_rate", 0, "Turns a minute; 0 says nothing, and 1 is a disk that does not turn.", type="uint16"
)
_SCSI_VERSION = "The generation of SCSI that it says it is"
_PLACE = "{what} of the controller that it sits on; the largest number takes a free one."

GROUPS: dict[str, tuple[Knob, ...]] = {
    "geometry": (
        number("cyls", 0, "How many cylinders it says it has; 0 has it computed.", most=65535),
        number("heads", 0, "How many heads it says it has; 0 has it computed.", most=255),
        number("lcyls", 0, "How many logical cylinders it says it has; 0 has it computed."),
        number("lheads", 0, "How many logical heads it says it has; 0 has it computed."),
        number("lsecs", 0, "How many logical sectors a track has; 0 has it computed."),
        number("secs", 0, "How many sectors a track has; 0 has it computed.", most=255),
    ),
    # hw/scsi/scsi-bus.c
    "scsi": (
        BOOT_INDEX,
        number("channel", 0, "The bus of the controller that it sits on.", xml="address/@bus", ours=True),
        number("lun", 2**32 - 1, _PLACE.format(what="The unit"), xml="address/@unit", ours=True),
        number("scsi-id", 2**32 - 1, _PLACE.format(what="The target"), xml="address/@target", ours=True),
    ),
    # hw/scsi/scsi-disk.c
    "scsi-disk": (
        text("device_id", "The name that it tells the guest in place of its serial number or its node."),
        _MAX_IO,
        number("port_index", 0, "The number of its port among those that lead to the device.", type="uint16"),
        number("port_wwn", 0, "The world-wide name of its port; 0 is none.", type="uint64"),
        text("product", "The product's name that it tells the guest."),
        switch(
            "quirk_mode_page_vendor_specific_apple",
            False,
            "Have the mode page by which a Macintosh knows a disk of Apple's.",
            since="7.1",
        ),
        number("scsi_version", 5, f"{_SCSI_VERSION}: 5 is SPC-3.", type="int32", least=0, most=255),
        _SERIAL,
        text("vendor", "The vendor's name that it tells the guest."),
        _VERSION,
        _WWN,
    ),
    "scsi-hd": (
        switch("dpofua", False, "Offer writes that pass the cache by (DPO and FUA)."),
        _MAX_UNMAP,
        switch("removable", False, "Call it a medium that can be taken out."),
        _ROTATION,
    ),
    "scsi-cd": (
        switch("quirk_mode_page_apple_vendor", False, "Have the vendor's mode page that A/UX asks for.", since="7.1"),
        switch(
            "quirk_mode_page_truncated",
            False,
            "Take a MODE SELECT that is cut off, as Macintoshes send.",
            since="7.1",
        ),
        switch(
            "quirk_mode_sense_rom_use_dbd",
            False,
            "Leave block descriptors out of MODE SENSE when asked to, as Macintoshes expect.",
            since="7.1",
        ),
    ),
    "scsi-block": (
        _IO_TIMEOUT,
        _MAX_IO,
        _MAX_UNMAP,
        _ROTATION,
        number(
            "scsi_version", -1, f"{_SCSI_VERSION}; -1 leaves it as the device says.", type="int32", least=-1, most=255
        ),
    ),
    "scsi-generic": (_IO_TIMEOUT,),
    # hw/scsi/mptsas.c, megasas.c, vmw_pvscsi.c
    "mptsas1068": (MSI, _SAS_ADDRESS),
    "megasas": (
        text("hba_serial", "The adapter's serial number."),
        number("max_cmds", 1000, "How many commands it has under way at once.", least=1, most=2048),
        number("max_sge", 80, "How many parts a request may have.", least=1, most=128),
        MSI,
        MSIX,
        _SAS_ADDRESS,
        switch("use_jbod", False, "Show disks as they are, and not as volumes."),
    ),
    "pvscsi": (
        number("use_msg", 1, "Whether it tells the guest of disks that come and go: 0 is no.", type="uint8", most=1),
        switch("x-disable-pcie", False, "Experimental: be a conventional device on PCI Express as well."),
        switch("x-old-pci-configuration", False, "Experimental: have the PCI registers that QEMU before 2.6 had."),
    ),
    # hw/scsi/spapr_vscsi.c, include/hw/ppc/spapr_vio.h
    "spapr-vscsi": (
        number(
            "reg",
            2**32 - 1,
            "Its place on its bus; the largest number takes a free one.",
            xml="address/@reg",
        ),
    ),
    # hw/ide/qdev.c
    "ata": (
        BOOT_INDEX,
        text("model", "The model's name that it tells the guest."),
        _SERIAL,
        number(
            "unit",
            2**32 - 1,
            "Its place on its bus: 0 is the master, 1 the slave; the largest number takes a free one.",
            xml="address/@unit",
            ours=True,
        ),
        _VERSION,
        _WWN,
    ),
    "ide-hd": (
        choice(
            "bios-chs-trans",
            "How the firmware turns cylinders and heads into what it can count.",
            type="BiosAtaTranslation",
        ),
        _ROTATION,
    ),
    # hw/block/fdc.c, fdc-isa.c
    "isa-fdc": (
        *(
            number(
                f"bootindex{drive}",
                None,
                f"When the firmware tries to start from drive {drive}: lower numbers first; -1 is never.",
                type="int32",
                least=-1,
                xml="boot/@order (disks)",
            )
            for drive in "AB"
        ),
        number("dma", 2, "The DMA channel that it uses.", most=7),
        choice(
            "fallback",
            "What a drive is whose medium does not tell, by its capacity.",
            type="FdcDriveType",
            default="288",
        ),
        *(
            choice(f"fdtype{drive}", f"What drive {drive} is, by its capacity.", type="FdcDriveType")
            for drive in "AB"
        ),
        number("iobase", 0x3F0, "Where its I/O ports begin.", most=0xFFFF),
        number("irq", 6, "The interrupt that it uses.", most=15),
    ),
    "floppy": (
        choice("drive-type", "What the drive is, by its capacity.", type="FdcDriveType"),
        number(
            "unit",
            2**32 - 1,
            "Which drive it is: 0 is A, 1 is B; the largest number takes a free one.",
            xml="address/@unit",
            ours=True,
        ),
    ),
}
