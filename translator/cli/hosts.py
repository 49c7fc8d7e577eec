"""How a command reaches a host, and how it ends when it is told to stop."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import translator
from translator.cli.inputs import usage
from translator.errors import EXIT_HOST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from translator.cli.options import Connecting, Journaling, Probing
    from translator.errors import Diagnostic
    from translator.hosts.qmp import Qmp
    from translator.live.drivers import Driver, KnownDrivers
    from translator.planning.plan import Plan

Answer = TypeVar("Answer")


def host_of(connecting: Connecting, journaling: Journaling | None = None) -> translator.Host:
    """Return the host that the options name, or the environment where they do not."""
    monitors: dict[str, str] = {}
    for word in connecting.qmp:
        name, equals, path = word.partition("=")
        name, path = (name, path) if equals and "/" not in name else ("primary", word)
        if name in monitors:
            usage(f"--qmp names two sockets for device model {name!r}")
        monitors[name] = path
    xenstore = _xenstore(connecting)
    arguments: dict[str, Any] = {} if xenstore is None else {"xenstore": xenstore}
    if journaling is not None:
        arguments["state"] = state_of(journaling.state)
        if journaling.lock_timeout is not None:
            arguments["lock_timeout_s"] = journaling.lock_timeout
    return translator.Host(qmp=monitors, sysfs=connecting.sysfs, timeout_s=connecting.timeout, **arguments)


def _xenstore(connecting: Connecting) -> str | Path | None:
    """Return the xenstored that the options or the environment name; None for the one at its usual place."""
    rundir = os.environ.get("XENSTORED_RUNDIR")
    return connecting.xenstore or os.environ.get("XENSTORED_PATH") or (f"{rundir}/socket" if rundir else None)


def state_of(asked: Path | None) -> Path:
    """Return where journals are kept: as asked for, or where the system or the user keeps such things."""
    if asked is not None:
        return asked
    if os.geteuid() == 0:
        return Path("/var/lib/translator")
    home = os.environ.get("XDG_STATE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".local/state") / "translator"


def with_monitor(probing: Probing, ask: Callable[[Qmp, KnownDrivers], Awaitable[Answer]]) -> Answer:
    """Return what there is to say of the QEMU that --probe names.

    Raises:
        HostError: it cannot be reached, or as `ask` does.
    """
    import asyncio

    from translator.hosts.qmp import Qmp
    from translator.live.drivers import KnownDrivers

    async def work() -> Answer:
        assert probing.probe is not None
        monitor = await Qmp.connect(probing.probe)
        try:
            return await ask(monitor, KnownDrivers(state_of(probing.state)))
        finally:
            await monitor.close()

    return asyncio.run(work())


def drivers_at(probing: Probing) -> Mapping[str, Driver | None]:
    """Return what the QEMU that --probe names has of the registry's drivers."""
    from translator.live.probe import survey

    return with_monitor(probing, survey).drivers


def compare(made: Plan, probing: Probing) -> tuple[Diagnostic, ...]:
    """Return what the QEMU that --probe names would do otherwise than the plan expects; see `probe.compare`."""
    from translator.live import probe

    return with_monitor(probing, lambda monitor, known: probe.compare(made.steps, monitor, known))


async def domid_at(host: translator.Host, connecting: Connecting, domid: int | None) -> int | None:
    """Return the id of the domain that --name names, or the one given."""
    if None not in (domid, connecting.name):
        usage("--domid and --name both say which domain is meant: take one of them")
    from translator.live.binding import domid_of

    return domid if connecting.name is None else await domid_of(host, connecting.name, is_guest=True)


async def domain_at(host: translator.Host, connecting: Connecting, domain: str) -> int | None:
    """Return the id of the Xen domain of that id, name or UUID; None for the QEMU that --qmp alone names."""
    from translator.errors import HostError
    from translator.hotplug.attach import find_domain

    if connecting.qmp and _xenstore(connecting) is None and not domain.isdigit():
        seen = (await host.observe()).domain
        if domain not in (seen.name, seen.uuid):
            raise HostError(
                "T404",
                f"the QEMU there is {seen.name!r} with UUID {seen.uuid}, and not {domain!r}",
                "a Xen domain's QEMU is found by --qmp together with the domain's id, or with --xenstore",
            )
        return None
    return await find_domain(host, domain)


def run(
    work: Coroutine[Any, Any, None],
    *,
    stopped: int = EXIT_HOST,
    told: str = "interrupted; the host is as it was before",
) -> None:
    """Run to the end, or until a signal comes: then what was begun is undone, and the exit code is `stopped`."""
    import asyncio
    import signal

    async def guarded() -> None:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # each time it comes: what is being undone is undone to the end
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await task

    try:
        asyncio.run(guarded())
    except asyncio.CancelledError:
        click.echo(told if stopped else "stopped", err=True)
        sys.exit(stopped)
