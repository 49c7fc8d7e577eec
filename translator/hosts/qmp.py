"""A QEMU's monitor, reached over its Unix socket: commands, removals that are seen to be done, what is plugged.

On qemu.qmp. A monitor serves one client at a time, and `close` gives it free. What times out on our side
QEMU does all the same: that is OutcomeUnknown, and whoever gets it looks before repeating.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import msgspec
from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError, Runstate
from qemu.qmp.events import EventListener

from translator.errors import HostError, OutcomeUnknown
from translator.hosts.peer import process_behind
from translator.topology import PRIMARY, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qemu.qmp.message import Message

REMOVAL_S: Final = 5.0  # seconds; an emulated USB device takes 0.06, a PCI controller as long as its guest

_POLL_S: Final = 0.1
_LINGER_S: Final = (
    0.5  # how long what is behind a device may be in use after this has gone from the lists; seen: 0.06
)
_PERIPHERAL: Final = "/machine/peripheral"
_ANONYMOUS: Final = "/machine/peripheral-anon"  # devices without an id, such as companion controllers
_PCI_BUS = re.compile(r"pci\.(0|[1-9][0-9]{0,2})")
_CHILD = re.compile(r"child<(.+)>")


# How the host's drivers behind devices are listed, by the command that makes one, and what names one there.
_BACKENDS: Final = {
    "chardev-add": ("query-chardev", "label"),
    "chardev-remove": ("query-chardev", "label"),
    "blockdev-add": ("query-named-block-nodes", "node-name"),
    "blockdev-del": ("query-named-block-nodes", "node-name"),
}


class CommandRefused(HostError):  # noqa: N818 - QEMU's answer, in its own words
    """T406: QEMU's error; `error_class` is QMP's, nearly always GenericError."""

    def __init__(self, message: str, error_class: str) -> None:
        super().__init__("T406", message)
        self.error_class = error_class


class MonitorGone(HostError):  # noqa: N818 - a fact about a QEMU
    """T402: nobody listens on the socket: the QEMU that made it has ended."""


class QomDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device as QEMU has it.

    `path` and `parent_bus` are QOM paths (`/machine/peripheral/usb1/usb1.0`); `id` is None for a device that
    was given none. `port` is a USB device's, dotted, and empty where QEMU chose it; None for other devices.
    `properties` are those that were asked for and that the device has; `device_model` is whose QEMU it is in.
    """

    path: str
    id: str | None
    driver: str
    parent_bus: str
    port: str | None = None
    properties: dict[str, Value] = {}
    device_model: str = PRIMARY

    @property
    def pci(self) -> str | None:
        """Its PCI address in a document's words, in which a bus has its controller's index for a number.

        None for what is no PCI device, and behind a controller that has a name of the user's.
        """
        addr = self.properties.get("addr")
        name = self.parent_bus.rpartition("/")[2]
        match = _PCI_BUS.fullmatch("pci.0" if name == "pcie.0" else name)
        if not isinstance(addr, int) or addr < 0 or match is None:
            return None
        return f"0000:{int(match[1]):02x}:{addr >> 3:02x}.{addr & 7:x}"


class Guest(NamedTuple):
    """Whom a QEMU runs: its name, empty if it was given none, and its UUID, all zeros if it was given none."""

    name: str
    uuid: str | None


class Machine(NamedTuple):
    """What runs in a QEMU: the guest's name, empty if it was given none, and UUID; machine type and architecture."""

    name: str
    uuid: str | None
    type: str
    arch: str


class _Client(QMPClient):
    """Spells no message out for a log; as it comes, the client does so for every one, whether it is logged or not."""

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg


