"""SATA: AHCI controllers with six ports of one drive each; a Q35 machine has the first of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.families.ide import ata_drives, ide_driver
from translator.registry.models import NOT_XEN, machine_row
from translator.units import UnitFamily, UnitModel, by_letters, drives, undotted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from translator.document.domain import DeviceElement, UnitAddress
    from translator.families import Context
    from translator.hosts.qmp import QomDevice
    from translator.registry.models import DomainKind
    from translator.topology import Controller, Device, Value


class Sata(UnitFamily):
    """See `translator.units.UnitFamily`."""

    name = "sata"
    title = "SATA"
    seat_properties = ("unit",)
    order = 40
    rows = (
        UnitModel(
            family="sata",
            name="ahci",
            interface="ahci",
            driver="ahci",
            limits=drives(0, 0, 5),
            hypervisors=NOT_XEN,
            knobs=("pci",),
        ),
    )
    kinds = ata_drives("sata")

    def unasked(self, domain: DomainKind) -> str | None:
        """See `translator.families.Family`."""
        return "ahci" if domain.hypervisor != "xen" and machine_row(domain.machine).board == "q35" else None

    def unit_of(self, number: int) -> UnitAddress:
        """See `translator.units.UnitFamily`."""
        return by_letters(number, per_controller=6, per_bus=6)

    def home(self, context: Context, index: int) -> tuple[int, int] | None:
        """See `translator.units.UnitFamily`."""
        return (0x1F, 2) if index in self.needless(context) else None

    def needless(self, context: Context) -> Sequence[int]:
        """See `translator.units.UnitFamily`."""
        return (0,) if context.board is not None and context.board.name == "q35" else ()

    def controller_id(self, context: Context, index: int) -> str:
        """See `translator.units.UnitFamily`; the chipset's is `ide` to QEMU."""
        return "ide" if self.home(context, index) else f"sata{index}"

    def driver(self, element: DeviceElement, context: Context) -> str:
        """See `translator.units.UnitFamily`."""
        return ide_driver(element, context)

    def own_bus(self, machine: str) -> str | None:
        """See `translator.units.UnitFamily`."""
        return "ide" if machine_row(machine).board == "q35" else None

    def seen_unit(self, device: QomDevice, controller: Controller | None, number: int) -> tuple[int, ...] | None:
        """See `translator.units.UnitFamily`."""
        return (0, 0, number)

    def seat(self, controller: Controller, device: Device) -> dict[str, Value]:
        """See `translator.units.UnitFamily`; each port is a bus."""
        return {"bus": f"{controller.id}.{undotted(device.port)[-1]}"}


FAMILY = Sata()
