"""xl's configuration language: a text becomes settings, each value with its place, and settings a text.

    name = "guest"; memory = 0x40
    usbctrl = [ "type=pv,version=2",
                "type=qusb" ]  # and so on
    usbctrl += [ "type=devicemodel" ]

The grammar is that of libxlu_cfg_l.l and libxlu_cfg_y.y, as xl 4.17 was seen to obey it. Beyond it, what other
readers of these files take: a string in three double quotes, a backslash at the end of a line, and CR LF.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec

from translator.errors import Diagnostic, DocumentError, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_SIZE = 2**18  # bytes of a file: no domain's is larger
MOST_VALUES = 10_000  # in lists
LONGEST_STRING = 2**14  # of one that is taken apart further
MOST_FAULTS = 20
DEEPEST = 8  # lists in lists

_TOKENS = re.compile(
    r"""
      (?P<blank>[ \t]+|\\\r?\n)
    | (?P<newline>\#[^\n]*(?:\n|\Z)|\r?\n)
    | (?P<name>[a-z][a-z0-9_.]*)
    | (?P<number>[0-9][0-9a-fx]*)
    | \"\"\"(?P<triple>.*?)\"\"\"
    | "(?P<double>(?:[^"\\\n]|\\.)*)"
    | '(?P<single>(?:[^'\\\n]|\\.)*)'
    | (?P<sign>\+=|[=,;\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|([0-7]{1,3})|(.))", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"} | {c: c for c in "\\\"'"}
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FIRST = re.compile(rb"(?:[ \t\r\n;]|#[^\n]*\n)*+[a-z][a-z0-9_.]*[ \t]*\+?=")


class Text(msgspec.Struct, frozen=True):
    """A string or a number, as it is spelled; `source` is where its first character stands."""

    value: str
    source: Source
    quoted: bool = True


class Items(msgspec.Struct, frozen=True):
    """A list."""

    values: tuple[Text | Items, ...]
    source: Source


Value = Text | Items


class Setting(msgspec.Struct, frozen=True):
    """What a name stands for; `source` is where the name stands."""

    name: str
    value: Value
    source: Source


class Config(NamedTuple):
    """The settings by name, in order, and what is odd about them."""

    settings: dict[str, Setting]
    warnings: tuple[Diagnostic, ...]


def looks_like_config(data: bytes) -> bool:
    """Return whether the first thing that is said is a setting, which no XML and no JSON begins with."""
    return data[:1] != b"<" and _FIRST.match(data.removeprefix(b"\xef\xbb\xbf")) is not None


