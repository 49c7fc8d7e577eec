"""Devices come to a running domain, or leave it: look, decide what is wanted, and let `apply` bring it about."""

from __future__ import annotations

import asyncio
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from translator.document.domain import Domain
from translator.document.fragment import read_fragment, spell, unplaced
from translator.errors import DocumentError, HostError
from translator.hosts.scsi import find as scsi_device
from translator.hotplug.find import find_element, find_part
from translator.hotplug.growing import Facts
from translator.hotplug.wanted import Wanted, with_devices, without_devices
from translator.layouts import USBBACK
from translator.live.apply import bring_about, work_on
from translator.live.binding import domid_of, own_drivers
from translator.live.observe import observe
from translator.live.transition import Policy
from translator.planning.subjects import subject
from translator.topology import PRIMARY, Controller, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from translator.document.domain import DeviceElement
    from translator.hosts.scsi import ScsiFacts
    from translator.hosts.xenview import View
    from translator.hotplug.growing import Part
    from translator.live.host import Host
    from translator.live.observe import Observation
    from translator.saga.outcome import Applied, StepEvent
    from translator.topology import DomainIdentity, HostDevice
    from translator.topology import Layout as LayoutName

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class Given(NamedTuple):
    """What is to come or go: a word, or the XML of a fragment; `file` is what diagnostics call that."""

    what: str | bytes
    file: str | None = None


class Moved(NamedTuple):
    """What came or went, and what it took."""

    parts: tuple[Part, ...]
    applied: Applied


async def attach(
    host: Host,
    given: Sequence[Given],
    *,
    domid: int | None,
    layout: LayoutName | None = None,
    place: Place | None = None,
    auto_controller: bool = True,
    dry_run: bool = False,
    on_step: Callable[[StepEvent], None] | None = None,
    before: Callable[[Wanted], None] | None = None,
) -> Moved:
    """Attach devices to a running domain, all of them or none.

    Args:
        domid: a Xen domain's id; None for the QEMU whose monitor the host names.
        place: the controller and port that a word's device goes to; a fragment says so itself.
        auto_controller: whether a controller may come along where no port is free.
        before: is told what is wanted before anything is done, and may raise.

    Raises:
        DocumentError: a word or fragment is refused.
        HostError: there is no room, a device is not there or is attached already, or as `apply`.
    """
    async with work_on(host, domid, dry_run=dry_run) as work:
        seen = await observe(host, domid=domid, layout=layout, nodes=work.nodes)
        fragments = [_fragment(one, seen.topology.domain, place) for one in given]
        facts = await _facts(host, fragments, seen, domid, work.nodes)
        wanted = with_devices(seen, fragments, facts, auto_controller=auto_controller)
        emulated = {(one.family, one.index) for one in wanted.plan.topology.controllers if one.type == "emulated"}
        if any(_seat(part) in emulated for part in wanted.parts):
            # QEMU may hold more than the records tell: its ids, its nodes, its free slots
            seen = await observe(host, domid=domid, layout=layout, expect_qmp=True, nodes=work.nodes)
            facts = await _emulators_facts(host, facts, seen, domid)
            wanted = with_devices(seen, fragments, facts, auto_controller=auto_controller)
        if before is not None:
            before(wanted)
        applied = await bring_about(
            wanted.plan, host, work, policy=Policy(), dry_run=dry_run, on_step=on_step, notes=wanted.notes
        )
    return Moved(wanted.parts, applied)


async def detach(
    host: Host,
    given: Sequence[Given],
    *,
    domid: int | None,
    layout: LayoutName | None = None,
    force: bool = False,
    dry_run: bool = False,
    on_step: Callable[[StepEvent], None] | None = None,
    before: Callable[[Wanted], None] | None = None,
) -> Moved:
    """Detach devices and controllers, with all that stands on them; all or nothing.

    Args:
        given: a word may also be an id in QEMU, `controller:1`, or a port, `1:2`.
        force: do not wait for guest and backend to let go of a controller.

    Raises:
        DocumentError, HostError: as `attach`; T438, it is not attached.
    """
    async with work_on(host, domid, dry_run=dry_run) as work:
        seen, place = await _look_where(host, given, domid, layout, work.nodes)
        parts: list[Part | Domain] = [
            read_fragment(one.what, seen.topology.domain, file=one.file)
            if isinstance(one.what, bytes)
            else find_part(seen.topology, one.what)
            for one in given
        ]
        fragments = [one for one in parts if isinstance(one, Domain)]
        facts = Facts(scsi=_scsi_devices(host, fragments, gone=True))
        if any(device.disk is not None or device.scsi is not None for one in fragments for device in one.devices):
            facts = await _emulators_facts(host, facts, seen, domid)
        leaving: list[Part] = []
        for one in parts:
            if isinstance(one, Domain):
                leaving += (find_element(seen.topology, element, one, facts) for element in one.controllers)
                leaving += (find_element(seen.topology, element, one, facts) for element in one.devices)
            else:
                leaving.append(one)
        wanted = without_devices(seen, leaving)
        if before is not None:
            before(wanted)
        policy = Policy(prune=True, force=force, only=frozenset(map(subject, wanted.parts)))
        applied = await bring_about(
            wanted.plan, host, work, policy=policy, dry_run=dry_run, on_step=on_step, place=place
        )
    return Moved(wanted.parts, applied)


