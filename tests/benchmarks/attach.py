"""Attaching devices to a running QEMU: ours in one process, the bare commands, and a live libvirt.

The same devices on the same controller of the same kind of QEMU. Ours is one apply with all that belongs to it: two
looks at the whole guest and the journal; both keep their notes in memory, libvirt in a /run of its own.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import translator
from tests.benchmarks.figures import Figure
from tests.oracle import SYSTEM_PYTHON, Libvirt
from tests.servers import Qemu
from translator.live.performer import Performer
from translator.planning.plan import QmpCommand
from translator.saga.undo import roll_back

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from translator.hosts.qmp import Qmp
    from translator.planning.plan import Step

DEVICES = 15
ROUNDS = 9
LEAST_GAIN = 10.0  # times as fast as libvirt

_WORKER = Path(__file__).parents[1] / "libvirt_attach.py"
_CONTROLLER = f"<controller type='usb' index='0' model='qemu-xhci' ports='{DEVICES}'/>"
_TABLETS = [
    f"<input type='tablet' bus='usb'><address type='usb' bus='0' port='{port}'/></input>"
    for port in range(1, DEVICES + 1)
]


class Costs(NamedTuple):
    """Milliseconds for each device: by an apply, by its bare `device_add` commands one by one, and by libvirt."""

    ours: float
    bare: float
    libvirt: float


def figures() -> Iterator[Figure]:
    """Measure all three in turn, where there can be a libvirtd of our own."""
    reason = Libvirt.available() or ("a libvirtd of its own needs root" if os.geteuid() else None)
    if reason:
        print(f"attach: not compared with libvirt: {reason}")
        return
    rounds = asyncio.run(_rounds())
    ours, bare, libvirt = (statistics.median(one[which] for one in rounds) for which in range(3))
    yield Figure(
        name="attach",
        what=f"attaching {DEVICES} devices to a QEMU, each, against a live libvirtd's attach: times as fast "
        f"(their bare `device_add`: {bare:.2f} ms, {libvirt / bare:.1f} times)",
        measured=f"{ours:.2f} ms, {libvirt:.2f} ms",
        ratio=statistics.median(one.libvirt / one.ours for one in rounds),
        bound=LEAST_GAIN,
        at_least=True,
    )


def _document(*devices: str) -> str:
    return (
        "<domain type='qemu'><name>attach</name><memory unit='MiB'>64</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
        "<emulator>/usr/bin/qemu-system-x86_64</emulator>"
        f"{_CONTROLLER}{''.join(devices)}<memballoon model='none'/></devices></domain>"
    )


async def _rounds() -> list[Costs]:
    async with _libvirt() as theirs:
        return await _in_turn(theirs)


async def _in_turn(theirs: Callable[[], Awaitable[float]]) -> list[Costs]:
    """Attach and take back in each way, one after the other, as what else the machine does changes all the while."""
    plan = translator.plan(translator.load(_document(*_TABLETS).encode()))
    launch: dict[str, str | int] = {"driver": "qemu-xhci", "id": "usb", "p2": DEVICES, "p3": DEVICES}
    with Qemu(launch) as qemu, tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        async with translator.Host(qmp=qemu.socket, state=Path(folder) / "state") as host:
            rounds = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                steps = (await host.apply(plan)).steps
                ours = time.perf_counter() - began
                assert len(steps) == DEVICES
                await _take_back(steps, host)
                bare = await _bare(steps, await host.qmp("primary", None))
                await _take_back(steps, host)
                rounds.append(Costs(*(1000 * seconds / DEVICES for seconds in (ours, bare, await theirs()))))
            return rounds


@asynccontextmanager
async def _libvirt() -> AsyncIterator[Callable[[], Awaitable[float]]]:
    """Give what attaches all devices through a live libvirt, and returns the seconds that it took."""
    worker = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", SYSTEM_PYTHON, str(_WORKER), _document(), *_TABLETS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    asks, answers = worker.stdin, worker.stdout

    async def attach() -> float:
        asks.write(b"\n")
        return float(await answers.readline())

    try:
        yield attach
    finally:
        asks.close()
        await worker.wait()


async def _bare(steps: Sequence[Step], monitor: Qmp) -> float:
    began = time.perf_counter()
    for step in steps:
        assert isinstance(step.action, QmpCommand)
        await monitor.execute(step.action.execute, step.action.arguments)
    return time.perf_counter() - began


async def _take_back(steps: Sequence[Step], host: translator.Host) -> None:
    assert not await roll_back(steps, range(len(steps)), Performer(host, None), lambda event: None)
