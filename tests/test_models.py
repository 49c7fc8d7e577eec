"""The registry: complete, true of the real QEMU, and stable between releases."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from lxml import etree

import translator
from tests.conftest import FIXTURES, PROJECT
from tests.servers import Qemu, QemuArm, QemuPpc, require
from translator.errors import HostError
from translator.families import by_name, families
from translator.families.usb.reading import INPUTS
from translator.hosts.qmp import Qmp
from translator.live.drivers import KnownDrivers
from translator.live.probe import ask, differences
from translator.placing.pci import BOARDS
from translator.registry import manual
from translator.registry import rows as registry
from translator.registry.capabilities import Kind, capabilities
from translator.registry.knobs import groups, knobs_of
from translator.registry.models import (
    CANONICAL,
    DEVICE_KINDS,
    DRIVERS,
    NAMES,
    ControllerKind,
    Model,
    Ports,
    UsbModel,
    hot_plugs,
    machine_row,
)
from translator.units import UnitModel, drives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

# QEMUs of other architectures have these; each of them is asked there.
NOT_ON_PCS = {"vt82c686b-usb-uhci", "spapr-vscsi", "spapr-pci-host-bridge"}


def asked(server: type[Qemu], machine: str, drivers: Iterable[str]) -> dict[str, Any]:
    """Return what a real QEMU says of drivers; None for those that it lacks."""
    require(server)

    async def scenario() -> dict[str, Any]:
        with server(machine=machine) as qemu:
            monitor = await Qmp.connect(qemu.socket)
            found = await ask(monitor, drivers, KnownDrivers())
            await monitor.close()
            return found

    return asyncio.run(scenario())


def test_the_registry_is_the_real_qemus() -> None:
    """In every driver, property, type and default."""
    found = asked(Qemu, "pc", registry.drivers())
    assert {driver for driver in found if found[driver] is None} == NOT_ON_PCS
    assert [str(one) for driver in found.keys() - NOT_ON_PCS for one in differences(driver, found[driver])] == []


def test_what_pcs_have_not_is_a_real_qemus_of_another_architecture() -> None:
    found = asked(QemuPpc, "pseries", NOT_ON_PCS)
    assert [str(one) for driver in found for one in differences(driver, found[driver])] == []


def test_every_group_of_knobs_belongs_to_a_row() -> None:
    named = {group for row in registry.rows() for group in row.knobs}
    assert groups().keys() - named - set(registry.drivers()) == set()
    assert named - groups().keys() == set()
    for row in registry.rows():
        for driver in row.drivers:
            names = [knob.name for group in (*row.knobs, driver) for knob in groups().get(group, ())]
            assert len(names) == len(set(names)), f"{driver} has a property twice"
            assert [*knobs_of(driver)] == sorted(names), f"two rows do not say the same of {driver}"


def test_every_knob_is_explained_and_its_default_possible() -> None:
    for driver in registry.drivers():
        for knob in knobs_of(driver).values():
            assert knob.does[0].isupper(), f"{driver}.{knob.name}"
            assert knob.does.endswith("."), f"{driver}.{knob.name}"
            # the largest number stands for none in what the topology sets itself
            if knob.default is not None and not knob.ours:
                assert knob.fault(knob.default) is None, f"{driver}.{knob.name}"


# What QEMU is told besides the driver, where it asks for more.
PLUGGED: dict[str, dict[str, int]] = {
    "pci-bridge": {"chassis_nr": 1},
    "pcie-root-port": {"chassis": 1},
    "xio3130-downstream": {"chassis": 2},
    "spapr-pci-host-bridge": {"index": 1},
}
REFUSALS = ("pluggable", "hotplug", "not a valid device model", "No 'ISA' bus", "lacks a", "missing or invalid")


@pytest.mark.parametrize(
    ("server", "machine"), [(Qemu, "pc"), (Qemu, "q35"), (QemuArm, "virt"), (QemuPpc, "pseries")], ids=str
)
def test_what_can_be_hot_plugged_is_what_the_real_qemu_plugs(server: type[Qemu], machine: str) -> None:
    require(server)
    column = next(column for column in manual.MACHINES if column.machine == machine)
    rows = {(row.family, row.name): row for row in registry.models() if row.driver}

    async def plugs(monitor: Qmp, row: Model) -> bool:
        arguments = {"driver": row.driver, "id": f"{row.family}-{row.name}", **PLUGGED.get(row.driver or "", {})}
        try:
            await monitor.execute("device_add", arguments)
        except HostError as error:
            if not any(words in error.message for words in REFUSALS):
                raise
            return False
        return True

    async def scenario() -> dict[tuple[str, str], bool]:
        with server(machine=machine) as qemu:
            monitor = await Qmp.connect(qemu.socket)
            plugged = {key: await plugs(monitor, row) for key, row in rows.items()}
            await monitor.close()
            return plugged

    plugged = asyncio.run(scenario())
    expected = {key: row.exists(column) and hot_plugs(row, machine) for key, row in rows.items()}
    # a QEMU may take more busses while it runs; ours are there from the start, for what is behind them
    busses = {key for key in rows if key[0] == "pci"}
    assert {key: plugged[key] for key in rows.keys() - busses} == {key: expected[key] for key in rows.keys() - busses}
    assert not any(expected[key] for key in busses)


@pytest.mark.parametrize("machine", ["pc-i440fx-7.2", "pc-q35-7.2", "virt", "pseries"])
def test_a_pci_express_bus_takes_nothing_while_it_runs(machine: str) -> None:
    row = machine_row(machine)
    assert row.board is not None
    assert row.hotplug == (not BOARDS[row.board].express)


# The schemas


def enumerated(type: str, file: str) -> set[str]:
    """Return the values of the attribute `type` that an element's schema allows."""
    root: Any = etree.parse(str(PROJECT / "schemas" / file)).getroot()
    names = {"xs": "http://www.w3.org/2001/XMLSchema"}
    return set(map(str, root.xpath(f"//xs:attribute[@name='{type}']//xs:enumeration/@value", namespaces=names)))


