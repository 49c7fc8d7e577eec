"""Properties of what a QEMU has already, as it tells them, against those that a plan gives: most are set for good.

Compared is what the plan gives. What it leaves to QEMU is QEMU's, and a property that a document no longer gives is
not seen to be another than its default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from translator.planning.subjects import parts_of
from translator.registry.knob import spelled
from translator.registry.models import DRIVER_ALIASES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from translator.live.observe import Observation
    from translator.topology import Controller, Device, Topology, Value

# What QEMU makes another number of than it was given, to fit its hardware. Sources: usb_xhci_realize
# (hw/usb/hcd-xhci.c), megasas_scsi_realize (hw/scsi/megasas.c), virtio_serial_pci_realize (virtio-serial-pci.c).
_ROUNDED = frozenset(("intrs", "max_sge", "max_cmds", "class"))
# The numbers of PCI busses are given out with the busses, in which nothing changes while QEMU runs; the order of
# starting follows from a document's other disks, too, and matters to the next start alone.
_NOT_COMPARED = _ROUNDED | {
    *("chassis", "chassis_nr", "port", "bus_nr", "numa_node"),
    *("bootindex", "bootindexA", "bootindexB"),
}


class Otherwise(NamedTuple):
    """A property of a part that has another value than the plan gives it."""

    part: Controller | Device
    name: str
    has: Value
    wanted: Value

    def __str__(self) -> str:
        return f"{self.name} {spelled(self.has)}, and the document wants {spelled(self.wanted)}"


def asked_of(topology: Topology) -> dict[str, tuple[str, ...]]:
    """Return which properties a QEMU is to be asked for, by what its drivers call themselves."""
    asked: dict[str, dict[str, None]] = {}
    for part in parts_of(topology).values():
        if part.driver is not None and part.properties:
            own = asked.setdefault(DRIVER_ALIASES.get(part.driver, part.driver), {})
            own |= dict.fromkeys(name for name in part.properties if name not in _NOT_COMPARED)
    return {driver: tuple(names) for driver, names in asked.items()}


def otherwise(seen: Observation, wanted: Topology) -> Iterator[tuple[str, Otherwise]]:
    """Yield what is another than the plan gives it, with the subject of the part that has it.

    What the topology decides is compared there: places, sizes, and what stands behind a device.
    """
    from translator.registry.knobs import knobs_of

    there = parts_of(seen.topology)
    for subject, part in parts_of(wanted).items():
        before = there.get(subject)
        if before is None or before.id is None or part.driver is None or not part.properties:
            continue
        has: Mapping[str, Value] = seen.values.get(before.id, {})
        knobs = knobs_of(part.driver) if part.properties.keys() & has.keys() else {}
        for name, value in part.properties.items():
            if name in _NOT_COMPARED or name not in has or (name in knobs and knobs[name].ours):
                continue
            if _plain(name, has[name]) != _plain(name, value):
                yield subject, Otherwise(part, name, has[name], value)


def _plain(name: str, value: Value) -> Value:
    """Return a value without what QEMU spells in another way: where an object is, and the case of an address."""
    if isinstance(value, str) and name == "iothread":
        return value.rpartition("/")[2]
    return value.lower() if isinstance(value, str) and name == "mac" else value
