"""A running domain with devices more, or fewer: what was observed becomes what is wanted.

Both ways are plans like any other, so that `apply` brings them about with its guards, its undo and its look at
the result.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.changes import same_host_device
from translator.choose import choose_port
from translator.compile import compile_plan
from translator.consistency import check
from translator.errors import Diagnostic, DocumentError, HostError
from translator.findings import Findings
from translator.fragment import unplaced
from translator.hosts.sysfs import fits
from translator.layouts import CONNECTED, layout_named
from translator.peripherals import Peripherals
from translator.resolve import resolve
from translator.subjects import stands_on, subject
from translator.topology import Controller, Device

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from translator.choose import Seat
    from translator.domain import ControllerElement, DeviceElement, Domain
    from translator.errors import Source
    from translator.observe import Observation
    from translator.plan import Plan
    from translator.topology import HostDevice, Kind, Topology, Value

Part = Controller | Device


class Wanted(NamedTuple):
    """The plan of the domain as it shall be, and what it has more or less than now.

    `origins` are the fragment that a part comes from and its path there, by the part's subject; a controller that
    comes along has none.
    """

    plan: Plan
    parts: tuple[Part, ...]
    origins: Mapping[str, tuple[Domain, str]] = {}


def with_devices(
    seen: Observation,
    fragments: Iterable[Domain],
    hosts: Mapping[str, HostDevice],
    lent: Mapping[str, Mapping[str, str | None]],
    *,
    auto_controller: bool = True,
    usbback: bool = False,
    block_nodes: Iterable[str] = (),
) -> Wanted:
    """Return the plan of the domain with all devices of the fragments.

    Args:
        hosts: the host devices that the fragments name, by selector, complete.
        lent: their interfaces, each with its driver, by the selectors of the complete ones.
        auto_controller: whether a controller may come along where no port is free.
        usbback: whether the backend domain has the kernel's PVUSB backend.
        block_nodes: the names of QEMU's block nodes, whoever made them.

    Raises:
        DocumentError: the fragment's faults.
        HostError: T414, T419, there is no room; T437, a host device is attached already.
    """
    growing = _Growing(seen, hosts, auto_controller=auto_controller, usbback=usbback, block_nodes=block_nodes)
    for fragment in fragments:
        try:
            growing.add(fragment)
        except DocumentError as error:
            raise error if fragment.file else unplaced(error) from None
    known = {device.host.selector: device.host for device in growing.topology.devices if device.host}
    plan = compile_plan(growing.topology).bind(hostdevs=known, interfaces={**seen.lent, **lent})
    return Wanted(plan, tuple(growing.new), growing.origins)


def without_devices(seen: Observation, leaving: Iterable[Part]) -> Wanted:
    """Return the plan of the domain without these parts and without what stands on them."""
    topology = seen.topology
    gone = {subject(part) for part in leaving}
    parts: list[Part] = [*topology.controllers, *topology.devices]
    gone |= {subject(part) for part in parts if gone & stands_on(part, topology)}
    left = msgspec.structs.replace(
        topology,
        controllers=tuple(one for one in topology.controllers if subject(one) not in gone),
        devices=tuple(one for one in topology.devices if subject(one) not in gone),
    )
    known = {device.host.selector: device.host for device in left.devices if device.host}
    plan = compile_plan(left).bind(hostdevs=known, interfaces=seen.lent)
    return Wanted(plan, tuple(part for part in parts if subject(part) in gone))


# More


class _Growing:
    def __init__(
        self,
        seen: Observation,
        hosts: Mapping[str, HostDevice],
        *,
        auto_controller: bool,
        usbback: bool,
        block_nodes: Iterable[str],
    ) -> None:
        self.seen = seen
        self.hosts = hosts
        self.auto_controller = auto_controller
        self.usbback = usbback
        self.layout = layout_named(seen.topology.layout)
        self.ids = set(seen.ids)
        self.first_node = max((int(match[1]) for name in block_nodes if (match := _NODE.match(name))), default=0)
        self.file: str | None = None
        self.new: list[Part] = []
        self.origins: dict[str, tuple[Domain, str]] = {}

    @property
    def topology(self) -> Topology:
        return self.seen.topology

    def add(self, fragment: Domain) -> None:
        self.file = fragment.file
        findings = Findings(fragment.file)
        check(fragment, findings)
        if findings.faults:
            raise DocumentError(findings.faults)
        for controller in fragment.controllers:
            self.put(self.controller(fragment, controller), fragment, controller.path)
        peripherals = Peripherals(fragment, self.layout)
        for element in sorted(fragment.devices, key=lambda one: one.kind != "hub"):
            self.put(self.device(element, peripherals), fragment, element.path)
        self.first_node += len(fragment.disks)

    def put(self, part: Part, fragment: Domain | None = None, path: str = "") -> None:
        topology, states = self.topology, self.seen.states
        if fragment is not None:
            self.origins[subject(part)] = fragment, path
        if fragment is None or fragment.file is None:
            part = msgspec.structs.replace(part, source=None)  # a word has no lines
        if isinstance(part, Controller):
            # one that comes along serves what comes with it
            states = {**states, part.index: (CONNECTED, CONNECTED)} if part.type != "emulated" else states
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

    def controller(self, fragment: Domain, element: ControllerElement) -> Controller:
        """Return the controller, its index given: libxl's next one, or QEMU's lowest free one."""
        used = {one.index for one in self.topology.controllers if one.family == "usb"}
        index = element.index
        if index is None and fragment.hypervisor == "xen":
            index = max(used, default=-1) + 1
        elif index is None:
            index = next(number for number in count() if number not in used)
        if index in used:
            raise HostError(
                "T414",
                f"the domain has a controller {index}",
                "leave the index out to get a free one",
                self.source(element),
            )
        alone = msgspec.structs.replace(
            fragment, controllers=(msgspec.structs.replace(element, index=index),), devices=(), disks=()
        )
        made = resolve(alone, layout=None if fragment.hypervisor != "xen" else self.topology.layout)
        return next(one for one in made.topology.controllers if (one.family, one.index) == ("usb", index))

    def device(self, element: DeviceElement, peripherals: Peripherals) -> Device:
        kind = element.kind
        if kind == "ccid" or kind == "smartcard":
            message = f"a {kind} cannot be attached to a running domain"
            raise DocumentError([Diagnostic(code="T441", message=message, line=element.source.line)])
        host = self.host(element)
        seat = self.seat(element)
        if seat.is_new:
            self.put(seat.controller)
        emulated = seat.controller.type == "emulated"
        element = msgspec.structs.replace(element, host=host)
        made = peripherals.make(self.numbered(element)) if emulated else None
        device = Device(
            family="usb",
            kind=kind,
            id=made.id if made else None,
            driver=made.driver if made else None,
            controller=seat.controller.index,
            port=seat.port,
            host=host,
            properties=made.properties if made else {},
            implicit=False,
            source=element.source,
            backends=made.backends if made else (),
            startup_policy=element.startup_policy,
        )
        return _renumbered(device, self.first_node) if element.disk is not None else device

    def host(self, element: DeviceElement) -> HostDevice | None:
        """Return the host's device, which no other port of this domain may have."""
        if element.host is None:
            return None
        host = self.hosts[element.host.selector]
        for other in self.topology.devices:
            if other.host is not None and same_host_device(other.host, host):
                raise HostError(
                    "T437",
                    f"host device {host.selector} is attached already: to port {other.port} of controller "
                    f"{other.controller} of {self.topology.domain.name!r}",
                    f"detach it first: translator detach {self.topology.domain.name} hostdev:{host.selector}",
                    self.source(element),
                )
        return host

    def seat(self, element: DeviceElement) -> Seat:
        address = element.address
        controller = address.bus if address else None
        if address and controller is None and self.topology.domain.hypervisor != "xen":
            controller = 0  # libvirt: an address without a bus asks for bus 0
        try:
            seat = choose_port(
                self.seen,
                element.kind,
                controller=controller,
                port=address.port if address else None,
                usbback=self.usbback,
            )
        except HostError as error:
            raise HostError(error.code, error.message, error.help, self.source(element)) from error
        if seat.is_new and not self.auto_controller:
            raise HostError(
                "T419",
                f"no controller of the domain has a free port for a {element.kind}",
                "attach a controller first, or allow one to come along",
                self.source(element),
            )
        return seat

    def numbered(self, element: DeviceElement) -> DeviceElement:
        """Return the element with a number whose id nobody has; an alias or a host device gives the id by itself."""

        def id(number: int) -> str:
            return self.layout.device_id(element.kind, number, element.alias, element.host)

        given = id(0) == id(1)
        number = next(number for number in count() if given or id(number) not in self.ids)
        return msgspec.structs.replace(element, ordinal=number)


