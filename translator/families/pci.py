"""PCI: the controllers that open busses, those that are added to have room for all devices included.

Sources: models and drivers, virDomainControllerModelPCI and virDomainControllerPCIModelName (conf/domain_conf.c);
numbers that nobody gives, qemuDomainAssignPCIAddresses (qemu/qemu_domain_address.c), as read and as observed.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from translator.document.domain import PciDemand
from translator.families import PciPlaces, Placed
from translator.placing.inventory import CONTROLLER_TURN
from translator.placing.pci import BOARDS, BUS_MODELS
from translator.registry.models import NOT_XEN, X86, Ports, machine_row
from translator.topology import PRIMARY, Controller, Family, Hypervisor
from translator.units import UnitFamily, UnitModel, UnitPart, UnitSlot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from translator.document.domain import ControllerElement
    from translator.document.reader import Place, Reader
    from translator.families import Context, Part
    from translator.hosts.qmp import QomDevice
    from translator.registry.models import DomainKind
    from translator.topology import Value

_HIGHEST_BUS = 255
# The first of an expander's numbers; each further one leaves room for a bus behind the one before.
_FIRST_BUS_NUMBER = 256
_PHB_INDEXES = range(1, 31)


class BusModel(UnitModel, frozen=True, kw_only=True):
    """One row: what opens a bus, and so has slots and no units."""

    family: Family = "pci"
    interface: str = "pci"
    hotplug: bool = False  # what plugs into its bus is there from the start
    hypervisors: tuple[Hypervisor, ...] = NOT_XEN
    limits: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def ports(self) -> Ports:
        """See `translator.registry.models.Model`."""
        return Ports(_slots(self.name), _slots(self.name), _slots(self.name))

    def features(self) -> dict[str, int | bool | tuple[str, ...] | dict[str, int] | None]:
        """See `translator.registry.models.Model`."""
        return {"slots": {"first": BUS_MODELS[self.name].first, "last": BUS_MODELS[self.name].last}}

    def told(self) -> Iterator[tuple[str, str]]:
        """See `translator.registry.models.Model`."""
        first, last = BUS_MODELS[self.name].first, BUS_MODELS[self.name].last
        yield "slots", f"{first} to {last}" if first != last else f"{last} alone"


class Pci(UnitFamily):
    """See `translator.units.UnitFamily`."""

    name = "pci"
    title = "PCI"
    order = 0
    tags = ()
    rows = (
        BusModel(name="pci-root", driver="spapr-pci-host-bridge", plug=None),
        BusModel(name="pcie-root", plug=None),
        BusModel(name="pci-bridge", driver="pci-bridge", plug="pci-bridge", knobs=("pci",)),
        BusModel(name="dmi-to-pci-bridge", driver="i82801b11-bridge", plug="dmi-to-pci-bridge", knobs=("pci",)),
        BusModel(name="pcie-to-pci-bridge", driver="pcie-pci-bridge", plug="pcie-to-pci-bridge", knobs=("pci",)),
        BusModel(
            name="pcie-root-port",
            driver="pcie-root-port",
            others=("ioh3420",),
            plug="pcie-root-port",
            knobs=("pci", "pcie-port", "pcie-slot"),
        ),
        BusModel(
            name="pcie-switch-upstream-port",
            driver="x3130-upstream",
            plug="pcie-switch-upstream-port",
            knobs=("pci", "pcie-port"),
        ),
        BusModel(
            name="pcie-switch-downstream-port",
            driver="xio3130-downstream",
            plug="pcie-switch-downstream-port",
            knobs=("pci", "pcie-port", "pcie-slot"),
        ),
        BusModel(
            name="pci-expander-bus", driver="pxb", plug="pci-expander-bus", arches=X86, knobs=("pci", "expander")
        ),
        BusModel(
            name="pcie-expander-bus",
            driver="pxb-pcie",
            plug="pcie-expander-bus",
            arches=(*X86, "aarch64"),
            knobs=("pci", "expander"),
        ),
    )

    def unasked(self, domain: DomainKind) -> str | None:
        """See `translator.families.Family`."""
        board = BOARDS.get(machine_row(domain.machine).board or "")
        return board.root if board is not None and domain.hypervisor != "xen" else None

    def modelless(self, domain: DomainKind) -> str:
        """See `translator.families.Family`; only the root may be without a model."""
        return self.unasked(domain) or super().modelless(domain)

    def properties(self, reader: Reader, place: Place) -> dict[str, Value]:
        """See `translator.units.UnitFamily`: what `<target>` says, in QEMU's words, and which driver is named."""
        found: dict[str, Value] = {}
        address = reader.child(place, "address")
        if address is not None and place.element.get("model") in ("pci-root", "pcie-root"):
            reader.fault(
                "T389", address, None, "the root of PCI plugs into nothing, and so has no address", "remove it"
            )
        named = reader.attribute(place, "model", "name")
        if named is not None:
            found["driver"] = named
        target = reader.child(place, "target")
        if target is None:
            return found
        for name, word, most in (
            ("chassisNr", "chassis_nr", 255),
            ("chassis", "chassis", 255),
            ("port", "port", 255),
            ("busNr", "bus_nr", 254),
            ("index", "index", 30),
        ):
            if (number := reader.number(target, name, base=0, most=most)) is not None:
                found[word] = number
        if (hotplug := target.element.get("hotplug")) is not None:
            found["hotplug"] = hotplug == "on"
        node = target.element.findtext("node")
        if node is not None and node.strip().isascii() and node.strip().isdigit():
            found["numa_node"] = number = int(node.strip()[:9])
            cells = len(reader.document.root.findall("cpu/numa/cell"))
            if number >= cells:
                reader.fault(
                    "T364",
                    target,
                    None,
                    f"there is no NUMA node {number} for this bus to be on",
                    f"<cpu><numa> has {cells} cell{'' if cells == 1 else 's'}, from 0 on",
                )
        return found

    @property
    def id_form(self) -> str:
        """See `translator.units.UnitFamily`."""
        return r"pci\.(0|[1-9][0-9]{0,5})"

    @cached_property
    def renamed(self) -> Mapping[str, str]:
        """A model's usual driver, by those others that a document may name for it."""
        return {other: row.driver for row in self.rows for other in row.others if row.driver}

    def asked(self) -> Mapping[str, tuple[str, ...]]:
        """See `translator.families.Family`."""
        return {**super().asked(), **dict.fromkeys(self.renamed, ("addr",))}

    def seen(self, found: Sequence[QomDevice], known: Mapping[tuple[str, str | None], int], machine: str) -> Placed:
        """See `translator.families.Family`; a model may have drivers of other names."""
        renamed = [msgspec.structs.replace(one, driver=self.renamed.get(one.driver, one.driver)) for one in found]
        own = {one.id: one.driver for one in found}
        seen = super().seen(renamed, known, machine)
        return Placed(tuple(msgspec.structs.replace(one, driver=own[one.id]) for one in seen.controllers))

    def seen_controller(self, device: QomDevice, row: UnitModel, index: int) -> Controller:
        """See `translator.units.UnitFamily`."""
        made = super().seen_controller(device, row, index)
        return msgspec.structs.replace(made, ports=_slots(row.name))

    def absent(self, context: Context) -> bool:
        """See `translator.families.Family`: a board has a root, and busses come along."""
        return context.board is None and super().absent(context)

    def begin(self, context: Context) -> Part:
        """See `translator.families.Family`."""
        return _Part(self, context)


