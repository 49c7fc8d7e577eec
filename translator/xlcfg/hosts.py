"""What of the host a guest gets: PCI devices, and memory and processors by node (`pci`, `vnuma`)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from translator.xlcfg.language import Items, Text
from translator.xlcfg.sheet import Kept, Sheet, shown

if TYPE_CHECKING:
    from lxml.etree import _Element

    from translator.xlcfg.draft import Draft
    from translator.xlcfg.taken import Taken

_PCI = re.compile(
    r"(?:([0-9a-fA-F]{1,4}):)?([0-9a-fA-F]{1,2}):([0-9a-fA-F]{1,2})\.([0-7])(@[0-9a-fA-F]{1,2})?", re.ASCII
)
_PCI_OPTIONS = ("permissive", "msitranslate", "power_mgmt", "seize", "rdm_policy", "name")
_CPUS = re.compile(r"[0-9]{1,4}(?:-[0-9]{1,4})?(?:,[0-9]{1,4}(?:-[0-9]{1,4})?)*", re.ASCII)
SAME, OTHER = 10, 20  # the distances of a node to itself, and to others when nobody says
MOST_NODES = 64


def read_pci(sheet: Sheet, draft: Draft, devices: _Element) -> None:
    """Add a `<hostdev>` for each PCI device. Source: xl-pci-configuration(5)."""
    for number, text in enumerate(sheet.texts("pci"), 1):
        element = f"pci[{number}]"
        address, _, rest = text.value.partition(",")
        found = _PCI.fullmatch(address.strip())
        if found is None:
            sheet.fault("T119", text.source, f"{shown(address)} is no PCI address", "such as 0000:01:1a.1", element)
            continue
        permissive = None
        for option in sheet.options(Text(rest, text.source), element):
            if option.key == "permissive":
                permissive = option.value not in ("0", "")
            elif option.key in _PCI_OPTIONS:
                sheet.keep(Kept("pci", text, text.source, number - 1, f"{option.key}={option.value}"))
            else:
                help = f"possible: {', '.join(_PCI_OPTIONS)}"
                word = option.key or option.value
                sheet.fault("T119", text.source, f"{shown(word)} is no option of {element}", help, element)
        if found[5]:
            sheet.keep(Kept("pci", text, text.source, number - 1, found[5]))
        hostdev = draft.add(devices, "hostdev", {"mode": "subsystem", "type": "pci", "managed": "no"}, at=text.source)
        draft.add(hostdev, "driver", {"name": "xen"})
        source = draft.add(hostdev, "source", {"writeFiltering": "no" if permissive else None})
        numbers = zip(("domain", "bus", "slot", "function"), found.groups()[:4], (4, 2, 2, 1), strict=True)
        draft.add(source, "address", {name: f"0x{int(value or '0', 16):0{width}x}" for name, value, width in numbers})


def write_pci(taken: Taken, devices: _Element | None) -> list[str]:
    """Return the entries of PCI devices, network cards that are passed through included."""
    if devices is None:
        return []
    kinds = {"hostdev": "pci", "interface": "hostdev"}
    cards = [one for one in devices.iterchildren(*kinds) if one.get("type") == kinds[str(one.tag)]]
    # nobody takes one that has no entry, and so it is told of
    return [entry for card in cards if (entry := _pci_entry(taken, card)) is not None]


def _pci_entry(taken: Taken, card: _Element) -> str | None:
    source, address = card.find("source"), card.find("source/address")
    if source is None or address is None or card.get("mode", "subsystem") != "subsystem":
        return None
    domain, bus, slot, function = (_hex(address.get(name)) for name in ("domain", "bus", "slot", "function"))
    if bus is None or slot is None:
        return None
    for one in (card, source, address):
        taken.see(one)
        taken.take(one, *map(str, one.attrib))
    taken.take(taken.child(card, "driver"), "name")
    permissive = ",permissive=1" if source.get("writeFiltering") == "no" else ""
    return f"{domain or 0:04x}:{bus:02x}:{slot:02x}.{function or 0:x}{permissive}"


def _hex(text: str | None) -> int | None:
    if text is None or not re.fullmatch(r"0[xX][0-9a-fA-F]{1,4}|[0-9]{1,5}", text, re.ASCII):
        return None
    return int(text, 16) if text[:2] in ("0x", "0X") else int(text)


def read_numa(sheet: Sheet, draft: Draft) -> None:
    """Add `<cpu><numa>`."""
    if not sheet.has("vnuma"):
        return
    value = sheet.settings["vnuma"].value
    nodes = value.values if isinstance(value, Items) else ()
    if isinstance(value, Text) or not all(isinstance(node, Items) for node in nodes) or len(nodes) > MOST_NODES:
        help = 'vnuma = [ [ "pnode=0", "size=1024", "vcpus=0-1", "vdistances=10,20" ], … ]'
        sheet.fault("T118", value.source, "vnuma is not a list of lists", help, "vnuma")
        return
    if not nodes:
        return
    numa = draft.add(draft.add(draft.root, "cpu", at=value.source), "numa")
    for number, node in enumerate(nodes):
        assert isinstance(node, Items)
        texts = [one for one in node.values if isinstance(one, Text)]
        found = {text.value.partition("=")[0].strip(): text for text in texts}
        values = {key: Text(text.value.partition("=")[2].strip(), text.source) for key, text in found.items()}
        element = f"vnuma[{number + 1}]"
        size, cpus = values.get("size"), values.get("vcpus")
        unknown = sorted(values.keys() - {"pnode", "size", "vcpus", "vdistances"})
        if size is None or cpus is None or unknown or not _CPUS.fullmatch(cpus.value):
            problem = (
                f"{shown(unknown[0])} is no option of {element}" if unknown else f"{element} lacks size or vcpus"
            )
            sheet.fault("T119", node.source, problem, "possible: pnode, size, vcpus, vdistances", element)
            continue
        megabytes = sheet.as_number(size, "size", element=element) or 0
        cell = draft.add(
            numa,
            "cell",
            {"id": number, "cpus": cpus, "memory": megabytes * 1024, "unit": "KiB"},
            at=node.source,
        )
        pnode = values.get("pnode")
        if pnode is not None and pnode.value != str(number):
            sheet.keep(
                Kept("vnuma", Text(node_text(texts), node.source), node.source, number, f"pnode={pnode.value}")
            )
        if "vdistances" in values:
            distances = draft.add(cell, "distances", at=values["vdistances"].source)
            for sibling, distance in enumerate(values["vdistances"].value.split(",")):
                draft.add(distances, "sibling", {"id": sibling, "value": distance.strip()})


def node_text(texts: list[Text]) -> str:
    """Return a node's entries as one string, for a message."""
    return ",".join(text.value for text in texts)


