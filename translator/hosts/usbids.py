"""Names of USB vendors and products: the distribution's list, else what a device says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from translator.hosts.sysfs import Sysfs
    from translator.topology import HostDevice

# Debian's package usb.ids, what update-usbids fetches, and Fedora's hwdata.
LISTS = tuple(map(Path, ("/usr/share/misc/usb.ids", "/var/lib/usbutils/usb.ids", "/usr/share/hwdata/usb.ids")))
_LONGEST = 60  # characters of a name; a device may say anything of itself


def names_of(devices: Iterable[HostDevice], sysfs: Sysfs, lists: Iterable[Path] = LISTS) -> dict[str, str]:
    """Return the name of each device that has one, by its host port path."""
    wanted = {one.path: one for one in devices if one.path is not None and one.vendor is not None}
    vendors = {f"{one.vendor:04x}" for one in wanted.values()}
    known = next((_read(path, vendors) for path in lists if path.is_file()), {})
    names = {}
    for path, one in wanted.items():
        vendor = f"{one.vendor:04x}"
        told = (
            known.get(vendor) or sysfs.attribute(path, "manufacturer"),
            known.get(f"{vendor}:{one.product or 0:04x}") or sysfs.attribute(path, "product"),
        )
        name = " ".join(_printable(part) for part in told if part)
        if name:
            names[path] = name[:_LONGEST]
    return names


def _read(path: Path, vendors: set[str]) -> Mapping[str, str]:
    """Return the names of these vendors (`046d`) and of their products (`046d:c52b`)."""
    names: dict[str, str] = {}
    vendor = None
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("C "):
                    break  # device classes follow
                if line[:1] not in ("", "#", "\t", "\n"):
                    vendor = line[:4] if line[:4] in vendors else None
                    if vendor is not None:
                        names[vendor] = line[4:].strip()
                elif vendor is not None and line.startswith("\t") and not line.startswith("\t\t"):
                    names[f"{vendor}:{line[1:5]}"] = line[5:].strip()
    except OSError:
        return {}  # a name is worth no error
    return names


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
