"""What is seen of a store through a view, held to the store itself: any tree, any order of looks."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from pyxs._internal import Op

from translator.hosts.xenview import View

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("a", "b", "port", "backend")
PATHS = st.lists(st.sampled_from(NAMES), max_size=4).map(lambda names: "/" + "/".join(names))
PATTERNS = st.lists(
    st.sampled_from((*NAMES, "*", "*[not(backend)]")), min_size=1, max_size=4
).map(lambda names: "/" + "/".join(names))  # fmt: skip
LOOKS = st.one_of(
    st.tuples(st.just("read"), PATHS),
    st.tuples(st.just("children"), PATHS),
    st.tuples(st.just("is_absent"), PATHS),
    st.tuples(st.just("tree"), PATHS),
    st.tuples(st.sampled_from(("matching", "sought")), st.lists(PATTERNS, min_size=1, max_size=3)),
)


class Store:
    """A store that does not change, and counts what it is asked."""

    def __init__(self, leaves: list[str]) -> None:
        self.nodes = {"/": "of /"}
        for leaf in leaves:
            parts = leaf.split("/")
            self.nodes |= {
                path: f"of {path}" for n in range(2, len(parts) + 1) if (path := "/".join(parts[:n])) != "/"
            }
        self.asked: list[tuple[int, str]] = []

    def write(self, path: str, value: str) -> None:
        parts = path.split("/")
        for depth in range(2, len(parts)):
            self.nodes.setdefault("/".join(parts[:depth]), "")
        self.nodes[path] = value

    def remove(self, path: str) -> None:
        self.nodes = {one: value for one, value in self.nodes.items() if not f"{one}/".startswith(f"{path}/")}

    def request(self, op: int, path: str, *, transaction: int) -> asyncio.Future[bytes]:
        self.asked.append((op, path))
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(found.set_result, path.encode())
        return found

    async def answer_or_none(self, request: asyncio.Future[bytes], what: str) -> bytes | None:
        value = self.nodes.get((await request).decode())
        return None if value is None else value.encode()

    async def listing(self, request: asyncio.Future[bytes], path: str) -> tuple[str, ...] | None:
        await request
        return self.children(path)

    def children(self, path: str) -> tuple[str, ...] | None:
        if path not in self.nodes:
            return None
        below = f"{path.rstrip('/')}/"
        return tuple(sorted({one[len(below) :].split("/")[0] for one in self.nodes if one.startswith(below)} - {""}))

    def tree(self, path: str) -> dict[str, str]:
        return {one: value for one, value in self.nodes.items() if f"{one}/".startswith(f"{path.rstrip('/')}/")}

    def matching(self, pattern: str) -> dict[str, str]:
        parts = [re.sub(r"\*.*", "[^/]+", part) for part in pattern.split("/")]
        fitting = {path: value for path, value in self.nodes.items() if re.fullmatch("/".join(parts), path)}
        for depth, part in enumerate(pattern.split("/")):
            if part.endswith("]"):
                fitting = {
                    path: value
                    for path, value in fitting.items()
                    if f"{'/'.join(path.split('/')[: depth + 1])}/backend" not in self.nodes
                }
        return fitting


async def look(view: View, store: Store, verb: str, what: str | list[str]) -> None:
    if isinstance(what, list):
        found: Mapping[str, Mapping[str, str]] = await view.matching(*what, sought=verb == "sought")
        assert found == {pattern: store.matching(pattern) for pattern in what}
    elif verb == "read":
        assert await view.read(what) == store.nodes.get(what)
    elif verb == "children":
        assert await view.children(what) == store.children(what)
    elif verb == "tree":
        assert await view.tree(what) == store.tree(what)
    else:
        assert await view.is_absent(what) == (what not in store.nodes)


@given(st.lists(PATHS, max_size=6), st.lists(LOOKS, max_size=6), st.sampled_from([0, 1]))
def test_a_view_tells_what_the_store_has_and_asks_nothing_twice(
    leaves: list[str], looks: list[tuple[str, str | list[str]]], transaction: int
) -> None:
    async def scenario() -> None:
        store = Store(leaves)
        view = View(store, transaction)  # type: ignore[arg-type]  # as much of a Xenstore as a view uses
        for verb, what in looks:
            await look(view, store, verb, what)
        assert len(store.asked) == len({*store.asked})

    asyncio.run(scenario())


@given(
    st.lists(PATHS, max_size=6),
    st.lists(LOOKS, max_size=4),
    st.lists(st.tuples(st.sampled_from(("write", "rm")), PATHS.filter(lambda path: path != "/")), max_size=4),
    st.lists(LOOKS, max_size=6),
)
def test_what_is_recalled_is_still_so(
    leaves: list[str],
    before: list[tuple[str, str | list[str]]],
    changes: list[tuple[str, str]],
    after: list[tuple[str, str | list[str]]],
) -> None:
    """What was seen before a transaction of ours, but for what the transaction has made untrue."""

    async def scenario() -> None:
        store = Store(leaves)
        older, view = View(store, 1), View(store, 2)  # type: ignore[arg-type]
        for verb, what in before:
            await look(older, store, verb, what)
        for verb, path in changes:
            if verb == "write":
                view.makes(path, None)
                view.writes(path, "new")
                store.write(path, "new")
            else:
                view.removes(path)
                store.remove(path)
        view.recall(older)
        for verb, what in after:
            await look(view, store, verb, what)

    asyncio.run(scenario())


@given(st.lists(PATHS, max_size=6), PATTERNS)
def test_each_place_that_is_sought_is_guarded(leaves: list[str], pattern: str) -> None:
    """In a transaction, a node that comes and would fit comes into a directory that was listed.

    oxenstored takes a listing or a value that would be another one by now for a conflict, and not a node that was
    not there.
    """

    async def scenario() -> None:
        store = Store(leaves)
        await View(store, 1).matching(pattern, sought=True)  # type: ignore[arg-type]
        for new in ("a", "a/b", "b/port", "a/b/port/a", "backend", "port/a"):
            for path in Store([*leaves, f"/{new}"]).matching(pattern).keys() - store.nodes.keys():
                assert is_guarded(path, store)

    asyncio.run(scenario())


@given(st.lists(PATHS, max_size=6), PATHS)
def test_what_is_absent_is_guarded(leaves: list[str], path: str) -> None:
    async def scenario() -> None:
        store = Store(leaves)
        assert not await View(store, 1).is_absent(path) or is_guarded(path, store)  # type: ignore[arg-type]

    asyncio.run(scenario())


def is_guarded(path: str, store: Store) -> bool:
    """Tell whether the nearest directory above that is there was listed."""
    while (path := path.rpartition("/")[0] or "/") not in store.nodes:
        pass
    return (Op.DIRECTORY, path) in store.asked
