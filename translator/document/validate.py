"""The first stage, from bytes to a checked tree: hardened parsing, then the XSD, with every fault placed.

lxml decides. Only what it refused is looked at again, by `translator.document.explain`, to say why.
"""

from __future__ import annotations

import codecs
import os
import re
import threading
from functools import cache
from itertools import islice
from typing import Any, NoReturn

import msgspec
from lxml import etree
from lxml.etree import _Element

from translator.document.domain import MAX_SIZE
from translator.document.locate import Lines, Locator, name_of
from translator.errors import Diagnostic, DocumentError, Source
from translator.findings import MOST_FAULTS, told
from translator.planning.plan import is_plan

# Elements and attributes cost memory and time by the piece: this many, 400 MB and less than two seconds at the worst.
# There is room for 10,000 devices with address and alias. Start tags, end tags and comments all count.
MAX_TAGS = 60_000
MAX_ATTRIBUTES = 120_000
# From this many tags on a document is judged while it is parsed, see `_parse`.
MANY_TAGS = 20_000

_XML = "{http://www.w3.org/2001/XMLSchema}"
_DECLARED = re.compile(rb"<\?xml[^>]*?\sencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]*)[\"']")
_DOCTYPE = re.compile(rb"(?:\s+|<\?.*?\?>|<!--.*?-->)*+(<!DOCTYPE)", re.DOTALL)
_ONE_BYTE = re.compile(r"iso-8859-\d{1,2}|windows-125\d|koi8-[ru]")
_FOREIGN = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, b"\x00\x00", b"<\x00\x00", b"\x4c\x6f\xa7\x94")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_GZIP = b"\x1f\x8b"

# The schema of domain XML, and those of elements of another vocabulary, which it passes over.
_DOMAIN = "domain.xsd"
_EXTENSIONS = {"{http://libvirt.org/schemas/domain/qemu/1.0}override": "qemu.xsd"}

# libxml2's error numbers (xmlerror.h) that are about the encoding.
_ENCODING_ERRORS = {31, 32, 81, 6003}
_UNDECLARED_ENTITY = 26
_ENTITY = re.compile(r"Entity '(.*)' not defined", re.DOTALL)


class Document(msgspec.Struct, frozen=True, eq=False):
    """A document that the schema accepts.

    `root` is the `<domain>` element, comments kept; a status file's wrapper is its parent. `data` are the bytes
    it came from, `file` the name it goes by, and `locator` knows where its elements stand. `odd` is what was
    strange about a file in another language that the tree was made from.
    """

    root: _Element
    data: bytes
    file: str | None
    locator: Locator
    odd: tuple[Diagnostic, ...] = ()

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What is odd but allowed: elements that are unknown and whose name is nearly a known one."""
        return (*self.odd, *_misspelled(self.root, self.locator, self.file))


class _Engine(threading.local):
    """What one thread parses and judges with: libxml2's error logs must not be shared between threads."""

    def __init__(self, file: str) -> None:
        self.schema = etree.XMLSchema(_schema(file))
        self.parser = _hardened_parser(None)
        self.judging_parser = _hardened_parser(self.schema)


def _hardened_parser(schema: etree.XMLSchema | None) -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        collect_ids=False,
        remove_pis=True,
        schema=schema,
    )


@cache
def _local(file: str) -> _Engine:
    return _Engine(file)


