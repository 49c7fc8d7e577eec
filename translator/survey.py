"""What a running QEMU has of the registry, as text or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from translator.manual import columns, drivers_of
from translator.models import hot_plugs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from translator.manual import Selection
    from translator.probe import Difference, Survey

FORMAT = "translator-probe/1"


def text(survey: Survey, selection: Selection) -> str:
    """Return which of the rows the QEMU has, what it can hot-plug, and in what it differs from the registry."""
    parts = [f"QEMU {survey.version}, machine {survey.machine}\n"]
    models = [("MODEL", "QEMU DRIVER", "THERE", "HOT-PLUG")]
    for row in selection.models:
        if row.driver is not None:
            there = survey.drivers[row.driver] is not None
            models.append((row.name, row.driver, _yes(there), _yes(there and hot_plugs(row, survey.machine))))
    devices = [("DEVICE", "QEMU DRIVER", "THERE")]
    for kind in selection.devices:
        devices += [(kind.kind, driver, _yes(survey.drivers[driver] is not None)) for driver in drivers_of(kind)]
    parts += [columns(lines) for lines in (models, devices) if len(lines) > 1]
    found = [f"  {difference}\n" for difference in _differences(survey, selection)]
    parts.append("In what it is not as the registry says:\n" + ("".join(found) or "  nothing\n"))
    return "\n".join(parts)


def to_json(survey: Survey, selection: Selection) -> str:
    """Return the same as JSON."""
    document = {
        "format": FORMAT,
        "version": survey.version,
        "machine": survey.machine,
        "models": [
            {
                "name": row.name,
                "driver": row.driver,
                "present": survey.drivers[row.driver] is not None,
                "hotplug": survey.drivers[row.driver] is not None and hot_plugs(row, survey.machine),
            }
            for row in selection.models
            if row.driver is not None
        ],
        "devices": [
            {"kind": kind.kind, "driver": driver, "present": survey.drivers[driver] is not None}
            for kind in selection.devices
            for driver in drivers_of(kind)
        ],
        "differences": [_difference_json(one) for one in _differences(survey, selection)],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


FORMATS: Mapping[str, Callable[[Survey, Selection], str]] = {"text": text, "json": to_json}


def _differences(survey: Survey, selection: Selection) -> list[Difference]:
    asked = {row.driver for row in selection.models} | {
        driver for kind in selection.devices for driver in drivers_of(kind)
    }
    return [one for one in survey.differences() if one.driver in asked]


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "driver": difference.driver,
        "property": difference.name,
        "registry": difference.ours,
        "qemu": difference.theirs,
    }


def _yes(true: bool) -> str:
    return "yes" if true else "no"