_NODE = re.compile(r"libvirt-([0-9]{1,9})-")


def _renumbered(disk: Device, by: int) -> Device:
    """Return the disk with nodes that nobody has: libvirt counts on from the machine's own disks."""

    def moved(values: Mapping[str, Value]) -> dict[str, Value]:
        return {
            key: _NODE.sub(lambda match: f"libvirt-{int(match[1]) + by}-", value) if isinstance(value, str) else value
            for key, value in values.items()
        }

    backends = tuple(msgspec.structs.replace(one, arguments=moved(one.arguments)) for one in disk.backends)
    return msgspec.structs.replace(disk, properties=moved(disk.properties), backends=backends)


# Fewer


def find_part(topology: Topology, name: str) -> Part:
    """Return the controller or device that is meant.

    Args:
        name: its id in QEMU or alias; `1:2.1`, the port of a controller; `controller:1`; or what it was attached
            by: `hostdev:1.8`, `tablet`.

    Raises:
        DocumentError: T340, the word is no device.
        HostError: T438, nothing of it is attached; T439, several things are.
    """
    from translator.words import PLAIN, parse_device_word

    parts: list[Part] = [*topology.controllers, *topology.devices]
    if fitting := [part for part in parts if part.id == name]:
        return fitting[0]
    usb = [one for one in topology.controllers if one.family == "usb"]
    if match := re.fullmatch(r"controller:([0-9]{1,9})", name):
        return _one(topology, name, [one for one in usb if one.index == int(match[1])])
    if match := re.fullmatch(r"([0-9]{1,9}):([0-9]{1,3}(?:\.[0-9]{1,3}){0,3})", name):
        place = int(match[1]), match[2]
        there = [one for one in topology.devices if one.family == "usb" and (one.controller, one.port) == place]
        return _one(topology, name, there)
    if name.startswith("controller:"):
        model = name.partition(":")[2].partition(",")[0]
        return _one(topology, name, [one for one in usb if one.model == model])
    if name.startswith("hostdev:"):
        wanted = parse_device_word(name).host
        assert wanted is not None
        return _one(topology, name, [one for one in topology.devices if one.host and fits(one.host, wanted)])
    if name in PLAIN:
        return _one(topology, name, [one for one in topology.devices if one.kind == PLAIN[name]])
    return _one(topology, name, [])


