"""`translator plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

import translator
from translator import render
from translator.cli import inputs, options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from translator.cli.options import Planning, Probing, Reporting
    from translator.drivers import Driver
    from translator.plan import Plan
    from translator.report import Report


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
@click.option(
    "--jobs", type=click.IntRange(1, 1024), default=1, metavar="N", help="Use so many processes, for many documents."
)
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
    jobs: int,
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
        committed.check(files, planning, report, max_size, update=update)
        report.exit()
        return

    if jobs > 1 and ("-" in files or sysfs is not None or probing.probe is not None):
        inputs.usage("--jobs is for files alone, without --sysfs and --probe")

    def plans() -> Iterator[tuple[str, Plan]]:
        probed: Mapping[str, Driver | None] | None = None
        for name, data in inputs.documents(files, report, max_size):
            with report.document(name):
                if probing.probe is not None and probed is None:
                    from translator.cli.hosts import drivers_at

                    probed = drivers_at(probing)
                made = inputs.plan_of(data, name, planning, max_size, probed=probed, usbback=_has_usbback(sysfs))
                if sysfs is not None and not late_binding:
                    made = _bound(made, sysfs)
                if probing.probe is not None:
                    from translator.cli.hosts import compare

                    report.warnings(compare(made, probing), name)
                yield name, made

    def texts() -> Iterator[str]:
        separator = ""
        for name, made in plans() if jobs == 1 else _abreast(files, report, planning, max_size, jobs):
            report.warnings(made.diagnostics, name)
            yield separator
            separator = "\n" if format == "text" else ""
            if format == "qemu-args":
                yield render.qemu_args(made, _emulator(made, device_model))
            else:
                yield render.FORMATS[format](made)

    inputs.write_pieces(texts(), output)
    report.exit()


def _abreast(
    files: tuple[str, ...], report: Report, planning: Planning, max_size: int, jobs: int
) -> Iterator[tuple[str, Plan]]:
    """Yield the plans of the documents, made by so many processes, with their names."""
    from concurrent.futures import ProcessPoolExecutor

    options = msgspec.structs.asdict(planning) | {"usbback": bool(planning.usbback)}
    with report.document(None), ProcessPoolExecutor(jobs) as pool:
        for name, made, error in translator.plan_many(
            inputs.names(files, report), pool, max_size=max_size, **options
        ):
            with report.document(name):
                if isinstance(error, OSError):
                    inputs.unreadable(name, error, report)
                elif error is not None:
                    raise error
                elif made is not None:
                    yield name, made


def _emulator(made: Plan, name: str | None) -> str:
    """Return whose words are meant; with several emulators it has to be said."""
    names = [one.name for one in made.topology.device_models]
    if name is None and len(names) == 1:
        return names[0]
    if name not in names:
        lacking = f"there is no device model {name!r}" if name else "each device model has words of its own"
        inputs.usage(f"{lacking}; say --device-model with one of: {', '.join(names)}")
    return name


def _has_usbback(sysfs: Path | None) -> bool:
    from translator.hosts.sysfs import Sysfs

    return sysfs is not None and Sysfs(sysfs).has_driver("usbback")


def _bound(plan: Plan, sysfs: Path) -> Plan:
    """Return the plan with the devices that its selectors name on that host."""
    from translator.binding import bind_host_devices
    from translator.hosts.sysfs import Sysfs

    return bind_host_devices(plan, Sysfs(sysfs), {})
