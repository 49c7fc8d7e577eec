"""A property of a QEMU device, as data: what it may be, what it is when nobody says, and what it is for."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, cast, get_args

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from translator.topology import Value

# The oldest release that libvirt serves too; what is as old or older has no `since`.
OLDEST_QEMU = "4.2"

# QEMU's own words for types.
Type = Literal[
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int32",
    "size",
    "str",
    "OnOffAuto",
    "BlockdevOnError",
    "BiosAtaTranslation",
    "FdcDriveType",
    "PCIELinkSpeed",
    "PCIELinkWidth",
    "link<iothread>",
]
Kind = type[bool] | type[int] | type[str]
_RANGES: dict[Type, tuple[int, int]] = {
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "size": (0, 2**64 - 1),
}
_WORDS: dict[Type, tuple[str, ...]] = {
    "OnOffAuto": ("on", "off", "auto"),
    "BlockdevOnError": ("report", "ignore", "enospc", "stop", "auto"),
    "BiosAtaTranslation": ("auto", "none", "lba", "large", "rechs"),
    "FdcDriveType": ("144", "288", "120", "none", "auto"),
    "PCIELinkSpeed": ("2_5", "5", "8", "16"),
    "PCIELinkWidth": ("1", "2", "4", "8", "12", "16", "32"),
}


class Knob(msgspec.Struct, frozen=True, kw_only=True):
    """One property of a driver.

    default    what QEMU takes when nobody says; None where it has no default to name
    least      the range of a number, both ends included; None: its type's
    words      what a text may be; empty for any text
    since      the first release that has it; None: `OLDEST_QEMU`, or before
    does       what it is for
    xml        where in the document it comes from, as a path from the element of its controller or device
    ours       whether the topology or QEMU decides it: place, size, link to a backend; it cannot be overridden, and
               what compares topologies has it elsewhere
    """

    name: str
    type: Type
    default: int | bool | str | None = None
    does: str
    least: int | None = None
    most: int | None = None
    words: tuple[str, ...] = ()
    since: str | None = None
    xml: str | None = None
    ours: bool = False

    @property
    def range(self) -> tuple[int, int] | None:
        """The least and the largest number; None where it is none."""
        whole = _RANGES.get(self.type)
        if whole is None:
            return None
        return whole[0] if self.least is None else self.least, whole[1] if self.most is None else self.most

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that a text may be; empty for any."""
        return self.words or _WORDS.get(self.type, ())

    @property
    def kind(self) -> Kind:
        """What its values are in JSON."""
        if self.type == "bool":
            return bool
        return int if self.range else str

    @property
    def possible(self) -> str:
        """What it may be, for a reader."""
        if self.type == "bool":
            return "true or false"
        if self.choices:
            return ", ".join(self.choices)
        if self.range:
            return f"{self.range[0]} to {self.range[1]}"
        return "text"

    def fault(self, value: Value) -> str | None:
        """Return what is wrong with a value, and None if QEMU takes it; a placeholder stands for any value."""
        if isinstance(value, str) and "${" in value:
            return None
        if type(value) is not self.kind:
            return f"it takes {_KINDS[self.kind]}, {self.possible}"
        if self.range and not self.range[0] <= msgspec.convert(value, int) <= self.range[1]:
            return f"it takes {self.possible}"
        if self.choices and value not in self.choices:
            return f"it takes one of {self.possible}"
        return None


def switch(
    name: str, default: bool, does: str, *, since: str | None = None, xml: str | None = None, ours: bool = False
) -> Knob:
    """Return a property that is true or false."""
    return Knob(name=name, type="bool", default=default, does=does, since=since, xml=xml, ours=ours)


def number(
    name: str,
    default: int | None,
    does: str,
    *,
    type: Type = "uint32",
    least: int | None = None,
    most: int | None = None,
    since: str | None = None,
    xml: str | None = None,
    ours: bool = False,
) -> Knob:
    """Return a property that is a number."""
    return Knob(
        name=name, type=type, default=default, does=does, least=least, most=most, since=since, xml=xml, ours=ours
    )


def text(
    name: str,
    does: str,
    *,
    words: tuple[str, ...] = (),
    since: str | None = None,
    xml: str | None = None,
    ours: bool = False,
) -> Knob:
    """Return a property that is a text, without a default."""
    return Knob(name=name, type="str", does=does, words=words, since=since, xml=xml, ours=ours)


def choice(
    name: str,
    does: str,
    *,
    type: Type = "OnOffAuto",
    default: str = "auto",
    words: tuple[str, ...] = (),
    since: str | None = None,
    xml: str | None = None,
) -> Knob:
    """Return a property that is one of its type's words."""
    return Knob(name=name, type=type, default=default, does=does, words=words, since=since, xml=xml)


_KINDS: dict[Kind, str] = {bool: "a truth value", int: "a number", str: "a text"}


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the help for a name that there is not: the nearest, or all."""
    names = list(names)
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"


def spelled(value: Value) -> str:
    """Return a value as a document spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def knob_of_type(name: str, type: str) -> Knob | None:
    """Return a property of which no more is known than QEMU's word for its type; None for a type we do not know."""
    return Knob(name=name, type=cast("Type", type), does="") if type in get_args(Type) else None
