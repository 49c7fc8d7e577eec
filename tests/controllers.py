"""libvirt's answers about controllers of every family, read where they stand, and how far ours agree with them.

    python -m tests.controllers              how many cases agree, and in what the others differ
    python -m tests.controllers --show NAME  one case: document, both answers

The corpus (controllers.tar.xz) lies beside the project; TRANSLATOR_CORPUS names another place.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tarfile
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import translator
from tests.corpus import place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Dict = dict[str, Any]
ASPECTS = ("verdict", "controllers", "models", "places", "devices")

# What libvirt refuses for the sake of its controllers, among much that is none of ours.
_OURS = re.compile(
    r"PCI (?:[Aa]ddress|controller)|pci-root|'pci' controllers|SCSI host|Invalid address type|Hostdev already"
    r"|NUMA node \(\d+\) not present|unexpected address type"
)
# Which of the two is taken where none is named hangs on the QEMU that libvirt's test was told of.
_OLD_QEMU = {"ioh3420": "pcie-root-port"}


class Case(NamedTuple):
    """A document and libvirt's answer; `reason` is why the answer does not count, None where it does."""

    name: str
    xml: bytes
    row: Dict
    reason: str | None


class Comparison(NamedTuple):
    """A case, our answer (None where we refuse), and the aspects in which it is not libvirt's."""

    case: Case
    ours: translator.Plan | None
    error: str | None
    differs: tuple[str, ...]


def missing() -> str | None:
    """Return why the corpus cannot be read, or None."""
    there = (place() / "controllers.tar.xz").exists()
    return None if there else f"no controllers.tar.xz in {place()}: set TRANSLATOR_CORPUS"


