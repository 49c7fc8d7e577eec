"""Families whose devices have units: a controller, a place on it in a few numbers, and a disk's letters tell both.

What such a family adds is a table of models and a handful of rules; how controllers get indexes, which of them
come along, who sits where and what QEMU is told is the same for all. Source: virDomainDiskDefAssignAddress and
virDomainDefAddImplicitControllers (conf/domain_conf.c, conf/domain_postparse.c), as read and as observed.
"""

from __future__ import annotations

import re
from functools import cached_property
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import msgspec

from translator.domain import ControllerElement, DeviceElement, PciAddress, PciDemand, PciPlug, UnitAddress
from translator.errors import Source
from translator.families import Context, PciPlaces, Placed, Recorded
from translator.findings import LONGEST_WORD
from translator.inventory import CONTROLLER_TURN
from translator.models import DRIVER_ALIASES
from translator.reader import SIGNED_MAX
from translator.slots import in_list_order
from translator.topology import PRIMARY, Controller, Device, Type

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from translator.families import FamilySteps, Part
    from translator.hosts.qmp import QomDevice
    from translator.parse_devices import Devices
    from translator.peripherals import Peripheral
    from translator.plan import Step
    from translator.reader import Place, Reader
    from translator.steps import Steps
    from translator.topology import Kind, Value

# Beyond it no controller comes along: PCI has not as many busses.
_HIGHEST_INDEX = 255


class UnitModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model of a controller with units.

    driver     QEMU's device; None where the machine has it, or where QEMU emulates nothing
    plug       what it plugs into; None: not into PCI
    limits     the largest number of each part of a unit
    hotplug    whether QEMU can add it to a running machine
    type       who provides it
    refused    why a document cannot have it
    """

    name: str
    driver: str | None = None
    interface: str
    plug: PciPlug | None = "conventional"
    limits: tuple[int, ...]
    hotplug: bool = True
    type: Type = "emulated"
    aliases: tuple[str, ...] = ()
    refused: str | None = None

    @property
    def own_driver(self) -> str | None:
        """What the device calls itself."""
        return DRIVER_ALIASES.get(self.driver, self.driver) if self.driver else None

    @property
    def capacity(self) -> int:
        """How many units there are."""
        units = 1
        for most in self.limits:
            units *= most + 1
        return units


class UnitSlot(msgspec.Struct, kw_only=True):
    """A controller on its way."""

    element: ControllerElement | None
    source: Source
    model: UnitModel
    index: int
    pci: PciAddress | None = None
    taken: dict[tuple[int, ...], DeviceElement] = msgspec.field(default_factory=dict)


class UnitFamily:
    """A family with units; see `translator.families.Family` for what a family is.

    rows      its models
    address   `address/@type` of its devices, and the numbers that make a unit, in order
    hotplug   whether QEMU can plug its devices into a running machine
    device_drivers   QEMU's devices, and what kind each is
    seat_properties  which of their properties tell the unit
    """

    name: ClassVar[str]
    order: ClassVar[int]
    tags: ClassVar[tuple[str, ...]] = ("disk",)
    rows: ClassVar[tuple[UnitModel, ...]]
    address: ClassVar[tuple[str, tuple[str, ...]]] = ("drive", ("bus", "target", "unit"))
    hotplug: ClassVar[bool] = False
    device_drivers: ClassVar[Mapping[str, Kind]] = MappingProxyType({})
    seat_properties: ClassVar[tuple[str, ...]] = ()

    @property
    def id_form(self) -> str:
        """The form of its controllers' ids in QEMU, with the index as its group."""
        return rf"{self.name}(0|[1-9][0-9]{{0,5}})"

    @cached_property
    def models(self) -> Mapping[str, UnitModel]:
        """Its models, by name."""
        return {row.name: row for row in self.rows}

    @property
    def types(self) -> tuple[str, ...]:
        """See `translator.families.Family`."""
        return (self.name,)

    # Rules, for a family to have its own

    def serves(self, reader: Reader) -> bool:
        """Tell whether the domain has controllers of this family: a Xen domain's disks are libxl's."""
        return reader.document.root.get("type") != "xen"

    def modelless(self, context: Context) -> str:
        """Return the model of a controller that names none."""
        return self.rows[0].name

    def properties(self, reader: Reader, place: Place) -> dict[str, Value]:
        """Return what QEMU is told of a controller beyond its model, id and place."""
        return {}

    def ports(self, slot: UnitSlot) -> int:
        """Return how many devices the controller takes."""
        return slot.model.capacity

    def unit_of(self, number: int) -> UnitAddress:
        """Return where a disk goes that has no address, by the number of its letters."""
        raise NotImplementedError(f"family {self.name} has no disks")

    def home(self, context: Context, index: int) -> tuple[int, int] | None:
        """Return the slot and function of the machine's own controller, which no other can be."""
        return None

    def built_in(self, context: Context, index: int) -> bool:
        """Tell whether the machine has this controller of itself."""
        return self.home(context, index) is not None

    def needless(self, context: Context) -> Sequence[int]:
        """Return the indexes of controllers that a machine has although nothing needs them."""
        return ()

    def controller_id(self, context: Context, index: int) -> str | None:
        """Return libvirt's name of a controller."""
        return f"{self.name}{index}"

    def device_id(self, model: UnitModel, seat: UnitAddress) -> str:
        """Return libvirt's name of a disk."""
        return f"{self.name}{seat.controller}-{seat.unit[0]}-{seat.unit[-1]}"

    def device(self, devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
        """See `translator.families.Family`; a family's disks are on the bus of its name."""
        number = devices.disk_at(place)
        if number is None or devices.disks[number].bus != self.name or not self.serves(devices.reader):
            return None
        disk = devices.disks[number]
        return devices.element(
            place,
            "disk",
            ordinal,
            family=self.name,
            unit=self.unit(devices.reader, place),
            boot=devices.boot(place),
            disk=number,
            translated=disk.image is not None or disk.device in ("cdrom", "floppy"),
        )

    def driver(self, element: DeviceElement, context: Context) -> str:
        """Return QEMU's device for an element."""
        raise NotImplementedError(f"family {self.name} has no devices")

    def seat(self, controller: Controller, device: Device) -> dict[str, Value]:
        """Return the properties that put a device on its unit, its bus first."""
        raise NotImplementedError(f"family {self.name} has no devices")

    def model_word(self, controller: Controller) -> str | None:
        """See `translator.families.Family`."""
        return controller.model if len(self.rows) > 1 else None

    def seen_unit(self, device: QomDevice, controller: Controller | None, number: int) -> tuple[int, ...] | None:
        """Return the unit of a device in QEMU on bus NUMBER of a controller (None: the machine's own)."""
        return None

    def own_bus(self, machine: str) -> str | None:
        """Return the name of the machine's own controller in QEMU, which is none of those that were added."""
        return None

    # What is the same for all

    def asked(self) -> Mapping[str, tuple[str, ...]]:
        """See `translator.families.Family`."""
        drivers = [name for row in self.rows if (name := row.own_driver)]
        return {**dict.fromkeys(drivers, ("addr",)), **dict.fromkeys(self.device_drivers, self.seat_properties)}

    def seen(self, found: Sequence[QomDevice], known: Mapping[tuple[str, str | None], int], machine: str) -> Placed:
        """See `translator.families.Family`."""
        by_driver = {row.own_driver: row for row in self.rows if row.driver}
        controllers: dict[str, Controller] = {}
        for one in found:
            row = by_driver.get(one.driver)
            match = re.fullmatch(self.id_form, one.id or "")
            index = known.get((self.name, one.id), int(match[1]) if match else None)
            if row is not None and index is not None and one.id is not None:
                controllers[one.id] = self.seen_controller(one, row, index)
        indexes = {id: controller.index for id, controller in controllers.items()}
        if (own := self.own_bus(machine)) is not None:
            indexes[own] = 0
        devices = []
        for one in found:
            kind = self.device_drivers.get(one.driver)
            name, _, number = one.parent_bus.rpartition("/")[2].rpartition(".")
            if kind is None or name not in indexes or not number.isdigit():
                continue
            unit = self.seen_unit(one, controllers.get(name), int(number))
            if unit is not None:
                devices.append(self.seen_device(one, kind, indexes[name], unit))
        devices.sort(key=lambda device: (device.controller, undotted(device.port)))
        return Placed(tuple(sorted(controllers.values(), key=lambda one: one.index)), tuple(devices))

    def seen_controller(self, device: QomDevice, row: UnitModel, index: int) -> Controller:
        """Return a controller as QEMU has it."""
        return Controller(
            family=self.name,
            index=index,
            model=row.name,
            type="emulated",
            version=None,
            interface=row.interface,
            ports=row.capacity,
            id=device.id,
            driver=row.driver,
            device_model=PRIMARY,
            backend=None,
            companions=(),
            pci=pci_of(device),
            properties={},
            implicit=False,
            source=None,
        )

    def seen_device(self, device: QomDevice, kind: Kind, controller: int, unit: Sequence[int]) -> Device:
        """Return a device as QEMU has it."""
        drive = device.properties.get("drive")
        return Device(
            family=self.name,
            kind=kind,
            id=device.id,
            driver=device.driver,
            controller=controller,
            port=dotted(unit),
            host=None,
            properties={"drive": drive} if isinstance(drive, str) and drive else {},
            implicit=False,
            source=None,
        )

    def address_words(self, device: Device) -> Mapping[str, str]:
        """See `translator.families.Family`."""
        type, parts = self.address
        numbers = zip(parts, device.port.split("."), strict=True)
        return {"type": type, "controller": str(device.controller), **dict(numbers)}

    def controller(self, reader: Reader, place: Place) -> ControllerElement | None:
        """See `translator.families.Family`."""
        if not self.serves(reader):
            return None
        address = reader.child(place, "address")
        on_pci = address is not None and address.element.get("type") == "pci"
        return ControllerElement(
            family=self.name,
            path=place.path,
            source=reader.source(place),
            index=reader.number(place, "index", most=SIGNED_MAX),
            model=place.element.get("model"),
            ports=None,
            startport=None,
            pci=reader.pci(address) if on_pci and address else None,
            alias=reader.alias(place),
            backend=reader.backend(place),
            properties=self.properties(reader, place),
        )

    def unit(self, reader: Reader, place: Place) -> UnitAddress | None:
        """Read where a document puts a device."""
        address = reader.child(place, "address")
        type, parts = self.address
        if address is None or address.element.get("type") in (None, "none"):
            return None
        if address.element.get("type") != type:
            what = f"a {place.element.tag} on bus {self.name!r}"
            reader.fault(
                "T385",
                address,
                "type",
                f"{what} cannot have an address of type {address.element.get('type')!r}",
                f"possible: {type}",
            )
            return None
        controller = reader.number(address, "controller")
        return UnitAddress(controller or 0, tuple(reader.number(address, part) or 0 for part in parts))

    def begin(self, context: Context) -> Part:
        """See `translator.families.Family`."""
        return UnitPart(self, context)

    def record_root(self, domid: int) -> str | None:
        """See `translator.families.Family`."""
        return None

    def further_roots(self, domid: int, nodes: Mapping[str, str]) -> Sequence[str]:
        """See `translator.families.Family`."""
        return ()

    def recorded(self, domid: int, nodes: Mapping[str, str]) -> Recorded:
        """See `translator.families.Family`."""
        return Recorded(Placed())

    def steps(self, steps: Steps) -> FamilySteps:
        """See `translator.families.Family`."""
        return UnitSteps(self, steps)


class UnitPart:
    """See `translator.families.Part`."""

    def __init__(self, family: UnitFamily, context: Context) -> None:
        self.family = family
        self.context = context
        self.findings = context.findings
        self.slots: dict[int, UnitSlot] = {}
        self.refused = False
        for element, index in self.indexed():
            slot = self.slot(element, index)
            if slot is None:
                self.refused = True
            elif index in self.slots:
                self.findings.fault(
                    "T308",
                    element,
                    f"there are two {family.name} controllers with index {index}",
                    "@index",
                    "leave index out to get a free one",
                )
            else:
                self.slots[index] = slot
        self.listed = list(self.slots.values())
        self.seats: list[tuple[DeviceElement, UnitAddress]] = list(self.seated())
        self.brought = [] if self.refused else [self.implicit(index) for index in self.missing()]
        self.slots |= {slot.index: slot for slot in self.brought}

    def claims(self) -> Sequence[PciDemand] | None:
        """See `translator.families.Part`."""
        return [claim for slot in self.listed if (claim := self.claim(slot))]

    def unasked(self) -> Sequence[PciDemand]:
        """See `translator.families.Part`."""
        return [claim for slot in self.brought if (claim := self.claim(slot))]

    def settle(self, places: PciPlaces) -> Placed:
        """See `translator.families.Part`."""
        for slot in self.slots.values():
            if places.addresses is not None:
                slot.pci = places.addresses.get((self.family.name, slot.index), slot.pci)
        if self.refused:
            return Placed()
        devices = [device for element, seat in self.seats if (device := self.device(element, seat)) is not None]
        ordered = sorted(self.slots.values(), key=lambda slot: slot.index)
        return Placed(tuple(self.controller(slot) for slot in ordered), tuple(devices))

    # Controllers

    def indexed(self) -> Iterator[tuple[ControllerElement, int]]:
        """Yield the document's controllers in libvirt's order; those without an index get the lowest free one."""
        elements = self.context.domain.controllers_of(self.family.name)
        listed = in_list_order(elements, lambda element: (element.index, False))
        given = {element.index for element in listed}
        free = (index for index in count() if index not in given)
        for element in listed:
            yield element, next(free) if element.index is None else element.index

    def slot(self, element: ControllerElement, index: int) -> UnitSlot | None:
        model = self.model(element)
        if model is None:
            return None
        return UnitSlot(element=element, source=element.source, model=model, index=index, pci=element.pci)

    def model(self, element: ControllerElement) -> UnitModel | None:
        family = self.family
        name = element.model
        if name in (None, "auto"):
            name = family.modelless(self.context)
        assert name is not None
        names = {one: row for row in family.models.values() for one in (row.name, *row.aliases)}
        row = names.get(name)
        if row is None:
            from difflib import get_close_matches

            word = name if len(name) <= LONGEST_WORD else name[:LONGEST_WORD] + "…"
            near = get_close_matches(word, names, n=1)
            self.findings.fault(
                "T301",
                element,
                f"unknown model {word!r} of a {family.name} controller",
                "@model",
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(family.models)}",
            )
        elif row.refused is not None:
            self.findings.fault("T386", element, f"model {row.name!r} cannot be had: {row.refused}", "@model")
            return None
        return row

    def implicit(self, index: int) -> UnitSlot:
        model = self.family.models[self.family.modelless(self.context)]
        return UnitSlot(element=None, source=self.context.domain.source, model=model, index=index)

    def missing(self) -> Iterator[int]:
        """Yield the indexes of the controllers that come along: all up to the highest that a device needs."""
        needed = max((seat.controller for _, seat in self.seats), default=-1)
        unasked = set(range(min(needed, _HIGHEST_INDEX) + 1)) | set(self.family.needless(self.context))
        yield from sorted(unasked - self.slots.keys())

    def claim(self, slot: UnitSlot) -> PciDemand | None:
        """Return what a controller wants of PCI."""
        home = self.family.home(self.context, slot.index)
        if home is None and slot.model.plug is None and slot.pci is None:
            return None
        line = f", line {slot.source.line}" if slot.element else ""
        return PciDemand(
            what=f"{self.family.name} controller {slot.index} ({slot.model.name}{line})",
            plug=slot.model.plug or "conventional",
            address=slot.pci,
            homes=(home,) if home else (),
            bound=home is not None,
            multifunction=slot.pci.multifunction if slot.pci else None,
            turn=CONTROLLER_TURN,
            owner=(self.family.name, slot.index),
            part=slot.element,
        )

    def controller(self, slot: UnitSlot) -> Controller:
        family, element, model = self.family, slot.element, slot.model
        built_in = family.built_in(self.context, slot.index)
        emulated = model.type == "emulated"
        alias = element.alias if element and not built_in else None
        multifunction: dict[str, Value] = {}
        if slot.pci is not None and slot.pci.multifunction is not None:
            multifunction = {"multifunction": slot.pci.multifunction}
        return Controller(
            family=family.name,
            index=slot.index,
            model=model.name,
            type=model.type,
            version=None,
            interface=model.interface,
            ports=family.ports(slot),
            id=(alias or family.controller_id(self.context, slot.index)) if emulated else None,
            driver=None if built_in else model.driver,
            device_model=PRIMARY if emulated else None,
            backend=None,
            companions=(),
            pci=str(slot.pci) if slot.pci else None,
            properties=(dict(element.properties) if element else {}) | multifunction,
            implicit=element is None,
            source=slot.source,
            built_in=built_in,
        )

    # Devices

    def seated(self) -> Iterator[tuple[DeviceElement, UnitAddress]]:
        """Yield the devices with where they go."""
        for element in self.context.domain.devices_of(self.family.name):
            yield element, self.address_of(element)

    def address_of(self, element: DeviceElement) -> UnitAddress:
        if element.unit is not None:
            return element.unit
        assert element.disk is not None, "what has no letters has its address assigned by its family"
        return self.family.unit_of(self.context.domain.disks[element.disk].number)

    def device(self, element: DeviceElement, seat: UnitAddress) -> Device | None:
        slot = self.slots.get(seat.controller)
        if slot is None:
            self.findings.fault(
                "T304",
                element,
                f"there is no {self.family.name} controller with index {seat.controller}",
                "address/@controller",
                f"none with an index beyond {_HIGHEST_INDEX} comes along",
            )
            return None
        if any(number > most for number, most in zip(seat.unit, slot.model.limits, strict=True)):
            # libvirt looks no closer, and QEMU then refuses
            names = zip(self.family.address[1], seat.unit, slot.model.limits, strict=True)
            wrong = ", ".join(f"{name} {number}" for name, number, most in names if number > most)
            possible = zip(self.family.address[1], slot.model.limits, strict=True)
            self.findings.warn(
                "T387",
                element,
                f"QEMU will refuse this {element.kind}: {self.family.name} controller {seat.controller} "
                f"({slot.model.name}) has no {wrong}",
                "address" if element.unit else None,
                "possible: " + ", ".join(f"{name} 0 to {most}" if most else f"{name} 0" for name, most in possible),
            )
        first = slot.taken.setdefault(seat.unit, element)
        if first is not element:
            self.findings.fault(
                "T388",
                element,
                f"unit {dotted(seat.unit)} of {self.family.name} controller {seat.controller} is taken, "
                f"by what line {first.source.line} has",
                "address" if element.unit else None,
                "name another unit, or none for a disk whose letters tell it",
            )
            return None
        return self.made(element, seat, slot) if element.translated else None

    def made(self, element: DeviceElement, seat: UnitAddress, slot: UnitSlot) -> Device:
        unit = self.family.device_id(slot.model, seat)
        id = element.alias or (unit if element.disk is not None else f"hostdev{element.ordinal}")
        made: Peripheral = self.context.peripherals.on_unit(element, id, unit)
        assert element.kind != "ccid"
        return Device(
            family=self.family.name,
            kind=element.kind,
            id=made.id,
            driver=self.family.driver(element, self.context),
            controller=seat.controller,
            port=dotted(seat.unit),
            host=None,
            properties=made.properties,
            implicit=False,
            source=element.source,
            backends=made.backends,
            scsi=element.scsi,
        )


