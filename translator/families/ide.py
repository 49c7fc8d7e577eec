"""IDE: the chipset's own controller with two busses of two drives each; only a PC of old has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.registry.models import NOT_XEN, X86, DeviceKind, machine_row
from translator.units import UnitFamily, UnitModel, by_letters, drives, undotted

if TYPE_CHECKING:
    from translator.document.domain import DeviceElement, UnitAddress
    from translator.families import Context
    from translator.hosts.qmp import QomDevice
    from translator.registry.models import DomainKind
    from translator.topology import Controller, Device, Value

# libvirt knows the models of virtual machines of VMware's and Hyper-V's; QEMU has one, and no word for it.
_NAMES = ("piix3", "piix4", "ich6")


def ata_drives(family: str) -> tuple[DeviceKind, ...]:
    """Return QEMU's drives that speak ATA, as rows of a family."""
    knobs = ("ata", "medium", "block", "errors")
    return (
        DeviceKind(family=family, kind="disk", driver="ide-hd", knobs=(*knobs, "geometry")),
        DeviceKind(family=family, kind="disk", driver="ide-cd", knobs=knobs),
    )


class Ide(UnitFamily):
    """See `translator.units.UnitFamily`."""

    name = "ide"
    title = "IDE"
    seat_properties = ("unit",)
    order = 30
    rows = (
        UnitModel(
            family="ide",
            name="ide",
            interface="ide",
            driver="piix3-ide",
            limits=drives(1, 0, 1),
            hotplug=False,
            hypervisors=NOT_XEN,
            arches=X86,
            aliases=_NAMES,
            knobs=("pci",),
        ),
    )
    kinds = ata_drives("ide")

    def unasked(self, domain: DomainKind) -> str | None:
        """See `translator.families.Family`."""
        return "ide" if domain.hypervisor != "xen" and machine_row(domain.machine).board == "pc" else None

    def unit_of(self, number: int) -> UnitAddress:
        """See `translator.units.UnitFamily`."""
        return by_letters(number, per_controller=4, per_bus=2)

    def home(self, context: Context, index: int) -> tuple[int, int] | None:
        """See `translator.units.UnitFamily`."""
        return (1, 1) if index == 0 and context.board is not None and context.board.name == "pc" else None

    def built_in(self, context: Context, index: int) -> bool:
        """See `translator.units.UnitFamily`."""
        return index == 0

    def controller_id(self, context: Context, index: int) -> str:
        """See `translator.units.UnitFamily`; the chipset's is `ide` to QEMU."""
        return "ide" if self.home(context, index) else f"ide{index}"

    def driver(self, element: DeviceElement, context: Context) -> str:
        """See `translator.units.UnitFamily`."""
        return ide_driver(element, context)

    def own_bus(self, machine: str) -> str | None:
        """See `translator.units.UnitFamily`."""
        return "ide" if machine_row(machine).board == "pc" else None

    def seen_unit(self, device: QomDevice, controller: Controller | None, number: int) -> tuple[int, ...] | None:
        """See `translator.units.UnitFamily`."""
        unit = device.properties.get("unit")
        return (number, 0, unit) if isinstance(unit, int) else None

    def seat(self, controller: Controller, device: Device) -> dict[str, Value]:
        """See `translator.units.UnitFamily`."""
        bus, _, unit = undotted(device.port)
        return {"bus": f"{controller.id}.{bus}", "unit": unit}


def ide_driver(element: DeviceElement, context: Context) -> str:
    """Return QEMU's device for a drive that speaks ATA."""
    assert element.disk is not None, "IDE and SATA have drives only"
    return "ide-cd" if context.domain.disks[element.disk].device == "cdrom" else "ide-hd"


FAMILY = Ide()