class _Part(UnitPart):
    """See `translator.families.Part`; without a board there is nobody to say what sits where."""

    def claims(self) -> Sequence[PciDemand] | None:
        """See `translator.families.Part`."""
        if self.refused:
            return None
        return [
            PciDemand(
                what=f"the <controller> in line {slot.source.line}"
                if slot.element
                else f"PCI controller {slot.index}",
                plug=slot.model.plug,
                address=slot.pci if slot.model.plug else None,
                homes=self.homes(slot.model),
                opens=(slot.index, slot.model.name),
                turn=CONTROLLER_TURN,
                owner=(self.family.name, slot.index),
                part=slot.element,
            )
            for slot in self.listed
        ]

    def unasked(self) -> Sequence[PciDemand]:
        """See `translator.families.Part`: the root is the board's, and the others are added where room is short."""
        return ()

    def slot(self, element: ControllerElement, index: int) -> UnitSlot | None:
        board = self.context.board
        if board is None:
            return None
        if index == 0 and element.model not in (None, board.root):
            self.findings.fault(
                "T389",
                element,
                f"PCI controller 0 is {board.root!r} on this machine, and not {element.model!r}",
                "@model",
                "leave the model out, or give the controller another index",
            )
        elif (index > 0 and element.model is None) or index > _HIGHEST_BUS:
            self.findings.warn("T390", element, "where PCI devices sit cannot be told: this controller has no model")
        elif index > 0 and element.model == board.root != board.spill:
            self.findings.warn("T390", element, "where PCI devices sit cannot be told: there is a second root")
        else:
            model = self.model(msgspec.structs.replace(element, model=element.model or board.root))
            if model is None:
                return None
            return UnitSlot(element=element, source=element.source, model=model, index=index, pci=element.pci)
        return None

    def missing(self) -> Iterator[int]:
        """Yield nothing: which busses are added is known when all is placed."""
        return iter(())

    def homes(self, model: UnitModel) -> tuple[tuple[int, int], ...]:
        board = self.context.board
        return ((0x1E, 0),) if model.name == "dmi-to-pci-bridge" and board and board.name == "q35" else ()

    def settle(self, places: PciPlaces) -> Placed:
        """See `translator.families.Part`."""
        board = self.context.board
        if board is None or places.addresses is None or self.refused:
            return Placed()
        for slot in self.listed:
            slot.pci = places.addresses.get((self.family.name, slot.index), slot.pci)
        added = [
            UnitSlot(
                element=None,
                source=self.context.domain.source,
                model=self.family.models[bus.model],
                index=bus.index,
                pci=bus.address,
            )
            for bus in places.added
        ]
        if 0 not in self.slots:
            root = self.family.models[board.root]
            added.append(UnitSlot(element=None, source=self.context.domain.source, model=root, index=0))
        slots = sorted([*self.listed, *added], key=lambda slot: slot.index)
        return Placed(tuple(self.bus(slot, slots) for slot in slots))

    def bus(self, slot: UnitSlot, slots: Sequence[UnitSlot]) -> Controller:
        said = dict(slot.element.properties) if slot.element else {}
        driver = said.pop("driver", None) or slot.model.driver
        built_in = slot.index == 0
        alias = slot.element.alias if slot.element and not built_in else None
        return Controller(
            family=self.family.name,
            index=slot.index,
            model=slot.model.name,
            type="emulated",
            version=None,
            interface="pci",
            ports=_slots(slot.model.name),
            id=alias or (f"pci.{slot.index}" if not built_in else slot.model.name.removesuffix("-root") + ".0"),
            driver=None if built_in else str(driver),
            device_model=PRIMARY,
            backend=None,
            companions=(),
            pci=str(slot.pci) if slot.pci else None,
            properties={} if built_in else _numbers(slot, said, slots),
            implicit=slot.element is None,
            source=slot.source,
            built_in=built_in,
        )


