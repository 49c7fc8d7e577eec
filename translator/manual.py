"""The hardware manual, made from the registry: `translator models`, and `docs/models.md`."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from translator.knob import OLDEST_QEMU
from translator.knobs import GROUPS, knobs_of
from translator.models import DEVICE_KINDS, MODELS, XEN_MACHINES, hot_plugs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from translator.knob import Knob
    from translator.models import DeviceKind, Model
    from translator.topology import Type

FORMAT = "translator-models/1"
# One machine type of each manner, as the manual's columns.
MACHINES = ("pc", "q35", "virt", "pseries", XEN_MACHINES["hvm"])
IMPLEMENTATIONS: dict[Type, str] = {
    "emulated": "emulated by QEMU",
    "pv": "served by the kernel's usbback in the backend domain",
    "qusb": "served by QEMU's paravirtual backend",
    "none": "nobody: it says that there is no USB",
}
_WIDTH = 100


class Selection(NamedTuple):
    """The rows that a reader asks for."""

    models: tuple[Model, ...] = tuple(MODELS.values())
    devices: tuple[DeviceKind, ...] = tuple(DEVICE_KINDS.values())


# Facts, as a reader wants them


def drivers_of(kind: DeviceKind) -> tuple[str, ...]:
    """Return QEMU's drivers of a device kind."""
    return (kind.driver, *kind.others)


def _ports(row: Model) -> str:
    ports = row.ports
    return str(ports.default) if ports.fixed else f"{ports.least}-{ports.most} ({ports.default})"


def _version(row: Model) -> str:
    return "-" if row.kind.version is None else str(row.kind.version)


def _alike(row: Model) -> list[str]:
    """Return the other models with the same interface: the guest needs no other driver for them."""
    return [one.name for one in MODELS.values() if one.interface == row.interface and one is not row]


def _facts(row: Model) -> Iterator[tuple[str, str]]:
    yield "interface", row.interface + (f", as {_listed(_alike(row))}" if _alike(row) else "")
    yield "implementation", IMPLEMENTATIONS[row.kind.type]
    if row.driver:
        yield "QEMU driver", row.driver
    if row.startport is not None:
        yield "ports", f"its master's, from port {row.startport + 1} on"
    elif not row.ports.fixed:
        yield "ports", f"{max(row.ports.least, 1)} to {row.ports.most}, {row.ports.default} when not said"
    else:
        yield "ports", str(row.ports.default)
    if row.speeds:
        yield "speeds", ", ".join(row.speeds)
    if row.companion:
        yield "companion", "of an EHCI controller" + ("" if row.startport is not None else ", or on its own")
    yield "domains", ", ".join(row.hypervisors) + ("" if row.x86 else "; not on PCs")
    if row.kind.type != "none":
        yield "hot-plug", _hot_plug(row)
    if row.canonical and row.kind.version is not None:
        yield "stands for", f"type {row.kind.type} version {row.kind.version}, in every release"
    if row.aliases:
        yield "also called", ", ".join(row.aliases)


def _plugs(row: Model, machine: str) -> bool:
    """Return whether the model can be added to a running machine of that type, where it exists at all."""
    exists = row.kind.type != "none" and (row.driver is not None or machine == XEN_MACHINES["hvm"])
    return exists and hot_plugs(row, machine)


def _hot_plug(row: Model) -> str:
    if row.driver is None:
        return "on every machine"
    able = [machine for machine in MACHINES if hot_plugs(row, machine)]
    unable = [machine for machine in MACHINES if machine not in able]
    if not able:
        return "never: QEMU must start with it"
    return f"on {', '.join(able)}; on {' and '.join(unable)} QEMU must start with it"


def _device_facts(kind: DeviceKind) -> Iterator[tuple[str, str]]:
    yield "QEMU driver", " or ".join(drivers_of(kind))
    yield "on", "a port of a smartcard reader" if kind.family == "ccid" else "a USB port"
    if kind.ports:
        yield "ports", str(kind.ports)
    if kind.speeds:
        yield "speeds", ", ".join(kind.speeds)
    elif kind.family == "usb":
        yield "speeds", "those of the device that is passed through"
    yield "ids", f"{kind.prefix}0, {kind.prefix}1, … unless the document of a QEMU domain has an alias"


def _default(knob: Knob) -> str:
    if knob.default is None:
        return "-"
    return str(knob.default).lower() if isinstance(knob.default, bool) else str(knob.default)


def _origin(knob: Knob) -> str:
    """Return how a document says it."""
    if knob.ours:
        return knob.xml or "translator"
    return f"{knob.xml} or qemu:override" if knob.xml else "qemu:override"


# Text


def table(rows: Iterable[Model]) -> str:
    """Return the table of controller models."""
    lines = [("MODEL", "TYPE", "VERSION", "INTERFACE", "PORTS", "QEMU DRIVER", "HOT-PLUG")]
    for row in rows:
        hotplug = "yes" if row.hotplug else "no"
        lines.append((row.name, row.kind.type, _version(row), row.interface, _ports(row), row.driver or "-", hotplug))
    return columns(lines)


