"""Real servers for tests: xenstored of both kinds and QEMU, each with a directory and a socket of its own.

    with OxenStored() as xenstored, Qemu() as qemu:
        ...  # xenstored.socket, qemu.socket

No hypervisor is needed: tests/xenshim.c answers for it. Ready means that a handshake succeeded. Many may run
side by side.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, Protocol, Self

import pytest

from translator.errors import HostError
from translator.hosts.xenstore import Xenstore
from translator.planning.plan import XenstoreOp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START_S = 10.0
Connection = socket.socket
_READ_ROOT = struct.pack("IIII", 2, 1, 0, 2) + b"/\0"


class Server:
    """A process with a socket; a context manager. What it printed is shown beside a failed test."""

    package: ClassVar[str]  # Debian's, for who has not got it

    def __init__(self) -> None:
        # Not pytest's tmp_path: a Unix socket's path has room for 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="translator-"))
        self.environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def available(cls) -> str | None:
        """Return why this server cannot run here, or None."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Return the words that start the server."""
        raise NotImplementedError

    @property
    def socket(self) -> str:
        """Where clients connect; QEMU: to its first monitor."""
        return str(self.directory / "socket")

    def handshake(self, connection: Connection) -> bool:
        """Return whether a fresh connection is answered as it should be."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        self._command = self.command()
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._await_handshake()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        print(self.report())
        shutil.rmtree(self.directory)

    def kill(self) -> None:
        """End the server, and all that it started, at once; again is fine."""
        assert self._process is not None
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def report(self) -> str:
        """Return command, exit code and log."""
        assert self._process is not None
        log = (self.directory / "log").read_text(errors="replace")
        return f"$ {shlex.join(self._command)}\nexit code: {self._process.poll()}\n{log}"

    def _await_handshake(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_S
        while True:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(START_S)
                connection.connect(self.socket)
                if self.handshake(connection):
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{type(self).__name__} did not start\n{self.report()}")
            time.sleep(0.005)  # a process gives no event when it begins to listen


class _Xenstored(Server):
    package = "xen-utils-4.17"
    binary: ClassVar[str]

    @classmethod
    def available(cls) -> str | None:
        if os.geteuid() != 0:
            return f"{cls.binary} needs root"
        if _xen_binary(cls.binary) is None:
            return f"no {cls.binary}: install {cls.package}"
        if shutil.which("gcc") is None or not Path("/usr/include/xenctrl.h").exists():
            return "the hypervisor's stand-in cannot be built: install gcc and libxen-dev"
        return None

    def __init__(self) -> None:
        super().__init__()
        self.environment = {
            "LD_PRELOAD": _shim(),
            "XENSTORED_RUNDIR": str(self.directory),
            "XENSTORED_ROOTDIR": str(self.directory),
        }

    def handshake(self, connection: Connection) -> bool:
        connection.sendall(_READ_ROOT)
        return connection.recv(16, socket.MSG_WAITALL)[:8] == _READ_ROOT[:8]


class Xl:
    """The real `xl create -n`, which reads a domain's file and starts nothing; it wants a xenstored to talk to."""

    @classmethod
    def available(cls) -> str | None:
        return None if _xen_binary("xl") else "no xl: install xen-utils-4.17"

    def __init__(self, xenstored: Server) -> None:
        self._environment = os.environ | xenstored.environment | {"XENSTORED_PATH": xenstored.socket}

    def read(self, text: bytes) -> dict[str, Any]:
        """Return what xl makes of a file.

        Raises:
            ValueError: xl refuses it, in its own words.
        """
        with tempfile.NamedTemporaryFile(suffix=".cfg") as file:
            file.write(text)
            file.flush()
            command = [str(_xen_binary("xl")), "create", "-n", file.name]
            done = subprocess.run(command, env=self._environment, capture_output=True, check=False)
        if done.returncode:
            raise ValueError(f"xl ended with {done.returncode}: {done.stderr.decode()}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


class CXenStored(_Xenstored):
    """The C xenstored."""

    binary = "xenstored"

    def command(self) -> list[str]:
        pid_file = str(self.directory / "pid")
        return [str(_xen_binary(self.binary)), "--no-fork", "--internal-db", "--pid-file", pid_file]


class OxenStored(_Xenstored):
    """oxenstored.

    Args:
        test_eagain: whether half of all transactions end in a conflict for no reason.
        quotas: lines of its configuration, such as `{"quota-maxentity": 1000}`.
    """

    binary = "oxenstored"

    def __init__(self, *, test_eagain: bool = False, quotas: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self._settings = {
            "persistent": "false",
            "test-eagain": "true" if test_eagain else "false",
            "pid-file": str(self.directory / "pid"),
            **{name: str(value) for name, value in (quotas or {}).items()},
        }

    def command(self) -> list[str]:
        configuration = self.directory / "oxenstored.conf"
        configuration.write_text("".join(f"{name} = {value}\n" for name, value in self._settings.items()))
        # Its socket's place is built in, so each one gets a /run of its own.
        script = 'mount -t tmpfs tmpfs /run && mkdir /run/xenstored && exec "$@"'
        daemon = [str(_xen_binary(self.binary)), "--no-fork", "--no-domain-init", "--config-file", str(configuration)]
        return ["unshare", "--mount", "sh", "-c", script, "sh", *daemon]

    @property
    def socket(self) -> str:
        return f"/proc/{self.pid}/root/run/xenstored/socket"


class Qemu(Server):
    """A paused QEMU without firmware's help: no guest answers.

    Args:
        devices: what it has from the start, each the properties of one `-device`.
        machine: the board.
        monitors: how many QMP monitors it has; `sockets` names them.
        words: further words of the command line.
    """

    package = "qemu-system-x86"
    _binary = "qemu-system-x86_64"

    def __init__(
        self,
        *devices: Mapping[str, str | int],
        machine: str = "pc",
        monitors: int = 1,
        words: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.sockets = [self.socket, *(str(self.directory / f"socket{n}") for n in range(2, monitors + 1))]
        self._machine = machine
        self._words = [*words, *_device_words(devices)]

    def start_anew(self, *devices: Mapping[str, str | int]) -> None:
        """End this QEMU, and start another one with these devices at the same sockets."""
        self.kill()
        self._words = _device_words(devices)
        self.__enter__()

    @classmethod
    def available(cls) -> str | None:
        return None if shutil.which(cls._binary) else f"no {cls._binary}: install {cls.package}"

    def command(self) -> list[str]:
        monitors = [word for path in self.sockets for word in ("-qmp", f"unix:{path},server=on,wait=off")]
        board = ["-M", self._machine, "-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-m", "256"]
        return [self._binary, *board, *monitors, *self._words]

    def handshake(self, connection: Connection) -> bool:
        # It greets while it still makes its devices; it answers when it has them.
        with connection.makefile("rwb") as monitor:
            greeting = monitor.readline()
            monitor.write(b'{"execute": "qmp_capabilities"}')
            monitor.flush()
            return b'"QMP"' in greeting and b'"return"' in monitor.readline()


def _device_words(devices: Sequence[Mapping[str, str | int]]) -> list[str]:
    return [word for device in devices for word in ("-device", json.dumps(device))]


class QemuArm(Qemu):
    """The same for 64-bit ARM."""

    package = "qemu-system-arm"
    _binary = "qemu-system-aarch64"


class QemuPpc(Qemu):
    """The same for 64-bit POWER."""

    package = "qemu-system-ppc"
    _binary = "qemu-system-ppc64"


class Installed(Protocol):
    """Something that a machine may lack."""

    @classmethod
    def available(cls) -> str | None:
        """Return why it cannot be had here, or None."""


def require(server: type[Installed]) -> None:
    """Skip the running test where the server cannot run; in CI (CI=true) fail it instead."""
    reason = server.available()
    if reason:
        do_without(reason)


def do_without(reason: str) -> NoReturn:
    """Skip the running test because of what is not installed; in CI (CI=true) fail it instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason} (CI must have it)")
    pytest.skip(reason)


async def make_domain(
    xenstore: Xenstore, domid: int, *, name: str, uuid: str, guest: Literal["hvm", "pv", "pvh"]
) -> None:
    """Make the nodes that a toolstack makes for a domain with a QEMU, as libxl 4.17 does."""
    home, vm, record = f"/local/domain/{domid}", f"/vm/{uuid}", f"/libxl/{domid}"
    device_model = f"/local/domain/0/device-model/{domid}"
    readable = ("n0", f"r{domid}")
    await xenstore.commit(
        [
            XenstoreOp("mkdir", home, permissions=readable),
            XenstoreOp("write", f"{home}/name", name, readable),
            XenstoreOp("write", f"{home}/vm", vm, readable),
            XenstoreOp("write", f"{home}/domid", str(domid), readable),
            XenstoreOp("mkdir", f"{home}/device", permissions=readable),
            XenstoreOp("mkdir", vm, permissions=readable),
            XenstoreOp("write", f"{vm}/name", name, readable),
            XenstoreOp("write", f"{vm}/uuid", uuid, readable),
            XenstoreOp("mkdir", record, permissions=("n0",)),
            XenstoreOp("write", f"{record}/type", guest),
            XenstoreOp("write", f"{record}/dm-version", "qemu_xen"),
            XenstoreOp("mkdir", "/local/domain/0/backend", permissions=("n0",)),
            XenstoreOp("write", f"{device_model}/state", "running"),
            XenstoreOp("mkdir", f"{device_model}/backends/qusb"),
        ]
    )


class StandIn:
    """What stands in for the backends of all domains, with a connection of its own, and is told of their states."""

    STATE: ClassVar[re.Pattern[str]]

    def __init__(self, socket: str) -> None:
        self._socket = socket

    async def __aenter__(self) -> Self:
        self._xenstore = await Xenstore.connect(self._socket)
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._xenstore.close()

    async def _serve(self) -> None:
        async with self._xenstore.watch("/local/domain") as changes:
            while True:
                for path in filter(self.STATE.fullmatch, await changes.next()):
                    if not await self.goes_on(path):
                        return

    async def goes_on(self, path: str) -> bool:
        """Answer to what has become of a backend's state, and tell whether to go on."""
        raise NotImplementedError


class Backend(StandIn):
    """A stand-in for the PV USB backends: answers 1 with 2, 5 with 6.

    Args:
        socket: the xenstored's.
        mode: `silent` never answers; `late` does after `late_s` seconds; `dies` answers once, then is gone;
            `clings` never lets go; `jumps` closes what it is to open.
    """

    _ANSWERS: ClassVar = {"1": "2", "5": "6"}
    STATE = re.compile(r"/local/domain/\d+/backend/(vusb|qusb)/\d+/\d+/state")

    def __init__(
        self,
        socket: str,
        mode: Literal["normal", "silent", "late", "dies", "clings", "jumps"] = "normal",
        *,
        late_s: float = 0.5,
    ) -> None:
        super().__init__(socket)
        self._mode = mode
        self._late_s = late_s if mode == "late" else 0

    async def goes_on(self, path: str) -> bool:
        asked = await self._xenstore.read(path)
        silent = self._mode == "silent" or (asked == "5" and self._mode == "clings")
        if asked is None or asked not in self._ANSWERS or silent:
            return True
        await asyncio.sleep(self._late_s)
        try:
            await self._xenstore.commit(
                [
                    XenstoreOp("expect", path, asked),
                    XenstoreOp("write", path, "6" if self._mode == "jumps" else self._ANSWERS[asked]),
                ]
            )
        except HostError as error:
            if error.code != "T404":  # else the toolstack has changed its mind meanwhile
                raise
        return self._mode != "dies"


@functools.cache
def _shim() -> str:
    """Build tests/xenshim.c, once; return the library's path."""
    directory = Path(tempfile.mkdtemp(prefix="translator-shim-"))
    atexit.register(shutil.rmtree, directory)
    library = directory / "xenshim.so"
    source = Path(__file__).with_name("xenshim.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return str(library)


@functools.cache
def _xen_binary(name: str) -> Path | None:
    """Return the newest Xen's NAME; /usr/sbin's is a wrapper that wants a running Xen."""
    found = sorted(Path("/usr/lib").glob(f"xen-*/bin/{name}"))
    return found[-1] if found else None
