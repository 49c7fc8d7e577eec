"""What QEMU is told of one device beyond its place: its properties, and the host's driver behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from translator.placing import blockdev, chardev
from translator.registry.models import DEVICE_KINDS
from translator.topology import Backend

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from translator.document.domain import CharSource, DeviceElement, Disk, Domain, RedirRule
    from translator.layouts import Layout
    from translator.topology import Value

# Source: qemuBuildUSBHostdevDevProps (qemu/qemu_command.c), as observed.
_GUEST_RESETS: Mapping[str, dict[str, Value]] = {
    "off": {"guest-reset": False},
    "uninitialized": {"guest-reset": True, "guest-resets-all": False},
    "on": {"guest-reset": True, "guest-resets-all": True},
}
# The words of os/boot, by a disk's device.
_BOOT_WORDS = {"disk": "hd", "lun": "hd", "cdrom": "cdrom", "floppy": "fd"}


class Peripheral(NamedTuple):
    """A device without its place."""

    id: str
    driver: str
    properties: dict[str, Value]
    backends: tuple[Backend, ...]


class Peripherals:
    """The devices of one domain, which share disks' numbers, audio backends, a filter and the boot order.

    With `boots` False the domain runs already, and boots from what comes only where that says so itself.
    """

    def __init__(self, domain: Domain, layout: Layout, *, boots: bool = True) -> None:
        self.domain = domain
        self.layout = layout
        self.order = _in_list_order(domain.disks)
        self.place = {number: place for place, number in enumerate(self.order)}
        self.audio_ids = {audio.id: audio.driver for audio in domain.audios}
        self.audio_given: set[int] = set()
        self.boot = self.boot_indexes() if boots else {}
        self.filter = "|".join(map(_rule, domain.filters))

    def make(self, element: DeviceElement) -> Peripheral:
        """Return the device; the first that uses an audio backend brings it along."""
        host, ordinal = element.host, element.ordinal
        if element.disk is not None:
            ordinal = self.domain.disks[element.disk].number
        id = self.layout.device_id(element.kind, ordinal, element.alias, host)
        driver = DEVICE_KINDS[element.kind].driver
        properties: dict[str, Value] = {}
        backends: list[Backend] = []
        if host is not None:
            properties |= self.layout.host_properties(host)
            properties |= _GUEST_RESETS.get(element.guest_reset or "", {})
        if element.chardev is not None:
            backends.append(_chardev(element, element.chardev, id))
            properties["chardev"] = backends[-1].arguments["id"]
        if element.disk is not None:
            # libvirt counts disks from the last one back
            disk, nodes = self.domain.disks[element.disk], f"libvirt-{len(self.order) - self.place[element.disk]}"
            for part, arguments in blockdev.nodes(disk, nodes).items():
                backends.append(Backend(kind="blockdev", part=part, arguments=arguments))
            properties |= _disk_properties(disk, nodes)
        if element.kind == "smartcard":
            if element.chardev is not None:
                driver = "ccid-card-passthru"
            elif element.certificates is None:
                properties["backend"] = "nss-emulated"
            else:
                names = {f"cert{n}": name for n, name in enumerate(element.certificates.names, 1)}
                properties |= {"backend": "certificates", **names, "db": element.certificates.database}
        if element.kind == "sound":
            backends += self.audio(element, properties)
        if element.kind == "redirdev" and self.filter:
            properties["filter"] = self.filter
        if element.mac is not None:
            properties["mac"] = element.mac
        boot = self.boot_index(element)
        if boot is not None:
            properties["bootindex"] = boot
        return Peripheral(id, driver, properties, tuple(backends))

    def on_unit(self, element: DeviceElement, id: str, nodes: str) -> Peripheral:
        """Return a disk, a SCSI device of the host or a channel on a controller with units.

        Its driver is its family's.

        `nodes` is what the names of its block nodes begin with: libvirt's count of disks would give a disk that comes
        later the names of one that is there.
        """
        properties: dict[str, Value] = {}
        backends: list[Backend] = []
        if element.disk is not None:
            disk = self.domain.disks[element.disk]
            for part, arguments in blockdev.nodes(disk, nodes).items():
                backends.append(Backend(kind="blockdev", part=part, arguments=arguments))
            properties = _disk_properties(disk, nodes)
            del properties["removable"]  # USB's alone
        elif element.scsi is not None:
            node = f"{nodes}-backend"
            name = f"${{scsi:{element.scsi.selector}:sg}}"
            arguments = {"driver": "host_device", "filename": name, "node-name": node, "read-only": element.read_only}
            backends.append(Backend(kind="blockdev", part="storage", arguments=arguments))
            properties["drive"] = node
        elif element.chardev is not None:
            backends.append(_chardev(element, element.chardev, id))
            properties["chardev"] = backends[-1].arguments["id"]
            if element.name is not None:
                properties["name"] = element.name
        boot = self.boot_index(element)
        if boot is not None:
            properties["bootindex"] = boot
        return Peripheral(id, "", properties, tuple(backends))

    def boot_index(self, element: DeviceElement) -> int | None:
        """Return when QEMU boots from a device: its own order, or that of os/boot."""
        if element.disk is not None and element.boot is None:
            return self.boot.get(element.disk)
        return element.boot

    def audio(self, element: DeviceElement, properties: dict[str, Value]) -> Iterable[Backend]:
        """Name the audio backend that a sound device plays on: its own, else the first, else one of ours."""
        audios = self.domain.audios
        id = element.audio or (audios[0].id if audios else 1)
        properties["audiodev"] = f"audio{id}"
        if id in self.audio_given:
            return
        self.audio_given.add(id)
        driver = self.audio_ids.get(id, "spice" if self.domain.spice else "none")
        arguments: dict[str, Value] = {"id": f"audio{id}", "driver": driver}
        yield Backend(kind="audiodev", part="audiodev", arguments=arguments)

    def boot_indexes(self) -> dict[int, int]:
        """Return the boot index of each disk that has one by os/boot: the first of its kind, on any bus."""
        domain = self.domain
        if domain.hypervisor == "xen" or domain.boot_orders:
            return {}
        words = domain.boot or ("hd",)
        indexes: dict[int, int] = {}
        served: set[str] = set()
        for number in self.order:
            word = _BOOT_WORDS.get(domain.disks[number].device, "")
            if word in words and word not in served:
                served.add(word)
                indexes[number] = words.index(word) + 1
        return indexes


def _chardev(element: DeviceElement, source: CharSource, id: str) -> Backend:
    arguments = chardev.arguments(source, f"char{id}", chardev.SPICE_CHANNELS.get(element.kind))
    return Backend(kind="chardev", part="chardev", arguments=arguments)


def _in_list_order(disks: Iterable[Disk]) -> list[int]:
    """Return the disks' numbers as libvirt keeps its list: bus by bus as they first come, then by target.

    Source: virDomainDiskInsert (conf/domain_conf.c), as observed.
    """
    busses: dict[str, list[tuple[int, int]]] = {}
    for number, disk in enumerate(disks):
        busses.setdefault(disk.bus, []).append((disk.number, number))
    return [number for bus in busses.values() for _, number in sorted(bus)]


def _disk_properties(disk: Disk, nodes: str) -> dict[str, Value]:
    properties: dict[str, Value] = {"removable": disk.removable}
    if disk.image is not None:
        properties["drive"] = blockdev.format_node(nodes)
    if disk.shareable:
        properties["share-rw"] = True
    if (cached := blockdev.write_cache(disk)) is not None:
        properties["write-cache"] = cached
    if disk.serial is not None:
        properties["serial"] = disk.serial.replace(" ", "\\ ")
    on_write, on_read = disk.error_policy, disk.read_error_policy or disk.error_policy
    if on_write is not None:
        properties["werror"] = "enospc" if on_write == "enospace" else on_write
    if on_read is not None and on_read != "enospace":  # no space is no reason for a read to fail
        properties["rerror"] = on_read
    return properties


def _rule(rule: RedirRule) -> str:
    """Return a rule as QEMU's usb-redir reads it: class, vendor, product, version, and whether to allow it."""
    fields = ((rule.usb_class, 2), (rule.vendor, 4), (rule.product, 4), (rule.version, 4))
    return ":".join(
        [*("-1" if number is None else f"0x{number:0{digits}X}" for number, digits in fields), str(int(rule.allow))]
    )
