"""A checked tree becomes a `Domain`: with `parse_devices`, the only stage that knows elements and attributes.

A document means here what it means to libvirt: see `reader` for how numbers are read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.document.domain import Domain, Label
from translator.document.parse_devices import Devices
from translator.document.parse_override import overrides
from translator.document.reader import Place, Reader, possible, quoted
from translator.errors import DocumentError
from translator.families import by_type
from translator.placing.inventory import Part, inventory
from translator.placing.pci import BOARDS
from translator.registry.models import XEN_MACHINES, machine_row
from translator.topology import DOMID_MAX, Untranslated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxml.etree import _Element

    from translator.document.domain import ControllerElement, DeviceModelsElement, PciAddress, PciInventory
    from translator.document.validate import Document
    from translator.topology import Guest, Hypervisor

HYPERVISORS: dict[str, Hypervisor] = {"xen": "xen", "qemu": "qemu", "kvm": "kvm"}
XEN_GUESTS: dict[str, Guest] = {"hvm": "hvm", "linux": "pv", "xen": "pv", "xenpvh": "pvh"}
QEMU_GUESTS: dict[str, Guest] = {"hvm": "hvm"}
# Source: the default machine that libvirt takes from `qemu-system-ARCH -machine help`.
QEMU_MACHINES = {
    "x86_64": "pc",
    "i686": "pc",
    "aarch64": "virt",
    "ppc64": "pseries",
    "s390x": "s390-ccw-virtio",
}
_UUID = re.compile(r"[0-9a-f]{32}")


def parse(document: Document) -> Domain:
    """Return what the document says about its domain.

    Raises:
        DocumentError: with every fault of the document's values; nothing is guessed.
    """
    return _Parser(document).domain()


class _Parser(Reader):
    def domain(self) -> Domain:
        root = self.document.root
        place = Place(root, "/domain")
        hypervisor = self.hypervisor(place)
        guest = self.guest(place, hypervisor)
        os_type = root.find("os/type")
        arch = (os_type.get("arch") if os_type is not None else None) or "x86_64"
        machine = os_type.get("machine") if os_type is not None else None
        if os_type is not None:
            for attribute in ("arch", "machine"):
                if os_type.get(attribute):
                    self.check_word(Place(os_type, f"{place.path}/os/type"), attribute, attribute)
        if not machine:
            machine = XEN_MACHINES[guest] if hypervisor == "xen" else QEMU_MACHINES.get(arch, "none")
        controllers: list[ControllerElement] = []
        devices = Devices(self, hypervisor, arch)
        untranslated: list[Untranslated] = []
        served = by_type()
        emulator = None
        text = self.document.locator.text
        may_hold_placeholders = b"$" in text or b"&#" in text
        places = self.children(place)
        for child in places:
            tag, type = child.element.tag, child.element.get("type", "")
            if tag == "emulator":
                emulator = (child.element.text or "").strip() or None
                if emulator:
                    self.check_word(child, None, "emulator", path=True)
            elif tag == "controller" and type in served and (read := served[type].controller(self, child)):
                controllers.append(read)
            elif (tag == "controller" and type not in served) or not devices.read(child):
                named = self.document.locator.name(child.element)
                untranslated.append(Untranslated(named or child.path, self.source(child)))
            elif may_hold_placeholders:
                self.check_placeholders(child)
        domain = Domain(
            file=self.document.file,
            data=self.document.data,
            path=place.path,
            source=self.source(place),
            name=self.name(place),
            uuid=self.uuid(place),
            hypervisor=hypervisor,
            guest=guest,
            arch=arch,
            machine=machine,
            domid=self.domid(place) if hypervisor == "xen" else None,
            emulator=emulator,
            controllers=tuple(controllers),
            devices=tuple(devices.found),
            disks=tuple(devices.disks.found),
            audios=tuple(devices.audios),
            filters=tuple(devices.filters or ()),
            spice=any(one.element.tag == "graphics" and one.element.get("type") == "spice" for one in places),
            boot=tuple(one.get("dev", "") for one in root.iterfind("os/boot")),
            boot_orders=tuple(self.boot_orders(places)),
            aliases=tuple(
                Label(alias, child.path, self.source(child)) for child in places if (alias := self.alias(child))
            ),
            untranslated=tuple(untranslated),
            pci=self.inventory(places, hypervisor, machine),
            pci_taken=tuple(self.pci_taken(places)) if hypervisor == "xen" else (),
            device_models=self.device_models(root),
            warnings=self.document.warnings,
            overrides=tuple(overrides(self, place, places)),
        )
        if self.faults:
            raise DocumentError(self.faults)
        return domain

    def boot_orders(self, places: list[Place]) -> Iterator[Label]:
        for place in places:
            order = self.attribute(place, "boot", "order")
            if order is not None:
                yield Label(order.strip(), place.path, self.source(place))

    def inventory(self, places: list[Place], hypervisor: Hypervisor, machine: str) -> PciInventory | None:
        """Return what else takes PCI slots, for which only the kind of slot and the address are read."""
        board = machine_row(machine).board
        if hypervisor == "xen" or board is None:
            return None
        parts = []
        for place in places:
            element = place.element
            of_usb = element.tag == "controller" and element.get("type") == "usb"  # these are read elsewhere
            address = self.child(place, "address") if not of_usb else None
            kind = address.element.get("type") if address else None
            parts.append(
                Part(
                    element=element,
                    line=self.source(place).line,
                    address=self.pci(address) if address and kind == "pci" else None,
                    placed=kind in (None, "none", "pci"),
                )
            )
        return inventory(BOARDS[board], parts)

    def device_models(self, root: _Element) -> DeviceModelsElement | None:
        """Return what the metadata say of device models, if there are any metadata."""
        if root.find("metadata") is None:
            return None
        from translator.document.parse_device_models import read_device_models

        return read_device_models(self, root)

    def pci_taken(self, places: list[Place]) -> Iterator[PciAddress]:
        for place in places:
            if place.element.tag == "controller" and place.element.get("type") == "usb":
                continue
            address = self.child(place, "address")
            if address is not None and address.element.get("type") == "pci" and (pci := self.pci(address)):
                yield pci

    # Whose domain it is

    def hypervisor(self, domain: Place) -> Hypervisor:
        word = domain.element.get("type")
        if word in HYPERVISORS:
            return HYPERVISORS[word]
        self.fault(
            "T316",
            domain,
            "type",
            f"domain type {quoted(word or '')} is not one that can be translated",
            possible(HYPERVISORS),
        )
        return "qemu"

    def domid(self, domain: Place) -> int | None:
        """Return the id of a running Xen domain; QEMU's domains have one too, but only libvirt knows it."""
        if domain.element.get("id") == "-1":
            return None
        return self.number(domain, "id", most=DOMID_MAX)

    def guest(self, domain: Place, hypervisor: Hypervisor) -> Guest:
        element = domain.element.find("os/type")
        word = (element.text or "").strip() if element is not None else ""
        if domain.element.get("type") not in HYPERVISORS:
            return "hvm"  # which types there are hangs on what was refused
        known = XEN_GUESTS if hypervisor == "xen" else QEMU_GUESTS
        if word in known:
            return known[word]
        if not word:
            # a Xen guest that pygrub starts has a <bootloader> and no <os>
            return "pv" if hypervisor == "xen" else "hvm"
        place = Place(element if element is not None else domain.element, f"{domain.path}/os/type")
        self.fault(
            "T316",
            place,
            None,
            f"os type {quoted(word)} does not exist for domain type {hypervisor!r}",
            possible(known),
        )
        return "hvm"

    def name(self, domain: Place) -> str:
        element = domain.element.find("name")
        name = (element.text or "") if element is not None else ""
        place = Place(element if element is not None else domain.element, f"{domain.path}/name")
        self.check_word(place, None, "domain's name")
        return name

    def uuid(self, domain: Place) -> str | None:
        element = domain.element.find("uuid")
        if element is None:
            return None
        text = (element.text or "").strip()
        digits = text.replace("-", "").lower()
        if not _UUID.fullmatch(digits):
            self.fault(
                "T319",
                Place(element, f"{domain.path}/uuid"),
                None,
                f"{quoted(text)} is not a UUID",
                "a UUID has 32 hexadecimal digits: 8-4-4-4-12",
            )
            return None
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    def children(self, domain: Place) -> list[Place]:
        counts: dict[str, int] = {}
        places = []
        for devices in domain.element.iterfind("devices"):
            for element in devices.iterchildren("*"):
                counts[element.tag] = count = counts.get(element.tag, 0) + 1
                path = f"{domain.path}/devices/{element.tag}[{count}]"
                places.append(Place(element, path, self.document.locator.source(element)))
        return places
