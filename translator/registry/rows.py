"""All that there is to choose from: every family's controller models and device kinds, and QEMU's drivers of them.

No family is known here by name; the order is the families', and within one its rows'.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from translator.families import families
from translator.registry.models import DRIVER_ALIASES, DeviceKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.registry.models import Model


def models() -> tuple[Model, ...]:
    """Return every controller model; names are a family's own, and may come twice."""
    return tuple(row for family in families() for row in family.models.values())


def kinds() -> tuple[DeviceKind, ...]:
    """Return every device kind, one for each driver where those have not all in common."""
    return tuple(kind for family in families() for kind in family.kinds)


def rows() -> tuple[Model | DeviceKind, ...]:
    """Return all rows."""
    return (*models(), *kinds())


def by_driver() -> Mapping[str, Model]:
    """Return the models by what QEMU's drivers call themselves."""
    return {driver: row for row in models() for driver in row.drivers}


@cache
def row_of(driver: str) -> Model | DeviceKind | None:
    """Return a row that a driver, by what it calls itself, belongs to; None: no family has it."""
    return next((row for row in rows() if driver in row.drivers), None)


def drivers() -> tuple[str, ...]:
    """Return all drivers that there are, each once, by what they call themselves."""
    return tuple(dict.fromkeys(driver for row in rows() for driver in row.drivers))


def names(row: Model | DeviceKind) -> tuple[str, ...]:
    """Return all that a row is called: a model's name and aliases or a device's kind, and its drivers."""
    if isinstance(row, DeviceKind):
        return (row.kind, *row.drivers)
    return (row.name, *row.aliases, *((row.driver,) if row.driver else ()), *row.drivers)


def own_name(driver: str) -> str:
    """Return what a driver calls itself, of the names that `device_add` takes for it."""
    return DRIVER_ALIASES.get(driver, driver)