async def find_domain(host: Host, name: str) -> int:
    """Return the id of the running Xen domain that is meant by its id, its name or its UUID.

    Raises:
        HostError: T403, there is none, or several have the name.
    """
    xenstore = await host.xenstore()
    if re.fullmatch(r"[1-9][0-9]{0,4}", name) and await xenstore.read(f"/local/domain/{name}/name") is not None:
        return int(name)
    if name == "0":
        raise HostError("T403", "domain 0 is the host itself", "name a guest")
    if _UUID.fullmatch(name):
        for domid in await xenstore.children("/local/domain") or ():
            vm = await xenstore.read(f"/local/domain/{domid}/vm") if domid.isdigit() else None
            if vm is not None and vm.lower() == f"/vm/{name.lower()}":
                return int(domid)
        raise HostError("T403", f"no running domain has UUID {name}", "see `xl list -v`")
    if name.isdigit():
        raise HostError("T403", f"there is no domain {name}", "see `xl list` for those that run")
    return await domid_of(host, name, is_guest=True)


async def _look_where(
    host: Host, given: Sequence[Given], domid: int | None, layout: LayoutName | None, nodes: View | None
) -> tuple[Observation, Place | None]:
    """Look at the one port of a paravirtual controller that is named, if that is all and there is a device in it.

    Else at the whole domain; of which no more than the records tell is needed where such a port is empty.
    """
    place = _port_of(given) if domid is not None else None
    there = None
    if place is not None:
        there = await observe(host, domid=domid, layout=layout, nodes=nodes, place=place)
        if there.topology.devices:
            return there, place
    try:
        return await observe(host, domid=domid, layout=layout, nodes=nodes), None
    except HostError as error:
        if error.code != "T402" or there is None or not there.topology.controllers:
            raise
        return await observe(host, domid=domid, layout=layout, nodes=nodes, records_only=True), None


def _port_of(given: Sequence[Given]) -> Place | None:
    """Return the port that is all that is named; one behind a hub is no paravirtual controller's."""
    words = [one.what for one in given]
    match = (
        re.fullmatch(r"([0-9]{1,9}):([0-9]{1,3})", words[0])
        if len(words) == 1 and isinstance(words[0], str)
        else None
    )
    return Place(int(match[1]), match[2]) if match else None


def _fragment(given: Given, identity: DomainIdentity, place: Place | None) -> Domain:
    if isinstance(given.what, bytes):
        return read_fragment(given.what, identity, file=given.file)
    try:
        return read_fragment(spell(given.what, place), identity)
    except DocumentError as error:  # whose lines nobody has written
        raise unplaced(error) from None


def _seat(part: Part) -> tuple[str, int]:
    if isinstance(part, Controller):
        return ("usb", part.place.controller) if part.place else (part.family, part.index)
    return part.family, part.controller


# What the host says


async def _facts(
    host: Host, fragments: Sequence[Domain], seen: Observation, domid: int | None, nodes: View | None
) -> Facts:
    """Return what the host says of what the fragments name; of its QEMU no more than it had to be asked anyway."""
    hosts = _host_devices(host, fragments)
    usbback = host.sysfs.has_driver("usbback")
    notes = await nodes.tree(USBBACK) if usbback and nodes is not None else {}
    facts = Facts(
        hosts=hosts,
        speeds={one.selector: speed for one in hosts.values() if (speed := host.sysfs.speed(one))},
        lent={found.selector: own_drivers(found, host.sysfs, notes) for found in hosts.values()},
        scsi=_scsi_devices(host, fragments),
        usbback=usbback,
    )
    return facts if domid is not None else await _emulators_facts(host, facts, seen, domid)


async def _emulators_facts(host: Host, facts: Facts, seen: Observation, domid: int | None) -> Facts:
    """Add what QEMU says: which file is behind which node, and which root ports are free."""
    if domid is not None and not any(one.type == "emulated" for one in seen.topology.controllers):
        return facts
    monitor = await host.qmp(PRIMARY, domid)
    ports = [
        one
        for one in seen.topology.controllers
        if one.family == "pci" and one.model in ("pcie-root-port", "pcie-switch-downstream-port") and one.id
    ]
    full = await asyncio.gather(*(monitor.children_of_bus(f"/machine/peripheral/{one.id}/{one.id}") for one in ports))
    return facts._replace(
        images=await monitor.images(),
        root_ports=tuple(one.index for one, on_it in zip(ports, full, strict=True) if not on_it),
    )


def _host_devices(host: Host, fragments: Sequence[Domain]) -> dict[str, HostDevice]:
    found = {}
    for fragment in fragments:
        for element in fragment.devices:
            if element.host is not None:
                with _told_at(element, fragment):
                    found[element.host.selector] = host.sysfs.find(element.host)
    return found


def _scsi_devices(host: Host, fragments: Sequence[Domain], *, gone: bool = False) -> dict[str, ScsiFacts]:
    """Return the SCSI devices that fragments name; with `gone` without those that the host has no more."""
    found = {}
    for fragment in fragments:
        for element in fragment.devices:
            if element.scsi is None:
                continue
            try:
                with _told_at(element, fragment):
                    found[element.scsi.selector] = scsi_device(host.sysfs.root, element.scsi)
            except HostError as error:
                if not gone or error.code != "T470":
                    raise
    return found


@contextmanager
def _told_at(element: DeviceElement, fragment: Domain) -> Iterator[None]:
    """Say of a refusal which element of the fragment it is about."""
    try:
        yield
    except HostError as error:
        source = element.source if fragment.file else None
        raise HostError(error.code, error.message, error.help, source) from error
