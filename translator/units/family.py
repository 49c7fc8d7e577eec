"""The rules of a family with units, what its elements say, and what a running QEMU is seen to have of it."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from translator.document.domain import ControllerElement, DeviceElement, UnitAddress
from translator.document.reader import SIGNED_MAX
from translator.families import Placed, Recorded
from translator.topology import PRIMARY, Controller, Device
from translator.units.models import dotted, undotted
from translator.units.resolving import UnitPart
from translator.units.steps import UnitSteps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from translator.document.domain import Domain
    from translator.document.parse_devices import Devices
    from translator.document.reader import Place, Reader
    from translator.families import Context, FamilySteps, Part
    from translator.hosts.qmp import QomDevice
    from translator.hotplug.growing import Growing, Grown
    from translator.planning.steps import Steps
    from translator.registry.models import DeviceKind, DomainKind
    from translator.topology import Kind, Value
    from translator.units.models import UnitModel, UnitSlot


class UnitFamily:
    """A family with units; see `translator.families.Family` for what a family is.

    rows      its models
    kinds     QEMU's devices on them, and what kind each is
    address   `address/@type` of its devices, and the numbers that make a unit, in order
    hotplug   whether QEMU can plug its devices into a running machine
    seat_properties  which of their properties tell the unit
    kept_properties  which of them are the device's beyond that
    """

    name: ClassVar[str]
    title: ClassVar[str]
    order: ClassVar[int]
    tags: ClassVar[tuple[str, ...]] = ("disk",)
    rows: ClassVar[tuple[UnitModel, ...]]
    kinds: ClassVar[tuple[DeviceKind, ...]] = ()
    depth: ClassVar[int | None] = None
    address: ClassVar[tuple[str, tuple[str, ...]]] = ("drive", ("bus", "target", "unit"))
    hotplug: ClassVar[bool] = False
    seat_properties: ClassVar[tuple[str, ...]] = ()
    kept_properties: ClassVar[tuple[str, ...]] = ("drive",)

    @property
    def id_form(self) -> str:
        """The form of its controllers' ids in QEMU, with the index as its group."""
        return rf"{self.name}(0|[1-9][0-9]{{0,5}})"

    @cached_property
    def models(self) -> Mapping[str, UnitModel]:
        """Its models, by name."""
        return {row.name: row for row in self.rows}

    @cached_property
    def named(self) -> Mapping[str, UnitModel]:
        """Its models, by name and alias."""
        return {name: row for row in self.models.values() for name in (row.name, *row.aliases)}

    @cached_property
    def device_drivers(self) -> Mapping[str, Kind]:
        """The drivers of its devices, and what kind each is."""
        found = ((driver, kind.kind) for kind in self.kinds for driver in kind.drivers)
        return {driver: kind for driver, kind in found if kind != "ccid"}

    @property
    def types(self) -> tuple[str, ...]:
        """See `translator.families.Family`."""
        return (self.name,)

    # Rules, for a family to have its own

    def serves(self, reader: Reader) -> bool:
        """Tell whether the domain has controllers of this family: a Xen domain's disks are libxl's."""
        return reader.document.root.get("type") != "xen"

    def modelless(self, domain: DomainKind) -> str:
        """See `translator.families.Family`."""
        return self.rows[0].name

    def unasked(self, domain: DomainKind) -> str | None:
        """See `translator.families.Family`."""
        return None

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
        number = devices.disks.at(place)
        if number is None or devices.disks.found[number].bus != self.name or not self.serves(devices.reader):
            return None
        disk = devices.disks.found[number]
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

    def seen_properties(self, controller: Controller) -> dict[str, Value]:
        """Return what a controller's element would say besides, of one that was seen."""
        return {}

    # What is the same for all

    def asked(self) -> Mapping[str, tuple[str, ...]]:
        """See `translator.families.Family`."""
        drivers = [name for row in self.models.values() if (name := row.own_driver)]
        properties = (*self.seat_properties, *self.kept_properties)
        return {**dict.fromkeys(drivers, ("addr",)), **dict.fromkeys(self.device_drivers, properties)}

    def seen(self, found: Sequence[QomDevice], known: Mapping[tuple[str, str | None], int], machine: str) -> Placed:
        """See `translator.families.Family`."""
        by_driver = {row.own_driver: row for row in self.models.values() if row.driver}
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
            pci=device.pci,
            properties={},
            implicit=False,
            source=None,
        )

    def seen_device(self, device: QomDevice, kind: Kind, controller: int, unit: Sequence[int]) -> Device:
        """Return a device as QEMU has it."""
        kept = {name: device.properties.get(name) for name in self.kept_properties}
        return Device(
            family=self.name,
            kind=kind,
            id=device.id,
            driver=device.driver,
            controller=controller,
            port=dotted(unit),
            host=None,
            properties={name: value for name, value in kept.items() if isinstance(value, str) and value},
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

    def absent(self, context: Context) -> bool:
        """See `translator.families.Family`."""
        return self.name not in context.present and not self.needless(context)

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

    def grown(self, fragment: Domain, growing: Growing) -> Iterator[Grown]:
        """See `translator.families.Family`."""
        from translator.units.growing import grown

        return grown(self, fragment, growing)