class Qmp:
    """The client; implements `QmpHost`. Make one with `connect`."""

    def __init__(self, client: QMPClient, path: str, timeout_s: float, process: str | None = None) -> None:
        self._client = client
        self._path = path
        self._timeout_s = timeout_s
        self._process = process
        self._guest: Guest | None = None
        self._machine: Machine | None = None

    @classmethod
    async def connect(cls, path: str | os.PathLike[str], timeout_s: float = 10) -> Qmp:
        """Return a client of the monitor at the Unix socket `path`, ready for commands.

        Args:
            path: the socket.
            timeout_s: the deadline for connecting, and later for each command.

        Raises:
            MonitorGone: T402, nothing listens there.
            HostError: T402, no access, or no QMP; T430, another client holds the monitor.
        """
        name = os.fspath(path)
        client = _Client()
        client.events.event_filter = lambda _: False  # nobody reads that queue, and it has no bound
        try:
            async with asyncio.timeout(timeout_s):
                connection = await _connection(name)
                process = process_behind(connection)
                try:
                    await client.connect(connection)
                except BaseException:
                    connection.close()  # before it has become the client's, nobody else does
                    raise
        except TimeoutError as error:
            raise HostError(
                "T430",
                f"{name}: the monitor is busy: it says nothing for {timeout_s:g} s, as while another client holds it",
                "a monitor serves one client at a time; end the other one, or give QEMU a second -qmp",
            ) from error
        except (OSError, ConnectError) as error:
            cause = error.exc if isinstance(error, ConnectError) else error
            gone = isinstance(cause, (FileNotFoundError, ConnectionRefusedError))
            raise (MonitorGone if gone else HostError)(
                "T402",
                f"{name}: no QMP monitor: {_reason(cause)}",
                "is QEMU running? name its monitor with --qmp",
            ) from error
        return cls(client, name, timeout_s, process)

    @property
    def is_open(self) -> bool:
        """Whether the connection was not lost yet."""
        return self._client.runstate is Runstate.RUNNING

    @property
    def process(self) -> str | None:
        """The process that listens, see `process_behind`: which QEMU this is, whatever it was started as."""
        return self._process

    @property
    def version(self) -> str:
        """QEMU's version and package, as it greets: `7.2.22 (Debian 1:7.2+dfsg-7)`."""
        greeting = self._client.greeting
        told = greeting.QMP.version if greeting is not None else {}
        try:
            version = msgspec.convert(told, _Version)
        except msgspec.ValidationError:
            return "of an unknown version"
        number = f"{version.qemu.major}.{version.qemu.minor}.{version.qemu.micro}"
        return f"{number} ({version.package})" if version.package else number

    async def close(self) -> None:
        """Give the monitor free for its next client; what waits fails with T408."""
        # disconnect() raises what had ended the connection before; whoever waited for an answer was told.
        with suppress(EOFError, OSError, QMPError):
            await self._client.disconnect()

    async def execute(self, command: str, arguments: Mapping[str, Value] | None = None) -> Value:
        """Return what the command returns.

        Raises:
            CommandRefused: T406, QEMU answered with an error.
            OutcomeUnknown: the command was sent, and T408, the connection broke, or T431, the deadline passed.
            HostError: T408, the connection was lost before.
        """
        if not self.is_open:
            raise HostError("T408", f"{self._path}: the connection to QEMU is lost; {command} was not sent")
        try:
            async with asyncio.timeout(self._timeout_s):
                return cast("Value", await self._client.execute(command, arguments))
        except ExecuteError as error:
            raise CommandRefused(
                f"QEMU refused {_spelled(command, arguments)}: {error}", error.error_class
            ) from error
        except TimeoutError as error:
            raise OutcomeUnknown(
                "T431",
                f"{self._path}: QEMU did not answer {command} within {self._timeout_s:g} s",
                "it may carry it out yet: look with `translator observe`, or wait longer: --timeout SECONDS",
            ) from error
        except QMPError as error:
            raise OutcomeUnknown("T408", f"{self._path}: the connection to QEMU broke during {command}") from error

    async def guest(self) -> Guest:
        """Return whom this QEMU runs; asked once, since a connection ends with its QEMU."""
        if self._guest is None:
            name, uuid = await asyncio.gather(self.execute("query-name"), self.execute("query-uuid"))
            self._guest = Guest(
                name=str(name.get("name", "")) if isinstance(name, dict) else "",
                uuid=str(uuid.get("UUID")) if isinstance(uuid, dict) else None,
            )
        return self._guest

    async def machine(self) -> Machine:
        """Return what runs here; asked once, since a connection ends with its QEMU.

        The UUID is all zeros for a guest that was started without one.
        """
        if self._machine is None:
            guest, type, target = await asyncio.gather(
                self.guest(),
                self.execute("qom-get", {"path": "/machine", "property": "type"}),
                self.execute("query-target"),
            )
            self._machine = Machine(
                name=guest.name,
                uuid=guest.uuid,
                type=str(type).removesuffix("-machine"),
                arch=str(target["arch"]) if isinstance(target, dict) else "",
            )
        return self._machine

    async def remove_backend(self, command: str, arguments: Mapping[str, Value]) -> None:
        """Take away the host's driver behind a device; an absent one is gone.

        Raises:
            HostError: as `execute`; for one, because a device still uses it.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LINGER_S
        while True:
            try:
                await self.execute(command, arguments)
            except CommandRefused as error:
                # QEMU has no class of its own for these
                if "not found" in error.message or "Failed to find node" in error.message:
                    return
                in_use = "is busy" in error.message or "is in use" in error.message
                if not in_use or loop.time() >= deadline:
                    raise
                await asyncio.sleep(_POLL_S / 5)
            else:
                return

    async def remove_device(self, id: str, timeout_s: float | None = REMOVAL_S) -> None:
        """Delete the device and return when it is gone, or at once with None; see `remove_devices`."""
        if timeout_s is None:
            await self._request_removal(id)
        else:
            await self.remove_devices([id], timeout_s)

    async def remove_devices(self, ids: Sequence[str], timeout_s: float = REMOVAL_S) -> None:
        """Delete the devices, all at once, and return when every one is gone; an absent one is gone.

        Raises:
            HostError: T410, some are still there after `timeout_s` seconds: the guest has to let them go, and
                may yet; else as `execute`.
        """
        loop = asyncio.get_running_loop()
        # QEMU tells of a removal by an event, except for XHCI controllers, which go in silence: ask as well.
        removals = EventListener("DEVICE_DELETED")
        with self._client.listen(removals):
            requests = await asyncio.gather(*map(self._request_removal, ids), return_exceptions=True)
            for outcome in requests:
                if isinstance(outcome, BaseException):
                    raise outcome
            awaited = {id for id, present in zip(ids, requests, strict=True) if present}
            deadline = loop.time() + timeout_s
            while awaited:
                if loop.time() >= deadline:
                    raise HostError(
                        "T410",
                        f"{', '.join(sorted(awaited))}: removal pending in the guest, after {timeout_s:g} s",
                        "a PCI controller leaves only when the guest's system lets it go, and may yet do so",
                    )
                try:
                    async with asyncio.timeout(_POLL_S):
                        event = await removals.get()
                except TimeoutError:
                    awaited &= {name for name, _ in await self._children(_PERIPHERAL)}
                else:
                    awaited.discard(_deleted(event))

    async def drives(self) -> dict[str, str]:
        """Return the block node behind each device that has one, by the device's QOM path."""
        blocks = msgspec.convert(await self.execute("query-block"), list[_Block])
        return {one.qdev: one.inserted.name for one in blocks if one.qdev and one.inserted and one.inserted.name}

    async def images(self) -> dict[str, str]:
        """Return the file behind each block node, by the node's name."""
        listing = msgspec.convert(await self.execute("query-named-block-nodes"), list[dict[str, Any]])
        return {str(one["node-name"]): str(one.get("file", "")) for one in listing if one.get("node-name")}

    async def children_of_bus(self, path: str) -> int:
        """Return how many devices sit on the bus at a QOM path; none where there is no such bus."""
        try:
            listing = await self.execute("qom-list", {"path": path})
        except CommandRefused as error:
            if error.error_class == "DeviceNotFound":
                return 0
            raise
        return sum(one.name.startswith("child[") for one in msgspec.convert(listing, list[_QomEntry]))

    async def devices(self, properties: Mapping[str, Sequence[str]] | None = None) -> tuple[QomDevice, ...]:
        """Return all devices that were added, by `-device` or `device_add`: first by id, then those without.

        `properties` names those to read along, by driver. A device that goes meanwhile is left out.
        """
        wanted = properties or {}
        named, anonymous = await asyncio.gather(self._children(_PERIPHERAL), self._children(_ANONYMOUS))
        found = await asyncio.gather(
            *(self._device(f"{_PERIPHERAL}/{name}", name, driver, wanted) for name, driver in sorted(named)),
            *(self._device(f"{_ANONYMOUS}/{name}", None, driver, wanted) for name, driver in sorted(anonymous)),
        )
        return tuple(device for device in found if device is not None)

    async def driver_of(self, id: str) -> str | None:
        """Return the driver of the device of that id, None without such a device."""
        return next((driver for name, driver in await self._children(_PERIPHERAL) if name == id), None)

    async def backends(self, command: str) -> frozenset[str]:
        """Return the names of all host's drivers of the kind that `command` makes or removes."""
        query, name = _BACKENDS[command]
        listing = await self.execute(query)
        return frozenset(str(one.get(name)) for one in msgspec.convert(listing, list[dict[str, Any]]))

    async def _request_removal(self, id: str) -> bool:
        """Ask QEMU to delete the device; return whether it was there."""
        try:
            await self.execute("device_del", {"id": id})
        except CommandRefused as error:
            if error.error_class == "DeviceNotFound":
                return False
            if "already in the process of unplug" not in error.message:
                raise
        return True

    async def _children(self, path: str) -> list[tuple[str, str]]:
        """Return the names and drivers of the devices below a QOM path."""
        try:
            listing = await self.execute("qom-list", {"path": path})
        except CommandRefused as error:
            if error.error_class == "DeviceNotFound":  # QEMU makes the container with its first device
                return []
            raise
        entries = msgspec.convert(listing, list[_QomEntry])
        return [(entry.name, match[1]) for entry in entries if (match := _CHILD.fullmatch(entry.type))]

    async def _device(
        self, path: str, id: str | None, driver: str, wanted: Mapping[str, Sequence[str]]
    ) -> QomDevice | None:
        names = ("parent_bus", "port", *wanted.get(driver, ()))
        values = await asyncio.gather(*(self._property(path, name) for name in names))
        read = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        if "parent_bus" not in read:
            return None
        place = {name: read.pop(name) for name in ("parent_bus", "port") if name in read}
        if not isinstance(place.get("port"), str):  # a PCI Express port has a number of that name
            place.pop("port", None)
        return msgspec.convert({"path": path, "id": id, "driver": driver, "properties": read} | place, QomDevice)

    async def _property(self, path: str, name: str) -> Value:
        try:
            return await self.execute("qom-get", {"path": path, "property": name})
        except CommandRefused:  # no such property on this driver, or the device has just gone
            return None


class _Number(msgspec.Struct):
    major: int
    minor: int
    micro: int


class _Version(msgspec.Struct):
    qemu: _Number
    package: str = ""


class _BlockNode(msgspec.Struct):
    name: str | None = msgspec.field(default=None, name="node-name")


class _Block(msgspec.Struct):
    qdev: str | None = None
    inserted: _BlockNode | None = None


class _QomEntry(msgspec.Struct):
    name: str
    type: str


async def _connection(path: str) -> socket.socket:
    """Return a connection to the Unix socket `path`."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _deleted(event: Mapping[str, Any]) -> str:
    """Return the id that a DEVICE_DELETED tells of, empty for a device without one."""
    return str(event.get("data", {}).get("device", ""))


def _spelled(command: str, arguments: Mapping[str, Value] | None) -> str:
    """Return the command with the words that tell a reader which one it was."""
    told = [str(arguments[key]) for key in ("driver", "id") if arguments and key in arguments]
    return " ".join([command, *told])


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or "it hung up"
