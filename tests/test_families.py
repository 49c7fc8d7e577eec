"""A family of controllers is one module: an imaginary one in a folder of its own is all that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import translator
from translator import families
from translator.document.normalize import normalize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = """
from translator.document.domain import UnitAddress
from translator.units import UnitFamily, UnitModel, undotted


class Nvme(UnitFamily):
    name = "nvme"
    order = 80
    hotplug = True
    address = ("drive", ("unit",))
    rows = (
        UnitModel(
            family="nvme", name="nvme", interface="nvme", driver="nvme", plug="express", limits={"unit": 255}
        ),
    )

    def unit_of(self, number):
        return UnitAddress(0, (number,))

    def driver(self, element, context):
        return "nvme-ns"

    def seat(self, controller, device):
        return {"bus": controller.id, "nsid": undotted(device.port)[0] + 1}


FAMILY = Nvme()
"""
DOCUMENT = b"""<domain type='kvm'>
  <name>guest</name>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <disk type='file'>
      <source file='/srv/a.img'/>
      <target dev='sdc' bus='nvme'/>
    </disk>
    <controller type='usb' model='none'/>
  </devices>
</domain>
"""


@pytest.fixture
def _imaginary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "nvme.py").write_text(MODULE)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    tables = (families.families, families.by_name, families.by_type, families.by_tag)
    for table in tables:
        table.cache_clear()
    yield
    for table in tables:
        table.cache_clear()


@pytest.mark.usefixtures("_imaginary")
def test_a_new_family_is_one_module() -> None:
    plan = translator.plan(translator.load(DOCUMENT))
    controller = next(one for one in plan.topology.controllers if one.family == "nvme")
    assert (controller.id, controller.pci, controller.implicit) == ("nvme0", "0000:00:02.0", True)
    told = [step.action.arguments for step in plan.steps if step.id in ("controller:nvme:0", "device:nvme:0:2")]  # type: ignore[union-attr]
    assert told == [
        {"driver": "nvme", "id": "nvme0", "bus": "pci.0", "addr": "0x2"},
        {
            "driver": "nvme-ns",
            "bus": "nvme0",
            "nsid": 3,
            "drive": "nvme0-2-2-format",
            "bootindex": 1,
            "id": "nvme0-2-2",
        },
    ]
    assert translator.Plan.from_json(plan.to_json()) == plan
    assert b"<address type='drive' controller='0' unit='2'/>" in normalize(DOCUMENT)


def test_without_the_module_the_family_is_unknown() -> None:
    plan = translator.plan(translator.load(DOCUMENT))
    assert [one.element for one in plan.untranslated] == ["/domain/devices/disk[1]"]


# What each family's elements look like, what normalising makes explicit of them, and what a guest loses without them.
KVM = (
    b"<domain type='kvm'><name>guest</name><os><type arch='x86_64' machine='pc'>hvm</type></os>"
    b"<devices>%s</devices></domain>"
)
XEN = b"<domain type='xen'><name>guest</name><os><type>linux</type></os><devices>%s</devices></domain>"
DISK = "<disk type='file'{}><source file='/srv/a.img'/><target dev='{}' bus='{}'/></disk>"
SCSI = "<hostdev mode='subsystem' type='scsi'><source wwn='naa.60014054ac780582' lun='0'/></hostdev>"
CHANNEL = "<channel type='null'><target type='virtio' name='a'/></channel>"
VERBS: dict[str, tuple[bytes, str, str, set[str]]] = {
    "usb": (KVM, "<hub type='usb'/>", "<address type='usb' bus='0' port='1'/>", {"device:usb:0:1"}),
    "scsi": (
        KVM,
        DISK.format("", "sdb", "scsi"),
        "<address type='drive' controller='0' bus='0' target='0' unit='1'/>",
        {"controller:scsi:0", "device:scsi:0:0.0.1"},
    ),
    "scsi, paravirtual": (
        XEN,
        SCSI,
        "<controller type='scsi' index='0' model='xenscsi'/>",
        {"controller:scsi:0", "device:scsi:0:0.0.0"},
    ),
    "ide": (KVM, DISK.format("", "hdc", "ide"), "bus='1' target='0' unit='0'/>", {"device:ide:0:1.0.0"}),
    "sata": (
        KVM,
        DISK.format("", "sdb", "sata"),
        "<controller type='sata' index='0'>",
        {"controller:sata:0", "device:sata:0:0.0.1"},
    ),
    "fdc": (
        KVM,
        DISK.format(" device='floppy'", "fdb", "fdc"),
        "<controller type='fdc' index='0'/>",
        {"device:fdc:0:0.0.1"},
    ),
    "virtio-serial": (
        KVM,
        CHANNEL,
        "<address type='virtio-serial' controller='0' bus='0' port='1'/>",
        {"controller:virtio-serial:0", "device:virtio-serial:0:0.1"},
    ),
    "pci": (KVM, "<controller type='pci' model='pci-bridge' index='1'/>", "name='pci.1'", {"controller:pci:1"}),
    "ccid": (
        KVM,
        "<controller type='ccid'/>",
        "<controller type='ccid' index='0'>",
        {"controller:ccid:0"},
    ),
}


@pytest.mark.parametrize("name", VERBS)
def test_every_family_is_made_explicit_and_compared(name: str) -> None:
    """`observe` and `apply` of each: test_apply.py, for all plan fixtures; `attach` and `detach`: test_hotplug.py."""
    head, element, explicit, lost = VERBS[name]
    document = head % element.encode()
    normal = normalize(document)
    assert explicit.encode() in normal
    assert normalize(normal) == normal
    with_it, without = (translator.plan(translator.load(text)) for text in (normal, head % b""))
    assert translator.diff(translator.plan(translator.load(document)), with_it).changes == ()
    found = {change.id: (change.action, change.family) for change in translator.diff(with_it, without).changes}
    assert {id for id, (action, _) in found.items() if action == "remove"} == lost
