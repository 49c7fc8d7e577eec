"""USB: controllers with ports and companions, hubs, the devices on them, and smartcard readers with their cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.document.domain import ControllerElement
from translator.document.reader import SIGNED_MAX
from translator.families import Placed, Recorded
from translator.families.usb.controllers import UsbPart
from translator.families.usb.reading import TAGS, read
from translator.families.usb.steps import UsbSteps
from translator.placing.ports import DEPTH
from translator.registry.models import DEVICE_KINDS, MODELS, automatic, machine_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from translator.document.domain import DeviceElement, Domain
    from translator.document.parse_devices import Devices
    from translator.document.reader import Place, Reader
    from translator.families import Context, FamilySteps, Part
    from translator.hosts.qmp import QomDevice
    from translator.hotplug.growing import Growing, Grown
    from translator.planning.steps import Steps
    from translator.registry.models import DomainKind
    from translator.topology import Controller, Device


class Usb:
    """See `translator.families.Family`."""

    name = "usb"
    title = "USB"
    order = 10
    models = MODELS
    kinds = tuple(DEVICE_KINDS.values())
    depth = DEPTH
    types = ("usb", "ccid")
    tags = TAGS

    def modelless(self, domain: DomainKind) -> str | None:
        """See `translator.families.Family`."""
        if domain.hypervisor == "xen":
            return automatic(domain.guest, usbback=False).name
        return machine_row(domain.machine).modelless

    def unasked(self, domain: DomainKind) -> str | None:
        """See `translator.families.Family`."""
        if domain.hypervisor == "xen":
            return automatic(domain.guest, usbback=False).name
        return machine_row(domain.machine).default

    def controller(self, reader: Reader, place: Place) -> ControllerElement | None:
        """See `translator.families.Family`; a ccid controller is a USB device."""
        if place.element.get("type") == "ccid":
            return None
        master = reader.child(place, "master")
        address = reader.child(place, "address")
        pci = None
        if address is not None and address.element.get("type") == "pci":
            pci = reader.pci(address)
        return ControllerElement(
            family=self.name,
            path=place.path,
            source=reader.source(place),
            index=reader.number(place, "index", most=SIGNED_MAX),
            model=place.element.get("model"),
            ports=reader.number(place, "ports", most=SIGNED_MAX),
            startport=(reader.number(master, "startport") or 0) if master else None,
            pci=pci,
            alias=reader.alias(place),
            backend=reader.backend(place),
        )

    def device(self, devices: Devices, place: Place, ordinal: int) -> DeviceElement | None:
        """See `translator.families.Family`."""
        return read(devices, place, ordinal)

    def absent(self, context: Context) -> bool:
        """See `translator.families.Family`: most machines bring a controller, and smart cards one to read them."""
        return False

    def begin(self, context: Context) -> Part:
        """See `translator.families.Family`."""
        return UsbPart(context)

    def model_word(self, controller: Controller) -> str | None:
        """See `translator.families.Family`."""
        return controller.model

    def address_words(self, device: Device) -> Mapping[str, str]:
        """See `translator.families.Family`."""
        return {"type": "usb", "bus": str(device.controller), "port": device.port}

    def asked(self) -> Mapping[str, tuple[str, ...]]:
        """See `translator.families.Family`."""
        from translator.families.usb.seen import PROPERTIES

        return PROPERTIES

    def seen(self, found: Sequence[QomDevice], known: Mapping[tuple[str, str | None], int], machine: str) -> Placed:
        """See `translator.families.Family`: `observe` reads USB with the records that a layout keeps of it."""
        return Placed()

    def record_root(self, domid: int) -> str | None:
        """See `translator.families.Family`."""
        return None

    def further_roots(self, domid: int, nodes: Mapping[str, str]) -> Sequence[str]:
        """See `translator.families.Family`."""
        return ()

    def recorded(self, domid: int, nodes: Mapping[str, str]) -> Recorded:
        """See `translator.families.Family`."""
        return Recorded(Placed())

    def steps(self, steps: Steps) -> FamilySteps:
        """See `translator.families.Family`."""
        return UsbSteps(steps)

    def grown(self, fragment: Domain, growing: Growing) -> Iterator[Grown]:
        """See `translator.families.Family`."""
        from translator.families.usb.growing import grown

        return grown(fragment, growing)


FAMILY = Usb()
