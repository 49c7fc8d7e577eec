"""A model of a controller with units, a controller on its way to its place, and the numbers of a unit."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import msgspec

from translator.document.domain import ControllerElement, DeviceElement, PciAddress, PciPlug, UnitAddress
from translator.errors import Source
from translator.registry.models import Model, Ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class UnitModel(Model, frozen=True, kw_only=True):
    """One model of a controller with units.

    plug    what it plugs into; None: not into PCI
    limits  the largest number of each part of a unit, by its name
    choice  how many of its units it may be told to have, where it can
    """

    plug: PciPlug | None = "conventional"
    limits: dict[str, int]
    choice: Ports | None = None

    @property
    def capacity(self) -> int:
        """How many units there are; none where nothing plugs into it."""
        return prod(most + 1 for most in self.limits.values()) if self.limits else 0

    @property
    def ports(self) -> Ports:
        """See `translator.registry.models.Model`."""
        return self.choice or Ports(self.capacity, self.capacity, self.capacity)

    def features(self) -> dict[str, int | bool | tuple[str, ...] | dict[str, int] | None]:
        """See `translator.registry.models.Model`."""
        return {"units": dict(self.limits)}

    def told(self) -> Iterator[tuple[str, str]]:
        """See `translator.registry.models.Model`."""
        if self.choice is not None:
            yield "ports", f"{self.choice.least} to {self.choice.most}, {self.choice.default} when not said"
        elif self.limits:
            parts = (f"{name} 0 to {most}" if most else f"{name} 0" for name, most in self.limits.items())
            yield "units", ", ".join(parts)


def drives(bus: int, target: int, unit: int) -> dict[str, int]:
    """Return the limits of a controller whose devices have addresses of type `drive`."""
    return {"bus": bus, "target": target, "unit": unit}


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