@cache
def schema_dir() -> str:
    """Return the folder of the schemas: inside the package when installed, beside it in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    folders = [os.path.join(above, "schemas") for above in (package, os.path.dirname(package))]
    for folder in folders:
        if os.path.isfile(os.path.join(folder, _DOMAIN)):
            return folder
    raise FileNotFoundError(f"{_DOMAIN} is in none of {', '.join(folders)}")


def _schema(file: str) -> etree._ElementTree:
    return etree.parse(os.path.join(schema_dir(), file))


@cache
def known_elements() -> frozenset[str]:
    """Return the names that the schema declares for children of `<domain>` and `<devices>`."""
    return frozenset(
        str(declaration.get("name"))
        for file in sorted(os.listdir(schema_dir()))
        if file.endswith(".xsd")
        if (root := _schema(file).getroot()).get("targetNamespace") is None  # what domain XML has by itself
        for declaration in root.iterchildren(f"{_XML}element")
    )


def validate(data: bytes, *, file: str | None = None, max_size: int = MAX_SIZE) -> Document:
    """Return the document that `data` holds, parsed and accepted by the schema.

    Args:
        data: XML in UTF-8, UTF-16 with a byte order mark, or a one-byte encoding that its declaration names; or a
            file in xl's language, whose places then are the document's.
        file: what diagnostics call it.
        max_size: the most bytes to look at.

    Raises:
        DocumentError: with every fault that was found, by place.
    """
    if len(data) > max_size:
        # whoever read the bytes need not have read on
        _refuse(
            "T103",
            f"the document is larger than {max_size:,} bytes",
            file,
            Source(1, 1),
            "no domain needs that; if this one does, raise the limit with --max-size",
        )
    if is_config(data, file):
        from translator.xlcfg import document

        return document(data, file=file)
    text, encoding = _decoded(data, file)
    if b"<!DOCTYPE" in text and (doctype := _DOCTYPE.match(text)):
        _refuse(
            "T102",
            "a document type declaration is refused",
            file,
            Lines(text, encoding).source(doctype.start(1)),
            "remove <!DOCTYPE …> and what it declares; domain XML needs none",
        )
    tags = text.count(b"<") if len(text) > MANY_TAGS else 0
    if tags > MAX_TAGS:
        _refuse("T106", f"the document has more than {MAX_TAGS:,} tags", file, Source(1, 1))
    if len(text) > MAX_ATTRIBUTES and text.count(b"=") > MAX_ATTRIBUTES:
        _refuse("T106", f"the document has more than {MAX_ATTRIBUTES:,} attributes", file, Source(1, 1))
    root, judged = _parse(data, file, many=tags > MANY_TAGS)
    domain = root.find("domain") if root.tag == "domstatus" else root
    locator = Locator(text, root, encoding)
    if domain is None or domain.tag != "domain":
        _refuse_root(root, file, locator)
    judge(domain, locator, file, many=tags > MANY_TAGS, judged=judged)
    return Document(domain, data, file, locator)


def judge(domain: _Element, locator: Locator, file: str | None, *, many: bool = False, judged: bool = False) -> None:
    """Let the schemas judge a domain.

    Args:
        many: whether it has a great many elements.
        judged: whether the schema of domain XML has accepted it before.

    Raises:
        DocumentError: with every reason to refuse it.
    """
    parts = [] if judged else [(domain, _DOMAIN)]
    parts += [(one, schema) for tag, schema in _EXTENSIONS.items() for one in domain.iterchildren(tag)]
    faults = []
    for element, schema in parts:
        if reasons := _reasons(element, schema, many=many):
            from translator.document.explain import (
                explain,  # brings in xmlschema, which an accepted document never needs
            )

            faults += explain(element, locator, file, reasons, schema)
    if faults:
        raise DocumentError(faults)


def is_config(data: bytes, file: str | None) -> bool:
    """Return whether a document is in xl's language: what it begins with tells, or else its name."""
    if data[:1] == b"<":
        return False
    from translator.xlcfg.language import looks_like_config

    return looks_like_config(data) or (
        file is not None and file.endswith(".cfg") and data.lstrip()[:1] not in (b"<", b"{")
    )


def revisit(data: bytes) -> Document:
    """Return a document that was accepted before; it is parsed again, and not judged."""
    if is_config(data, None):
        from translator.xlcfg import document

        return document(data)
    text, encoding = _decoded(data, None)
    root = etree.fromstring(data, _local(_DOMAIN).parser)
    domain = root.find("domain") if root.tag == "domstatus" else root
    assert domain is not None, "it was there when the document was accepted"
    return Document(domain, data, None, Locator(text, root, encoding))


def _decoded(data: bytes, file: str | None) -> tuple[bytes, str]:
    """Return the document without a byte order mark in an encoding that keeps ASCII's bytes, and that encoding."""
    mark = next((mark for mark in (codecs.BOM_UTF8, *_UTF16) if data.startswith(mark)), b"")
    if data.startswith(_FOREIGN):
        _refuse_encoding("the document is in an encoding that is not supported", file)
    if mark in _UTF16:
        try:
            text = data.decode("utf-16").encode()
        except UnicodeError as error:
            _refuse_encoding(f"the document is not UTF-16, which its byte order mark says it is: {error}", file)
    elif data.startswith((b"\x00<", b"<\x00")):
        _refuse_encoding("the document looks like UTF-16 but has no byte order mark", file)
    else:
        text = data[len(mark) :] if mark else data
    if not text.startswith(b"<?xml") or not (found := _DECLARED.match(text[:1024])):
        return text, "utf-8"
    declared = found[1].decode().lower()
    if mark in _UTF16:
        if not declared.startswith("utf-16"):
            _refuse_encoding(f"the document declares {declared!r}, but its byte order mark is UTF-16's", file)
        return text, "utf-8"
    if declared in ("utf-8", "us-ascii"):
        return text, "utf-8"
    if mark:
        _refuse_encoding(f"the document declares {declared!r}, but its byte order mark is UTF-8's", file)
    if not _ONE_BYTE.fullmatch(declared):
        _refuse_encoding(f"the encoding {declared!r} is not supported", file)
    return text, declared