def words_of(type: str, file: str) -> list[str]:
    """Return the values of a schema's type."""
    root: Any = etree.parse(str(PROJECT / "schemas" / file)).getroot()
    names = {"xs": "http://www.w3.org/2001/XMLSchema"}
    return list(map(str, root.xpath(f"//xs:simpleType[@name='{type}']//xs:enumeration/@value", namespaces=names)))


def test_the_schemas_have_a_word_for_every_row() -> None:
    schema = json.loads((PROJECT / "schemas/plan.schema.json").read_text(encoding="utf-8"))["$defs"]
    controller, device = (schema[name]["properties"] for name in ("controller", "device"))
    assert {row.kind.type for row in registry.models()} <= set(controller["type"]["enum"])
    assert {row.kind.version for row in registry.models()} <= set(controller["version"]["enum"])
    assert all(re.fullmatch(controller["family"]["pattern"], row.family) for row in registry.rows())
    kinds = {row.kind for row in registry.kinds()}
    assert kinds - {"ccid"} <= set(device["kind"]["enum"])  # which is a controller, with a family
    assert {type for family in families() for type in family.types} <= set(
        words_of("controllerType", "controller.xsd")
    )
    assert set(INPUTS) <= enumerated("type", "input.xsd")
    assert set(INPUTS.values()) <= set(DEVICE_KINDS)
    assert "usb" in enumerated("bus", "input.xsd") & enumerated("bus", "disk.xsd") & enumerated("type", "hub.xsd")


# The manual


def test_the_manual_is_the_registrys() -> None:
    written = (PROJECT / "docs/models.md").read_text(encoding="utf-8")
    assert written == manual.manual(), "write it again: python -m translator.registry.manual > docs/models.md"


def test_the_manual_has_every_row_and_every_property() -> None:
    everything = manual.everything()
    text, document, chapter = (form(everything) for form in (manual.detail, manual.to_json, manual.markdown))
    found = json.loads(document)
    assert [(row["family"], row["name"]) for row in found["models"]] == [
        (row.family, row.name) for row in registry.models()
    ]
    listed = [one for row in (*found["models"], *found["devices"]) for one in row["drivers"]]
    assert {one["driver"]: [knob["name"] for knob in one["properties"]] for one in listed} == {
        driver: list(knobs_of(driver)) for driver in registry.drivers()
    }
    anchors = re.findall(r'<a id="(.+)">', chapter)
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#(.+?)\)", chapter)) <= set(anchors)
    for driver in registry.drivers():
        assert f"Properties of {driver}:" in text


# Stability


RELEASED = FIXTURES / "released/models.json"