def _slots(model: str) -> int:
    row = BUS_MODELS[model]
    return row.last - row.first + 1


def _numbers(slot: UnitSlot, said: dict[str, Value], slots: Sequence[UnitSlot]) -> dict[str, Value]:
    """Return a controller's properties, with the numbers by which the guest tells its bus from others."""
    model, address = slot.model.name, slot.pci
    found: dict[str, Value] = {}
    if model in ("pcie-root-port", "pcie-switch-downstream-port"):
        port = 0
        if address is not None:
            port = address.slot << 3 | address.function if model == "pcie-root-port" else address.slot
        found = {"port": said.get("port", port), "chassis": said.get("chassis", slot.index)}
        if "hotplug" in said:
            found["hotplug"] = said["hotplug"]
    elif model == "pci-bridge":
        found = {"chassis_nr": said.get("chassis_nr", slot.index)}
    elif model in ("pci-expander-bus", "pcie-expander-bus"):
        found = {"bus_nr": said.get("bus_nr", _bus_number(slot, slots))}
    elif model == "pci-root":
        found = {"index": said.get("index", _phb_index(slot, slots))}
    if "numa_node" in said:
        found["numa_node"] = said["numa_node"]
    if address is not None and address.multifunction is not None:
        found["multifunction"] = address.multifunction
    return found


def _bus_number(slot: UnitSlot, slots: Sequence[UnitSlot]) -> int:
    given = [
        number
        for one in slots
        if one.element is not None and isinstance(number := one.element.properties.get("bus_nr"), int)
    ]
    before = sum(
        one.index < slot.index and "expander" in one.model.name and "bus_nr" not in one.element.properties
        for one in slots
        if one.element is not None
    )
    return min(given, default=_FIRST_BUS_NUMBER) - 2 * (before + 1)


def _phb_index(slot: UnitSlot, slots: Sequence[UnitSlot]) -> int:
    given = {one.element.properties.get("index") for one in slots if one.element is not None}
    free = [index for index in _PHB_INDEXES if index not in given]
    before = [
        one
        for one in slots
        if 0 < one.index < slot.index and not (one.element is not None and "index" in one.element.properties)
    ]
    return free[min(len(before), len(free) - 1)]


FAMILY = Pci()
