"""What a running QEMU has of the registry, as text or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from translator.registry.manual import columns
from translator.registry.models import hot_plugs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from translator.live.probe import Difference, Survey
    from translator.registry.manual import Selection
    from translator.registry.models import Model

FORMAT = "translator-probe/1"


def text(survey: Survey, selection: Selection) -> str:
    """Return which of the rows the QEMU has, what it can hot-plug, and in what it differs from the registry."""
    parts = [f"QEMU {survey.version}, machine {survey.machine}\n"]
    models = [("FAMILY", "MODEL", "QEMU DRIVER", "THERE", "HOT-PLUG")]
    models += [
        (row.family, row.name, driver, _yes(_has(survey, driver)), _yes(_plugs(survey, row, driver)))
        for row in selection.models
        for driver in row.drivers
    ]
    devices = [("FAMILY", "DEVICE", "QEMU DRIVER", "THERE")]
    devices += [
        (kind.family, kind.kind, driver, _yes(_has(survey, driver)))
        for kind in selection.devices
        for driver in kind.drivers
    ]
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
                "family": row.family,
                "name": row.name,
                "driver": driver,
                "present": _has(survey, driver),
                "hotplug": _plugs(survey, row, driver),
            }
            for row in selection.models
            for driver in row.drivers
        ],
        "devices": [
            {"family": kind.family, "kind": kind.kind, "driver": driver, "present": _has(survey, driver)}
            for kind in selection.devices
            for driver in kind.drivers
        ],
        "differences": [_difference_json(one) for one in _differences(survey, selection)],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


FORMATS: Mapping[str, Callable[[Survey, Selection], str]] = {"text": text, "json": to_json}


def _has(survey: Survey, driver: str) -> bool:
    return survey.drivers.get(driver) is not None


def _plugs(survey: Survey, row: Model, driver: str) -> bool:
    return _has(survey, driver) and hot_plugs(row, survey.machine)


def _differences(survey: Survey, selection: Selection) -> list[Difference]:
    asked = {driver for row in selection.rows for driver in row.drivers}
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
