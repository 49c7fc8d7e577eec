"""Which PCI address each USB controller of a domain gets, among all else that the document puts on PCI."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from translator.domain import PciAddress, PciDemand
from translator.inventory import CONTROLLER_TURN
from translator.models import machine_row
from translator.pci import BOARDS, AddedBus, Misplaced, open_slots, place

if TYPE_CHECKING:
    from translator.domain import Domain
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


class Busses(NamedTuple):
    """The PCI busses that come along, and those, asked for or not, on the way to a USB controller."""

    added: tuple[AddedBus, ...] = ()
    used: tuple[AddedBus, ...] = ()


def place_controllers(domain: Domain, listed: list[Slot], unasked: list[Slot], findings: Findings) -> Busses:
    """Give each controller its place: libvirt's where it has one, else what the document says.

    Args:
        listed: the document's controllers in libvirt's order.
        unasked: the one that the machine has besides, if it has.
    """
    inventory = domain.pci
    if inventory is None:
        for slot, address in zip(listed, open_slots([slot.pci for slot in listed]), strict=True):
            slot.pci = address
        return Busses()
    board = BOARDS[machine_row(domain.machine).board or ""]
    owners: dict[int, Slot] = {}
    demands: list[PciDemand] = []
    for others, slots in ((inventory.ahead, listed), (inventory.between, unasked)):
        demands += others
        for slot in slots:
            if board.express and slot.number == 0 and slot.row.name == "piix3-uhci" and str(slot.pci) == str(_PIIX3):
                message = f"PCI address {_PIIX3} is the PIIX3's, and this machine has none"
                findings.fault("T321", slot, message, "address", "leave the address out, and a free one is chosen")
            elif demand := _demand(slot, board):
                owners[len(demands)] = slot
                demands.append(demand)
    placed = place(board, [*demands, *inventory.behind])
    if isinstance(placed, Misplaced):
        at_fault = next((owners[number] for number in placed.demands if number in owners), None)
        if at_fault is not None and at_fault.element is not None:
            where = "address" if at_fault.element.pci else None
            findings.fault("T321", at_fault, placed.message, where, placed.help)
        return Busses()
    for number, slot in owners.items():
        slot.pci = placed.addresses[number]
    opened = {bus.index: bus for bus in placed.added}
    for demand, address in zip((*demands, *inventory.behind), placed.addresses, strict=True):
        if demand.opens is not None:
            opened[demand.opens[0]] = AddedBus(*demand.opens, address)
    used: dict[int, AddedBus] = {}
    for slot in owners.values():
        number = slot.pci.bus if slot.pci else 0
        while number not in used and (bus := opened.get(number)) is not None and bus.address is not None:
            used[number] = bus
            number = bus.address.bus
    return Busses(placed.added, tuple(used[number] for number in sorted(used)))


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
