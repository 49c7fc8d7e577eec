"""A family of controllers is one module: an imaginary one in a folder of its own is all that it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import translator
from translator import families
from translator.normalize import normalize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = """
from translator.domain import UnitAddress
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
