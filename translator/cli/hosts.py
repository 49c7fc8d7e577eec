"""How a command reaches a host, and how it ends when it is told to stop."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

import translator
from translator.cli.inputs import usage
from translator.report import EXIT_HOST

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from translator.cli.options import Connecting
    from translator.outcome import StepEvent


def host_of(connecting: Connecting) -> translator.Host:
    """Return the host that the options name, or the environment where they do not."""
    monitors: dict[str, str] = {}
    for word in connecting.qmp:
        name, equals, path = word.partition("=")
        name, path = (name, path) if equals and "/" not in name else ("primary", word)
        if name in monitors:
            usage(f"--qmp names two sockets for device model {name!r}")
        monitors[name] = path
    rundir = os.environ.get("XENSTORED_RUNDIR")
    xenstore = connecting.xenstore or os.environ.get("XENSTORED_PATH") or (f"{rundir}/socket" if rundir else None)
    arguments: dict[str, Any] = {} if xenstore is None else {"xenstore": xenstore}
    return translator.Host(qmp=monitors, sysfs=connecting.sysfs, timeout_s=connecting.timeout, **arguments)


async def domid_at(host: translator.Host, connecting: Connecting, domid: int | None) -> int | None:
    """Return the id of the domain that --name names, or the one given."""
    from translator.apply import domid_of

    return domid if connecting.name is None else await domid_of(host, connecting.name)


def progress(event: StepEvent) -> None:
    """Tell of a step as it begins, or as it is taken back."""
    words = {"begin": "…", "undo": "undoing", "stuck": "STUCK"}
    if event.phase in words:
        error = f": {event.error}" if event.error else ""
        with suppress(OSError):  # whoever was reading has gone; the work goes on
            click.echo(f"{words[event.phase]:8} {event.step.target:8} {event.step.id}{error}", err=True)


def run(work: Coroutine[Any, Any, None], *, stopped: int = EXIT_HOST) -> None:
    """Run to the end, or until a signal comes: then everything is undone that was begun; exit with `stopped`."""
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
        click.echo("interrupted; the host is as it was before" if stopped else "stopped", err=True)
        sys.exit(stopped)
