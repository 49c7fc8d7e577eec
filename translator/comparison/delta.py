"""What differs between two plans: the changes that lead from one to the other, and their JSON form."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from translator.comparison.facts import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = "translator-diff/1"

Action = Literal["add", "remove", "change", "move"]
What = Literal["domain", "controller", "device", "step"]
Requires = Literal["none", "hot-plug", "restart"]

REQUIREMENTS: tuple[Requires, ...] = ("none", "hot-plug", "restart")  # from the least on


class Field(msgspec.Struct, frozen=True):
    """One fact that is another on either side; None where a side does not have it."""

    name: str
    before: Any
    after: Any


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is on one side only, or is another on each.

    `id` is that of its main step, where it is now or, if it is gone, was: `controller:usb:0`, `device:usb:0:1.2`;
    what is about the whole domain has the id `domain`. `reason` is None where the guest does not notice. `fields`
    are the facts that differ, of what is on both sides. `replace` is true where another controller takes the place of
    one, which `apply` does only with `--replace`; else it is unset, and not in the JSON.
    """

    action: Action
    what: What
    id: str
    family: str | None
    before: Any
    after: Any
    guest_visible: bool
    reason: Reason | None
    requires: Requires
    fields: tuple[Field, ...] = ()
    replace: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def needs(self) -> str:
        """What carrying it out requires, in words."""
        return f"{self.requires} with --replace" if self.replace is True else self.requires


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How many changes of each action there are, and how many of all the guest notices."""

    add: int = 0
    remove: int = 0
    change: int = 0
    move: int = 0
    guest_visible: int = 0

    @classmethod
    def of(cls, changes: Iterable[Change]) -> Summary:
        """Count the changes."""
        counts: dict[str, int] = defaultdict(int)
        for one in changes:
            counts[one.action] += 1
            counts["guest_visible"] += one.guest_visible
        return cls(**counts)

    def __add__(self, other: Summary) -> Summary:
        names = self.__struct_fields__
        return Summary(**{name: getattr(self, name) + getattr(other, name) for name in names})


class Delta(msgspec.Struct, frozen=True):
    """What leads from one plan to another, in the order of controllers and ports; true if there is anything."""

    changes: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def guest_visible(self) -> bool:
        """Whether the guest notices any of it."""
        return any(one.guest_visible for one in self.changes)

    @property
    def requires(self) -> Requires:
        """The most that carrying any of it out requires."""
        return max((one.requires for one in self.changes), key=REQUIREMENTS.index, default="none")

    @property
    def summary(self) -> Summary:
        """How much of what there is."""
        return Summary.of(self.changes)

    def to_json(self) -> str:
        """Return the contract's JSON: keys in its order, two-space indent, one trailing newline."""
        wire = {"format": FORMAT, "changes": self.changes, "summary": self.summary}
        return msgspec.json.format(msgspec.json.encode(wire), indent=2).decode() + "\n"
