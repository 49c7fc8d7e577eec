"""A disk's content as QEMU's block layer has it: a node for the place, and one for the format on it.

Source: libvirt's qemuBlockStorageSourceGetBackendProps and …GetFormatProps (qemu/qemu_block.c), as observed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from translator.document.domain import Disk
    from translator.topology import Value

# QEMU's words for the cache modes. Source: qemu's manual, -drive cache=.
_CACHES: dict[str, dict[str, Value]] = {
    "none": {"direct": True, "no-flush": False},
    "writeback": {"direct": False, "no-flush": False},
    "writethrough": {"direct": False, "no-flush": False},
    "directsync": {"direct": True, "no-flush": False},
    "unsafe": {"direct": False, "no-flush": True},
}
_WRITE_CACHES = {"none": "on", "writeback": "on", "unsafe": "on", "writethrough": "off", "directsync": "off"}


def nodes(disk: Disk, name: str) -> dict[str, dict[str, Value]]:
    """Return the arguments of `blockdev-add` by part, in order; none for an empty drive.

    `name` is what the nodes' names begin with.
    """
    image = disk.image
    if image is None:
        return {}
    mode = _cache(disk)
    cache: dict[str, Value] = {"cache": _CACHES[mode]} if mode in _CACHES else {}
    storage: dict[str, Value] = {"driver": image.driver, "filename": image.path}
    if disk.io is not None:
        storage["aio"] = disk.io
    storage |= {"node-name": f"{name}-storage", **cache, "auto-read-only": True, "discard": "unmap"}
    format: dict[str, Value] = {"node-name": format_node(name), "read-only": disk.read_only}
    if disk.discard is not None:
        format["discard"] = disk.discard
    if disk.detect_zeroes is not None:
        format["detect-zeroes"] = disk.detect_zeroes
    return {
        "storage": storage,
        "format": format | cache | {"driver": image.format, "file": storage["node-name"]},
    }


def format_node(name: str) -> str:
    """Return the name of the node that a disk device reads and writes."""
    return f"{name}-format"


def write_cache(disk: Disk) -> str | None:
    """Return whether the guest sees a write cache; None leaves that to QEMU."""
    return _WRITE_CACHES.get(_cache(disk) or "")


def _cache(disk: Disk) -> str | None:
    """Return the cache mode; what several guests write at once must not be cached."""
    if disk.cache in (None, "default"):
        return "none" if disk.shareable and not disk.read_only else None
    return disk.cache
