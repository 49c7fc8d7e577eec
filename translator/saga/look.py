"""Whether an action's effect is there: the host is asked, nothing is remembered.

Steps are absolute, so the host itself tells which of them are in effect: what is left to do after an answer was lost,
and what is to be taken back after an apply was killed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

from translator.errors import HostError
from translator.hosts.qmp import MonitorGone
from translator.planning.plan import LaunchOption, QmpCommand, SysfsWrites, Transaction, Wait
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from translator.hosts.qmp import Qmp
    from translator.hosts.sysfs import Sysfs
    from translator.live.host import Host
    from translator.planning.plan import Action, SysfsWrite, XenstoreOp

# `other`: something is in its place, or a part of it is there: not as the action leaves it, nor as it finds it.
# `nothing`: the action has no effect that could be there, such as writes for each interface of a device without any.
Sight = Literal["there", "gone", "other", "nothing"]

# What the two ends of a xenbus device write once it is made (xen/include/public/io/xenbus.h).
_THEIRS = ("state", "online")


async def look(
    action: Action, host: Host, device_model: str | None, domid: int | None, *, besides: Collection[str] = ()
) -> Sight:
    """Tell whether the action's effect is there.

    Args:
        besides: xenstore nodes that tell nothing, because something else writes or removes them too; one that ends
            in a slash stands for all below it.

    Raises:
        HostError: the host does not let us look.
    """
    match action:
        case Transaction(operations, wait):
            nodes = await _transaction(operations, host, besides)
            return _all_or_none({nodes} if wait is None else {nodes, await _answer(wait, host)})
        case Wait(path, values):
            value = await (await host.xenstore()).read(path)
            return "gone" if value is None else "there" if value in values else "other"
        case QmpCommand(command, arguments):
            try:
                return await _command(command, arguments, await host.qmp(device_model or PRIMARY, domid))
            except MonitorGone:
                # with a QEMU goes all that it had
                return "there" if command in REMOVALS else "gone"
        case SysfsWrites(writes):
            return _all_or_none({_binding(host.sysfs, write) for write in writes})
        case LaunchOption(option):
            raise AssertionError(f"{option} is QEMU's to read as it starts")


def written(action: Action | None) -> frozenset[str]:
    """Return the xenstore nodes that the action sets or removes; one that ends in a slash stands for all below it."""
    if not isinstance(action, Transaction):
        return frozenset()
    paths = {one.path for one in action.transaction if one.op in ("write", "rm")}
    return frozenset(paths | {f"{one.path}/" for one in action.transaction if one.op == "rm"})


async def _answer(wait: Wait, host: Host) -> Sight:
    """Tell whether the other end has answered; one that is gone never does, and has nothing to say any more."""
    value = await (await host.xenstore()).read(wait.path)
    return "there" if value is None or value in wait.values else "gone"


async def _transaction(operations: Iterable[XenstoreOp], host: Host, besides: Collection[str]) -> Sight:
    """Compare the nodes that the transaction leaves behind with those that there are.

    Left out are nodes that belong to a guest, which may say there what it likes, and, if there is anything else, a
    directory that is made where there is none: it may have been there before.
    """
    store = await host.xenstore()
    wanted: dict[str, str | None] = {}
    found_before: dict[str, str | None] = {}
    for one in operations:
        guests = one.permissions is not None and one.permissions[0][1:] != "0"
        if one.op == "write" and not guests and one.path.rpartition("/")[2] not in _THEIRS:
            wanted[one.path] = one.value
        elif one.op == "rm":
            wanted = {path: value for path, value in wanted.items() if not path.startswith(f"{one.path}/")}
            wanted[one.path] = None
        elif one.op == "expect" and one.value is not None:
            found_before[one.path] = one.value
    if not wanted:
        made = await asyncio.gather(*(store.read(one.path) for one in operations if one.op == "mkdir"))
        return _all_or_none("gone" if value is None else "there" for value in made)
    below = tuple(path for path in besides if path.endswith("/"))
    paths = [path for path in wanted if path not in besides and not path.startswith(below)]
    if not paths:
        return "there"  # under what has come after it
    values = await asyncio.gather(*map(store.read, paths))

    def sight(path: str, value: str | None) -> Sight:
        if value == wanted[path]:
            return "there"
        # before a removal there is any value; before a write, what was expected, or nothing
        before = wanted[path] is None or value == found_before.get(path)
        return "gone" if before or value is None else "other"

    return _all_or_none(map(sight, paths, values))


async def _command(command: str, arguments: dict[str, Any], monitor: Qmp) -> Sight:
    match command:
        case "device_add" if "id" in arguments:
            driver = await monitor.driver_of(str(arguments["id"]))
            return "gone" if driver is None else "there" if driver == arguments["driver"] else "other"
        case "device_del":
            return "there" if await monitor.driver_of(str(arguments["id"])) is None else "gone"
        case "chardev-add" | "blockdev-add":
            there = arguments[_NAMES[command]] in await monitor.backends(command)
            return "there" if there else "gone"
        case "chardev-remove" | "blockdev-del":
            there = arguments[_NAMES[command]] in await monitor.backends(command)
            return "gone" if there else "there"
    raise HostError("T431", f"there is no way to see whether QEMU has carried out {command}")


_NAMES = {"chardev-add": "id", "chardev-remove": "id", "blockdev-add": "node-name", "blockdev-del": "node-name"}
REMOVALS = frozenset({"device_del", "chardev-remove", "blockdev-del"})


def _binding(sysfs: Sysfs, write: SysfsWrite) -> Sight:
    """Tell whether a driver has, or has not, the interface that the write gives it or takes from it."""
    bound = sysfs.is_bound(write.path, write.value)
    if bound is None:
        return "nothing"  # that can be seen
    if write.if_there and not sysfs.has_interface(write.value):
        return "nothing"  # pulled: there is no more to be done
    return "there" if bound == write.path.endswith("/bind") else "gone"


def _all_or_none(sights: Iterable[Sight]) -> Sight:
    """Return what all of them are, `other` where they differ."""
    found = set(sights) - {"nothing"}
    return "nothing" if not found else found.pop() if len(found) == 1 else "other"
