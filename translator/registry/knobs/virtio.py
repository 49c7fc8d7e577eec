"""Properties of virtio's controllers and ports. Sources: hw/virtio, hw/scsi/virtio-scsi.c, hw/char of QEMU 7.2."""

from __future__ import annotations

from translator.registry.knob import Knob, choice, number, switch, text
from translator.registry.knobs.common import CHARDEV

_LEGACY = (
    choice("disable-legacy", "Whether drivers of virtio before 1.0 are left out; `auto` follows the bus."),
    switch("disable-modern", False, "Leave drivers of virtio 1.0 out."),
)

GROUPS: dict[str, tuple[Knob, ...]] = {
    # hw/virtio/virtio-pci.c, include/hw/virtio/virtio.h
    "virtio": (
        switch("aer", False, "Report errors of PCI Express (AER).", since="6.0"),
        switch("any_layout", True, "Take buffers cut up in any way."),
        switch("ats", False, "Let the device cache translations of addresses (ATS).", xml="driver/@ats"),
        switch("event_idx", True, "Notify only when a mark in the queue is passed.", xml="driver/@event_idx"),
        switch("indirect_desc", True, "Take descriptors that lead to tables of descriptors."),
        switch(
            "ioeventfd", True, "Serve the guest's notifications in a thread of their own.", xml="driver/@ioeventfd"
        ),
        switch("iommu_platform", False, "Have addresses translated by the platform's IOMMU.", xml="driver/@iommu"),
        switch("migrate-extra", True, "Pass the state that virtio 1.0 added on when the guest migrates."),
        switch("modern-pio-notify", False, "Offer notifications by an I/O port with virtio 1.0 as well."),
        switch("notify_on_empty", True, "Notify when a queue runs empty, whatever else holds."),
        switch("packed", False, "Offer queues whose descriptors are packed.", xml="driver/@packed"),
        switch(
            "page-per-vq", False, "Give each queue's notifications a page of their own.", xml="driver/@page_per_vq"
        ),
        switch("queue_reset", True, "Let the guest reset one queue alone.", since="7.2"),
        switch("use-disabled-flag", True, "Tell while the device is off, as in virtio 1.0.", since="5.0"),
        switch("use-started", True, "Know that the device has begun from what the guest wrote."),
        switch("virtio-pci-bus-master-bug-migration", False, "Turn DMA on for drivers that forget to."),
        switch(
            "x-ats-page-aligned",
            True,
            "Experimental: promise that cached translations are of whole pages.",
            since="5.2",
        ),
        switch(
            "x-disable-legacy-check",
            False,
            "Experimental: do not mind virtio before 1.0 where it cannot be.",
            since="5.1",
        ),
        switch("x-disable-pcie", False, "Experimental: be a conventional device on PCI Express as well."),
        switch("x-ignore-backend-features", False, "Experimental: offer features although the backend lacks them."),
        switch("x-pcie-deverr-init", True, "Experimental: begin the registers for errors of PCI Express."),
        switch("x-pcie-flr-init", True, "Experimental: offer the reset of one function."),
        switch("x-pcie-lnkctl-init", True, "Experimental: begin the register of the link."),
        switch("x-pcie-pm-init", True, "Experimental: begin the register for power management."),
    ),
    "virtio-scsi": (
        number("cmd_per_lun", 128, "How many commands a LUN has under way at once.", xml="driver/@cmd_per_lun"),
        switch("hotplug", True, "Tell the guest of LUNs that come and go."),
        Knob(
            name="iothread",
            type="link<iothread>",
            does="The I/O thread that serves it.",
            xml="driver/@iothread",
        ),
        number("max_sectors", 0xFFFF, "How many sectors one request may have.", xml="driver/@max_sectors"),
        number(
            "num_queues",
            2**32 - 1,
            "How many queues there are for requests; the largest number is one for each processor.",
            least=1,
            xml="driver/@queues",
        ),
        switch("param_change", True, "Tell the guest of LUNs that change."),
        switch("seg_max_adjust", True, "Let a request have as many parts as the queue has room for.", since="5.0"),
        number(
            "vectors",
            2**32 - 1,
            "How many interrupts by message it has; the largest number is one for each queue and two more.",
        ),
        number("virtqueue_size", 256, "How many entries a queue has, a power of two.", least=3, most=1024),
    ),
    "virtio-scsi-pci": _LEGACY,
    "virtio-serial": (
        number("class", 0, "The class of PCI device that it says it is; 0 takes the usual one.", most=0xFFFFFF),
        switch("emergency-write", True, "Let the guest print in an emergency, before it has a driver."),
        number("max_ports", 31, "How many ports it has.", least=1, most=511, xml="@ports", ours=True),
        number("vectors", 2, "How many interrupts by message it has.", xml="@vectors"),
    ),
    "virtio-serial-pci": _LEGACY,
    "virtio-port": (
        CHARDEV,
        text("name", "The name by which the guest finds the port.", xml="target/@name"),
        number(
            "nr", 2**32 - 1, "The port's number; the largest number takes a free one.", xml="address/@port", ours=True
        ),
    ),
}