def _parse(data: bytes, file: str | None, *, many: bool) -> tuple[_Element, bool]:
    """Return the root and whether the schema is known to accept it.

    Judging a tree, lxml writes an XPath for every fault, each by counting siblings: 100,000 faulty siblings
    would take minutes. Judging while it parses it does not, and finds the same.
    """
    engine = _local(_DOMAIN)
    if many:
        try:
            return etree.fromstring(data, engine.judging_parser), True
        except etree.XMLSyntaxError:
            pass  # refused by the schema or by XML: the other parser, which knows no schema, tells
    try:
        return etree.fromstring(data, engine.parser), False
    except etree.XMLSyntaxError as error:
        raise _syntax_error(error, _entries(engine.parser.error_log), data, file) from error


def _reasons(element: _Element, schema: str, *, many: bool) -> tuple[tuple[int, str], ...]:
    """Return line and words of the schema's reasons to refuse the element; none when it accepts it."""
    engine = _local(schema)
    if not many:
        if engine.schema.validate(element):
            return ()
        return tuple((entry.line, entry.message) for entry in _entries(engine.schema.error_log))
    try:
        etree.fromstring(etree.tostring(element, with_tail=False, encoding="utf-8"), engine.judging_parser)
    except etree.XMLSyntaxError as error:
        return ((1, str(error)),)
    return ()


def _entries(log: Any) -> list[Any]:
    """Return a log's entries; the stubs for lxml do not know that a log is iterable."""
    return list(log)


def _syntax_error(error: etree.XMLSyntaxError, entries: list[Any], data: bytes, file: str | None) -> DocumentError:
    # The parser's log, not the error's, which still has what the thread's earlier documents left.
    entry = next((entry for entry in entries if entry.level_name != "WARNING"), None)
    reason = (entry.message if entry else error.msg).strip()
    number = entry.type if entry else 0
    line, column = error.position
    code, message, help = "T101", f"the document is not well-formed XML: {reason}", None
    if number == _UNDECLARED_ENTITY:
        code, message = "T102", f"entities are refused: {reason}"
        if name := _ENTITY.search(reason):
            column -= len(f"&{name[1]};")  # it is found missing once it is read
        help = "only &lt; &gt; &amp; &quot; &apos; and character references such as &#10; have a meaning here"
    elif number in _ENCODING_ERRORS:
        code, message = "T105", f"the document is not in the encoding that it claims: {reason}"
        help = "save it as UTF-8"
    elif "depth" in reason:
        code, message = "T106", "elements are nested too deeply: more than 256 levels"
    elif "too long" in reason or "HUGE" in reason:
        code, message = "T103", "a name, a value or a text is too long"
    elif is_plan(data):
        message, help = "the document is not XML: it begins as a plan does", "give the one that was planned"
    elif data.startswith(_GZIP):
        message, help = "the document is not XML: it begins as a gzip file does", "unpack it first"
    elif not data.strip():
        message = "the document is empty"
    return DocumentError(
        [Diagnostic(code=code, message=message, help=help, file=file, line=max(line, 1), column=max(column, 1))]
    )


def _refuse(code: str, message: str, file: str | None, source: Source, help: str | None = None) -> NoReturn:
    raise DocumentError(
        [Diagnostic(code=code, message=message, help=help, file=file, line=source.line, column=source.column)]
    )


def _refuse_encoding(message: str, file: str | None) -> NoReturn:
    _refuse("T105", message, file, Source(1, 1), "save it as UTF-8")


def _refuse_root(root: _Element, file: str | None, locator: Locator) -> NoReturn:
    if root.tag == "domstatus":
        message, help = "<domstatus> holds no <domain>", None
    else:
        message, help = f"the root element is <{name_of(root)}>, not <domain>", None
        if str(root.tag).endswith("}domain"):
            message, help = "the root element <domain> is in a namespace", "remove its xmlns attribute"
    raise DocumentError([locator.diagnostic("T104", message, root, file=file, help=help)])


def _misspelled(domain: _Element, locator: Locator, file: str | None) -> tuple[Diagnostic, ...]:
    """Return a warning for each unknown child of `<domain>` and `<devices>` whose name is nearly a known one."""
    known = known_elements()
    children = [child for parent in (domain, *domain.iterchildren("devices")) for child in parent.iterchildren("{}*")]
    unknown = dict.fromkeys(name for child in children if (name := str(child.tag)) not in known)
    if not unknown:
        return ()
    from difflib import get_close_matches

    # finding out what a name resembles is slow, and whoever made up a hundred names did not misspell them
    names = islice(unknown, MOST_FAULTS)
    meant = {name: near[0] for name in names if (near := get_close_matches(name, known, n=1, cutoff=0.75))}
    warnings = [
        locator.diagnostic(
            "T206",
            f"element <{child.tag}> is unknown and has no effect",
            child,
            file=file,
            help=f"did you mean {meant[str(child.tag)]!r}?",
            severity="warning",
        )
        for child in islice((child for child in children if child.tag in meant), MOST_FAULTS + 1)
    ]
    return tuple(told(warnings))
