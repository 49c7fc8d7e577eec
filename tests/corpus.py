"""libvirt's own answers, read where they stand, and how far ours agree with them.

    python -m tests.corpus                  the table, and what differs, rule by rule
    python -m tests.corpus --list fuzz      each case of a scope that differs, and in what
    python -m tests.corpus --show NAME      one case: document, both answers, the difference

The corpus (usb.tar.xz, fuzz.jsonl.xz) lies beside the project; TRANSLATOR_CORPUS names another place.
"""

from __future__ import annotations

import argparse
import difflib
import json
import lzma
import os
import re
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

import translator
from tests.conftest import PROJECT
from tests.differences import rule_of
from translator.registry.models import DRIVERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Dict = dict[str, Any]
Scope = Literal["core", "incidental", "implicit", "fuzz", "live"]
SCOPES: tuple[Scope, ...] = ("core", "incidental", "implicit", "fuzz")
ASPECTS = ("verdict", "devices", "ports", "pci", "properties", "order", "backends")

_USB_DRIVER = re.compile(r"usb-.*|ccid-card-.*")
_NODE = re.compile(r"libvirt-\d+-")
_LOOKUP = re.compile(r"@lookup:vendor=0x0*([0-9a-f]+),product=0x0*([0-9a-f]+)", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\$\{hostdev:0*([0-9a-f]+):0*([0-9a-f]+):node\}", re.IGNORECASE)
_NOT_USB = {
    "missing-qemu-capability": "libvirt was told that its QEMU lacks a device",
    "schema/other": "refused for something other than USB",
}
_MODELLESS = b"<controller type='usb' index='0'>"
_PIIX3 = {"driver": "piix3-usb-uhci", "id": "usb", "bus": "pci.0", "addr": "0x1.0x2"}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a document: refused with `error`, or its USB `-device`s in order and their backends.

    `devices` and `backends` are None where nobody built a command line.
    """

    error: str | None
    crashed: bool = False
    devices: tuple[Dict, ...] | None = None
    backends: tuple[Dict, ...] | None = None

    @property
    def verdict(self) -> str:
        """`accept` or `reject`, or `crash`, which is never right."""
        if self.crashed:
            return "crash"
        return "accept" if self.error is None else "reject"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A document and libvirt's answer; `reason` is why the answer does not count, None where it does."""

    name: str
    scope: Scope
    xml: bytes
    expected: Answer
    reason: str | None = None


class Comparison(NamedTuple):
    """A case, our answer, and the aspects (of ASPECTS) in which it is not libvirt's."""

    case: Case
    ours: Answer
    differs: tuple[str, ...]


def place() -> Path:
    """Return the folder with the corpus, which need not exist."""
    return Path(os.environ.get("TRANSLATOR_CORPUS") or PROJECT.parent / "shared/corpus")


def missing() -> str | None:
    """Return why the corpus cannot be read, or None."""
    lacks = [name for name in ("usb.tar.xz", "fuzz.jsonl.xz") if not (place() / name).exists()]
    return f"no {' and '.join(lacks)} in {place()}: set TRANSLATOR_CORPUS" if lacks else None


def read_corpus() -> Iterator[Case]:
    """Yield every case, also those whose answer does not count."""
    with tarfile.open(place() / "usb.tar.xz") as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        texts = {name: file.read() for name, file in files.items() if file is not None}
    for line in texts["usb/index.jsonl"].splitlines():
        row = json.loads(line)
        expect = json.loads(texts[f"usb/{row['name']}.expect.json"])
        yield _of_suite(row["scope"], expect, texts[f"usb/{row['name']}.xml"])
    for line in texts["usb/implicit.jsonl"].splitlines():
        expect = json.loads(line) | {"verdict": "accept"}
        yield _of_suite("implicit", expect, texts[f"usb/implicit/{expect['name']}.xml"])
    with lzma.open(place() / "fuzz.jsonl.xz", "rt") as lines:
        for text in lines:
            row = json.loads(text)
            yield of_oracle("fuzz", f"fuzz-{row['seed']}", row["xml"], row["oracle"])


def _of_suite(scope: Scope, expect: Dict, xml: bytes) -> Case:
    """Return a case of libvirt's own test suite, for which it was told what its QEMU can do."""
    name = expect["name"]
    if expect["verdict"] == "reject":
        reason = _NOT_USB.get(expect["reject_reason_class"])
        return Case(name=name, scope=scope, xml=xml, expected=Answer(error=expect["error"]), reason=reason)
    devices, backends = expect["devices"], None
    if devices is not None:
        # the default controller of a pc is `-usb` for an old QEMU; elsewhere the board takes that word as it likes
        if "-usb" in expect["legacy_flags"] and str(expect["argv_machine"]).startswith("pc"):
            devices = [_PIIX3, *devices]
        devices = _normal(map(_hostdevice, devices))
    if devices is not None and scope != "implicit":
        groups: dict[str, list[Dict]] = expect["backends"]
        backends = _normal({"kind": kind, **args} for kind, members in groups.items() for args in members)
    answer = Answer(error=None, devices=devices, backends=backends)
    return Case(name=name, scope=scope, xml=xml, expected=answer, reason=_other_qemu(expect, xml))


def _other_qemu(expect: Dict, xml: bytes) -> str | None:
    """Return what an answer supposes that does not hold for QEMU 7 and libvirt's defaults."""
    run = expect.get("run", expect)
    if run is None:
        return None
    if "VIR_DOMAIN_DEF_PARSE_ABI_UPDATE" in (run.get("parse_flags") or ()):
        return "libvirt was asked to take newer defaults than it otherwise keeps"
    takes_default = {"q35": b"<controller type='usb'" not in xml, "virt": _MODELLESS in xml}.get(expect["machine"])
    if takes_default and not isinstance(run["caps"], str) and "DEVICE_QEMU_XHCI" not in run["caps"]:
        return "libvirt was told of a QEMU without qemu-xhci, its default here"
    return None


def _hostdevice(device: Dict) -> Dict:
    """Return a host's device as a new QEMU is told of it."""
    if "hostbus" not in device:
        return device
    rest = {key: value for key, value in device.items() if key not in ("hostbus", "hostaddr")}
    return {**rest, "hostdevice": f"/dev/bus/usb/{device['hostbus']:03d}/{device['hostaddr']:03d}"}


def of_oracle(scope: Scope, name: str, xml: str, oracle: Dict) -> Case:
    """Return the case that a live libvirt's answer makes."""
    error = oracle["error"]
    reason = None
    if error is not None and "not supported in this QEMU binary" in error:
        reason = "Debian's QEMU lacks the controller model"
    elif error is not None and "Unable to create tap device" in error:
        reason = "the host was busy: libvirt tries a network device out while it writes a command line"
    devices = None if error is not None else _normal(oracle["devices"])
    backends = [{"kind": one["kind"], **one["args"]} for one in oracle["backends"]]
    answer = Answer(error=error, devices=devices, backends=None if error is not None else _normal(backends))
    return Case(name=name, scope=scope, xml=xml.encode(), expected=answer, reason=reason)


def ours(xml: bytes) -> Answer:
    """Return our answer: QEMU's whole command line, as far as it concerns USB."""
    try:
        plan = translator.plan(translator.load(xml), coldplug="all")
    except translator.DocumentError as error:
        return Answer(error="\n".join(str(one) for one in error.diagnostics))
    except Exception as error:  # the other cases are to be judged all the same
        return Answer(error=f"{type(error).__name__}: {error}", crashed=True)
    devices: list[Dict] = []
    backends: list[Dict] = []
    for step in plan.steps:
        if step.stage != "launch":
            continue
        words = step.launch_words
        for option, value in zip(words[::2], words[1::2], strict=True):
            argument = arguments_of(value)
            if option != "-device":
                backends.append({"kind": option.removeprefix("-"), **argument})
            elif argument["driver"] in DRIVERS or _USB_DRIVER.fullmatch(argument["driver"]):
                devices.append(argument)
    return Answer(error=None, devices=_normal(devices), backends=_normal(_used(devices, backends)))


def _used(devices: Iterable[Dict], backends: Iterable[Dict]) -> Iterator[Dict]:
    """Yield the backends of these devices, and those that they stand on."""
    used = {device[key] for device in devices for key in ("chardev", "drive", "audiodev") if key in device}
    backends = list(backends)
    used |= {one["file"] for one in backends if one.get("node-name") in used and "file" in one}
    return (one for one in backends if (one.get("id") or one.get("node-name")) in used)


def compare(case: Case) -> Comparison:
    """Return in what our answer to a case is not libvirt's."""
    answer = ours(case.xml)
    theirs = case.expected
    if answer.verdict != theirs.verdict:
        return Comparison(case, answer, ("verdict",))
    if answer.devices is None or theirs.devices is None:
        return Comparison(case, answer, ())
    differs = [
        aspect for aspect, project in _PROJECTIONS.items() if project(answer.devices) != project(theirs.devices)
    ]
    if theirs.backends is not None and _texts(answer.backends or ()) != _texts(theirs.backends):
        differs.append("backends")
    return Comparison(case, answer, tuple(differs))


def table(comparisons: Sequence[Comparison]) -> str:
    """Return how many cases of each scope agree, in all and in each aspect; a refused document agrees in all.

    `by rule` are those that differ as a rule of tests/differences.py says, `not counted` those with a reason.
    """
    heads = ("scope", "cases", "equal", *ASPECTS, "by rule", "not counted")
    rows: list[tuple[str, ...]] = [heads]
    for scope in dict.fromkeys(one.case.scope for one in comparisons):
        members = [one for one in comparisons if one.case.scope == scope]
        counted = [one for one in members if one.case.reason is None]
        wrong = Counter(aspect for one in counted for aspect in one.differs)
        judged = len(counted) - wrong["verdict"]
        equal = sum(not one.differs for one in counted)
        cells = [f"{equal} ({equal / max(len(counted), 1):.1%})", str(len(counted) - wrong["verdict"])]
        cells += [str(judged - wrong[aspect]) for aspect in ASPECTS[1:]]
        ruled = sum(bool(one.differs) and rule_of(one) is not None for one in counted)
        rows.append((scope, str(len(counted)), *cells, str(ruled), str(len(members) - len(counted))))
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def account(comparisons: Sequence[Comparison], scope: Scope) -> str:
    """Return, as Markdown, how many cases of a scope are equal, and why each other one is not or does not count."""
    members = [one for one in comparisons if one.case.scope == scope]
    others = {
        one.case.name: f"not counted: {one.case.reason}"
        if one.case.reason
        else f"differs in {' and '.join(one.differs)}: {(rule_of(one) or 'nothing accounts for it').lower()}"
        for one in members
        if one.case.reason or one.differs
    }
    lines = [f"Of {len(members)} cases {len(members) - len(others)} are equal in everything. The others:", ""]
    return "\n".join([*lines, *(f"- `{name}`: {others[name]}." for name in sorted(others))])


def explain(one: Comparison) -> str:
    """Return a case for people: the document, and our answer as a difference from libvirt's."""
    lines = [f"{one.case.name} ({one.case.scope}): differs in {', '.join(one.differs) or 'nothing'}"]
    if one.case.reason:
        lines.append(f"not counted: {one.case.reason}")
    lines += [one.case.xml.decode(errors="replace"), *_difference(one)]
    return "\n".join(lines)


def _difference(one: Comparison) -> Iterator[str]:
    def listing(answer: Answer) -> list[str]:
        head = [answer.verdict + (f": {answer.error}" if answer.error else "")]
        return [*head, *map(_text, answer.devices or ()), *sorted(map(_text, answer.backends or ()))]

    theirs, mine = listing(one.case.expected), listing(one.ours)
    yield from difflib.unified_diff(theirs, mine, "libvirt", "translator", n=100, lineterm="")


# Values that mean the same become the same


def _normal(devices: Iterable[Dict]) -> tuple[Dict, ...]:
    return tuple({name: _value(value) for name, value in device.items()} for device in devices)


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _value(one) for name, one in value.items()}
    if isinstance(value, str):
        # libvirt counts a disk's nodes down from the last one: which number it is says nothing
        value = _NODE.sub("libvirt-", value)
        value = _PLACEHOLDER.sub(r"host \1:\2", _LOOKUP.sub(r"host \1:\2", value))
        return {"on": True, "off": False}.get(value, value)
    return value


