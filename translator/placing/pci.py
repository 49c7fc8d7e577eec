"""Which function of which PCI slot each thing of a machine gets: libvirt's answer, from demands alone.

libvirt places twice. A rehearsal with all the busses it likes finds out how many are needed; then the busses
are there, as controllers that want places themselves, and everything is placed again, they first. What the
document says, and what the chipset holds, is entered before the rest in both. Source:
qemuDomainAssignPCIAddresses (qemu/qemu_domain_address.c) and virDomainPCIAddressGetNextAddr
(conf/domain_addr.c), as read and as observed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.document.domain import PciAddress, PciDemand

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from translator.document.domain import PciPlug

ENDPOINTS: frozenset[PciPlug] = frozenset({"conventional", "express"})


class BusModel(NamedTuple):
    """What a bus takes: `automatic` tells whether endpoints are put there unasked."""

    takes: frozenset[PciPlug]
    automatic: bool
    first: int
    last: int


# Keyed by the model of the controller that opens the bus. Source: virDomainPCIAddressBusSetModel.
BUS_MODELS: dict[str, BusModel] = {
    "pci-root": BusModel(frozenset({"conventional", "pci-bridge", "pci-expander-bus"}), True, 1, 31),
    "pci-bridge": BusModel(frozenset({"conventional", "pci-bridge"}), True, 1, 31),
    "pci-expander-bus": BusModel(frozenset({"conventional", "pci-bridge"}), True, 0, 31),
    "dmi-to-pci-bridge": BusModel(frozenset({"conventional", "pci-bridge"}), False, 0, 31),
    "pcie-to-pci-bridge": BusModel(frozenset({"conventional", "pci-bridge"}), True, 1, 31),
    "pcie-root": BusModel(
        frozenset({"express", "pcie-root-port", "dmi-to-pci-bridge", "pcie-expander-bus"}), False, 1, 31
    ),
    "pcie-root-port": BusModel(frozenset({"express", "pcie-switch-upstream-port", "pcie-to-pci-bridge"}), True, 0, 0),
    "pcie-switch-upstream-port": BusModel(frozenset({"pcie-switch-downstream-port"}), False, 0, 31),
    "pcie-switch-downstream-port": BusModel(
        frozenset({"express", "pcie-switch-upstream-port", "pcie-to-pci-bridge"}), True, 0, 0
    ),
    "pcie-expander-bus": BusModel(frozenset({"pcie-root-port", "dmi-to-pci-bridge"}), False, 0, 31),
}
_MOST_BUSSES = 256  # a bus number has eight bits
# In the rehearsal, the root port that comes along with the first bridge is kept for that bridge.
_BRIDGE_PORT = BUS_MODELS["pcie-root-port"]._replace(takes=frozenset({"pcie-to-pci-bridge"}))


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """A machine's own part: its first bus, the model of those added, and what the chipset holds of bus 0."""

    name: str
    root: str
    spill: str
    chipset: tuple[tuple[int, int, str], ...] = ()

    @property
    def express(self) -> bool:
        return self.root == "pcie-root"


_BOARDS = (
    Board(
        name="pc",
        root="pci-root",
        spill="pci-bridge",
        chipset=((1, 0, "the chipset's ISA bridge"), (1, 3, "the chipset's power management")),
    ),
    Board(
        name="q35",
        root="pcie-root",
        spill="pcie-root-port",
        chipset=((0x1F, 0, "the chipset's ISA bridge"), (0x1F, 3, "the chipset's SMBus")),
    ),
    Board(name="virt", root="pcie-root", spill="pcie-root-port"),
    Board(name="pseries", root="pci-root", spill="pci-root"),
)
BOARDS: dict[str, Board] = {board.name: board for board in _BOARDS}


class Misplaced(NamedTuple):
    """Why the demands cannot be met, and the positions of those that are at fault: one, two, or all of them if ()."""

    demands: tuple[int, ...]
    message: str
    help: str | None


class AddedBus(msgspec.Struct, frozen=True):
    """A bus that no demand opens: the index and model of its controller, and where that sits, None for a root bus."""

    index: int
    model: str
    address: PciAddress | None


