"""What is listed for a kind of domain is what a document of that kind may ask for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from lxml import etree

import translator
from tests.servers import Qemu, require
from tests.test_cli import translator as command
from translator.registry.capabilities import FORMATS, FamilyOffer, Kind, capabilities
from translator.registry.models import DEVICE_KINDS, MODELS, machine_row

if TYPE_CHECKING:
    from translator.topology import Guest, Layout

OS: dict[Guest, str] = {"hvm": "hvm", "pv": "linux", "pvh": "xenpvh"}
KINDS: dict[str, Kind] = {
    "xen-hvm": Kind(hypervisor="xen", guest="hvm", arch="x86_64", machine="xenfv"),
    "xen-pv": Kind(hypervisor="xen", guest="pv", arch="x86_64", machine="xenpv"),
    "xen-pvh": Kind(hypervisor="xen", guest="pvh", arch="x86_64", machine="xenpvh"),
    "kvm-pc": Kind(hypervisor="kvm", guest="hvm", arch="x86_64", machine="pc"),
    "kvm-q35": Kind(hypervisor="kvm", guest="hvm", arch="x86_64", machine="q35"),
    "qemu-mips": Kind(hypervisor="qemu", guest="hvm", arch="mips", machine="malta"),
}


def planned(kind: Kind, layout: Layout, devices: str) -> set[tuple[str, str]] | None:
    """Return family and model of the controllers that a document of that kind gets; None: it is refused."""
    text = (
        f"<domain type='{kind.hypervisor}'><name>guest</name>"
        f"<os><type arch='{kind.arch}' machine='{kind.machine}'>{OS[kind.guest]}</type></os>"
        f"<devices>{devices}</devices></domain>"
    )
    try:
        plan = translator.plan(translator.load(text.encode()), layout=layout)
    except translator.DocumentError as error:
        return None if {"T309", "T386"} & {one.code for one in error.diagnostics} else set()
    return {(one.family, one.model) for one in plan.topology.controllers}


@pytest.mark.parametrize("name", KINDS)
def test_a_model_is_listed_if_a_document_may_name_it(name: str) -> None:
    kind = KINDS[name]
    offer = capabilities(kind)
    listed = {
        (family.family, one.name, layout)
        for family in offer.families
        for one in family.controllers
        for layout in one.layouts
    }
    usb = {
        ("usb", model, layout.name)
        for model in MODELS
        for layout in offer.layouts
        if planned(kind, layout.name, f"<controller type='usb' model='{model}'/>") is not None
    }
    assert {one for one in listed if one[0] == "usb"} == usb
    for family, model, layout in sorted(listed):
        if family not in ("usb", "pci"):  # whose busses depend on each other
            found = planned(kind, layout, f"<controller type='{family}' index='0' model='{model}'/>")
            assert (family, model) in (found or ())


@pytest.mark.parametrize("name", KINDS)
def test_both_forms_list_the_same(name: str) -> None:
    offer = capabilities(KINDS[name])
    document = json.loads(FORMATS["json"](offer))
    root: Any = etree.fromstring(FORMATS["xml"](offer))
    models = {one["name"] for family in document["families"] for one in family["controllers"]}
    assert {one.get("name") for one in root.iterfind("models/model")} == models
    usb = [family for family in document["families"] if family["family"] == "usb"]
    listed = root.xpath("devices/controller/enum[@name='usbModel']/value/text()")
    assert listed == [one["name"] for one in usb[0]["controllers"]]
    assert [one.get("name") for one in root.iterfind("layouts/layout")] == [
        one["name"] for one in document["layouts"]
    ]


def families(name: str) -> dict[str, FamilyOffer]:
    return {family.family: family for family in capabilities(KINDS[name]).families}


def test_a_machine_tells_what_comes_unasked_and_what_can_be_hot_plugged() -> None:
    pc, q35 = (families(name)["usb"] for name in ("kvm-pc", "kvm-q35"))
    assert (pc.modelless, pc.default) == ("piix3-uhci", "piix3-uhci")
    assert (q35.modelless, q35.default) == ("piix3-uhci", machine_row("q35").default)
    assert {one.name for one in pc.controllers if one.hotplug} >= {"qemu-xhci", "ehci"}
    assert not any(one.hotplug for one in q35.controllers)
    pc, q35 = (families(name)["scsi"] for name in ("kvm-pc", "kvm-q35"))
    assert (pc.modelless, pc.default) == ("lsilogic", None)
    assert [one.hotplug for one in pc.controllers] == [True] * len(pc.controllers)
    assert not any(one.hotplug for one in q35.controllers)
    own = {name: {one.default for one in families(name).values()} - {None} for name in KINDS}
    assert own["kvm-pc"] == {"pci-root", "piix3-uhci", "ide"}
    assert own["kvm-q35"] == {"pcie-root", "qemu-xhci", "ahci"}
    assert own["xen-pv"] == {"qusb2", "xenbus"}


def test_a_paravirtual_guest_gets_host_devices_alone() -> None:
    kinds = {one.kind for family in capabilities(KINDS["xen-pv"]).families for one in family.devices}
    assert kinds == {"hostdev"}
    kinds = {one.kind for family in capabilities(KINDS["xen-hvm"]).families for one in family.devices}
    assert kinds == set(DEVICE_KINDS)


def test_a_qemu_that_is_asked_lists_what_it_has() -> None:
    require(Qemu)
    with Qemu(machine="q35") as server:
        done = command("capabilities", "--virttype", "kvm", "--arch", "mips", "--probe", server.socket)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["qemu"].startswith("7.2.")
    assert found["domain"]["machine"].startswith("pc-q35-")
    models = {one["name"] for family in found["families"] for one in family["controllers"]}
    assert {"qemu-xhci", "virtio-scsi", "pcie-root"} <= models
    assert not {"vt82c686b-uhci", "ibmvscsi", "pci-root"} & models  # which QEMUs for mips and POWER would have


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--virttype", "kvm", "--guest", "pv"], "a domain of type kvm has no pv guests"),
        (["--virttype", "lxc"], "'lxc' is not one of"),
    ],
    ids=str,
)
def test_wrong_usage(words: list[str], says: str) -> None:
    done = command("capabilities", *words)
    assert (done.returncode, says in done.stderr) == (2, True)
