"""A host for programs without an event loop: each call returns when it is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from translator.live.host import Host

if TYPE_CHECKING:
    from types import TracebackType

    from translator.planning.plan import Plan
    from translator.saga.outcome import Applied
    from translator.saga.recover import Recovered
    from translator.saga.unfinished import Unfinished
    from translator.topology import Layout, Topology


class BlockingHost:
    """`Host`, whose methods and arguments these are, for a `with` statement.

    Not for use inside a running event loop, nor by two threads at once. Ctrl-C in the middle of a call undoes what
    was begun, and then raises KeyboardInterrupt.
    """

    def __init__(self, **reach: Any) -> None:
        from asyncio import Runner  # importing a plan's stages must not cost asyncio

        self._host = Host(**reach)
        self._runner = Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def apply(self, plan: Plan, **options: Any) -> Applied:
        """Make the running domain match the plan; see `Host.apply`."""
        return self._runner.run(self._host.apply(plan, **options))

    def attach(self, *devices: str | bytes, **options: Any) -> Applied:
        """Attach devices to the running domain; see `Host.attach`."""
        return self._runner.run(self._host.attach(*devices, **options))

    def detach(self, *devices: str | bytes, **options: Any) -> Applied:
        """Detach devices and controllers from the running domain; see `Host.detach`."""
        return self._runner.run(self._host.detach(*devices, **options))

    def observe(self, *, domid: int | None = None, layout: Layout | None = None) -> Topology:
        """Return what the running domain has; see `Host.observe`."""
        return self._runner.run(self._host.observe(domid=domid, layout=layout))

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Return what applies have left in the state directory; see `Host.unfinished`."""
        return self._host.unfinished()

    def recover(self, one: Unfinished, **options: Any) -> Recovered:
        """Take back what a killed apply did, or finish it; see `Host.recover`."""
        return self._runner.run(self._host.recover(one, **options))

    def close(self) -> None:
        """Close what was opened."""
        self._runner.run(self._host.close())
        self._runner.close()
