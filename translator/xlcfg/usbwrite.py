"""A topology's USB in xl's words.

    usbctrl, usbdev       controllers, and devices of the host named by bus and address
    usb, usbdevice        a piix3-uhci and what QEMU emulates on it
    vusb                  a paravirtual controller that has a port of the host in one of its own

What comes out is read again by whoever writes it: where that is another topology, the difference is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from translator.registry.models import CANONICAL, MODELS, ControllerKind
from translator.topology import port_key
from translator.xlcfg.usb import INPUTS, PIIX3, WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from translator.document.domain import ControllerElement, DeviceElement, Domain
    from translator.errors import Source
    from translator.topology import Controller, Device, Topology

Part = TypeVar("Part", "Controller", "Device")
Settings = dict[str, int | str | list[str]]


FAMILIES = ("usb", "ccid")  # a ccid controller sits on a USB port


class Written(NamedTuple):
    """The settings, and by elements' paths what there are no words for, and what only xend read."""

    settings: Settings
    lost: tuple[tuple[str, str], ...]
    ignored: tuple[str, ...]


def write(topology: Topology, domain: Domain) -> Written:
    """Return the settings of a Xen domain's USB."""
    writer = _Writer(topology, domain)
    return Written(writer.settings(), tuple(writer.lost), tuple(writer.ignored))


class _Writer:
    def __init__(self, topology: Topology, domain: Domain) -> None:
        self.automatic = {part.source for part in domain.controllers if part.model is None}
        self.disks = {part.path: domain.disks[part.disk] for part in domain.devices if part.disk is not None}
        self.paths = parts(domain)
        self.controllers = sorted(
            (one for one in topology.controllers if one.family == "usb"), key=lambda one: one.index
        )
        self.devices = [one for one in topology.devices if one.family in FAMILIES]
        self.hvm = topology.domain.guest == "hvm"
        self.lost: list[tuple[str, str]] = []
        self.ignored: list[str] = []

    def settings(self) -> Settings:
        found: Settings = {}
        off = [one for one in self.controllers if one.type == "none"]
        if off:
            return {"usb": 0}
        for one in self.controllers:
            if one.companions:
                self.lose(one, "companions have no words in an xl.cfg, and are left out")
            if one.backend not in (0, "0", None, "Domain-0"):
                self.lose(one, f"xl.cfg names no backend domain for a controller; {one.backend!r} is left out")
        bus = self.bus()
        usbctrl, vusb = self.divided(bus)
        last = self.last(usbctrl, vusb) if bus is None else []
        numbers = {one.index: number for number, one in enumerate((*usbctrl, *vusb, *last))}
        self.ignored = [self.paths.get(one.source, "/domain") for one in vusb]
        if usbctrl:
            found["usbctrl"] = [self.entry(one) for one in usbctrl]
        usbdev = [self.usbdev(device, numbers) for device in self.devices if self.is_usbdev(device, numbers)]
        if usbdev:
            found["usbdev"] = usbdev
        if vusb:
            found["vusb"] = [self.vusb(one) for one in vusb]
        for one in last:
            found["usbversion"] = one.version or 0
        if bus is not None:
            found["usb"] = 1
            plugged = [device for device in self.devices if device.controller == bus.index and device.family == "usb"]
            # the order in which QEMU finds free ports
            plugged.sort(key=lambda device: (device.port.count("."), port_key(device.port)))
            words = [(device, self.word(device)) for device in plugged]
            said = [word for _, word in words if word is not None]
            if said:
                found["usbdevice"] = said[0] if len(said) == 1 else said
            for device, word in words:
                if word is None:
                    self.lose(device, f"a USB {device.kind} has no word in an xl.cfg, and is left out")
        written = {*numbers, *([bus.index] if bus else [])}
        of_vusb = {one.index for one in vusb}
        for device in self.devices:
            index = device.controller
            if device.family != "usb" or index not in written:
                self.lose(device, f"a {device.kind} has no word in an xl.cfg, and is left out")
            elif bus is not None and index == bus.index:
                continue
            elif not self.is_usbdev(device, numbers) and not (index in of_vusb and _only_by_port(device)):
                self.lose(device, self.reason(device))
        return found

    def divided(self, bus: Controller | None) -> tuple[list[Controller], list[Controller]]:
        """Return the controllers for usbctrl and those for vusb, whose numbers come after.

        From the first on that needs vusb, all that can be are written so, and keep their order.
        """
        needed = {device.controller for device in self.devices if _only_by_port(device)}
        usbctrl: list[Controller] = []
        vusb: list[Controller] = []
        for one in self.controllers:
            paravirtual = one.type == "pv" and one.source not in self.automatic
            if one is not bus:
                (vusb if paravirtual and (vusb or one.index in needed) else usbctrl).append(one)
        return usbctrl, vusb

    def last(self, usbctrl: list[Controller], vusb: list[Controller]) -> list[Controller]:
        """Take out and return the emulated controller that comes behind those of vusb, as usbversion's does."""
        if not vusb or not usbctrl or usbctrl[-1].index < vusb[-1].index:
            return []
        one = usbctrl[-1]
        row = CANONICAL.get(ControllerKind(one.type, one.version))
        plain = row is not None and one.model == row.name and one.ports == row.ports.default
        if one.type != "emulated" or one.source in self.automatic or not plain:
            return []
        return [usbctrl.pop()]

    def bus(self) -> Controller | None:
        """Return the controller of `usb=1`: the one that has what only usbdevice can say, or that is alone."""
        if not self.hvm:
            return None
        fitting = [one for one in self.controllers if one.model == PIIX3 and one.source not in self.automatic]
        for one in fitting:
            mine = [device for device in self.devices if device.controller == one.index and device.family == "usb"]
            if any(device.host is None or device.host.device is None for device in mine):
                return one
        return fitting[0] if fitting and len(self.controllers) == 1 else None

    def entry(self, controller: Controller) -> str:
        row = MODELS[controller.model]
        automatic = controller.source in self.automatic
        kind = None if automatic else controller.type
        assert kind != "none"
        parts = [f"type={WORDS[kind]}"]
        if not automatic:
            parts.append(f"version={controller.version}")
        if not row.ports.fixed:
            parts.append(f"ports={controller.ports}")
        return ",".join(parts)

    def is_usbdev(self, device: Device, numbers: Mapping[int, int]) -> bool:
        host = device.host
        return (
            device.controller in numbers and host is not None and host.device is not None and "." not in device.port
        )

    def usbdev(self, device: Device, numbers: Mapping[int, int]) -> str:
        assert device.host is not None
        place = f"controller={numbers[device.controller]},port={device.port}"
        return f"type=hostdev,hostbus={device.host.bus},hostaddr={device.host.device},{place}"

    def vusb(self, controller: Controller) -> str:
        parts = [f"usbver={controller.version}", f"numports={controller.ports}"]
        for device in self.devices:
            if device.controller == controller.index and device.host is not None and _only_by_port(device):
                parts.append(f"port_{device.port}={device.host.path}")
        return ", ".join(parts)

    def word(self, device: Device) -> str | None:
        """Return what makes QEMU's -usbdevice of a device."""
        host = device.host
        if device.kind in (*INPUTS, "hub"):
            return device.kind
        if host is not None and host.device is not None:
            return f"host:{host.bus}.{host.device}"
        if host is not None and host.vendor is not None:
            return f"host:{host.selector}"
        disk = self.disks.get(self.paths.get(device.source, ""))
        if disk is not None and disk.image is not None and disk.device == "disk":
            plain = disk.image.format == "raw"
            return f"disk:{disk.image.path}" if plain else f"disk:format={disk.image.format}:{disk.image.path}"
        return None

    def reason(self, device: Device) -> str:
        host = device.host
        if host is None:
            return (
                f"usbdevice plugs a {device.kind} into a {PIIX3}, and controller {device.controller} is none or not "
                "the first; it is left out"
            )
        if host.device is None:
            return "usbdev names a device of the host by bus and address only; it is left out"
        return f"usbdev cannot name port {device.port}, and it is left out"

    def lose(self, part: Controller | Device, message: str) -> None:
        self.lost.append((self.paths.get(part.source, "/domain"), message))


