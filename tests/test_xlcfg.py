"""xl's configuration files: the language, every generation of its USB syntax, and the way to domain XML and back."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st

import translator
from tests.conftest import PROJECT, cases
from translator.cli import cli
from translator.document.save import add
from translator.errors import DocumentError
from translator.hotplug.wanted import Wanted
from translator.placing.resolve import resolve
from translator.xlcfg import language, to_xl, to_xml
from translator.xlcfg.usbwrite import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result

    from translator.topology import Topology

# The language

VALUES = [
    ('a = "b"', "b"),
    ("a = 'b'", "b"),
    ('a = "it\'s"', "it's"),
    (r'a = "q\"b\\\n\t\101"', 'q"b\\\n\tA'),
    ("a = 0x1F", None),
    ("a = 0x1f", "0x1f"),
    ('a = "x" # comment', "x"),
    ('# comment\n\n;;\na = "x"', "x"),
    ('b = 1; a = "x"', "x"),
    ("a=[]", []),
    ('a = [ "x", [ 1, "y" ], ]', ["x", ["1", "y"]]),
    ('a = [ "x" # one\n\n , "y"\n]', ["x", "y"]),
    ('a = "x"\na += "y"', "xy"),
    ('a = ["x"]\na += ["y"]', ["x", "y"]),
    ('a += ["y"]', ["y"]),
    ('a = """it\'s "so\n"""', "it's \"so\n"),
    ('a = \\\n  "x"\r\nb = 1\r\n', "x"),
    ("a = [,]", None),
    ('a = ["x" "y"]', None),
    ('a = "x" "y"', None),
    ("a = \n1", None),
    ("a = true", None),
    ("a = -1", None),
    ('A = "x"', None),
    ("a", None),
    ('a = "x', None),
    (r'a = "\q"', None),
    ("a = " + "[" * 9 + "]" * 9, None),
]


@pytest.mark.parametrize(("text", "value"), VALUES, ids=[text for text, _ in VALUES])
def test_language(text: str, value: object) -> None:
    if value is None:
        with pytest.raises(DocumentError):
            language.parse(text.encode())
    else:
        assert language.plain(language.parse(text.encode()).settings["a"].value) == value


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a = 1\n" * 60_000, "T103"),
        (f'a = "{"x" * 20_000}"', "T103"),
        (f"a = [{'1,' * 20_000}]", "T106"),
        ("usbctrl = [ 'x' ]\n" + "usbctrl += [ 'x' ]\n" * 500, "T108"),
    ],
)
def test_what_is_beyond_any_domain_is_refused(text: str, code: str) -> None:
    with pytest.raises(DocumentError) as caught:
        to_xml(text.encode())
    assert caught.value.diagnostics[-1].code == code


def test_every_value_knows_its_place() -> None:
    settings = language.parse(b'a = 1\n  b = [ "x",\n "y" ]\n').settings
    assert (settings["b"].source.line, settings["b"].source.column) == (2, 3)
    value = settings["b"].value
    assert isinstance(value, language.Items)
    assert [(one.source.line, one.source.column) for one in value.values] == [(2, 10), (3, 3)]


_CHARACTERS = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
_STRINGS = st.text(st.one_of(_CHARACTERS, st.sampled_from("\n\t\r\"'\\#,[]=")), max_size=20)
_LISTS = st.recursive(_STRINGS, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), _LISTS, max_size=4))
def test_what_is_written_is_read(values: dict[str, str | list[object]]) -> None:
    read = language.parse(language.write(values.items()).encode()).settings
    assert {name: language.plain(setting.value) for name, setting in read.items()} == values


# Both ways, by example: a case's domain.cfg, the XML of it, the file of that, and what was said

BOTH_WAYS = cases("convert")


@pytest.mark.parametrize("case", BOTH_WAYS, ids=[path.name for path in BOTH_WAYS])
def test_golden_conversion(case: Path, check_golden: Callable[[Path, str], None]) -> None:
    config = (case / "domain.cfg").read_bytes()
    there = to_xml(config, file="domain.cfg", keep_unknown="keep" in case.name)
    back = to_xl(there.data, file="domain.xml")
    check_golden(case / "domain.xml", there.data.decode())
    check_golden(case / "again.cfg", back.data.decode())
    check_golden(case / "said.txt", "".join(f"{one}\n" for one in (*there.warnings, *back.warnings)))
    again = to_xml(back.data, keep_unknown="keep" in case.name)
    assert to_xl(again.data).data == back.data
    assert facts(config) == facts(there.data) == facts(back.data)


