"""The hardware manual, made from the registry: `translator models`, and `docs/models.md`."""

from __future__ import annotations

import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from translator.families import families
from translator.registry.knob import OLDEST_QEMU, spelled
from translator.registry.knobs import groups, knobs_of
from translator.registry.models import XEN_MACHINES, DeviceKind, hot_plugs
from translator.registry.rows import kinds, models

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from translator.registry.knob import Knob
    from translator.registry.models import Model
    from translator.topology import Guest, Hypervisor, Type

FORMAT = "translator-models/1"
IMPLEMENTATIONS: dict[Type, str] = {
    "emulated": "emulated by QEMU",
    "pv": "paravirtual, served by the kernel of the backend domain",
    "qusb": "paravirtual, served by QEMU",
    "none": "nobody: it says that there is none",
}
_WIDTH = 100


class Column(NamedTuple):
    """One machine type of each manner, with the domains that have it: a column of the manual."""

    machine: str
    arch: str
    hypervisor: Hypervisor = "kvm"
    guest: Guest = "hvm"


MACHINES = (
    Column("pc", "x86_64"),
    Column("q35", "x86_64"),
    Column("virt", "aarch64"),
    Column("pseries", "ppc64"),
    Column(XEN_MACHINES["hvm"], "x86_64", "xen"),
)


class Selection(NamedTuple):
    """The rows that a reader asks for."""

    models: tuple[Model, ...]
    devices: tuple[DeviceKind, ...]

    @property
    def rows(self) -> tuple[Model | DeviceKind, ...]:
        """All of them."""
        return (*self.models, *self.devices)


def everything() -> Selection:
    """Return all rows of the registry."""
    return Selection(models(), kinds())


# Facts, as a reader wants them


def _ports(row: Model) -> str:
    ports = row.ports
    return str(ports.default) if ports.fixed else f"{ports.least}-{ports.most} ({ports.default})"


def _version(row: Model) -> str:
    return "-" if row.kind.version is None else str(row.kind.version)


def _alike(row: Model) -> list[str]:
    """Return the other models with the same interface: the guest needs no other driver for them."""
    if row.interface == row.family:
        return []
    return [
        one.name
        for one in models()
        if (one.family, one.interface) == (row.family, row.interface) and one.name != row.name and one.refused is None
    ]


def _facts(row: Model) -> Iterator[tuple[str, str]]:
    yield "interface", row.interface + (f", as {_listed(_alike(row))}" if _alike(row) else "")
    if row.refused is not None:
        yield "refused", row.refused
        return
    yield "implementation", IMPLEMENTATIONS[row.kind.type]
    if row.drivers:
        yield "QEMU driver", " or ".join(row.drivers)
    yield from row.told()
    yield "domains", ", ".join(row.hypervisors) + (f"; on {', '.join(row.arches)} alone" if row.arches else "")
    if row.kind.type != "none":
        yield "hot-plug", _hot_plug(row)
    if row.canonical and row.kind.version is not None:
        yield "stands for", f"type {row.kind.type} version {row.kind.version}, in every release"
    if row.aliases:
        yield "also called", ", ".join(row.aliases)


def _plugs(row: Model, column: Column) -> bool:
    """Return whether the model can be added to a running machine of that type, where it exists at all."""
    return row.kind.type != "none" and row.exists(column) and hot_plugs(row, column.machine)


def _hot_plug(row: Model) -> str:
    there = [column for column in MACHINES if row.exists(column)]
    able = [column.machine for column in there if hot_plugs(row, column.machine)]
    if not able:
        return "never: it is there from the start"
    unable = [column.machine for column in there if column.machine not in able]
    return f"on {_listed(able)}" + (f"; on {_listed(unable)} QEMU must start with it" if unable else "")


def _device_facts(kind: DeviceKind) -> Iterator[tuple[str, str]]:
    yield "QEMU driver", " or ".join(kind.drivers)
    yield "plugs into", f"controllers of family {kind.family}"
    if kind.ports:
        yield "ports", str(kind.ports)
    if kind.speeds:
        yield "speeds", ", ".join(kind.speeds)
    elif kind.family == "usb":
        yield "speeds", "those of the device that is passed through"
    if kind.prefix:
        yield "ids", f"{kind.prefix}0, {kind.prefix}1, … unless the document of a QEMU domain has an alias"


def _default(knob: Knob) -> str:
    return "-" if knob.default is None else spelled(knob.default)


def _origin(knob: Knob) -> str:
    """Return how a document says it."""
    if knob.ours:
        return knob.xml or "translator"
    return f"{knob.xml} or qemu:override" if knob.xml else "qemu:override"


# Text


