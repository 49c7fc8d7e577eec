"""Two plans become what differs between them, by meaning: who notices it, and what carrying it out requires.

Parts are matched by their facts, from the surest to the loosest likeness, so that what only went elsewhere has
moved, and was not removed and added.

A plan without steps is what was seen on a host, which tells less than a document: what it leaves open is no
difference.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import msgspec

from translator.comparison import facts
from translator.comparison.changes import changes, same_host_device
from translator.comparison.delta import Change, Delta, Field
from translator.planning.compile import launch_only
from translator.planning.subjects import subject
from translator.topology import NIL_UUID, Controller, Device, HostDevice, port_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from translator.comparison.delta import Action, Requires, What
    from translator.comparison.facts import Reason
    from translator.planning.plan import Plan
    from translator.topology import Topology


def lacking(plan: Plan, ids: Iterable[str]) -> tuple[Change, ...]:
    """Return as changes the steps of those ids: what a host has no more than a part of."""
    found = []
    for step in plan.steps:
        if step.id in ids:
            # a record is the toolstack's; a device without one is there for the guest, and the other way round
            main = step.id == step.subject and not step.id.startswith("device-model:")
            reason: Reason | None = (
                ("interface" if step.id.startswith("controller:") else "identity") if main else None
            )
            found.append(
                Change(
                    action="add",
                    what="step",
                    id=step.id,
                    family=None if step.id.startswith("device-model:") else step.id.split(":")[1],
                    before=None,
                    after={"id": step.id, "why": step.why},
                    guest_visible=main,
                    reason=reason,
                    requires="restart" if step.stage == "launch" else "hot-plug",
                )
            )
    return tuple(found)


def foreign(found: Mapping[tuple[int, str], str]) -> tuple[Change, ...]:
    """Return as changes what sits on a host's USB ports and is of no kind of ours: drivers by controller and port."""
    return tuple(
        Change(
            action="remove",
            what="device",
            id=f"device:usb:{controller}:{port}",
            family="usb",
            before={"driver": driver, "controller": controller, "port": port},
            after=None,
            guest_visible=True,
            reason="identity",
            requires="hot-plug",
        )
        for (controller, port), driver in sorted(found.items(), key=lambda one: (one[0][0], port_key(one[0][1])))
    )


def compare(old: Plan, new: Plan) -> Delta:
    """Return what leads from `old` to `new`; `translator.diff`."""
    return Delta(tuple(_Comparison(old, new).changes()))


class _Part(msgspec.Struct, kw_only=True):
    """A controller or device with its facts; `home` are those that tell where it is, in words of the new side."""

    part: Controller | Device
    facts: dict[str, Any]
    home: tuple[Hashable, ...]
    kin: Hashable = None  # what makes it the same thing wherever it is
    all: Hashable = None