def device_table(kinds: Iterable[DeviceKind]) -> str:
    """Return the table of device kinds."""
    lines = [("DEVICE", "ON", "SPEEDS", "QEMU DRIVER")]
    for kind in kinds:
        lines.append((kind.kind, kind.family, ",".join(kind.speeds) or "-", ",".join(drivers_of(kind))))
    return columns(lines)


def detail(selection: Selection) -> str:
    """Return all that is known of the rows, properties included."""
    parts = []
    for row in selection.models:
        title = f"{row.name}: {row.family} controller"
        parts.append(_entry(title, _facts(row), [row.driver] if row.driver else []))
    for kind in selection.devices:
        parts.append(_entry(f"{kind.kind}: {kind.family} device", _device_facts(kind), drivers_of(kind)))
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
                "drivers": [{"driver": driver, "properties": _knobs_json(driver)} for driver in drivers_of(kind)],
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
        "driver": row.driver,
        "ports": row.ports._asdict(),
        "speeds": row.speeds,
        "companion": row.companion,
        "startport": row.startport,
        "hypervisors": row.hypervisors,
        "hotplug": {machine: _plugs(row, machine) for machine in MACHINES},
        "properties": _knobs_json(row.driver) if row.driver else [],
    }


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
    """Return the rows as a chapter of the manual; each group of properties stands there once."""
    lines = ["## Controllers", ""]
    if selection.models:
        lines += _grid(
            ("model", "type", "version", "interface", "ports", "QEMU driver", *MACHINES),
            (
                (
                    f"[{row.name}](#{row.name})",
                    row.kind.type,
                    _version(row),
                    row.interface,
                    _ports(row),
                    row.driver or "-",
                    *("yes" if _plugs(row, machine) else "-" for machine in MACHINES),
                )
                for row in selection.models
            ),
        )
    for row in selection.models:
        lines += _section(row.name, _facts(row), row.knobs, [row.driver] if row.driver else [])
    if selection.devices:
        lines += ["", "## Devices"]
    for kind in selection.devices:
        lines += _section(kind.kind, _device_facts(kind), kind.knobs, drivers_of(kind))
    groups = {group for model in selection.models for group in model.knobs}
    groups |= {group for kind in selection.devices for group in kind.knobs}
    if groups:
        lines += ["", "## Properties that many have"]
    for group in GROUPS:
        if group in groups:
            lines += ["", f'<a id="properties-{group}"></a>', "", f"### {_GROUP_TITLES.get(group, group)}", ""]
            lines += _knob_grid(GROUPS[group])
    return "\n".join(lines) + "\n"


_GROUP_TITLES = {
    "pci": "Every PCI controller",
    "uhci": "UHCI",
    "companion": "Companions",
    "ehci": "EHCI",
    "xhci": "xHCI",
    "usb": "Every USB device",
    "card": "Every smartcard",
}
_PREFACE = f"""# Models

What there is to choose from: every controller model and every device kind, and each property that QEMU has for it.
`translator models` prints the table, `translator models NAME` an entry, `--format json` all of it for programs,
and `--probe` what of it a running QEMU has.

A model stands for a *type*, which is who provides it, and a *version*, which is the USB generation. Where several
models have one *interface*, the guest drives them with one driver. Under *ports*, a range is followed by the number
when none is asked for. The columns of machine types tell where a controller can be added while the guest runs.

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

*Since* is the QEMU release that brought a property; nothing there means {OLDEST_QEMU} or before. Types and defaults
are those of QEMU 7.2.
"""


def manual() -> str:
    """Return docs/models.md."""
    return f"{_PREFACE}\n{markdown(Selection())}"


def _section(
    name: str, facts: Iterable[tuple[str, str]], groups: Iterable[str], drivers: Sequence[str]
) -> Iterator[str]:
    yield from ("", f'<a id="{name}"></a>', "", f"### {name}", "")
    yield from (f"- {fact}: {value}" for fact, value in facts)
    if drivers:
        shared = ", ".join(f"[{_GROUP_TITLES.get(group, group)}](#properties-{group})" for group in groups)
        yield f"- properties: {shared}" + ("; and" if any(driver in GROUPS for driver in drivers) else "")
    for driver in drivers:
        if driver in GROUPS:
            yield from (("", f"Of `{driver}`:") if len(drivers) > 1 else ())
            yield ""
            yield from _knob_grid(GROUPS[driver])


def _knob_grid(knobs: Iterable[Knob]) -> list[str]:
    return _grid(
        ("property", "type", "values", "default", "since", "from", "what it is for"),
        (
            (f"`{knob.name}`", knob.type, knob.possible, _default(knob), knob.since or "", _origin(knob), knob.does)
            for knob in knobs
        ),
    )


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [_row(head), _row(["---"] * len(head)), *map(_row, rows)]


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


if __name__ == "__main__":
    sys.stdout.write(manual())
