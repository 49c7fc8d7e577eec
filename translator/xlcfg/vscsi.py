"""PV SCSI: the host's devices that a guest gets on paravirtual adapters (`vscsi`).

An entry is `PDEV,VDEV[,OPTION]`: which device of the host, and the adapter, channel, target and LUN that the guest
sees. Source: the grammar of xlu_vscsi_parse and xl.cfg(5), as discussed on xen-devel; no released xl reads it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.families.scsi import named_host
from translator.xlcfg.sheet import Kept, shown

if TYPE_CHECKING:
    from lxml.etree import _Element

    from translator.topology import ScsiHost, Topology
    from translator.xlcfg.draft import Draft
    from translator.xlcfg.sheet import Sheet
    from translator.xlcfg.taken import Taken

_VIRTUAL = re.compile(r"([0-9]{1,3}):([0-9]{1,3}):([0-9]{1,3}):([0-9]{1,5})", re.ASCII)
_OPTIONS = ("feature-host",)
_FORM = "such as '8:0:2:1,0:0:0:0', '/dev/sdm,0:0:0:1' or 'naa.60014054ac780582:0,1:0:0:0'"


def read(sheet: Sheet, draft: Draft, devices: _Element) -> None:
    """Add a `<controller>` for each adapter that is named, and a `<hostdev>` for each device."""
    adapters: set[str] = set()
    for number, text in enumerate(sheet.texts("vscsi"), 1):
        element = f"vscsi[{number}]"
        physical, _, rest = (part.strip() for part in text.value.partition(","))
        place, *options = (part.strip() for part in rest.split(","))
        host, virtual = named_host(physical), _VIRTUAL.fullmatch(place)
        if host is None or virtual is None:
            wrong, what = (physical, "SCSI device of the host") if host is None else (place, "place for the guest")
            sheet.fault("T119", text.source, f"{shown(wrong)} is no {what}", _FORM, element)
            continue
        for option in options:
            if option not in _OPTIONS:
                help = f"possible: {', '.join(_OPTIONS)}"
                sheet.fault("T119", text.source, f"{shown(option)} is no option of {element}", help, element)
            else:
                sheet.keep(Kept("vscsi", text, text.source, number - 1, option))
        index, *unit = (str(int(part)) for part in virtual.groups())
        if index not in adapters:
            adapters.add(index)
            words: dict[str, str | None] = {"type": "scsi", "index": index, "model": "xenscsi"}
            draft.add(devices, "controller", words, at=text.source)
        hostdev = draft.add(devices, "hostdev", {"mode": "subsystem", "type": "scsi"}, at=text.source)
        _source(draft, hostdev, host)
        seat = zip(("bus", "target", "unit"), unit, strict=True)
        draft.add(hostdev, "address", {"type": "drive", "controller": index, **dict(seat)}, at=text.source)


def _source(draft: Draft, hostdev: _Element, host: ScsiHost) -> None:
    if host.path is not None:
        draft.add(hostdev, "source", {"dev": host.path})
    elif host.wwn is not None:
        draft.add(hostdev, "source", {"wwn": host.wwn, "lun": host.lun})
    else:
        source = draft.add(hostdev, "source")
        draft.add(source, "adapter", {"name": f"scsi_host{host.host}"})
        draft.add(source, "address", {"bus": host.channel, "target": host.target, "unit": host.lun})


def write(taken: Taken, devices: _Element, topology: Topology) -> list[str]:
    """Return the entries of the host's SCSI devices, at the places that they were given."""
    found = {one.source: one for one in topology.devices if one.family == "scsi" and one.scsi is not None}
    entries = []
    for hostdev in devices.iterfind("hostdev[@type='scsi']"):
        device = found.get(taken.locator.source(hostdev))
        if device is None or device.scsi is None:
            continue  # nobody takes it, and so it is told of
        taken.whole(hostdev)
        entries.append(f"{device.scsi.selector},{device.controller}:{device.port.replace('.', ':')}")
    for controller in devices.iterfind("controller[@type='scsi']"):
        taken.take(controller, "model")
    return entries