def write_numa(taken: Taken) -> list[list[str]]:
    """Return the entries of `<cpu><numa>`; a distance that is missing is that of the way back."""
    cells = taken.children(taken.child(taken.child(taken.root, "cpu"), "numa"), "cell")
    taken.take(taken.root.find("cpu"), "mode", "match", "check")
    distances: dict[tuple[int, int], int] = {}
    for number, cell in enumerate(cells):
        for sibling in taken.children(taken.child(cell, "distances"), "sibling"):
            id, value = taken.attribute(sibling, "id") or "", taken.attribute(sibling, "value") or ""
            if id.isdigit() and value.isdigit() and len(id) < 5 and len(value) < 5:
                distances[number, int(id)] = int(value)
    found = []
    for number, cell in enumerate(cells):
        taken.take(cell, "id", "unit")
        cpus, memory = taken.attribute(cell, "cpus") or "", taken.attribute(cell, "memory") or "0"
        kib = to_kib(memory, cell.get("unit"))
        row = [
            distances.get((number, other), distances.get((other, number), SAME if other == number else OTHER))
            for other in range(len(cells))
        ]
        found.append(
            [
                f"pnode={number}",
                f"size={(kib or 0) // 1024}",
                f"vcpus={cpus}",
                f"vdistances={','.join(map(str, row))}",
            ]
        )
    return found


_UNITS = {
    "b": 1,
    "bytes": 1,
    "KB": 1000,
    "k": 1024,
    "KiB": 1024,
    "MB": 1000**2,
    "M": 1024**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "G": 1024**3,
    "GiB": 1024**3,
    "TB": 1000**4,
    "T": 1024**4,
    "TiB": 1024**4,
}


def to_kib(text: str, unit: str | None) -> int | None:
    """Return an amount of memory in KiB, rounded up as libvirt does; None where it is no number."""
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        return None
    return -(-int(text) * _UNITS.get(unit or "KiB", 1024) // 1024)
