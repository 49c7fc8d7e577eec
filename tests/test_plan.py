"""Documents to plans: every fixture's golden, and what must hold for every plan."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest

import translator
from tests.conftest import FIXTURES, PROJECT, cases
from translator.output import render
from translator.planning.placeholders import PLACEHOLDER
from translator.planning.plan import LaunchOption, QmpCommand, Transaction
from translator.registry.models import CANONICAL, MODELS, NAMES, ControllerKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PLANS = cases("plans")
NAMED = [path.name for path in PLANS]
WEB = (FIXTURES / "demo/web/plan.json.txt").read_text()


def plan_of(case: Path, **options: object) -> translator.Plan:
    return translator.plan(translator.load(case / "domain.xml"), **options)  # type: ignore[arg-type]  # forwarded


@pytest.mark.parametrize("case", PLANS, ids=NAMED)
def test_golden_plan(case: Path, check_golden: Callable[[Path, str], None]) -> None:
    check_golden(case / "plan.json", plan_of(case).to_json())


@pytest.mark.parametrize("case", PLANS, ids=NAMED)
def test_json_is_the_contracts(case: Path) -> None:
    plan = plan_of(case, domid=7)
    text = plan.to_json()
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
    assert translator.Plan.from_json(text) == plan
    schema = json.loads((PROJECT / "schemas/plan.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize("format", sorted(render.FORMATS))
def test_golden_rendering(format: str, check_golden: Callable[[Path, str], None]) -> None:
    # one domain with a controller of each type is enough to see each form
    case = FIXTURES / "demo/web"
    check_golden(case / f"plan.{format}.txt", render.FORMATS[format](plan_of(case, domid=7, coldplug="auto")))


def test_every_model_has_a_fixture() -> None:
    planned = {
        model
        for case in PLANS
        for controller in plan_of(case).topology.controllers
        for model in (controller.model, *(companion.model for companion in controller.companions))
    }
    refused = {"xenusb3"}  # by layout libxl: fixtures/errors/xenusb3-in-layout-libxl, fixtures/trees/rfc7-pv
    assert set(MODELS) - planned - refused == set(), "add fixtures/plans/<claim>/domain.xml with this model"


# The promise of design rule 8: the same parameters give the same hardware in every release.
def test_the_table_read_backwards_never_changes() -> None:
    assert {kind: row.name for kind, row in CANONICAL.items()} == {
        ControllerKind("emulated", 1): "piix3-uhci",
        ControllerKind("emulated", 2): "ehci",
        ControllerKind("emulated", 3): "nec-xhci",
        ControllerKind("pv", 1): "xenusb1",
        ControllerKind("pv", 2): "xenusb2",
        ControllerKind("pv", 3): "xenusb3",
        ControllerKind("qusb", 1): "qusb1",
        ControllerKind("qusb", 2): "qusb2",
        ControllerKind("none", None): "none",
    }


@pytest.mark.parametrize(
    ("alias", "model"),
    [
        *((f"pvusb-v{version}", f"xenusb{version}") for version in (1, 2, 3)),
        *((f"xenpvusb{version}", f"xenusb{version}") for version in (1, 2, 3)),
    ],
)
def test_aliases_of_the_discussions(alias: str, model: str) -> None:
    assert NAMES[alias] is MODELS[model]


@pytest.mark.parametrize("case", PLANS, ids=NAMED)
def test_every_step_can_be_taken_back(case: Path) -> None:
    for step in plan_of(case).steps:
        assert (step.undo is None) == (step.undo_reason is not None)
        assert step.why.endswith(".")
        assert step.source is not None


@pytest.mark.parametrize("case", PLANS, ids=NAMED)
def test_undo_removes_whatever_a_transaction_makes(case: Path) -> None:
    """Only nodes written below a directory that the undo removes, or a port given back, may be made."""
    for step in plan_of(case, domid=7).steps:
        if isinstance(step.action, Transaction) and isinstance(step.undo, Transaction):
            gone = {one.path for one in step.undo.transaction}
            # a state that is there already is the backend's to take back
            gone |= {
                one.path for one in step.action.transaction if one.op == "expect" and one.path.endswith("/state")
            }
            for one in step.action.transaction:
                if one.op in ("write", "mkdir"):
                    assert any(one.path == path or one.path.startswith(f"{path}/") for path in gone), one.path


@pytest.mark.parametrize("case", PLANS, ids=NAMED)
def test_coldplug_all_leaves_no_emulated_device_to_hot_plug(case: Path) -> None:
    for step in plan_of(case, coldplug="all").steps:
        assert (step.stage == "launch") == isinstance(step.action, (QmpCommand, LaunchOption))


def test_binding_fills_every_placeholder() -> None:
    plan = plan_of(FIXTURES / "plans/xen-hvm-backend-domain-by-name")
    assert plan.placeholders() == ("backend_domid:usbvm", "domid")
    bound = plan.bind(domid=7, backends={"usbvm": 3})
    assert not PLACEHOLDER.search(bound.to_json())
    assert bound.topology.domain.domid == 7
    assert bound.topology.controllers[0].backend == 3
    with pytest.raises(translator.PlanError, match="the plan is for domain 7, and cannot be bound to domain 8"):
        bound.bind(domid=8)


def test_what_only_looks_like_a_placeholder_swallows_none() -> None:
    """A running domain's name may hold anything, quotes and backslashes too, and so may what a fact says."""
    name = 'a"b\\${ird'
    plan = plan_of(FIXTURES / "plans/xen-hvm-backend-domain-by-name")
    topology = msgspec.structs.replace(plan.topology, domain=msgspec.structs.replace(plan.topology.domain, name=name))
    steps = tuple(msgspec.structs.replace(step, why=f"{name} ${{domid}} ${{qmp:x}}") for step in plan.steps)
    bound = msgspec.structs.replace(plan, topology=topology, steps=steps).bind(domid=7, qmps={"x": 'q"\\'})
    assert bound.topology.domain.name == name
    assert {step.why for step in bound.steps} == {f'{name} 7 q"\\'}
    assert bound.placeholders() == ("backend_domid:usbvm",)