class _Comparison:
    def __init__(self, old: Plan, new: Plan) -> None:
        self.old, self.new = old, new
        self.seen = _is_seen(old) or _is_seen(new)
        self.renumbered: dict[tuple[str, int], int] = {}  # the new index of a controller, by family and old one
        self.launch: tuple[frozenset[str], frozenset[str]] | None = None
        self.exchanged = {  # what `apply` refuses to do unasked: see `translator.live.transition`
            one.id
            for one in changes(old.topology, new.topology)
            if isinstance(one.before, Controller) and isinstance(one.after, Controller)
        }

    def changes(self) -> Iterator[Change]:
        yield from self.domain()
        controllers = self.controllers()
        own = (one for one in self.old.topology.controllers if one.built_in)
        self.renumbered = {(one.family, one.index): one.index for one in own}
        for was, will in controllers:
            if was is not None and will is not None:
                self.renumbered[was.part.family, _index(was.part)] = _index(will.part)
        found = [*filter(None, map(self.change, controllers)), *filter(None, map(self.change, self.devices()))]
        yield from sorted(found, key=_order)

    # What belongs to what

    def controllers(self) -> list[tuple[_Part | None, _Part | None]]:
        def parts(topology: Topology) -> list[_Part]:
            # a controller of type none says that there is none, and what a machine has of itself it always has
            found = []
            for one in sorted(topology.controllers, key=lambda one: one.index):
                if one.type != "none" and not one.built_in:
                    known = facts.of_controller(one, seen=self.seen)
                    key = one.family, _hashable({name: known[name] for name in known if name != "index"})
                    found.append(_Part(part=one, facts=known, home=(one.family, one.index), all=key))
            return found

        old, new = parts(self.old.topology), parts(self.new.topology)
        if self.seen:  # an address that nobody chose is no other
            return _matched(old, new, [lambda part: part.home])
        # by another index it is the same only where its address says so
        return _matched(old, new, [lambda part: (part.home, part.all), _by_address, lambda part: part.home])

    def devices(self) -> list[tuple[_Part | None, _Part | None]]:
        def parts(topology: Topology, indexes: Mapping[tuple[str, int], int]) -> list[_Part]:
            audio = {
                backend.arguments.get("id"): backend.arguments.get("driver")
                for device in topology.devices
                for backend in device.backends
                if backend.kind == "audiodev"
            }
            found = []
            # of things alike, the lowest ports are matched, whatever the documents' order
            for one in sorted(topology.devices, key=lambda one: (one.controller, port_key(one.port))):
                known = facts.of_device(one, audio, seen=self.seen)
                index: Hashable = indexes.get((one.family, one.controller), ("gone", one.controller))
                found.append(_Part(part=one, facts=known, home=(one.family, index, one.port)))
            return found

        here: dict[tuple[str, int], int] = {
            (one.family, one.index): one.index for one in self.new.topology.controllers
        }
        old, new = parts(self.old.topology, self.renumbered), parts(self.new.topology, here)
        _name_alike(old, new)
        for part in (*old, *new):
            traits = {name: value for name, value in part.facts.items() if name not in facts.PLACES}
            part.all = part.part.family, _hashable(traits)
            part.kin = part.part.family, *(_hashable(traits.get(name)) for name in ("kind", "host", "medium", "mac"))
        return _matched(
            old,
            new,
            [
                lambda part: (part.home, part.all),
                lambda part: part.all,
                lambda part: (part.home, part.kin),
                lambda part: part.kin,
                lambda part: part.home,
            ],
        )

    # What became of it

    def change(self, pair: tuple[_Part | None, _Part | None]) -> Change | None:
        was, will = pair
        one = will or was
        assert one is not None, "a pair has a side"
        what: What = "controller" if isinstance(one.part, Controller) else "device"
        fields: tuple[Field, ...] = ()
        if was is None or will is None:
            action: Action = "remove" if will is None else "add"
            reason: Reason | None = "interface" if what == "controller" else "identity"
        else:
            fields = tuple(self.fields(was, will))
            if not fields:
                return None
            action = "move" if all(one.name in facts.PLACES for one in fields) else "change"
            reason = facts.reason_of(one.name for one in fields)
        requires = self.requires(was, will, fields)
        return Change(
            action=action,
            what=what,
            id=subject(one.part),
            family=one.part.family,
            before=was.part if was else None,
            after=will.part if will else None,
            guest_visible=reason is not None,
            reason=reason,
            requires=requires,
            fields=fields,
            replace=True if requires == "hot-plug" and subject(one.part) in self.exchanged else msgspec.UNSET,
        )

    def fields(self, was: _Part, will: _Part) -> Iterator[Field]:
        if was.facts.get("kind") != will.facts.get("kind"):
            yield Field("kind", was.facts["kind"], will.facts["kind"])
            return
        for name in was.facts | will.facts:
            before, after = was.facts.get(name), will.facts.get(name)
            if before == after or (self.seen and (before is None or after is None)):
                continue
            if name == "controller" and was.home[1] == will.home[1]:
                continue  # the same controller, by another index
            yield Field(
                name, facts.or_default(was.part.driver, name, before), facts.or_default(will.part.driver, name, after)
            )
        if isinstance(will.part, Device) and was.home[1] != will.home[1]:
            # a controller of the same index that is another one
            index = will.facts["controller"]
            if was.facts["controller"] == index:
                now = was.home[1]
                yield Field(
                    "controller", f"{index}, {'gone' if isinstance(now, tuple) else f'now {now}'}", f"{index}, new"
                )

    def requires(self, was: _Part | None, will: _Part | None, fields: Sequence[Field]) -> Requires:
        names = {one.name for one in fields}
        if names and (names <= facts.NOTHING_TO_DO or (names == {"index"} and self.new.topology.layout == "qemu")):
            return "none"
        if self.launch is None:
            self.launch = (
                launch_only(self.old.topology, running=True),
                launch_only(self.new.topology, running=False),
            )
        cold = (was is not None and subject(was.part) in self.launch[0]) or (
            will is not None and subject(will.part) in self.launch[1]
        )
        return "restart" if cold else "hot-plug"

    # What is neither controller nor device

    def domain(self) -> Iterator[Change]:
        before, after = (facts.of_domain(plan.topology, seen=self.seen) for plan in (self.old, self.new))
        if self.seen:
            known = {
                name
                for name in before
                if before[name] and after[name] and NIL_UUID not in (before[name], after[name])
            }
        else:
            known = set(before)
        fields = tuple(
            Field(name, before[name], after[name]) for name in before if name in known and before[name] != after[name]
        )
        if fields:
            reason = facts.reason_of(one.name for one in fields)
            yield Change(
                action="change",
                what="domain",
                id="domain",
                family=None,
                before=before,
                after=after,
                guest_visible=reason is not None,
                reason=reason,
                requires="none" if all(one.name in facts.NOTHING_TO_DO for one in fields) else "restart",
                fields=fields,
            )


