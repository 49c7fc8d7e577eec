"""Which process listens at the other end of a Unix socket."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Final

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: process, user, group
_STARTED: Final = 19  # the place in /proc/PID/stat behind the program's name; proc(5) counts it as the 22nd


def process_behind(connection: socket.socket) -> str | None:
    """Return a word for the process, by its id and when it began, so that no other one of this boot has the same.

    None where the kernel does not tell: the process is another container's, or it has handed its socket on and ended.
    """
    try:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, _, _ = _CREDENTIALS.unpack(credentials)
        about = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    started = about.rpartition(b")")[2].split()[_STARTED]  # a program's name may have blanks and brackets in it
    return f"{pid} since {int(started)}"
