"""What a domain document says, as values: every number parsed, every word checked, nothing yet decided.

Each part knows its `path` (XPath-like, for diagnostics) and its `source` (line and column, for the plan).
"""

from __future__ import annotations

import msgspec

from translator.errors import Diagnostic, Source
from translator.topology import Guest, HostDevice, Hypervisor, Kind, Untranslated


class UsbAddress(msgspec.Struct, frozen=True):
    """`<address type='usb'>`: a bus alone asks for any port of that controller; `port` is dotted, from 1."""

    bus: int | None
    port: str | None


class PciAddress(msgspec.Struct, frozen=True):
    """`<address type='pci'>`; `multifunction` is None where the document does not say."""

    domain: int
    bus: int
    slot: int
    function: int
    multifunction: bool | None = None

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function:x}"


class ControllerElement(msgspec.Struct, frozen=True, kw_only=True):
    """`<controller type='usb'>`. `model` is None for auto; `startport` is that of its `<master>`."""

    path: str
    source: Source
    index: int | None
    model: str | None
    ports: int | None
    startport: int | None
    pci: PciAddress | None
    alias: str | None
    backend: str | None


class DeviceElement(msgspec.Struct, frozen=True, kw_only=True):
    """An element that becomes a USB device.

    `ordinal` is libvirt's count for the id: the place among all elements of its name, USB or not; for
    `<hostdev>` only those without an alias of the user's count.
    """

    path: str
    source: Source
    kind: Kind
    ordinal: int
    address: UsbAddress | None
    alias: str | None
    host: HostDevice | None = None


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """One `<domain>`: controllers and devices in document order.

    `domid` is the `id` attribute of a running domain's document. `data` are the bytes that all this was read
    from, for the places of what a later stage has to say about an attribute; `warnings` is what was odd so far.
    """

    file: str | None
    data: bytes
    path: str
    source: Source
    name: str
    uuid: str | None
    hypervisor: Hypervisor
    guest: Guest
    arch: str
    machine: str
    domid: int | None
    emulator: str | None
    controllers: tuple[ControllerElement, ...]
    devices: tuple[DeviceElement, ...]
    untranslated: tuple[Untranslated, ...]
    warnings: tuple[Diagnostic, ...]
