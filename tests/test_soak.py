"""Attach and detach, again and again: neither memory nor descriptors nor watches grow. 1,000 times with `--soak`."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.test_apply import DOMID, bench, plan_of, run

if TYPE_CHECKING:
    from collections.abc import Callable

    import translator
    from translator.hosts.qmp import Qmp
    from translator.hosts.xenwire import Wire

__all__ = ["bench"]  # a fixture

HOSTDEV = b"""<hostdev mode='subsystem' type='usb'>
  <source><address bus='1' device='9'/></source>
  <address type='usb' bus='1' port='1'/>
</hostdev>"""
WARM = 10  # cycles before the first count
PAGE = os.sysconf("SC_PAGE_SIZE")


class Count(NamedTuple):
    """What could grow."""

    descriptors: int
    watches: int
    requests: int
    listeners: int
    tasks: int

    @classmethod
    def of(cls, wire: Wire, monitor: Qmp) -> Count:
        gc.collect()
        return cls(
            descriptors=len(os.listdir("/proc/self/fd")),
            watches=len(wire._watches),
            requests=len(wire._pending),
            listeners=len(monitor._client._listeners),
            tasks=len(asyncio.all_tasks()),
        )


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.mark.parametrize("bench", ["oxenstored", "xenstored"], indirect=True)
def test_nothing_grows(
    bench: Any, tmp_path: Path, request: pytest.FixtureRequest, say: Callable[[str], None]
) -> None:
    soak = request.config.getoption("--soak")
    cycles = 500 if soak else 2 * WARM  # on each of the two xenstoreds
    devices = ("tablet", HOSTDEV)
    told: list[str] = []

    async def cycle(host: translator.Host) -> None:
        assert (await host.attach(*devices, domid=DOMID)).steps
        assert (await host.detach(*devices, domid=DOMID)).steps

    async def scenario() -> None:
        async with bench(plan_of("one")) as plain:
            place = plain._replace(state=tmp_path / "state")
            async with place.host() as host:
                await host.apply(plan_of("one"))
                await host.attach("controller:qusb2", domid=DOMID)
                for _ in range(WARM):
                    await cycle(host)
                wire = (await host.xenstore())._wire
                # between two calls nobody has a monitor: it is connected to for the count
                before, memory = Count.of(wire, await host.qmp("primary", DOMID)), resident_bytes()
                for _ in range(cycles):
                    await cycle(host)
                assert (await host.xenstore())._wire is wire  # one connection all the while
                assert Count.of(wire, await host.qmp("primary", DOMID)) == before
                grown = resident_bytes() - memory
                if soak:
                    assert grown < 2**21, f"{grown} bytes more after {cycles} cycles"
                told.append(f"{cycles} cycles of two devices, {grown >> 10} KiB more, {before}")
            assert not list((tmp_path / "state").glob("xen-*"))

    run(scenario())
    say(f"{request.node.name}: {told[0]}")
