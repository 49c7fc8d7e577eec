"""A domain that runs while parts of a fragment come to it, one after the other: what it has, and what is free.

Each family tells what a fragment brings of it, part by part; a part that was told is there for the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.errors import HostError
from translator.layouts import CONNECTED, layout_named
from translator.placing.pci import BOARDS, BUS_MODELS
from translator.planning.subjects import subject
from translator.registry.models import machine_row
from translator.topology import Controller, Device

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.document.domain import ControllerElement, DeviceElement, Domain, PciPlug
    from translator.errors import Source
    from translator.hosts.scsi import ScsiFacts
    from translator.live.observe import Observation
    from translator.registry.models import Speed
    from translator.topology import HostDevice, Topology

Part = Controller | Device


class Grown(NamedTuple):
    """A part that comes, and the path of its element in the fragment; None: it comes along unasked."""

    part: Part
    path: str | None


class Facts(NamedTuple):
    """What was asked of the host for some fragments.

    hosts         the USB devices that they name, by selector, complete
    speeds        at which they run, by the selectors of the complete ones, as far as the host tells
    lent          their interfaces, each with its driver, by the selectors of the complete ones
    scsi          the SCSI devices that they name, by selector
    usbback       whether the backend domain has the kernel's PVUSB backend
    images        the file behind each of QEMU's block nodes, whoever made it, by the node's name
    root_ports    the indexes of the PCI controllers that take one device while the machine runs, and have none
    """

    hosts: Mapping[str, HostDevice] = {}
    speeds: Mapping[str, Speed] = {}
    lent: Mapping[str, Mapping[str, str | None]] = {}
    scsi: Mapping[str, ScsiFacts] = {}
    usbback: bool = False
    images: Mapping[str, str] = {}
    root_ports: tuple[int, ...] = ()


class Growing:
    """The domain as it was seen, with all that has come so far.

    Args:
        auto_controller: whether a controller may come along where no place is free.
    """

    def __init__(self, seen: Observation, facts: Facts, *, auto_controller: bool) -> None:
        self.seen = seen
        self.facts = facts
        self.auto_controller = auto_controller
        self.layout = layout_named(seen.topology.layout)
        self.ids = set(seen.ids)
        self.file: str | None = None
        self.new: list[Part] = []
        self.origins: dict[str, tuple[Domain, str]] = {}
        self.disks = 0  # of the fragments before this one
        self._root_ports = list(facts.root_ports)

    @property
    def topology(self) -> Topology:
        return self.seen.topology

    def put(self, grown: Grown, fragment: Domain) -> None:
        """Take up a part that comes."""
        part, topology, states = grown.part, self.topology, self.seen.states
        if grown.path is not None:
            self.origins[subject(part)] = fragment, grown.path
        if grown.path is None or fragment.file is None:
            part = msgspec.structs.replace(part, source=None)  # a word has no lines
        if isinstance(part, Controller):
            # one that comes along serves what comes with it
            if part.family == "usb" and part.type != "emulated":
                states = {**states, part.index: (CONNECTED, CONNECTED)}
            topology = msgspec.structs.replace(topology, controllers=(*topology.controllers, part))
        else:
            topology = msgspec.structs.replace(topology, devices=(*topology.devices, part))
        if part.id is not None:
            self.ids.add(part.id)
        self.new.append(part)
        self.seen = self.seen._replace(topology=topology, states=states)

    def source(self, element: ControllerElement | DeviceElement) -> Source | None:
        """Return where the element stands, None for a word's."""
        return element.source if self.file else None

    def slot(self, what: str, plug: PciPlug, source: Source | None) -> str | None:
        """Return a PCI address for one more controller, or None where QEMU finds one by itself.

        Raises:
            HostError: T481, the machine's first bus takes nothing while it runs, and no port behind it is free.
        """
        board = BOARDS.get(machine_row(self.topology.domain.machine).board or "")
        if board is None or not board.express:
            return None
        if plug not in BUS_MODELS["pcie-root-port"].takes:
            raise HostError(
                "T481",
                f"no PCI slot is free for the {what}, which is none of PCI Express",
                "name a model of PCI Express, such as 'virtio-scsi' or 'qemu-xhci'; or add it to the document, and "
                "start the domain anew",
                source,
            )
        if not self._root_ports:
            raise HostError(
                "T481",
                f"no PCI Express root port is free for the {what}",
                "the first bus of this machine takes nothing while it runs: add root ports to the document, "
                "<controller type='pci' model='pcie-root-port'/>, and start the domain anew",
                source,
            )
        return f"0000:{self._root_ports.pop(0):02x}:00.0"

    def held(self, message: str, help: str, element: ControllerElement | DeviceElement) -> HostError:
        """Return the refusal of a place that something else has."""
        return HostError("T414", message, help, self.source(element))
