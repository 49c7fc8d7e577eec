"""What a document may ask for on a host, as enumerations, in the manner of libvirt's domain capabilities.

The registry's facts, as those of the manual, but for one kind of domain, and where a QEMU was asked, what it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import msgspec

from translator.families import families as all_families
from translator.layouts import layout_named
from translator.registry.models import Ports, Speed, hot_plugs
from translator.topology import PARAVIRTUAL_TYPES, ElementKind, Family, Guest, Hypervisor, Type
from translator.topology import Layout as LayoutName

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from lxml.etree import _Element

    from translator.live.drivers import Driver
    from translator.registry.models import DeviceKind, Model

FORMAT = "translator-capabilities/1"


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """Which domain this is about."""

    hypervisor: Hypervisor
    guest: Guest
    arch: str
    machine: str


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """One layout of a host's records, with the paravirtual controllers that it has words for."""

    name: LayoutName
    versions: tuple[int, ...]
    ports: Ports


class Controller(msgspec.Struct, frozen=True, kw_only=True):
    """One controller model.

    `layouts` are those that can record it, `ports` those of the first that can, and `hotplug` is whether it can be
    added while the guest runs. `features` are its family's own.
    """

    name: str
    aliases: tuple[str, ...]
    type: Type
    version: int | None
    interface: str
    driver: str | None
    layouts: tuple[LayoutName, ...]
    ports: Ports
    hotplug: bool
    features: dict[str, int | bool | tuple[str, ...] | dict[str, int] | None]


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of device, with those of its drivers that there are; none on a paravirtual controller."""

    kind: ElementKind
    drivers: tuple[str, ...]
    speeds: tuple[Speed, ...]


class FamilyOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What one family offers.

    `modelless` is the model of a controller that names none, `default` that of the controller that a domain gets
    without asking for one; None: there is none. `depth` is how many ports a path has at most.
    """

    family: Family
    types: tuple[Type, ...]
    versions: tuple[int, ...]
    modelless: str | None
    default: str | None
    depth: int | None
    controllers: tuple[Controller, ...]
    devices: tuple[Device, ...]


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """All that a document may ask for; `qemu` is the version of the one that was asked."""

    format: str = FORMAT
    domain: Kind
    qemu: str | None
    layouts: tuple[Layout, ...]
    families: tuple[FamilyOffer, ...]


def capabilities(
    domain: Kind, *, qemu: str | None = None, drivers: Mapping[str, Driver | None] | None = None
) -> Capabilities:
    """Return what a domain may have.

    Args:
        qemu: the version of the QEMU that was asked.
        drivers: what it has, None for what it lacks; without it, all of the registry.
    """
    layouts = tuple(
        Layout(name=name, versions=layout.pv_versions, ports=layout.pv_ports)
        for name in get_args(LayoutName)
        if (name == "qemu") != (domain.hypervisor == "xen")
        for layout in [layout_named(name)]
    )

    def has(driver: str | None) -> bool:
        return driver is None or drivers is None or drivers.get(driver) is not None

    found = []
    for family in all_families():
        models = [
            row
            for row in family.models.values()
            if row.exists(domain) and any(_records(layout, row) for layout in layouts)
            # what a machine has of itself needs no driver that could be added
            if has(row.own_driver) or row.name == family.unasked(domain)
        ]
        types = tuple(dict.fromkeys(row.kind.type for row in models))
        # what smartcard readers take, which are USB devices themselves, has a family of its own
        for name in dict.fromkeys((family.name, *(kind.family for kind in family.kinds))):
            own = models if name == family.name else []
            found.append(
                FamilyOffer(
                    family=name,
                    types=types if own else (),
                    versions=tuple(sorted({row.kind.version for row in own if row.kind.version is not None})),
                    modelless=family.modelless(domain) if own else None,
                    default=family.unasked(domain) if own else None,
                    depth=family.depth if name == family.name else None,
                    controllers=tuple(_controller(row, domain, layouts) for row in own),
                    devices=_devices((kind for kind in family.kinds if kind.family == name), types, has),
                )
            )
    return Capabilities(domain=domain, qemu=qemu, layouts=layouts, families=tuple(found))


def _records(layout: Layout, row: Model) -> bool:
    """Tell whether a layout can record the model: any but a paravirtual one of a version that it has no word for."""
    return row.kind.type == "emulated" or row.kind.version in (None, *layout.versions)


def _controller(row: Model, domain: Kind, layouts: tuple[Layout, ...]) -> Controller:
    recorded = [layout for layout in layouts if _records(layout, row)]
    return Controller(
        name=row.name,
        aliases=row.aliases,
        type=row.kind.type,
        version=row.kind.version,
        interface=row.interface,
        driver=row.own_driver,
        layouts=tuple(layout.name for layout in recorded),
        ports=recorded[0].ports if row.kind.type != "emulated" and row.kind.version else row.ports,
        hotplug=row.kind.type != "none" and hot_plugs(row, domain.machine),
        features=row.features(),
    )


