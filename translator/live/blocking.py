"""A host for programs without an event loop: each call returns when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from translator.live.host import TIMEOUT_S, XENSTORED_SOCKET, Host

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from translator.planning.plan import Plan
    from translator.saga.outcome import Applied, StepEvent
    from translator.saga.recover import Recovered
    from translator.saga.unfinished import Unfinished
    from translator.topology import Layout, Topology


class BlockingHost:
    """`Host`, whose methods and arguments these are, for a `with` statement.

    Not for use inside a running event loop, nor by two threads at once. Ctrl-C in the middle of a call undoes what
    was begun, and then raises KeyboardInterrupt.
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
        from asyncio import Runner  # importing a plan's stages must not cost asyncio

        self._host = Host(
            xenstore=xenstore,
            qmp=qmp,
            sysfs=sysfs,
            timeout_s=timeout_s,
            state=state,
            lock_timeout_s=lock_timeout_s,
        )
        self._runner = Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def apply(
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
        """Make the running domain match the plan; see `Host.apply`."""
        return self._runner.run(
            self._host.apply(
                plan,
                prune=prune,
                replace=replace,
                force=force,
                dry_run=dry_run,
                on_step=on_step,
                confirm_s=confirm_s,
                on_confirm=on_confirm,
            )
        )

    def attach(
        self,
        *devices: str | bytes,
        domid: int | None = None,
        layout: Layout | None = None,
        auto_controller: bool = True,
        dry_run: bool = False,
        on_step: Callable[[StepEvent], None] | None = None,
    ) -> Applied:
        """Attach devices to the running domain; see `Host.attach`."""
        return self._runner.run(
            self._host.attach(
                *devices,
                domid=domid,
                layout=layout,
                auto_controller=auto_controller,
                dry_run=dry_run,
                on_step=on_step,
            )
        )

    def detach(
        self,
        *devices: str | bytes,
        domid: int | None = None,
        layout: Layout | None = None,
        force: bool = False,
        dry_run: bool = False,
        on_step: Callable[[StepEvent], None] | None = None,
    ) -> Applied:
        """Detach devices and controllers from the running domain; see `Host.detach`."""
        return self._runner.run(
            self._host.detach(*devices, domid=domid, layout=layout, force=force, dry_run=dry_run, on_step=on_step)
        )

    def observe(self, *, domid: int | None = None, layout: Layout | None = None) -> Topology:
        """Return what the running domain has; see `Host.observe`."""
        return self._runner.run(self._host.observe(domid=domid, layout=layout))

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Return what applies have left in the state directory; see `Host.unfinished`."""
        return self._host.unfinished()

    def recover(
        self, one: Unfinished, *, resume: bool = False, on_step: Callable[[StepEvent], None] | None = None
    ) -> Recovered:
        """Take back what a killed apply did, or finish it; see `Host.recover`."""
        return self._runner.run(self._host.recover(one, resume=resume, on_step=on_step))

    def release(self, domid: int | None) -> None:
        """Give a domain's monitors free for others; see `Host.release`."""
        self._runner.run(self._host.release(domid))

    def close(self) -> None:
        """Close what was opened."""
        self._runner.run(self._host.close())
        self._runner.close()
