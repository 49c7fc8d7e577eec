"""A `Domain` becomes a `Topology`: every controller and port is named, nothing implicit is left.

For QEMU domains the answer is libvirt's, since stored documents must keep their hardware: which controllers
there are without being asked for, who gets which port in which order, and where hubs are added. For Xen
domains libvirt has no answer; ours is the order of libxl's defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from translator.errors import DocumentError
from translator.families import Context, families
from translator.findings import Findings
from translator.layouts import layout_named
from translator.placing.consistency import check
from translator.placing.pci import BOARDS
from translator.placing.pci_slots import place_parts
from translator.placing.peripherals import Peripherals
from translator.registry.models import machine_row
from translator.topology import PRIMARY, DeviceModel, DomainIdentity, Topology

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.document.domain import Domain, SharePolicy
    from translator.errors import Diagnostic
    from translator.live.drivers import Driver
    from translator.topology import Layout, Untranslated


class Resolution(NamedTuple):
    """A topology, and what is to be said about it without refusing it.

    `untranslated` are overrides of devices that are not in it.
    """

    topology: Topology
    warnings: tuple[Diagnostic, ...]
    untranslated: tuple[Untranslated, ...] = ()


def resolve(
    domain: Domain,
    *,
    layout: Layout | None = None,
    usbback: bool = False,
    device_models: SharePolicy | None = None,
    probed: Mapping[str, Driver | None] | None = None,
) -> Resolution:
    """Return what sits where.

    Args:
        layout: where a Xen domain's records live, libxl if None; a QEMU domain has its own.
        usbback: whether the backend domain has the kernel's PVUSB backend, which `auto` then prefers to QEMU's.
        device_models: how the controllers are shared out among them, instead of what the document says.
        probed: what a QEMU was found to have, for overrides of what the registry does not know.

    Raises:
        DocumentError: with every fault; their places are the elements', in path and line.
    """
    findings = Findings(domain.file)
    its_layout = layout_named((layout or "libxl") if domain.hypervisor == "xen" else "qemu")
    board = BOARDS.get(machine_row(domain.machine).board or "") if domain.pci is not None else None
    present = frozenset(one.family for one in domain.controllers) | {one.family for one in domain.devices}
    context = Context(domain, its_layout, findings, board, Peripherals(domain, its_layout), usbback, present)
    parts = {family.name: family.begin(context) for family in families() if not family.absent(context)}
    check(domain, findings)
    places = place_parts(context, parts)
    placed = [part.settle(places) for part in parts.values()]
    if findings.faults:
        raise DocumentError(findings.faults)
    untranslated: tuple[Untranslated, ...] = ()
    topology = Topology(
        domain=DomainIdentity(
            name=domain.name,
            uuid=domain.uuid,
            hypervisor=domain.hypervisor,
            guest=domain.guest,
            arch=domain.arch,
            machine=domain.machine,
            domid=domain.domid,
        ),
        layout=its_layout.name,
        device_models=(DeviceModel(name=PRIMARY, emulator=domain.emulator),),
        controllers=tuple(controller for part in placed for controller in part.controllers),
        devices=tuple(device for part in placed for device in part.devices),
    )
    if device_models or domain.device_models:
        from translator.placing.device_models import share_out

        topology = share_out(domain, topology, device_models, findings)
    if domain.overrides:
        from translator.placing.override import override  # brings in all that is known of properties

        topology, untranslated = override(topology, domain, findings, probed)
    if findings.faults:
        raise DocumentError(findings.faults)
    return Resolution(topology, tuple(findings.warnings), untranslated)