def test_what_is_not_translated_is_told_by_its_setting() -> None:
    config = GUEST + 'disk = [ "/dev/a,raw,xvda",\n "/dev/b,raw,xvdb" ]\nvif = [ "bridge=br0" ]\n'
    config += 'disk += [ "/dev/c,raw,xvdc" ]\nvnc = 1\n'
    plan = translator.plan(translator.load(config.encode(), file="guest.cfg"))
    first = GUEST.count("\n") + 1
    assert [(one.element, one.source.line - first) for one in plan.untranslated] == [
        ("disk", 0),
        ("disk", 1),
        ("disk", 3),
        ("vif", 2),
        ("vnc", 4),
    ]


def test_a_plan_is_the_same_from_either_language_and_names_the_lines_of_its_own() -> None:
    case = PROJECT / "fixtures/convert/usbctrl-and-usbdev"
    config = translator.plan(translator.load(case / "domain.cfg"))
    document = translator.plan(translator.load(case / "domain.xml"))
    assert not config.untranslated  # what libvirt's conversion adds is nobody's in the file
    nowhere = [[msgspec.structs.replace(step, source=None) for step in plan.steps] for plan in (config, document)]
    assert nowhere[0] == nowhere[1]
    lines = (case / "domain.cfg").read_text().splitlines()
    for device in config.topology.devices:
        assert device.source is not None
        assert device.host is not None
        said = lines[device.source.line - 1][device.source.column - 1 :]
        address = re.match(r"[^\"]*?hostaddr=(\w+)", said)
        assert address is not None
        assert int(address[1], 8 if address[1].startswith("0") else 10) == device.host.device


# Topologies survive


def topology(data: bytes) -> Topology:
    return resolve(translator.load(data)).topology


def facts(data: bytes) -> object:
    """Return all that the guest, or whoever looks at its xenstore, can see."""
    seen = topology(data)
    controllers = [
        (one.family, one.index, one.model, one.ports, str(one.backend), one.id, one.properties, one.companions)
        for one in seen.controllers
        if one.family in FAMILIES
    ]
    devices = [
        (one.kind, one.host, one.controller, one.port, one.id, {**one.properties, "drive": None})
        for one in seen.devices
        if one.family in FAMILIES
    ]
    return sorted(controllers, key=repr), sorted(devices, key=repr)


def options(**values: object) -> str:
    return ",".join(f"{name}={value}" for name, value in values.items() if value is not None)


