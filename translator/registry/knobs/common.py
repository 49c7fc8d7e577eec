"""Properties that drivers of several families have: disks', and those that each has in a group of its own.

Source: include/hw/block/block.h of QEMU 7.2.
"""

from __future__ import annotations

from translator.registry.knob import Knob, choice, number, switch, text

BOOT_INDEX = number(
    "bootindex",
    None,
    "When the firmware tries to start from it: lower numbers first; -1 is never.",
    type="int32",
    least=-1,
    xml="boot/@order",
)
CHARDEV = text("chardev", "The character device on the host that it stands on.", xml="@type and source", ours=True)
MSI = choice("msi", "Whether it can interrupt by message (MSI).")
MSIX = choice("msix", "Whether it can interrupt by message (MSI-X).")
REMOVABLE = switch(
    "removable", False, "Call it a medium that can be taken out, as a stick is.", xml="target/@removable"
)

GROUPS: dict[str, tuple[Knob, ...]] = {
    "medium": (
        text("drive", "The block node that holds the disk's data.", xml="source", ours=True),
        switch(
            "share-rw", False, "Allow others to write to what is behind the disk at the same time.", xml="shareable"
        ),
    ),
    "block": (
        choice("account-failed", "Count requests that failed in the statistics.", since="7.2"),
        choice("account-invalid", "Count requests that made no sense in the statistics.", since="7.2"),
        choice("backend_defaults", "Take block sizes that are not given from what is behind the disk.", since="6.1"),
        number("discard_granularity", 2**32 - 1, "The unit in which the guest can discard, in bytes.", type="size"),
        number(
            "logical_block_size",
            0,
            "The unit in which the guest addresses the disk, in bytes, a power of two; 0 takes the default of 512, "
            "or 2048 for a CD-ROM.",
            type="size",
            most=2 << 20,
        ),
        number("min_io_size", 0, "The least that is worth one request, in bytes; 0 says nothing.", type="size"),
        number("opt_io_size", 0, "What is best for one request, in bytes; 0 says nothing.", type="size"),
        number(
            "physical_block_size",
            0,
            "The unit in which the disk writes at once, in bytes, a power of two; 0 takes the default of 512.",
            type="size",
            most=2 << 20,
        ),
        choice("write-cache", "Whether the guest sees a cache that it has to flush.", xml="driver/@cache"),
    ),
    "errors": (
        choice(
            "rerror",
            "What to do when reading fails: tell the guest, go on, or stop the machine.",
            type="BlockdevOnError",
            words=("report", "ignore", "stop", "auto"),
            xml="driver/@rerror_policy",
        ),
        choice(
            "werror",
            "What to do when writing fails: tell the guest, go on, or stop the machine; `enospc` stops it for want "
            "of space only.",
            type="BlockdevOnError",
            xml="driver/@error_policy",
        ),
    ),
}