def _devices(
    kinds: Iterable[DeviceKind], types: Collection[Type], has: Callable[[str | None], bool]
) -> tuple[Device, ...]:
    """Return the kinds that there are, each once; what is given to a paravirtual controller needs no driver."""
    found: dict[ElementKind, Device] = {}
    for kind in kinds:
        drivers = tuple(driver for driver in kind.drivers if "emulated" in types and has(driver))
        if drivers or (kind.kind == "hostdev" and not set(types).isdisjoint(PARAVIRTUAL_TYPES)):
            before = found[kind.kind].drivers if kind.kind in found else ()
            found[kind.kind] = Device(kind=kind.kind, drivers=(*before, *drivers), speeds=kind.speeds)
    return tuple(found.values())


# Forms


def to_json(offer: Capabilities) -> str:
    """Return them as JSON."""
    wire = msgspec.to_builtins(offer)
    for layout in wire["layouts"]:
        layout["ports"] = Ports(*layout["ports"])._asdict()
    for family in wire["families"]:
        for controller in family["controllers"]:
            controller["ports"] = Ports(*controller["ports"])._asdict()
            controller |= controller.pop("features")
    return msgspec.json.format(msgspec.json.encode(wire), indent=2).decode() + "\n"


# The element and attributes that each kind is told by, as `<input type='tablet' bus='usb'/>`; a bus is its family's.
_ELEMENTS: dict[ElementKind, tuple[str, dict[str, str]]] = {
    "hub": ("hub", {"type": "usb"}),
    "hostdev": ("hostdev", {"mode": "subsystem", "subsysType": "{family}"}),
    "tablet": ("input", {"type": "tablet", "bus": "{family}"}),
    "mouse": ("input", {"type": "mouse", "bus": "{family}"}),
    "keyboard": ("input", {"type": "keyboard", "bus": "{family}"}),
    "redirdev": ("redirdev", {"bus": "{family}"}),
    "disk": ("disk", {"bus": "{family}"}),
    "serial": ("serial", {"targetType": "{family}-serial"}),
    "sound": ("sound", {"model": "{family}"}),
    "net": ("interface", {"model": "{family}-net"}),
    "ccid": ("controller", {"type": "ccid"}),
    "smartcard": ("smartcard", {"mode": "host", "address": "{family}"}),
    "channel": ("channel", {"targetType": "virtio"}),
    "console": ("console", {"targetType": "virtio"}),
}


def to_xml(offer: Capabilities) -> str:
    """Return them as XML, whose enumerations are libvirt's; what libvirt has no word for stands beside them."""
    from lxml import etree

    root = etree.Element("domainCapabilities")
    words = {"domain": offer.domain.hypervisor, "machine": offer.domain.machine, "arch": offer.domain.arch}
    for name, value in words.items():
        etree.SubElement(root, name).text = value
    if offer.qemu is not None:
        etree.SubElement(root, "qemu").text = offer.qemu

    _enums(etree.SubElement(root, "os", supported="yes"), {"type": {offer.domain.guest: None}})

    devices = etree.SubElement(root, "devices")
    for tag, lists in _lists(offer).items():
        _enums(etree.SubElement(devices, tag, supported="yes"), lists)

    models = etree.SubElement(root, "models")
    for family in offer.families:
        for one in family.controllers:
            version = {} if one.version is None else {"version": str(one.version)}
            facts = {
                "family": family.family,
                "name": one.name,
                "type": one.type,
                **version,
                "interface": one.interface,
            }
            if one.driver is not None:
                facts["driver"] = one.driver
            element = etree.SubElement(models, "model", facts | {"hotplug": "yes" if one.hotplug else "no"})
            etree.SubElement(element, "ports", _ports(one.ports))
    layouts = etree.SubElement(root, "layouts")
    for layout in offer.layouts:
        element = etree.SubElement(layouts, "layout", name=layout.name)
        for number in layout.versions:
            etree.SubElement(element, "version").text = f"{number}"
        if layout.versions:
            etree.SubElement(element, "ports", _ports(layout.ports))
    return etree.tostring(root, encoding="unicode", pretty_print=True)


# The values of an element's attributes, by element and attribute, each value once and in order.
_Lists = dict[str, dict[str, dict[str, None]]]


def _lists(offer: Capabilities) -> _Lists:
    lists: _Lists = {}

    def add(tag: str, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            lists.setdefault(tag, {}).setdefault(name, {})[value] = None

    for family in offer.families:
        for model in family.controllers:
            name = family.family
            add("controller", {"type": name, f"{name}Model": model.name, f"{name}Type": model.type})
            if model.version is not None:
                add("controller", {f"{name}Version": str(model.version)})
        for device in family.devices:
            tag, values = _ELEMENTS[device.kind]
            add(tag, {word: value.format(family=family.family) for word, value in values.items()})
    return lists


def _enums(element: _Element, lists: Mapping[str, Mapping[str, None]]) -> None:
    from lxml import etree

    for name, values in lists.items():
        listed = etree.SubElement(element, "enum", name=name)
        for value in values:
            etree.SubElement(listed, "value").text = value


def _ports(ports: Ports) -> dict[str, str]:
    return {name: str(number) for name, number in ports._asdict().items()}


FORMATS: Mapping[str, Callable[[Capabilities], str]] = {"json": to_json, "xml": to_xml}
