"""SCSI: emulated host adapters, and the disks and host devices on them.

Sources: models, virDomainControllerModelSCSI (conf/domain_conf.h) and QEMU 7.2's drivers; which one is taken where
none is named, qemuDomainDefaultSCSIControllerModel (qemu/qemu_domain.c); units, qemuBuildDiskDeviceBusProps
(qemu/qemu_command.c), as read and as observed.
"""

from __future__ import annotations

import itertools
import re
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from translator.document.domain import UnitAddress
from translator.families import Placed, Recorded
from translator.placing import virtio
from translator.planning.steps import backend_of, implied, named
from translator.registry.models import NOT_XEN, PARAVIRTUAL, PPC, SPARC, XEN, DeviceKind
from translator.topology import Device, ScsiHost
from translator.units import UnitFamily, UnitModel, UnitPart, UnitSteps, by_letters, dotted, drives, undotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from translator.document.domain import ControllerElement, DeviceElement
    from translator.document.parse_devices import Devices
    from translator.document.reader import Place, Reader
    from translator.families import Context, FamilySteps, Part
    from translator.hosts.qmp import QomDevice
    from translator.planning.plan import Step
    from translator.planning.steps import Steps
    from translator.registry.models import DomainKind
    from translator.topology import Controller, Value
    from translator.units import UnitSlot

_PV = "xenscsi"
# A narrow bus has eight units, and one of them is the controller itself.
_NARROW = drives(0, 0, 7)
_WIDE = drives(0, 255, 16383)
# How a host's device may be named; names become paths, so only these.
_ADAPTER = re.compile(r"scsi_host(0|[1-9][0-9]{0,5})", re.ASCII)
_WWN = re.compile(r"(?:naa|eui|t10)\.[0-9A-Za-z]{1,64}", re.ASCII)
_DEVICE = re.compile(r"/dev/(?:disk/by-[a-z]+/)?[A-Za-z0-9][A-Za-z0-9:._-]{0,127}", re.ASCII)
# Where IBM's are on their bus. Source: qemuDomainAssignSpaprVIOAddresses (qemu/qemu_domain_address.c).
_REGISTER, _REGISTER_STEP = 0x2000, 0x1000
_adapter = partial(UnitModel, family="scsi", hypervisors=NOT_XEN, knobs=("pci",))
_DISK = ("scsi-disk", "medium", "block", "errors")
_DRIVERS = {"disk": "scsi-hd", "lun": "scsi-block", "cdrom": "scsi-cd"}


