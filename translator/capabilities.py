"""What a document may ask for on a host, as enumerations, in the manner of libvirt's domain capabilities.

The registry's facts, as those of the manual, but for one kind of domain, and where a QEMU was asked, what it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import msgspec

from translator.layouts import layout_named
from translator.models import DEVICE_KINDS, MODELS, Ports, Speed, automatic, hot_plugs, machine_row
from translator.ports import DEPTH
from translator.topology import ElementKind, Family, Guest, Hypervisor, Type
from translator.topology import Layout as LayoutName

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lxml.etree import _Element

    from translator.drivers import Driver
    from translator.models import Model

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
    added while the guest runs.
    """

    name: str
    aliases: tuple[str, ...]
    type: Type
    version: int | None
    interface: str
    driver: str | None
    layouts: tuple[LayoutName, ...]
    ports: Ports
    speeds: tuple[Speed, ...]
    hotplug: bool


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

    def offers(row: Model) -> bool:
        if domain.hypervisor not in row.hypervisors or not has(row.driver):
            return False
        if row.kind.type == "emulated":
            return domain.guest == "hvm" and (row.x86 or domain.arch not in ("x86_64", "i686"))
        return any(_records(layout, row) for layout in layouts)

    names = dict.fromkeys(
        (*(row.family for row in MODELS.values()), *(kind.family for kind in DEVICE_KINDS.values()))
    )
    families = []
    for family in names:
        models = [row for row in MODELS.values() if row.family == family and offers(row)]
        modelless, default = _unasked(domain) if models else (None, None)
        families.append(
            FamilyOffer(
                family=family,
                types=tuple(dict.fromkeys(row.kind.type for row in models)),
                versions=tuple(sorted({row.kind.version for row in models if row.kind.version is not None})),
                modelless=modelless,
                default=default,
                depth=DEPTH if family == "usb" else None,
                controllers=tuple(_controller(row, domain, layouts) for row in models),
                devices=tuple(_devices(family, domain, has)),
            )
        )
    return Capabilities(domain=domain, qemu=qemu, layouts=layouts, families=tuple(families))


def _records(layout: Layout, row: Model) -> bool:
    """Tell whether a layout can record the model: any but a paravirtual one of a version that it has no word for."""
    return row.kind.type in ("emulated", "none") or row.kind.version in layout.versions


def _unasked(domain: Kind) -> tuple[str | None, str | None]:
    if domain.hypervisor == "xen":
        return automatic(domain.guest, usbback=False).name, None
    machine = machine_row(domain.machine)
    return machine.modelless, machine.default


def _controller(row: Model, domain: Kind, layouts: tuple[Layout, ...]) -> Controller:
    recorded = [layout for layout in layouts if _records(layout, row)]
    return Controller(
        name=row.name,
        aliases=row.aliases,
        type=row.kind.type,
        version=row.kind.version,
        interface=row.interface,
        driver=row.driver,
        layouts=tuple(layout.name for layout in recorded),
        ports=recorded[0].ports if row.kind.type in ("pv", "qusb") else row.ports,
        speeds=row.speeds,
        hotplug=row.kind.type != "none" and hot_plugs(row, domain.machine),
    )


def _devices(family: Family, domain: Kind, has: Callable[[str | None], bool]) -> list[Device]:
    found = []
    for kind in DEVICE_KINDS.values():
        drivers = tuple(driver for driver in (kind.driver, *kind.others) if domain.guest == "hvm" and has(driver))
        # what is given to a paravirtual controller needs no driver
        if kind.family == family and (drivers or (kind.kind == "hostdev" and domain.hypervisor == "xen")):
            found.append(Device(kind=kind.kind, drivers=drivers, speeds=kind.speeds))
    return found


# Forms


def to_json(offer: Capabilities) -> str:
    """Return them as JSON."""
    wire = msgspec.to_builtins(offer)
    for layout in wire["layouts"]:
        layout["ports"] = Ports(*layout["ports"])._asdict()
    for family in wire["families"]:
        for controller in family["controllers"]:
            controller["ports"] = Ports(*controller["ports"])._asdict()
    return msgspec.json.format(msgspec.json.encode(wire), indent=2).decode() + "\n"


# The element and attribute that each kind is told by, as `<input type='tablet' bus='usb'/>`.
_ELEMENTS: dict[ElementKind, tuple[str, dict[str, str]]] = {
    "hub": ("hub", {"type": "usb"}),
    "hostdev": ("hostdev", {"mode": "subsystem", "subsysType": "usb"}),
    "tablet": ("input", {"type": "tablet", "bus": "usb"}),
    "mouse": ("input", {"type": "mouse", "bus": "usb"}),
    "keyboard": ("input", {"type": "keyboard", "bus": "usb"}),
    "redirdev": ("redirdev", {"bus": "usb"}),
    "disk": ("disk", {"bus": "usb"}),
    "serial": ("serial", {"targetType": "usb-serial"}),
    "sound": ("sound", {"model": "usb"}),
    "net": ("interface", {"model": "usb-net"}),
    "ccid": ("controller", {"type": "ccid"}),
    "smartcard": ("smartcard", {"mode": "host", "address": "ccid"}),
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
            add(*_ELEMENTS[device.kind])
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
