"""An apply that waits to be confirmed, and whoever confirms it: one takes a file away, the other renames it.

The file system lets only one of the two have it: once the apply has given up, `confirm` is too late, and once
`confirm` has returned, the apply knows.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

from translator.saga.state import POLL_S, take

if TYPE_CHECKING:
    from translator.saga.journal import Journal
    from translator.saga.state import Found, State


async def confirmation(state: State, record: Journal, timeout_s: float) -> bool:
    """Wait for `confirm`; tell whether it came in time.

    Raises:
        HostError: T507, the file cannot be made.
    """
    loop = asyncio.get_running_loop()
    name = f"{Path(record.path).stem}.unconfirmed"
    deadline = loop.time() + timeout_s
    with state.directory() as directory:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(name, flags, 0o600, dir_fd=directory))
        except OSError as error:
            raise state.unusable(error) from error
        try:
            while _exists(directory, name) and loop.time() < deadline:  # noqa: ASYNC110 - a process ends it, no task
                await asyncio.sleep(POLL_S)
        except asyncio.CancelledError:
            if take(directory, name):
                raise
            return True
        return not take(directory, name)


def waiting(state: State) -> tuple[Found, ...]:
    """Return the journals of applies that wait for `confirm`."""
    if not state.path.exists():
        return ()
    with state.directory() as directory:
        names = set(os.listdir(directory))
    return tuple(
        found
        for found in state.journals()
        if f"{found.key}.{found.id}.unconfirmed" in names and state.is_locked(found.key)
    )


def confirm(state: State, found: Found) -> bool:
    """Let an apply that waits stay; False where it has given up meanwhile."""
    stem = f"{found.key}.{found.id}"
    with state.directory() as directory:
        try:
            os.rename(f"{stem}.unconfirmed", f"{stem}.confirmed", src_dir_fd=directory, dst_dir_fd=directory)
        except FileNotFoundError:
            return False
    return True


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
