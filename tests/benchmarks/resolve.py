"""Placing devices: one costs the same in a document of a hundred as in one of ten thousand, within a fifth.

In a document of ten it is dearer, for the document itself costs something.
"""

from __future__ import annotations

import time
from timeit import Timer
from typing import TYPE_CHECKING

import translator
from translator.resolve import resolve

if TYPE_CHECKING:
    from translator.domain import Domain

COUNTS = (10, 100, 1_000, 10_000)
MOST = 1.2  # times the least cost of a device, from a hundred devices on
_ROUNDS = 5
_PORTS = 10  # of each controller, all of them taken


def run() -> bool:
    """Print the figures; tell whether the bounds are kept."""
    kept = [_measured(f"resolve: {kind}", documents) for kind, documents in _documents().items()]
    return all(kept)


def _measured(what: str, texts: list[bytes]) -> bool:
    domains = [translator.load(text) for text in texts]
    costs = [float("inf")] * len(domains)
    # sizes in turn, so that a machine that slows down does so for all of them, and the best of each
    for _ in range(_ROUNDS):
        for number, (count, domain) in enumerate(zip(COUNTS, domains, strict=True)):
            costs[number] = min(costs[number], _cost(domain, COUNTS[-1] // count) / COUNTS[-1])
    ratio = max(costs[1:]) / min(costs[1:])
    figures = ", ".join(f"{cost * 1e6:.1f} us" for cost in costs)
    print(f"{what}: {figures} for one of {', '.join(map(str, COUNTS))}: {ratio:.2f} (at most {MOST})")
    return ratio <= MOST


def _cost(domain: Domain, times: int) -> float:
    # as `timeit` does, without the collector, whose work depends on what else there is
    return Timer(lambda: resolve(domain), timer=time.process_time).timeit(times)


def _documents() -> dict[str, list[bytes]]:
    tablet = "<input type='tablet' bus='usb'/>"
    at = "<input type='tablet' bus='usb'><address type='usb' bus='{}' port='{}'/></input>"
    controller = f"<controller type='usb' model='qemu-xhci' ports='{_PORTS + 1}'/>"
    # without PCI slots, of which no machine has thousands
    machine = "<os><type arch='s390x' machine='s390-ccw-virtio'>hvm</type></os>"
    pv = "<controller type='usb' model='qusb2' ports='10'/>"
    kinds = {
        "free ports": ("kvm", machine, controller, lambda _: tablet),
        "named ports": ("kvm", machine, controller, lambda n: at.format(n // _PORTS, n % _PORTS + 1)),
        "host devices of a PV guest": ("xen", "", pv, _host_device),
        "controllers that come along": ("xen", "<os><type>hvm</type></os>", "", lambda _: tablet),
    }
    return {
        kind: [
            (
                f"<domain type='{type}'><name>guest</name>{machine}<devices>"
                f"{controller * (count // _PORTS)}{''.join(map(device, range(count)))}</devices></domain>"
            ).encode()
            for count in COUNTS
        ]
        for kind, (type, machine, controller, device) in kinds.items()
    }


def _host_device(number: int) -> str:
    bus, device = divmod(number, 120)
    source = f"<address bus='{bus + 1}' device='{device + 1}'/>"
    return f"<hostdev mode='subsystem' type='usb'><source>{source}</source></hostdev>"
