"""Floppies: one controller with two drives, which the older machines have of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from translator.families import Placed
from translator.registry.models import NOT_XEN, X86, DeviceKind
from translator.units import UnitFamily, UnitModel, UnitPart, by_letters, drives, undotted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from translator.document.domain import DeviceElement, UnitAddress
    from translator.families import Context, Part
    from translator.hosts.qmp import QomDevice
    from translator.topology import Controller, Device, Value
    from translator.units import UnitSlot


class Fdc(UnitFamily):
    """See `translator.units.UnitFamily`."""

    name = "fdc"
    title = "Floppy disks"
    order = 45
    seat_properties = ("unit",)
    rows = (
        UnitModel(
            family="fdc",
            name="fdc",
            interface="fdc",
            driver="isa-fdc",
            plug=None,
            limits=drives(0, 0, 1),
            hotplug=False,
            hypervisors=NOT_XEN,
            arches=X86,
        ),
    )
    kinds = (DeviceKind(family="fdc", kind="disk", driver="floppy", knobs=("medium", "block")),)

    def unit_of(self, number: int) -> UnitAddress:
        """See `translator.units.UnitFamily`."""
        return by_letters(number, per_controller=2, per_bus=2)

    def built_in(self, context: Context, index: int) -> bool:
        """See `translator.units.UnitFamily`. Source: qemuDomainNeedsFDC (qemu/qemu_domain.c)."""
        return context.board is None or context.board.name != "q35"

    def controller_id(self, context: Context, index: int) -> str | None:
        """See `translator.units.UnitFamily`; nothing asks for it by name."""
        return None

    def begin(self, context: Context) -> Part:
        """See `translator.families.Family`."""
        return _Part(self, context)

    def driver(self, element: DeviceElement, context: Context) -> str:
        """See `translator.units.UnitFamily`."""
        return "floppy"

    def own_bus(self, machine: str) -> str | None:
        """See `translator.units.UnitFamily`."""
        return "floppy-bus"

    def seen_unit(self, device: QomDevice, controller: Controller | None, number: int) -> tuple[int, ...] | None:
        """See `translator.units.UnitFamily`."""
        unit = device.properties.get("unit")
        return (0, 0, unit) if isinstance(unit, int) else None

    def seen(self, found: Sequence[QomDevice], known: Mapping[tuple[str, str | None], int], machine: str) -> Placed:
        """See `translator.families.Family`; the controller has no name."""
        seen = super().seen(found, known, machine)
        added = [self.seen_controller(one, self.rows[0], 0) for one in found if one.driver == self.rows[0].driver]
        return Placed(tuple(added[:1]), seen.devices)

    def seat(self, controller: Controller, device: Device) -> dict[str, Value]:
        """See `translator.units.UnitFamily`; there is only one bus to be on."""
        return {"unit": undotted(device.port)[-1]}


class _Part(UnitPart):
    def controller(self, slot: UnitSlot) -> Controller:
        """Return the controller, which is told what to boot from: the drives are not."""
        made = super().controller(slot)
        orders: dict[str, Value] = {
            f"bootindex{'AB'[seat.unit[-1]]}": order
            for element, seat in self.seats
            if seat.controller == slot.index and seat.unit[-1] in (0, 1)
            if (order := self.context.peripherals.boot_index(element)) is not None
        }
        return made if made.built_in else msgspec.structs.replace(made, properties=made.properties | orders)

    def made(self, element: DeviceElement, seat: UnitAddress, slot: UnitSlot) -> Device:
        """Return the drive."""
        device = super().made(element, seat, slot)
        return msgspec.structs.replace(
            device, properties={key: value for key, value in device.properties.items() if key != "bootindex"}
        )


FAMILY = Fdc()
