"""The host's SCSI devices, as /sys shows them: by host, channel, target and LUN, by WWN, or by their node in /dev."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from translator.errors import HostError
from translator.topology import ScsiHost

if TYPE_CHECKING:
    from pathlib import Path

_ADDRESS = re.compile(r"([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9})")
_NODE = re.compile(r"/dev/(s[dr][a-z0-9]{1,8}|sg[0-9]{1,6}|st[0-9]{1,6})")


class ScsiFacts(msgspec.Struct, frozen=True):
    """What a host tells of a device: its place, its generic node (`/dev/sg3`), and what it was asked for by."""

    device: ScsiHost
    generic: str | None
    name: str

    @property
    def physical(self) -> str:
        """The device as xen-scsiback is told of it."""
        one = self.device
        return f"{one.host}:{one.channel}:{one.target}:{one.lun}" if one.host is not None else one.selector


def find(sysfs: Path, wanted: ScsiHost) -> ScsiFacts:
    """Return the one device that is meant.

    A WWN may be one of the host's SCSI target, which is not in /sys: then it stands for itself.

    Raises:
        HostError: T470 there is none; T472 several fit.
    """
    devices = _devices(sysfs)
    name = wanted.path or ""
    if wanted.path is not None:
        fitting = [one for one in devices if _node(sysfs, wanted.path) == one]
    elif wanted.wwn is not None:
        fitting = [one for one in devices if _wwn(sysfs, one) == wanted.wwn and one.endswith(f":{wanted.lun}")]
        if not fitting:
            return ScsiFacts(wanted, None, name)
    else:
        fitting = [one for one in devices if one == wanted.selector]
    if not fitting:
        raise HostError(
            "T470",
            f"the host has no SCSI device {wanted.selector}",
            f"it has: {', '.join(devices)}" if devices else f"{sysfs}/class/scsi_device lists none at all",
        )
    if len(fitting) > 1:
        raise HostError(
            "T472",
            f"{len(fitting)} SCSI devices of the host are {wanted.selector}",
            f"name one by its adapter and address: {', '.join(fitting)}",
        )
    place = _ADDRESS.fullmatch(fitting[0])
    assert place is not None
    host, channel, target, lun = map(int, place.groups())
    found = ScsiHost(host=host, channel=channel, target=target, lun=lun)
    generic = next(iter(_below(sysfs, fitting[0], "scsi_generic")), None)
    return ScsiFacts(found, f"/dev/{generic}" if generic else None, name)


def _devices(sysfs: Path) -> list[str]:
    try:
        names = [one.name for one in (sysfs / "class/scsi_device").iterdir()]
    except OSError:
        return []
    return sorted((one for one in names if _ADDRESS.fullmatch(one)), key=lambda one: tuple(map(int, one.split(":"))))


def _below(sysfs: Path, device: str, folder: str) -> list[str]:
    try:
        return sorted(one.name for one in (sysfs / "class/scsi_device" / device / "device" / folder).iterdir())
    except OSError:
        return []


def _wwn(sysfs: Path, device: str) -> str | None:
    try:
        return (sysfs / "class/scsi_device" / device / "device/wwid").read_text().strip()
    except OSError:
        return None


def _node(sysfs: Path, path: str) -> str | None:
    """Return the device that a node in /dev belongs to."""
    match = _NODE.fullmatch(path)
    if match is None:
        return None
    for device in _devices(sysfs):
        if any(match[1] in _below(sysfs, device, folder) for folder in ("block", "scsi_generic", "scsi_tape")):
            return device
    return None