def parse(data: bytes, *, file: str | None = None) -> Config:
    """Return the settings of a file in xl's language.

    Raises:
        DocumentError: with the faults of the text, a line's first one each.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = data.count(b"\n", 0, error.start) + 1, error.start - data.rfind(b"\n", 0, error.start)
        _refuse("T116", "the file is not UTF-8", file, Source(line, column), "save it as UTF-8")
    if len(data) > MAX_SIZE:
        _refuse("T103", f"the file is larger than {MAX_SIZE:,} bytes", file, Source(1, 1), "no domain needs that")
    parser = _Parser(text, file)
    parser.run()
    if parser.faults:
        raise DocumentError(parser.faults)
    return Config(parser.settings, tuple(parser.warnings))


def write(settings: Iterable[tuple[str, object]]) -> str:
    """Return the text of settings: numbers, strings, lists of them, and values that were read."""
    return "".join(f"{name} = {spelled(value)}\n" for name, value in settings)


def spelled(value: object) -> str:
    """Return a value as xl spells it."""
    if isinstance(value, Text):
        return spelled(value.value) if value.quoted else value.value
    if isinstance(value, Items):
        return spelled(value.values)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        for escape, character in (("\\", "\\"), ('"', '"'), ("n", "\n"), ("r", "\r"), ("t", "\t")):
            value = value.replace(character, f"\\{escape}")
        return f'"{value}"'
    assert isinstance(value, (list, tuple))
    return f"[ {', '.join(map(spelled, value))} ]" if value else "[]"


def plain(value: Value) -> str | list[object]:
    """Return a value without its places; numbers as they were spelled."""
    return value.value if isinstance(value, Text) else [plain(one) for one in value.values]


class _Token(NamedTuple):
    kind: str
    text: str
    source: Source


class _Fault(Exception):  # noqa: N818 - a fault of the text's
    def __init__(self, code: str, message: str, source: Source, help: str | None = None) -> None:
        self.code, self.message, self.source, self.help = code, message, source, help


class _Parser:
    def __init__(self, text: str, file: str | None) -> None:
        self.file = file
        self.text = text
        self.tokens = self.scan()
        self.token = _Token("newline", "", Source(1, 1))
        self.settings: dict[str, Setting] = {}
        self.faults: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.values = 0

    def run(self) -> None:
        while self.token.kind != "end" and len(self.faults) < MOST_FAULTS:
            try:
                if self.token.kind == "newline" or self.token.text == ";":
                    self.step()
                else:
                    self.assignment()
            except _Fault as fault:
                self.faults.append(self.diagnostic(fault, "error"))
                self.recover()

    def diagnostic(self, fault: _Fault, severity: str) -> Diagnostic:
        return Diagnostic(
            code=fault.code,
            severity="error" if severity == "error" else "warning",
            message=fault.message,
            help=fault.help,
            file=self.file,
            line=fault.source.line,
            column=fault.source.column,
        )

    # Tokens

    def scan(self) -> Iterator[_Token]:
        position, line, begin = 0, 1, 0
        while position < len(self.text):
            source = Source(line, position - begin + 1)
            match = _TOKENS.match(self.text, position)
            if match is None:
                end = self.text.find("\n", position)
                rest = self.text[position : end if end >= 0 else len(self.text)]
                position += max(len(rest), 1)
                yield _Token("stray", rest.strip(), source)
                continue
            if newlines := match[0].count("\n"):
                line += newlines
                begin = position + match[0].rindex("\n") + 1
            position = match.end()
            kind = str(match.lastgroup)
            if kind != "blank":
                inner = Source(source.line, source.column + (match.start(kind) - match.start()))
                yield _Token(kind, match[kind], inner)
        yield _Token("end", "", Source(line, position - begin + 1))

    def step(self) -> _Token:
        """Return the token at hand and take the next one."""
        token = self.token
        self.token = next(self.tokens, _Token("end", "", token.source))
        if self.token.kind == "stray":
            raise self.stray()
        return token

    def stray(self) -> _Fault:
        text, help = self.token.text, None
        if text[:1] in "\"'":
            message, help = "a string is not closed in its line", "a string ends with the quote that begins it"
        elif text[:1].isalpha() or text[:1] == "_":
            message, help = f"{_cut(text)!r} is no name", "names are lower case: letters, digits and _"
        elif text[:1] == "-":
            message, help = f"{_cut(text)!r} is no number", 'write a negative number as a string: "-1"'
        else:
            message = f"{_cut(text)!r} has no meaning here"
        return _Fault("T115", message, self.token.source, help)

    def recover(self) -> None:
        """Go on in the next line."""
        while self.token.kind not in ("newline", "end"):
            self.token = next(self.tokens, _Token("end", "", self.token.source))

    # The grammar

    def assignment(self) -> None:
        name = self.token
        if name.kind != "name":
            raise self.unexpected("a setting's name")
        operator = self.expect("=", "+=")
        self.step()
        value = self.value(0)
        if self.token.kind not in ("newline", "end") and self.token.text != ";":
            raise self.unexpected("the end of the line")
        self.store(name, operator.text, value)

    def expect(self, *signs: str) -> _Token:
        self.step()
        if self.token.kind != "sign" or self.token.text not in signs:
            raise self.unexpected(" or ".join(map(repr, signs)))
        return self.token

    def value(self, depth: int) -> Value:
        token = self.token
        self.values += 1
        if self.values > MOST_VALUES:
            raise _Fault("T106", f"the file has more than {MOST_VALUES:,} values", token.source)
        if token.kind == "sign" and token.text == "[":
            return self.items(depth + 1)
        if token.kind not in ("number", "triple", "double", "single"):
            raise self.unexpected("a string, a number or a list")
        self.step()
        text = self.unescaped(token) if token.kind in ("double", "single") else token.text
        if len(text) > LONGEST_STRING:
            raise _Fault("T103", f"the string is longer than {LONGEST_STRING:,} characters", token.source)
        if bad := _NOT_IN_XML.search(text):
            raise _Fault("T116", f"the string holds the character {bad[0]!a}", token.source, "XML has none such")
        return Text(text, token.source, token.kind != "number")

    def items(self, depth: int) -> Items:
        begin = self.token.source
        if depth > DEEPEST:
            raise _Fault("T115", f"lists are nested more than {DEEPEST} deep", begin)
        self.step()
        values: list[Value] = []
        self.newlines()
        while self.token.text != "]" or self.token.kind != "sign":
            values.append(self.value(depth))
            self.newlines()
            if self.token.kind == "sign" and self.token.text == ",":
                self.step()
                self.newlines()
            elif self.token.kind != "sign" or self.token.text != "]":
                raise self.unexpected("',' or ']'")
        self.step()
        return Items(tuple(values), begin)

    def newlines(self) -> None:
        while self.token.kind == "newline":
            self.step()

    def unescaped(self, token: _Token) -> str:
        def character(match: re.Match[str]) -> str:
            if match[1] or match[2]:
                return chr(int(match[1], 16) if match[1] else int(match[2], 8))
            if match[3] not in _ESCAPES:
                place = Source(token.source.line, token.source.column + match.start())
                raise _Fault("T115", f"{match[0]!r} is no escape", place, r"write a backslash as \\")
            return _ESCAPES[match[3]]

        return _ESCAPE.sub(character, token.text)

    def store(self, name: _Token, operator: str, value: Value) -> None:
        before = self.settings.get(name.text)
        if before is not None and operator == "+=":
            value = self.sum(name, before.value, value)
        elif before is not None:
            line = before.source.line
            message = f"{name.text} is set again, which undoes line {line}"
            self.warnings.append(
                self.diagnostic(
                    _Fault("T120", message, name.source, "use += to add to a list or a string"), "warning"
                )
            )
            del self.settings[name.text]
        self.settings[name.text] = Setting(name.text, value, name.source if before is None else before.source)
        if operator == "=":
            self.settings[name.text] = Setting(name.text, value, name.source)

    def sum(self, name: _Token, first: Value, second: Value) -> Value:
        if isinstance(first, Items) and isinstance(second, Items):
            return Items((*first.values, *second.values), first.source)
        if isinstance(first, Text) and isinstance(second, Text) and first.quoted and second.quoted:
            return Text(first.value + second.value, first.source)
        raise _Fault(
            "T117",
            f"{_kind(second)} cannot be added to {name.text}, which is {_kind(first)}",
            second.source,
            "lists are added to lists and strings to strings",
        )

    def unexpected(self, wanted: str) -> _Fault:
        token = self.token
        found = {"end": "the file ends", "newline": "the line ends"}.get(token.kind, f"there is {_cut(token.text)!r}")
        help = None
        if token.kind == "name" and wanted.startswith("a string"):
            help = "a string has quotes around it, and a flag is 0 or 1"
        elif token.kind == "newline" and wanted.startswith("a string"):
            help = "the value begins in the line of its name"
        return _Fault("T115", f"{found} where {wanted} is expected", token.source, help)


def _kind(value: Value) -> str:
    if isinstance(value, Items):
        return "a list"
    return "a string" if value.quoted else "a number"


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"


def _refuse(code: str, message: str, file: str | None, source: Source, help: str) -> NoReturn:
    raise DocumentError(
        [Diagnostic(code=code, message=message, help=help, file=file, line=source.line, column=source.column)]
    )