class UnitSteps:
    """See `translator.families.FamilySteps`."""

    def __init__(self, family: UnitFamily, steps: Steps) -> None:
        self.family = family
        self.steps = steps

    def paravirtual(self) -> Iterator[Step]:
        """See `translator.families.FamilySteps`."""
        return iter(())

    def controllers(self) -> Iterator[Step]:
        """See `translator.families.FamilySteps`."""
        for controller in self.steps.topology.controllers:
            if controller.family == self.family.name and controller.driver is not None:
                hotplug = self.family.models[controller.model].hotplug
                yield self.steps.controller(controller, hotplug=hotplug)

    def devices(self) -> Iterator[Step]:
        """See `translator.families.FamilySteps`."""
        for device in self.steps.topology.devices:
            if device.family == self.family.name and device.driver is not None:
                controller = self.steps.controllers[device.family, device.controller]
                yield from self.steps.device(
                    controller, device, self.family.seat(controller, device), hotplug=self.family.hotplug
                )


def pci_of(device: QomDevice) -> str | None:
    """Return the PCI address of a device on the root bus; behind a bridge only the guest gives the numbers."""
    addr = device.properties.get("addr")
    if not isinstance(addr, int) or addr < 0 or not device.parent_bus.endswith(("/pci.0", "/pcie.0")):
        return None
    return f"0000:00:{addr >> 3:02x}.{addr & 7:x}"


def dotted(unit: Sequence[int]) -> str:
    """Return a unit as `Device.port` has it: its numbers with dots between."""
    return ".".join(map(str, unit))


def undotted(port: str) -> tuple[int, ...]:
    """Return the numbers of a unit."""
    return tuple(int(number) for number in port.split("."))


def by_letters(number: int, *, per_controller: int, per_bus: int) -> UnitAddress:
    """Return where a disk of this number goes: controllers are filled bus by bus."""
    controller, rest = divmod(number, per_controller)
    bus, unit = divmod(rest, per_bus)
    return UnitAddress(controller, (bus, 0, unit))
