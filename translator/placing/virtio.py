"""What `<driver>` says of a virtio controller, in QEMU's words.

Source: qemuBuildVirtioDevProps and qemuBuildControllerSCSIDevProps (qemu/qemu_command.c), as observed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from translator.document.domain import PciPlug
    from translator.document.reader import Place, Reader
    from translator.topology import Value

TRANSPORTS: dict[str, tuple[str, PciPlug]] = {
    "": ("", "express"),
    "-transitional": ("-transitional", "conventional"),
    "-non-transitional": ("-non-transitional", "express"),
}
_SWITCHES = {
    "iommu": "iommu_platform",
    "ats": "ats",
    "packed": "packed",
    "page_per_vq": "page-per-vq",
    "ioeventfd": "ioeventfd",
    "event_idx": "event_idx",
}
_NUMBERS = {"queues": "num_queues", "cmd_per_lun": "cmd_per_lun", "max_sectors": "max_sectors"}


def properties(reader: Reader, place: Place) -> dict[str, Value]:
    """Return the properties that the controller's `<driver>` gives."""
    driver = reader.child(place, "driver")
    if driver is None:
        return {}
    found: dict[str, Value] = {}
    thread = reader.number(driver, "iothread", least=1)
    if thread is not None:
        found["iothread"] = f"iothread{thread}"
    for name, word in _SWITCHES.items():
        if (value := driver.element.get(name)) is not None:
            found[word] = value == "on"
    for name, word in _NUMBERS.items():
        if (number := reader.number(driver, name)) is not None:
            found[word] = number
    return found