@pytest.mark.parametrize("seed", ["0", "1", "4711"])
def test_the_same_document_gives_the_same_bytes_everywhere(seed: str) -> None:
    environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": "C" if seed == "0" else "C.UTF-8"}
    command = [sys.executable, "-m", "translator", "plan", "--format", "json", str(FIXTURES / "plans")]
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert done.stdout == b"".join((case / "plan.json").read_bytes() for case in PLANS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is not a plan"),
        ("[]", "this is not a plan"),
        ('{"format": "translator-plan/9"}', "the plan's format is 'translator-plan/9'"),
        ('{"format": "translator-plan/1"}', "missing required field `domain`"),
        ("[" * 100_000, "this is not a plan"),
        (WEB.replace('"port": "2.1"', '"port": "x"'), "'x' is not a port"),
        (WEB.replace('"controller": 2', '"controller": 3', 1), "is on usb controller 3, which is not in the plan"),
        (WEB.replace('"index": 2', '"index": 1', 1), "two controllers of one family have the same index"),
        (WEB.replace('"port": "2.1"', '"port": "2"', 1), "two devices are on one port"),
        (
            WEB.replace('"index": 2', '"place": {"controller": 2, "port": "9"}, "index": 2', 1),
            "controller 2 of family usb cannot sit there",
        ),
        (WEB.replace('"stage": "attach"', '"stage": "launch"', 1), "is for QEMU's command line, and its target is"),
        (WEB.replace('"domid": 7', '"domid": -3', 1), "there is no guest with domid -3"),
        (WEB.replace('"model": "nec-xhci"', '"model": "xhci"', 1), "unknown controller model 'xhci'"),
    ],
    ids=lambda value: None if len(value) > 60 else value,
)
def test_what_is_no_plan_is_refused(text: str, message: str) -> None:
    with pytest.raises(translator.PlanError, match=message.replace("`", ".")):
        translator.Plan.from_json(text)


@pytest.mark.parametrize("text", ["\n<domain type='xen'/>", io.StringIO("<domain type='xen'/>")], ids=["str", "file"])
def test_text_is_no_document(text: Any) -> None:
    with pytest.raises(TypeError, match=r"as bytes|for text"):
        translator.load(text)


@pytest.mark.parametrize(
    "odd",
    [
        {"domid": 0},
        {"domid": "7"},
        {"domid": 0x7FF0},
        {"coldplug": "never"},
        {"layout": "x"},
        {"device_models": "per-controler"},
    ],
)
def test_an_argument_that_cannot_be(odd: dict[str, Any]) -> None:
    domain = translator.load(FIXTURES / "demo/desk/domain.xml")
    with pytest.raises(ValueError, match=repr(next(iter(odd.values())))):
        translator.plan(domain, **odd)


@pytest.mark.parametrize("domid", [0, "7", True])
def test_a_domid_that_cannot_be(domid: Any) -> None:
    with translator.BlockingHost(xenstore="/no/socket") as host, pytest.raises(ValueError, match=repr(domid)):
        host.observe(domid=domid)


def test_a_node_that_holds_controls_is_listed_on_one_line() -> None:
    wire = json.loads((FIXTURES / "plans/xen-hvm-piix3-uhci/plan.json").read_text())
    for step in wire["steps"]:
        for operation in step.get("transaction", ()):
            if operation.get("value") == "devicemodel":
                operation["value"] = "a\x1b[2J\nb"
    assert '/type = "a\\u001b[2J\\u000ab"' in render.xenstore(translator.Plan.from_json(json.dumps(wire)))