def read_corpus() -> Iterator[Case]:
    """Yield every case."""
    with tarfile.open(place() / "controllers.tar.xz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        texts = {name: file.read() for name, file in files.items() if file is not None}
    for line in texts["controllers/controllers.jsonl"].splitlines():
        row = json.loads(line)
        reason = None
        if row["verdict"] == "reject" and not _OURS.search(row["error"]):
            reason = "refused for something other than controllers"
        if _lacks_usb(row):
            reason = "libvirt was told of a QEMU without the machine's USB controller"
        yield Case(row["name"], texts[f"controllers/{row['name']}.xml"], row, reason)


def _lacks_usb(row: Dict) -> bool:
    """Tell whether the controllers are complete but for the one that a machine has without being asked."""
    completed = row["controllers_from"] != "input" and row.get("same_caps_as_argv", False)
    has = any(one["type"] == "usb" for one in row["controllers"])
    return completed and not has and row["machine"] == "q35" and not isinstance(row["run"]["caps"], str)


def compare(case: Case) -> Comparison:
    """Return in what our answer to a case is not libvirt's."""
    try:
        plan = translator.plan(translator.load(case.xml), coldplug="all")
    except translator.DocumentError as error:
        differs = ("verdict",) if case.row["verdict"] == "accept" else ()
        return Comparison(case, None, "\n".join(map(str, error.diagnostics)), differs)
    if case.row["verdict"] == "reject":
        return Comparison(case, plan, None, ("verdict",))
    theirs, mine = _theirs(case), _mine(plan)
    if case.row["controllers_from"] == "input" or not case.row.get("same_caps_as_argv", True):
        # those that come along are not listed, or are another QEMU's
        mine["controllers"] = {key: True for key in mine["controllers"] if key in theirs["controllers"]}
    if "devices" not in case.row:
        theirs["devices"] = mine["devices"] = {}
    return Comparison(case, plan, None, tuple(one for one in ASPECTS[1:] if not _agree(one, theirs[one], mine[one])))


def _theirs(case: Case) -> dict[str, dict[Any, Any]]:
    parts = {(one["type"], one["index"]): one for one in case.row["controllers"]}
    devices: Dict = {}
    for one in case.row.get("devices") or ():
        device = {key: value for key, value in one["device"].items() if not re.fullmatch("drive[AB]", key)}
        name = str(one["device"].get("id") or one["device"]["driver"])
        devices[name] = device | {"driver": _OLD_QEMU.get(device["driver"], device["driver"])}
    return {
        "controllers": dict.fromkeys(parts, True),
        "models": {key: one["model"] for key, one in parts.items() if one["model"] is not None},
        "places": {key: _address(one["address"]) for key, one in parts.items() if "address" in one},
        "devices": devices,
    }


def _mine(plan: translator.Plan) -> dict[str, dict[Any, Any]]:
    parts = {(one.family, one.index): one for one in plan.topology.controllers}
    companions = [("usb", one.index) for one in plan.topology.controllers for _ in one.companions]
    devices = {}
    for step in plan.steps:
        family = step.subject.split(":")[1]
        if step.id.startswith("controller:") and family != "usb":
            value = json.loads(step.launch_words[1])
            name = str(value.get("id") or value["driver"])
            devices[name] = value | {"driver": _OLD_QEMU.get(value["driver"], value["driver"])}
    return {
        "controllers": dict.fromkeys((*parts, *companions), True),
        "models": {key: one.model for key, one in parts.items()},
        "places": {key: one.pci for key, one in parts.items()},
        "devices": devices,
    }


def _address(address: Dict) -> str | None:
    if address["type"] != "pci":
        return None
    return "{domain:04x}:{bus:02x}:{slot:02x}.{function:x}".format(**address)


def _agree(aspect: str, theirs: dict[Any, Any], mine: dict[Any, Any]) -> bool:
    if aspect in ("models", "places"):
        return all(mine.get(key) == value for key, value in theirs.items() if key[0] != "usb" and value is not None)
    return theirs == mine


def table(comparisons: Sequence[Comparison]) -> str:
    """Return how many cases agree, and in what the others do not."""
    counted = [one for one in comparisons if one.case.reason is None]
    wrong = Counter(aspect for one in counted for aspect in one.differs)
    equal = sum(not one.differs for one in counted)
    share = f"{equal} of {len(counted)} equal ({equal / len(counted):.1%})"
    lines = [f"controllers: {share}, not counted {len(comparisons) - len(counted)}"]
    return "\n".join([*lines, *(f"  {wrong[aspect]:4}  differ in {aspect}" for aspect in ASPECTS)])


def explain(one: Comparison) -> str:
    """Return a case for people."""
    lines = [f"{one.case.name}: differs in {', '.join(one.differs) or 'nothing'}", one.case.xml.decode()]
    if one.ours is None or one.case.row["verdict"] == "reject":
        return "\n".join([*lines, f"libvirt: {one.case.row.get('error')}", f"ours: {one.error}"])
    theirs, mine = _theirs(one.case), _mine(one.ours)
    for aspect in one.differs:
        for key in sorted(theirs[aspect].keys() | mine[aspect].keys(), key=str):
            a, b = theirs[aspect].get(key), mine[aspect].get(key)
            if a != b and not (aspect in ("models", "places") and a is None):
                lines.append(f"  {aspect} {key}: libvirt {a}, ours {b}")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 where anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.controllers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--show", metavar="NAME", help="print one case")
    options = parser.parse_args(words)
    if reason := missing():
        parser.error(reason)
    comparisons = [compare(case) for case in read_corpus() if options.show in (None, case.name)]
    if options.show:
        print("\n\n".join(map(explain, comparisons)) or f"no case is named {options.show}")
        return 0
    print(table(comparisons))
    for one in comparisons:
        if one.differs and one.case.reason is None:
            error = (one.error or one.case.row.get("error") or "").splitlines()[:1]
            print(f"{one.case.name:45} {','.join(one.differs):30} {error}")
    return int(any(one.differs and one.case.reason is None for one in comparisons))


if __name__ == "__main__":
    sys.exit(main())
