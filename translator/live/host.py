"""One host: its xenstored, its QEMUs and its sysfs, connected to when first needed."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from translator.errors import HostError
from translator.planning.plan import check_plan
from translator.topology import PRIMARY, check_domid

if TYPE_CHECKING:
    from asyncio import Lock
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from types import TracebackType

    from translator.hosts.qmp import Qmp
    from translator.hosts.sysfs import Sysfs
    from translator.hosts.xenstore import Xenstore
    from translator.hotplug.attach import Given
    from translator.live.drivers import KnownDrivers
    from translator.planning.plan import Plan
    from translator.saga.outcome import Applied, StepEvent
    from translator.saga.recover import Recovered
    from translator.saga.unfinished import Unfinished
    from translator.topology import Layout, Topology

XENSTORED_SOCKET = Path("/var/run/xenstored/socket")
TIMEOUT_S = 10.0

# The processes of the QEMUs of one piece of work, by domid and socket, as it has met them first.
_worked_on: ContextVar[dict[tuple[int | None, Path], str | None]] = ContextVar("_worked_on")


class Host:
    """A host; each part is opened on first use, opened again when it was lost, and closed at the end.

    A domain's monitors are given free when no call for it is under way: each serves one client at a time, and others
    want it, too.

    Args:
        xenstore: xenstored's socket, or its device.
        qmp: the monitor's socket, or one for each device model; a Xen domain's primary one is libxl's if unnamed,
            and another one's is what the host's records say, or libxl's with its name behind it.
        sysfs: where the host's /sys is mounted.
        timeout_s: bounds every request and, when given, every wait; otherwise a wait's own limit holds.
        state: where applies keep journals, locks, and what QEMUs were found to have; None for none of it. Without
            it, nothing keeps two from working on one domain, and what a killed process left cannot be taken back.
        lock_timeout_s: how long to wait while somebody else works on the domain.

    Raises:
        HostError: T402, two device models have one socket.
    """

    def __init__(
        self,
        *,
        xenstore: str | Path = XENSTORED_SOCKET,
        qmp: str | Path | Mapping[str, str | Path] | None = None,
        sysfs: str | Path = "/sys",
        timeout_s: float | None = None,
        state: str | Path | None = None,
        lock_timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.state = None if state is None else Path(state)
        self.lock_timeout_s = lock_timeout_s
        self.xenstore_path = Path(xenstore)
        paths = {PRIMARY: qmp} if isinstance(qmp, (str, Path)) else (qmp or {})
        self.qmp_paths = {name: Path(path) for name, path in paths.items()}
        owners: dict[Path, str] = {}
        for name, path in self.qmp_paths.items():
            if owners.setdefault(path, name) != name:
                raise HostError(
                    "T402",
                    f"device models {owners[path]!r} and {name!r} are both to be reached at {path}",
                    "each has a monitor of its own",
                )
        self.sysfs_root = Path(sysfs)
        self.timeout_s = timeout_s
        self._xenstore: Xenstore | None = None
        self._qmps: dict[tuple[int | None, Path], Qmp] = {}  # by domid and socket
        self._known_drivers: KnownDrivers | None = None
        self._recorded: dict[tuple[int, str], Path] = {}  # by domid and device model
        self._named_for: dict[str, int | None] = {}  # which domain a named socket has turned out to be of
        self._users: Counter[int | None] = Counter()  # how many use a domain's monitors now
        self._connecting: dict[object, Lock] = {}  # by what is connected to

    async def __aenter__(self) -> Host:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def request_timeout_s(self) -> float:
        """How long one request may take, in seconds."""
        return TIMEOUT_S if self.timeout_s is None else self.timeout_s

    async def apply(
        self,
        plan: Plan,
        *,
        prune: bool = False,
        replace: bool = False,
        force: bool = False,
        dry_run: bool = False,
        on_step: Callable[[StepEvent], None] | None = None,
        confirm_s: float | None = None,
        on_confirm: Callable[[float], None] | None = None,
    ) -> Applied:
        """Make the running domain match the plan, all or nothing; what already does is left alone.

        It returns when the host was seen to match. A plan that a dry run has returned is carried out as it stands,
        and says itself what may be removed. Cancelling undoes what was begun, and returns when that is done.

        Args:
            plan: whose domain runs: a Xen domain's plan has a domid; any other is for the QEMU that `qmp` names.
            prune: also remove what the plan does not name.
            replace: let a controller take the place of another one, which the guest sees as a replug.
            force: do not wait for guest and backend to let go of a controller.
            dry_run: do nothing, and return the steps that would be carried out, and a plan of them. It is for this
                host as it is now: applied to it later, it is refused (T426) when the domain has changed.
            on_step: is told of each step as it begins and ends. What it raises then undoes all that was done, and is
                raised on; what it raises during the undoing is passed over.
            confirm_s: take all back again unless `translator commit` comes within so many seconds; for a host with
                `state`.
            on_confirm: is told when they begin, with their number.

        Raises:
            HostError: the host refused, has something else in a place that the plan needs, is not as it was when the
                plan was made against it (T426), or cannot be reached; it was not confirmed in time (T508). The
                host is as it was.
            OutcomeUnknown: a HostError; a request was sent before the first step, and no answer came.
            RollbackError: a HostError; the host is not as it was. `.stuck` names what stays, and where there is
                `state`, the journal stays too, for `recover`.
            TypeError: it is no plan.
            ValueError: `confirm_s` without `state`; or `prune`, `replace` or `force` other than a dry run's plan
                says itself.
        """
        from translator.live.apply import apply
        from translator.live.transition import Policy

        check_plan(plan)
        policy = Policy(prune=prune, replace=replace, force=force)
        return await apply(
            plan,
            self,
            policy=policy,
            dry_run=dry_run,
            on_step=on_step,
            confirm_s=confirm_s,
            on_confirm=on_confirm,
        )

    async def attach(
        self,
        *devices: str | bytes,
        domid: int | None = None,
        layout: Layout | None = None,
        auto_controller: bool = True,
        dry_run: bool = False,
        on_step: Callable[[StepEvent], None] | None = None,
    ) -> Applied:
        """Attach devices to the running domain, all of them or none.

        Args:
            devices: each a word, such as `hostdev:1.8`, `hostdev:046d:c52b`, `tablet` or `controller:qusb2,ports=4`,
                or the bytes of a fragment of domain XML, which may name controller and port.
            domid: a Xen domain's id; None for the one QEMU that `qmp` names.
            layout: where the domain's records live; libxl if None.
            auto_controller: whether a controller may come along where no port is free; else there is no room then.
            dry_run: do nothing, and return the steps that would be carried out.
            on_step: is told of each step as it begins and ends; what it raises counts as with `apply`.

        Raises:
            DocumentError: a word or a fragment is refused.
            HostError: a device is not there (T411), or is attached already; there is no room; or as `apply`. The
                domain is as it was.
            RollbackError: as `apply`.
            TypeError: a device is neither a word nor bytes.
            ValueError: the domid is none.
        """
        from translator.hotplug.attach import attach

        check_domid(domid)
        given = _given(devices)
        moved = await attach(
            self,
            given,
            domid=domid,
            layout=layout,
            auto_controller=auto_controller,
            dry_run=dry_run,
            on_step=on_step,
        )
        return moved.applied

    async def detach(
        self,
        *devices: str | bytes,
        domid: int | None = None,
        layout: Layout | None = None,
        force: bool = False,
        dry_run: bool = False,
        on_step: Callable[[StepEvent], None] | None = None,
    ) -> Applied:
        """Detach devices and controllers, and all that stands on them, all of them or none.

        Of a device that is named by its port, and is on a paravirtual controller, no more is looked at than this one:
        then `Applied.observation` has no more.

        Args:
            devices: each a word by which it was attached; an id in QEMU; a port, such as `1:2.1`; a part, such as
                `controller:1` or `device:scsi:0:0.0.3`; or the bytes of a fragment of domain XML.
            domid: a Xen domain's id; None for the one QEMU that `qmp` names.
            layout: where the domain's records live; libxl if None.
            force: do not wait for guest and backend to let go of a controller.
            dry_run: do nothing, and return the steps that would be carried out.
            on_step: is told of each step as it begins and ends; what it raises counts as with `apply`.

        Raises:
            DocumentError: a word or a fragment is refused.
            HostError: nothing of it is attached (T438), or several things are (T439); or as `apply`. The domain is
                as it was.
            RollbackError: as `apply`.
            TypeError: a device is neither a word nor bytes.
            ValueError: the domid is none.
        """
        from translator.hotplug.attach import detach

        check_domid(domid)
        given = _given(devices)
        moved = await detach(self, given, domid=domid, layout=layout, force=force, dry_run=dry_run, on_step=on_step)
        return moved.applied

    async def observe(self, *, domid: int | None = None, layout: Layout | None = None) -> Topology:
        """Return what the running domain has: a Xen domain by its id, or the one QEMU that `qmp` names.

        `layout` says where a Xen domain's records live; libxl if None.

        Raises:
            HostError: the host cannot be reached, or has no such domain.
            ValueError: the domid is none.
        """
        from translator.live.observe import observe

        check_domid(domid)
        return (await observe(self, domid=domid, layout=layout)).topology

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Return what applies with the same `state` have left there, or are working on; the host is not asked.

        Raises:
            HostError: T507, the directory cannot be read or trusted.
            ValueError: the host was made without `state`.
        """
        from translator.saga.state import State
        from translator.saga.unfinished import unfinished

        directory = State(self._journals)
        return tuple(unfinished(directory, found) for found in directory.journals())

    async def recover(
        self, one: Unfinished, *, resume: bool = False, on_step: Callable[[StepEvent], None] | None = None
    ) -> Recovered:
        """Take back what a killed apply did, or finish it; only what is in effect is undone, so it may be repeated.

        The sockets are those of the apply, by its journal, and not this host's own.

        Args:
            one: what `unfinished` has returned.
            resume: carry out what is not in effect, and take all back where that fails.
            on_step: is told of each step as it begins and ends.

        Raises:
            HostError: T511, the journal is gone; T501, it could not be finished, and all was taken back.
            RollbackError: something is still in between, and the journal stays.
            ValueError: the host was made without `state`.
        """
        from translator.saga.recover import recover
        from translator.saga.state import State

        found = next((found for found in State(self._journals).journals() if found.path == one.journal), None)
        if found is None:
            raise HostError("T511", f"{one.journal} is not there any more", "look again at what is unfinished")
        if one.domain is not None:
            await self.release(one.domain.domid)  # a monitor takes one client at a time
        return await recover(
            self._journals,
            found,
            resume=resume,
            timeout_s=self.timeout_s,
            lock_timeout_s=self.lock_timeout_s,
            on_step=on_step,
        )

    @property
    def _journals(self) -> Path:
        if self.state is None:
            raise ValueError("a host without a state directory keeps no journals")
        return self.state

    async def xenstore(self) -> Xenstore:
        """Return the xenstored's client, a new one when the connection was lost."""
        from translator.hosts.xenstore import Xenstore

        async with self._one_at_a_time("xenstore"):
            if self._xenstore is None or not self._xenstore.is_open:
                if self._xenstore is not None:
                    await self._xenstore.close()
                self._xenstore = await Xenstore.connect(self.xenstore_path, timeout_s=self.request_timeout_s)
            return self._xenstore

    async def qmp(self, device_model: str, domid: int | None) -> Qmp:
        """Return the client of a device model's monitor, a new one when the connection was lost.

        Args:
            device_model: its name in the plan.
            domid: whose device model; libxl's own socket is taken for a Xen domain's primary one if none is named.

        Raises:
            MonitorGone: T402, nothing listens there, or not the QEMU that did earlier in the same piece of work.
        """
        from translator.hosts.qmp import MonitorGone, Qmp

        path = self.monitor_path(device_model, domid)
        place = domid, path
        async with self._one_at_a_time(place):
            if place not in self._qmps or not self._qmps[place].is_open:
                if place in self._qmps:
                    await self._qmps.pop(place).close()
                self._qmps[place] = await Qmp.connect(path, timeout_s=self.request_timeout_s)
            monitor = self._qmps[place]
        before = _worked_on.get({}).setdefault(place, monitor.process)
        if None not in (before, monitor.process) and before != monitor.process:
            raise MonitorGone(
                "T402",
                f"{path}: another QEMU listens there than before",
                "the one that was worked on is gone, and what it had with it; look, and try again",
            )
        return monitor

    def learn_monitor(self, device_model: str, domid: int, path: str) -> None:
        """Take the socket that the host's records have for a device model; one that was named counts for more."""
        self._recorded[domid, device_model] = Path(path)

    async def release(self, domid: int | None) -> None:
        """Give a domain's monitors free for others, as is done at the end of each call anyway.

        What a call that is under way uses it keeps until then. They are connected to again when next needed.
        """
        for place in [place for place in self._qmps if place[0] == domid]:
            async with self._one_at_a_time(place):
                if place in self._qmps and not self._users[domid]:
                    await self._qmps.pop(place).close()

    @asynccontextmanager
    async def using(self, domid: int | None) -> AsyncIterator[None]:
        """Do a piece of work: its domain's monitors are kept, once they are connected to, until nobody uses them.

        And they are the same QEMUs' to its end, for all tasks that the work begins.
        """
        outermost = None if _worked_on.get(None) is not None else _worked_on.set({})
        self._users[domid] += 1
        try:
            yield
        finally:
            await self._leave(domid)
            if outermost is not None:
                _worked_on.reset(outermost)

    @asynccontextmanager
    async def resting(self, domid: int | None) -> AsyncIterator[None]:
        """Leave a domain's monitors to others for a while, in the midst of `using` them."""
        await self._leave(domid)
        try:
            yield
        finally:
            self._users[domid] += 1

    async def _leave(self, domid: int | None) -> None:
        self._users[domid] -= 1
        if not self._users[domid]:
            del self._users[domid]
            await self.release(domid)

    def _one_at_a_time(self, what: object) -> Lock:
        """Return what keeps two from connecting to the same; a monitor that does not answer holds up no other."""
        from asyncio import Lock  # importing a plan's stages must not cost asyncio

        return self._connecting.setdefault(what, Lock())

    def names_monitor(self, device_model: str) -> bool:
        """Tell whether a socket was named for the device model."""
        return device_model in self.qmp_paths

    def monitor_path(self, device_model: str, domid: int | None) -> Path:
        """Return the socket of a device model's monitor.

        Raises:
            HostError: T402, none is known, or it is another domain's.
        """
        named = self.qmp_paths.get(device_model)
        if named is not None:
            owner = self._named_for.setdefault(device_model, domid)
            if owner != domid:
                raise HostError(
                    "T402",
                    f"the socket {named} has been that of {_called(owner)}, and {_called(domid)} is asked for now",
                    "name the Xen domain in each call: domid=…"
                    if domid is None
                    else "use a Host for each domain, or leave qmp out to use libxl's own sockets",
                )
            return named
        if domid is not None:
            recorded = self._recorded.get((domid, device_model))
            its_own = "" if device_model == PRIMARY else f"-{device_model}"
            return recorded or Path(f"/var/run/xen/qmp-libxl-{domid}{its_own}")
        raise HostError(
            "T402", f"no QMP socket is known for device model {device_model!r}", f"name it: --qmp {device_model}=PATH"
        )

    @property
    def sysfs(self) -> Sysfs:
        """Return the host's devices."""
        from translator.hosts.sysfs import Sysfs

        return Sysfs(self.sysfs_root)

    @property
    def known_drivers(self) -> KnownDrivers:
        """What the QEMUs that were asked have; kept in `state`."""
        from translator.live.drivers import KnownDrivers

        if self._known_drivers is None:
            self._known_drivers = KnownDrivers(self.state)
        return self._known_drivers

    async def close(self) -> None:
        """Close what was opened."""
        qmps, self._qmps = self._qmps, {}
        xenstore, self._xenstore = self._xenstore, None
        for qmp in qmps.values():
            await qmp.close()
        if xenstore is not None:
            await xenstore.close()


def _called(domid: int | None) -> str:
    return "a QEMU without a domid" if domid is None else f"domain {domid}"


def _given(devices: Sequence[str | bytes]) -> list[Given]:
    from translator.hotplug.attach import Given

    for one in devices:
        if not isinstance(one, (str, bytes)):
            raise TypeError(f"expected a word or the bytes of a fragment, and not {type(one).__name__}")
    return [Given(one) for one in devices]
