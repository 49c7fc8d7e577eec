"""Attaching devices to a running QEMU: ours in one process, the bare commands, and a live libvirt.

The same devices on the same controller of the same kind of QEMU. Ours is one apply with all that belongs to it: two
looks at the whole guest, the journal and its disk.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import translator
from tests.oracle import SYSTEM_PYTHON, Libvirt
from tests.servers import Qemu
from translator.host import Performer
from translator.plan import QmpCommand
from translator.undo import roll_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    from translator.hosts.qmp import Qmp
    from translator.plan import Step

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
    """Milliseconds for each device: by an apply, and by its bare `device_add` commands, one after the other."""

    ours: float
    bare: float


def run() -> bool:
    """Print the figures; tell whether the bound is kept."""
    rounds = asyncio.run(_ours())
    ours, bare = (statistics.median(one[which] for one in rounds) for which in (0, 1))
    told = f"attach: {DEVICES} devices to a QEMU: {ours:.2f} ms each, their bare device_add {bare:.2f} ms"
    reason = Libvirt.available() or ("a libvirtd of its own needs root" if os.geteuid() else None)
    if reason:
        print(f"{told}; not compared with libvirt: {reason}")
        return True
    theirs = 1000 * statistics.median(_libvirt())
    print(
        f"{told}, a live libvirt {theirs:.2f} ms: {theirs / ours:.1f} times as fast (at least {LEAST_GAIN:.0f}; "
        f"the bare commands {theirs / bare:.1f})"
    )
    return theirs / ours >= LEAST_GAIN


def _document(*devices: str) -> str:
    return (
        "<domain type='qemu'><name>attach</name><memory unit='MiB'>64</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
        "<emulator>/usr/bin/qemu-system-x86_64</emulator>"
        f"{_CONTROLLER}{''.join(devices)}<memballoon model='none'/></devices></domain>"
    )


async def _ours() -> list[Costs]:
    """Attach and take back, and again."""
    plan = translator.plan(translator.load(_document(*_TABLETS).encode()))
    launch: dict[str, str | int] = {"driver": "qemu-xhci", "id": "usb", "p2": DEVICES, "p3": DEVICES}
    with Qemu(launch) as qemu, tempfile.TemporaryDirectory() as folder:
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
                rounds.append(Costs(1000 * ours / DEVICES, 1000 * bare / DEVICES))
            return rounds


async def _bare(steps: Sequence[Step], monitor: Qmp) -> float:
    began = time.perf_counter()
    for step in steps:
        assert isinstance(step.action, QmpCommand)
        await monitor.execute(step.action.execute, step.action.arguments)
    return time.perf_counter() - began


async def _take_back(steps: Sequence[Step], host: translator.Host) -> None:
    assert not await roll_back(steps, range(len(steps)), Performer(host, None), lambda event: None)


def _libvirt() -> list[float]:
    """Return the seconds that libvirt took for each device of each round."""
    command = ["unshare", "--mount", SYSTEM_PYTHON, str(_WORKER), _document(), str(ROUNDS), *_TABLETS]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [seconds for line in done.stdout.splitlines() for seconds in json.loads(line)]
