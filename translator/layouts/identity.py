"""Which domain is meant, as xenstore tells it: how a transaction makes sure, and which nodes are a domain's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.planning.plan import XenstoreOp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from translator.topology import DomainIdentity


def domid_of(domain: DomainIdentity) -> str:
    return "${domid}" if domain.domid is None else str(domain.domid)


def guards(domain: DomainIdentity) -> list[XenstoreOp]:
    """Make sure, inside the transaction, that the domain is the one that was meant: domids are reused."""
    root = f"/local/domain/{domid_of(domain)}"
    if domain.uuid:
        why = f"domain {domid_of(domain)} is {domain.name!r} with UUID {domain.uuid}"
        return [XenstoreOp(op="expect", path=f"{root}/vm", value=f"/vm/{domain.uuid}", why=why)]
    why = f"domain {domid_of(domain)} is {domain.name!r}"
    return [XenstoreOp(op="expect", path=f"{root}/name", value=domain.name, why=why)]


def still_runs(domain: DomainIdentity) -> tuple[XenstoreOp, ...]:
    """Return `guards` of a domain that was looked at; none of one that xenstore does not know."""
    return () if domain.domid is None else tuple(guards(domain))


def gone(domid: int) -> tuple[XenstoreOp, ...]:
    """Return what makes sure, inside a transaction, that nobody has the domid."""
    why = f"domain {domid} is gone"
    return tuple(XenstoreOp("expect-absent", f"/local/domain/{domid}/{name}", why=why) for name in ("vm", "name"))


def remains(undo: Iterable[XenstoreOp], domid: int | None, *, is_gone: bool) -> tuple[XenstoreOp, ...]:
    """Return as much of an undo as is for somebody where the domain is not there any more: the removals.

    What an undo would bring back is for nobody. Where another domain has the id, what lies in its part of the tree
    is that domain's.
    """
    return tuple(one for one in undo if one.op in ("rm", "rm-empty") and (is_gone or not is_of(one.path, domid)))


def is_of(path: str, domid: int | None) -> bool:
    """Tell whether a xenstore node belongs to the domain, as a toolstack lays the tree out."""
    match path.split("/")[1:]:
        case ["local", "domain", owner, *_] if owner == str(domid):
            return True
        case ["local", "domain", _, "backend", _, front, *_] | ["local", "domain", _, "device-model", front, *_]:
            return front == str(domid)
        case ["libxl", owner, *_]:
            return owner == str(domid)
    return False
