"""The order in which libvirt keeps controllers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from translator.placing.list_order import in_list_order

Part = tuple[int | None, bool]


def inserted_one_by_one(parts: list[Part]) -> list[Part]:
    """Do what libvirt does: each goes before the first that belongs behind it, or to the end."""
    listed: list[Part] = []
    for part in parts:
        index, companion = part
        place = len(listed)
        for number, (other, other_companion) in enumerate(listed):
            if index is None or other is None:
                continue
            if other > index or (other == index and other_companion and not companion):
                place = number
                break
        listed.insert(place, part)
    return listed


@given(st.lists(st.tuples(st.none() | st.integers(0, 5), st.booleans()), max_size=20))
def test_controllers_are_listed_as_if_inserted_one_by_one(parts: list[Part]) -> None:
    numbered = list(enumerate(parts))
    listed = in_list_order(numbered, lambda one: one[1])
    assert [part for _, part in listed] == inserted_one_by_one(parts)
    assert sorted(listed) == numbered
