"""ISA: a bus that a machine has or has not; nothing of it is told QEMU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.registry.models import NOT_XEN
from translator.units import UnitFamily, UnitModel

if TYPE_CHECKING:
    from translator.families import Context


class Isa(UnitFamily):
    """See `translator.units.UnitFamily`."""

    name = "isa"
    title = "ISA"
    order = 70
    tags = ()
    rows = (
        UnitModel(
            family="isa", name="isa", interface="isa", plug=None, limits={}, hotplug=False, hypervisors=NOT_XEN
        ),
    )

    def built_in(self, context: Context, index: int) -> bool:
        """See `translator.units.UnitFamily`."""
        return True


FAMILY = Isa()