def arguments_of(text: str) -> Dict:
    """Read an option's value: JSON, or words of the form `driver,key=value,…` with commas doubled in values."""
    if text.startswith("{"):
        found: Dict = json.loads(text)
        return found
    first, *rest = re.split(r"(?<!,),(?:,,)*(?!,)", text)
    pairs = (word.replace(",,", ",").partition("=") for word in rest)
    return {"backend": first, **{name: value for name, _, value in pairs}}


def _text(device: Dict) -> str:
    return json.dumps(device, sort_keys=True)


def _texts(devices: Iterable[Dict]) -> list[str]:
    return sorted(json.dumps({name: str(value) for name, value in one.items()}, sort_keys=True) for one in devices)


def _name(device: Dict) -> str:
    return f"{device['driver']} {device.get('id') or device.get('masterbus')}"


_PLACE = ("bus", "addr", "multifunction")
_PROJECTIONS: dict[str, Any] = {
    "devices": lambda devices: sorted(map(_name, devices)),
    "ports": lambda devices: sorted((_name(one), one["bus"], one["port"]) for one in devices if "port" in one),
    "pci": lambda devices: sorted(
        (_name(one), *(str(one.get(key)) for key in _PLACE)) for one in devices if "port" not in one
    ),
    "properties": lambda devices: sorted(
        _text({key: value for key, value in one.items() if key not in (*_PLACE, "port")}) for one in devices
    ),
    "order": lambda devices: list(map(_name, devices)),
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 where anything differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--list", metavar="SCOPE", choices=SCOPES, help="name each case that differs")
    parser.add_argument("--aspect", choices=ASPECTS, help="with --list: only those that differ in it")
    parser.add_argument("--show", metavar="NAME", help="print one case")
    options = parser.parse_args(words)
    if reason := missing():
        parser.error(reason)
    cases = [case for case in read_corpus() if options.show in (None, case.name)]
    if options.list:
        cases = [case for case in cases if case.scope == options.list]
    comparisons = [compare(case) for case in cases]
    if options.show:
        print("\n\n".join(map(explain, comparisons)) or f"no case is named {options.show}")
    elif options.list:
        for one in comparisons:
            if one.differs and one.case.reason is None and (options.aspect or one.differs[0]) in one.differs:
                error = one.ours.error if one.case.expected.error is None else one.case.expected.error
                print(f"{one.case.name:40}  {','.join(one.differs):32}  {(error or '').splitlines()[:1]}")
    else:
        print(table(comparisons))
        print()
        for (verdict, error), count in _verdicts(comparisons).most_common(40):
            print(f"{count:5}  {verdict}: {error}")
    return int(any(one.differs and one.case.reason is None for one in comparisons))


def _verdicts(comparisons: Iterable[Comparison]) -> Counter[tuple[str, str]]:
    """Count the wrong verdicts by message, without its numbers and names."""
    found: Counter[tuple[str, str]] = Counter()
    for one in comparisons:
        if "verdict" in one.differs and one.case.reason is None:
            error = one.ours.error or one.case.expected.error or ""
            first = re.sub(r"^[\d:]+ ", "", error.splitlines()[0])
            found[f"ours: {one.ours.verdict}", re.sub(r"'[^']*'|\d+", "#", first)] += 1
    return found


if __name__ == "__main__":
    sys.exit(main())
