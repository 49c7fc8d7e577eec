"""The host's USB devices come and go: told by the kernel, or found by looking at sysfs."""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from translator.hosts.sysfs import Sysfs

_UEVENTS, _KERNEL = 15, 1  # NETLINK_KOBJECT_UEVENT, and the group in which the kernel speaks (linux/netlink.h)
POLL_S = 1.0


@contextmanager
def usb_changes(sysfs: Sysfs, poll_s: float = POLL_S) -> Iterator[Callable[[], Awaitable[None]]]:
    """Give what waits until the host's USB devices have changed.

    Told by the kernel where `sysfs` is the host's own and it lets us listen; else found by looking at it every
    `poll_s` seconds.
    """
    listener = _listener() if str(sysfs.root) == "/sys" else None
    if listener is None:
        last = sysfs.usb_devices()

        async def found() -> None:
            nonlocal last
            while (seen := sysfs.usb_devices()) == last:  # noqa: ASYNC110  # sysfs has no events
                await asyncio.sleep(poll_s)
            last = seen

        yield found
        return

    async def told() -> None:
        while True:
            message, (sender, _) = await _received(listener)
            # other processes may send to the group too; the kernel is nobody's process
            if sender == 0 and b"\0SUBSYSTEM=usb\0" in message:
                return

    with listener:
        yield told


def _listener() -> socket.socket | None:
    try:
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _UEVENTS)
        listener.bind((0, _KERNEL))
    except OSError:
        return None  # in a container, say
    return listener


async def _received(listener: socket.socket) -> tuple[bytes, tuple[int, int]]:
    """Return the next message and its sender (process id, groups)."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(listener, ready.set)
    try:
        while True:
            try:
                message, sender = listener.recvfrom(65536)
            except BlockingIOError:
                ready.clear()
                await ready.wait()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return b"\0SUBSYSTEM=usb\0", (0, _KERNEL)  # some were lost: look
            else:
                return message, (int(sender[0]), int(sender[1]))
    finally:
        loop.remove_reader(listener)
