"""Which PCI address each USB controller of a domain gets, among all else that the document puts on PCI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from translator.domain import PciAddress, PciDemand
from translator.families import PciPlaces
from translator.inventory import CONTROLLER_TURN
from translator.pci import Misplaced, place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from translator.families import Context, Part
    from translator.findings import Findings
    from translator.pci import Board
    from translator.slots import Slot
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


def place_parts(context: Context, parts: Mapping[str, Part]) -> PciPlaces:
    """Place everything that wants a PCI slot, each family's controllers among all else that the document has there.

    A fault is noted where one of the families' elements cannot be placed as it asks.
    """
    inventory, board = context.domain.pci, context.board
    if inventory is None or board is None:
        return PciPlaces()
    claimed = {name: part.claims() for name, part in parts.items()}
    busses = [demand for demands in claimed.values() for demand in demands or () if demand.opens]
    demands = [*busses, *inventory.ahead]
    for type, others in inventory.controllers:
        demands += (one for one in claimed.get(type) or others if not one.opens)
    if None in claimed.values():
        return PciPlaces()
    for part in parts.values():
        demands += part.unasked()
    demands += inventory.behind
    placed = place(board, demands)
    if isinstance(placed, Misplaced):
        at_fault = next((one for number in placed.demands if (one := demands[number].part) is not None), None)
        if at_fault is not None:
            where = "address" if at_fault.pci else None
            context.findings.fault("T321", at_fault, placed.message, where, placed.help)
        elif not placed.demands and (
            seeking := [one.part for one in demands if one.part and not (one.address or one.bound)]
        ):
            context.findings.fault("T336", seeking[-1], placed.message, help=placed.help)
        return PciPlaces()
    owned = {
        demand.owner: address
        for demand, address in zip(demands, placed.addresses, strict=True)
        if demand.owner is not None
    }
    return PciPlaces(owned, placed.added)


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