def table(rows: Iterable[Model]) -> str:
    """Return the table of controller models."""
    lines = [("FAMILY", "MODEL", "TYPE", "VERSION", "INTERFACE", "PORTS", "QEMU DRIVER", "HOT-PLUG")]
    for row in rows:
        facts = (row.family, row.name, row.kind.type, _version(row), row.interface, _ports(row))
        lines.append(
            (*facts, row.own_driver or "-", "yes" if any(_plugs(row, column) for column in MACHINES) else "no")
        )
    return columns(lines)


def device_table(kinds: Iterable[DeviceKind]) -> str:
    """Return the table of device kinds."""
    lines = [("FAMILY", "DEVICE", "SPEEDS", "QEMU DRIVER")]
    for kind in kinds:
        lines.append((kind.family, kind.kind, ",".join(kind.speeds) or "-", ",".join(kind.drivers)))
    return columns(lines)


def detail(selection: Selection) -> str:
    """Return all that is known of the rows, properties included."""
    parts = [
        *(_entry(f"{row.name}: {row.family} controller", _facts(row), row.drivers) for row in selection.models),
        *(_entry(f"{row.kind}: {row.family} device", _device_facts(row), row.drivers) for row in selection.devices),
    ]
    return "\n".join(parts)


def _entry(title: str, facts: Iterable[tuple[str, str]], drivers: Iterable[str]) -> str:
    lines = [title, *(f"  {name:14}  {value}" for name, value in facts)]
    for driver in drivers:
        lines += ["", f"Properties of {driver}:"]
        for knob in knobs_of(driver).values():
            head = f"  {knob.name} ({knob.type}: {knob.possible}; default {_default(knob)}; {_origin(knob)})"
            lines += [head, *textwrap.wrap(knob.does, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    return "\n".join(lines) + "\n"


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Return the lines as columns, each as wide as its widest cell."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(line.rstrip() + "\n" for line in padded)


# JSON


def to_json(selection: Selection) -> str:
    """Return the rows with all their properties, as JSON."""
    document = {
        "format": FORMAT,
        "models": [_model_json(row) for row in selection.models],
        "devices": [
            {
                "family": kind.family,
                "kind": kind.kind,
                "speeds": kind.speeds,
                "ports": kind.ports,
                "drivers": _drivers_json(kind),
            }
            for kind in selection.devices
        ],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _model_json(row: Model) -> dict[str, Any]:
    return {
        "family": row.family,
        "name": row.name,
        "aliases": row.aliases,
        "type": row.kind.type,
        "version": row.kind.version,
        "canonical": row.canonical,
        "interface": row.interface,
        "driver": row.own_driver,
        "refused": row.refused,
        "ports": row.ports._asdict(),
        **row.features(),
        "hypervisors": row.hypervisors,
        "arches": row.arches,
        "hotplug": {column.machine: _plugs(row, column) for column in MACHINES},
        "drivers": _drivers_json(row),
    }


def _drivers_json(row: Model | DeviceKind) -> list[dict[str, Any]]:
    return [{"driver": driver, "properties": _knobs_json(driver)} for driver in row.drivers]


def _knobs_json(driver: str) -> list[dict[str, Any]]:
    return [
        {
            "name": knob.name,
            "type": knob.type,
            "default": knob.default,
            "range": knob.range,
            "words": knob.choices,
            "since": knob.since,
            "xml": knob.xml,
            "override": not knob.ours,
            "does": knob.does,
        }
        for knob in knobs_of(driver).values()
    ]


# Markdown


def markdown(selection: Selection) -> str:
    """Return the rows as a chapter of the manual, family by family; each group of properties stands there once."""
    lines: list[str] = []
    titles = {family.name: family.title for family in families()}
    for family in dict.fromkeys(row.family for row in selection.rows):
        models = [row for row in selection.models if row.family == family]
        devices = [row for row in selection.devices if row.family == family]
        lines += [*([""] if lines else []), f"## {titles.get(family, family)}"]
        if models:
            lines += ["", *_model_grid(models)]
        if devices:
            lines += ["", *_device_grid(devices)]
        for row in models:
            lines += _section(row, row.name, _facts(row))
        for kind in devices:
            lines += _section(kind, f"{kind.kind}: {' or '.join(kind.drivers)}", _device_facts(kind))
    used = {group for row in selection.rows for group in row.knobs}
    if used:
        lines += ["", "## Properties that many have"]
    for group, knobs in groups().items():
        if group in used:
            lines += ["", f'<a id="properties-{group}"></a>', "", f"### {_GROUP_TITLES.get(group, group)}", ""]
            lines += _knob_grid(knobs)
    return "\n".join(lines) + "\n"


def _model_grid(rows: Iterable[Model]) -> list[str]:
    return _grid(
        ("model", "type", "version", "interface", "ports", "QEMU driver", *(column.machine for column in MACHINES)),
        (
            (
                _linked(row, row.name),
                row.kind.type,
                _version(row),
                row.interface,
                _short(_ports(row)),
                row.own_driver or "-",
                *("yes" if _plugs(row, column) else "-" for column in MACHINES),
            )
            for row in rows
        ),
    )


def _device_grid(rows: Sequence[DeviceKind]) -> list[str]:
    speeds = ("speeds",) if any(row.speeds for row in rows) else ()
    cells = [(_linked(row, row.kind), " or ".join(row.drivers), ", ".join(row.speeds) or "-") for row in rows]
    return _grid(("device", "QEMU driver", *speeds), (line[: 2 + len(speeds)] for line in cells))


def _anchor(row: Model | DeviceKind) -> str:
    return f"{row.family}-{row.driver if isinstance(row, DeviceKind) else row.name}"


def _linked(row: Model | DeviceKind, text: str) -> str:
    return f"[{text}](#{_anchor(row)})"


_GROUP_TITLES = {
    "pci": "Every PCI device",
    "uhci": "UHCI",
    "companion": "Companions",
    "ehci": "EHCI",
    "xhci": "xHCI",
    "usb": "Every USB device",
    "card": "Every smartcard",
    "pcie-port": "PCI Express ports",
    "pcie-slot": "Slots of PCI Express",
    "expander": "PCI expanders",
    "virtio": "Every virtio controller",
    "virtio-scsi": "Virtio SCSI",
    "virtio-serial": "Virtio serial",
    "virtio-port": "Virtio serial ports",
    "scsi": "Every SCSI device",
    "scsi-disk": "SCSI disks and CD-ROMs",
    "block": "Every disk that QEMU emulates",
    "errors": "What to do about errors",
    "medium": "What a disk stands on",
    "geometry": "A disk's geometry",
    "ata": "ATA drives",
}
_PREFACE = f"""# Models

What there is to choose from: every controller model and every device kind, and each property that QEMU has for it.
`translator models` prints the table, `translator models NAME` an entry, `--format json` all of it for programs,
and `--probe` what of it a running QEMU has.

The rows stand family by family, as `<controller type='…'>` names them. A model stands for a *type*, which is who
provides it, and with USB a *version*, which is the USB generation. Where several models of a family have one
*interface*, the guest drives them with one driver. *Ports* are how many devices a controller takes; a range is
followed by the number when none is asked for. The columns of machine types tell where a controller can be added while
the guest runs: QEMU has no hot-plug on the first bus of PCI Express, where `attach` takes a free root port, and what
opens a bus for others is there from the start.

A property is set by the document where its entry names an element or attribute, which is counted from the
`<controller>` or the device, and otherwise by `<qemu:override>`:

```xml
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  …
  <qemu:override>
    <qemu:device alias='usb'>
      <qemu:frontend>
        <qemu:property name='slots' type='unsigned' value='32'/>
      </qemu:frontend>
    </qemu:device>
  </qemu:override>
</domain>
```

*Since* is the QEMU release that brought a property; nothing there means {OLDEST_QEMU} or before, as far
as is known. Types and defaults are those of QEMU 7.2.
"""


def manual() -> str:
    """Return docs/models.md."""
    return f"{_PREFACE}\n{markdown(everything())}"


def _section(row: Model | DeviceKind, title: str, facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield from ("", f'<a id="{_anchor(row)}"></a>', "", f"### {title}", "")
    yield from (f"- {fact}: {value}" for fact, value in facts)
    own = [driver for driver in row.drivers if driver in groups()]
    if row.drivers and (row.knobs or own):
        shared = ", ".join(f"[{_GROUP_TITLES.get(group, group)}](#properties-{group})" for group in row.knobs)
        yield f"- properties: {shared}" + ("; and" if shared and own else "") if shared else "- properties:"
    for driver in own:
        yield from (("", f"Of `{driver}`:") if len(row.drivers) > 1 else ())
        yield ""
        yield from _knob_grid(groups()[driver])


def _knob_grid(knobs: Iterable[Knob]) -> list[str]:
    return _grid(
        ("property", "type", "values", "default", "since", "from", "what it is for"),
        (
            (
                f"`{knob.name}`",
                knob.type,
                _short(knob.possible),
                _short(_default(knob)),
                knob.since or "",
                _origin(knob),
                knob.does,
            )
            for knob in sorted(knobs, key=lambda knob: knob.name)
        ),
    )


def _short(text: str) -> str:
    """Return a text with its large round numbers as powers of two."""

    def power(match: re.Match[str]) -> str:
        number = int(match[0])
        for rest, round in (("", number), (" - 1", number + 1)):
            if round.bit_count() == 1:
                return f"2^{round.bit_length() - 1}{rest}"
        return match[0]

    return re.sub(r"\b[0-9]{7,}\b", power, text)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


if __name__ == "__main__":
    sys.stdout.write(manual())
