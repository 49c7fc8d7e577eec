"""A plan's actions are carried out on one domain of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from translator.errors import HostError, OutcomeUnknown
from translator.layouts.identity import gone, remains
from translator.planning.plan import LaunchOption, QmpCommand, SysfsWrites, Transaction, Wait
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from translator.hosts.xenview import View
    from translator.live.host import Host
    from translator.planning.plan import Action, XenstoreOp


class Performer:
    """Carries out actions on one domain of a host; see `translator.saga.performer.Performer`.

    Args:
        made: xenstore directories that are ours to remove; those that are made from now on come to it.
        guards: what must hold in every transaction besides its own guards, and before every write to /sys.
        snapshot: what the decision to act was made on; the first action goes on in it if it is a transaction.
        outlives: whether what is left is removed all the same where the guards fail as the domain is gone, or is
            another one by now; so it is with undos.

    `seen` is the store as it was when the last transaction took effect, None before the first one.
    """

    def __init__(
        self,
        host: Host,
        domid: int | None,
        *,
        made: set[str] | None = None,
        guards: Sequence[XenstoreOp] = (),
        snapshot: View | None = None,
        outlives: bool = False,
    ) -> None:
        self.seen: View | None = None
        self._snapshot = snapshot
        self._host = host
        self._domid = domid
        self._made = set[str]() if made is None else made
        self._guards = guards
        self._outlives = outlives

    def backwards(self) -> Performer:
        """Return what carries the undos out of what this one has done."""
        return type(self)(self._host, self._domid, made=self._made, guards=self._guards, outlives=True)

    async def perform(self, action: Action, device_model: str | None) -> None:
        """Carry the action out; an effect that takes time is waited for."""
        host = self._host
        if not isinstance(action, Transaction):
            if self._snapshot is not None:
                self._snapshot.end()
            if self.seen is not None:
                self.seen = self.seen.settled()
        match action:
            case Transaction(operations, wait, otherwise):
                await self._commit(operations)
                if wait is not None and self.seen is not None:
                    self.seen = self.seen.settled()
                    await self._wait_for_answer(wait, otherwise)
            case Wait():
                await self._wait(action)
            case QmpCommand("device_del" | "chardev-remove" | "blockdev-del"):
                await self._remove(action, device_model)
            case QmpCommand(command, arguments):
                await (await host.qmp(device_model or PRIMARY, self._domid)).execute(command, arguments)
            case SysfsWrites(writes):
                if not self._outlives:
                    await self._make_sure()
                for write in writes:
                    host.sysfs.write(write.path, write.value, if_there=write.if_there)
            case LaunchOption(option):
                raise AssertionError(f"{option} is QEMU's to read as it starts")

    async def in_effect(self, action: Action, device_model: str | None) -> bool:
        """Tell whether the action's effect is there; see `translator.saga.look`."""
        from translator.saga.look import look

        return await look(action, self._host, device_model, self._domid) in ("there", "nothing")

    async def _remove(self, removal: QmpCommand, device_model: str | None) -> None:
        from translator.hosts.qmp import MonitorGone

        try:
            monitor = await self._host.qmp(device_model or PRIMARY, self._domid)
        except MonitorGone:
            return  # with a QEMU goes all that it had
        if removal.execute == "device_del":
            # an answer to device_del is not an effect: the device goes when QEMU and the guest let it
            limit_s = self._host.request_timeout_s if removal.awaited else None
            await monitor.remove_device(str(removal.arguments["id"]), limit_s)
        else:
            await monitor.remove_backend(removal.execute, removal.arguments)

    async def _wait(self, wait: Wait) -> None:
        xenstore = await self._host.xenstore()
        try:
            await xenstore.wait(wait.path, wait.values, self._limit(wait), wait.refusals)
        except HostError as error:
            if error.code != "T407" or wait.unanswered is None:
                raise
            raise HostError(error.code, f"{wait.unanswered}: {error.message}", error.help) from error

    async def _unmet(self) -> XenstoreOp | None:
        """Return the first of our guards that does not hold now; each is of a node's value."""
        store = await self._host.xenstore()
        for one in self._guards:
            if await store.read(one.path) != one.value:
                return one
        return None

    async def _make_sure(self) -> None:
        unmet = await self._unmet()
        if unmet is not None:
            raise HostError("T404", f"it does not hold that {unmet.why}: {unmet.path} is not {unmet.value!r}")

    async def _commit(self, operations: Sequence[XenstoreOp]) -> None:
        # a directory that was there before us stays, empty or not
        ours = [one for one in operations if one.op != "rm-empty" or one.path in self._made]
        if not ours:
            return
        store = await self._host.xenstore()
        try:
            done = await store.commit([*self._guards, *ours], self._snapshot)
        except HostError as error:
            if error.code != "T404" or not self._outlives or await self._unmet() is None:
                raise
            assert self._domid is not None, "guards are of a Xen domain"
            whoever = gone(self._domid)
            is_gone = not any([await store.read(one.path) is not None for one in whoever])
            left = remains(ours, self._domid, is_gone=is_gone)
            if not left:
                raise
            done = await store.commit([*whoever, *left] if is_gone else left)
        self._made |= done.made
        if self.seen is not None:
            done.view.recall(self.seen)
        self.seen = done.view

    async def _wait_for_answer(self, wait: Wait, otherwise: Sequence[XenstoreOp] | None) -> None:
        """Give the other side its time; see `Transaction`."""
        try:
            await (await self._host.xenstore()).wait(wait.path, wait.values, self._limit(wait))
        except HostError as error:
            if error.code != "T407":
                raise OutcomeUnknown(error.code, error.message, error.help) from error
            if otherwise is None:
                return  # a backend that is gone never answers, and its nodes go all the same
            if not otherwise:
                raise
            await self._give_up(wait, otherwise, error)

    async def _give_up(self, wait: Wait, otherwise: Sequence[XenstoreOp], late: HostError) -> None:
        try:
            await self._commit(otherwise)
        except HostError as error:
            if error.code == "T404" and await (await self._host.xenstore()).read(wait.path) in wait.values:
                return  # it answered at the last moment
            raise OutcomeUnknown(error.code, error.message, error.help) from error
        raise HostError(
            "T410",
            f"removal pending in the guest: {late.message}",
            "the guest's driver has to let go of the controller; --force does not wait for it",
        ) from late

    def _limit(self, wait: Wait) -> float:
        return wait.timeout_s if self._host.timeout_s is None else self._host.timeout_s
