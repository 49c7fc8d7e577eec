"""What a host offers the executor and the observer: one small interface for each of its parts.

`XenstoreHost` is served by `xenstore.Xenstore`, `QmpHost` by `qmp.Qmp`, both over a Unix socket; the sandbox
serves the same protocols on sockets of its own, so the same clients talk to it. Every call has a deadline and
raises `HostError` (the host said no, or cannot be reached) or `OutcomeUnknown` (it may have happened).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from translator.plan import XenstoreOp
    from translator.topology import Value


class XenstoreHost(Protocol):
    """A xenstored. Paths are absolute; an absent node is None, never an error."""

    async def read(self, path: str) -> str | None:
        """Return the node's value, which may be empty."""

    async def children(self, path: str) -> tuple[str, ...] | None:
        """Return the names of the node's children, sorted, whatever order the daemon keeps."""

    async def permissions(self, path: str) -> tuple[str, ...] | None:
        """Return the node's permissions as `xenstore-ls -p` prints them, the owner first: `("n0", "r7")`."""

    async def tree(self, path: str) -> dict[str, str]:
        """Return every node at and below `path` with its value, by absolute path, sorted; absent: empty."""

    async def commit(self, operations: Sequence[XenstoreOp]) -> None:
        """Carry the operations out in one transaction, repeated a bounded number of times on conflict."""

    async def wait(self, path: str, values: Sequence[str], timeout_s: float) -> str:
        """Return the node's value as soon as it is one of `values`; told by a watch, never by polling."""

    async def close(self) -> None:
        """Drop the connection; what waits fails at once."""


class QmpHost(Protocol):
    """A QEMU's monitor."""

    async def execute(self, command: str, arguments: dict[str, Value] | None = None) -> Value:
        """Return what the command returns."""

    async def remove_device(self, id: str) -> None:
        """Delete the device and return when it is gone."""

    async def close(self) -> None:
        """Give the monitor free for its next client."""
