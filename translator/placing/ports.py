"""The ports of one controller and of the hubs on it: which are taken, and which is the next one free.

A device's path leads from the controller's root port through a hub at every component but the last; it has
at most four components. Source: libvirt's `virDomainUSBAddressSet` (conf/domain_addr.c), as observed.
"""

from __future__ import annotations

DEPTH = 4  # the longest path, in components


class PortError(Exception):
    """Why a path cannot be had; `kind` is one of the words below, `port` the port at fault.

    range   a component is beyond the ports of the controller or hub that it counts on (`size` of them)
    hub     there is no hub at `port` for the path to go on from
    taken   something sits on `port`
    """

    def __init__(self, kind: str, port: str, size: int = 0) -> None:
        super().__init__(f"{kind} {port}")
        self.kind = kind
        self.port = port
        self.size = size


class PortTree:
    """The ports of a controller, or of a hub at `path`; no look-up depends on how many are taken."""

    __slots__ = ("_full", "_hubs", "_next", "_taken", "path", "size")

    def __init__(self, size: int, path: tuple[int, ...] = ()) -> None:
        self.size = size
        self.path = path
        self._taken: set[int] = set()
        self._hubs: dict[int, PortTree] = {}
        self._next = 1  # no port below is free
        self._full = False  # neither here nor on any hub below is a port free

    def take(self, path: tuple[int, ...], hub_ports: int = 0) -> None:
        """Occupy the port at `path`, which then offers `hub_ports` ports of its own.

        Raises:
            PortError: the path leads nowhere or is taken.
        """
        level = self
        for depth, port in enumerate(path, 1):
            if not 1 <= port <= level.size:
                raise PortError("range", _dotted(path[:depth]), level.size)
            if depth < len(path):
                if port not in level._hubs:
                    raise PortError("hub", _dotted(path[:depth]))
                level = level._hubs[port]
        last = path[-1]
        if last in level._taken:
            raise PortError("taken", _dotted(path))
        level._taken.add(last)
        if hub_ports:
            level._hubs[last] = PortTree(hub_ports, path)

    def lowest_free(self) -> tuple[int, ...] | None:
        """Return the path of the next free port: the lowest one here, else the first that a hub below has."""
        if self._full or len(self.path) >= DEPTH:
            return None
        while self._next in self._taken:
            self._next += 1
        if self._next <= self.size:
            return (*self.path, self._next)
        for port in sorted(self._hubs):
            if found := self._hubs[port].lowest_free():
                return found
        self._full = True
        return None


def _dotted(path: tuple[int, ...]) -> str:
    return ".".join(map(str, path))
