"""One host: its xenstored, its QEMUs and its sysfs, connected to when first needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from translator.errors import HostError
from translator.plan import QmpCommand, SysfsWrites, Transaction, Wait
from translator.topology import PRIMARY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from translator.apply import Applied
    from translator.execute import StepEvent
    from translator.hosts.qmp import Qmp
    from translator.hosts.sysfs import Sysfs
    from translator.hosts.xenstore import Xenstore
    from translator.plan import Action, Plan
    from translator.topology import Topology

XENSTORED_SOCKET = Path("/var/run/xenstored/socket")
TIMEOUT_S = 10.0


class Host:
    """A host as seen from one domain; each part is opened on first use, and all are closed at the end.

    Args:
        xenstore: xenstored's socket, or its device.
        qmp: the monitor's socket, or one for each device model; a Xen domain's primary one is libxl's if unnamed.
        sysfs: where the host's /sys is mounted.
        timeout_s: bounds every request and, when given, every wait; otherwise a wait's own limit holds.
    """

    def __init__(
        self,
        *,
        xenstore: str | Path = XENSTORED_SOCKET,
        qmp: str | Path | Mapping[str, str | Path] | None = None,
        sysfs: str | Path = "/sys",
        timeout_s: float | None = None,
    ) -> None:
        self.xenstore_path = Path(xenstore)
        paths = {PRIMARY: qmp} if isinstance(qmp, (str, Path)) else (qmp or {})
        self.qmp_paths = {name: Path(path) for name, path in paths.items()}
        self.sysfs_root = Path(sysfs)
        self.timeout_s = timeout_s
        self._xenstore: Xenstore | None = None
        self._qmps: dict[str, Qmp] = {}

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
        self, plan: Plan, *, dry_run: bool = False, on_step: Callable[[StepEvent], None] | None = None
    ) -> Applied:
        """Make the running domain match the plan; see `translator.apply.apply`."""
        from translator.apply import apply

        return await apply(plan, self, dry_run=dry_run, on_step=on_step)

    async def observe(self, *, domid: int | None = None) -> Topology:
        """Return what the running domain has: a Xen domain by its id, or the one QEMU that `qmp` names."""
        from translator.observe import observe

        return (await observe(self, domid=domid)).topology

    async def xenstore(self) -> Xenstore:
        """Return the xenstored's client."""
        if self._xenstore is None:
            from translator.hosts.xenstore import Xenstore

            self._xenstore = await Xenstore.connect(self.xenstore_path, timeout_s=self.request_timeout_s)
        return self._xenstore

    async def qmp(self, device_model: str, domid: int | None = None) -> Qmp:
        """Return the client of a device model's monitor; `domid` says where libxl put that of a Xen domain."""
        if device_model not in self._qmps:
            from translator.hosts.qmp import Qmp

            if device_model == PRIMARY and domid is not None:
                self.qmp_paths.setdefault(PRIMARY, Path(f"/var/run/xen/qmp-libxl-{domid}"))
            if device_model not in self.qmp_paths:
                raise HostError(
                    "T402",
                    f"no QMP socket is known for device model {device_model!r}",
                    f"name it: --qmp {device_model}=PATH",
                )
            self._qmps[device_model] = await Qmp.connect(
                self.qmp_paths[device_model], timeout_s=self.request_timeout_s
            )
        return self._qmps[device_model]

    @property
    def sysfs(self) -> Sysfs:
        """Return the host's devices."""
        from translator.hosts.sysfs import Sysfs

        return Sysfs(self.sysfs_root)

    async def perform(self, action: Action, device_model: str | None) -> None:
        """See `translator.execute.Performer`."""
        match action:
            case Transaction(operations, wait):
                xenstore = await self.xenstore()
                await xenstore.commit(operations)
                if wait is not None:
                    await self._wait_for_answer(wait)
            case Wait():
                await (await self.xenstore()).wait(action.path, action.values, self._limit(action))
            case QmpCommand("device_del", arguments):
                # an answer to device_del is not an effect: the device goes when QEMU and the guest let it
                await (await self.qmp(device_model or "")).remove_device(str(arguments["id"]), self.request_timeout_s)
            case QmpCommand(command, arguments):
                await (await self.qmp(device_model or "")).execute(command, arguments)
            case SysfsWrites(writes):
                for write in writes:
                    self.sysfs.write(write.path, write.value)

    async def _wait_for_answer(self, wait: Wait) -> None:
        """Give a backend its time to close; one that is gone never answers, and its nodes go all the same."""
        try:
            await (await self.xenstore()).wait(wait.path, wait.values, self._limit(wait))
        except HostError as error:
            if error.code != "T407":
                raise

    def _limit(self, wait: Wait) -> float:
        return wait.timeout_s if self.timeout_s is None else self.timeout_s

    async def close(self) -> None:
        """Close what was opened."""
        qmps, self._qmps = self._qmps, {}
        xenstore, self._xenstore = self._xenstore, None
        for qmp in qmps.values():
            await qmp.close()
        if xenstore is not None:
            await xenstore.close()
