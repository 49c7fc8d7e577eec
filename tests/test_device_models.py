"""Several device models for one domain: who emulates what, and what each claims."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

import translator
from tests.conftest import FIXTURES
from tests.test_cli import translator as run
from translator.document.parse_device_models import NAMESPACE, POLICIES
from translator.document.validate import schema_dir

if TYPE_CHECKING:
    from translator.document.domain import SharePolicy

NAMED = FIXTURES / "plans/device-models-named/domain.xml"


def guest(controllers: str, device_models: str = "") -> bytes:
    return (
        f"<domain type='xen'><name>g</name><metadata>{device_models}</metadata>"
        f"<os><type arch='x86_64' machine='xenfv'>hvm</type></os><devices>{controllers}</devices></domain>"
    ).encode()


def plan_of(document: bytes, policy: SharePolicy | None = None) -> translator.Plan:
    return translator.plan(translator.load(document), device_models=policy)


# The schema and the reader say the same

WORDS = st.sampled_from(["primary", "single", "named", "usb", "a-1", "", "1a", "Usb", "../x", "0", "1", "-1", "x"])


@st.composite
def elements(draw: st.DrawFn) -> str:
    def attributes(*names: str) -> str:
        chosen = draw(st.lists(st.sampled_from([*names, *names, "colour"]), unique=True))
        return "".join(f' {name}="{draw(WORDS)}"' for name in chosen)

    def children(*tags: str) -> list[str]:
        return draw(st.lists(st.sampled_from(tags), max_size=2))

    text = f'<tr:device-models xmlns:tr="{NAMESPACE}"{attributes("policy")}>'
    for tag in children("tr:device-model", "tr:device-model", "tr:other"):
        text += f"<{tag}{attributes('name', 'emulator')}>"
        text += "".join(f"<{one}{attributes('type', 'index')}/>" for one in children("tr:controller", "other"))
        text += f"</{tag}>"
    return text + "</tr:device-models>"


@given(elements())
def test_the_schema_and_the_reader_refuse_the_same_elements(element: str) -> None:
    schema = etree.XMLSchema(etree.parse(os.path.join(schema_dir(), "device-models.xsd")))
    accepted = schema.validate(etree.fromstring(element))
    try:
        translator.load(guest("", element))
    except translator.DocumentError as error:
        codes = {fault.code for fault in error.diagnostics}
        assert not accepted or codes == {"T319"}, codes  # the emulator's path has rules that no pattern says
    else:
        assert accepted


# Who gets what


@pytest.mark.parametrize(
    ("policy", "models"),
    [
        ("primary", {0: "primary", 1: "primary", 2: "primary"}),
        ("single", {0: "primary", 1: "controllers", 2: "controllers"}),
        ("per-controller", {0: "primary", 1: "usb-1", 2: "usb-2"}),
    ],
)
def test_a_policy_shares_the_controllers_out(policy: SharePolicy, models: dict[int, str]) -> None:
    controllers = (
        "<controller type='usb' index='0' model='piix3-uhci'><address type='pci' slot='1' function='2'/></controller>"
    )
    plan = plan_of(
        guest(controllers + "".join(f"<controller type='usb' index='{n}' model='ehci'/>" for n in (1, 2))), policy
    )
    assert {one.index: one.device_model for one in plan.topology.controllers} == models
    assert {step.device_model for step in plan.steps if step.device_model} == set(models.values())
    assert [one.name for one in plan.topology.device_models] == list(dict.fromkeys(models.values()))


SEATS = st.sampled_from(
    ["", *(f"<address type='pci' slot='{slot}' function='{f}'/>" for slot in (4, 30, 31) for f in (0, 1))]
)


@given(
    st.lists(st.tuples(st.sampled_from(["ehci", "nec-xhci", "ich9-ehci1", "qusb2"]), SEATS), max_size=8), st.data()
)
def test_no_two_device_models_share_a_slot(found: list[tuple[str, str]], data: st.DataObject) -> None:
    controllers = "".join(
        f"<controller type='usb' index='{index}' model='{model}'>{seat if model != 'qusb2' else ''}</controller>"
        + (
            f"<controller type='usb' index='{index}' model='ich9-uhci1'><master startport='0'/></controller>"
            * (model == "ich9-ehci1")
        )
        for index, (model, seat) in enumerate(found)
    )
    policy = data.draw(st.sampled_from([one for one in POLICIES if one not in ("primary", "named")]))
    try:
        models = plan_of(guest(controllers), policy).topology.device_models
    except translator.DocumentError as error:
        refused = [fault.message for fault in error.diagnostics]
    else:
        refused = []
    if refused:
        assert all("PCI function" in message for message in refused)
        return
    claims = [(one.name, tuple(function.values())) for one in models for function in one.pci]
    assert len({function for _, function in claims}) == len(claims)
    for (one, first), (other, second) in itertools.combinations(claims, 2):
        assert one == other or first[:3] != second[:3]
    companions = sum(model == "ich9-ehci1" for model, _ in found)
    assert len(claims) == sum(model != "qusb2" for model, _ in found) + companions


def test_a_controller_keeps_its_function_when_it_moves_to_another_device_model() -> None:
    document = guest("".join(f"<controller type='usb' index='{n}' model='nec-xhci'/>" for n in range(3)))
    places = [
        [one.pci for one in plan_of(document, policy).topology.controllers] for policy in ("single", "per-controller")
    ]
    assert places[0] == places[1]


def test_a_guest_does_not_notice_who_emulates_its_controllers() -> None:
    document = guest("".join(f"<controller type='usb' index='{n}' model='nec-xhci'/>" for n in range(2)))
    delta = translator.diff(plan_of(document, "single"), plan_of(document, "per-controller"))
    assert not delta.guest_visible
    assert [change.id for change in delta.changes] == ["domain", "controller:usb:0", "controller:usb:1"]
    assert delta.requires == "restart"  # another set of emulators has to be started


# The command line


def test_each_emulator_has_words_of_its_own() -> None:
    words = run("plan", "--format", "qemu-args", "--device-model", "slow", str(NAMED))
    assert [line.split()[0] for line in words.stdout.splitlines()] == ["-device", "-device"]
    assert "piix3" not in words.stdout
    unsaid = run("plan", "--format", "qemu-args", str(NAMED))
    assert (unsaid.returncode, "primary, storage, slow" in unsaid.stderr) == (2, True)
    unknown = run("plan", "--format", "qemu-args", "--device-model", "fast", str(NAMED))
    assert (unknown.returncode, "there is no device model 'fast'" in unknown.stderr) == (2, True)


def test_the_policy_of_the_command_line_wins() -> None:
    whole = run(
        "plan",
        "--format",
        "qemu-args",
        "--device-models",
        "single",
        "fixtures/plans/device-models-primary/domain.xml",
    )
    assert "primary, controllers" in whole.stderr
