"""Attach and detach a device in one process, and by xl in turn: `python3 -m job.inprocess GUEST BUS DEVICE TURNS`.

The device has to be the stick. Prints, as JSON, the seconds that each attach and detach took, and how many xenstore
requests the last ones in the process made.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import translator
from translator.hosts.xenwire import Wire

from .harness import Console

STICK = "46f4:0001"

_sent = 0
_request = Wire.request


def _counting(self: Wire, *arguments: Any, **options: Any) -> asyncio.Future[bytes]:
    global _sent
    _sent += 1
    return _request(self, *arguments, **options)


async def main(guest: str, bus: str, device: str, turns: int) -> None:
    """Do it, waiting each time for the guest to tell of it; what the first turn imports is no device's."""
    xl = {
        "attach": ["xl", "usbdev-attach", guest, f"hostbus={bus}", f"hostaddr={device}"],
        "detach": ["xl", "usbdev-detach", guest, "0", "1"],
    }
    words = {"attach": f"hostdev:{bus}.{device}", "detach": "0:1"}
    ours: dict[str, list[float]] = {verb: [] for verb in words}
    theirs: dict[str, list[float]] = {verb: [] for verb in words}
    requests: dict[str, int] = {}
    console = Console(guest)
    domid = int(_xl("xl", "domid", guest))
    async with translator.Host(state="/tmp/state") as host:
        for _ in range(turns + 1):
            for verb, word in words.items():
                sent, start = _sent, time.monotonic()
                await getattr(host, verb)(word, domid=domid)
                ours[verb].append(time.monotonic() - start)
                requests[verb] = _sent - sent
                _seen(console, verb)
            for verb, command in xl.items():
                start = time.monotonic()
                _xl(*command)
                theirs[verb].append(time.monotonic() - start)
                _seen(console, verb)
    times = {name: {verb: each[verb][1:] for verb in words} for name, each in (("ours", ours), ("xl", theirs))}
    print(json.dumps(times | {"requests": requests}))


def _xl(*words: str) -> bytes:
    return subprocess.run(words, check=True, capture_output=True).stdout


def _seen(console: Console, verb: str) -> None:
    (console.sees if verb == "attach" else console.loses)(STICK)


Wire.request = _counting  # type: ignore[method-assign]
asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
