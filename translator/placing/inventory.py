"""What else of a domain document takes PCI slots: its other devices, in the order in which libvirt serves them.

Only what decides over places is read: the kind of slot, an address, and how many there are. Source:
qemuDomainDeviceCalculatePCIConnectFlags and qemuDomainAssignDevicePCISlots (qemu/qemu_domain_address.c), as
read and as observed with QEMU 7.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from translator.document.domain import PciDemand, PciInventory
from translator.families import by_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lxml.etree import _Element

    from translator.document.domain import PciAddress, PciPlug
    from translator.placing.pci import Board

# Models that libvirt knows and that are conventional; a model that it does not know it takes for PCI Express.
_CONVENTIONAL_NETS = frozenset(
    {"rtl8139", "e1000", "virtio-transitional", "netfront", "lan9118", "smc91c111", "vlance", "vmxnet", "vmxnet2"}
    | {"vmxnet3", "Am79C970A", "Am79C973", "82540EM", "82545EM", "82543GC"}
)
_PCI_SOUNDS = frozenset({"es1370", "ac97", "ich6", "ich9"})
_HIGHEST_BUS = 255
# Addresses are entered kind by kind; which comes first decides what kind of bus is added for one that is not
# there. Source: virDomainDeviceInfoIterate (conf/domain_conf.c). The other kinds come last.
_TURNS = {tag: turn for turn, tag in enumerate(("disk", "interface", "sound", "hostdev", "video", "controller"))}
CONTROLLER_TURN = _TURNS["controller"]


class Part(NamedTuple):
    """An element below `<devices>`, the line in which it stands, and what its address says.

    `placed` is False for an address of another type: then it takes no slot.
    """

    element: _Element
    line: int
    address: PciAddress | None
    placed: bool

    @property
    def what(self) -> str:
        """What a message calls it."""
        return f"the <{self.element.tag}> in line {self.line}"


def inventory(board: Board, parts: Sequence[Part]) -> PciInventory:
    """Return the demands of all but the controllers."""
    return _Inventory(board, parts).all()


class _Inventory:
    def __init__(self, board: Board, parts: Sequence[Part]) -> None:
        self.board = board
        self.parts: dict[str, list[Part]] = {}
        for part in parts:
            self.parts.setdefault(str(part.element.tag), []).append(part)

    def all(self) -> PciInventory:
        ahead = (*self.simple("filesystem", _filesystem), *self.nets(), *self.sounds())
        behind = (*self.devices(), *self.strangers())
        return PciInventory(ahead=ahead, controllers=tuple(self.controllers()), behind=behind)

    # One element, one demand

    def demand(
        self,
        part: Part,
        plug: PciPlug | None,
        *,
        homes: tuple[tuple[int, int], ...] = (),
        bound: bool = False,
        early: bool = False,
    ) -> Iterator[PciDemand]:
        if part.address is None and not (plug and part.placed):
            return
        yield PciDemand(
            what=part.what,
            plug=plug or "conventional",  # what is none of PCI's holds the place that it names all the same
            address=part.address,
            homes=homes,
            bound=bound,
            early=early,
            turn=_TURNS.get(str(part.element.tag), len(_TURNS)),
        )

    def simple(self, tag: str, plug: Callable[[_Element], PciPlug | None]) -> Iterator[PciDemand]:
        for part in self.parts.get(tag, ()):
            yield from self.demand(part, plug(part.element))

    # What comes before the controllers

    def nets(self) -> Iterator[PciDemand]:
        for part in self.parts.get("interface", ()):
            if part.element.get("type") != "hostdev":
                yield from self.demand(part, self.net(part.element))

    def net(self, element: _Element) -> PciPlug | None:
        model = _sub(element, "model", "type")
        if model is None:
            return "express" if self.board.name == "virt" else "conventional"
        if model in ("usb-net", "spapr-vlan"):
            return None
        return "conventional" if model in _CONVENTIONAL_NETS else "express"

    def sounds(self) -> Iterator[PciDemand]:
        for part in self.parts.get("sound", ()):
            model = part.element.get("model")
            homes = ((0x1B, 0),) if model == "ich9" and self.board.name == "q35" else ()
            yield from self.demand(part, "conventional" if model in _PCI_SOUNDS else None, homes=homes)

    def controllers(self) -> Iterator[tuple[str, tuple[PciDemand, ...]]]:
        """Yield the controllers' types as they first appear, and what those hold that are of no family."""
        kinds: dict[str, list[Part]] = {}
        for part in self.parts.get("controller", ()):
            kinds.setdefault(part.element.get("type") or "", []).append(part)
        for kind, parts in kinds.items():
            strange = [] if kind in by_type() else parts
            yield kind, tuple(one for part in strange for one in self.demand(part, None))

    def devices(self) -> Iterator[PciDemand]:
        yield from self.simple("disk", lambda one: _virtio(one) if _disk_bus(one) == "virtio" else None)
        yield from self.hostdevs()
        if "memballoon" not in self.parts:
            yield PciDemand(what="the memory balloon", plug="express")
        yield from self.simple(
            "memballoon", lambda one: _virtio(one) if one.get("model") not in ("none", "xen") else None
        )
        yield from self.simple("rng", _virtio)
        yield from self.simple("watchdog", lambda one: "conventional" if one.get("model") == "i6300esb" else None)
        yield from self.videos()
        yield from self.simple("shmem", lambda _: "conventional")
        yield from self.simple("input", lambda one: _virtio(one) if one.get("bus") == "virtio" else None)
        yield from self.simple(
            "serial", lambda one: "conventional" if _sub(one, "target", "type") == "pci-serial" else None
        )
        yield from self.simple("iommu", lambda one: "built-in" if one.get("model") == "virtio" else None)
        yield from self.simple("vsock", _virtio)
        yield from self.simple(
            "memory", lambda one: "express" if (one.get("model") or "").startswith("virtio-") else None
        )
        yield from self.simple("crypto", lambda _: "conventional")

    def hostdevs(self) -> Iterator[PciDemand]:
        for part in self.parts.get("interface", ()):
            if part.element.get("type") == "hostdev":
                usb = _sub(part.element, "source/address", "type") == "usb"
                yield from self.demand(part, None if usb else self.host("pci", part.element))
        for part in self.parts.get("hostdev", ()):
            yield from self.demand(part, self.host(part.element.get("type"), part.element))

    def host(self, kind: str | None, element: _Element) -> PciPlug | None:
        """Tell where a device of the host goes; whether it is PCI Express only the host knows, but nearly all are."""
        if self.board.name == "pseries":
            return None  # those have a host bridge of their own
        if kind == "pci" or (kind == "mdev" and element.get("model") == "vfio-pci"):
            return "express"
        return _virtio(element) if kind == "scsi_host" else None

    def videos(self) -> Iterator[PciDemand]:
        """The primary one has a place of its own; where there are graphics, there is one unasked."""
        slot = {"pc": 2, "q35": 1}.get(self.board.name)
        homes = ((slot, 0),) if slot else ()
        videos = self.parts.get("video", [])
        if not videos and "graphics" in self.parts:
            plug: PciPlug = "express" if self.board.name == "virt" else "conventional"
            yield PciDemand(what="the video card", plug=plug, homes=homes, early=True)
        primary = next((one for one in videos if _sub(one.element, "model", "primary") == "yes"), None)
        for number, part in enumerate(sorted(videos, key=lambda one: one is not primary)):
            model = _sub(part.element, "model", "type")
            if model in ("none", "ramfb"):
                yield from self.demand(part, None)
                continue
            express = model in ("virtio", "bochs") or (model is None and self.board.name == "virt")
            first = number == 0 and bool(homes)
            yield from self.demand(
                part, "express" if express else "conventional", homes=homes if first else (), early=first
            )

    def strangers(self) -> Iterator[PciDemand]:
        """Yield what takes a place by naming it, though it is none of PCI's."""
        for tag in ("hub", "redirdev", "smartcard", "parallel", "channel", "tpm", "panic", "nvram"):
            yield from self.simple(tag, lambda _: None)


def _filesystem(element: _Element) -> PciPlug | None:
    return _virtio(element) if _sub(element, "driver", "type") not in ("loop", "nbd", "ploop") else None


def _virtio(element: _Element) -> PciPlug:
    """A transitional device works in a conventional slot only; on a board without PCI Express all are such."""
    return "conventional" if element.get("model") == "virtio-transitional" else "express"


def _sub(element: _Element, path: str, attribute: str) -> str | None:
    child = element.find(path)
    return child.get(attribute) if child is not None else None


def _number(text: str | None) -> int | None:
    # twenty digits are beyond every limit, and Python refuses to read thousands
    return int(text.lstrip("0")[:20] or "0") if text is not None and text.isascii() and text.isdigit() else None


def _disk_bus(disk: _Element) -> str:
    bus = _sub(disk, "target", "bus")
    if bus is not None:
        return bus
    name = _sub(disk, "target", "dev") or ""
    prefixes = {"vd": "virtio", "sd": "scsi", "hd": "ide"}
    return prefixes.get(name[:2], "")
