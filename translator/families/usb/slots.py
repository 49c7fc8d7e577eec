"""A USB controller while it is being resolved."""

from __future__ import annotations

import msgspec

from translator.document.domain import ControllerElement, PciAddress
from translator.errors import Source
from translator.placing.ports import PortTree
from translator.registry.models import MODELS, Speed, UsbModel
from translator.topology import Companion

# How many of its master's ports a companion serves. Source: NB_PORTS of hw/usb/hcd-uhci.h, num-ports of hcd-ohci.
COMPANION_PORTS = {"uhci": 2, "ohci": 3}


class Slot(msgspec.Struct, kw_only=True):
    """A controller on its way: `index` and `ports` become known as the passes go on."""

    element: ControllerElement | None
    source: Source
    row: UsbModel
    auto: bool
    index: int | None
    ports: int
    asked: int | None = None
    pci: PciAddress | None = None
    companions: list[Companion] = msgspec.field(default_factory=list)
    served: dict[int, set[Speed]] = msgspec.field(default_factory=dict)  # by companions, by root port
    tree: PortTree

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
        others = self.served.values() if port is None else [self.served.get(port, set())]
        return set(self.row.speeds).union(*others)

    def add_companion(self, companion: Companion) -> None:
        """Let another controller serve what is slower on some of the root ports."""
        row = MODELS[companion.model]
        self.companions.append(companion)
        for port in companion_ports(row, companion.startport):
            self.served.setdefault(port, set()).update(row.speeds)


def companion_ports(row: UsbModel, startport: int) -> range:
    """Return the root ports of its master that a companion serves; none for what QEMU knows no companion of."""
    return range(startport + 1, startport + 1 + COMPANION_PORTS.get(row.interface, 0))
