"""A plan file is held to what plans touch: everything of ours passes, nothing else does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import translator
from tests.conftest import FIXTURES, cases

if TYPE_CHECKING:
    from pathlib import Path

MIXED = translator.plan(translator.load(FIXTURES / "hosts/mixed.xml"), domid=8)


@pytest.mark.parametrize("case", cases("plans"), ids=lambda case: case.name)
@pytest.mark.parametrize("domid", [None, 7])
def test_every_plan_of_ours_is_within_bounds(case: Path, domid: int | None) -> None:
    plan = translator.plan(translator.load(case / "domain.xml"), domid=domid)
    assert translator.Plan.from_json(plan.to_json()) == plan


def write(path: str, op: str = "write") -> dict[str, Any]:
    return {"target": "xenstore", "transaction": [{"op": op, "path": path, "value": "x"}]}


def qmp(command: str) -> dict[str, Any]:
    return {"target": "qmp", "execute": command, "arguments": {"id": "x"}}


def sysfs(path: str, value: str = "1-8:1.0") -> dict[str, Any]:
    return {"target": "sysfs", "writes": [{"path": path, "value": value}]}


@pytest.mark.parametrize(
    "step",
    [
        write("/local/domain/0/evil"),
        write("/local/domain/9/device/vusb/0/state"),
        write("/libxl/9/device/vusb/0/type"),
        write("/libxl/8/device/vusb/../../../../tool"),
        write("/libxl/8/dm-version"),
        write("/local/domain/0/backend/vbd/8/0/params"),
        write("/local/domain/0/backend/qusb/9/0/state"),
        write("/libxl/8/device", "rm"),
        write("/local/domain/0/backend/qusb", "rm"),
        write("/", "rm"),
        qmp("quit"),
        qmp("human-monitor-command"),
        sysfs("/sys/bus/pci/drivers/vfio-pci/bind"),
        sysfs("/sys/bus/usb/drivers/../../../power/state"),
        sysfs("/sys/bus/usb/drivers/usbback/bind", "mem\n"),
        {"target": "option", "option": "-monitor", "value": {}},
        {**qmp("device_add"), "undo": None},
    ],
    ids=lambda step: next(str(one) for one in (step.get("transaction"), step.get("writes"), step) if one)[:70],
)
@pytest.mark.parametrize("where", ["step", "undo"])
def test_what_is_no_plans_to_touch_is_refused(step: dict[str, Any], where: str) -> None:
    wire = json.loads(MIXED.to_json())
    first = {"id": "controller:usb:0", "stage": "attach", "device_model": None, "why": "x", "source": None}
    harmless = {"execute": "device_del", "arguments": {"id": "x"}}
    if where == "step" or "undo" in step:
        wire["steps"][0] = first | {"undo": harmless} | step
    else:
        wire["steps"][0] = first | qmp("device_add") | {"undo": {key: step[key] for key in step if key != "target"}}
    with pytest.raises(translator.PlanError, match="T110"):
        translator.Plan.from_json(json.dumps(wire))
