"""Attach and detach a device several times in one process: `python3 -m job.inprocess GUEST DOMID WORD PRODUCT TIMES`.

Prints, as JSON, the seconds of each `attach` and `detach`, and how many xenstore requests the last ones made.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import translator
from translator.hosts.xenwire import Wire

from .harness import Console

_sent = 0
_request = Wire.request


def _counting(self: Wire, *arguments: Any, **options: Any) -> asyncio.Future[bytes]:
    global _sent
    _sent += 1
    return _request(self, *arguments, **options)


async def main(guest: str, domid: int, word: str, product: str, times: int) -> None:
    """Do it, waiting each time for the guest to tell of it."""
    seconds: dict[str, list[float]] = {"attach": [], "detach": []}
    requests: dict[str, int] = {}
    console = Console(guest)
    async with translator.Host(state="/tmp/state") as host:
        for turn in range(times + 1):
            for verb, what, sign in (("attach", word, r"\+"), ("detach", "0:1", "-")):
                sent, start = _sent, time.monotonic()
                await getattr(host, verb)(what, domid=domid)
                if turn:  # what the first one imports is no device's
                    seconds[verb].append(time.monotonic() - start)
                    requests[verb] = _sent - sent
                console.wait(rf"USB {sign}\S+ {product}")
    print(json.dumps(seconds | {"requests": requests}))


Wire.request = _counting  # type: ignore[method-assign]
asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])))
