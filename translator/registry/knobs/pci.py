"""Properties of every PCI device, and of what opens PCI busses. Sources: hw/pci, hw/pci-bridge of QEMU 7.2."""

from __future__ import annotations

from translator.registry.knob import Knob, choice, number, switch, text
from translator.registry.knobs.common import MSI

_MEMORY = "How much {what} is kept for what is hot-plugged behind it, in bytes; the largest number is the firmware's."
_DISABLE_ACS = switch("disable-acs", False, "Hide that it keeps devices behind it apart (Access Control Services).")
# include/hw/pci/pci_bridge.h
_RESERVE = (
    number(
        "bus-reserve",
        2**32 - 1,
        "How many bus numbers are kept for bridges that come behind it; the largest number is the firmware's.",
    ),
    *(
        number(name, 2**64 - 1, _MEMORY.format(what=what), type="size")
        for name, what in (
            ("io-reserve", "room for I/O ports"),
            ("mem-reserve", "memory that is not prefetchable"),
            ("pref32-reserve", "prefetchable memory below 4 GiB"),
            ("pref64-reserve", "prefetchable memory anywhere"),
        )
    ),
)

GROUPS: dict[str, tuple[Knob, ...]] = {
    # Every PCI device: hw/pci/pci.c, pci_props
    "pci": (
        number(
            "acpi-index",
            0,
            "The number that firmware tells the guest, which may name the device by it; 0 is none.",
            most=16383,
            since="6.0",
        ),
        number(
            "addr",
            -1,
            "Slot and function on its PCI bus, spelled as `0x1.0x2`; -1 lets QEMU take a free one.",
            type="int32",
            least=-1,
            most=255,
            xml="address",
            ours=True,
        ),
        text("failover_pair_id", "The id of the network device that it stands in for during migration."),
        Knob(
            name="multifunction",
            type="bool",
            default=False,
            does="Say in function 0 that the slot has further functions.",
            xml="address/@multifunction",
            ours=True,
        ),
        number("rombar", 1, "Whether the guest sees the option ROM: 0 is no.", most=1),
        text("romfile", "The file with the option ROM; empty for none."),
        number(
            "romsize",
            2**32 - 1,
            "The size of the option ROM's window, in bytes, a power of two; the largest number means the file's.",
            since="6.0",
        ),
        switch("x-pcie-extcap-init", True, "Experimental: begin the list of PCI Express extended capabilities."),
        switch("x-pcie-lnksta-dllla", True, "Experimental: report that the PCI Express link is active."),
    ),
    # hw/pci/pci_bridge.c
    "pci-bridge": (
        *_RESERVE,
        number(
            "chassis_nr",
            0,
            "The number of its chassis, by which the guest tells its slots; none may be 0.",
            type="uint8",
            xml="target/@chassisNr",
        ),
        MSI,
        switch("shpc", True, "Have a controller for hot-plug by the standard (SHPC), besides what ACPI does."),
    ),
    "pcie-pci-bridge": (MSI,),
    "pcie-port": (
        number("aer_log_max", 8, "How many errors the log for error reporting (AER) holds.", type="uint16", most=127),
        number(
            "port",
            0,
            "The number of the port, as the guest reads it.",
            type="uint8",
            xml="target/@port",
        ),
    ),
    "pcie-slot": (
        number(
            "chassis",
            0,
            "The number of its chassis, which with the slot's is unique in a machine.",
            type="uint8",
            xml="target/@chassis",
        ),
        switch("hotplug", True, "Let devices come and go while the guest runs.", since="5.0", xml="target/@hotplug"),
        switch("power_controller_present", True, "Let the guest switch the slot's power."),
        number("slot", 0, "The number of the slot in its chassis.", type="uint16", most=2**13 - 1),
        switch(
            "x-native-hotplug", True, "Experimental: hot-plug as PCI Express has it, and not ACPI's.", since="6.2"
        ),
    ),
    "pcie-root-port": (
        *_RESERVE,
        _DISABLE_ACS,
        switch("x-migrate-msix", True, "Experimental: pass the state of MSI-X on when the guest migrates."),
        choice("x-speed", "Experimental: the link's speed, in GT/s.", type="PCIELinkSpeed", default="16"),
        choice("x-width", "Experimental: how many lanes the link has.", type="PCIELinkWidth", default="32"),
    ),
    "ioh3420": (_DISABLE_ACS,),
    # hw/pci-bridge/pci_expander_bridge.c
    "expander": (
        number(
            "bus_nr",
            0,
            "The number of its bus; those up to the next expander's are for busses behind it.",
            type="uint8",
            xml="target/@busNr",
        ),
        switch("bypass_iommu", False, "Leave devices behind it out of the IOMMU's reach.", since="6.1"),
        number(
            "numa_node",
            128,
            "The NUMA node that the devices behind it are near to; 128 is none.",
            type="uint16",
            most=128,
            xml="target/node",
        ),
    ),
    # hw/ppc/spapr_pci.c
    "spapr-pci-host-bridge": (
        number("atsd", 0, "Where the registers are for shooting down translations of NVLink.", type="uint64"),
        switch("bypass-iommu", False, "Leave devices behind it out of the IOMMU's reach.", since="6.1"),
        switch("ddw", True, "Let the guest open further windows for DMA."),
        number("dma64_win_addr", 0x800000000000000, "Where the second window for DMA begins.", type="uint64"),
        number("dma_win_addr", 0, "Where the first window for DMA begins.", type="uint64"),
        number("dma_win_size", 0x40000000, "The size of the first window for DMA, in bytes.", type="uint64"),
        switch("dynamic-reconfiguration", True, "Let devices come and go while the guest runs."),
        number("gpa", 0, "Where the memory of NVLink begins for the guest.", type="uint64"),
        number(
            "index",
            2**32 - 1,
            "The host bridge's number.",
            xml="target/@index",
        ),
        number("io_win_size", 0x10000, "The size of the window for I/O ports, in bytes.", type="uint64"),
        number("mem64_win_size", 1 << 40, "The size of the window for memory beyond 4 GiB, in bytes.", type="uint64"),
        number("mem_win_size", 0x80000000, "The size of the window for memory below 4 GiB, in bytes.", type="uint64"),
        number(
            "numa_node",
            2**32 - 1,
            "The NUMA node that it is near to; the largest number is none.",
            xml="target/node",
        ),
        switch("pcie-extended-configuration-space", True, "Offer the configuration space that PCI Express has."),
        number("pgsz", 0x1211000, "The sizes of pages that windows for DMA may have, a bit for each.", type="uint64"),
        switch("pre-2.8-migration", False, "Migrate as QEMU before 2.8 did."),
        switch("pre-5.1-associativity", False, "Tell of NUMA nodes as QEMU before 5.1 did.", since="5.1"),
        switch(
            "x-config-reg-migration-enabled",
            True,
            "Experimental: pass the register's address on in migration.",
            since="5.1",
        ),
    ),
}
