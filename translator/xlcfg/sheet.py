"""A file's settings while they are read: each asked for by name and kind, what nobody asked for known at the end."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

import msgspec

from translator.errors import Diagnostic, Source
from translator.findings import LONGEST_WORD
from translator.xlcfg.language import Items, Setting, Text, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from translator.xlcfg.language import Config

# As C's strtoul with base 0 reads them.
_NUMBER = re.compile(r"\s*(?:0[xX]([0-9a-fA-F]{1,16})|0([0-7]{0,20})|([1-9][0-9]{0,19}))\s*", re.ASCII)


class Option(msgspec.Struct, frozen=True):
    """`key=value` in a string of such; `key` is empty for a bare word. `source` is where it begins."""

    key: str
    value: str
    source: Source

    @property
    def text(self) -> Text:
        """The value with its place."""
        return Text(self.value, Source(self.source.line, self.source.column + (len(self.key) + 1 if self.key else 0)))


class Kept(msgspec.Struct, frozen=True):
    """Something that domain XML has no place for: a whole setting, or one option of an entry of a list.

    `number` counts the list's entries from 0; `option` is as it is spelled.
    """

    name: str
    value: Value
    source: Source
    number: int | None = None
    option: str | None = None


class Sheet:
    """The settings, and what is wrong with them."""

    def __init__(self, config: Config, file: str | None) -> None:
        self.file = file
        self.settings = config.settings
        self.faults: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = list(config.warnings)
        self.kept: list[Kept] = []
        self._asked: set[str] = set()

    # Settings

    def has(self, name: str) -> bool:
        """Return whether there is such a setting, which then counts as read."""
        self._asked.add(name)
        return name in self.settings

    def place(self, name: str) -> Source:
        """Return where the setting's name stands, the file's beginning where there is none."""
        return self.settings[name].source if name in self.settings else Source(1, 1)

    def text(self, name: str) -> Text | None:
        """Return a setting that is one string or number."""
        if not self.has(name):
            return None
        value = self.settings[name].value
        if isinstance(value, Items):
            self.fault("T118", value.source, f"{name} is a list, and one value is wanted", None, name)
            return None
        return value

    def word(self, name: str, *words: str) -> Text | None:
        """Return a setting that is one of some words."""
        text = self.text(name)
        if text is not None and text.value not in words:
            self.fault("T118", text.source, f"{name} is {shown(text.value)}", f"possible: {', '.join(words)}", name)
            return None
        return text

    def number(self, name: str, *, least: int = 0, most: int = 2**31 - 1) -> int | None:
        """Return a setting that is a number, in any C base."""
        text = self.text(name)
        return None if text is None else self.as_number(text, name, least=least, most=most, element=name)

    def flag(self, name: str) -> bool | None:
        """Return a setting that is true or false: any number but 0 is true."""
        value = self.number(name)
        return None if value is None else value != 0

    def texts(self, name: str, *, single: bool = False) -> tuple[Text, ...]:
        """Return a setting that is a list of strings; a plain string is one where `single`."""
        if not self.has(name):
            return ()
        value = self.settings[name].value
        if isinstance(value, Text):
            if single:
                return (value,)
            self.fault("T118", value.source, f"{name} is one value, and a list is wanted", f'{name} = [ "…" ]', name)
            return ()
        for number, one in enumerate(value.values, 1):
            if isinstance(one, Items):
                self.fault(
                    "T118", one.source, f"{name} has a list in it", "its entries are strings", f"{name}[{number}]"
                )
        return tuple(one for one in value.values if isinstance(one, Text))

    # Parts of a value

    def as_number(
        self, text: Text, what: str, *, least: int = 0, most: int = 2**31 - 1, element: str | None = None
    ) -> int | None:
        """Return the number that a text is; None, with a fault, when it is none or out of range."""
        match = _NUMBER.fullmatch(text.value)
        value = -1
        if match is not None:
            hexadecimal, octal, decimal = match.groups()
            value = (
                int(hexadecimal, 16) if hexadecimal else int(octal or "0", 8) if octal is not None else int(decimal)
            )
        if not least <= value <= most:
            self.fault(
                "T356" if match else "T118",
                text.source,
                f"{what} is {shown(text.value)}" + ("" if match else ", which is not a number"),
                f"possible: {least} to {most}",
                element,
            )
            return None
        return value

    def options(self, text: Text, element: str) -> Iterator[Option]:
        """Yield the options of an entry, as xl takes it apart: at commas, blanks around an option do not count."""
        position = 0
        for piece in text.value.split(","):
            stripped = piece.strip()
            if stripped:
                column = text.source.column + position + len(piece) - len(piece.lstrip())
                key, equals, value = stripped.partition("=")
                source = Source(text.source.line, column)
                yield Option(key, value, source) if equals else Option("", stripped, source)
            position += len(piece) + 1

    def options_of(self, text: Text, element: str, known: Iterable[str]) -> dict[str, Text]:
        """Return the options of an entry by key, with a fault for each that xl would refuse too."""
        found: dict[str, Text] = {}
        for option in self.options(text, element):
            if option.key not in known:
                word = option.key or option.value
                near = get_close_matches(word.strip(), list(known), n=1)
                help = f"did you mean {near[0]!r}?" if near else f"possible: {', '.join(known)}"
                if word != word.rstrip() or not option.key:
                    help = "an option is KEY=VALUE, without blanks around the '='"
                self.fault("T119", option.source, f"{shown(word)} is no option of {element}", help, element)
            elif option.key in found:
                self.fault("T119", option.source, f"{option.key} is given twice", "remove one of them", element)
            else:
                found[option.key] = option.text
        return found

    # What there is to say

    def fault(
        self, code: str, source: Source, message: str, help: str | None = None, element: str | None = None
    ) -> None:
        """Note what is wrong, once however often the setting is asked for; the file is then refused."""
        found = self._diagnostic(code, source, message, help, element, "error")
        if found not in self.faults:
            self.faults.append(found)

    def warn(
        self, code: str, source: Source, message: str, help: str | None = None, element: str | None = None
    ) -> None:
        """Note what is odd."""
        self.warnings.append(self._diagnostic(code, source, message, help, element, "warning"))

    def keep(self, kept: Kept) -> None:
        """Note what has no place in domain XML."""
        self.kept.append(kept)

    def untaken(self) -> list[Setting]:
        """Return the settings that nobody asked for."""
        return [setting for name, setting in self.settings.items() if name not in self._asked]

    def _diagnostic(
        self, code: str, source: Source, message: str, help: str | None, element: str | None, severity: str
    ) -> Diagnostic:
        return Diagnostic(
            code=code,
            severity="error" if severity == "error" else "warning",
            message=message,
            help=help,
            file=self.file,
            line=source.line,
            column=source.column,
            element=element,
        )


def shown(word: str) -> str:
    """Return a word of the file for a message, cut where it is longer than a reader wants to see."""
    return repr(word if len(word) <= LONGEST_WORD else word[:LONGEST_WORD] + "…")


def lowered(table: Mapping[str, str], text: Text) -> str | None:
    """Return what a word stands for, however it is written: libxl's words have no case."""
    return table.get(text.value.lower())
