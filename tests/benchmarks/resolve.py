"""What a device costs: the same in a document of ten as in one of ten thousand, within a fifth.

What a document costs that has no devices is left out: it is the document's. The worst of several kinds of devices
counts, for placing them alone and for the whole way from XML to JSON.
"""

from __future__ import annotations

import time
from timeit import Timer
from typing import TYPE_CHECKING, Any

import translator
from tests.benchmarks.figures import Figure
from translator.placing.resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COUNTS = (10, 100, 1_000, 10_000)
MOST = 1.2  # times the least cost of a device
_ROUNDS = 5
_PORTS = 10  # of each controller, all of them taken


def figures() -> Iterator[Figure]:
    """Measure both ways, for each kind of devices."""
    documents = _documents()
    domains = {kind: [translator.load(text) for text in texts] for kind, texts in documents.items()}
    yield _figure("devices, placing", "placing a device", resolve, domains, COUNTS[-1])
    yield _figure("devices", "a device's way from XML to JSON", _plan, documents, COUNTS[-2])


def _plan(text: bytes) -> None:
    translator.plan(translator.load(text)).to_json()


def _figure(name: str, what: str, way: Callable[[Any], object], kinds: dict[str, list[Any]], devices: int) -> Figure:
    """Measure the way for each kind of devices, so many of them at a time at least."""
    costs = {kind: _costs(way, documents, devices) for kind, documents in kinds.items()}
    worst = max(costs, key=lambda kind: max(costs[kind]) / min(costs[kind]))
    told = ", ".join(f"{cost * 1e6:.1f} us" for cost in costs[worst])
    return Figure(
        name=name,
        what=f"{what}, with {', '.join(f'{count:,}' for count in COUNTS)} in one document ({worst}, the worst of "
        f"{len(costs)} kinds)",
        measured=told,
        ratio=max(costs[worst]) / min(costs[worst]),
        bound=MOST,
    )


def _costs(way: Callable[[Any], object], documents: list[Any], devices: int) -> list[float]:
    """Return the seconds that a device costs in each document but the first, which has none."""
    best = [float("inf")] * len(documents)
    # sizes in turn, so that a machine that slows down does so for all of them, and the best of each
    for _ in range(_ROUNDS):
        for number, (count, document) in enumerate(zip((COUNTS[0], *COUNTS), documents, strict=True)):
            times = max(1, devices // count)
            best[number] = min(best[number], _timed(way, document, times) / times)
    return [(cost - best[0]) / count for cost, count in zip(best[1:], COUNTS, strict=True)]


def _timed(way: Callable[[Any], object], document: Any, times: int) -> float:
    # as `timeit` does, without the collector, whose work depends on what else there is
    return Timer(lambda: way(document), timer=time.process_time).timeit(times)


def _documents() -> dict[str, list[bytes]]:
    """Return for each kind of devices a document of none of them, and one of each count."""
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
            for count in (0, *COUNTS)
        ]
        for kind, (type, machine, controller, device) in kinds.items()
    }


def _host_device(number: int) -> str:
    bus, device = divmod(number, 120)
    source = f"<address bus='{bus + 1}' device='{device + 1}'/>"
    return f"<hostdev mode='subsystem' type='usb'><source>{source}</source></hostdev>"
