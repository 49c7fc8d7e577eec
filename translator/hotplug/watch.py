"""A running domain, looked at again each time that something about it changes.

Between two looks its monitor is free for others, who may hold it when the next look comes: that one waits for them.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from translator.errors import HostError
from translator.layouts.libxl import backend_roots
from translator.live.observe import observe
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from translator.live.host import Host
    from translator.live.observe import Observation
    from translator.topology import Layout as LayoutName

SETTLE_S = 0.1  # changes come in groups: a transaction, and the answers to it
LOOK_S = 1.0  # QEMU would tell only of devices that go, and only whoever holds its monitor


async def patiently(look: Callable[[], Awaitable[Observation]]) -> Observation:
    """Look again for as long as another client holds the monitor."""
    while True:
        try:
            return await look()
        except HostError as error:
            if error.code != "T430":
                raise


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
        # libxl's own monitor is left to libxl, which takes it for each command
        again_s = LOOK_S if domid is None or host.names_monitor(PRIMARY) else None
        look = partial(observe, host, domid=domid, layout=layout)
        seen = await look()
        yield seen
        while True:
            await (_first(signals, again_s) if signals else asyncio.sleep(LOOK_S))
            await asyncio.sleep(SETTLE_S)
            last, seen = seen, await patiently(look)
            if seen != last:
                yield seen


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