def _is_seen(plan: Plan) -> bool:
    topology = plan.topology
    return not plan.steps and (
        bool(topology.devices) or any(controller.type != "none" for controller in topology.controllers)
    )


def _index(part: Controller | Device) -> int:
    return part.index if isinstance(part, Controller) else part.controller


def _order(change: Change) -> tuple[str, int, tuple[int, ...], bool]:
    part = change.after or change.before
    port = port_key(part.port) if isinstance(part, Device) else ()
    return part.family, _index(part), port, change.action != "remove"


def _matched(
    old: Iterable[_Part], new: Iterable[_Part], keys: Iterable[Callable[[_Part], Hashable]]
) -> list[tuple[_Part | None, _Part | None]]:
    """Pair the parts whose keys are the same, key by key, and leave the rest on their own."""
    pairs: list[tuple[_Part | None, _Part | None]] = []
    left, right = list(old), list(new)
    for key in keys:
        if not left or not right:
            break
        waiting: dict[Hashable, deque[_Part]] = defaultdict(deque)
        for part in left:
            waiting[key(part)].append(part)
        unmatched = []
        for part in right:
            queue = waiting.get(key(part))
            if queue:
                pairs.append((queue.popleft(), part))
            else:
                unmatched.append(part)
        right = unmatched
        remaining = {id(part) for queue in waiting.values() for part in queue}
        left = [part for part in left if id(part) in remaining]
    return [*pairs, *((part, None) for part in left), *((None, part) for part in right)]


def _by_address(part: _Part) -> Hashable:
    return part.all if part.facts["pci"] is not None else part.home


def _name_alike(old: Iterable[_Part], new: Iterable[_Part]) -> None:
    """Give a host's device one name on both sides: one may know its port, the other only what it is."""
    known: dict[tuple[object, ...], list[_Part]] = defaultdict(list)
    for part in old:
        if isinstance(host := part.facts.get("host"), HostDevice):
            for key in _keys(host):
                known[key].append(part)
    taken: set[int] = set()
    names: dict[int, str] = {}
    for part in new:
        host = part.facts.get("host")
        if not isinstance(host, HostDevice):
            continue
        names[id(part)] = host.selector
        fitting = [
            one
            for key in _keys(host)
            for one in known.get(key, ())
            if id(one) not in taken and _one_device(one.facts["host"], host)
        ]
        if fitting:
            found = next((one for one in fitting if one.home == part.home), fitting[0])
            taken.add(id(found))
            names[id(found)] = host.selector
    for part in (*old, *new):
        if isinstance(host := part.facts.get("host"), HostDevice):
            part.facts["host"] = names.get(id(part), host.selector)


def _one_device(one: HostDevice, other: HostDevice) -> bool:
    """Tell whether two documents name it alike, or one is a host's word, which knows it by all its names."""
    known = any(None not in (host.device, host.vendor, host.path) for host in (one, other))
    return one == other or (known and same_host_device(one, other))


def _keys(host: HostDevice) -> Iterator[tuple[object, ...]]:
    if host.path is not None:
        yield "path", host.path
    if host.device is not None:
        yield "address", host.bus, host.device
    if host.vendor is not None:
        yield "product", host.vendor, host.product
    if host.serial is not None:
        yield "serial", host.serial


def _hashable(value: Any) -> Hashable:
    if isinstance(value, dict):
        return tuple(sorted((key, _hashable(one)) for key, one in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(map(_hashable, value))
    return value if isinstance(value, (str, int, bool)) or value is None else repr(value)
