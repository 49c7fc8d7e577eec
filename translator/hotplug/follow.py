"""Replug: a guest gets a host device whenever the host has it, and loses it when the host does.

A device that is pulled and plugged in again has a new number, and what was made for the old one does not work
any more; so what has gone is detached, and what comes attached. With it QEMU's PV backend (qusb, seen with QEMU 7.2)
takes all other devices away from the guest and does not say so: these are detached and attached again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from translator.errors import Diagnostic, DocumentError, HostError
from translator.hosts.sysfs import fits
from translator.hosts.uevents import POLL_S, usb_changes
from translator.hotplug.attach import Given, attach, detach
from translator.hotplug.watch import patiently
from translator.live.observe import observe
from translator.topology import Device, HostDevice, Place

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from translator.errors import Source
    from translator.live.host import Host
    from translator.live.observe import Observation
    from translator.topology import Layout as LayoutName
    from translator.topology import Topology

SETTLE_S = 0.3  # a hub brings its devices one after the other
USABLE_S = 10.0  # from a device's first sight to its interfaces
_LOOK_S = 0.05


class Followed(msgspec.Struct, frozen=True):
    """A device to follow: how it is named, and its port, if it has one of its own."""

    host: HostDevice
    place: Place | None = None


class Event(msgspec.Struct, frozen=True):
    """What happened to a followed device; `reason` says why it failed."""

    kind: Literal["attached", "detached", "failed"]
    selector: str
    place: Place | None = None
    reason: str | None = None


def followed_of(topology: Topology) -> tuple[Followed, ...]:
    """Return the host devices of a topology, each with its port.

    Raises:
        DocumentError: T443, one is named by its number only, which it has until it is pulled.
    """
    found = []
    for device in topology.devices:
        host = device.host
        if host is None:
            continue
        place = Place(device.controller, device.port)
        lasting = msgspec.structs.replace(host, bus=None, device=None) if host.path or host.vendor else host
        found.append(Followed(check(lasting, device.source), place))
    return tuple(found)


def check(host: HostDevice, source: Source | None = None) -> HostDevice:
    """Return the device if it is named by what stays when it is plugged in again.

    Raises:
        DocumentError: T443, it is not.
    """
    if host.device is None:
        return host
    raise DocumentError(
        [
            Diagnostic(
                code="T443",
                message=f"host device {host.selector} is named by its number, which is another at each replug",
                help="name it by vendor and product, by its port (hostdev:1-1.2) or by its serial number",
                line=source.line if source else None,
                column=source.column if source else None,
            )
        ]
    )


async def follow(
    host: Host,
    followed: Sequence[Followed],
    *,
    domid: int | None,
    layout: LayoutName | None = None,
    on_event: Callable[[Event], None],
    settle_s: float = SETTLE_S,
    poll_s: float = POLL_S,
) -> None:
    """Follow the devices until cancelled, or until the domain has gone.

    A device that cannot be attached is told of, and tried again at the next change.

    Args:
        settle_s: how long the host's devices have to stay as they are before anything is done, in seconds.
        poll_s: how often sysfs is looked at where the kernel does not tell.

    Raises:
        HostError: the host is lost; T403, the domain has gone.
    """
    follower = _Follower(host, followed, domid, layout, on_event)
    with usb_changes(host.sysfs, poll_s) as change:
        while True:
            await follower.look()
            await change()
            while await _changes_within(change, settle_s):
                pass


async def _changes_within(change: Callable[[], Awaitable[None]], seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await change()
    except TimeoutError:
        return False
    return True


class _Follower:
    def __init__(
        self,
        host: Host,
        followed: Iterable[Followed],
        domid: int | None,
        layout: LayoutName | None,
        on_event: Callable[[Event], None],
    ) -> None:
        self.host = host
        self.followed = tuple(followed)
        self.domid = domid
        self.layout = layout
        self.tell = on_event
        self.begun = False
        self.numbers: dict[str, HostDevice] = {}  # as which each selector's device was attached

    async def observe(self) -> Observation:
        """Return what the domain has; once it was seen, whoever holds its monitor is waited for."""
        look = partial(observe, self.host, domid=self.domid, layout=self.layout)
        seen = await (patiently(look) if self.begun else look())
        self.begun = True
        return seen

    async def look(self) -> None:
        """Detach what has gone or is another one by now, then attach what is there."""
        seen = await self.observe()
        present = {one.host.selector: self.present(one.host) for one in self.followed}
        qusb = {one.index for one in seen.topology.controllers if one.type == "qusb"}
        lost = False
        for one in self.followed:
            selector = one.host.selector
            for device in self.attached(seen, one.host):
                known = self.numbers.setdefault(selector, device.host or one.host)
                there = present[selector]
                if there is None or (known.device is not None and known.device != there.device):
                    await self.detach(selector, Place(device.controller, device.port))
                    lost = lost or device.controller in qusb
        seen = await self.observe()
        if lost:
            await self.repair(seen, qusb, present)
        for one in self.followed:
            there = present[one.host.selector]
            if there is not None and not self.attached(seen, one.host) and await self.usable(there):
                await self.attach(one, there)

    async def repair(
        self, seen: Observation, qusb: Collection[int], present: Mapping[str, HostDevice | None]
    ) -> None:
        """Give the guest again what QEMU's backend has taken away besides what was pulled: each to its own port."""
        for one in self.followed:
            there = present[one.host.selector]
            for device in self.attached(seen, one.host):
                if there is not None and device.controller in qusb:
                    place = Place(device.controller, device.port)
                    await self.detach(one.host.selector, place)
                    await self.attach(msgspec.structs.replace(one, place=place), there)

    def present(self, wanted: HostDevice) -> HostDevice | None:
        """Return the device that the host has, None for none or for several that nobody told apart."""
        fitting = [found for found in self.host.sysfs.usb_devices() if fits(found, wanted)]
        return fitting[0] if len(fitting) == 1 else None

    def attached(self, seen: Observation, wanted: HostDevice) -> list[Device]:
        """Return the domain's devices that are, or were, the wanted one."""
        before = self.numbers.get(wanted.selector)
        return [
            device
            for device in seen.topology.devices
            if device.host is not None
            and (
                fits(device.host, wanted)
                or (device.host.path is not None and device.host.path in (wanted.path, before and before.path))
            )
        ]

    async def usable(self, device: HostDevice) -> bool:
        """Wait until the kernel has set the device up; tell whether it has in time."""
        path = device.path or ""
        try:
            async with asyncio.timeout(USABLE_S):
                while not self.host.sysfs.interfaces(path):  # noqa: ASYNC110  # sysfs has no events
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            self.tell(Event("failed", device.selector, reason=f"its interfaces did not appear in {USABLE_S:g} s"))
            return False
        return True

    async def attach(self, one: Followed, there: HostDevice) -> None:
        selector = one.host.selector
        try:
            moved = await attach(
                self.host,
                [Given(f"hostdev:{there.bus}.{there.device}")],
                domid=self.domid,
                layout=self.layout,
                place=one.place,
            )
        except (HostError, DocumentError) as error:
            self.refused(selector, error)
            return
        self.numbers[selector] = there
        place = next(Place(part.controller, part.port) for part in moved.parts if isinstance(part, Device))
        self.tell(Event("attached", selector, place))

    async def detach(self, selector: str, place: Place) -> None:
        try:
            word = f"{place.controller}:{place.port}"
            await detach(self.host, [Given(word)], domid=self.domid, layout=self.layout)
        except (HostError, DocumentError) as error:
            self.refused(selector, error)
            return
        self.numbers.pop(selector, None)
        self.tell(Event("detached", selector, place))

    def refused(self, selector: str, error: HostError | DocumentError) -> None:
        """Tell of what did not work; only a host or domain that is lost ends the following."""
        if isinstance(error, HostError) and error.code in ("T401", "T402", "T403", "T408"):
            raise error
        self.tell(Event("failed", selector, reason=error.diagnostics[0].message))