@st.composite
def configs(draw: st.DrawFn) -> bytes:
    """Return a file with USB in any mixture of generations that xl documents no refusal of."""
    hvm = draw(st.booleans())
    lines = [
        'name = "guest"',
        'kernel = "/boot/xen-guest"',
        f'type = "{"hvm" if hvm else draw(st.sampled_from(["pv", "pvh"]))}"',
    ]
    hosts = itertools.count(1)
    maybe_ports = st.none() | st.integers(1, 31)
    controllers = []
    room: list[tuple[int, int]] = []
    for number in range(draw(st.integers(0, 3))):
        type = draw(st.sampled_from(["pv", "qusb", "auto", *(["devicemodel"] if hvm else [])]))
        versions = {"devicemodel": [None, 1, 2, 3], "auto": [None, 2]}.get(type, [None, 1, 2])
        version = draw(st.sampled_from(versions))
        emulated = type == "devicemodel" or (type == "auto" and hvm)
        fixed = {None: 6, 1: 2, 2: 6}.get(version) if emulated else None
        most = fixed or (15 if emulated else 31)
        ports = draw(st.none() | st.integers(1, most)) if fixed is None else draw(st.sampled_from([None, fixed]))
        controllers.append(options(type=None if type == "auto" else type, version=version, ports=ports))
        room += [(number, port) for port in range(1, (ports or fixed or (4 if emulated else 8)) + 1)]
    if controllers:
        lines.append(language.write([("usbctrl", controllers)]).strip())
    places = draw(st.lists(st.sampled_from(room), unique=True, max_size=4)) if room else []
    entries = [options(type="hostdev", hostbus=1, hostaddr=next(hosts), controller=c, port=p) for c, p in places]
    entries += [options(hostbus=2, hostaddr=next(hosts)) for _ in range(draw(st.integers(0, 2))) if room]
    if entries and len(entries) <= len(room):
        lines.append(language.write([("usbdev", entries)]).strip())
    for _ in range(draw(st.integers(0, 2))):
        ports = draw(maybe_ports)
        used = draw(st.lists(st.integers(1, ports or 8), unique=True, max_size=3))
        about = [options(usbver=draw(st.sampled_from([None, 1, 2])), numports=ports)]
        about += [f"port_{port}=3-{next(hosts)}" for port in used]
        lines.append(f"vusb += ['{', '.join(filter(None, about))}']")
    if hvm:
        words = st.sampled_from(["tablet", "mouse", "keyboard", "hub", "host:4.{}", "host:046d:{:04x}"])
        devices = [word.format(next(hosts)) for word in draw(st.lists(words, max_size=6))]
        # a hub in the last port leaves room for what comes
        plugged = draw(st.booleans()) and bool(devices)
        if plugged:
            lines += ["usb = 1", language.write([("usbdevice", devices)]).strip()]
        else:
            lines.append(f"usbversion = {draw(st.integers(0, 3))}")
    return "\n".join(lines).encode()


@settings(max_examples=60, deadline=None)
@given(configs())
def test_a_files_usb_survives_the_way_to_xml_and_back(config: bytes) -> None:
    there = to_xml(config)
    back = to_xl(there.data)
    assert facts(there.data) == facts(config)
    assert facts(back.data) == facts(config)
    assert not [one for one in back.warnings if one.code in ("T360", "T361")]


