"""An embedded host: a xenstored, QEMU monitors, PV USB backends and a /sys tree inside the calling process.

Everything runs on the caller's event loop and listens on Unix sockets, so the clients that talk to a real
xenstored and a real QEMU talk to these just the same, from this process or another one:

    async with Sandbox() as sandbox:
        guest = sandbox.add_guest("guest", "1f4ff1a7-5d7c-4e0c-8f0e-3e2f7f1f9a10", domid=7)
        sandbox.add_host_device("1-8", bus=1, device=8, vendor=0x046D, product=0xC52B)
        ...  # sandbox.xenstore_socket, guest.qmp_socket, sandbox.sysfs
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from translator.errors import HostError
from translator.families.usb.speeds import speeds_at
from translator.hosts.sandbox.backend import Backends
from translator.hosts.sandbox.monitor import Client, Monitor
from translator.hosts.sandbox.qemu import Board, Machine, QemuError
from translator.hosts.sandbox.scsi import HostScsi
from translator.hosts.sandbox.store import Store
from translator.hosts.sandbox.usb import HostUsb, HostUsbDevice
from translator.hosts.sandbox.xenstored import Connection
from translator.hosts.scsi import find as find_scsi
from translator.hosts.sysfs import Sysfs, fits
from translator.planning.plan import QmpCommand
from translator.topology import PRIMARY
from translator.topology import Guest as GuestType

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from translator.planning.plan import Plan
    from translator.topology import HostDevice, ScsiHost

__all__ = ["Guest", "HostUsbDevice", "Sandbox"]

_INTERFACE_CLASSES = {"usbhid": 0x03, "usb-storage": 0x08}


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """One running domain and where its QEMUs listen, by device model."""

    name: str
    uuid: str
    domid: int
    guest: GuestType
    qmp_sockets: Mapping[str, Path]

    @property
    def qmp_socket(self) -> Path:
        """Where the primary device model listens."""
        return self.qmp_sockets[PRIMARY]


class Sandbox:
    """The embedded host; an asynchronous context manager.

    Args:
        directory: where the sockets and the /sys tree are made; it must exist, and stays. None: a fresh
            temporary one, which is removed at the end.
        latency_s: seconds from a removal to its DEVICE_DELETED (a real QEMU takes about 0.06).
        backend_delay_s: seconds that a PV backend takes to answer; None: it never does, as where no driver is
            loaded. `backends.delay_s` changes it later.

    `store` is the xenstore tree, for who wants to act as a guest; `connections` are its clients.
    """

    def __init__(
        self,
        directory: str | Path | None = None,
        *,
        latency_s: float = 0.0,
        backend_delay_s: float | None = 0.0,
    ) -> None:
        self._asked_directory = directory
        self._latency_s = latency_s
        self._backend_delay_s = backend_delay_s
        self._guests: dict[int, Guest] = {}
        self._monitors: dict[Path, Monitor] = {}  # by socket
        self.connections: set[Connection] = set()
        self._listeners: list[asyncio.Task[asyncio.Server]] = []
        self._sockets: list[Path] = []
        self.store = Store()

    async def __aenter__(self) -> Self:
        asked = self._asked_directory
        self.directory = Path(tempfile.mkdtemp(prefix="sandbox-") if asked is None else asked)
        self.sysfs = self.directory / "sys"
        if self.sysfs.exists():
            raise HostError("T401", f"{self.sysfs} exists already", "give the sandbox a directory of its own")
        if not self.directory.is_dir():
            raise HostError("T401", f"there is no directory {self.directory}", "make it first, or name none")
        self.host_usb = HostUsb(self.sysfs)
        self.host_scsi = HostScsi(self.sysfs)
        self.backends = Backends(self.store, self._backend_delay_s)
        for path in ("/tool", "/vm", "/libxl", "/local/domain/0/backend", "/local/domain/0/device-model"):
            self.store.write(path, "")
        self.store.write("/local/domain/0/name", "Domain-0")
        self.store.write("/local/domain/0/domid", "0")
        try:
            self.xenstore_socket = self._listen(
                "xenstored", lambda: Connection(self.store, {0} | self._guests.keys(), self.connections)
            )
        except HostError:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for listener in self._listeners:
            (await listener).close()
        for connection in list(self.connections):
            connection.close()
        for monitor in self._monitors.values():
            monitor.close()
        # The transports' own farewell comes with the next turn of the loop.
        await asyncio.sleep(0)
        self.backends.close()
        self.host_usb.close()
        if self._asked_directory is None:
            shutil.rmtree(self.directory)
        else:
            shutil.rmtree(self.sysfs)
            for path in self._sockets:
                path.unlink(missing_ok=True)

    @property
    def guests(self) -> tuple[Guest, ...]:
        """The guests, oldest first."""
        return tuple(self._guests.values())

    @property
    def qmp_socket(self) -> Path:
        """The first guest's monitor; where there is no guest yet, one with domid 1 is made."""
        if not self._guests:
            self.add_guest("guest")
        return self.guests[0].qmp_socket

    def add_guest(
        self,
        name: str,
        uuid: str | None = None,
        *,
        domid: int | None = None,
        guest: GuestType = "hvm",
        launch: Sequence[Mapping[str, Any]] = (),
        guest_cooperates: bool = True,
        frontend_connects: bool = True,
        board: Board = "pc",
        others: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    ) -> Guest:
        """Start a domain: its xenstore nodes as libxl makes them, and its QEMU or QEMUs.

        Args:
            uuid, domid: one made from the domid, and the lowest free domid, when not given.
            launch: the devices of QEMU's command line, each as the arguments of a `device_add`; chardevs and
                block devices that they name count as declared there too.
            guest_cooperates: whether the guest lets go of controllers when asked; if not, QEMU's stay until a
                `system_reset`, and paravirtual ones that it has connected to.
            frontend_connects: whether the guest has frontend drivers for PV USB and PV SCSI.
            board: the chipset of its machine.
            others: the device models besides the primary one, by name, each with its own `launch`.

        Raises:
            HostError: T406 when QEMU would refuse its command line.
        """
        if domid is None:
            domid = next(number for number in range(1, 0x7FF0) if number not in self._guests)
        if domid in self._guests:
            raise HostError("T403", f"the sandbox already has a domain {domid}")
        uuid = uuid or f"00000000-0000-4000-8000-{domid:012}"
        models = {PRIMARY: launch} | dict(others or {})
        monitors = {
            model: self._emulator(name, uuid, words, guest_cooperates, board) for model, words in models.items()
        }
        added = Guest(
            name=name,
            uuid=uuid,
            domid=domid,
            guest=guest,
            qmp_sockets={
                model: self._listen(
                    f"qmp-libxl-{domid}" + (f"-{model}" if model != PRIMARY else ""),
                    functools.partial(Client, monitor),
                )
                for model, monitor in monitors.items()
            },
        )
        self._monitors |= {added.qmp_sockets[model]: monitor for model, monitor in monitors.items()}
        self._guests[domid] = added
        if frontend_connects:
            self.backends.frontends.add(domid)
        if not guest_cooperates:
            self.backends.stubborn.add(domid)
        self._write_domain(added)
        return added

    def _emulator(
        self, name: str, uuid: str, launch: Sequence[Mapping[str, Any]], guest_cooperates: bool, board: Board
    ) -> Monitor:
        """Start a QEMU."""
        monitor = Monitor(name, uuid)
        machine = Machine(self.host_usb, monitor.emit, self._later, guest_cooperates=guest_cooperates, board=board)
        monitor.machine = machine
        for device in launch:
            try:
                machine.add(device, hotplugged=False)
            except QemuError as error:
                raise HostError(
                    "T406", f"QEMU does not start with -device {device.get('driver')}: {error}"
                ) from error
        return monitor

    def end_emulator(self, guest: Guest, model: str) -> None:
        """End a device model's process: its clients lose it, and nobody listens any more."""
        socket_path = guest.qmp_sockets[model]
        socket_path.unlink()
        self._monitors.pop(socket_path).close()

    def make_host_for(self, plan: Plan) -> Guest:
        """Start the plan's domain, its launch stage on QEMU's command line, and plug in the host devices it names.

        Raises:
            HostError: as `add_guest`.
        """
        for device in plan.topology.devices:
            if device.host is not None:
                controller = next(
                    one for one in plan.topology.controllers if (one.family, one.index) == ("usb", device.controller)
                )
                self.plug(device.host, "480" if "high" in speeds_at(controller, device.port) else "12")
            if device.scsi is not None:
                self._plug_scsi(device.scsi)
        identity = plan.topology.domain
        launched: dict[str, list[Mapping[str, Any]]] = {model.name: [] for model in plan.topology.device_models}
        for step in plan.steps:
            if step.stage == "launch" and isinstance(step.action, QmpCommand) and step.action.execute == "device_add":
                launched[step.device_model or PRIMARY].append(step.action.arguments)
        return self.add_guest(
            identity.name,
            identity.uuid,
            domid=identity.domid,
            guest=identity.guest,
            board="q35" if "q35" in identity.machine else "pc",
            launch=launched.pop(PRIMARY),
            others=launched,
        )

    def plug(self, wanted: HostDevice, speed: str = "480") -> None:
        """Plug in a host device that fits the selector, unless one does already; what it leaves open is the next.

        That is bus 1, the lowest device number above all of the bus, and the port of that number; `speed` is in Mb/s.
        """
        present = self.host_usb.devices
        if any(fits(found, wanted) for found in Sysfs(self.sysfs).usb_devices()):
            return
        bus = wanted.bus or int((wanted.path or "1").partition("-")[0])
        number = wanted.device or 1 + max((found.device for found in present if found.bus == bus), default=1)
        self.add_host_device(
            wanted.path or f"{bus}-{number}",
            bus=bus,
            device=number,
            vendor=wanted.vendor or 0x1D6B,
            product=wanted.product or 0x0104,
            serial=wanted.serial,
            speed=speed,
        )

    def _plug_scsi(self, wanted: ScsiHost) -> None:
        """Make known a SCSI device of the host that fits the selector, unless one does already."""
        try:
            find_scsi(self.sysfs, wanted)
        except HostError:
            node = (wanted.path or "").removeprefix("/dev/") or None
            place = wanted.selector if wanted.host is not None else f"9:0:{len(node or '')}:{wanted.lun or 0}"
            self.host_scsi.add(place, wwid=wanted.wwn, node=node)

    def add_host_device(
        self,
        path: str,
        *,
        bus: int,
        device: int,
        vendor: int,
        product: int,
        name: str = "USB Device",
        serial: str | None = None,
        speed: str = "480",
        device_class: int = 0,
        drivers: Sequence[str | None] = ("usbhid",),
    ) -> HostUsbDevice:
        """Plug a USB device into the host.

        Args:
            path: its port path, sysfs' name of it: `1-8`, `1-8.2`.
            speed: in Mb/s as sysfs spells it: `1.5`, `12`, `480` or `5000`.
            drivers: one entry for each interface, None for one without a driver.
        """
        return self.host_usb.add(
            path,
            bus=bus,
            device=device,
            vendor=vendor,
            product=product,
            name=name,
            serial=serial,
            speed=speed,
            device_class=device_class,
            interfaces=tuple((_INTERFACE_CLASSES.get(driver or "", 0xFF), driver) for driver in drivers),
        )

    def remove_host_device(self, path: str) -> None:
        """Pull the USB device at a host port path out of the host."""
        self.host_usb.remove(path)
        self.backends.pulled(path)

    def _later(self, call: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        if self._latency_s:
            loop.call_later(self._latency_s, call)
        else:
            loop.call_soon(call)

    def _listen(self, name: str, client: Callable[[], asyncio.Protocol]) -> Path:
        """Bind and listen at once, so that the socket can be connected to; accept from the loop's next turn on."""
        path = self.directory / name
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
        except OSError as error:
            listener.close()
            raise HostError("T401", f"the sandbox cannot listen on {path}: {error.strerror or error}") from error
        listener.listen(64)
        self._sockets.append(path)
        loop = asyncio.get_running_loop()
        self._listeners.append(loop.create_task(loop.create_unix_server(client, sock=listener)))
        return path

    def _write_domain(self, guest: Guest) -> None:
        domid = guest.domid
        home, own, libxl = f"/local/domain/{domid}", (f"n{domid}",), f"/libxl/{domid}"
        readable = ("n0", f"r{domid}")
        model = f"/local/domain/0/device-model/{domid}"
        for path, value, permissions in (
            (f"/vm/{guest.uuid}", "", readable),
            (f"/vm/{guest.uuid}/name", guest.name, readable),
            (f"/vm/{guest.uuid}/uuid", guest.uuid, readable),
            (home, "", readable),
            (f"{home}/vm", f"/vm/{guest.uuid}", readable),
            (f"{home}/name", guest.name, readable),
            (f"{home}/domid", str(domid), readable),
            (f"{home}/device", "", readable),
            (f"{home}/data", "", own),
            (libxl, "", ("n0",)),
            (f"{libxl}/type", guest.guest, ("n0",)),
            (f"{libxl}/dm-version", "qemu_xen", ("n0",)),
            (model, "", readable),
            (f"{model}/state", "running", readable),
            (f"{model}/backends", "", readable),
            (f"{model}/backends/qusb", "", readable),
        ):
            self.store.write(path, value, permissions)
        self.store.fire("@introduceDomain")
