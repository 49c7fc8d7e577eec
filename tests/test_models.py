"""The registry: complete, true of the real QEMU, and stable between releases."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from lxml import etree

import translator
from tests.conftest import FIXTURES, PROJECT
from tests.servers import Qemu, require
from translator import manual
from translator.capabilities import Kind, capabilities
from translator.errors import HostError
from translator.families.usb.reading import INPUTS
from translator.hosts.qmp import Qmp
from translator.knobs import GROUPS, knobs_of
from translator.models import (
    CANONICAL,
    DEVICE_DRIVERS,
    DEVICE_KINDS,
    DRIVERS,
    MODELS,
    NAMES,
    ControllerKind,
    Model,
    Ports,
    hot_plugs,
    machine_row,
)
from translator.pci import BOARDS
from translator.probe import differences

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ALL_DRIVERS = [*DRIVERS, *DEVICE_DRIVERS]
NOT_ON_PCS = {row.driver for row in DRIVERS.values() if not row.x86}


@pytest.fixture(scope="module")
def reported() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the properties of every driver by name, as a real QEMU reports them; no parts, no links."""
    require(Qemu)

    async def ask(monitor: Qmp, driver: str) -> Any:
        try:
            return await monitor.execute("device-list-properties", {"typename": driver})
        except HostError:
            return None

    async def scenario() -> dict[str, Any]:
        with Qemu() as qemu:
            monitor = await Qmp.connect(qemu.socket)
            answers = await asyncio.gather(*(ask(monitor, driver) for driver in ALL_DRIVERS))
            await monitor.close()
            return dict(zip(ALL_DRIVERS, answers, strict=True))

    return {
        driver: {one["name"]: one for one in answer if not one["type"].startswith(("child<", "link<"))}
        for driver, answer in asyncio.run(scenario()).items()
        if answer is not None
    }


def test_the_registry_is_the_real_qemus(reported: dict[str, dict[str, dict[str, Any]]]) -> None:
    assert set(ALL_DRIVERS) - reported.keys() == NOT_ON_PCS
    differences = []
    for driver, properties in reported.items():
        ours = knobs_of(driver)
        for name in sorted(ours.keys() | properties.keys()):
            knob, theirs = ours.get(name), properties.get(name)
            if knob is None or theirs is None:
                differences.append(f"{driver}.{name}: only in {'QEMU' if knob is None else 'the registry'}")
            elif (knob.type, knob.default) != (theirs["type"], theirs.get("default-value")):
                differences.append(f"{driver}.{name}: {knob.type} {knob.default!r}, QEMU has {theirs}")
    assert differences == []


def test_every_group_of_knobs_belongs_to_a_row() -> None:
    groups = {driver: row.knobs for driver, row in DRIVERS.items()}
    groups |= {driver: row.knobs for driver, row in DEVICE_DRIVERS.items()}
    named = {group for names in groups.values() for group in names}
    assert GROUPS.keys() - named - groups.keys() == set()
    assert named - GROUPS.keys() == set()
    for driver, own in groups.items():
        names = [knob.name for group in (*own, driver) for knob in GROUPS.get(group, ())]
        assert len(names) == len(set(names)), f"{driver} has a property twice"


def test_every_knob_is_explained_and_its_default_possible() -> None:
    for driver in ALL_DRIVERS:
        for knob in knobs_of(driver).values():
            assert knob.does[0].isupper(), f"{driver}.{knob.name}"
            assert knob.does.endswith("."), f"{driver}.{knob.name}"
            if knob.default is not None:
                assert knob.fault(knob.default) is None, f"{driver}.{knob.name}"


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_what_can_be_hot_plugged_is_what_the_real_qemu_plugs(machine: str) -> None:
    require(Qemu)
    rows = [row for row in MODELS.values() if row.driver and row.x86]

    async def plugs(monitor: Qmp, row: Model) -> bool:
        try:
            await monitor.execute("device_add", {"driver": row.driver, "id": row.name})
        except HostError as error:
            if "pluggable" not in error.message and "hotplug" not in error.message:
                raise
            return False
        return True

    async def scenario() -> dict[str, bool]:
        with Qemu(machine=machine) as qemu:
            monitor = await Qmp.connect(qemu.socket)
            plugged = {row.name: await plugs(monitor, row) for row in rows}
            await monitor.close()
            return plugged

    assert asyncio.run(scenario()) == {row.name: hot_plugs(row, machine) for row in rows}


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


