"""What a domain document says, as values: every number parsed, every word checked, nothing yet decided.

Each part knows its `path` (XPath-like, for diagnostics) and its `source` (line and column, for the plan).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from translator.errors import Diagnostic, Source
from translator.topology import ElementKind, Family, Guest, HostDevice, Hypervisor, ScsiHost, Untranslated, Value

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SIZE = 16 * 2**20  # bytes of a document that are read unless its reader says otherwise


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


# What a PCI function plugs into. "conventional" and "express" are endpoints; "built-in" is an express endpoint
# that belongs on bus 0; the others are controllers, which open a bus of their own.
PciPlug = Literal[
    "conventional",
    "express",
    "built-in",
    "pci-bridge",
    "pci-expander-bus",
    "dmi-to-pci-bridge",
    "pcie-to-pci-bridge",
    "pcie-root-port",
    "pcie-switch-upstream-port",
    "pcie-switch-downstream-port",
    "pcie-expander-bus",
]


class PciDemand(msgspec.Struct, frozen=True, kw_only=True):
    """Something that wants a function of a PCI slot.

    what      how a message calls it
    plug      None for a machine's root busses, which plug into nothing
    address   the document's; None where libvirt is to choose
    homes     (slot, function) on bus 0 where it belongs: the first of them whose slot is wholly unused
    bound     the one home is all there is for it, and other functions of that slot may be in use
    early     when its homes are taken, it chooses before everything else
    group     whose members share a slot, each with its own `function`; None: it wants a slot of its own
    opens     (index, model) of the bus behind it; None: nothing plugs into it
    turn      addresses of the document are entered by turn, and then in order
    owner     the family whose controller it is, and a number that means something to that family
    part      its element, if it has one, which is then at fault
    """

    what: str
    plug: PciPlug | None
    address: PciAddress | None = None
    homes: tuple[tuple[int, int], ...] = ()
    bound: bool = False
    early: bool = False
    group: int | None = None
    function: int = 0
    multifunction: bool | None = None
    opens: tuple[int, str] | None = None
    turn: int = 0
    owner: tuple[str, int] | None = None
    part: ControllerElement | None = None


class PciInventory(msgspec.Struct, frozen=True, kw_only=True):
    """What of a document takes PCI slots, in the order in which libvirt serves it.

    `ahead` comes before the document's controllers, `controllers` are their types as they first appear, each with
    what those want that are of no family, and `behind` comes after those that a machine has unasked.
    """

    ahead: tuple[PciDemand, ...]
    controllers: tuple[tuple[str, tuple[PciDemand, ...]], ...]
    behind: tuple[PciDemand, ...]


class UnitAddress(msgspec.Struct, frozen=True):
    """Where a device with a unit goes: the index of its controller, and the numbers that its family has units in."""

    controller: int
    unit: tuple[int, ...]


class ControllerElement(msgspec.Struct, frozen=True, kw_only=True):
    """`<controller>`. `model` is None for auto; `startport` is that of its `<master>`.

    `properties` are what its family read besides, in QEMU's words.
    """

    family: Family = "usb"
    path: str
    source: Source
    index: int | None
    model: str | None
    ports: int | None
    startport: int | None
    pci: PciAddress | None
    alias: str | None
    backend: str | None
    properties: dict[str, Value] = {}


class CharSource(msgspec.Struct, frozen=True, kw_only=True):
    """The host's end of a character device.

    type       libvirt's word: pty, file, tcp, unix, …
    path       of a file, a device, a pipe or a socket
    host, service            the other side of a tcp or udp connection, or, with `listen`, where to wait for it
    bind_host, bind_service  udp: the own side
    telnet     whether the telnet protocol is spoken
    reconnect  seconds after which a lost connection is tried again
    name       of a spiceport's or D-Bus' channel
    log        a file that gets a copy of what the guest sends
    """

    type: str
    path: str | None = None
    host: str | None = None
    service: str | None = None
    bind_host: str | None = None
    bind_service: str | None = None
    listen: bool = False
    telnet: bool = False
    reconnect: int | None = None
    append: bool | None = None
    name: str | None = None
    log: str | None = None
    log_append: bool | None = None


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What a disk's content is kept in: `driver` is QEMU's for the place, `format` that for the content."""

    driver: Literal["file", "host_device"]
    path: str
    format: str


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """Any `<disk>`, on whatever bus, for libvirt counts and orders them together; most is read of USB's only.

    `image` is None for an empty drive. `cache`, `discard`, `detect_zeroes`, `io` and the error policies are the
    document's words.
    """

    path: str
    source: Source
    target: str
    bus: str
    device: str
    image: Image | None = None
    read_only: bool = False
    shareable: bool = False
    removable: bool = False
    serial: str | None = None
    cache: str | None = None
    discard: str | None = None
    detect_zeroes: str | None = None
    io: str | None = None
    error_policy: str | None = None
    read_error_policy: str | None = None

    @property
    def number(self) -> int:
        """The number of the target's letters, from 0: sda is 0, sdz 25, sdaa 26."""
        letters = DISK_NAME.fullmatch(self.target)
        assert letters is not None, "the parser refuses other names"
        number = 0
        for letter in letters[1]:
            number = number * 26 + ord(letter) - ord("a") + 1
        return number - 1


