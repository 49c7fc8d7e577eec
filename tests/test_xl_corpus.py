"""libvirt's own conversions between xl's or xm's files and domain XML, in the directions that it runs them."""

from __future__ import annotations

import functools
import json
import re
import tarfile
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from lxml import etree

import translator
from tests import corpus
from tests.conftest import PROJECT
from translator.placing.resolve import resolve
from translator.xlcfg import language, to_xl, to_xml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lxml.etree import _Element

    from tests.servers import Xl


class Case(NamedTuple):
    """A pair of files; `there` and `back` say which conversions libvirt runs."""

    name: str
    suite: str
    run: str
    files: dict[str, bytes]


# What differs, by the rule in docs/xl.md, from libvirt's XML: our own elements and libvirt's, as `elements` has them.
OURS_IN_XML = {
    "The emulated controller is named": r"'controller'.*'piix3-uhci'",
    "The firmware's folder": r"'/usr/lib/xen/boot/ovmf\.bin'",
}
THEIRS_IN_XML = {
    "The firmware's folder": r"'/LIBXL_FIRMWARE_DIR/ovmf\.bin'",
    "What nobody said stays unsaid": r"\('on_(poweroff|reboot|crash)'",
}
# From libvirt's files: the settings that we write, and those that libvirt does.
OURS_IN_XL = {
    "type rather than builder": {"type": "hvm"},
    "cmdline rather than extra and root": {"cmdline": "console=hvc0"},
    "The loader is no kernel": {"firmware_override": "/usr/lib/xen/boot/hvmloader&test"},
}
THEIRS_IN_XL = {
    "type rather than builder": {"builder": "hvm"},
    "cmdline rather than extra and root": {"extra": "console=hvc0"},
    "The loader is no kernel": {"kernel": r"/usr/lib/xen/boot/hvmloader(&test)?"},
}
DISKS = "Disks by name"  # the third: the entries of `disk` are other words for the same disks
# In what xl reads, and libvirt tells libxl: what either fills in that nobody said.
FILLED_IN = re.compile(
    r"""/b_info/(claim_mode|localtime|shadow_memkb|video_memkb|device_model_version|nested_hvm|event_channels|bootloader)
    | /b_info/type\.(pv/bootloader|hvm/(usb|serial|boot|viridian|nographic|nested_hvm|vga/kind|vnc/findunused))
    | /c_info/run_hotplug_scripts | /on_soft_reset | /(vfbs|vkbs)\[0\]/.*
    | /disks\[\d\]/removable | /nics\[\d\]/(nictype|model) | /pcidevs\[\d\]/(rdm_policy|vfunc_mask)""",
    re.VERBOSE,
)
LEFT_OUT = re.compile(r"/b_info/(sched_params/weight|cpuid\[0\]/\w+)")


@functools.cache
def read_corpus() -> tuple[Case, ...]:
    """Return the cases; none where there is no corpus."""
    archive = corpus.place() / "xl.tar.xz"
    if not archive.exists():
        return ()
    with tarfile.open(archive) as members:
        files = {one.name: members.extractfile(one) for one in members if one.isfile()}
        texts = {name.removeprefix("xl/"): file.read() for name, file in files.items() if file is not None}
    return tuple(
        Case(row["name"], row["suite"], row["run"], {file.rpartition(".")[2]: texts[file] for file in row["files"]})
        for row in json.loads(texts["index.json"])
    )


def cases(*runs: str) -> list[Any]:
    """Return the parameters of a test over the cases that libvirt runs so; one that skips where there are none."""
    found = [pytest.param(one, id=f"{one.suite}-{one.name}") for one in read_corpus() if one.run in runs]
    why = f"no xl.tar.xz in {corpus.place()}: set TRANSLATOR_CORPUS"
    return found or [pytest.param(None, marks=pytest.mark.skip(reason=why))]


def unexplained(found: Iterable[str], rules: dict[str, str]) -> list[str]:
    return [one for one in found if not any(re.search(pattern, one) for pattern in rules.values())]