MODELS = ("piix3-uhci", "ehci", "nec-xhci", "qemu-xhci", "qusb1", "qusb2", "xenusb1", "xenusb2", None)
PORTS = {"piix3-uhci": 2, "ehci": 6, None: 6, "nec-xhci": 4, "qemu-xhci": 4}


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Return a Xen domain with all sorts of USB, much of which an xl.cfg can say."""
    elements, room = [], []
    index = 0
    for _ in range(draw(st.integers(0, 3))):
        model = draw(st.sampled_from(MODELS))
        index += draw(st.sampled_from([0, 0, 0, 0, 1]))
        named = f" model='{model}'" if model else ""
        elements.append(f"<controller type='usb' index='{index}'{named}/>")
        room += [(index, port, model) for port in range(1, PORTS.get(model, 8) + 1)]
        index += 1
    places = draw(st.lists(st.sampled_from(room), unique_by=lambda place: place[:2], max_size=5)) if room else []
    for number, (bus, port, model) in enumerate(places, 1):
        address = f"<address type='usb' bus='{bus}' port='{port}'/>" if draw(st.booleans()) else ""
        emulated = model not in MODELS[4:8]
        kind = draw(
            st.sampled_from(["hostdev", "hostdev", "ids", "port", *(["tablet", "mouse", "hub"] if emulated else [])])
        )
        source = {
            "hostdev": f"<address bus='1' device='{number}'/>",
            "ids": f"<vendor id='0x046d'/><product id='0x{number:04x}'/>",
            "port": f"<address bus='1' port='{number}'/>",
        }
        if kind in source:
            elements.append(
                f"<hostdev mode='subsystem' type='usb'><source>{source[kind]}</source>{address}</hostdev>"
            )
        elif kind == "hub":
            elements.append(f"<hub type='usb'>{address}</hub>")
        else:
            elements.append(f"<input type='{kind}' bus='usb'>{address}</input>")
    return (
        "<domain type='xen'><name>guest</name><os><type>hvm</type></os><devices>"
        f"{''.join(elements)}</devices></domain>"
    ).encode()


@settings(max_examples=60, deadline=None)
@given(documents())
def test_a_documents_usb_survives_the_way_to_xl_and_back_or_it_is_told(document: bytes) -> None:
    try:
        before = facts(document)
    except DocumentError:
        return  # no room for what leaves its place open
    there = to_xl(document)
    told = [one for one in there.warnings if one.code in ("T360", "T361")]
    assert (facts(to_xml(there.data).data) == before) == (not told)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text("abk=[]\"'\\,+#;\n usbctrl=[type=pv]", max_size=80).map(str.encode))
@example(b'name = "a"\nusbctrl = [ [ "type=pv" ] ]')
@example(b'name = [ "a" ]')
@example(b'name = "a"\nuuid = "a"\nmemory = 99999999999999999999')
def test_any_file_is_read_or_refused(data: bytes) -> None:
    try:
        document = to_xml(data, file="a.cfg", keep_unknown=True).data
    except DocumentError as error:
        unplaced = [one for one in error.diagnostics if not (one.line and one.column and one.file == "a.cfg")]
    else:
        unplaced = []
        to_xl(document)
    assert not unplaced


# The command line


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


GUEST = 'name = "guest"\ntype = "hvm"\nusb = 1\nusbdevice = "tablet"\n'


def test_every_command_takes_a_config(tmp_path: Path) -> None:
    file = tmp_path / "guest.cfg"
    file.write_text(GUEST)
    for command in ("validate", "plan", "normalize"):
        result = run(command, file)
        assert (result.exit_code, result.stderr) == (0, "")
    result = run("apply", "--sandbox", file)
    assert "piix3-uhci" in result.stdout


def test_a_folder_stands_for_its_xml_only(tmp_path: Path) -> None:
    (tmp_path / "guest.cfg").write_text("no language at all")
    (tmp_path / "guest.xml").write_bytes(to_xml(GUEST.encode()).data)
    assert run("validate", tmp_path).exit_code == 0


def test_a_config_is_not_edited() -> None:
    with pytest.raises(DocumentError, match=r"T442.*xl's language"):
        add(GUEST.encode(), Wanted(translator.plan(translator.load(GUEST.encode())), ()))


def test_convert_from_standard_input_to_a_file(tmp_path: Path) -> None:
    document, again = tmp_path / "guest.xml", tmp_path / "again.cfg"
    result = CliRunner().invoke(cli, ["convert", "-", "--to", "xml", "--output", str(document)], input=GUEST)
    assert (result.exit_code, result.output) == (0, "")
    assert run("convert", document, "--to", "xl", "--output", again).exit_code == 0
    assert facts(again.read_bytes()) == facts(GUEST.encode())


REFUSALS = [
    ("--to xml", "usb = ", 3, "T115"),
    ("--to xml", f"{GUEST}usbctrl = [ 'type=pv,ports=32' ]\n", 3, "T356"),
    ("--to xml", f"{GUEST}usbctrl = [ 'type=pv,version=3' ]\n", 3, "T309"),
    ("--to xml", f"{GUEST}cpus = '2-3'\n", 0, "guest.cfg:5:1: warning[T122]"),
    ("--to xml --strict", f"{GUEST}cpus = '2-3'\n", 3, "guest.cfg:5:1: error[T122]"),
    ("--to xml --keep-unknown --strict", f"{GUEST}cpus = '2-3'\n", 0, ""),
    ("--to xl", GUEST, 2, "already"),
    ("--to xml", "<domain type='xen'><name>a</name></domain>", 2, "already"),
    ("--to xl", "<domain type='kvm'><name>a</name></domain>", 3, "T362"),
    ("--to xl --keep-unknown", "<domain type='xen'><name>a</name></domain>", 2, "--keep-unknown"),
]


@pytest.mark.parametrize(("arguments", "text", "code", "said"), REFUSALS)
def test_convert_tells(tmp_path: Path, arguments: str, text: str, code: int, said: str) -> None:
    file = tmp_path / "guest.cfg"
    file.write_text(text)
    result = run("convert", file, *arguments.split())
    assert result.exit_code == code
    assert said in result.stderr
    assert bool(said) == bool(result.stderr)
    assert bool(result.stdout) == (code == 0)
