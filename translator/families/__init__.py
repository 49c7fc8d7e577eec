"""The families of controllers: what has devices plugged into it, one module (or package) of this folder each.

A family is all that the stages need to know of one kind of controller: how its elements are read, which
controllers and devices a domain has of it, what it wants of PCI, and the steps that bring it about. The stages
themselves know no family by name: a module put into this folder, with its `FAMILY`, is all that a new one takes.

    read     a `<controller>` of its type and the devices of its address type become elements
    begin    one domain's controllers get models and indexes, those that come along unasked included
    claim    they say what they want of PCI, where all families are placed together
    settle   devices get their places: nothing implicit is left
    grown    what comes to a domain that runs gets its places among what is there
    steps    paravirtual ones first, for they can be taken back without the guest; then controllers, then devices
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from translator.document.domain import ControllerElement, DeviceElement, Domain, PciAddress, PciDemand
    from translator.document.parse_devices import Devices
    from translator.document.reader import Place, Reader
    from translator.findings import Findings
    from translator.hosts.qmp import QomDevice
    from translator.hotplug.growing import Growing, Grown
    from translator.layouts import Layout
    from translator.placing.pci import AddedBus, Board
    from translator.placing.peripherals import Peripherals
    from translator.planning.plan import Step
    from translator.planning.steps import Steps
    from translator.registry.models import DeviceKind, DomainKind, Model
    from translator.topology import Controller, Device


class Context(NamedTuple):
    """What families share while a domain is resolved.

    `board` is None where nobody but QEMU places PCI devices; `present` are the families of which the document has
    something.
    """

    domain: Domain
    layout: Layout
    findings: Findings
    board: Board | None
    peripherals: Peripherals
    usbback: bool
    present: frozenset[str]

    @property
    def xen(self) -> bool:
        """Whether the domain is Xen's."""
        return self.domain.hypervisor == "xen"


class PciPlaces(NamedTuple):
    """Where PCI put what was claimed, by the claim's owner, and the busses that were added to have room for it.

    `addresses` is None where nobody but QEMU knows what sits where, or where the claims cannot be met.
    """

    addresses: Mapping[tuple[str, int], PciAddress | None] | None = None
    added: tuple[AddedBus, ...] = ()


class Placed(NamedTuple):
    """A family's part of a topology, in the order in which QEMU is told of it."""

    controllers: tuple[Controller, ...] = ()
    devices: tuple[Device, ...] = ()


class Recorded(NamedTuple):
    """What records tell of a family; `lacking` are ids of steps whose effect is not there."""

    placed: Placed
    lacking: frozenset[str] = frozenset()


class Part(Protocol):
    """One family's controllers and devices of one domain, on their way to their places."""

    def claims(self) -> Sequence[PciDemand] | None:
        """Return what the document's controllers want of PCI, in libvirt's order; `owner` tells them apart.

        None where that cannot be told, and so neither where anything else sits.
        """

    def unasked(self) -> Sequence[PciDemand]:
        """Return what those want that come along without being asked for."""

    def settle(self, places: PciPlaces) -> Placed:
        """Return what sits where; what cannot be goes to the findings."""


class FamilySteps(Protocol):
    """One family's steps of one plan."""

    def paravirtual(self) -> Iterator[Step]:
        """Yield what makes paravirtual controllers and their devices known to the guest."""

    def controllers(self) -> Iterator[Step]:
        """Yield what gives the machine its emulated controllers."""

    def devices(self) -> Iterator[Step]:
        """Yield what plugs devices into those."""


class Family(Protocol):
    """One family.

    name   libvirt's word: `controller/@type`, `Controller.family`
    title  what readers call it
    order  by which QEMU is told of families' controllers, and of their devices; libvirt's
    types  of `<controller>` that it reads: its own, and those that are devices of its own
    tags   of the elements among which its devices are
    kinds  QEMU's devices on its controllers: the registry's rows
    depth  how many ports the path to a device has at most, where hubs make it longer than one
    """

    name: str
    title: str
    order: int
    types: tuple[str, ...]
    tags: tuple[str, ...]
    kinds: tuple[DeviceKind, ...]
    depth: int | None

    @property
    def models(self) -> Mapping[str, Model]:
        """The registry's rows of its controllers, by name."""

    def modelless(self, domain: DomainKind) -> str | None:
        """Return the model of a controller that names none; None where such a domain has no controllers of it."""

    def unasked(self, domain: DomainKind) -> str | None:
        """Return the model of the controller that such a domain has without asking for one; None: it has none."""

    def controller(self, reader: Reader, place: Place) -> ControllerElement | None:
        """Return what a `<controller>` of one of `types` says; None when it is a device of this family."""

    def device(self, devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
        """Return what an element says that is a device of this family; None when it is none."""

    def absent(self, context: Context) -> bool:
        """Tell whether a domain has nothing of this family, which then has no part in it."""

    def begin(self, context: Context) -> Part:
        """Return the domain's part of this family."""

    def model_word(self, controller: Controller) -> str | None:
        """Return how `controller/@model` spells the model; None where there is only one, and no word for it."""

    def address_words(self, device: Device) -> Mapping[str, str]:
        """Return the attributes of a device's `<address>`."""

    def asked(self) -> Mapping[str, tuple[str, ...]]:
        """Return what a running QEMU is asked of the family's devices and controllers, by driver."""

    def seen(self, found: Sequence[QomDevice], known: Mapping[tuple[str, str | None], int], machine: str) -> Placed:
        """Return what a running QEMU has of this family; `known` are indexes by family and id, where those tell."""

    def record_root(self, domid: int) -> str | None:
        """Return the path below which a Xen domain's controllers are recorded; None: this family has no records."""

    def further_roots(self, domid: int, nodes: Mapping[str, str]) -> Sequence[str]:
        """Return the other paths to read, as those nodes tell; none that a guest names."""

    def recorded(self, domid: int, nodes: Mapping[str, str]) -> Recorded:
        """Return what the records tell."""

    def steps(self, steps: Steps) -> FamilySteps:
        """Return the steps that a plan has of this family."""

    def grown(self, fragment: Domain, growing: Growing) -> Iterator[Grown]:
        """Yield what a fragment brings of this family to a running domain; each is there for what comes next.

        Raises:
            DocumentError: the fragment's faults.
            HostError: there is no room, or QEMU cannot be given it while it runs.
        """


@cache
def families() -> tuple[Family, ...]:
    """Return all families, in order."""
    names = {entry.removesuffix(".py") for folder in __path__ for entry in os.listdir(folder)}
    modules = (import_module(f"{__name__}.{name}") for name in sorted(names) if not name.startswith(("_", ".")))
    found: Iterable[Family] = (module.FAMILY for module in modules)
    return tuple(sorted(found, key=lambda family: (family.order, family.name)))


@cache
def by_name() -> Mapping[str, Family]:
    """Return the families by name."""
    return {family.name: family for family in families()}


@cache
def by_type() -> Mapping[str, Family]:
    """Return the family that reads a `<controller>`, by its type."""
    return {type: family for family in families() for type in family.types}


@cache
def by_tag() -> Mapping[str, tuple[Family, ...]]:
    """Return the families that have a look at an element, by its tag."""
    tags = {tag for family in families() for tag in family.tags}
    return {tag: tuple(family for family in families() if tag in family.tags) for tag in tags}
