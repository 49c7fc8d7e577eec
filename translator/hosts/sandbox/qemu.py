"""A QEMU 7.2 machine as far as controllers go: its devices, busses, ports and units, without any wire.

It refuses what QEMU refuses, in QEMU's words and in QEMU's order of checks (softmmu/qdev-monitor.c,
hw/pci/pci.c, hw/usb/bus.c), and shares its quirks: an automatic port is the one that has been free longest,
the last free port is given to a hub of QEMU's own, an xHCI controller goes without a DEVICE_DELETED, and a PCI
device leaves only when the guest lets it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from translator.hosts.sandbox.drivers import (
    ABSTRACT,
    ALIASES,
    BOARDS,
    DRIVERS,
    HUB_PORT_SPEEDS,
    Driver,
    Property,
    Speed,
)
from translator.hosts.sandbox.units import UnitBus, UnitError, made_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from translator.hosts.sandbox.usb import HostUsb, HostUsbDevice

_ID = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")
_ADDR = re.compile(r"(?:0x)?([0-9a-f]{1,2})(?:\.(?:0x)?([0-7]))?", re.IGNORECASE)
_LARGEST = {
    "uint8": 0xFF,
    "uint16": 0xFFFF,
    "uint32": 0xFFFFFFFF,
    "uint64": 2**64 - 1,
    "int32": 0x7FFFFFFF,
    "size": 2**64 - 1,
}
Board = Literal["pc", "q35"]

_DEEPEST = 5  # hubs in a chain
_XHCI_PORTS = 15  # of each kind, at most; larger numbers are cut, not refused
_BUILT_IN: dict[Board, dict[tuple[int, int], str]] = {
    "pc": {(0, 0): "i440FX", (1, 0): "PIIX3", (1, 1): "piix3-ide", (1, 3): "PIIX4_PM"},
    "q35": {(0, 0): "mch", (31, 0): "ICH9-LPC", (31, 2): "ich9-ahci", (31, 3): "ICH9-SMB"},
}
_ROOT_BUS: dict[Board, tuple[str, str]] = {
    "pc": ("pci.0", "/machine/i440fx/pci.0"),
    "q35": ("pcie.0", "/machine/q35/pcie.0"),
}
_PERIPHERAL = "/machine/peripheral"


class QemuError(Exception):
    """A refusal; `kind` is QMP's error class."""

    def __init__(self, desc: str, kind: str = "GenericError") -> None:
        super().__init__(desc)
        self.desc = desc
        self.kind = kind


class Port:
    """One port of a bus. `path` is what `port=` takes; hubs above it are counted by its dots."""

    def __init__(self, path: str, speeds: Speed) -> None:
        self.path = path
        self.speeds = speeds
        self.device: QemuDevice | None = None


class UsbBus:
    """A controller's bus. `free` is a queue, as in QEMU: who gives a port back puts it at the end."""

    def __init__(self, name: str, number: int, owner: QemuDevice) -> None:
        self.name = name
        self.number = number
        self.owner = owner
        self.free: list[Port] = []
        self.used: list[Port] = []

    def port(self, path: str) -> Port | None:
        """Return the free port of that name."""
        return next((port for port in self.free if port.path == path), None)


class QemuDevice:
    """One device. `values` are the properties that were given; `path` is where it hangs in QEMU's tree."""

    def __init__(
        self, driver: Driver, id: str | None, path: str, values: Mapping[str, Any], *, hotplugged: bool, board: Board
    ) -> None:
        self.driver = driver
        self.board = board
        self.id = id
        self.path = path
        self.values = dict(values)
        self.hotplugged = hotplugged
        self.usb: UsbBus | None = None  # the bus that it sits on (a USB device) or makes (a controller)
        self.port: Port | None = None
        self.above: QemuDevice | None = None  # the usb-ccid that a smartcard sits in
        self.units: UnitBus | None = None  # the bus that it has a unit of
        self.slot: tuple[int, int] | None = None
        self.pci_bus = _ROOT_BUS[board][0]  # a PCI device's bus; another than the root is opened by a bridge
        self.leaving = False

    @property
    def parent_bus(self) -> str:
        """The path of the bus that it sits on, as `qom-get` gives it."""
        if self.driver.bus == "PCI":
            root, path = _ROOT_BUS[self.board]
            return path if self.pci_bus == root else f"{_PERIPHERAL}/{self.pci_bus}/{self.pci_bus}"
        if self.units is not None:
            return self.units.path
        owner = self.above or (self.usb.owner if self.usb else self)
        return f"{owner.path}/{owner.id or ''}.0"


