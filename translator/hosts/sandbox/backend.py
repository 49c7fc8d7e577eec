"""The PV side of the sandbox: backends of USB and SCSI, in domain 0 or another, and a running guest's frontends.

They answer as the xenbus drivers do (drivers/xen/xenbus in Linux), on the same nodes and told by the same
watches as any other party:

    toolstack writes backend 1  ->  backend 2  ->  frontend 3  ->  backend 4  ->  frontend 4
    toolstack writes backend 5  ->  frontend 5, 6  ->  backend 6

    toolstack writes SCSI backend 7, device 1  ->  device 4, backend 4
    toolstack writes SCSI backend 7, device 5  ->  device 6, backend 4

A backend whose guest has no running frontend goes from 5 to 6 by itself. The frontend acts as its own domain,
so it gets no further than the permissions that the toolstack gave it.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING

from translator.hosts.sandbox.store import Store, StoreError, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

_STATE = re.compile(r"/local/domain/(\d+)/backend/(vusb|qusb|vscsi)/(\d+)/\d+/state")
_PORT = re.compile(r"/local/domain/\d+/backend/qusb/(\d+)/(\d+)/port/(\d+)")
_FRONTEND_STATE = re.compile(r"/local/domain/(\d+)/device/(vusb|vscsi)/\d+/state")
# What a frontend tells its backend of the rings that they share.
_RINGS = {
    "vusb": {"urb-ring-ref": "8", "conn-ring-ref": "9", "event-channel": "15"},
    "vscsi": {"ring-ref": "8", "event-channel": "15"},
}
_log = logging.getLogger(__name__)

INITIALISING, INIT_WAIT, INITIALISED, CONNECTED, CLOSING, CLOSED, RECONFIGURING = "1", "2", "3", "4", "5", "6", "7"


class Backends:
    """The drivers behind `backend/vusb` and `vscsi` (the kernel's) and `backend/qusb` (each guest's QEMU's).

    `delay_s` is how long they take to answer, in seconds; None is for ever, as where no driver is loaded.
    `frontends` are the domains whose frontend drivers run, and `stubborn` those that never let go of a controller.
    """

    def __init__(self, store: Store, delay_s: float | None = 0.0) -> None:
        self.delay_s = delay_s
        self.frontends: set[int] = set()
        self.stubborn: set[int] = set()
        # what QEMU has given to a guest: the host port path by domid, and by controller and port
        self.given: dict[int, dict[tuple[int, int], str]] = {}
        self._store = store
        self._pending: set[asyncio.TimerHandle | asyncio.Handle] = set()
        self._watch = Watch("/local/domain", self._on_change)
        store.watch(self._watch)

    def close(self) -> None:
        """Stop answering."""
        self._store.unwatch(self._watch)
        for handle in self._pending:
            handle.cancel()
        self._pending.clear()

    def pulled(self, path: str) -> None:
        """Take a host device away that was pulled: QEMU 7.2 takes all others of that guest with it."""
        for ports in self.given.values():
            if path in ports.values():
                ports.clear()

    def _on_change(self, path: str) -> None:
        # A watch tells in the middle of the request that made the change; an answer is a request of its own.
        if _STATE.fullmatch(path):
            backend = path.removesuffix("/state")
            self._later(self.delay_s, lambda: self._backend(backend))
            self._later(0, lambda: self._frontend(self._store.read(f"{backend}/frontend"), path))
        elif match := _PORT.fullmatch(path):
            domid, index, port = map(int, match.groups())
            ports = self.given.setdefault(domid, {})
            ports.pop((index, port), None)
            if value := self._store.read(path):
                ports[index, port] = value
        elif _FRONTEND_STATE.fullmatch(path):
            frontend = path.removesuffix("/state")
            self._later(self.delay_s, lambda: self._backend(self._store.read(f"{frontend}/backend")))

    def _later(self, delay_s: float | None, call: Callable[[], None]) -> None:
        if delay_s is None:
            return

        def run() -> None:
            self._pending.discard(handle)
            try:
                call()
            except StoreError as error:
                # As the kernel does: the driver stays where it is and says why in the log.
                _log.warning("a PV driver of the sandbox cannot go on: %s", error)

        loop = asyncio.get_running_loop()
        handle = loop.call_later(delay_s, run) if delay_s else loop.call_soon(run)
        self._pending.add(handle)

    def _backend(self, path: str | None) -> None:
        """Answer, as domain 0, what toolstack and frontend have written."""
        match = _STATE.fullmatch(f"{path}/state")
        if match is None:
            return  # no backend of these, or one that was removed meanwhile
        state = self._store.read(f"{path}/state")
        frontend = self._store.read(f"{path}/frontend")
        if state is None or frontend is None:
            return
        home, kind, domid = match[1], match[2], int(match[3])
        if kind == "qusb" and self._store.read(f"/local/domain/{home}/device-model/{domid}/backends/qusb") is None:
            return  # no QEMU that serves this guest
        theirs = self._store.read(f"{frontend}/state")
        if state == INITIALISING:
            self._store.write(f"{path}/state", INIT_WAIT)
        elif (state == INIT_WAIT and theirs in (INITIALISED, CONNECTED)) or (
            state == RECONFIGURING and kind == "vscsi"
        ):
            self._devices(str(path), domid)
            self._store.write(f"{path}/state", CONNECTED)
        elif state != CLOSED and (theirs == CLOSED or (state == CLOSING and domid not in self.frontends)):
            self._store.write(f"{path}/state", CLOSED)

    def _devices(self, backend: str, domid: int) -> None:
        """Give a SCSI controller's new devices to the guest, and let it let go of those that are to leave."""
        for name in self._store.children(f"{backend}/vscsi-devs") or ():
            state = f"{backend}/vscsi-devs/{name}/state"
            if self._store.read(state) == INITIALISING:
                self._store.write(state, CONNECTED)
            elif self._store.read(state) == CLOSING and domid not in self.stubborn:
                self._store.write(state, CLOSED)

    def _frontend(self, path: str | None, backend_state_path: str) -> None:
        """Answer, as the guest, what the backend has written."""
        match = _FRONTEND_STATE.fullmatch(f"{path}/state")
        if match is None or int(match[1]) not in self.frontends:
            return
        domid = int(match[1])
        state = self._store.read(f"{path}/state", domid=domid)
        theirs = self._store.read(backend_state_path, domid=domid)
        if state == INITIALISING and theirs == INIT_WAIT:
            for name, value in _RINGS[match[2]].items():
                self._store.write(f"{path}/{name}", value, domid=domid)
            self._store.write(f"{path}/state", INITIALISED, domid=domid)
        elif state == INITIALISED and theirs == CONNECTED:
            self._store.write(f"{path}/state", CONNECTED, domid=domid)
        elif theirs == CLOSING and state not in (None, CLOSED) and domid not in self.stubborn:
            self._store.write(f"{path}/state", CLOSING, domid=domid)
            self._store.write(f"{path}/state", CLOSED, domid=domid)
