"""What a USB device is where it sits, and what the guest or QEMU will make of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from translator.registry.models import DEVICE_KINDS
from translator.topology import PRIMARY, Controller, Device, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from translator.document.domain import DeviceElement, Domain
    from translator.families.usb.slots import Slot
    from translator.findings import Findings
    from translator.placing.peripherals import Peripherals
    from translator.topology import ElementKind

_WORDS: Mapping[ElementKind, str] = {"ccid": "ccid controller", "disk": "disk", "net": "network card"}


class Seat(NamedTuple):
    """A controller, and a port below it."""

    slot: Slot
    port: str


def reader_at(place: Place, element: DeviceElement, peripherals: Peripherals, *, implicit: bool) -> Controller:
    """Return the controller that a card reader in that place is; its index is the element's ordinal."""
    made = peripherals.make(element)
    return Controller(
        family="ccid",
        index=element.ordinal,
        model="usb-ccid",
        type="emulated",
        version=None,
        interface="ccid",
        ports=1,
        id=made.id,
        driver=made.driver,
        device_model=PRIMARY,
        backend=None,
        companions=(),
        pci=None,
        properties={},
        implicit=implicit,
        source=element.source,
        place=place,
    )


def card_in(reader: int, element: DeviceElement, peripherals: Peripherals) -> Device:
    """Return the smartcard that the one slot of a reader has."""
    made = peripherals.make(element)
    return Device(
        family="ccid",
        kind="smartcard",
        id=made.id,
        driver=made.driver,
        controller=reader,
        port="0",
        host=None,
        properties=made.properties,
        implicit=False,
        source=element.source,
        backends=made.backends,
    )


def device_at(
    place: Place, element: DeviceElement, peripherals: Peripherals | None, *, implicit: bool = False
) -> Device:
    """Return the device in that place; without `peripherals` it is a paravirtual controller's, and none of QEMU's."""
    made = peripherals.make(element) if peripherals else None
    assert element.kind != "ccid"
    return Device(
        family="usb",
        kind=element.kind,
        id=made.id if made else None,
        driver=made.driver if made else None,
        controller=place.controller,
        port=place.port,
        host=element.host,
        properties=made.properties if made else {},
        implicit=implicit,
        source=element.source,
        backends=made.backends if made else (),
        startup_policy=element.startup_policy,
    )


class Seated:
    """One domain's devices that have their `seats`, by the path of their elements."""

    def __init__(
        self, domain: Domain, findings: Findings, peripherals: Peripherals, seats: Mapping[str, Seat]
    ) -> None:
        self.domain = domain
        self.findings = findings
        self.peripherals = peripherals
        self.seats = seats

    def device(self, element: DeviceElement, *, implicit: bool = False) -> Device:
        slot, port = self.seats[element.path]
        self.check_speed(element, slot, port, implicit=implicit)
        emulated = slot.row.kind.type == "emulated"
        return device_at(Place(slot.number, port), element, self.peripherals if emulated else None, implicit=implicit)

    def reader(self, element: DeviceElement, *, implicit: bool) -> Controller:
        slot, port = self.seats[element.path]
        self.check_speed(element, slot, port)
        return reader_at(Place(slot.number, port), element, self.peripherals, implicit=implicit)

    def card(self, element: DeviceElement) -> Device:
        return card_in(0, element, self.peripherals)

    def check_speed(self, element: DeviceElement, slot: Slot, port: str, *, implicit: bool = False) -> None:
        """Say so when the guest will not see the device. Behind a hub all is full speed, which every kind can."""
        root = int(port) if "." not in port else None
        if root is None or serves(element.kind, slot.speeds(root)):
            return
        speeds = " or ".join(DEVICE_KINDS[element.kind].speeds)
        what = "the hub that is added for want of ports" if implicit else f"this {word_of(element)}"
        self.findings.warn(
            "T318",
            self.domain if implicit else element,
            f"the guest will not see {what}: it runs at {speeds} speed, and port {port} of controller "
            f"{slot.number} ({slot.row.name}) serves only {', '.join(slot.row.speeds)} speed",
            "address/@bus" if element.address else None,
            "put it on a 'piix3-uhci' or 'qemu-xhci' controller, or give the controller companions",
        )

    def check(self, devices: Iterable[Device], by_kind: Mapping[ElementKind, list[DeviceElement]]) -> None:
        """Say what libvirt accepts and QEMU then refuses, and what a device lacks."""
        names: dict[str | None, DeviceElement] = {}
        disks = by_kind.get("disk", [])
        for disk, device in zip(disks, (one for one in devices if one.kind == "disk"), strict=True):
            first = names.setdefault(device.id, disk)
            if first is not disk:
                self.findings.warn(
                    "T331",
                    disk,
                    f"QEMU will refuse this disk: it gets the id {device.id!r}, as that in line "
                    f"{first.source.line} does",
                    "target/@dev",
                    "give it a target with other letters, such as 'sdc', or an alias: <alias name='ua-…'/>",
                )
            if not device.backends:
                self.findings.warn(
                    "T331",
                    disk,
                    "QEMU will refuse this drive: a USB drive without a medium does not exist there",
                    help="give it a <source>, or put it on bus 'sata' or 'scsi'",
                )
        for net in by_kind.get("net", []):
            self.findings.warn(
                "T333",
                net,
                "this usb-net has no network behind it: what an <interface> connects to is not translated",
                help="QEMU's netdev property does that, when the machine is started otherwise",
            )


def serves(kind: ElementKind, speeds: Iterable[str]) -> bool:
    """Tell whether a device runs at one of the speeds."""
    own = DEVICE_KINDS[kind].speeds
    return not own or bool(set(own) & set(speeds))


def word_of(element: DeviceElement) -> str:
    """Return what a message calls such a device."""
    return _WORDS.get(element.kind, element.kind)
