"""The sandbox's xenstore tree: nodes, permissions, transactions and watches, without any wire.

It follows the C xenstored of Xen 4.17 (tools/xenstore/xenstored_core.c, xenstored_transaction.c), and takes
the narrower limit wherever oxenstored's differs, so that what works here works on both:

- Writing a node makes the parents that are missing; a new node has its parent's permissions, and belongs to
  whoever made it unless that is domain 0.
- A transaction takes each node as it is when it first touches it, and keeps it so. Its commit fails with
  EAGAIN when a node that it read, wrote or missed is no longer that one; a new or lost child changes its
  parent. A request outside of any transaction is a transaction of its own.
- A watch tells of its node and of all below it; of a transaction's changes at the commit. A parent that is
  made on the way to a node tells nobody; a node that goes with its parent tells the watches set exactly there.

Nodes are immutable, so "changed since" is a comparison of identities.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_PATH = 1024  # bytes; oxenstored's, the C daemon allows 3072
MAX_VALUE = 2048  # bytes; oxenstored's, the C daemon allows what fits into a packet

_PATH = re.compile(r"/|(/[A-Za-z0-9@_-]+)+")
_PERMISSION = re.compile(r"([nrwb])([0-9]{1,5})")
_READ, _WRITE = frozenset("rb"), frozenset("wb")


class StoreError(Exception):
    """A refused request; `name` is the errno's, as the protocol spells it."""

    def __init__(self, name: str, path: str = "") -> None:
        super().__init__(f"{name}: {path}" if path else name)
        self.name = name


class Node(NamedTuple):
    """One node; `generation` is new with every change of value, permissions or children."""

    value: bytes
    permissions: tuple[str, ...]  # the owner first: ("n7", "r0")
    children: tuple[str, ...]
    generation: int

    def allows(self, domid: int, letters: frozenset[str]) -> bool:
        """Whether the domain may do what the letters stand for; domain 0 and the owner may do all."""
        if domid in (0, int(self.permissions[0][1:])):
            return True
        own = next((entry for entry in self.permissions[1:] if int(entry[1:]) == domid), self.permissions[0])
        return own[0] in letters


class Watch(NamedTuple):
    """`notify` is called with the path that changed, which is at or below `path`."""

    path: str
    notify: Callable[[str], None]


def check_path(path: str) -> str:
    """Return the path if it is well formed.

    Raises:
        StoreError: EINVAL.
    """
    if len(path) > MAX_PATH or not _PATH.fullmatch(path):
        raise StoreError("EINVAL", path)
    return path


def parent_of(path: str) -> str:
    """Return the path of the node's parent; the root is its own."""
    return path.rpartition("/")[0] or "/"


