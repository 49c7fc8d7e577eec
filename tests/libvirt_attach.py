"""The seconds that a live libvirt takes to attach devices, one after the other: a line in, a round's time a line out.

For the system's Python, which has the binding. A daemon with folders of its own, in a mount namespace: nothing is
shared with a libvirt of the machine. Arguments: the domain's document, and the devices' documents.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import libvirt  # type: ignore[import-not-found,unused-ignore]  # Debian's, not in the virtual environment

START_S = 20.0
FOLDERS = ("/run", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt")


def connected() -> Any:
    """Return a connection to the daemon, as soon as it takes one."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            return libvirt.open("qemu:///system")
        except libvirt.libvirtError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)  # a daemon gives no event when it begins to listen


def measure(connection: Any, domain: str, devices: list[str]) -> None:
    """Start the domain anew for each round, and attach all devices, one after the other."""
    for _ in sys.stdin:
        guest = connection.createXML(domain, libvirt.VIR_DOMAIN_START_PAUSED)
        try:
            began = time.perf_counter()
            for device in devices:
                guest.attachDeviceFlags(device, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            took = time.perf_counter() - began
        finally:
            guest.destroy()
        print(took, flush=True)


def main() -> None:
    """Start the daemon, measure, and end it."""
    domain, *devices = sys.argv[1:]
    for folder in FOLDERS:
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], check=True)
    libvirt.registerErrorHandler(lambda *_: None, None)
    daemons = [subprocess.Popen([name], stderr=subprocess.DEVNULL) for name in ("virtlogd", "libvirtd")]
    try:
        connection = connected()
        measure(connection, domain, devices)
        connection.close()
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


main()
