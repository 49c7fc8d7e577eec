"""What a domain's USB controllers want of PCI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from translator.document.domain import PciAddress, PciDemand
from translator.placing.inventory import CONTROLLER_TURN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from translator.families.usb.slots import Slot
    from translator.findings import Findings
    from translator.placing.pci import Board
    from translator.topology import Value

# The functions of Intel's ICH9 that its USB controllers are; those of one index share a slot. libvirt knows the
# first four only; the others sit where the chip has them, below the second EHCI.
_ICH9_FUNCTIONS = {
    "ich9-ehci1": 7,
    "ich9-uhci1": 0,
    "ich9-uhci2": 1,
    "ich9-uhci3": 2,
    "ich9-uhci4": 0,
    "ich9-uhci5": 1,
    "ich9-uhci6": 2,
}
_PIIX3 = PciAddress(0, 0, 1, 2)


def claims(slots: Iterable[Slot], first: int, board: Board, findings: Findings) -> Sequence[PciDemand]:
    """Return what USB controllers want of PCI; they are owned by number, from `first` on."""
    demands = []
    for number, slot in enumerate(slots, first):
        if board.express and slot.number == 0 and slot.row.name == "piix3-uhci" and str(slot.pci) == str(_PIIX3):
            message = f"PCI address {_PIIX3} is the PIIX3's, and this machine has none"
            findings.fault("T321", slot, message, "address", "leave the address out, and a free one is chosen")
        elif demand := _demand(slot, board):
            demands.append(msgspec.structs.replace(demand, owner=("usb", number), part=slot.element))
    return demands


def multifunction(slot: Slot) -> dict[str, Value]:
    """Return the property that opens a PCI slot for more functions than 0, or says that it stays closed."""
    return {"multifunction": slot.pci.multifunction} if slot.pci and slot.pci.multifunction is not None else {}


def _demand(slot: Slot, board: Board) -> PciDemand | None:
    """Return what a controller wants of PCI; None where that is nothing."""
    model = slot.row.name
    if slot.row.kind.type != "emulated":
        return None
    line = f", line {slot.source.line}" if slot.element else ""
    what = f"USB controller {slot.number} ({model}{line})"
    if model in _ICH9_FUNCTIONS:
        first = _ICH9_FUNCTIONS[model] == 0
        return PciDemand(
            what=what,
            plug="conventional",
            address=slot.pci,
            homes=((0x1D, 0), (0x1A, 0)) if first and board.name == "q35" else (),
            group=slot.number,
            function=_ICH9_FUNCTIONS[model],
            multifunction=True if first else None,
            turn=CONTROLLER_TURN,
        )
    on_chipset = board.name == "pc" and slot.number == 0 and model == "piix3-uhci"
    return PciDemand(
        what=what,
        plug="express" if slot.row.interface == "xhci" else "conventional",
        address=slot.pci,
        homes=((_PIIX3.slot, _PIIX3.function),) if on_chipset else (),
        bound=on_chipset,
        turn=CONTROLLER_TURN,
    )