class Machine:
    """One guest's QEMU. `emit` takes events (name, data); `later` runs a call once the guest has had time.

    Args:
        host: the USB devices that `usb-host` can find.
        guest_cooperates: whether the guest lets go of PCI devices; if not, only a reset takes them away.
        board: the chipset, which decides the PCI bus; a pcie.0 takes nothing while the machine runs.
    """

    def __init__(
        self,
        host: HostUsb,
        emit: Callable[[str, dict[str, Any]], None],
        later: Callable[[Callable[[], None]], None],
        *,
        guest_cooperates: bool,
        board: Board = "pc",
    ) -> None:
        self.board = board
        self.devices: list[QemuDevice] = []
        self.chardevs: dict[str, QemuDevice | None] = {}  # by id, with its user
        self.blockdevs: dict[str, QemuDevice | None] = {}
        self.files: dict[str, str] = {}  # the file behind a block node, by its name
        self.guest_cooperates = guest_cooperates
        self._host = host
        self._emit = emit
        self._later = later
        self._buses: list[UsbBus] = []
        self._unit_busses = [UnitBus(made, made.path, None) for made in BOARDS[board]]
        self._bus_count = 0
        self._anonymous = 0

    # Finding

    def by_id(self, id: str) -> QemuDevice | None:
        """Return the device of that id or path."""
        return next((device for device in self.devices if id in (device.id, device.path)), None)

    def pci_bus(self, path: str) -> list[QemuDevice] | None:
        """Return what sits on the PCI bus at a QOM path, None where there is none."""
        owner = self.by_id(path.rpartition("/")[0])
        if owner is None or owner.driver.serves != "PCI" or path != f"{owner.path}/{owner.id}":
            return None
        return [device for device in self.devices if device.driver.bus == "PCI" and device.pci_bus == owner.id]

    def usb_devices(self) -> Iterator[tuple[UsbBus, Port, QemuDevice]]:
        """Every plugged USB device in the order of `info usb`."""
        for bus in self._buses:
            for port in bus.used:
                if port.device:
                    yield bus, port, port.device

    def host_device(self, device: QemuDevice) -> HostUsbDevice | None:
        """Return the host device that a `usb-host` stands for, if the host has it."""
        if device.driver.name != "usb-host":
            return None
        return self._host.match(
            bus=self.value(device, "hostbus"),
            device=self.value(device, "hostaddr"),
            vendor=self.value(device, "vendorid"),
            product=self.value(device, "productid"),
            port=self.value(device, "hostport"),
        )

    def value(self, device: QemuDevice, name: str) -> Any:
        """Return a property: the given value, else its default as `qom-get` gives it."""
        entry = device.driver.property(name)
        if entry is None:
            raise QemuError(f"Property '{device.driver.name}.{name}' not found")
        if name == "addr" and device.slot:
            return device.slot[0] << 3 | device.slot[1]
        if name == "attached":
            return bool(self.speeds(device))
        if name in device.values:
            return device.values[name]
        if entry.default is None:
            return "" if entry.type == "str" else -1
        return entry.default

    def speeds(self, device: QemuDevice) -> Speed:
        """Return the speeds at which a USB device can run; none while nothing is behind it."""
        if device.driver.name == "usb-host":
            found = self.host_device(device)
            return found.speeds if found else Speed(0)
        if device.driver.property("usb_version") and self.value(device, "usb_version") == 1:
            return Speed.FULL
        return device.driver.speeds

    # Adding

    def add(self, arguments: Mapping[str, Any], *, hotplugged: bool = True) -> None:
        """Carry `device_add` out; with `hotplugged` False it is a `-device` of the command line.

        Raises:
            QemuError: in the words of QEMU; nothing has changed, except that looking for a free port may have
                plugged a hub, as in QEMU.
        """
        given = {name: value for name, value in arguments.items() if isinstance(value, str | int)}
        id = given.pop("id", None)
        if id is not None and not (isinstance(id, str) and _ID.fullmatch(id)):
            raise QemuError("Parameter 'id' expects an identifier")
        driver = self._driver(given.pop("driver", None), hotplugged=hotplugged)
        bus_name = given.pop("bus", None)
        bus = self._bus(driver, bus_name)
        if id is not None and any(device.id == id for device in self.devices):
            raise QemuError(f"Duplicate device ID '{id}'")
        values = {name: self._parsed(driver, name, value) for name, value in given.items()}
        path = f"{_PERIPHERAL}/{id}" if id is not None else f"{_PERIPHERAL}-anon/device[{self._anonymous}]"
        device = QemuDevice(driver, id, path, values, hotplugged=hotplugged, board=self.board)
        self._check_link(device)
        if driver.bus == "PCI":
            device.pci_bus = str(bus_name or device.pci_bus)
            self._realize_pci(device)
        elif isinstance(bus, UsbBus):
            self._realize_usb(device, bus)
        elif isinstance(bus, UnitBus):
            self._realize_unit(device, bus)
        elif driver.bus == "ISA":
            if hotplugged:
                raise QemuError("Bus 'isa.0' does not support hotplugging")
        else:
            device.above = bus
            self._check_card(device)
        if id is None:
            self._anonymous += 1
        self.devices.append(device)
        self._unit_busses += made_by(device)
        if driver.link and (name := device.values.get(driver.link)):
            self._backends(driver.link)[name] = device

    def _driver(self, name: object, *, hotplugged: bool) -> Driver:
        if name is None:
            raise QemuError("Parameter 'driver' is missing")
        if name in ABSTRACT:
            raise QemuError("Parameter 'driver' expects a non-abstract device type")
        driver = DRIVERS.get(ALIASES.get(str(name), str(name)))
        if driver is None:
            raise QemuError(f"'{name}' is not a valid device model name")
        if hotplugged and not driver.pluggable:
            raise QemuError("Parameter 'driver' expects a pluggable device type")
        return driver

    def _bus(self, driver: Driver, name: object) -> UsbBus | UnitBus | QemuDevice | None:
        """Return the USB bus, the bus with units, the card reader, or None for a PCI or ISA bus."""
        readers = [device for device in self.devices if device.driver.serves == "ccid-bus"]
        if name is None:
            if driver.bus in ("PCI", "ISA"):
                return None
            # The newest bus comes first: QEMU puts a new child at the head of the list it searches.
            buses: list[UsbBus] | list[QemuDevice] | list[UnitBus] = readers
            if driver.bus != "ccid-bus":
                units = [bus for bus in self._unit_busses if bus.kind == driver.bus]
                buses = self._buses if driver.bus == "usb-bus" else units
            if not buses:
                raise QemuError(f"No '{driver.bus}' bus found for device '{driver.name}'")
            return buses[-1]
        found: dict[object, tuple[str, UsbBus | UnitBus | QemuDevice | None]] = {
            _ROOT_BUS[self.board][0]: ("PCI", None)
        }
        found |= {device.id: ("PCI", None) for device in self.devices if device.driver.serves == "PCI"}
        found |= {bus.name: ("usb-bus", bus) for bus in self._buses}
        found |= {bus.name: (bus.kind, bus) for bus in self._unit_busses}
        found |= {f"{reader.id}.0": ("ccid-bus", reader) for reader in readers}
        if name not in found:
            raise QemuError(f"Bus '{name}' not found")
        kind, place = found[name]
        if kind != driver.bus:
            raise QemuError(f"Device '{driver.name}' can't go on {kind} bus")
        return place

    def _parsed(self, driver: Driver, name: str, value: str | int) -> str | int | bool:
        entry = driver.property(name)
        if entry is None:
            raise QemuError(f"Property '{driver.name}.{name}' not found")
        if name == "attached":
            raise QemuError(f"Property '{driver.name}.attached' is not writable")
        # QEMU 7.2 makes every value of device_add a string first.
        text = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        if name == "addr":
            match = _ADDR.fullmatch(text)
            if match is None or int(match[1], 16) > 0x1F:
                raise QemuError(f"Property '{driver.name}.addr' doesn't take value '{text}'")
            return int(match[1], 16) << 3 | int(match[2] or "0", 16)
        if entry.type == "bool":
            if text not in ("on", "off", "yes", "no", "true", "false", "y", "n"):
                raise QemuError(f"Parameter '{name}' expects 'on' or 'off'")
            return text in ("on", "yes", "true", "y")
        if entry.type in _LARGEST:
            return _number(entry, text)
        return text

    def _backends(self, link: str) -> dict[str, QemuDevice | None]:
        return {"chardev": self.chardevs, "drive": self.blockdevs}.get(link, {})

    def _check_link(self, device: QemuDevice) -> None:
        link = device.driver.link
        name = device.values.get(link) if link else None
        if not link or not name:
            return
        backends = self._backends(link)
        if name not in backends:
            if device.hotplugged:
                raise QemuError(f"Property '{device.driver.name}.{link}' can't find value '{name}'")
            backends[name] = None  # declared on the same command line
        elif backends[name] is not None:
            raise QemuError(
                f"Property '{device.driver.name}.{link}' can't take value '{name}': Device '{name}' is in use"
            )

    def _check_card(self, device: QemuDevice) -> None:
        if device.driver.missing and not device.values.get(device.driver.link or ""):
            raise QemuError(device.driver.missing)
        if device.driver.name == "ccid-card-emulated" and not device.values.get("backend"):
            raise QemuError("backend must be one of:")

    def _realize_pci(self, device: QemuDevice) -> None:
        name = device.driver.name
        at_root = device.pci_bus == _ROOT_BUS[self.board][0]
        if self.board == "q35" and at_root and device.hotplugged:
            raise QemuError("Bus 'pcie.0' does not support hotplugging")
        taken: dict[tuple[int, int], str] = dict(_BUILT_IN[self.board]) if at_root else {}
        multifunction = {(0x1F, 0) if self.board == "q35" else (1, 0)}
        for other in self.devices:
            if other.slot and other.pci_bus == device.pci_bus:
                taken[other.slot] = other.driver.name
                if self.value(other, "multifunction"):
                    multifunction.add(other.slot)
        if "addr" in device.values:
            slot, function = divmod(int(device.values["addr"]), 8)
        else:
            slots = (number for number in range(32) if (number, 0) not in taken)
            slot, function = next(slots, -1), 0
            if slot < 0:
                raise QemuError(f"PCI: no slot/function available for {name}, all in use or reserved")
        if (slot, function) in taken:
            other_id = next((other.id for other in self.devices if other.slot == (slot, function)), None)
            raise QemuError(
                f"PCI: slot {slot} function {function} not available for {name}, "
                f"in use by {taken[slot, function]},id={other_id or '(null)'}"
            )
        if device.hotplugged and (slot, 0) in taken:
            raise QemuError(
                f"PCI: slot {slot} function 0 already occupied by {taken[slot, 0]}, "
                f"new func {name} cannot be exposed to guest."
            )
        if function and (slot, 0) in taken and (slot, 0) not in multifunction:
            raise QemuError(f"PCI: single function device can't be populated in function {slot:x}.{function:x}")
        if not function and not self.value(device, "multifunction"):
            second = next((number for number in range(1, 8) if (slot, number) in taken), None)
            if second is not None:
                raise QemuError(
                    f"PCI: {slot:x}.0 indicates single function, but {slot:x}.{second:x} is already populated."
                )
        master = device.values.get("masterbus")
        if master:
            self._serve_companion(device, str(master))
        elif device.driver.serves == "usb-bus":
            self._make_bus(device)
        device.slot = (slot, function)

    def _serve_companion(self, device: QemuDevice, master: str) -> None:
        bus = next((bus for bus in self._buses if bus.name == master), None)
        if bus is None or "ehci" not in bus.owner.driver.name:
            raise QemuError(f"USB bus '{master}' not found")
        first = int(self.value(device, "firstport"))
        count = device.driver.ports
        ports = [*bus.free, *bus.used]
        if first + count > len(ports):
            raise QemuError(f"firstport must be between 0 and {len(ports) - 1}")
        for port in ports:
            if first < int(port.path.split(".")[0]) <= first + count:
                port.speeds |= device.driver.port_speeds

    def _make_bus(self, device: QemuDevice) -> None:
        bus = UsbBus(f"{device.id or 'usb-bus'}.0", self._bus_count, device)
        self._bus_count += 1
        driver = device.driver
        if driver.parent == "pci-xhci":
            slow, fast = (min(int(self.value(device, name)), _XHCI_PORTS) for name in ("p2", "p3"))
            for number in range(1, max(slow, fast) + 1):
                speeds = Speed.LOW | Speed.FULL | Speed.HIGH if number <= slow else Speed(0)
                bus.free.append(Port(str(number), speeds | (Speed.SUPER if number <= fast else Speed(0))))
        else:
            count = self.value(device, "num-ports") if driver.property("num-ports") else driver.ports
            bus.free = [Port(str(number), driver.port_speeds) for number in range(1, count + 1)]
        device.usb = bus
        self._buses.append(bus)

    def _realize_unit(self, device: QemuDevice, bus: UnitBus) -> None:
        driver = device.driver
        if device.hotplugged and not bus.hotplug:
            raise QemuError(f"Bus '{bus.name}' does not support hotplugging")
        if driver.missing and not device.values.get(driver.link or ""):
            raise QemuError(driver.missing)
        try:
            device.values |= bus.claim(device)
        except UnitError as error:
            raise QemuError(str(error)) from None
        device.units = bus
        bus.put(device)

    def _realize_usb(self, device: QemuDevice, bus: UsbBus) -> None:
        port = self._claim(device, bus)
        bus.free.remove(port)
        try:
            self._check_usb(device, port, bus)
        except QemuError:
            bus.free.append(port)
            raise
        port.device, device.port, device.usb = device, port, bus
        bus.used.append(port)
        if device.driver.name == "usb-hub":
            count = int(self.value(device, "ports"))
            bus.free += [Port(f"{port.path}.{number}", HUB_PORT_SPEEDS) for number in range(1, count + 1)]

    def _claim(self, device: QemuDevice, bus: UsbBus) -> Port:
        if "port" in device.values:
            port = bus.port(str(device.values["port"]))
            if port is None:
                raise QemuError(f"usb port {device.values['port']} (bus {bus.name}) not found (in use?)")
            return port
        if len(bus.free) == 1 and device.driver.name != "usb-hub":
            self._add_own_hub(bus)
        if not bus.free:
            product = device.driver.product
            raise QemuError(f"tried to attach usb device {product} to a bus with no free ports")
        return bus.free[0]

    def _add_own_hub(self, bus: UsbBus) -> None:
        """Chain a hub to the last free port; where it does not fit, the port stays free."""
        if bus.free[0].speeds & DRIVERS["usb-hub"].speeds and bus.free[0].path.count(".") < _DEEPEST:
            # It is in nobody's list: it hangs at /machine/unattached and leaves with its controller.
            hub = QemuDevice(
                DRIVERS["usb-hub"], None, "/machine/unattached/device", {}, hotplugged=True, board=self.board
            )
            self._realize_usb(hub, bus)

    def _check_usb(self, device: QemuDevice, port: Port, bus: UsbBus) -> None:
        driver = device.driver
        if driver.missing and not device.values.get(driver.link or ""):
            raise QemuError(driver.missing)
        if driver.name == "usb-hub":
            count = self.value(device, "ports")
            if not 1 <= count <= 8:
                raise QemuError(f"num_ports ({count}) out of range (1..8)")
            if port.path.count(".") >= _DEEPEST:
                raise QemuError("usb hub chain too deep")
        version = device.values.get("usb_version", 2)
        if version not in (1, 2):
            raise QemuError(f"Invalid usb version {version} for usb hid device")
        product = driver.product
        if driver.name == "usb-host":
            self._check_host(device)
            found = self.host_device(device)
            product = found.product if found else product
        speeds = self.speeds(device)
        if speeds and not speeds & port.speeds:
            raise QemuError(
                f'Warning: speed mismatch trying to attach usb device "{product}" ({speeds} speed) '
                f'to bus "{bus.name}", port "{port.path}" ({port.speeds} speed)'
            )

    def _check_host(self, device: QemuDevice) -> None:
        for name, largest in (("vendorid", 0xFFFF), ("productid", 0xFFFF), ("hostaddr", 127)):
            if self.value(device, name) > largest:
                raise QemuError(f"{name} out of range")
        bus, address = self.value(device, "hostbus"), self.value(device, "hostaddr")
        if bus and address and self.host_device(device) is None:
            raise QemuError(f"failed to find host usb device {bus}:{address}")

    # Removing

    def remove(self, id: str) -> None:
        """Carry `device_del` out: USB devices go at once, with what hangs on them; PCI devices when they may.

        Raises:
            QemuError: in the words of QEMU.
        """
        device = self.by_id(id)
        if device is None:
            raise QemuError(f"Device '{id}' not found", "DeviceNotFound")
        if device.units is not None and not device.units.hotplug:
            raise QemuError(f"Bus '{device.units.name}' does not support hotplugging")
        if device.driver.bus != "PCI":
            self._unplug(device)
            return
        if not device.driver.pluggable:
            raise QemuError(f"Device '{device.driver.name}' does not support hotplugging")
        if device.leaving:
            raise QemuError(f"Device {id} is already in the process of unplug")
        device.leaving = True
        if self.guest_cooperates:
            self._later(lambda: self._unplug(device))

    def reset(self) -> None:
        """Carry `system_reset` out, which also completes the removals that the guest left pending."""
        self._emit("RESET", {"guest": False, "reason": "host-qmp-system-reset"})
        for device in [device for device in self.devices if device.leaving]:
            self._unplug(device)

    def _below(self, device: QemuDevice) -> list[QemuDevice]:
        if device.driver.bus == "PCI" and device.usb:
            roots = [port for port in device.usb.used if "." not in port.path]
            return [port.device for port in reversed(roots) if port.device]
        if device.driver.name == "usb-hub" and device.port:
            path = device.port.path
            return [
                other
                for _, port, other in self.usb_devices()
                if other.usb is device.usb and port.path.rpartition(".")[0] == path
            ]
        on_busses = [other for bus in self._unit_busses if bus.owner is device for other in bus.devices.values()]
        return [*on_busses, *(other for other in self.devices if other.above is device)]

    def _unplug(self, device: QemuDevice) -> None:
        if device.driver.bus == "PCI" and device not in self.devices:
            return  # a reset came first
        for child in self._below(device):
            self._unplug(child)
        if device.units is not None:
            device.units.drop(device)
        self._unit_busses = [one for one in self._unit_busses if one.owner is not device]
        bus, port = device.usb, device.port
        if bus and port:
            bus.used.remove(port)
            port.device = None
            if device.driver.name == "usb-hub":
                bus.free = [other for other in bus.free if other.path.rpartition(".")[0] != port.path]
            bus.free.append(port)
        elif bus:
            self._buses.remove(bus)
        if device not in self.devices:
            return  # a hub of QEMU's own goes without a word
        self.devices.remove(device)
        if device.driver.link and (name := device.values.get(device.driver.link)):
            backends = self._backends(device.driver.link)
            if device.driver.name == "usb-redir":
                backends.pop(name, None)
            elif name in backends:
                backends[name] = None
        if device.driver.deletion_is_told:
            data = {"device": device.id, "path": device.path} if device.id else {"path": device.path}
            self._later(lambda: self._emit("DEVICE_DELETED", data))


def _number(entry: Property, text: str) -> int:
    """Return the number, which may be decimal, 0x hex or 0 octal as in C."""
    sign, digits = (-1, text[1:]) if text.startswith("-") else (1, text)
    try:
        number = sign * int(digits, 8 if digits.startswith("0") and digits.isdecimal() else 0)
    except ValueError:
        raise QemuError(f"Parameter '{entry.name}' expects integer") from None
    least = -_LARGEST[entry.type] - 1 if entry.type.startswith("int") else 0
    if not least <= number <= _LARGEST[entry.type]:
        raise QemuError(f"Parameter '{entry.name}' expects {entry.type}_t")
    return number
