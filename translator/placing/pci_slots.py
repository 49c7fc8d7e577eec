"""Which PCI address each USB controller of a domain gets, among all else that the document puts on PCI."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.families import PciPlaces
from translator.placing.pci import Misplaced, place

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.families import Context, Part


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