class Scsi(UnitFamily):
    """See `translator.units.UnitFamily`."""

    name = "scsi"
    title = "SCSI"
    order = 20
    tags = ("disk", "hostdev")
    hotplug = True
    seat_properties = ("channel", "scsi-id", "lun")
    rows = (
        _adapter(name="lsilogic", interface="lsi53c895a", driver="lsi", limits=_NARROW),
        _adapter(
            name="buslogic",
            interface="buslogic",
            limits=drives(0, 15, 7),
            knobs=(),
            refused="it is VMware's, and QEMU has nothing like it; name 'lsilogic' or 'virtio-scsi'",
        ),
        *(
            _adapter(
                name=f"virtio{suffix}" if suffix else "virtio-scsi",
                interface="virtio-scsi",
                driver=f"virtio-scsi-pci{suffix}",
                plug=plug,
                limits=_WIDE,
                knobs=("pci", "virtio", "virtio-scsi"),
            )
            for suffix, plug in virtio.TRANSPORTS.values()
        ),
        _adapter(name="lsisas1068", interface="mptsas1068", driver="mptsas1068", limits=drives(0, 8, 1)),
        _adapter(name="lsisas1078", interface="megasas", driver="megasas", limits=drives(0, 64, 255)),
        _adapter(name="vmpvscsi", interface="vmpvscsi", driver="pvscsi", limits=drives(0, 64, 0)),
        _adapter(name="am53c974", interface="esp", driver="am53c974", limits=drives(0, 7, 7)),
        _adapter(name="dc390", interface="esp", driver="dc390", limits=drives(0, 7, 7)),
        UnitModel(
            family="scsi",
            name=_PV,
            kind=PARAVIRTUAL,
            interface="pvscsi",
            plug=None,
            limits=drives(255, 255, 16383),
            hypervisors=XEN,
            aliases=("vscsi",),
        ),
        _adapter(name="ncr53c90", interface="esp", plug=None, limits=_NARROW, hotplug=False, arches=SPARC, knobs=()),
        _adapter(
            name="ibmvscsi",
            interface="ibmvscsi",
            driver="spapr-vscsi",
            plug=None,
            limits=drives(7, 63, 31),
            hotplug=False,
            arches=PPC,
            knobs=(),
        ),
    )
    kinds = (
        DeviceKind(family="scsi", kind="disk", driver="scsi-hd", knobs=("scsi", *_DISK, "geometry")),
        DeviceKind(family="scsi", kind="disk", driver="scsi-cd", knobs=("scsi", *_DISK)),
        DeviceKind(family="scsi", kind="disk", driver="scsi-block", knobs=("scsi", "medium", "errors")),
        DeviceKind(family="scsi", kind="hostdev", driver="scsi-generic", knobs=("scsi", "medium")),
    )

    def serves(self, reader: Reader) -> bool:
        """See `translator.units.UnitFamily`; a Xen domain's adapters are paravirtual."""
        return True

    def controller(self, reader: Reader, place: Place) -> ControllerElement | None:
        """See `translator.families.Family`; what libxl's QEMU emulates is libxl's."""
        xen = reader.document.root.get("type") == "xen"
        if xen and place.element.get("model") not in (None, "auto", _PV):
            return None
        return super().controller(reader, place)

    def steps(self, steps: Steps) -> FamilySteps:
        """See `translator.families.Family`."""
        return _Steps(self, steps)

    def record_root(self, domid: int) -> str | None:
        """See `translator.families.Family`."""
        from translator.layouts import vscsi

        return vscsi.record_root(domid)

    def further_roots(self, domid: int, nodes: Mapping[str, str]) -> Sequence[str]:
        """See `translator.families.Family`."""
        from translator.layouts import vscsi

        return tuple(vscsi.backends(domid, nodes).values())

    def recorded(self, domid: int, nodes: Mapping[str, str]) -> Recorded:
        """See `translator.families.Family`."""
        from translator.layouts import CONNECTED, INIT_WAIT, INITIALISED, vscsi

        controllers: list[Controller] = []
        devices: list[Device] = []
        lacking = set()
        for controller, state, own in vscsi.read(domid, nodes):
            controllers.append(msgspec.structs.replace(controller, ports=self.models[_PV].capacity))
            devices += own
            if state not in (INIT_WAIT, INITIALISED, CONNECTED, vscsi.RECONFIGURING):
                lacking.add(f"controller:scsi:{controller.index}:backend")
        return Recorded(Placed(tuple(controllers), tuple(devices)), frozenset(lacking))

    def modelless(self, domain: DomainKind) -> str:
        """See `translator.families.Family`."""
        if domain.hypervisor == "xen":
            return _PV
        if domain.machine.startswith("pseries"):
            return "ibmvscsi"
        return "virtio-scsi" if domain.arch in ("s390x", "aarch64") else "lsilogic"

    def device(self, devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
        """See `translator.families.Family`."""
        reader = devices.reader
        if place.element.tag == "disk":
            return None if devices.hypervisor == "xen" else super().device(devices, place, ordinal)
        if place.element.get("type") != "scsi":
            return None
        source = reader.child(place, "source")
        scsi = scsi_host(reader, place, source) if source and source.element.get("protocol") is None else None
        return devices.element(
            place,
            "hostdev",
            ordinal,
            family=self.name,
            unit=self.unit(reader, place),
            boot=devices.boot(place),
            translated=scsi is not None,
            scsi=scsi,
            read_only=place.element.find("readonly") is not None,
        )

    def begin(self, context: Context) -> Part:
        """See `translator.families.Family`."""
        return _Part(self, context)

    def properties(self, reader: Reader, place: Place) -> dict[str, Value]:
        """See `translator.units.UnitFamily`."""
        address = reader.child(place, "address")
        register = None
        if address is not None and address.element.get("type") == "spapr-vio":
            register = reader.number(address, "reg", base=0)
        return virtio.properties(reader, place) | ({"reg": register} if register is not None else {})

    def unit_of(self, number: int) -> UnitAddress:
        """See `translator.units.UnitFamily`; unit 7 is the controller's own."""
        return by_letters(number, per_controller=7, per_bus=7)

    def built_in(self, context: Context, index: int) -> bool:
        """See `translator.units.UnitFamily`."""
        return index == 0 and context.domain.arch == "sparc"

    def device_id(self, model: UnitModel, seat: UnitAddress) -> str:
        """See `translator.units.UnitFamily`; a narrow bus has no targets."""
        numbers = seat.unit if model.name != "lsilogic" else (seat.unit[0], seat.unit[2])
        return "-".join((f"scsi{seat.controller}", *map(str, numbers)))

    def driver(self, element: DeviceElement, context: Context) -> str:
        """See `translator.units.UnitFamily`."""
        if element.disk is None:
            return "scsi-generic"
        return _DRIVERS.get(context.domain.disks[element.disk].device, "scsi-hd")

    def seen_unit(self, device: QomDevice, controller: Controller | None, number: int) -> tuple[int, ...] | None:
        """See `translator.units.UnitFamily`."""
        numbers = [device.properties.get(name) for name in self.seat_properties]
        if number or not all(isinstance(one, int) for one in numbers):
            return None
        channel, target, lun = (msgspec.convert(one, int) for one in numbers)
        if controller is not None and controller.model == "lsilogic":
            return (0, 0, target)
        return (channel, target, lun)

    def seat(self, controller: Controller, device: Device) -> dict[str, Value]:
        """See `translator.units.UnitFamily`."""
        bus, target, unit = undotted(device.port)
        if controller.model == "lsilogic":
            return {"bus": f"{controller.id}.0", "scsi-id": unit}
        return {"bus": f"{controller.id}.0", "channel": bus, "scsi-id": target, "lun": unit}


class _Part(UnitPart):
    def model(self, element: ControllerElement) -> UnitModel | None:
        """Return the model, if the hypervisor has it."""
        row = super().model(element)
        if row is not None and row.kind.type == "pv" and not self.context.xen:
            self.findings.fault(
                "T309",
                element,
                f"model {row.name!r} is paravirtual, and only a Xen domain has a backend for it",
                "@model",
                "name an emulated model, such as 'virtio-scsi'",
            )
            return None
        return row

    def made(self, element: DeviceElement, seat: UnitAddress, slot: UnitSlot) -> Device:
        """Return the device; a paravirtual one is none of QEMU's."""
        if slot.model.kind.type != "pv":
            return super().made(element, seat, slot)
        from translator.layouts import vscsi  # only a Xen domain has any

        assert element.kind != "ccid"
        return Device(
            family=self.family.name,
            kind=element.kind,
            id=vscsi.directory(seat.unit),
            driver=None,
            controller=seat.controller,
            port=dotted(seat.unit),
            host=None,
            properties={},
            implicit=False,
            source=element.source,
            scsi=element.scsi,
        )

    def seated(self) -> Iterator[tuple[DeviceElement, UnitAddress]]:
        """Yield disks, then host devices, which get the lowest free unit of the first controller that has one.

        Source: virDomainHostdevAssignAddress (conf/domain_postparse.c), as read.
        """
        self.check_hosts()
        elements = list(self.context.domain.devices_of(self.family.name))
        hosts = [element for element in elements if element.disk is None]
        seats = [(element, self.address_of(element)) for element in elements if element.disk is not None]
        seats += [(element, element.unit) for element in hosts if element.unit is not None]
        indexes = [slot.index for slot in self.listed]
        for element in hosts:
            if element.unit is None:
                taken = {(seat.controller, seat.unit) for _, seat in seats}
                free = (
                    UnitAddress(index, (0, 0, unit))
                    for index in indexes
                    for unit in range(_NARROW["unit"])
                    if (index, (0, 0, unit)) not in taken
                )
                if (seat := next(free, None)) is None:
                    seat = UnitAddress(len(indexes), (0, 0, 0))
                    indexes.append(seat.controller)
                seats.append((element, seat))
        yield from seats

    def controller(self, slot: UnitSlot) -> Controller:
        """Return the controller, one of IBM's with its register."""
        made = super().controller(slot)
        if slot.model.kind.type == "pv":
            name = (slot.element.backend if slot.element else None) or "0"
            return msgspec.structs.replace(made, backend=int(name) if name.isascii() and name.isdigit() else name)
        if slot.model.name != "ibmvscsi":
            return made
        registers = {
            one.index: register
            for one in self.slots.values()
            if one.element is not None and isinstance(register := one.element.properties.get("reg"), int)
        }
        free = (
            register for register in itertools.count(_REGISTER, _REGISTER_STEP) if register not in registers.values()
        )
        for one in sorted(self.slots.values(), key=lambda one: one.index):
            if one.model is slot.model and one.index not in registers:
                registers[one.index] = next(free)
        return msgspec.structs.replace(made, properties=made.properties | {"reg": registers[slot.index]})

    def check_hosts(self) -> None:
        """A host's device is given once."""
        seen: dict[str, DeviceElement] = {}
        for element in self.context.domain.devices_of(self.family.name):
            if element.scsi is None:
                continue
            first = seen.setdefault(element.scsi.selector, element)
            if first is not element:
                self.findings.fault(
                    "T311",
                    element,
                    f"host device {element.scsi.selector} is passed through twice, here and in line "
                    f"{first.source.line}",
                    "source",
                    "a host device can be given once",
                )

    def implicit(self, index: int) -> UnitSlot:
        """Give the models of the document's own to those that come along with host devices."""
        slot = super().implicit(index)
        disks = (seat for element, seat in self.seats if element.disk is not None)
        if self.listed and index > max((seat.controller for seat in disks), default=-1):
            slot.model = self.listed[0].model
        return slot


class _Steps(UnitSteps):
    def paravirtual(self) -> Iterator[Step]:
        """See `translator.families.FamilySteps`: the controller is connected before it is told to reconfigure."""
        topology, steps = self.steps.topology, self.steps
        if not any(one.family == "scsi" and one.type == "pv" for one in topology.controllers):
            return
        from translator.layouts import vscsi

        for controller in topology.controllers:
            if controller.family != "scsi" or controller.type != "pv":
                continue
            given = [one for one in topology.devices if (one.family, one.controller) == ("scsi", controller.index)]
            id, where = f"controller:scsi:{controller.index}", f"SCSI controller {controller.index}"
            served = backend_of(controller)
            recorded = vscsi.record_controller(topology.domain, controller)
            why = f"Make {where} known to the guest and to the kernel's scsiback in {served}.{implied(controller)}"
            yield steps.recorded(id, None, recorded, why, controller.source)
            wait = vscsi.await_controller(topology.domain, controller, connected=bool(given))
            why = f"Wait until scsiback in {served} has taken {where} on."
            yield steps.recorded(f"{id}:backend", None, wait, why, controller.source)
            for device in given:
                subject = f"device:scsi:{controller.index}:{device.port}"
                recorded = vscsi.record_device(topology.domain, controller, device)
                why = f"Give the {named(device)} to unit {device.port} of {where}."
                yield steps.recorded(subject, None, recorded, why, device.source)
                wait = vscsi.await_device(topology.domain, controller, device)
                why = f"Wait until the guest has the {named(device)}."
                yield steps.recorded(f"{subject}:backend", None, wait, why, device.source)
                settled = vscsi.await_settled(topology.domain, controller)
                why = f"Wait until {where} has taken the change in."
                yield steps.recorded(f"{subject}:settled", None, settled, why, device.source)


def scsi_host(reader: Reader, hostdev: Place, source: Place) -> ScsiHost | None:
    """Return which device of the host a `<source>` names; None, with a fault, when it names none."""
    adapter, address = reader.child(source, "adapter"), reader.child(source, "address")
    wwn, path = source.element.get("wwn"), source.element.get("dev")
    found: ScsiHost | None = None
    if path is not None:
        found = ScsiHost(path=path) if _DEVICE.fullmatch(path) else None
    elif wwn is not None:
        lun = reader.number(source, "lun", required=True)
        found = ScsiHost(wwn=wwn, lun=lun) if _WWN.fullmatch(wwn) and lun is not None else None
    elif adapter is not None and address is not None:
        match = _ADAPTER.fullmatch(adapter.element.get("name", ""))
        numbers = [reader.number(address, name, required=True) for name in ("bus", "target", "unit")]
        if match and None not in numbers:
            found = ScsiHost(host=int(match[1]), channel=numbers[0], target=numbers[1], lun=numbers[2])
    if found is None and not reader.faults:
        reader.fault(
            "T312",
            source,
            None,
            "the <source> does not name a SCSI device of the host",
            "give <adapter name='scsi_host0'/> and <address bus=… target=… unit=…/>, or wwn and lun, or dev",
        )
    return found


def named_host(selector: str) -> ScsiHost | None:
    """Return which device of the host a selector names, as `ScsiHost.selector` has it; None: it names none."""
    if _DEVICE.fullmatch(selector):
        return ScsiHost(path=selector)
    if match := re.fullmatch(rf"({_WWN.pattern}):([0-9]{{1,9}})", selector, re.ASCII):
        return ScsiHost(wwn=match[1], lun=int(match[2]))
    if re.fullmatch(r"[0-9]{1,9}(?::[0-9]{1,9}){3}", selector, re.ASCII):
        host, channel, target, lun = map(int, selector.split(":"))
        return ScsiHost(host=host, channel=channel, target=target, lun=lun)
    return None


FAMILY = Scsi()
