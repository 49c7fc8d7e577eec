"""What was seen of a store in one transaction, or at one moment: nothing is asked twice, and much not at all.

A listing tells of the children that are there and of all that are not; below a node that is absent everything is; and
what this transaction has done itself is known. So most guards cost no request, and few more than one.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Final, TypeVar

from pyxs._internal import Op

from translator.errors import HostError
from translator.hosts.xenwire import text

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping, Sequence

    from translator.hosts.xenstore import Xenstore

PATH_BYTES: Final = 1024
_PATH = re.compile(r"/|(/[A-Za-z0-9_@-]+)+")  # both daemons answer EINVAL to anything else, . and : included
# A component of a pattern: any child, or any that has no such node
_ANY = re.compile(r"\*(?:\[not\(([A-Za-z0-9_-]+)\)\])?")
# What changes without a toolstack's work on the domain: both ends of its devices, and which domain it is at all
_LIVE = re.compile(r"/local/domain/[0-9]+/(?:device|backend|name|vm)(?:/|$)")
_Known = TypeVar("_Known")
_Found = TypeVar("_Found")


# A generator: it yields the requests that it needs (operations and paths), finds the answers in the view when it is
# resumed, and returns what it has found.
_Search = Generator[Iterable[tuple[int, str]], None, _Found]


class View:
    """Nodes as they are within one transaction; outside of any, where that is 0, as they were when asked for.

    Values that are no UTF-8 come as `\\xNN`.
    """

    def __init__(self, store: Xenstore, transaction: int = 0) -> None:
        self.store = store
        self.transaction = transaction
        self.since: tuple[Xenstore, int] | None = None  # after how many commits of which client it began
        self._requests: dict[tuple[int, str], asyncio.Future[bytes]] = {}
        self._values: dict[str, str | None] = {}
        self._names: dict[str, tuple[str, ...]] = {}  # of the children, sorted
        self._there: dict[str, bool] = {"/": True}
        self._permissions: dict[str, tuple[str, ...] | None] = {}  # None where only the daemon knows them
        self._own: set[str] = set()  # what this transaction has made or removed

    async def read(self, path: str) -> str | None:
        """Return the node's value, None without a node."""
        await self._learn([(Op.READ, path)])
        return self._values.get(path)

    async def children(self, path: str) -> tuple[str, ...] | None:
        """Return the names of the node's children, sorted; None without a node."""
        await self._learn([(Op.DIRECTORY, path)])
        return self._names.get(path)

    async def tree(self, path: str) -> dict[str, str]:
        """Return every node at and below `path` with its value, ordered by path components."""
        found: dict[str, str] = {}
        # most trees that are asked for are not there, and what is beside them is asked for too
        await self._learn(self._above([path]))
        level = [] if await self.children(path) is None else [path]
        while level:
            await self._learn([(Op.READ, node) for node in level])
            there = {node: value for node in level if (value := self._values.get(node)) is not None}
            found |= there
            await self._learn([(Op.DIRECTORY, node) for node in there])
            level = [below(node, name) for node in there for name in self._names.get(node) or ()]
        return dict(sorted(found.items(), key=lambda item: item[0].split("/")))

    async def matching(self, *patterns: str, sought: bool = False) -> dict[str, dict[str, str]]:
        """Return, for each pattern, the nodes whose paths fit it, with their values.

        `*` stands for a component, `*[not(NAME)]` for one without such a node below. In a transaction each listing
        guards against a node that comes.

        Args:
            sought: for what is mostly not there: the directory above is listed first, which often tells that there is
                nothing to ask for, and is the guard of that.
        """
        distinct = tuple(dict.fromkeys(patterns))
        found = await self._all([self._matching(pattern, sought) for pattern in distinct])
        return dict(zip(distinct, found, strict=True))

    async def is_absent(self, path: str) -> bool:
        """Tell whether there is no such node, so that a commit fails if there is one by then.

        oxenstored commits two transactions that both found nothing and both made the node; a listing that would come
        out different by now it takes for a conflict. So the nearest node that is there is listed.
        """
        return (await self._all([self._guarding(path)]))[0]

    async def look(self, *, nowhere: Iterable[str], there: Iterable[str], absent: Iterable[str]) -> None:
        """Ask at once for what `matching` (for what is sought), `read` and `is_absent` of these want to know."""
        searches: list[_Search[object]] = [self._matching(pattern, True) for pattern in dict.fromkeys(nowhere)]
        searches += map(self._guarding, absent)
        searches.append(self._reading(there))
        await self._all(searches)

    def _matching(self, pattern: str, sought: bool) -> _Search[dict[str, str]]:
        paths = ["/"]
        listed = False
        for component in pattern.split("/")[1:]:
            if wild := _ANY.fullmatch(component):
                if sought:  # right below what was listed it mostly is there
                    unsure = (path for path in paths if not (listed and self.knows(above(path))))
                    yield self._above([path for path in unsure if above(path) != "/"])
                    listed = True
                yield [(Op.DIRECTORY, path) for path in paths]
                yield from self._guard(paths)
                paths = [below(path, name) for path in paths for name in self._names.get(path) or ()]
                if wild[1]:
                    yield [(Op.READ, f"{path}/{wild[1]}") for path in paths]
                    paths = [path for path in paths if self._values.get(f"{path}/{wild[1]}") is None]
            else:
                paths = [below(path, component) for path in paths]
        if sought:
            yield self._above(map(above, paths))
            yield self._above(paths)
            yield from self._guard(paths)
        yield [(Op.READ, path) for path in paths]
        return {path: value for path in paths if (value := self._values.get(path)) is not None}

    def _guard(self, paths: Iterable[str]) -> _Search[None]:
        if self.transaction:
            for path in paths:
                if self.knows(path) is False:
                    yield from self._guarding(path)

    def _guarding(self, path: str) -> _Search[bool]:
        if path in self._own:
            return not self._there[path]
        if not self.knows(above(above(path))):
            yield self._above([above(path)])  # mostly there is nothing beside it either
        node = path
        while node != "/":
            yield [(Op.DIRECTORY, above(node))]
            names = self._names.get(above(node))
            if names is not None:
                return node != path or node.rpartition("/")[2] not in names
            node = above(node)
        return False

    def _reading(self, paths: Iterable[str]) -> _Search[None]:
        yield [(Op.READ, path) for path in paths]

    def _above(self, paths: Iterable[str]) -> list[tuple[int, str]]:
        """Return the requests for the listings that tell whether the nodes are there, where that is not known."""
        return [(Op.DIRECTORY, above(path)) for path in paths if self.knows(path) is None]

    async def _all(self, searches: Sequence[_Search[_Found]]) -> list[_Found]:
        """Return what comes of all the searches, whose requests leave together; a task for each would cost more."""
        found: dict[int, _Found] = {}
        running = dict(enumerate(searches))
        while running:
            wanted: list[tuple[int, str]] = []
            for number, search in [*running.items()]:
                try:
                    wanted += next(search)
                except StopIteration as end:
                    found[number] = end.value
                    del running[number]
            await self._learn(wanted)
        return [found[number] for number in range(len(searches))]

    async def _learn(self, wanted: Iterable[tuple[int, str]]) -> None:
        """Ask for values and listings, as far as they are not known."""
        unknown = [
            (op, path)
            for op, path in dict.fromkeys(wanted)
            if path not in (self._values if op == Op.READ else self._names) and self.knows(path) is not False
        ]
        requests = [self._request(op, path) for op, path in unknown]
        for (op, path), request in zip(unknown, requests, strict=True):
            if op == Op.READ:
                answer = await self.store.answer_or_none(request, f"read {path}")
                self._values[path] = None if answer is None else text(answer)
                self._found(path, answer is not None)
            else:
                names = await self.store.listing(request, path)
                self._found(path, names is not None)
                if names is not None:
                    self._names[path] = names

    async def learn_permissions(self, path: str) -> None:
        """Find out what permissions a node gets that is made below this one, which is there."""
        if path not in self._permissions:
            self._permissions[path] = await self.store.permissions(path, self.transaction)

    def settled(self) -> View:
        """Return a view of now that keeps what only a toolstack changes: not states, nor what is in the ports.

        Nor which domain it is.
        """
        now = View(self.store)
        now._values = {path: value for path, value in self._values.items() if not _LIVE.match(path)}
        now._names = {path: names for path, names in self._names.items() if not _LIVE.match(path)}
        now._there = {path: there for path, there in self._there.items() if not _LIVE.match(path)}
        return now

    def recall(self, older: View) -> None:
        """Take from an older view what only a toolstack changes and was not looked at since."""
        settled = older.settled()
        # what was done since, here, makes some of it untrue: nodes that came or went, and the listings with them
        stale = {path for path, there in settled._there.items() if self.knows(path) not in (None, there)}
        stale |= {path for path, there in self._there.items() if settled.knows(path) not in (None, there)}
        listings = stale | {above(path) for path in stale | self._own}
        self._values = {path: one for path, one in settled._values.items() if path not in stale} | self._values
        self._names = {path: one for path, one in settled._names.items() if path not in listings} | self._names
        self._there = {path: there for path, there in settled._there.items() if path not in stale} | self._there

    def knows(self, path: str) -> bool | None:
        """Tell whether the node is there, as far as that is known."""
        if path in self._there:
            return self._there[path]
        parent, _, name = path.rpartition("/")
        siblings = self._names.get(parent or "/")
        if siblings is not None:
            return name in siblings
        return False if self.knows(parent or "/") is False else None

    def makes(self, path: str, permissions: tuple[str, ...] | None) -> bool:
        """Note that the node is made, unless it is there; tell whether it has these permissions then by itself.

        A new node has those of its parent, in both daemons.
        """
        missing: list[str] = []
        node = path
        while self.knows(node) is False:
            missing.append(node)
            node = node.rpartition("/")[0] or "/"
        for node in reversed(missing):
            self._permissions[node] = self._permissions.get(node.rpartition("/")[0])
            self._names[node] = ()
            self._values[node] = ""
        self._own |= {*missing}
        has_them = permissions is None or (path in self._own and self._permissions[path] == permissions)
        if permissions is not None:
            self._permissions[path] = permissions
        if missing:
            parent, _, name = missing[-1].rpartition("/")
            names = self._names.get(parent or "/")
            self._forget_names(missing[-1])
            if names is not None:
                self._names[parent or "/"] = tuple(sorted((*names, name)))
        for node in missing[:-1]:
            parent, _, name = node.rpartition("/")
            self._names[parent] = (name,)
        self._found(path, True)
        return has_them

    def writes(self, path: str, value: str) -> None:
        """Note the value of a node that is there."""
        self._values[path] = value

    def removes(self, path: str) -> None:
        """Note that the node goes, and all below it."""
        self._requests = {key: request for key, request in self._requests.items() if not _is_at(key[1], path)}
        self._values = _beside(self._values, path)
        self._names = _beside(self._names, path)
        self._there = _beside(self._there, path)
        self._permissions = _beside(self._permissions, path)
        self._forget_names(path)
        self._there[path] = False
        self._own.add(path)

    def end(self) -> None:
        """End the transaction without any effect, unless it has ended; what was seen is of that moment then."""
        self.store.end(self)

    def _forget_names(self, path: str) -> None:
        """Forget the listing that the node's coming or going has changed."""
        parent = above(path)
        self._names.pop(parent, None)
        self._requests.pop((Op.DIRECTORY, parent), None)

    def _request(self, op: int, path: str) -> asyncio.Future[bytes]:
        if (op, path) not in self._requests:
            self._requests[op, path] = self.store.request(op, path, transaction=self.transaction)
        return self._requests[op, path]

    def _found(self, path: str, there: bool) -> None:
        self._there[path] = there
        while there and path != "/":
            path = above(path)
            self._there[path] = True


