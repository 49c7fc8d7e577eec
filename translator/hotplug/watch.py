"""A running domain, looked at again each time that something about it changes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from translator.layouts.libxl import backend_roots
from translator.live.observe import observe
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from translator.live.host import Host
    from translator.live.observe import Observation
    from translator.topology import Layout as LayoutName

SETTLE_S = 0.1  # changes come in groups: a transaction, and the answers to it
LOOK_S = 1.0  # QEMU tells when a device goes, and not when one comes


async def observations(
    host: Host, *, domid: int | None, layout: LayoutName | None = None
) -> AsyncGenerator[Observation, None]:
    """Give what the domain has, at once and whenever it has become something else, until the host is lost.

    Raises:
        HostError: as `observe`; for one, because the domain has gone.
    """
    async with AsyncExitStack() as stack:
        signals: list[Callable[[], Awaitable[object]]] = []
        if domid is not None:
            store = await host.xenstore()
            for path in (f"/libxl/{domid}", f"/local/domain/{domid}/device/vusb", *backend_roots(domid)):
                signals.append((await stack.enter_async_context(store.watch(path))).next)
        if domid is None or host.names_monitor(PRIMARY):
            # libxl's own monitor is left to libxl, which takes it for each command
            monitor = await host.qmp(PRIMARY, domid)
            signals.append(stack.enter_context(monitor.removals()))
        last: Observation | None = None
        while True:
            seen = await observe(host, domid=domid, layout=layout)
            if seen != last:
                yield seen
                last = seen
            await _first(signals, None if domid is not None else LOOK_S)
            await asyncio.sleep(SETTLE_S)


async def _first(signals: list[Callable[[], Awaitable[object]]], timeout_s: float | None) -> None:
    """Wait until one of them comes, or the time is over."""
    tasks = [asyncio.ensure_future(signal()) for signal in signals]
    try:
        done, _ = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