def test_the_schemas_have_a_word_for_every_row() -> None:
    schema = json.loads((PROJECT / "schemas/plan.schema.json").read_text(encoding="utf-8"))["$defs"]
    controller, device = (schema[name]["properties"] for name in ("controller", "device"))
    assert {row.kind.type for row in MODELS.values()} <= set(controller["type"]["enum"])
    assert {row.kind.version for row in MODELS.values()} <= set(controller["version"]["enum"])
    assert all(re.fullmatch(controller["family"]["pattern"], row.family) for row in MODELS.values())
    assert set(DEVICE_KINDS) - {"ccid"} <= set(device["kind"]["enum"])  # which is a controller, with a family
    assert set(INPUTS) <= enumerated("type", "input.xsd")
    assert set(INPUTS.values()) <= set(DEVICE_KINDS)
    assert "usb" in enumerated("bus", "input.xsd") & enumerated("bus", "disk.xsd") & enumerated("type", "hub.xsd")


# The manual


def test_the_manual_is_the_registrys() -> None:
    written = (PROJECT / "docs/models.md").read_text(encoding="utf-8")
    assert written == manual.manual(), "write it again: python -m translator.manual > docs/models.md"


def test_the_manual_has_every_row_and_every_property() -> None:
    everything = manual.Selection()
    text, document = manual.detail(everything), json.loads(manual.to_json(everything))
    assert [row["name"] for row in document["models"]] == list(MODELS)
    assert [kind["kind"] for kind in document["devices"]] == list(DEVICE_KINDS)
    drivers = {row["driver"]: row["properties"] for row in document["models"] if row["driver"]}
    drivers |= {one["driver"]: one["properties"] for kind in document["devices"] for one in kind["drivers"]}
    assert {driver: [knob["name"] for knob in knobs] for driver, knobs in drivers.items()} == {
        driver: list(knobs_of(driver)) for driver in ALL_DRIVERS
    }
    for driver in ALL_DRIVERS:
        assert f"Properties of {driver}:" in text


# Stability


RELEASED = FIXTURES / "released/models.json"


def guest_visible() -> dict[str, Any]:
    """Return what a guest, or a document, would notice of each row if it changed."""
    facts: dict[str, Any] = {
        f"model {row.name}": {
            "family": row.family,
            "type": row.kind.type,
            "version": row.kind.version,
            "reads back": row.canonical,
            "interface": row.interface,
            "driver": row.driver,
            "ports": list(row.ports),
            "speeds": list(row.speeds),
            "startport": row.startport,
            "aliases": list(row.aliases),
        }
        for row in MODELS.values()
    }
    facts |= {
        f"device {kind.kind}": {
            "family": kind.family,
            "drivers": list(manual.drivers_of(kind)),
            "speeds": list(kind.speeds),
            "prefix": kind.prefix,
            "ports": kind.ports,
        }
        for kind in DEVICE_KINDS.values()
    }
    return facts


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


IMAGINARY = Model(
    name="acme-xhci",
    kind=ControllerKind("emulated", 3),
    interface="xhci",
    driver="acme-usb-xhci",
    ports=Ports(2, 1, 8),
    speeds=("high", "super"),
    knobs=("pci", "xhci"),
)


def test_a_new_model_is_one_row_and_one_fixture(
    monkeypatch: pytest.MonkeyPatch, check_golden: Callable[[Path, str], None]
) -> None:
    """Plan, manual, capabilities, probe and properties follow from the row."""
    monkeypatch.setitem(MODELS, IMAGINARY.name, IMAGINARY)
    monkeypatch.setitem(NAMES, IMAGINARY.name, IMAGINARY)
    monkeypatch.setitem(DRIVERS, "acme-usb-xhci", IMAGINARY)
    case = FIXTURES / "imaginary/acme-xhci"
    plan = translator.plan(translator.load(case / "domain.xml"))
    check_golden(case / "plan.json", plan.to_json())
    assert translator.Plan.from_json(plan.to_json()) == plan
    selection = manual.Selection((IMAGINARY,), ())
    assert "acme-usb-xhci" in manual.table(selection.models)
    assert "p2 (uint32: 0 to 15" in manual.detail(selection)
    assert "[acme-xhci](#acme-xhci)" in manual.markdown(selection)
    assert [row["name"] for row in json.loads(manual.to_json(selection))["models"]] == ["acme-xhci"]
    assert CANONICAL[IMAGINARY.kind].name == "nec-xhci"
    kind = Kind(hypervisor="kvm", guest="hvm", arch="x86_64", machine="pc")
    offered = {one.name: one for family in capabilities(kind).families for one in family.controllers}
    assert offered["acme-xhci"].hotplug
    assert [str(one) for one in differences("acme-usb-xhci", None)] == ["acme-usb-xhci: not in this QEMU"]
    assert '"streams": false' in plan.to_json()