class View:
    """The tree as one transaction sees and changes it.

    Every method checks the path and the domain's rights, and raises StoreError before it changes anything.
    """

    def __init__(self, tree: Mapping[str, Node], generations: itertools.count[int]) -> None:
        self.seen: dict[str, Node | None] = {}  # every node touched, as it was at first
        self.nodes: dict[str, Node | None] = {}  # the same, as they are to become
        self.changed: dict[str, bool] = {}  # paths to tell watches of; True: only those set exactly there
        self._tree = tree
        self._generations = generations

    def _look(self, path: str) -> Node | None:
        if path not in self.nodes:
            self.seen[path] = self.nodes[path] = self._tree.get(path)
        return self.nodes[path]

    def _get(self, path: str, domid: int, letters: frozenset[str]) -> Node:
        node = self._look(check_path(path))
        if node is None:
            # Whether a node is absent is told only to those who might read its nearest ancestor.
            raise StoreError("ENOENT" if self._ancestor(path).allows(domid, letters) else "EACCES", path)
        if not node.allows(domid, letters):
            raise StoreError("EACCES", path)
        return node

    def _ancestor(self, path: str) -> Node:
        node = None
        while node is None:
            path = parent_of(path)
            node = self._look(path)
        return node

    def _put(self, path: str, value: bytes, permissions: tuple[str, ...], children: tuple[str, ...]) -> None:
        self.nodes[path] = Node(value, permissions, children, next(self._generations))

    def _create(self, path: str, value: bytes, domid: int) -> None:
        parent_path, _, name = path.rpartition("/")
        parent_path = parent_path or "/"
        if self._look(parent_path) is None:
            self._create(parent_path, b"", domid)
        parent = self._get(parent_path, 0, _WRITE)
        permissions = parent.permissions
        if domid != 0:
            permissions = (f"{permissions[0][0]}{domid}", *permissions[1:])
        self._put(parent_path, parent.value, parent.permissions, (*parent.children, name))
        self._put(path, value, permissions, ())

    def read(self, path: str, domid: int = 0) -> bytes:
        """Return the node's value."""
        return self._get(path, domid, _READ).value

    def node(self, path: str, domid: int = 0) -> Node:
        """Return the whole node, for its children and permissions."""
        return self._get(path, domid, _READ)

    def exists(self, path: str) -> bool:
        """Whether there is such a node."""
        return self._look(check_path(path)) is not None

    def write(self, path: str, value: bytes, domid: int = 0) -> None:
        """Set the node's value; it and its parents are made if need be."""
        if len(value) > MAX_VALUE:
            raise StoreError("E2BIG", path)
        node = self._writable(path, domid)
        if node is None:
            self._create(path, value, domid)
        else:
            self._put(path, value, node.permissions, node.children)
        self.changed[path] = False

    def mkdir(self, path: str, domid: int = 0) -> None:
        """Make an empty node; one that exists stays as it is."""
        if self._writable(path, domid) is None:
            self._create(path, b"", domid)
            self.changed[path] = False

    def _writable(self, path: str, domid: int) -> Node | None:
        """Return the node, which must be writable, or None where there is none and one may be made."""
        node = self._look(check_path(path))
        if not (node or self._ancestor(path)).allows(domid, _WRITE):
            raise StoreError("EACCES", path)
        return node

    def rm(self, path: str, domid: int = 0) -> None:
        """Remove the node and all below it; an absent one is fine if its parent is there."""
        if check_path(path) == "/":
            raise StoreError("EINVAL", path)
        parent_path = parent_of(path)
        parent = self._look(parent_path)
        if parent is None:
            raise StoreError("ENOENT", path)
        if self._look(path) is None:
            return
        self._get(path, domid, _WRITE)
        self._remove(path)
        name = path.rpartition("/")[2]
        remaining = tuple(child for child in parent.children if child != name)
        self._put(parent_path, parent.value, parent.permissions, remaining)
        self.changed[path] = False

    def _remove(self, path: str) -> None:
        node = self._look(path)
        self.nodes[path] = None
        for child in node.children if node else ():
            self._remove(f"{path}/{child}")
            self.changed[f"{path}/{child}"] = True

    def set_permissions(self, path: str, permissions: tuple[str, ...], domid: int = 0) -> None:
        """Replace the node's permissions; the first entry names its owner."""
        if not permissions or not all(_PERMISSION.fullmatch(entry) for entry in permissions):
            raise StoreError("EINVAL", path)
        node = self._get(path, domid, _WRITE)
        if domid not in (0, int(node.permissions[0][1:])):
            raise StoreError("EACCES", path)
        self._put(path, node.value, permissions, node.children)
        self.changed[path] = False


class Store:
    """The tree and its watches. It begins with an empty root that belongs to domain 0."""

    def __init__(self) -> None:
        self._generations = itertools.count(1)
        self._nodes = {"/": Node(b"", ("n0",), (), 0)}
        self._watches: list[Watch] = []

    def begin(self) -> View:
        """Return a view of the tree, for a transaction or for one request."""
        return View(self._nodes, self._generations)

    def commit(self, view: View) -> None:
        """Make the view's changes the tree's, and tell the watches.

        Raises:
            StoreError: EAGAIN, and nothing has changed.
        """
        for path, before in view.seen.items():
            if self._nodes.get(path) is not before:
                raise StoreError("EAGAIN", path)
        for path, after in view.nodes.items():
            if after is None:
                self._nodes.pop(path, None)
            else:
                self._nodes[path] = after
        for path, exact in view.changed.items():
            self.fire(path, exact=exact)

    def write(self, path: str, value: str, permissions: tuple[str, ...] | None = None, *, domid: int = 0) -> None:
        """Write one node, for the parties that live in this process."""
        view = self.begin()
        view.write(path, value.encode(), domid)
        if permissions is not None:
            view.set_permissions(path, permissions, domid)
        self.commit(view)

    def read(self, path: str, *, domid: int = 0) -> str | None:
        """Return a node's value, or None where there is none, for the parties that live in this process."""
        view = self.begin()
        return view.read(path, domid).decode(errors="replace") if view.exists(path) else None

    def children(self, path: str) -> tuple[str, ...]:
        """Return the names of what is below a node, as domain 0; nothing where it is not there."""
        view = self.begin()
        return view.node(path).children if view.exists(path) else ()

    def watch(self, watch: Watch) -> None:
        """Set a watch; the caller fires it once, as the protocol has it."""
        self._watches.append(watch)

    def unwatch(self, watch: Watch) -> None:
        """Take a watch away."""
        self._watches = [other for other in self._watches if other is not watch]

    def fire(self, path: str, *, exact: bool = False) -> None:
        """Tell of a change at `path`, which may be one of the special `@introduceDomain`, `@releaseDomain`."""
        for watch in self._watches:
            if path == watch.path or (
                not exact and (watch.path == "/" or path.startswith(f"{watch.path}/")) and not path.startswith("@")
            ):
                watch.notify(path)
