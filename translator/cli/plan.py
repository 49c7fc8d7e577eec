"""`translator plan`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import click
import msgspec

from translator.cli import inputs, options
from translator.cli.options import Planning, Probing
from translator.cli.work import Outcome, Session, planned
from translator.output import render

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path  # noqa: TC004 - nobody converts the task below, so its types stay words

    from translator.cli.options import Jobs, Reporting
    from translator.cli.work import Blob, Told
    from translator.errors import Diagnostic
    from translator.live.drivers import Driver
    from translator.planning.plan import Plan


@click.command(
    "plan",
    epilog=options.examples(
        "translator plan guest.xml",
        "translator plan --domid 7 --format json --output guest.plan.json guest.xml",
    ),
)
@options.files
@click.option("--format", "format", type=click.Choice(list(render.FORMATS)), default="text", help="What to print.")
@click.option("--device-model", metavar="NAME", help="With qemu-args: the words of this one of several emulators.")
@options.output
@click.option(
    "--check", is_flag=True, help="Compare with the committed NAME.plan.json beside each NAME.xml; print none."
)
@click.option("--update", is_flag=True, help="Write NAME.plan.json beside each NAME.xml.")
@click.option(
    "--sysfs",
    type=options.PathType(),
    help="Where the /sys of the host is that the plan is for: which devices its selectors name, and whether it has "
    "usbback, is then looked up.",
)
@click.option("--late-binding", is_flag=True, help="Leave it to apply which devices of the host are meant.")
@options.jobs
@options.probing
@options.planning
@options.max_size
@options.reporting
def command(
    files: tuple[str, ...],
    format: str,
    device_model: str | None,
    output: Path | None,
    check: bool,
    update: bool,
    jobs: Jobs,
    probing: Probing,
    sysfs: Path | None,
    late_binding: bool,
    planning: Planning,
    max_size: int,
    reporting: Reporting,
) -> None:
    """Print what would be done for each document."""
    if device_model is not None and format != "qemu-args":
        inputs.usage("--device-model goes with --format qemu-args")
    report = reporting.report()
    if check or update:
        from translator.cli import committed

        if check and update:
            inputs.usage("--check tells what --update would write: take one of them")
        if output is not None:
            inputs.usage(f"--output goes with neither --check nor --update, and {str(output)!r} would not be written")
        if sysfs is not None or probing.probe is not None:
            inputs.usage("a plan that is committed is for every host: --sysfs and --probe do not go with it")
        if jobs.elsewhere or jobs.since is not None:
            inputs.usage(
                "--check and --update look at all plans, here: --jobs, --scheduler and --since do not go with them"
            )
        committed.check(files, planning, report, max_size, update=update)
        report.exit()
        return

    if (jobs.elsewhere or jobs.since is not None) and (sysfs is not None or probing.probe is not None):
        inputs.usage("--sysfs and --probe ask this host, now: --jobs, --scheduler and --since do not go with them")
    task = Planner(
        planning=planning,
        max_size=max_size,
        format=format,
        device_model=device_model,
        usbback=_has_usbback(sysfs),
        sysfs=None if late_binding else sysfs,
        probing=None if probing.probe is None else probing,
    )

    def texts() -> Iterator[str]:
        separator = ""
        for text in session.documents(files):
            yield separator + text
            separator = "\n" if format == "text" else ""

    with Session(task, jobs, report, output=output) as session:
        inputs.write_pieces(texts(), output)
    report.exit()


class Planner(msgspec.Struct, frozen=True, kw_only=True):
    """Planning, and printing the plan."""

    planning: Planning
    max_size: int
    format: str
    device_model: str | None
    usbback: bool
    sysfs: Path | None  # of the host whose devices are meant
    probing: Probing | None

    def outcome(self, path: str, blobs: Sequence[Blob | None]) -> Outcome:
        """Return the plan of a document, as text."""
        (blob,) = blobs
        assert blob is not None
        made, told = planned(blob, lambda data: self.plan(data, blob.name), self.warnings)
        return Outcome(path, None if made is None else self.text(made), (told,), settled=told.is_nothing)

    def unchanged(self, path: str) -> None:
        """Nothing is printed of a plan that is the one it was."""

    def unread(self, path: str, told: Sequence[Told]) -> None:
        """Nothing is printed of what could not be read."""

    def plan(self, data: bytes, name: str) -> Plan:
        """Return the plan that the input is, or that it makes, for the host if one is named."""
        probed = None if self.probing is None else _drivers(self.probing)
        made = inputs.plan_of(data, name, self.planning, self.max_size, probed=probed, usbback=self.usbback)
        return made if self.sysfs is None else _bound(made, self.sysfs)

    def warnings(self, made: Plan) -> Iterable[Diagnostic]:
        """Return what is to be told of a plan, and of the QEMU that it is for."""
        if self.probing is None:
            return made.diagnostics
        from translator.cli.hosts import compare

        return (*compare(made, self.probing), *made.diagnostics)

    def text(self, made: Plan) -> str:
        """Return what is printed of a plan."""
        if self.format == "qemu-args":
            return render.qemu_args(made, _emulator(made, self.device_model))
        return render.FORMATS[self.format](made)


def _emulator(made: Plan, name: str | None) -> str:
    """Return whose words are meant; with several emulators it has to be said."""
    names = [one.name for one in made.topology.device_models]
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        lacking = f"there is no device model {name!r}" if name else "each device model has words of its own"
        inputs.usage(f"{lacking}; say --device-model with one of: {', '.join(names)}")
    return name


@cache
def _drivers(probing: Probing) -> Mapping[str, Driver | None]:
    """Return what a QEMU has, which is asked once for all documents."""
    from translator.cli.hosts import drivers_at

    return drivers_at(probing)


def _has_usbback(sysfs: Path | None) -> bool:
    from translator.hosts.sysfs import Sysfs

    return sysfs is not None and Sysfs(sysfs).has_driver("usbback")


def _bound(plan: Plan, sysfs: Path) -> Plan:
    """Return the plan with the devices that its selectors name on that host."""
    from translator.hosts.sysfs import Sysfs
    from translator.live.binding import bind_host_devices

    return bind_host_devices(plan, Sysfs(sysfs), {})