def find_element(topology: Topology, element: ControllerElement | DeviceElement) -> Part:
    """Return what an element of a fragment describes: by index or port, else by host device, alias or kind.

    Raises:
        HostError: as `find_part`.
    """
    from translator.domain import ControllerElement

    if isinstance(element, ControllerElement):
        if element.index is not None:
            return find_part(topology, f"controller:{element.index}")
        return find_part(topology, f"controller:{element.model or 'usb'}")
    address = element.address
    if address is not None and address.port is not None:
        return find_part(topology, f"{address.bus or 0}:{address.port}")
    if element.host is not None:
        return find_part(topology, f"hostdev:{element.host.selector}")
    if element.alias is not None:
        return find_part(topology, element.alias)
    kind: Kind | str = element.kind
    return _one(topology, f"a {kind}", [one for one in topology.devices if one.kind == kind])


def _one(topology: Topology, name: str, fitting: list[Controller] | list[Device]) -> Part:
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise HostError(
            "T439",
            f"{len(fitting)} of what {topology.domain.name!r} has are {name!r}",
            f"name one by its place: {', '.join(map(_place, fitting))}",
        )
    parts: list[Part] = [*topology.controllers, *topology.devices]
    have = ", ".join(map(_place, parts))
    raise HostError(
        "T438",
        f"{name!r} is not attached to {topology.domain.name!r}",
        f"it has: {have}" if have else "it has no USB controller and no device",
    )


def _place(part: Part) -> str:
    if isinstance(part, Controller):
        name = f"controller:{part.index}" if part.family == "usb" else part.id
        return f"{name} ({part.model})"
    what = f"hostdev:{part.host.selector}" if part.host else part.kind
    return f"{part.controller}:{part.port} ({what})" if part.family == "usb" else f"{part.id} ({what})"
