"""`translator follow`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from translator.cli import inputs, options
from translator.cli.hosts import domain_at, host_of, run
from translator.output.escape import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from translator.cli.options import Journaling, Reaching, Reporting
    from translator.hotplug.follow import Event, Followed
    from translator.planning.plan import Plan


@click.command(
    "follow",
    epilog=options.examples("translator follow guest.xml", "translator follow guest hostdev:046d:c52b hostdev:1-4.2"),
)
@click.argument("target", metavar="DOMAIN|FILE", shell_complete=options.complete_file)
@click.argument("devices", nargs=-1, metavar="[DEVICE]…")
@click.option(
    "--poll",
    callback=options.seconds,
    metavar="SECONDS",
    help="How often sysfs is looked at where the kernel does not tell of changes [default: 1].",
)
@options.reaching
@options.journaling
@options.max_size
@options.reporting
def command(
    target: str,
    devices: tuple[str, ...],
    poll: float | None,
    connecting: Reaching,
    journaling: Journaling,
    max_size: int,
    reporting: Reporting,
) -> None:
    """Attach host devices to a running domain whenever they are plugged in, and detach them when they go.

    FILE is a domain document, whose host devices are followed, each to its port. For a DOMAIN, DEVICE names them:
    hostdev:046d:c52b, hostdev:1-1.2, hostdev:serial:SERIAL; without any, those that it has now are followed.
    """
    report = reporting.report()
    plan: Plan | None = None
    if target == "-" or "/" in target or target.endswith((".xml", ".cfg")):
        name, data = inputs.single(target, "follow", report, max_size)
        with report.document(name):
            plan = inputs.plan_of(data, name)
        report.exit()
    if plan is not None and devices:
        inputs.usage("a document names its devices itself")
    asked: tuple[Followed, ...] = ()
    with report.document(None):
        asked = _asked(devices)
    report.exit()

    async def work() -> None:
        from translator.hosts.uevents import POLL_S
        from translator.hotplug.follow import follow, followed_of

        async with host_of(connecting, journaling) as host:
            identity = plan.topology.domain if plan else None
            domid = await domain_at(host, connecting, (identity.uuid or identity.name) if identity else target)
            followed = asked or followed_of(
                plan.topology if plan else await host.observe(domid=domid, layout=connecting.layout)
            )
            if not followed:
                inputs.usage(f"{target!r} has no host device that could be followed")
            await follow(
                host,
                followed,
                domid=domid,
                layout=connecting.layout,
                on_event=_tell,
                poll_s=POLL_S if poll is None else poll,
            )

    with report.document(target if plan else None):
        run(work(), stopped=0)
    report.exit()


def _asked(devices: Sequence[str]) -> tuple[Followed, ...]:
    """Return the devices that the words name."""
    from translator.hotplug.follow import Followed, check
    from translator.hotplug.words import parse_device_word

    asked = []
    for word in devices:
        host = parse_device_word(word).host
        if host is None:
            inputs.usage(f"{word!r} is no device of the host, and nothing else is pulled and plugged in")
        asked.append(Followed(check(host)))
    return tuple(asked)


def _tell(event: Event) -> None:
    where = f", port {event.place.port} of controller {event.place.controller}" if event.place else ""
    why = f": {event.reason}" if event.reason else ""
    click.echo(visible(f"{event.kind}: host device {event.selector}{where}{why}"))
    sys.stdout.flush()