def parts(domain: Domain) -> dict[Source | None, str]:
    """Return the paths of the elements that are about USB, by place."""
    elements: list[ControllerElement | DeviceElement] = [*domain.controllers, *domain.devices]
    return {element.source: element.path for element in elements}


def _only_by_port(device: Device) -> bool:
    host = device.host
    return host is not None and host.device is None and host.vendor is None and host.path is not None


def differences(before: Topology, after: Topology) -> list[tuple[Controller | Device, str]]:
    """Return what of a topology the other one has not, or has elsewhere, and what became of it."""
    found: list[tuple[Controller | Device, str]] = []
    others = [one for one in after.controllers if one.family in FAMILIES]
    numbers: dict[int, int] = {}
    for one in _unmatched([one for one in before.controllers if one.family in FAMILIES], others, _facts):
        other = _taken_like(one, others, lambda part: _facts(part)[2:])
        if other is None:
            found.append(
                (one, f"controller {one.index} ({one.model}, {one.ports} ports) has no counterpart in an xl.cfg")
            )
        else:
            numbers[one.index] = other.index
            found.append(
                (one, f"controller {one.index} becomes controller {other.index}: xl numbers them in its own way")
            )
    places = [one for one in after.devices if one.family in FAMILIES]
    for device in _unmatched([one for one in before.devices if one.family in FAMILIES], places, _place):
        moved = _taken_like(device, places, lambda part: _place(part)[2:])
        if moved is None:
            found.append((device, f"the {device.kind} has more to it than xl has words for"))
        elif (moved.controller, moved.port) != (numbers.get(device.controller), device.port):
            found.append((device, f"the {device.kind} goes to port {moved.port} of controller {moved.controller}"))
    return found


def _unmatched(parts: Sequence[Part], others: list[Part], key: Callable[[Part], Sequence[object]]) -> list[Part]:
    """Return the parts that are not among the others, from which those are taken that match."""
    return [part for part in parts if _taken_like(part, others, key) is None]


def _taken_like(part: Part, others: list[Part], key: Callable[[Part], Sequence[object]]) -> Part | None:
    for number, other in enumerate(others):
        if key(other) == key(part):
            return others.pop(number)
    return None


def _facts(one: Controller) -> Sequence[object]:
    about = (one.index, one.id, one.family, one.model, one.ports, str(one.backend))
    return (*about, one.properties, len(one.companions), one.pci, one.place)


def _place(device: Device) -> Sequence[object]:
    """Return what there is to know of a device, its place first."""
    properties = {name: value for name, value in device.properties.items() if name != "drive"}
    about = (device.family, device.kind, device.host, device.id, properties, device.startup_policy)
    return (device.controller, device.port, *about)
