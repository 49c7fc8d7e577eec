"""Which device models a domain has besides libxl's own, below /libxl/DOMID/device-model/NAME, in any layout.

    qmp        where its monitor listens
    pci        the PCI functions that it claims, DDDD:BB:SS.F with blanks between
    emulator   the program, where a document names one

libxl keeps its own below the backend domain's directory and knows of one only; so these nodes are ours, for
whoever observes, recovers or removes what several processes emulate.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.layouts import Recorded
from translator.layouts.identity import domid_of, guards
from translator.layouts.libxl import TOOLSTACK, emptied, nodes_of, parents
from translator.planning.plan import Transaction, XenstoreOp
from translator.topology import DEVICE_MODEL_NAME, DeviceModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from translator.topology import DomainIdentity

_FUNCTION = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])")


def record(domain: DomainIdentity, model: DeviceModel) -> Recorded:
    """Return what makes a device model known on the host."""
    root = f"{records_of(domid_of(domain))}/{model.name}"
    values = {
        "qmp": model.qmp or f"${{qmp:{model.name}}}",
        "pci": " ".join("{segment:04x}:{bus:02x}:{slot:02x}.{function:x}".format(**one) for one in model.pci),
    } | ({"emulator": model.emulator} if model.emulator else {})
    absent = XenstoreOp(op="expect-absent", path=root, why=f"the domain has no other device model {model.name!r}")
    return Recorded(
        Transaction(
            (*guards(domain), absent, *parents(root, TOOLSTACK), *nodes_of(root, values, TOOLSTACK)),
        ),
        Transaction((XenstoreOp(op="rm", path=root), *emptied([root]))),
    )


def records_of(domid: int | str) -> str:
    """Return the path below which a domain's device models are recorded."""
    return f"/libxl/{domid}/device-model"


def read(domid: int, nodes: Mapping[str, str]) -> tuple[DeviceModel, ...]:
    """Return the recorded device models by name, from the nodes below `records_of`, by absolute path."""
    root = records_of(domid)
    names = sorted(
        path.removeprefix(f"{root}/")
        for path in nodes
        if path.startswith(f"{root}/") and DEVICE_MODEL_NAME.fullmatch(path.removeprefix(f"{root}/"))
    )
    return tuple(
        DeviceModel(
            name=name,
            emulator=nodes.get(f"{root}/{name}/emulator"),
            qmp=nodes.get(f"{root}/{name}/qmp"),
            pci=tuple(
                dict(zip(("segment", "bus", "slot", "function"), (int(one, 16) for one in found), strict=True))
                for found in _FUNCTION.findall(nodes.get(f"{root}/{name}/pci", ""))
            ),
        )
        for name in names
    )
