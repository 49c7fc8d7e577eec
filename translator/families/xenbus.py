"""Xenbus: what all of a Xen guest's paravirtual devices share, sized when the domain is created."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.document.reader import SIGNED_MAX
from translator.registry.models import PARAVIRTUAL, XEN
from translator.units import UnitFamily, UnitModel

if TYPE_CHECKING:
    from translator.document.reader import Place, Reader
    from translator.families import Context
    from translator.registry.models import DomainKind
    from translator.topology import Value

# xl.cfg's words. Source: xlu_cfg_get_bounded_long in parse_config_data (tools/xl/xl_parse.c).
_WORDS = {"maxGrantFrames": "max_grant_frames", "maxEventChannels": "event_channels"}


class Xenbus(UnitFamily):
    """See `translator.units.UnitFamily`."""

    name = "xenbus"
    title = "Xenbus"
    order = 60
    tags = ()
    rows = (
        UnitModel(
            family="xenbus",
            name="xenbus",
            kind=PARAVIRTUAL,
            interface="xenbus",
            plug=None,
            limits={},
            hotplug=False,
            hypervisors=XEN,
        ),
    )

    def serves(self, reader: Reader) -> bool:
        """See `translator.units.UnitFamily`."""
        return reader.document.root.get("type") == "xen"

    def unasked(self, domain: DomainKind) -> str | None:
        """See `translator.families.Family`."""
        return "xenbus" if domain.hypervisor == "xen" else None

    def properties(self, reader: Reader, place: Place) -> dict[str, Value]:
        """See `translator.units.UnitFamily`."""
        numbers = {word: reader.number(place, name, most=SIGNED_MAX) for name, word in _WORDS.items()}
        return {word: number for word, number in numbers.items() if number is not None}

    def built_in(self, context: Context, index: int) -> bool:
        """See `translator.units.UnitFamily`; only the toolstack that creates the domain can size it."""
        return True


FAMILY = Xenbus()