class Placed(NamedTuple):
    """The place of each demand, None for a root bus, and the busses that were added to have room for them."""

    addresses: tuple[PciAddress | None, ...]
    added: tuple[AddedBus, ...]


def place(board: Board, demands: Sequence[PciDemand]) -> Placed | Misplaced:
    """Return where everything sits; `multifunction` of an address is the property's value.

    Args:
        demands: in the order in which libvirt serves them: controllers of busses, then the rest.
    """
    placer = _Placer(board, demands)
    try:
        placer.place()
    except _RefusedError as refused:
        return refused.misplaced
    addresses = tuple(open_slots(placer.addresses))
    added = zip(placer.demands[len(demands) :], addresses[len(demands) :], strict=True)
    return Placed(
        addresses[: len(demands)],
        tuple(AddedBus(*demand.opens, address) for demand, address in added if demand.opens),
    )


def open_slots(addresses: Sequence[PciAddress | None]) -> Iterable[PciAddress | None]:
    """Turn `multifunction` on for function 0 of each slot that has others in use, unless the document says no.

    Source: virDomainPCIAddressSetAllMulti (conf/domain_addr.c).
    """
    shared = {(one.domain, one.bus, one.slot) for one in addresses if one and one.function}
    for one in addresses:
        if one and not one.function and one.multifunction is None and (one.domain, one.bus, one.slot) in shared:
            yield msgspec.structs.replace(one, multifunction=True)
        else:
            yield one


class _RefusedError(Exception):
    def __init__(self, misplaced: Misplaced) -> None:
        self.misplaced = misplaced


class _Bus(msgspec.Struct):
    """`used` are the functions in use, by slot; in the slots of `ports`, root ports sit side by side."""

    model: BusModel
    used: dict[int, dict[int, int | str]] = msgspec.field(default_factory=dict)
    ports: set[int] = msgspec.field(default_factory=set)

    def compatible(self, plug: PciPlug, number: int) -> bool:
        """Tell whether such a thing may be put here unasked."""
        if plug == "built-in":
            return number == 0 and "express" in self.model.takes
        return plug in self.model.takes and (self.model.automatic or plug not in ENDPOINTS)

    def accepts(self, plug: PciPlug | None) -> bool:
        """Tell whether the document may put such a thing here: it may mix the two kinds of endpoint."""
        if plug in (*ENDPOINTS, "built-in", "pci-bridge"):
            return bool(self.model.takes & ENDPOINTS) or plug in self.model.takes
        return plug in self.model.takes