def guest_visible() -> dict[str, Any]:
    """Return what a guest, or a document, would notice of each row if it changed."""
    facts: dict[str, Any] = {
        f"{row.family} model {row.name}": {
            "family": row.family,
            "type": row.kind.type,
            "version": row.kind.version,
            "reads back": row.canonical,
            "interface": row.interface,
            "driver": row.driver,
            "ports": row.ports,
            **{name: fact for name, fact in row.features().items() if name != "companion"},
            "aliases": row.aliases,
        }
        for row in registry.models()
    }
    facts |= {
        f"{kind.family} device {kind.driver}": {
            "family": kind.family,
            "kind": kind.kind,
            "drivers": kind.drivers,
            "speeds": kind.speeds,
            "prefix": kind.prefix,
            "ports": kind.ports,
        }
        for kind in registry.kinds()
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def test_no_released_row_changes(request: pytest.FixtureRequest) -> None:
    """A guest that was given a model once finds the same hardware in every release; --regenerate only adds."""
    facts = guest_visible()
    released = json.loads(RELEASED.read_text(encoding="utf-8"))
    for name, before in released.items():
        assert facts.get(name) == before, f"{name} is released: a guest would notice, so make another row instead"
    if request.config.getoption("--regenerate"):
        RELEASED.write_text(json.dumps(released | facts, indent=2) + "\n", encoding="utf-8")
    else:
        assert facts.keys() - released.keys() == set(), "pytest --regenerate adds the new rows"


# Growth


class Imaginary(NamedTuple):
    """A row that there is not, what is asked of a machine for it, and how a reader sees one of its properties."""

    row: Model
    property: str


IMAGINARY = {
    "acme-xhci": Imaginary(
        UsbModel(
            name="acme-xhci",
            kind=ControllerKind("emulated", 3),
            interface="xhci",
            driver="acme-usb-xhci",
            ports=Ports(2, 1, 8),
            speeds=("high", "super"),
            knobs=("pci", "xhci"),
        ),
        "p2 (uint32: 0 to 15",
    ),
    "acme-hba": Imaginary(
        UnitModel(
            family="scsi",
            name="acme-hba",
            interface="acme",
            driver="acme-sas-hba",
            limits=drives(0, 15, 7),
            knobs=("pci", "mptsas1068"),
        ),
        "sas_address (uint64: 0 to",
    ),
}


def put_in(monkeypatch: pytest.MonkeyPatch, row: Model) -> None:
    """Put a row into its family's table."""
    family: Any = by_name()[row.family]
    monkeypatch.setitem(family.models, row.name, row)
    monkeypatch.setattr(registry, "row_of", registry.row_of.__wrapped__)  # which remembers what there was
    if isinstance(row, UnitModel):
        monkeypatch.setitem(family.named, row.name, row)
    if isinstance(row, UsbModel):  # whose table is read by other names, too
        assert row.driver is not None
        monkeypatch.setitem(NAMES, row.name, row)
        monkeypatch.setitem(DRIVERS, row.driver, row)


@pytest.mark.parametrize("name", IMAGINARY)
def test_a_new_model_is_one_row_and_one_fixture(
    monkeypatch: pytest.MonkeyPatch, check_golden: Callable[[Path, str], None], name: str
) -> None:
    """Plan, manual, capabilities, probe and properties follow from the row."""
    row, property = IMAGINARY[name]
    assert row.driver is not None
    put_in(monkeypatch, row)
    case = FIXTURES / "imaginary" / name
    plan = translator.plan(translator.load(case / "domain.xml"))
    check_golden(case / "plan.json", plan.to_json())
    assert translator.Plan.from_json(plan.to_json()) == plan
    selection = manual.Selection((row,), ())
    assert row.driver in manual.table(selection.models)
    assert property in manual.detail(selection)
    assert f"[{name}](#{row.family}-{name})" in manual.markdown(selection)
    assert [one["name"] for one in json.loads(manual.to_json(selection))["models"]] == [name]
    kind = Kind(hypervisor="kvm", guest="hvm", arch="x86_64", machine="pc")
    offered = {one.name: one for family in capabilities(kind).families for one in family.controllers}
    assert offered[name].hotplug
    assert [str(one) for one in differences(row.driver, None)] == [f"{row.driver}: not in this QEMU"]
    assert row.driver in by_name()[row.family].asked() or row.family == "usb"  # which is observed as its layout says


def test_what_a_pair_stands_for_is_not_what_came_last(monkeypatch: pytest.MonkeyPatch) -> None:
    row = IMAGINARY["acme-xhci"].row
    put_in(monkeypatch, row)
    assert CANONICAL[row.kind].name == "nec-xhci"
