"""A model of a controller with units, a controller on its way to its place, and the numbers of a unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from translator.domain import ControllerElement, DeviceElement, PciAddress, PciPlug, UnitAddress
from translator.errors import Source
from translator.models import DRIVER_ALIASES
from translator.topology import Type

if TYPE_CHECKING:
    from collections.abc import Sequence


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