DISK_NAME = re.compile(r"(?:fd|hd|vd|sd|xvd|ubd)([a-z]+)\d*", re.ASCII)


class Certificates(msgspec.Struct, frozen=True):
    """What a smartcard is made of on the host: three names in a database."""

    names: tuple[str, str, str]
    database: str


class Audio(msgspec.Struct, frozen=True):
    """`<audio>`: where the host plays a guest's sound; `driver` is QEMU's word."""

    id: int
    driver: str


class RedirRule(msgspec.Struct, frozen=True, kw_only=True):
    """One `<usbdev>` of `<redirfilter>`; None and negative numbers stand for any. `version` is BCD."""

    usb_class: int | None
    vendor: int | None
    product: int | None
    version: int | None
    allow: bool


class DeviceElement(msgspec.Struct, frozen=True, kw_only=True):
    """An element that becomes a USB device, or, of kind `ccid`, a controller that is one.

    `ordinal` is libvirt's count for the id: the place among all elements of its name, USB or not; for
    `<hostdev>` only those without an alias of the user's count. `index` is a ccid controller's, None where it
    has none; `unit` is the address of a family with units, and `translated` tells whether anything is made of the
    device beyond the place that it takes. `name` is what the guest knows a channel by, and `disk` the place in
    `Domain.disks`. What else is None is not of this kind, or not said.
    """

    path: str
    source: Source
    family: Family = "usb"
    kind: ElementKind
    ordinal: int
    address: UsbAddress | None
    alias: str | None
    unit: UnitAddress | None = None
    translated: bool = True
    scsi: ScsiHost | None = None
    read_only: bool = False
    index: int | None = None
    host: HostDevice | None = None
    boot: int | None = None
    guest_reset: str | None = None
    startup_policy: str | None = None
    chardev: CharSource | None = None
    name: str | None = None
    disk: int | None = None
    certificates: Certificates | None = None
    audio: int | None = None
    mac: str | None = None


SharePolicy = Literal["primary", "single", "per-controller", "named"]


class ControllerName(msgspec.Struct, frozen=True, kw_only=True):
    """`<tr:controller>`: which of the domain's controllers a device model is to emulate."""

    path: str
    source: Source
    family: str
    index: int


class DeviceModelElement(msgspec.Struct, frozen=True, kw_only=True):
    """`<tr:device-model>`; `emulator` is None for the domain's own."""

    path: str
    source: Source
    name: str
    emulator: str | None
    controllers: tuple[ControllerName, ...]


class DeviceModelsElement(msgspec.Struct, frozen=True, kw_only=True):
    """`<tr:device-models>`; `models` are those that policy `named` is about."""

    path: str
    source: Source
    policy: SharePolicy
    models: tuple[DeviceModelElement, ...]


class Label(msgspec.Struct, frozen=True):
    """Something that no two elements may have alike: an alias, a boot order; and who has it."""

    value: str
    path: str
    source: Source


class OverrideProperty(msgspec.Struct, frozen=True):
    """One `<qemu:property>`: `type` is string, signed, unsigned, bool or remove, `value` the document's text."""

    name: str
    type: str
    value: str | None
    path: str
    source: Source


class Override(msgspec.Struct, frozen=True):
    """One `<qemu:device>`: the properties that QEMU's device of this alias gets.

    `elsewhere` says that the alias is one that libvirt gives to something in the document that may be no USB device.
    """

    alias: str
    path: str
    source: Source
    properties: tuple[OverrideProperty, ...]
    elsewhere: bool


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """One `<domain>`: controllers and devices in document order.

    `domid` is the `id` attribute of a running domain's document. `data` are the bytes that all this was read
    from, for the places of what a later stage has to say about an attribute; `warnings` is what was odd so far.
    `disks`, `aliases` and `boot_orders` are those of all devices, USB or not; `boot` are the words of os/boot, and
    `spice` says whether there are SPICE graphics.
    `pci` is None where nobody but QEMU knows what sits where: on Xen, and on machines without a known board;
    `pci_taken` are then the addresses that the document gives to whatever is no USB controller.
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
    disks: tuple[Disk, ...]
    audios: tuple[Audio, ...]
    filters: tuple[RedirRule, ...]
    spice: bool
    boot: tuple[str, ...]
    boot_orders: tuple[Label, ...]
    aliases: tuple[Label, ...]
    untranslated: tuple[Untranslated, ...]
    pci: PciInventory | None
    pci_taken: tuple[PciAddress, ...]
    device_models: DeviceModelsElement | None
    warnings: tuple[Diagnostic, ...]
    overrides: tuple[Override, ...] = ()

    def controllers_of(self, family: Family) -> Iterable[ControllerElement]:
        """Return the controllers of a family, in order."""
        return (one for one in self.controllers if one.family == family)

    def devices_of(self, family: Family) -> Iterable[DeviceElement]:
        """Return the devices of a family, in order."""
        return (one for one in self.devices if one.family == family)
