"""The command line: arguments in, an exit code out; the only part that prints."""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import click
import msgspec

import translator
from translator import render
from translator.domain import MAX_SIZE
from translator.errors import DocumentError
from translator.report import DOCUMENTS, EXIT_HOST, LINES, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from translator.outcome import StepEvent
    from translator.plan import Plan


# Options that several commands share


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    try:
        seconds = None if value is None else float(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a number of seconds") from error
    if seconds is not None and not 0.1 <= seconds <= 86400:  # which NaN is not either
        raise click.BadParameter(f"{value!r} is not between 0.1 and 86400 seconds")
    return seconds


def _bytes(context: click.Context, option: click.Parameter, value: str) -> int:
    """Read a number of bytes, such as 4096, 64K or 16M."""
    match = re.fullmatch(r"([1-9][0-9]{0,11})([KM]?)", value.strip().upper())
    if match is None:
        raise click.BadParameter(f"{value!r} is not a size: say a number of bytes, such as 4096, 64K or 16M")
    return int(match[1]) * {"": 1, "K": 2**10, "M": 2**20}[match[2]]


_files = click.argument("files", nargs=-1, required=True, metavar="FILE…")
_reporting = _options(
    click.option("--strict", is_flag=True, help="Take warnings for errors."),
    click.option(
        "--diagnostics", type=click.Choice([*LINES, *DOCUMENTS]), default="text", help="How findings are printed."
    ),
    click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour findings."),
)
_reading = click.option(
    "--max-size",
    callback=_bytes,
    default=str(MAX_SIZE),
    metavar="BYTES",
    help="The largest document to read, such as 64K or 16M [default: 16M].",
)
_planning = _options(
    click.option("--domid", type=click.IntRange(1, 32751), help="The running Xen domain's id."),
    click.option("--layout", type=click.Choice(["libxl"]), help="Where a Xen domain's records live."),
    click.option(
        "--coldplug",
        type=click.Choice(["auto", "all"]),
        default="auto",
        help="Which emulated devices are put on QEMU's command line: those that cannot be hot-plugged, or all.",
    ),
)
_host = _options(
    click.option("--xenstore", type=click.Path(path_type=Path), help="xenstored's socket or device."),
    click.option("--qmp", multiple=True, metavar="[NAME=]PATH", help="A QEMU's QMP socket."),
    click.option("--sysfs", type=click.Path(path_type=Path), default=Path("/sys"), help="Where the host's /sys is."),
    click.option("--timeout", callback=_seconds, metavar="SECONDS", help="For each wait [default: 10]."),
    click.option("--name", help="The running Xen domain's name."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="translator", message="%(prog)s %(version)s")
def cli() -> None:
    """Turn libvirt-style domain XML into what a Xen or QEMU host must be told, and tell it."""


@cli.command()
@_files
@_reading
@_reporting
def validate(files: tuple[str, ...], max_size: int, strict: bool, diagnostics: str, color: str) -> None:
    """Check documents against the schema and for what they mean."""
    report = Report(strict, diagnostics, color)
    for name, data in _inputs(files, report, max_size):
        with report.document(name):
            report.warnings(_document(data, name, {}, max_size).diagnostics, name)
    report.exit()


@cli.command()
@_files
@click.option("--format", "format", type=click.Choice(list(render.FORMATS)), default="text", help="What to print.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write here, not to standard output.")
@_planning
@_reading
@_reporting
def plan(
    files: tuple[str, ...],
    format: str,
    output: Path | None,
    domid: int | None,
    layout: str | None,
    coldplug: str,
    max_size: int,
    strict: bool,
    diagnostics: str,
    color: str,
) -> None:
    """Print what would be done for each document."""
    report = Report(strict, diagnostics, color)
    texts = []
    for name, data in _inputs(files, report, max_size):
        with report.document(name):
            made = _document(data, name, {"domid": domid, "layout": layout, "coldplug": coldplug}, max_size)
            report.warnings(made.diagnostics, name)
            texts.append(render.FORMATS[format](made))
    separator = "\n" if format == "text" else ""
    _write(separator.join(texts), output)
    report.exit()


@cli.command()
@click.argument("file")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write here, not to standard output.")
@_reading
@_reporting
def normalize(file: str, output: Path | None, max_size: int, strict: bool, diagnostics: str, color: str) -> None:
    """Print the document with every USB controller, index, address and alias explicit, all else untouched."""
    from translator.normalize import normalize

    report = Report(strict, diagnostics, color)
    name, data = _single(file, "normalize", report, max_size)
    with report.document(name):
        report.warnings(translator.plan(translator.load(data, file=name, max_size=max_size)).diagnostics, name)
        normal = normalize(data, file=name)
        if not report.failed:
            _write_bytes(normal, output)
    report.exit()


@cli.command()
@click.argument("file")
@click.option("--sandbox", is_flag=True, help="Use the embedded host, gone at the end; no Xen or QEMU is needed.")
@click.option("--dry-run", is_flag=True, help="Look at the host, and print the steps that would be carried out.")
@_planning
@_host
@_reading
@_reporting
def apply(
    file: str,
    sandbox: bool,
    dry_run: bool,
    domid: int | None,
    layout: str | None,
    coldplug: str,
    xenstore: Path | None,
    qmp: tuple[str, ...],
    sysfs: Path,
    timeout: float | None,
    name: str | None,
    max_size: int,
    strict: bool,
    diagnostics: str,
    color: str,
) -> None:
    """Make a running domain match a document or a plan: all or nothing."""
    report = Report(strict, diagnostics, color)
    source, data = _single(file, "apply", report, max_size)
    options = {"layout": layout, "coldplug": coldplug}

    async def run() -> None:
        if sandbox:
            from translator.hosts.sandbox import Sandbox

            made = document(domid)
            async with Sandbox() as embedded:
                guest = embedded.make_host_for(made)
                made = made.bind(domid=guest.domid) if made.topology.domain.hypervisor == "xen" else made
                async with translator.Host(
                    xenstore=embedded.xenstore_socket, qmp=guest.qmp_socket, sysfs=embedded.sysfs, timeout_s=timeout
                ) as host:
                    await carry_out(made, host)
                    seen = await host.observe(domid=made.topology.domain.domid)
                click.echo(
                    render.text(msgspec.structs.replace(made, topology=seen, steps=(), untranslated=())), nl=False
                )
            return
        from translator.apply import domid_of

        async with _host_of(xenstore, qmp, sysfs, timeout) as host:
            number = domid
            if name is not None:
                document(None)  # a document that is refused has nothing to look for
                number = await domid_of(host, name)
            await carry_out(document(number), host)

    def document(domid: int | None) -> Plan:
        made = _document(data, source, options | {"domid": domid}, max_size)
        report.warnings(made.diagnostics, source)
        if report.failed:
            raise DocumentError([])  # a warning, taken for an error and told
        return made

    async def carry_out(made: Plan, host: translator.Host) -> None:
        for model in host.qmp_paths.keys() - {one.name for one in made.topology.device_models}:
            raise click.UsageError(f"--qmp names device model {model!r}, which the domain does not have")
        applied = await host.apply(made, dry_run=dry_run, on_step=_progress if report.for_people else None)
        count = f"{len(applied.steps)} step{'' if len(applied.steps) == 1 else 's'}"
        if dry_run:
            click.echo("".join(f"{step.target:8}  {step.id}: {step.why}\n" for step in applied.steps), nl=False)
            click.echo(f"{count} would be carried out")
        else:
            click.echo(f"{count} carried out; {made.topology.domain.name} matches" if applied.steps else "no change")

    with report.document(source):
        _run(run())
    report.exit()


@cli.command()
@click.option("--domid", type=click.IntRange(1, 32751), help="The running Xen domain's id.")
@click.option("--format", "format", type=click.Choice(["text", "json"]), default="text", help="What to print.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write here, not to standard output.")
@_host
@_reporting
def observe(
    domid: int | None,
    format: str,
    output: Path | None,
    xenstore: Path | None,
    qmp: tuple[str, ...],
    sysfs: Path,
    timeout: float | None,
    name: str | None,
    strict: bool,
    diagnostics: str,
    color: str,
) -> None:
    """Print what a running domain has: --domid or --name for Xen, --qmp alone for QEMU."""
    report = Report(strict, diagnostics, color)
    if domid is None and name is None and not qmp:
        raise click.UsageError("say which domain: --domid N or --name NAME for Xen, --qmp PATH for QEMU")

    async def run() -> None:
        from translator.apply import domid_of

        async with _host_of(xenstore, qmp, sysfs, timeout) as host:
            number = domid
            if name is not None:
                number = await domid_of(host, name)
            seen = await host.observe(domid=number)
            _write(render.FORMATS[format](translator.Plan(topology=seen, steps=())), output)

    with report.document(None):
        _run(run())
    report.exit()


@cli.command()
@click.argument("files", nargs=-1, metavar="[FILE]…")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Where the sockets are made.")
@_reporting
def sandbox(files: tuple[str, ...], directory: Path | None, strict: bool, diagnostics: str, color: str) -> None:
    """Run the embedded host until interrupted, with a guest for each document; print how to reach it."""
    report = Report(strict, diagnostics, color)
    plans = []
    for name, data in _inputs(files, report):
        with report.document(name):
            plans.append(_document(data, name, {}))
    if report.failed:
        report.exit()

    async def run() -> None:
        import asyncio

        from translator.hosts.sandbox import Sandbox

        async with Sandbox(directory) as embedded:
            guests = [embedded.make_host_for(made) for made in plans] or [embedded.add_guest("sandbox")]
            for guest in guests:
                click.echo(
                    f"{guest.name}: --domid {guest.domid} --xenstore {embedded.xenstore_socket} "
                    f"--qmp {guest.qmp_socket} --sysfs {embedded.sysfs}"
                )
            sys.stdout.flush()
            await asyncio.Event().wait()

    with report.document(None):
        _run(run(), stopped=0)
    report.exit()


@cli.command()
@click.argument("models", nargs=-1, metavar="[MODEL]…")
def models(models: tuple[str, ...]) -> None:
    """Print the table of controller models."""
    from translator.models import MODELS, NAMES

    unknown = [name for name in models if name not in NAMES]
    if unknown:
        raise click.UsageError(f"unknown model {unknown[0]!r}; known: {', '.join(MODELS)}")
    rows = [NAMES[name] for name in models] or list(MODELS.values())
    table = [("MODEL", "TYPE", "VERSION", "INTERFACE", "PORTS", "QEMU DRIVER", "HOT-PLUG")]
    for row in rows:
        ports = (
            str(row.ports.default) if row.ports.fixed else f"{row.ports.least}-{row.ports.most} ({row.ports.default})"
        )
        hotplug = "yes" if row.hotplug else "no"
        version = "-" if row.kind.version is None else str(row.kind.version)
        table.append((row.name, row.kind.type, version, row.interface, ports, row.driver or "-", hotplug))
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@cli.command()
@click.argument("code")
def explain(code: str) -> None:
    """Print what a diagnostic code means."""
    from translator.catalog import explain

    text = explain(code.upper())
    if text is None:
        _usage(f"there is no code {code!r}; docs/diagnostics.md lists them")
    click.echo(text, nl=False)


# Input, output


def _inputs(files: Iterable[str], report: Report, max_size: int = MAX_SIZE) -> Iterator[tuple[str, bytes]]:
    """Yield each document with its name; a folder stands for every *.xml below it, sorted.

    What cannot be read is reported, and the others are read all the same. Of what is too large, no more is read
    than shows that it is.
    """
    for file in files:
        if file == "-":
            yield "-", _read(sys.stdin.buffer, max_size)
            continue
        if not file:
            report.unreadable(file, "a file's name is empty")
            continue
        path = Path(file)
        found = sorted(path.rglob("*.xml")) if path.is_dir() else [path]
        if not found:
            report.unreadable(file, f"there is no *.xml below the folder {file!r}")
        for one in found:
            try:
                with one.open("rb") as stream:
                    data = _read(stream, max_size)
            except OSError as error:
                report.unreadable(str(one), f"cannot read {str(one)!r}: {error.strerror}")
            else:
                yield str(one), data


def _single(file: str, command: str, report: Report, max_size: int) -> tuple[str, bytes]:
    inputs = list(_inputs((file,), report, max_size))
    if len(inputs) != 1:
        _usage(f"{command} takes one document, and {file!r} gives {len(inputs)}")
    return inputs[0]


def _read(stream: BinaryIO, max_size: int) -> bytes:
    """Return the whole of a plan, which may be many times its document's size, and what matters of a document."""
    data = stream.read(max_size + 1)
    return data + stream.read() if _is_plan(data) else data


def _is_plan(data: bytes) -> bool:
    return data[:1000].lstrip()[:1] == b"{"


def _document(data: bytes, name: str, options: dict[str, Any], max_size: int = MAX_SIZE) -> Plan:
    """Return the plan that the input is, or that it makes."""
    if _is_plan(data):
        made = translator.Plan.from_json(data)
        return made.bind(domid=options["domid"]) if options.get("domid") else made
    return translator.plan(translator.load(data, file=name, max_size=max_size), **options)


def _write(text: str, output: Path | None) -> None:
    _write_bytes(text.encode(), output)


def _write_bytes(data: bytes, output: Path | None) -> None:
    try:
        if output is None:
            click.echo(data, nl=False)
            sys.stdout.flush()
        else:
            output.write_bytes(data)
    except BrokenPipeError:
        raise  # whoever was reading has read enough: click ends quietly
    except OSError as error:
        _usage(f"cannot write {'standard output' if output is None else repr(str(output))}: {error.strerror}")


def _usage(message: str) -> NoReturn:
    raise click.UsageError(message)


def _host_of(xenstore: Path | None, qmp: tuple[str, ...], sysfs: Path, timeout: float | None) -> translator.Host:
    monitors: dict[str, str] = {}
    for word in qmp:
        name, equals, path = word.partition("=")
        name, path = (name, path) if equals and "/" not in name else ("primary", word)
        if name in monitors:
            _usage(f"--qmp names two sockets for device model {name!r}")
        monitors[name] = path
    rundir = os.environ.get("XENSTORED_RUNDIR")
    default = os.environ.get("XENSTORED_PATH") or (f"{rundir}/socket" if rundir else None)
    arguments: dict[str, Any] = {} if xenstore is None and default is None else {"xenstore": xenstore or default}
    return translator.Host(qmp=monitors, sysfs=sysfs, timeout_s=timeout, **arguments)


def _progress(event: StepEvent) -> None:
    words = {"begin": "…", "undo": "undoing", "stuck": "STUCK"}
    if event.phase in words:
        error = f": {event.error}" if event.error else ""
        with suppress(OSError):  # whoever was reading has gone; the work goes on
            click.echo(f"{words[event.phase]:8} {event.step.target:8} {event.step.id}{error}", err=True)


def _run(work: Coroutine[Any, Any, None], *, stopped: int = EXIT_HOST) -> None:
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


def main() -> None:
    """Run the command line."""
    cli(prog_name="translator")
