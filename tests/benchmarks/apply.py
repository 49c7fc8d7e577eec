"""An apply and a look cost little more than their round trips, and fifty applies at once little more than one.

The round trips are timed in the apply itself, as what passes while a request to xenstored or QEMU is on its way: the
rest is ours. The journal's two waits for the disk are counted apart.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qemu.qmp import QMPClient

import translator
from tests.benchmarks.figures import Figure
from tests.servers import Backend, CXenStored, Qemu, make_domain
from tests.test_contention import document
from translator.hosts.sandbox import Sandbox
from translator.hosts.xenstore import Xenstore
from translator.hosts.xenwire import Wire
from translator.live.performer import Performer
from translator.saga import state as journaling
from translator.saga.state import State
from translator.saga.undo import roll_back

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICES = 15
ROUNDS = 15
MOST_TIME = 1.3  # times the round trips'
DOMAINS = 50
BACKEND_S = 0.1
LEAST_GAIN = 10.0  # times as fast as one after the other

UUID = "8a1e5c0e-3f2b-4c1d-9b7a-6d5e4f3a2b1c"
HEAD = f"<domain type='xen'><name>hvm</name><uuid>{UUID}</uuid><os><type>hvm</type></os><devices>"
CONTROLLER = "<controller type='usb' index='0' model='nec-xhci' ports='15'/>"
TABLETS = "".join(
    f"<input type='tablet' bus='usb'><address type='usb' bus='0' port='{port}'/></input>"
    for port in range(1, DEVICES + 1)
)


def figures() -> Iterator[Figure]:
    """Measure applying and observing against their round trips, and many domains at once."""
    applied, observed = asyncio.run(_fifteen())
    for name, rounds in (("apply", applied), ("observe", observed)):
        total, disk, asked = (1000 * statistics.median(times) for times in zip(*rounds, strict=True))
        without = f", the journal's disk ({disk:.1f} ms) apart" if disk else ""
        yield Figure(
            name=name,
            what=f"{name} of {DEVICES} devices against its round trips{without}",
            measured=f"{total - disk:.1f} ms, {asked:.1f} ms",
            ratio=(total - disk) / asked,
            bound=MOST_TIME,
        )
    one_by_one = min(_fifty(together=False) for _ in range(2))
    at_once = min(_fifty(together=True) for _ in range(5))  # the shorter, the more it is disturbed by what else runs
    yield Figure(
        name="apply, many",
        what=f"{DOMAINS} domains at once against one after the other, backends that take {BACKEND_S * 1000:.0f} ms: "
        "times as fast",
        measured=f"{at_once:.2f} s, {one_by_one:.2f} s",
        ratio=one_by_one / at_once,
        bound=LEAST_GAIN,
        at_least=True,
    )


class Times(NamedTuple):
    """Of one apply, in seconds: all, what the disk took, and what passed while an answer was awaited."""

    total_s: float
    disk_s: float
    asked_s: float


class _Clock:
    """Adds up the time in which something is under way."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._running = 0
        self._since = 0.0

    def begin(self) -> None:
        if not self._running:
            self._since = time.perf_counter()
        self._running += 1

    def end(self, _: object = None) -> None:
        self._running -= 1
        if not self._running:
            self.seconds += time.perf_counter() - self._since


@contextmanager
def _timed() -> Iterator[tuple[_Clock, _Clock]]:
    """Time the disk and the requests of all that runs inside."""
    disk, asked = _Clock(), _Clock()
    kept: list[tuple[Any, str, Any]] = [
        (owner, name, getattr(owner, name))
        for owner, name in ((Wire, "request"), (QMPClient, "execute"), (State, "_create"), (journaling, "_finish"))
    ]
    request, execute, create, finish = (function for _, _, function in kept)

    def timed_request(*args: Any, **kwargs: Any) -> Any:
        future = request(*args, **kwargs)
        asked.begin()
        future.add_done_callback(asked.end)
        return future

    async def timed_execute(*args: Any, **kwargs: Any) -> Any:
        asked.begin()
        try:
            return await execute(*args, **kwargs)
        finally:
            asked.end()

    def on_disk(function: Any) -> Any:
        def timed(*args: Any) -> Any:
            disk.begin()
            try:
                return function(*args)
            finally:
                disk.end()

        return timed

    for (owner, name, _), function in zip(
        kept, (timed_request, timed_execute, on_disk(create), on_disk(finish)), strict=True
    ):
        setattr(owner, name, function)
    try:
        yield disk, asked
    finally:
        for owner, name, function in kept:
            setattr(owner, name, function)


async def _fifteen() -> tuple[list[Times], list[Times]]:
    """Apply fifteen devices, look at them, take them back, and again."""
    rounds, looks = [], []
    plans = [
        translator.plan(translator.load(f"{HEAD}{inner}</devices></domain>".encode()), domid=8)
        for inner in (CONTROLLER, CONTROLLER + TABLETS)
    ]
    with CXenStored() as xenstored, Qemu() as qemu, tempfile.TemporaryDirectory() as state:
        client = await Xenstore.connect(xenstored.socket)
        await make_domain(client, 8, name="hvm", uuid=UUID, guest="hvm")
        await client.close()
        async with (
            Backend(xenstored.socket),
            translator.Host(xenstore=xenstored.socket, qmp=qemu.socket, state=Path(state) / "state") as host,
        ):
            await host.apply(plans[0])
            for _ in range(ROUNDS):
                with _timed() as (disk, asked):
                    began = time.perf_counter()
                    steps = (await host.apply(plans[1])).steps
                    rounds.append(Times(time.perf_counter() - began, disk.seconds, asked.seconds))
                with _timed() as (disk, asked):
                    began = time.perf_counter()
                    seen = await host.observe(domid=8)
                    looks.append(Times(time.perf_counter() - began, disk.seconds, asked.seconds))
                assert len(steps) == len(seen.devices) == DEVICES
                assert not await roll_back(steps, range(len(steps)), Performer(host, 8), lambda event: None)
    return rounds, looks


def _fifty(*, together: bool) -> float:
    """Return the seconds that a controller for each of fifty domains takes, on a host that is another process."""
    command = [sys.executable, "-m", "tests.benchmarks.apply"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        xenstore, sysfs = server.stdout.readline().split()
        took = asyncio.run(_controllers(xenstore, sysfs, together=together))
        server.stdin.close()
    return took


async def _controllers(xenstore: str, sysfs: str, *, together: bool) -> float:
    plans = [translator.plan(translator.load(document(domid)), domid=domid) for domid in range(1, DOMAINS + 1)]
    with tempfile.TemporaryDirectory() as state:
        async with translator.Host(xenstore=xenstore, sysfs=sysfs, state=Path(state) / "state") as host:
            await host.xenstore()
            began = time.perf_counter()
            if together:
                await asyncio.gather(*map(host.apply, plans))
            else:
                for plan in plans:
                    await host.apply(plan)
            return time.perf_counter() - began


async def _serve() -> None:
    """Be a host with fifty domains until nobody listens any more."""
    async with Sandbox(backend_delay_s=BACKEND_S) as sandbox:
        for domid in range(1, DOMAINS + 1):
            sandbox.add_guest(f"guest{domid}", domid=domid, guest="pv", frontend_connects=False)
        print(sandbox.xenstore_socket, sandbox.sysfs, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
