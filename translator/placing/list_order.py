"""The order in which libvirt keeps a domain's controllers."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Part = TypeVar("Part")


def in_list_order(parts: Iterable[Part], key: Callable[[Part], tuple[int | None, bool]]) -> list[Part]:
    """Sort as libvirt keeps its list: by index, masters before companions, those without one where they were read.

    `key` tells a controller's index and whether it is a companion. libvirt inserts one after the other: each before
    the first that belongs behind it, or at the end. Source: virDomainControllerInsertPreAlloced
    (conf/domain_conf.c), as observed.
    """
    parts = list(parts)
    if len(parts) < 2:
        return parts
    keys = [key(part) for part in parts]
    end = len(parts)
    ranked = sorted(
        (number for number, (index, _) in enumerate(keys) if index is not None), key=lambda one: keys[one]
    )
    # Taken out of the ranking again, last read first, each finds behind it the one that it was put before.
    behind, ahead = dict(pairwise([*ranked, end])), dict(pairwise([*reversed(ranked), end]))
    put_before = {}
    for number in sorted(ranked, reverse=True):
        put_before[number] = behind[number]
        behind[ahead[number]], ahead[behind[number]] = behind[number], ahead[number]
    # The list as it grows, linked backwards from its end.
    previous = {end: -1}
    for number in range(end):
        place = put_before.get(number, end)
        previous[number], previous[place] = previous[place], number
    listed, number = [], end
    while (number := previous[number]) >= 0:
        listed.append(parts[number])
    return listed[::-1]
