"""The same document with everything about USB explicit: each controller, index, address and alias.

What is added is put into the document's own bytes, in its own manner of quotes, line ends and indents; all
else stays as it is, byte for byte. The plan of the outcome is that of the document.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from translator.document.edit import Editor, New, alias, encoded, present, usb_address
from translator.document.parse import parse
from translator.document.pinpoint import pinpoint, pinpointed
from translator.document.validate import is_config, validate
from translator.errors import DocumentError
from translator.families import by_name
from translator.placing.resolve import resolve
from translator.topology import Place

if TYPE_CHECKING:
    from lxml.etree import _Element

    from translator.document.domain import ControllerElement, DeviceElement, Domain
    from translator.document.validate import Document
    from translator.placing.resolve import Resolution
    from translator.topology import Companion, Controller, Device


def normalize(data: bytes, *, file: str | None = None) -> bytes:
    """Return the document with everything about USB explicit; one that is so already comes back as it is.

    Args:
        data: the document; a file in xl's language comes back as domain XML.
        file: what diagnostics call it.

    Raises:
        DocumentError: the document is refused, with all its faults; or it has a hub before the one that this hangs
            on, which has no normal form.
    """
    if is_config(data, file):
        from translator.xlcfg import to_xml

        data = to_xml(data, file=file, keep_unknown=True).data
    document = validate(data, file=file)
    domain = parse(document)
    with pinpointed(data):
        resolution = resolve(domain)
    # with ports for both, a hub may not come before the one that it hangs on
    untold = [msgspec.structs.replace(one, severity="error") for one in resolution.warnings if one.code == "T332"]
    if untold:
        raise DocumentError(pinpoint(untold, data))
    return encoded(_Normalizer(document, domain, resolution).text(), data)


class _Normalizer(Editor):
    def __init__(self, document: Document, domain: Domain, resolution: Resolution) -> None:
        super().__init__(document)
        self.domain = domain
        self.topology = resolution.topology
        self.called = {override.alias for override in domain.overrides}

    def text(self) -> bytes:
        """Return the document's text with its edits made."""
        root = self.document.root
        elements = {self.locator.source(one): one for one in root.iterfind("devices/*")}
        controllers = {part.source: part for part in self.domain.controllers}
        devices = {part.source: part for part in self.domain.devices}
        for controller in self.topology.controllers:
            if not controller.implicit and controller.source in controllers:
                self.controller(elements[controller.source], controllers[controller.source], controller)
            elif not controller.implicit and controller.source in devices:
                self.ccid(elements[controller.source], devices[controller.source], controller)
            for one in controller.companions:
                if one.source in controllers:
                    self.companion(elements[one.source], controllers[one.source], one, controller.index)
        for device in self.topology.devices:
            if not device.implicit and device.source in devices:
                self.device(elements[device.source], devices[device.source], device)
        if added := self.added():
            all_devices = root.findall("devices")
            self.insert(*((all_devices[-1], added) if all_devices else (root, [New("devices", {}, added)])))
        return self.edited()

    # What the document says, and what it leaves open

    def controller(self, element: _Element, said: ControllerElement, controller: Controller) -> None:
        self.set(element, {"index": str(controller.index)} if said.index is None else {})
        model = by_name()[controller.family].model_word(controller)
        self.set(element, {"model": model} if said.model is None and model is not None else {})
        address = pci_address(controller) if said.pci is None else None
        self.complete(element, address, None if controller.built_in else self.alias(said, controller.id))

    def companion(self, element: _Element, said: ControllerElement, companion: Companion, index: int) -> None:
        self.set(element, {"index": str(index)} if said.index is None else {})
        self.set(element, {"model": companion.model} if said.model is None else {})
        master = New("master", {"startport": str(companion.startport)}) if said.startport is None else None
        self.complete(element, master, pci_address(companion) if said.pci is None else None)

    def ccid(self, element: _Element, said: DeviceElement, controller: Controller) -> None:
        self.set(element, {"index": str(controller.index)} if said.index is None else {})
        address = usb_address(controller.place) if controller.place and not _explicit(said) else None
        self.complete(element, address, self.alias(said, controller.id))

    def device(self, element: _Element, said: DeviceElement, device: Device) -> None:
        family = by_name().get(device.family)
        address = New("address", family.address_words(device) if family else card_words(device))
        self.complete(element, None if _explicit(said) else address, self.alias(said, device.id))

    def alias(self, said: ControllerElement | DeviceElement, id: str | None) -> New | None:
        """Return the alias that tells the id; the document's own stays where it is called by that."""
        return None if said.alias is not None and said.alias in self.called else alias(id)

    def added(self) -> list[New]:
        """Return the elements of what the document leaves out, hubs in the order of their ids.

        A controller on a PCI bus that was added would make a bus of another kind be added the next time.
        """
        # beside one that says there is no USB no other may be named, though there may be the machine's own
        without_usb = any(controller.type == "none" for controller in self.topology.controllers)
        used = {int(one.pci.split(":")[1], 16) for one in self.topology.controllers if one.pci}
        busses = [one for one in self.topology.controllers if one.family == "pci" and one.implicit]
        needed = any(bus.index in used for bus in busses if bus.index)
        controllers = [
            _controller(controller)
            for controller in self.topology.controllers
            if controller.implicit and controller not in busses and not (without_usb and controller.family == "usb")
        ]
        hubs = sorted((device for device in self.topology.devices if device.implicit), key=_number)
        return [
            *(_controller(bus) for bus in busses if needed or not bus.index),
            *controllers,
            *(New("hub", {"type": "usb"}, present(usb_address(_place(hub)), alias(hub.id))) for hub in hubs),
        ]


def _explicit(said: DeviceElement) -> bool:
    if said.unit is not None:
        return True
    return said.address is not None and said.address.bus is not None and said.address.port is not None


def _place(device: Device) -> Place:
    return Place(device.controller, device.port)


def card_words(card: Device) -> dict[str, str]:
    """Return the attributes of a smartcard's `<address>`."""
    return {"type": "ccid", "controller": str(card.controller), "slot": card.port}


def pci_address(part: Controller | Companion) -> New | None:
    """Return the address of a PCI function, as libvirt spells it; None where nobody chose one."""
    if part.pci is None:
        return None
    domain, bus, slot, function = re.split("[:.]", part.pci)
    multifunction = {"multifunction": "on"} if part.properties.get("multifunction") else {}
    return New(
        "address",
        {"type": "pci", "domain": f"0x{domain}", "bus": f"0x{bus}", "slot": f"0x{slot}", "function": f"0x{function}"}
        | multifunction,
    )


def _controller(controller: Controller) -> New:
    family = by_name().get(controller.family)
    model = family.model_word(controller) if family else None
    return New(
        "controller",
        {"type": controller.family, "index": str(controller.index)} | ({"model": model} if model else {}),
        present(
            usb_address(controller.place) if controller.place else pci_address(controller),
            alias(None if controller.built_in else controller.id),
        ),
    )


def _number(device: Device) -> int:
    return int(re.sub(r"\D+", "", device.id or "0"))
