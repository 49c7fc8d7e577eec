"""A USB controller while it is being resolved, and the order in which libvirt keeps controllers."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from translator.domain import ControllerElement, PciAddress
from translator.errors import Source
from translator.models import MODELS, Model, Speed
from translator.ports import PortTree
from translator.topology import Companion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# How many of its master's ports a companion serves. Source: NB_PORTS of hw/usb/hcd-uhci.h, num-ports of hcd-ohci.
COMPANION_PORTS = {"uhci": 2, "ohci": 3}

Part = TypeVar("Part")


class Slot(msgspec.Struct, kw_only=True):
    """A controller on its way: `index` and `ports` become known as the passes go on."""

    element: ControllerElement | None
    source: Source
    row: Model
    auto: bool
    index: int | None
    ports: int
    asked: int | None = None
    pci: PciAddress | None = None
    companions: list[Companion] = msgspec.field(default_factory=list)
    tree: PortTree = msgspec.field(default_factory=lambda: PortTree(0))

    @property
    def path(self) -> str:
        """The element's; what nobody wrote cannot be at fault."""
        assert self.element is not None
        return self.element.path

    @property
    def startport(self) -> int | None:
        """The first port of its master that a companion serves; None for a controller of its own."""
        if self.element is not None and self.element.startport is not None and self.row.driver is not None:
            return self.element.startport
        return self.row.startport

    @property
    def number(self) -> int:
        """The index, once it is given."""
        assert self.index is not None, "indexes are given before anything asks for one"
        return self.index

    @property
    def backend(self) -> int | str:
        """The domain that serves a paravirtual one, by id or name; domain 0 when nobody says."""
        name = self.element.backend if self.element else None
        if name is None:
            return 0
        return int(name) if name.isascii() and name.isdigit() else name

    def speeds(self, port: int | None = None) -> set[Speed]:
        """Return the speeds that a root port serves, or any of them does: a companion serves a few."""
        found = set(self.row.speeds)
        for one in self.companions:
            row = MODELS[one.model]
            served = range(one.startport + 1, one.startport + 1 + COMPANION_PORTS.get(row.interface, 0))
            if port is None or port in served:
                found |= set(row.speeds)
        return found


def in_list_order(parts: Iterable[Part], key: Callable[[Part], tuple[int | None, bool]]) -> list[Part]:
    """Sort as libvirt keeps its list: by index, masters before companions, those without one where they were read.

    `key` tells a controller's index and whether it is a companion. Source: virDomainControllerInsertPreAlloced
    (conf/domain_conf.c), as observed.
    """
    ordered: list[tuple[int | None, bool, Part]] = []
    for part in parts:
        index, companion = key(part)
        place = len(ordered)
        if index is not None:
            for number, (other, serves, _) in enumerate(ordered):
                if other is not None and (other > index or (not companion and other == index and serves)):
                    place = number
                    break
        ordered.insert(place, (index, companion, part))
    return [part for _, _, part in ordered]