def elements(data: bytes) -> Counter[str]:
    """Return a domain's elements, with all that is in each; their order, and that of attributes, says nothing."""

    def canonical(element: _Element) -> object:
        children = sorted((canonical(one) for one in element.iterchildren("*")), key=repr)
        return (element.tag, sorted(element.items()), (element.text or "").strip(), children)

    def parts(element: _Element) -> Iterator[_Element]:
        for one in element.iterchildren("*"):
            if one.tag in ("os", "devices"):
                yield from one.iterchildren("*")
            else:
                yield one

    return Counter(repr(canonical(one)) for one in parts(etree.fromstring(data)))


def usb(data: bytes) -> object:
    topology = resolve(translator.load(data)).topology
    return (
        [(one.index, one.model, one.ports) for one in topology.controllers if one.family == "usb"],
        [(one.kind, one.controller, one.port, one.host) for one in topology.devices if one.family == "usb"],
    )


@pytest.mark.parametrize("case", cases("both", "cfg->xml"))
def test_to_xml(case: Case) -> None:
    converted = to_xml(case.files["cfg"])
    assert usb(converted.data) == usb(case.files["xml"])
    ours, theirs = elements(converted.data), elements(case.files["xml"])
    assert not unexplained(ours - theirs, OURS_IN_XML)
    assert not unexplained(theirs - ours, THEIRS_IN_XML)
    assert {one.code for one in converted.warnings} <= {"T124"}


@pytest.mark.parametrize("case", cases("both", "xml->cfg"))
def test_to_xl(case: Case) -> None:
    converted = to_xl(case.files["xml"])
    ours, theirs = values(converted.data), values(case.files["cfg"])
    if case.suite == "xmconfigdata":  # xm's way to write disks is not xl's
        assert disks(converted.data) == disks(case.files["cfg"])
        ours.pop("disk", None), theirs.pop("disk", None)
    for mine, others, rules in ((ours, theirs, OURS_IN_XL), (theirs, ours, THEIRS_IN_XL)):
        for name in [name for name in mine if mine[name] != others.get(name)]:
            assert any(
                name in rule and re.fullmatch(rule[name], str(mine[name]).strip("[()],'")) for rule in rules.values()
            ), f"{name}: {mine[name]!r} and {others.get(name)!r}"
    assert not converted.warnings


def values(config: bytes) -> dict[str, object]:
    """Return the settings; strings of options without the order of these."""

    def plain(value: object) -> object:
        if isinstance(value, list):
            return sorted(map(plain, value), key=repr)
        assert isinstance(value, str)
        return tuple(sorted(map(str.strip, value.split(",")))) if re.search("[,=]", value) else value

    return {name: plain(language.plain(one.value)) for name, one in language.parse(config).settings.items()}


def disks(config: bytes) -> Counter[str]:
    """Return what disks a file means; of the drivers of xm, xl has not `file`, and takes qemu for it."""
    found = elements(to_xml(config).data.replace(b'name="file"', b'name="qemu"'))
    return Counter({one: count for one, count in found.items() if one.startswith("('disk'")})


@pytest.mark.parametrize("case", cases("xml->json"))
def test_xl_understands_what_libvirt_tells_libxl(case: Case, xl: Xl) -> None:
    written = to_xl(case.files["xml"]).data
    if case.name == "vnuma-hvm-legacy-nest":
        with pytest.raises(ValueError, match="vnuma memory size mismatch"):
            xl.read(written)  # and would be right to
        return
    ours, theirs = dict(flat(xl.read(written))), dict(flat(json.loads(case.files["json"])))
    differing = {path for path in {*ours, *theirs} if ours.get(path) != theirs.get(path)}
    assert not [path for path in differing if not FILLED_IN.fullmatch(path) and not LEFT_OUT.fullmatch(path)]


def flat(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from flat(inner, f"{path}[{number}]")
    else:
        yield path, value


RULES = [*OURS_IN_XML, *THEIRS_IN_XML, *OURS_IN_XL, DISKS]


@pytest.mark.parametrize("rule", dict.fromkeys(RULES))
def test_every_difference_is_documented(rule: str) -> None:
    assert f"### {rule}\n" in (PROJECT / "docs/xl.md").read_text()


def test_say_how_many(say: Callable[[str], None]) -> None:
    counts = Counter(one.run for one in read_corpus())
    if counts:
        to, back = (counts["both"] + counts[run] for run in ("cfg->xml", "xml->cfg"))
        told, none = counts["xml->json"], counts["none"]
        say(f"libvirt's xl and xm cases: {to} to XML, {back} to xl, {told} told to libxl; {none} it does not run")