def below(path: str, name: str) -> str:
    """Return the path of a directory's node."""
    return f"{path.rstrip('/')}/{name}"


def above(path: str) -> str:
    """Return the path of the directory that a node is in."""
    return path.rpartition("/")[0] or "/"


def check_pattern(pattern: str) -> None:
    """Refuse what stands for no path that a daemon takes, as `check_path` does."""
    check_path("/".join("_" if _ANY.fullmatch(component) else component for component in pattern.split("/")))


def check_path(path: str) -> None:
    """Refuse what no daemon takes, or takes for something else.

    Raises:
        HostError: T405.
    """
    if not _PATH.fullmatch(path):
        raise invalid(
            f"{path!r} is no xenstore path",
            "absolute, without an empty component, of letters, digits and - _ @ only",
        )
    if len(path) > PATH_BYTES:
        raise invalid(f"the path {path[:60]}… has {len(path)} bytes; xenstore takes {PATH_BYTES}")


def invalid(message: str, help: str | None = None) -> HostError:
    """Return the error of what is not sent."""
    return HostError("T405", f"not sent to xenstored: {message}", help)


def _is_at(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")


def _beside(known: Mapping[str, _Known], root: str) -> dict[str, _Known]:
    return {path: value for path, value in known.items() if not _is_at(path, root)}
