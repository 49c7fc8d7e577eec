"""The first stage: what the schema accepts, what hostile bytes come to, and where a fault is said to be."""

from __future__ import annotations

import gc
import gzip
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import xmlschema
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

import translator
from tests.conftest import FIXTURES, PROJECT
from tests.corpus import place
from translator.document.locate import Locator
from translator.document.validate import MAX_ATTRIBUTES, MAX_TAGS, known_elements, schema_dir, validate
from translator.errors import DocumentError, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS = place()
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="libvirt's test data is not here")


def packed(archive: str, folder: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(CORPUS / archive) as tar:
        for member in tar:
            if member.name.startswith(folder) and member.name.endswith(".xml"):
                file = tar.extractfile(member)
                assert file
                yield member.name, file.read()


@cache
def accepted_by_libvirt() -> tuple[tuple[str, bytes], ...]:
    return tuple(packed("any.tar.xz", "any/accept"))


def guest(devices: str = "", *, attributes: str = "type='xen'") -> bytes:
    return f"<domain {attributes}>\n<name>guest</name>\n<devices>\n{devices}\n</devices>\n</domain>".encode()


# What `_known_work` takes on an idle core of the machine that two seconds are meant for.
_IDLE = 0.023


def _known_work() -> float:
    """Return the processor time of a fixed piece of work: more than when idle where others want the caches, too."""
    began = time.process_time()
    table = {str(number): [number] for number in range(60_000)}
    sorted(table, key=lambda one: table[one][0] ^ 0x5555)
    return time.process_time() - began


@contextmanager
def two_seconds() -> Iterator[None]:
    """Allow two seconds of this process' own time, in which the collector leaves the other tests' objects alone.

    A busy or a slower machine gets as many times more as it takes for known work around the test.
    """
    gc.freeze()
    work = _known_work()
    began = time.process_time()
    try:
        yield
        took = time.process_time() - began
        assert took < 2 * max(1.0, work / _IDLE, _known_work() / _IDLE)
    finally:
        gc.unfreeze()


def refusal(data: bytes, **options: int) -> DocumentError:
    with pytest.raises(DocumentError) as caught:
        validate(data, file="guest.xml", **options)
    return caught.value


# What the schema accepts


@needs_corpus
def test_what_libvirt_accepts_is_accepted() -> None:
    documents = accepted_by_libvirt()
    assert len(documents) > 1000
    for name, data in documents:
        assert validate(data, file=name).warnings == (), name


@cache
def engines() -> tuple[etree.XMLSchema, xmlschema.XMLSchema10]:
    path = os.path.join(schema_dir(), "domain.xsd")
    return etree.XMLSchema(etree.parse(path)), xmlschema.XMLSchema10(path)


MUTATIONS = [
    (rb"type='usb'", b"type='usbb'"),
    (rb"<address type='", b"<address tipe='"),
    (rb"index='(\d)'", rb"index='-\1'"),
    (rb"<source ", b"<sauce/><source "),
    (rb"<target [^>]*/>", b""),
    (rb"</devices>", b"text</devices>"),
    (rb"<devices>", b"<devices><unknown><hub/></unknown>"),
]


@needs_corpus
def test_two_engines_have_one_verdict_and_every_refusal_is_explained() -> None:
    fast, thorough = engines()
    refused = 0
    for number, (name, data) in enumerate(accepted_by_libvirt()):
        pattern, replacement = MUTATIONS[number % len(MUTATIONS)]
        mutant = re.sub(pattern, replacement, data, count=1)
        for root in map(etree.fromstring, {data, mutant} if number % 3 == 0 else {mutant}):
            assert fast.validate(root) == thorough.is_valid(root), name
        if not fast.validate(etree.fromstring(mutant)):
            refused += 1
            assert {fault.code for fault in refusal(mutant).diagnostics} <= {"T201", "T202", "T203", "T204", "T205"}
    assert refused > 300


@pytest.mark.parametrize("archive", ["usb.tar.xz", "controllers.tar.xz", "xl.tar.xz"])
@needs_corpus
def test_other_stored_domains_are_accepted(archive: str) -> None:
    for name, data in packed(archive, ""):
        assert validate(data, file=name).root.tag == "domain"


ACCEPTED = {
    "a status file": b"<domstatus state='running'><monitor/>" + guest("<hub type='usb'/>") + b"</domstatus>",
    "a running domain": guest(attributes="type='xen' id='7'"),
    "other vocabularies": guest(
        "<hub type='usb' q:seen='yes'><q:note>x</q:note></hub>", attributes="type='kvm' xmlns:q='urn:q'"
    ),
    "an element libvirt may come to have": guest("<teleporter range='9'><beam/></teleporter>"),
    "an audio backend's input, which is no keyboard": guest("<audio id='1' type='none'><input voices='1'/></audio>"),
    "anything in metadata": b"<domain type='xen'><metadata><controller colour='red'/></metadata></domain>",
    "a comment before and after": b"<!-- a --><domain type='xen'/><!-- b -->",
    "a DOCTYPE in a comment": b"<!-- <!DOCTYPE domain> --><domain type='xen'/>",
    "a processing instruction that looks like a tag": guest("<?x <hub> ?><hub type='usb'/>"),
    "numbers with blanks and signs, as libvirt reads them": guest("<controller type='usb' index=' +3'/>"),
    "a port as libvirt reads it": guest("<hub type='usb'><address type='usb' bus='0' port='1+2'/></hub>"),
    "UTF-8 with a byte order mark": b"\xef\xbb\xbf<domain type='xen'/>",
    "UTF-16, little end first": "<?xml version='1.0' encoding='UTF-16'?><domain type='xen'/>".encode("utf-16"),
    "UTF-16, big end first": b"\xfe\xff" + "<domain type='xen'/>".encode("utf-16-be"),
    "Latin-1 that says so": "<?xml version='1.0' encoding='ISO-8859-1'?><domain type='xen' x='é'/>".encode("latin-1"),
    "old line ends": b"<domain\r\ntype='xen'>\r</domain>",
    "whitespace in what is empty": guest("<disk><target dev='sda'> </target><readonly>\n</readonly></disk>"),
    "a long text": b"<domain type='xen'><name>" + b"n" * 5_000_000 + b"</name></domain>",
    "many devices": guest("<hub type='usb'/>" * 30_000),
    "many devices in a status file": b"<domstatus>" + guest("<hub type='usb'/>" * 30_000) + b"</domstatus>",
}


@pytest.mark.parametrize("data", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(data: bytes) -> None:
    with two_seconds():
        document = validate(data)
        assert document.warnings == ()
    assert document.root.tag == "domain"


# What hostile bytes come to

BOMB = b"".join(b"<!ENTITY x%d '%s'>" % (n, b"&x%d;" % (n - 1) * 10) for n in range(1, 10))
REFUSED = {
    "nothing": (b"", "T101"),
    "blanks": (b" \n\t", "T101"),
    "no markup": (b"hello", "T101"),
    "JSON": (b'{"domain": {}}', "T101"),
    "HTML": (b"<!doctype html><p>", "T101"),
    "gzip": (gzip.compress(b"<domain type='xen'/>"), "T101"),
    "cut off in a tag": (guest()[:12], "T101"),
    "cut off between tags": (guest()[:-9], "T101"),
    "two roots": (guest() * 2, "T101"),
    "text after the root": (guest() + b"x", "T101"),
    "tags that cross": (b"<domain type='xen'><a><b></a></b></domain>", "T101"),
    "an attribute twice": (guest(attributes="type='xen' type='kvm'"), "T101"),
    "one attribute under two prefixes": (
        guest("<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>"),
        "T101",
    ),
    "an undeclared prefix": (guest("<q:hub/>"), "T101"),
    "xmlns as a namespace": (guest("<a xmlns:p='http://www.w3.org/2000/xmlns/'/>"), "T101"),
    "the prefix xml redefined": (guest("<a xmlns:xml='urn:x'/>"), "T101"),
    "a NUL byte": (guest("\0"), "T101"),
    "a NUL reference": (guest("&#0;"), "T101"),
    "a control character": (guest("\x01"), "T101"),
    "a surrogate reference": (guest("&#xD800;"), "T101"),
    "a < in a value": (guest("<hub type='<'/>"), "T101"),
    "an unquoted value": (guest("<hub type=usb/>"), "T101"),
    "a comment with two hyphens": (guest("<!-- a -- b -->"), "T101"),
    "a comment without end": (guest("<!-- a"), "T101"),
    "CDATA without end": (guest("<![CDATA["), "T101"),
    "a declaration in second place": (b"\n<?xml version='1.0'?><domain type='xen'/>", "T101"),
    "a second declaration": (b"<?xml version='1.0'?><?xml version='1.0'?><domain type='xen'/>", "T101"),
    "DOCTYPE": (b"<!DOCTYPE domain><domain type='xen'/>", "T102"),
    "DOCTYPE behind comments": (b"<?x?>\n<!-- a --> <!DOCTYPE domain><domain type='xen'/>", "T102"),
    "DOCTYPE in UTF-16": ("<!DOCTYPE domain><domain type='xen'/>".encode("utf-16"), "T102"),
    "a file as DTD": (b"<!DOCTYPE domain SYSTEM '/etc/passwd'><domain type='xen'/>", "T102"),
    "billion laughs": (b"<!DOCTYPE domain [<!ENTITY x0 'ha'>" + BOMB + b"]><domain type='xen'>&x9;</domain>", "T102"),
    "an external entity": (
        b"<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain type='xen'>&x;</domain>",
        "T102",
    ),
    "a parameter entity": (
        b"<!DOCTYPE domain [<!ENTITY % x SYSTEM 'http://127.0.0.1:9/'> %x;]><domain type='xen'/>",
        "T102",
    ),
    "default attributes": (b"<!DOCTYPE domain [<!ATTLIST domain type CDATA 'xen'>]><domain/>", "T102"),
    "an entity that nobody declared": (guest("&laugh;"), "T102"),
    "an entity in a value": (guest("<hub type='&usb;'/>"), "T102"),
    "a long name": (b"<domain type='xen'><" + b"n" * 60_000 + b"/></domain>", "T103"),
    "a huge value": (b"<domain type='" + b"x" * 11_000_000 + b"'/>", "T103"),
    "a huge text": (b"<domain type='xen'>" + b"x" * 11_000_000 + b"</domain>", "T103"),
    "another root": (b"<network/>", "T104"),
    "the root in a namespace": (b"<domain xmlns='urn:x' type='xen'/>", "T104"),
    "a status file without a domain": (b"<domstatus/>", "T104"),
    "a domain two levels down": (b"<a><domain type='xen'/></a>", "T104"),
    "an include": (b"<xi:include xmlns:xi='http://www.w3.org/2001/XInclude' href='/etc/passwd'/>", "T104"),
    "not UTF-8": (b"<domain type='xen'>\xff</domain>", "T105"),
    "overlong UTF-8": (b"<domain type='xen'>\xc0\xbc</domain>", "T105"),
    "UTF-7": (b"<?xml version='1.0' encoding='UTF-7'?>+ADw-domain type='xen'/+AD4-", "T105"),
    "EBCDIC": ("<?xml version='1.0' encoding='cp037'?><domain/>".encode("cp037"), "T105"),
    "an encoding that nobody knows": (b"<?xml version='1.0' encoding='klingon'?><domain type='xen'/>", "T105"),
    "UTF-16 without a byte order mark": ("<domain type='xen'/>".encode("utf-16-le"), "T105"),
    "UTF-16 cut in a character": ("<domain type='xen'/>".encode("utf-16")[:-1], "T105"),
    "UTF-32": ("<domain type='xen'/>".encode("utf-32"), "T105"),
    "UTF-16 by its mark, UTF-8 by its word": (
        "<?xml version='1.0' encoding='UTF-8'?><domain type='xen'/>".encode("utf-16"),
        "T105",
    ),
    "UTF-8 by its mark, Latin-1 by its word": (
        b"\xef\xbb\xbf<?xml version='1.0' encoding='ISO-8859-1'?><domain type='xen'/>",
        "T105",
    ),
    "deep nesting": (b"<domain type='xen'>" + b"<a>" * 100_000, "T106"),
    "very many elements": (b"<domain type='xen'>" + b"<a/>" * MAX_TAGS + b"</domain>", "T106"),
    "very many attributes": (
        b"<domain %s/>" % b" ".join(b"a%d=''" % n for n in range(MAX_ATTRIBUTES + 1)),
        "T106",
    ),
    "many attributes": (b"<domain %s/>" % b" ".join(b"a%d=''" % n for n in range(MAX_ATTRIBUTES - 1)), "T203"),
    "many faults": (guest("<hub/>" * 50_000), "T203"),
    "one fault among as many devices as there may be": (
        guest("<hub type='usb'/>" * (MAX_TAGS - 9) + "<hub/>"),
        "T203",
    ),
    "one fault among devices that all differ": (
        guest("".join(f"<controller type='usb' index='{n}'/>" for n in range(MAX_TAGS - 9)) + "<hub/>"),
        "T203",
    ),
    "a pattern's nightmare": (
        guest(f"<hub type='usb'><address type='usb' port='{'1.' * 500_000}'/></hub>"),
        "T204",
    ),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED)
def test_refuses(data: bytes, code: str) -> None:
    with two_seconds():
        faults = refusal(data).diagnostics
    assert faults[0].code == code
    assert len(faults) == 1 or code == "T203"
    assert all(fault.line and fault.column for fault in faults)
    assert len(str(faults[0])) < 1000


def test_an_entity_is_placed_where_it_begins() -> None:
    for encoding in ("utf-8", "utf-16", "iso-8859-1"):
        for content, column in (("<name>é&laugh; x</name>", 8), ("<hub type='é&usb;'/>", 13), ("&a;&laugh;", 1)):
            text = f"<?xml version='1.0' encoding='{encoding}'?>\n<domain>\n{content}</domain>"
            (fault,) = refusal(text.encode(encoding)).diagnostics
            assert (fault.code, fault.line, fault.column) == ("T102", 3, column)


def test_a_limit_on_size_is_the_callers_to_set() -> None:
    assert [fault.code for fault in refusal(guest(), max_size=10).diagnostics] == ["T103"]
    assert validate(guest(), max_size=len(guest())).root.tag == "domain"


def test_one_hundred_faults_are_enough() -> None:
    faults = refusal(guest("<hub/>\n" * 200)).diagnostics
    assert [fault.code for fault in faults] == ["T203"] * 100 + ["T108"]


# What passes the schema, or nearly, and is meant to keep the later stages busy

DIGITS, LONG = "1" * 5000, "x" * 5_000_000
UNDER = (
    "<hostdev mode='subsystem' type='usb'><source><address bus='1' device='1'/></source>"
    "<address type='usb' bus='0' port='{port}'/></hostdev>"
)
HVM = "<domain type='xen'><name>guest</name><os><type>hvm</type></os><devices>{}</devices></domain>"
SOURCE = "<hostdev mode='subsystem' type='usb'><source>{}</source></hostdev>"
HOSTILE = {
    "an index of 5,000 digits": (guest(f"<controller type='usb' index='{DIGITS}'/>"), "T306"),
    "a number of ports of 5,000 digits": (guest(f"<controller type='usb' ports='{DIGITS}'/>"), "T306"),
    "a bus of 5,000 digits": (guest(f"<hub type='usb'><address type='usb' bus='{DIGITS}'/></hub>"), "T306"),
    "a port of 5,000 digits": (guest(f"<hub type='usb'><address type='usb' bus='0' port='{DIGITS}'/></hub>"), "T306"),
    "a domain id of 5,000 digits": (guest(attributes=f"type='xen' id='{DIGITS}'"), "T306"),
    "a host bus of 5,000 digits": (guest(SOURCE.format(f"<address bus='{DIGITS}' device='1'/>")), "T306"),
    "a host bus of a million octal digits": (
        guest(SOURCE.format(f"<address bus='0{'7' * 1_000_000}' device='1'/>")),
        "T306",
    ),
    "a vendor of 5,000 digits": (
        guest(SOURCE.format(f"<vendor id='{DIGITS}'/><product id='0x1'/>")),
        "T306",
    ),
    "a backend of 5,000 digits": (
        guest(f"<controller type='usb' model='qusb2'><backenddomain name='{DIGITS}'/></controller>"),
        "T306",
    ),
    "a port that could be read in many ways": (
        guest(SOURCE.format(f"<address bus='1' port='{DIGITS}.1.1.1.1'/>")),
        "T306",
    ),
    "a host port of very many parts": (guest(SOURCE.format(f"<address bus='1' port='{'1 ' * 100_000}'/>")), "T306"),
    "a model of 5 MB": (guest(f"<controller type='usb' model='{LONG}'/>"), "T301"),
    "a type of 5 MB": (guest(f"<controller type='{LONG}'/>"), "T204"),
    "an attribute of 50,000 characters": (guest(f"<hub type='usb' {LONG[:50_000]}=''/>"), "T202"),
    "a hundred long types": (guest("".join(f"<hub type='{LONG[:100_000]}{n}'/>" for n in range(100))), "T204"),
    "a name of 5 MB": (f"<domain type='xen'><name>/{LONG}</name></domain>".encode(), "T319"),
    "a UUID of 5 MB": (f"<domain type='xen'><name>a</name><uuid>{LONG}</uuid></domain>".encode(), "T319"),
    "an os type of 5 MB": (
        f"<domain type='kvm'><name>a</name><os><type>{LONG}</type></os></domain>".encode(),
        "T316",
    ),
    "a domain type of 5 MB": (guest(attributes=f"type='{LONG}'"), "T316"),
    "addresses that all lead nowhere": (
        guest("<hub type='usb'><address type='usb' bus='7' port='1'/></hub>" * 10_000, attributes="type='kvm'"),
        "T304",
    ),
    "addresses that are all the same": (
        guest("<hub type='usb'><address type='usb' bus='0' port='1'/></hub>" * 10_000, attributes="type='kvm'"),
        "T303",
    ),
    "aliases that are all the same": (guest("<hub type='usb'><alias name='ua-a'/></hub>" * 10_000), "T324"),
    "far too many devices": (guest("<hub type='usb'/>" * (MAX_TAGS - 9), attributes="type='kvm'"), "T310"),
    "one bad port among as many controllers as there may be": (
        guest("<controller type='usb' model='qusb2'/>" * (MAX_TAGS - 12) + UNDER.format(port=9)),
        "T302",
    ),
    "one bad port behind controllers last first": (
        guest(
            "".join(f"<controller type='usb' model='qusb2' index='{n}'/>" for n in range(20_000, 0, -1))
            + UNDER.format(port=9)
        ),
        "T304",
    ),
    "one bad port among devices that bring controllers along": (
        HVM.format("<input type='tablet' bus='usb'/>" * (MAX_TAGS - 20) + UNDER.format(port=9)).encode(),
        "T304",
    ),
    "one bad port among companions": (
        HVM.format(
            "<controller type='usb' model='ich9-ehci1' index='0'/>"
            + "<controller type='usb' model='ich9-uhci1' index='0'><master startport='0'/></controller>" * 19_000
            + UNDER.format(port=9)
        ).encode(),
        "T302",
    ),
    "very many misspelled elements": (
        guest("".join(f"<hubb{n}/>" for n in range(MAX_TAGS - 12)) + UNDER.format(port=9)),
        "T304",
    ),
    "very many audio backends, none of them meant": (
        guest(
            "".join(f"<audio id='{n}' type='none'/>" for n in range(9, 30_000))
            + "<sound model='usb'><audio id='1'/></sound>" * 200,
            attributes="type='kvm'",
        ),
        "T329",
    ),
}


@pytest.mark.parametrize(("data", "code"), HOSTILE.values(), ids=HOSTILE)
def test_refuses_before_long(data: bytes, code: str) -> None:
    with two_seconds(), pytest.raises(DocumentError) as caught:
        translator.plan(translator.load(data))
    faults = caught.value.diagnostics
    assert faults[0].code == code
    assert all(fault.line and fault.column for fault in faults)
    assert len(str(faults[0])) < 1000


def test_a_long_number_in_what_is_not_translated_stops_nothing() -> None:
    nvme = f"<controller type='nvme' index='{DIGITS}'/>"
    assert translator.plan(translator.load(guest(nvme, attributes="type='kvm'"))).topology.controllers


LARGEST = {
    "texts": "guest('<hub type=\\'usb\\'/>' + '<a>' + ' ' * 5_500_000 + '</a>', 3)",
    "as many devices as there may be": "guest('<hub type=\\'usb\\'/>' + ' ' * 240, 59_900)",
    "as many faults as there may be": "guest('<hub/>' + ' ' * 250, 59_900)",
    "UTF-16": "guest('<hub type=\\'usb\\'/>' + '\U0001f600' * 10, 199_000).decode().encode('utf-16')",
    "too many elements": "guest('<a/>', 4_000_000)",
}


@pytest.mark.parametrize("document", LARGEST.values(), ids=LARGEST)
def test_memory_for_the_largest_documents_is_bounded(document: str) -> None:
    """Nearly 16 MiB are read, judged and parsed, or refused, in 500 MB: VmHWM, since ru_maxrss has the parent's."""
    script = f"""
import re
import translator
def guest(device, count):
    return b"<domain type='kvm'><name>a</name><devices>" + device.encode() * count + b"</devices></domain>"
data = {document}
assert 14 * 2**20 < len(data) <= 16 * 2**20, len(data)
try:
    translator.load(data)
except translator.DocumentError as error:
    assert error.diagnostics[0].code in ("T106", "T203", "T201"), error
print(int(re.search('VmHWM: *\\t* *([0-9]+) kB', open('/proc/self/status').read())[1]) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    print("MB", done.stdout)
    assert int(done.stdout) <= 500


# Arbitrary bytes give a Document or a DocumentError; anything else fails the test.


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@example(b"\xff\xfe")
@example(b"<?xml version='1.0' encoding='iso-8859-99'?><a/>")
def test_arbitrary_bytes(data: bytes) -> None:
    with suppress(DocumentError):
        validate(data)


SEED = (FIXTURES / "errors" / "ten-faults-at-once" / "domain.xml").read_bytes()


@settings(max_examples=200)
@given(st.integers(0, len(SEED)), st.integers(0, 12), st.binary(max_size=6))
def test_damaged_documents(at: int, length: int, instead: bytes) -> None:
    with pytest.raises(DocumentError):
        validate(SEED[:at] + instead + SEED[at + length :])


# Typos are placed and put right

TYPOS = [
    ("<controller type='ubs'/>", "4:13", "T204", "usb", "/domain/devices/controller/@type"),
    ("<controller type='usb'\n  indx='0'/>", "5:3", "T202", "index", "/domain/devices/controller/@indx"),
    ("<hub type='usb'/>\n<hub  typ='usb'/>", "5:7", "T202", "type", "/domain/devices/hub[2]/@typ"),
    ("<hub type='usb'><adress/></hub>", "4:17", "T201", "address", "/domain/devices/hub/adress"),
    ("<hub type='usb'><alias nam='x'/></hub>", "4:24", "T202", "name", "/domain/devices/hub/alias/@nam"),
    ("<input type='tabelt'/>", "4:8", "T204", "tablet", "/domain/devices/input/@type"),
    ("<redirdev type='spicevm'/>", "4:11", "T204", "spicevmc", "/domain/devices/redirdev/@type"),
    ("<!-- é --><sound model='usbb'/>", "4:18", "T204", "usb", "/domain/devices/sound/@model"),
    ("<smartcard mode='hosts'/>", "4:12", "T204", "host", "/domain/devices/smartcard/@mode"),
    ("<disk><targt dev='sda'/></disk>", "4:7", "T201", "target", "/domain/devices/disk/targt"),
    ("<serial type='pyt'/>", "4:9", "T204", "pty", "/domain/devices/serial/@type"),
    ("<redirfilter><usbdev alow='yes'/></redirfilter>", "4:22", "T202", "allow", "…/@alow"),
    ("<interface type='user'><mdoel/></interface>", "4:24", "T201", "model", "…/mdoel"),
    (
        "<hostdev type='usb'><source startupPolcy='optional'/></hostdev>",
        "4:29",
        "T202",
        "startupPolicy",
        "…/source/@startupPolcy",
    ),
]


@pytest.mark.parametrize(("devices", "place", "code", "meant", "path"), TYPOS, ids=[row[0] for row in TYPOS])
def test_a_typo_is_placed_and_put_right(devices: str, place: str, code: str, meant: str, path: str) -> None:
    (fault,) = refusal(guest(devices)).diagnostics
    assert str(fault).startswith(f"guest.xml:{place}: error[{code}]: ")
    assert fault.help
    assert f"did you mean {meant!r}?" in fault.help
    assert (fault.element or "").endswith(path.removeprefix("…"))


def test_an_unknown_element_that_is_nearly_a_known_one_is_warned_about() -> None:
    (warning,) = validate(guest("<contoler type='usb'/>"), file="guest.xml").warnings
    assert str(warning) == (
        "guest.xml:4:1: warning[T206]: element <contoler> is unknown and has no effect\n"
        "  help: did you mean 'controller'?"
    )


def test_the_schema_is_used_from_several_threads() -> None:
    found: list[str | None] = []

    def judge(number: int) -> None:
        for _ in range(20):
            found.append(refusal(guest(f"<hub type='{number}'/>")).diagnostics[0].message)

    threads = [threading.Thread(target=judge, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for number in range(8):
        expected = f"attribute 'type' of <hub> is '{number}', which is not one of its values"
        assert found.count(expected) == 20


def test_every_element_of_the_schema_is_documented_or_passed_over() -> None:
    xsd = "{http://www.w3.org/2001/XMLSchema}"
    for file in Path(schema_dir()).glob("*.xsd"):
        root = etree.parse(str(file)).getroot()
        for declaration in root.iterchildren(f"{xsd}element"):
            assert (declaration.get("name") in known_elements()) == (root.get("targetNamespace") is None)
            assert declaration.get("type") == "opaque" or declaration.find(f"{xsd}annotation") is not None


# Positions, whatever the layout: every tag and attribute is written at a place that is remembered.

NAMES = st.sampled_from(["a", "hub", "x.y", "é", "controller"])
BLANKS = st.text(" \t\n", min_size=1, max_size=3)
VALUES = st.text("ab>'/= \n€", max_size=6)
BETWEEN = st.lists(
    st.sampled_from(["", "\n", "text >", "<!-- <a> -->", "<![CDATA[<hub x='1'>]]>", "<?p <a?>", "é€"]),
    max_size=3,
).map("".join)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[str, list[tuple[str, int, dict[str, int]]]]:
    text = draw(st.sampled_from(["", "<?xml version='1.0'?>\n", "<!-- <x> -->\n"]))
    tags: list[tuple[str, int, dict[str, int]]] = []

    def element(depth: int) -> None:
        nonlocal text
        name = draw(NAMES)
        places: dict[str, int] = {}
        tags.append((name, len(text), places))
        text += f"<{name}"
        for attribute in draw(st.lists(NAMES, unique=True, max_size=3)):
            text += draw(BLANKS)
            places[attribute] = len(text)
            text += f'{attribute}{draw(st.sampled_from(["=", " = "]))}"{draw(VALUES)}"'
        if depth == 3 or draw(st.booleans()):
            text += draw(st.sampled_from(["/>", "\n/>"]))
            return
        text += ">" + draw(BETWEEN)
        for _ in range(draw(st.integers(0, 3))):
            element(depth + 1)
            text += draw(BETWEEN)
        text += f"</{name}>"

    element(0)
    return text, tags


def place_of(text: str, offset: int) -> Source:
    before = text[:offset]
    return Source(before.count("\n") + 1, offset - before.rfind("\n"))


@settings(max_examples=150)
@given(layouts())
def test_every_tag_and_attribute_is_found(layout: tuple[str, list[tuple[str, int, dict[str, int]]]]) -> None:
    text, tags = layout
    data = text.encode()
    root = etree.fromstring(data, etree.XMLParser(remove_pis=True))
    locator = Locator(data, root)
    for element, (name, offset, attributes) in zip(root.iter("*"), tags, strict=True):
        assert element.tag == name
        assert locator.source(element) == place_of(text, offset)
        for attribute, where in attributes.items():
            assert locator.source(element, attribute) == place_of(text, where)
        assert root.getroottree().xpath(locator.path(element)) == [element]


def test_positions_survive_the_encoding() -> None:
    text = "<?xml version='1.0' encoding='{}'?>\n<domain type='xen'><!-- ééé --><name a='é' b='2'/></domain>"
    for encoding in ("utf-8", "utf-16", "iso-8859-1"):
        document = validate(text.format(encoding).encode(encoding))
        name = document.root.find("name")
        assert name is not None
        assert document.locator.source(name) == Source(2, 32)
        assert document.locator.source(name, "b") == Source(2, 44)


def test_attributes_with_prefixes_are_found_by_namespace() -> None:
    document = validate(guest("<hub type='usb' xmlns:q='urn:q' xml:id='a' q:type='b'/>"))
    (hub,) = document.root.iter("hub")
    assert document.locator.source(hub, "{urn:q}type") == Source(4, 44)
    assert document.locator.source(hub, "{http://www.w3.org/XML/1998/namespace}id") == Source(4, 33)
    assert document.locator.source(hub, "absent") == document.locator.source(hub) == Source(4, 1)