class _Placer:
    def __init__(self, board: Board, demands: Sequence[PciDemand]) -> None:
        self.board = board
        # where there is no PCI Express, what could be either is conventional
        self.demands = [
            msgspec.structs.replace(one, plug="conventional") if one.plug == "express" and not board.express else one
            for one in demands
        ]
        self.addresses: list[PciAddress | None] = [demand.address for demand in demands]
        self.opened = dict(demand.opens for demand in demands if demand.opens)
        self.busses: list[_Bus] = []
        self.cursors: dict[PciPlug, tuple[int, int]] = {}
        self.groups: dict[int, int] = {}
        self.rehearsing = True

    def place(self) -> None:
        configured = len(self.opened) > 0 and max(self.opened) > 0
        self.lay_out(max(self.opened, default=0) + 1)
        self.collect()
        self.settle()
        # room for one more is always kept: on pc a slot, elsewhere a root port, once one was added
        if not self.board.express and not all(self.full(bus) for bus in self.busses):
            self.reserve(self.next_free("conventional"), "room for one more")
        self.assign()
        if self.board.express and not configured and len(self.busses) > 1:
            self.reserve(self.next_free("express"), "room for one more")
        self.add_controllers()
        self.rehearsing = False
        self.lay_out(len(self.busses))
        self.collect()
        self.settle()
        self.assign()

    def lay_out(self, count: int) -> None:
        """Open the busses 0 to `count`; those without a controller are of the model that the board adds."""
        models = [self.opened.get(number, self.board.spill) for number in range(count)]
        models[0] = self.board.root
        self.busses = [_Bus(BUS_MODELS[model]) for model in models]
        self.models = models
        self.bridged = any(map(_takes_bridges, models))
        self.cursors = {}

    def collect(self) -> None:
        """Enter what the document says, and what found its home in the rehearsal."""
        for number, demand in sorted(enumerate(self.demands), key=lambda one: one[1].turn):
            address = self.addresses[number]
            if address is None or (demand.bound and self.home(demand) == _place(address)):
                continue
            if self.rehearsing and address.bus >= len(self.busses):
                # the document's bus is counted up where the first bridge needs a root port of its own
                address = msgspec.structs.replace(address, bus=self.grow(address.bus, demand.plug))
                self.addresses[number] = address
            self.enter(number, address)

    def settle(self) -> None:
        """Enter what the chipset holds, and give the things that belong somewhere their homes."""
        for number, demand in enumerate(self.demands):
            if demand.bound:
                self.bind(number, demand)
        for slot, function, what in self.board.chipset:
            self.reserve(PciAddress(0, 0, slot, function), what)
        for number, demand in enumerate(self.demands):
            if demand.bound or not demand.homes or self.addresses[number]:
                continue
            for slot, function in demand.homes:
                if not self.busses[0].used.get(slot):
                    address = PciAddress(0, 0, slot, function, demand.multifunction)
                    self.enter(number, address)
                    self.addresses[number] = address
                    break
            else:
                if demand.early:
                    self.choose(number, demand)

    def bind(self, number: int, demand: PciDemand) -> None:
        _, _, slot, function = self.home(demand)
        home = PciAddress(0, 0, slot, function, demand.multifunction)
        given = self.addresses[number]
        if given is not None and _place(given) != _place(home):
            raise _RefusedError(
                Misplaced(
                    (number,),
                    f"{demand.what} is part of the chipset and sits at PCI address {home}, not at {given}",
                    "leave the address out",
                )
            )
        self.enter(number, given or home)
        self.addresses[number] = given or home

    def home(self, demand: PciDemand) -> tuple[int, int, int, int]:
        return (0, 0, *demand.homes[0])

    def assign(self) -> None:
        """Give places to what has none, the controllers of busses first."""
        self.groups = {}
        for number, demand in enumerate(self.demands):
            if demand.group is not None and self.addresses[number]:
                self.groups.setdefault(demand.group, number)
        numbers = range(len(self.demands))
        for number in (
            *(number for number in numbers if self.demands[number].opens),
            *(number for number in numbers if not self.demands[number].opens),
        ):
            if self.addresses[number] is None and self.demands[number].plug:
                self.choose(number, self.demands[number])

    def choose(self, number: int, demand: PciDemand) -> None:
        member = self.groups.get(demand.group) if demand.group is not None else None
        if member is not None:
            beside = self.addresses[member]
            assert beside is not None, "a group is noted with its first address"
            address = PciAddress(beside.domain, beside.bus, beside.slot, demand.function, demand.multifunction)
            self.enter(number, address)
        else:
            assert demand.plug is not None, "what plugs into nothing is not asked"
            free = self.next_free(demand.plug)
            function = free.function or demand.function
            address = msgspec.structs.replace(free, function=function, multifunction=demand.multifunction)
            self.reserve(address, number)
        if not self.rehearsing:
            self.addresses[number] = address
            if demand.group is not None:
                self.groups.setdefault(demand.group, number)

    def add_controllers(self) -> None:
        """Let the busses that were added be controllers, each in need of a place."""
        index = 1
        while index < len(self.busses):  # a bridge's place may need one more bus
            if index not in self.opened:
                model = self.models[index]
                self.opened[index] = model
                plug: PciPlug | None = None if model == "pci-root" else model  # type: ignore[assignment]  # one of PciPlug's
                self.demands.append(PciDemand(what=f"PCI controller {index}", plug=plug, opens=(index, model)))
                self.addresses.append(None)
                if plug:
                    self.reserve(self.next_free(plug), len(self.demands) - 1)
            index += 1

    # Busses and slots

    def full(self, bus: _Bus) -> bool:
        return all(bus.used.get(slot) for slot in range(bus.model.first, bus.model.last + 1))

    def next_free(self, plug: PciPlug) -> PciAddress:
        """Find the lowest slot that is wholly free, for a root port the next function of a slot of its like.

        Slots only fill up, so each search goes on where the last one ended.
        """
        start, from_slot = self.cursors.get(plug, (0, 0))
        for index in range(start, len(self.busses)):
            bus = self.busses[index]
            if not bus.compatible(plug, index):
                continue
            for slot in range(max(bus.model.first, from_slot if index == start else 0), bus.model.last + 1):
                used = bus.used.get(slot, {})
                if not used or (plug == "pcie-root-port" and slot in bus.ports and len(used) < 8):
                    self.cursors[plug] = (index, slot)
                    return PciAddress(0, index, slot, next(one for one in range(8) if one not in used))
        if not self.rehearsing:
            raise _RefusedError(_no_room())
        index = self.grow(len(self.busses), plug)
        slot = self.busses[index].model.first
        self.cursors[plug] = (index, slot)
        return PciAddress(0, index, slot, 0)

    def grow(self, index: int, plug: PciPlug | None) -> int:
        """Add busses until there is one for `plug` at `index`; return its index, one more than asked where the
        first bridge on PCI Express brings a root port along."""
        add = index - len(self.busses) + 1
        models = []
        if plug == "conventional":
            model = "pci-bridge" if self.board.spill == "pcie-root-port" else self.board.spill
            if model == "pci-bridge" and not self.bridged:
                if add == 1:
                    add, index = 2, index + 1
                models = ["pcie-root-port", "pcie-to-pci-bridge"]
        elif plug in ("express", "pcie-switch-upstream-port"):
            model = "pcie-root-port"
        else:
            raise _RefusedError(_no_room())
        bridged = len(self.busses) if models else None
        models += [model] * (add - len(models))
        if len(self.busses) + len(models) > _MOST_BUSSES:
            raise _RefusedError(_no_room())
        self.models += models
        self.busses += [_Bus(BUS_MODELS[model]) for model in models]
        self.bridged = self.bridged or any(map(_takes_bridges, models))
        if bridged is not None:
            self.busses[bridged].model = _BRIDGE_PORT
        return index

    def enter(self, number: int, address: PciAddress) -> None:
        """Enter a place that is not of our choosing, after having looked whether it can be."""
        demand = self.demands[number]
        problem = self.problem(demand, address)
        if problem:
            raise _RefusedError(
                Misplaced(
                    (number,),
                    f"{demand.what} cannot sit at PCI address {address}: {problem}",
                    "leave the address out, and a free one is chosen",
                )
            )
        self.reserve(address, number)

    def problem(self, demand: PciDemand, address: PciAddress) -> str | None:
        if address.domain:
            return "there is only PCI domain 0"
        if address.bus >= len(self.busses):
            return f"the last bus is {len(self.busses) - 1}"
        bus = self.busses[address.bus]
        if not bus.accepts(demand.plug):
            return f"bus {address.bus} takes {', '.join(sorted(bus.model.takes))} only"
        if address.slot < bus.model.first:
            return f"the first slot of bus {address.bus} is {bus.model.first:#x}"
        if address.slot > bus.model.last:
            return f"the last slot of bus {address.bus} is {bus.model.last:#x}"
        return None

    def reserve(self, address: PciAddress, holder: int | str) -> None:
        bus = self.busses[address.bus]
        used = bus.used.setdefault(address.slot, {})
        other = used.get(address.function)
        if other is not None:
            pair = [one for one in (holder, other) if isinstance(one, int)]
            names = [self.demands[one].what for one in pair] + [
                one for one in (holder, other) if isinstance(one, str)
            ]
            asked = any(self.demands[one].address for one in pair)
            raise _RefusedError(
                Misplaced(
                    tuple(pair),
                    f"{' and '.join(names)} both want PCI address {address}",
                    "leave the address out, and a free one is chosen" if asked else "remove one of them",
                )
            )
        if not used and isinstance(holder, int) and self.demands[holder].plug == "pcie-root-port":
            bus.ports.add(address.slot)
        used[address.function] = holder


def _takes_bridges(model: str) -> bool:
    return "pci-bridge" in BUS_MODELS[model].takes


def _place(address: PciAddress) -> tuple[int, int, int, int]:
    return (address.domain, address.bus, address.slot, address.function)


def _no_room() -> Misplaced:
    return Misplaced((), "there is no PCI slot for everything that needs one", "remove some of it")
