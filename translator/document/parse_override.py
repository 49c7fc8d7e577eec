"""`<qemu:override>` becomes `Override`s: which properties the document gives to which of QEMU's devices."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from translator.document.domain import Override, OverrideProperty
from translator.document.reader import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from translator.document.reader import Reader

_NAMESPACE = "{http://libvirt.org/schemas/domain/qemu/1.0}"

# libvirt's aliases of what may be no USB device: by element, and those of controllers and disks, which say where
# they are. Source: qemuAssignDeviceAliases (qemu/qemu_alias.c), as observed.
_TAGS = {
    "balloon": "memballoon",
    "channel": "channel",
    "console": "console",
    "crypto": "crypto",
    "dimm": "memory",
    "fs": "filesystem",
    "hostdev": "hostdev",
    "input": "input",
    "iommu": "iommu",
    "net": "interface",
    "nvdimm": "memory",
    "panic": "panic",
    "parallel": "parallel",
    "rng": "rng",
    "serial": "serial",
    "shmem": "shmem",
    "sound": "sound",
    "tpm": "tpm",
    "video": "video",
    "virtiomem": "memory",
    "virtiopmem": "memory",
    "vsock": "vsock",
    "watchdog": "watchdog",
}
_NUMBERED = re.compile(r"([a-z]+)(0|[1-9][0-9]{0,8})", re.ASCII)
_PLACED = re.compile(r"pcie?\.[0-9]+|(scsi|ide|sata|fdc|virtio-serial|nvme|virtio-disk)[0-9]*(-[0-9]+)*", re.ASCII)
_UNASKED = {"input": 2, "video": 1, "memballoon": 1}  # those that libvirt adds to what a document has


def overrides(reader: Reader, domain: Place, devices: Iterable[Place]) -> Iterator[Override]:
    """Yield the overrides of a document.

    Args:
        devices: what `<devices>` holds.
    """
    counts: Counter[str] | None = None
    for place in _below([domain], "override", "device"):
        if counts is None:
            counts = Counter(str(one.element.tag) for one in devices)
        reader.check_placeholders(place)
        alias = place.element.get("alias", "")
        yield Override(
            alias=alias,
            path=place.path,
            source=reader.source(place),
            properties=tuple(_property(reader, one) for one in _below([place], "frontend", "property")),
            elsewhere=_is_other(alias, counts),
        )


def _property(reader: Reader, place: Place) -> OverrideProperty:
    element = place.element
    return OverrideProperty(
        name=element.get("name", ""),
        type=element.get("type", ""),
        value=element.get("value"),
        path=place.path,
        source=reader.source(place),
    )


def _below(places: Iterable[Place], *tags: str) -> list[Place]:
    """Return what stands at a path of QEMU's elements below the places."""
    found = list(places)
    for tag in tags:
        found = [
            Place(element, f"{place.path}/qemu:{tag}[{number}]")
            for place in found
            for number, element in enumerate(place.element.iterfind(f"{_NAMESPACE}{tag}"), 1)
        ]
    return found


def _is_other(alias: str, counts: Mapping[str, int]) -> bool:
    """Tell whether libvirt gives this alias to something of the document that may be no USB device."""
    numbered = _NUMBERED.fullmatch(alias)
    if numbered is not None and numbered[1] in _TAGS:
        tag = _TAGS[numbered[1]]
        return int(numbered[2]) < counts.get(tag, 0) + _UNASKED.get(tag, 0)
    return _PLACED.fullmatch(alias) is not None
