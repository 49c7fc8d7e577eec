"""QEMU's monitor on a Unix socket: QMP over the sandbox's machine.

One client is served at a time; the next is accepted and hears nothing until the one before has left, as with
QEMU. Messages follow one another with or without newlines between them.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import msgspec

from translator.hosts.sandbox.drivers import ABSTRACT, DRIVERS, is_a
from translator.hosts.sandbox.qemu import Machine, QemuDevice, QemuError

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION = {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "sandbox"}
_GREETING = {"QMP": {"version": _VERSION, "capabilities": []}}
_MACHINE_TYPES = {"pc": "pc-i440fx-7.2-machine", "q35": "pc-q35-7.2-machine"}
_MAX_INPUT = 1 << 20  # bytes of one message; QEMU's own limit is 64 MiB
_DEVICE_PROPERTIES = (
    ("type", "string"),
    ("parent_bus", "link<bus>"),
    ("realized", "bool"),
    ("hotplugged", "bool"),
    ("hotpluggable", "bool"),
)
_CONTAINERS = ("/machine", "/machine/peripheral", "/machine/peripheral-anon")
# What changes the nesting of a message: a whole string, or a bracket.
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{\]}]', re.DOTALL)
_FREE_FORM = ("device_add", "blockdev-add")  # these take any member, and check it themselves
_PROPERTY_GONE = "Property '{}.{}' not found"


def _end_of_message(data: bytes) -> int:
    """Return where the first message ends: behind its last bracket; 0 while it is incomplete.

    What begins without a bracket is no message, and ends with its line.
    """
    if not data.startswith((b"{", b"[")):
        return data.find(b"\n") + 1
    depth = 0
    for token in _NESTING.finditer(data):
        if token[0] in (b"{", b"["):
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return token.end()
    return 0


class Monitor:
    """A machine's monitor: its commands, and its clients, of whom the first is served.

    `machine` is set right after it is made: each needs the other.
    """

    def __init__(self, name: str, uuid: str) -> None:
        self.machine: Machine
        self._name = name
        self._uuid = uuid
        self._clients: list[Client] = []
        self._commands: dict[str, Callable[..., Any]] = {
            "qmp_capabilities": lambda **_: {},
            "query-version": lambda: _VERSION,
            "query-status": lambda: {"status": "running", "singlestep": False, "running": True},
            "query-name": lambda: {"name": self._name},
            "query-uuid": lambda: {"UUID": self._uuid},
            "query-target": lambda: {"arch": "x86_64"},
            "query-commands": lambda: [{"name": name} for name in self._commands],
            "device_add": lambda **arguments: self.machine.add(arguments),
            "device_del": lambda *, id: self.machine.remove(id),
            "system_reset": lambda: self.machine.reset(),
            "qom-list": self._qom_list,
            "qom-get": self._qom_get,
            "qom-list-types": self._qom_list_types,
            "device-list-properties": self._device_list_properties,
            "human-monitor-command": self._human,
            "x-query-usb": lambda: {"human-readable-text": self._usb_text()},
            "query-chardev": self._query_chardev,
            "chardev-add": self._chardev_add,
            "chardev-remove": self._chardev_remove,
            "query-block": self._query_block,
            "query-named-block-nodes": self._query_block_nodes,
            "blockdev-add": self._blockdev_add,
            "blockdev-del": self._blockdev_del,
        }
        # Required and optional arguments; a command that is not here takes none.
        self._arguments: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
            "qmp_capabilities": ((), ("enable",)),
            "device_del": (("id",), ()),
            "qom-list": (("path",), ()),
            "qom-get": (("path", "property"), ()),
            "qom-list-types": ((), ("implements", "abstract")),
            "device-list-properties": (("typename",), ()),
            "human-monitor-command": (("command-line",), ("cpu-index",)),
            "chardev-add": (("id", "backend"), ()),
            "chardev-remove": (("id",), ()),
            "blockdev-del": (("node-name",), ()),
            "query-named-block-nodes": ((), ("flat",)),
        }

    # Clients

    def join(self, client: Client) -> bool:
        """Take a client in; return whether it is its turn."""
        self._clients.append(client)
        return self._clients[0] is client

    def leave(self, client: Client) -> None:
        """Let a client go and greet the next."""
        served = self._clients[0] is client
        self._clients.remove(client)
        if served and self._clients:
            self._clients[0].greet()

    def emit(self, event: str, data: dict[str, Any]) -> None:
        """Send an event to the client that is served, once it has negotiated."""
        seconds, fraction = divmod(time.time(), 1)
        stamp = {"seconds": int(seconds), "microseconds": int(fraction * 1e6)}
        if self._clients and self._clients[0].negotiated:
            self._clients[0].send({"timestamp": stamp, "event": event, "data": data})

    def close(self) -> None:
        """Disconnect everybody."""
        for client in self._clients:
            client.close()

    # Commands

    def execute(self, name: str, arguments: dict[str, Any]) -> Any:
        """Carry a command out and return what it returns.

        Raises:
            QemuError: in the words of QEMU.
        """
        command = self._commands.get(name)
        if command is None:
            raise QemuError(f"The command {name} has not been found", "CommandNotFound")
        if name in _FREE_FORM:
            returned = command(**arguments)
        else:
            self._check_arguments(name, arguments)
            returned = command(**{key.replace("-", "_"): value for key, value in arguments.items()})
        return {} if returned is None else returned

    def _check_arguments(self, name: str, arguments: dict[str, Any]) -> None:
        required, optional = self._arguments.get(name, ((), ()))
        for argument in required:
            if argument not in arguments:
                raise QemuError(f"Parameter '{argument}' is missing")
            if argument != "backend" and not isinstance(arguments[argument], str):
                raise QemuError(f"Invalid parameter type for '{argument}', expected: string")
        for argument in arguments:
            if argument not in required and argument not in optional:
                raise QemuError(f"Parameter '{argument}' is unexpected")

    def _find(self, path: str) -> QemuDevice:
        device = self.machine.by_id(path)
        if device is None:
            raise QemuError(f"Device '{path}' not found", "DeviceNotFound")
        return device

    def _qom_list(self, *, path: str) -> list[dict[str, str]]:
        container = path.rstrip("/")
        listing: list[tuple[str, str]] = [("type", "string")]
        if container == "/machine":
            listing += [(name.rpartition("/")[2], "child<container>") for name in _CONTAINERS[1:]]
        elif container in _CONTAINERS:
            for device in self.machine.devices:
                parent, _, name = device.path.rpartition("/")
                if parent == container:
                    listing.append((name, f"child<{device.driver.name}>"))
        elif (bus := self.machine.pci_bus(container)) is not None:
            listing += [("realized", "bool")]
            listing += [(f"child[{number}]", f"link<{one.driver.name}>") for number, one in enumerate(bus)]
        else:
            device = self._find(path)
            listing = [*_DEVICE_PROPERTIES]
            listing += [(entry.name, entry.type) for entry in device.driver.all_properties]
            if device.driver.bus == "PCI" and device.usb:
                listing.append((device.usb.name, "child<usb-bus>"))
        return [{"name": name, "type": type} for name, type in listing]

    def _qom_get(self, *, path: str, property: str) -> Any:
        container = path.rstrip("/")
        if container in _CONTAINERS:
            kind = _MACHINE_TYPES[self.machine.board] if container == "/machine" else "container"
            if property != "type":
                raise QemuError(_PROPERTY_GONE.format(kind, property))
            return kind
        device = self._find(path)
        facts: dict[str, Any] = {
            "type": device.driver.name,
            "parent_bus": device.parent_bus,
            "realized": True,
            "hotplugged": device.hotplugged,
            "hotpluggable": device.driver.pluggable,
        }
        return facts[property] if property in facts else self.machine.value(device, property)

    def _qom_list_types(self, *, implements: str = "object", abstract: bool = False) -> list[dict[str, Any]]:
        everything = implements in ("object", "device")
        types: list[dict[str, Any]] = [
            {"name": driver.name, "parent": driver.parent}
            for driver in DRIVERS.values()
            if everything or is_a(driver.name, implements)
        ]
        if abstract:
            types += [
                {"abstract": True, "name": name, "parent": parent}
                for name, parent in ABSTRACT.items()
                if everything or is_a(name, implements)
            ]
        return types

    def _device_list_properties(self, *, typename: str) -> list[dict[str, Any]]:
        driver = DRIVERS.get(typename)
        if driver is None:
            raise QemuError(f"Device '{typename}' not found", "DeviceNotFound")
        listing = []
        for entry in driver.all_properties:
            facts: dict[str, Any] = {} if entry.default is None else {"default-value": entry.default}
            facts["name"] = entry.name
            if entry.description is not None:
                facts["description"] = entry.description
            listing.append(facts | {"type": entry.type})
        return listing

    def _human(self, *, command_line: str, cpu_index: int = 0) -> str:
        words = command_line.split()
        if words == ["info", "usb"]:
            return self._usb_text().replace("\n", "\r\n")
        unknown = " ".join(words[:2] if words[:1] == ["info"] else words[:1])
        return f"unknown command: '{unknown}'\r\n"

    def _usb_text(self) -> str:
        lines = []
        for bus, port, device in self.machine.usb_devices():
            found = self.machine.host_device(device)
            speed = self.machine.speeds(device) & port.speeds
            lines.append(
                f"  Device {bus.number}.0, Port {port.path}, Speed {speed.megabits} Mb/s, "
                f"Product {found.product if found else device.driver.product}"
                f"{f', ID: {device.id}' if device.id else ''}\n"
            )
        return "".join(lines)

    def _query_chardev(self) -> list[dict[str, Any]]:
        return [
            {"frontend-open": user is not None, "filename": "null", "label": name}
            for name, user in self.machine.chardevs.items()
        ]

    def _chardev_add(self, *, id: str, backend: dict[str, Any]) -> None:
        if id in self.machine.chardevs:
            raise QemuError(f"Chardev with id '{id}' already exists")
        self.machine.chardevs[id] = None

    def _chardev_remove(self, *, id: str) -> None:
        if id not in self.machine.chardevs:
            raise QemuError(f"Chardev '{id}' not found")
        if self.machine.chardevs[id] is not None:
            raise QemuError(f"Chardev '{id}' is busy")
        del self.machine.chardevs[id]

    def _query_block(self) -> list[dict[str, Any]]:
        return [
            {
                "device": "",
                "qdev": user.id if user.units and user.id else f"{user.path}/{user.id}.0/legacy[0]",
                "type": "unknown",
                "removable": False,
                "locked": False,
                "inserted": {"node-name": name},
            }
            for name, user in self.machine.blockdevs.items()
            if user is not None
        ]

    def _query_block_nodes(self, *, flat: bool = False) -> list[dict[str, Any]]:
        return [{"node-name": name, "file": self.machine.files.get(name, "")} for name in self.machine.blockdevs]

    def _blockdev_add(self, **options: Any) -> None:
        name = options.get("node-name")
        if not isinstance(name, str):
            raise QemuError("'node-name' must be specified for the root node")
        if name in self.machine.blockdevs:
            raise QemuError(f"Duplicate nodes with node-name='{name}'")
        self.machine.blockdevs[name] = None
        below = options.get("filename", options.get("file", ""))
        self.machine.files[name] = self.machine.files.get(below, str(below)) if isinstance(below, str) else ""

    def _blockdev_del(self, *, node_name: str) -> None:
        if node_name not in self.machine.blockdevs:
            raise QemuError(f"Failed to find node with node-name='{node_name}'")
        if self.machine.blockdevs[node_name] is not None:
            raise QemuError(f"Node {node_name} is in use")
        del self.machine.blockdevs[node_name]


class Client(asyncio.Protocol):
    """One connection to a monitor."""

    def __init__(self, monitor: Monitor) -> None:
        self.negotiated = False
        self._monitor = monitor
        self._input = b""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._monitor.join(self):
            self.send(_GREETING)
        else:
            transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._monitor.leave(self)

    def data_received(self, data: bytes) -> None:
        self._input = (self._input + data).lstrip()
        while self._input and not self._transport.is_closing():
            end = _end_of_message(self._input)
            if end == 0:
                if len(self._input) > _MAX_INPUT:
                    self.close()
                return
            message, self._input = self._input[:end], self._input[end:].lstrip()
            self._serve(message)

    def greet(self) -> None:
        """Begin to serve a client that has waited."""
        self.send(_GREETING)
        self._transport.resume_reading()

    def send(self, message: dict[str, Any]) -> None:
        """Write one message."""
        self._transport.write(msgspec.json.encode(message) + b"\r\n")

    def close(self) -> None:
        """Disconnect the client."""
        self._transport.abort()

    def _serve(self, message: bytes) -> None:
        request: Any = None
        answer: dict[str, Any]
        try:
            try:
                request = msgspec.json.decode(message)
            except (msgspec.DecodeError, RecursionError):
                raise QemuError("JSON parse error, expecting value") from None
            answer = {"return": self._answer(request)}
        except QemuError as error:
            answer = {"error": {"class": error.kind, "desc": error.desc}}
        if isinstance(request, dict) and "id" in request:
            answer["id"] = request["id"]
        self.send(answer)

    def _answer(self, request: Any) -> Any:
        if not isinstance(request, dict):
            raise QemuError("QMP input must be a JSON object")
        for member in request:
            if member not in ("execute", "arguments", "id"):
                raise QemuError(f"QMP input member '{member}' is unexpected")
        name, arguments = request.get("execute"), request.get("arguments", {})
        if "execute" not in request:
            raise QemuError("QMP input lacks member 'execute'")
        if not isinstance(name, str):
            raise QemuError("QMP input member 'execute' must be a string")
        if not isinstance(arguments, dict):
            raise QemuError("QMP input member 'arguments' must be an object")
        if not self.negotiated and name != "qmp_capabilities":
            raise QemuError("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound")
        if self.negotiated and name == "qmp_capabilities":
            raise QemuError("Capabilities negotiation is already complete, command ignored", "CommandNotFound")
        returned = self._monitor.execute(name, arguments)
        self.negotiated = True
        return returned
