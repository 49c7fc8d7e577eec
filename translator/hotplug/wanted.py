"""A running domain with devices more, or fewer: what was observed becomes what is wanted.

Both ways are plans like any other, so that `apply` brings them about with its guards, its undo and its look at
the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from translator.document.fragment import unplaced
from translator.errors import DocumentError
from translator.families import families
from translator.families.usb.speeds import mismatches
from translator.findings import Findings
from translator.hotplug.growing import Growing
from translator.live.binding import seen_scsi
from translator.placing.consistency import check
from translator.planning.compile import compile_plan
from translator.planning.subjects import parts_of, stands_on, subject
from translator.topology import Device

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from translator.document.domain import Domain
    from translator.errors import Diagnostic
    from translator.hotplug.growing import Facts, Part
    from translator.live.observe import Observation
    from translator.planning.plan import Plan
    from translator.topology import HostDevice, Topology


class Wanted(NamedTuple):
    """The plan of the domain as it shall be, and what it has more or less than now.

    `origins` are the fragment that a part comes from and its path there, by the part's subject; a controller that
    comes along has none. `notes` are what the guest may not like of it.
    """

    plan: Plan
    parts: tuple[Part, ...]
    origins: Mapping[str, tuple[Domain, str]] = {}
    notes: tuple[Diagnostic, ...] = ()


def with_devices(
    seen: Observation, fragments: Iterable[Domain], facts: Facts, *, auto_controller: bool = True
) -> Wanted:
    """Return the plan of the domain with all devices of the fragments.

    Args:
        facts: what the host says of what the fragments name.
        auto_controller: whether a controller may come along where no place is free.

    Raises:
        DocumentError: the fragment's faults.
        HostError: T414, T419, T481, there is no room; T437, a host device is attached already; T480, T482, it
            cannot come to a running domain.
    """
    growing = Growing(seen, facts, auto_controller=auto_controller)
    there = frozenset(parts_of(seen.topology))
    for fragment in fragments:
        try:
            _grow(growing, fragment)
        except DocumentError as error:
            raise error if fragment.file else unplaced(error) from None
    topology = growing.topology
    scsi = {**seen_scsi(seen.topology), **facts.scsi}
    plan = compile_plan(topology, there=there).bind(
        hostdevs=_known_hosts(topology), interfaces={**seen.lent, **facts.lent}, scsi=scsi
    )
    coming = [part for part in growing.new if isinstance(part, Device)]
    return Wanted(plan, tuple(growing.new), growing.origins, mismatches(topology, coming, facts.speeds))


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
    plan = compile_plan(left).bind(hostdevs=_known_hosts(left), interfaces=seen.lent, scsi=seen_scsi(left))
    return Wanted(plan, tuple(part for part in parts if subject(part) in gone))


def _grow(growing: Growing, fragment: Domain) -> None:
    growing.file = fragment.file
    findings = Findings(fragment.file)
    check(fragment, findings)
    if findings.faults:
        raise DocumentError(findings.faults)
    for family in families():
        for grown in family.grown(fragment, growing):
            growing.put(grown, fragment)
    growing.disks += len(fragment.disks)


def _known_hosts(topology: Topology) -> Mapping[str, HostDevice]:
    return {device.host.selector: device.host for device in topology.devices if device.host}
