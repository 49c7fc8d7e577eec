"""The sandbox's host SCSI devices: the part of /sys that shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class HostScsi:
    """The devices; `root` is what stands for /sys."""

    def __init__(self, root: Path) -> None:
        self._devices = root / "class" / "scsi_device"
        self._devices.mkdir(parents=True)

    def add(self, address: str, *, wwid: str | None = None, node: str | None = None) -> None:
        """Make a disk known.

        Args:
            address: its host, channel, target and LUN: `8:0:2:1`.
            wwid: the name that it has world-wide, such as `naa.60014054ac780582`.
            node: its name in /dev; one made from the address when not given. Its generic node is numbered alike.
        """
        number = len(list(self._devices.iterdir()))
        device = self._devices / address / "device"
        (device / "block" / (node or f"sd{address.replace(':', '')}")).mkdir(parents=True)
        (device / "scsi_generic" / f"sg{number}").mkdir(parents=True)
        if wwid is not None:
            (device / "wwid").write_text(f"{wwid}\n")
