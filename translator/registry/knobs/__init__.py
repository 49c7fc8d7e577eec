"""Every property that QEMU gives controllers and devices: type, default, range, age, and what it is for.

A row of the registry names the groups that its drivers have; a group of a driver's own name comes on top. Each
module of this folder has groups, in its `GROUPS`; the tables know no family. The documents' way to a property is in
`xml`; one without is reached by `<qemu:override>` alone. Not imported to make a plan, unless the document overrides a
property.

Sources: names, types and defaults, QEMU 7.2 `device-list-properties`, which a test compares; ranges, the code that
each module names; `since`, the tables of hw/core/machine.c, what libvirt's test data has of each release's
`device-list-properties`, and the mails by which properties came in. What is not known to be newer has no `since`.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from translator.registry import rows as registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.registry.knob import Knob


@cache
def groups() -> Mapping[str, tuple[Knob, ...]]:
    """Return all groups, by name."""
    found: dict[str, tuple[Knob, ...]] = {}
    for module in pkgutil.iter_modules(__path__):
        found |= import_module(f"{__name__}.{module.name}").GROUPS
    return found


def knobs_of(driver: str) -> Mapping[str, Knob]:
    """Return a driver's properties by name, sorted; empty for a driver that no row has."""
    name = registry.own_name(driver)
    row = registry.row_of(name)
    return {} if row is None else _of((*row.knobs, name))


@cache
def _of(names: tuple[str, ...]) -> Mapping[str, Knob]:
    found = [knob for group in names for knob in groups().get(group, ())]
    return MappingProxyType({knob.name: knob for knob in sorted(found, key=lambda knob: knob.name)})
