"""`translator apply`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

import translator
from translator.cli import inputs, options
from translator.cli.hosts import domid_at, host_of, run
from translator.cli.progress import counted, progress_of, would_do
from translator.errors import DocumentError
from translator.output import render
from translator.output.escape import visible

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Connecting, Journaling, Planning, Reporting
    from translator.planning.plan import Plan

COMMIT_TIMEOUT_S = 60.0
_OF_A_HOST = ("xenstore", "qmp", "sysfs", "name", "state", "lock_timeout")  # which the embedded one has of its own


@click.command(
    "apply",
    cls=options.NamingCommand,
    epilog=options.examples(
        "translator apply --sandbox guest.xml",
        "translator apply guest.xml --domid 7 --dry-run --format json >plan.json",
        "translator apply guest.xml --qmp /run/qemu/guest.sock",
    ),
)
@options.file
@click.option("--sandbox", is_flag=True, help="Use the embedded host, gone at the end; no Xen or QEMU is needed.")
@click.option("--prune", is_flag=True, help="Also remove what the document does not name.")
@click.option("--replace", is_flag=True, help="Let a controller take another one's place; the guest sees a replug.")
@options.force
@options.dry_run
@click.option(
    "--format",
    "format",
    type=click.Choice(["text", "json"]),
    help="What --dry-run prints; json is a plan of these steps, for a host that is still so [default: text].",
)
@options.output
@click.option("--no-commit", is_flag=True, help="Take all back again unless `translator commit` comes in time.")
@click.option(
    "--commit-timeout",
    callback=options.seconds,
    metavar="SECONDS",
    help="How long to wait for `translator commit` [default: 60].",
)
@options.planning
@options.connecting
@options.journaling
@options.max_size
@options.reporting
def command(
    file: str,
    sandbox: bool,
    prune: bool,
    replace: bool,
    force: bool,
    dry_run: bool,
    format: str | None,
    output: Path | None,
    no_commit: bool,
    commit_timeout: float | None,
    planning: Planning,
    connecting: Connecting,
    journaling: Journaling,
    max_size: int,
    reporting: Reporting,
) -> None:
    """Make a running domain match a document or a plan: all or nothing."""
    if no_commit and (dry_run or sandbox):
        inputs.usage(f"--no-commit means nothing with {'--dry-run' if dry_run else '--sandbox'}")
    if commit_timeout is not None and not no_commit:
        inputs.usage("--commit-timeout is for --no-commit")
    if (format or output) and not dry_run:
        inputs.usage("--format and --output are for --dry-run")
    if sandbox:
        options.refuse(_OF_A_HOST, "--sandbox brings its own host")
    report = reporting.report()
    source, data = inputs.single(file, "apply", report, max_size)

    async def work() -> None:
        if sandbox:
            await in_sandbox(document(planning.domid, usbback=True))
            return
        async with host_of(connecting, journaling) as host:
            usbback = host.sysfs.has_driver("usbback")
            if connecting.name is not None:
                plan_for(None, usbback)  # a document that is refused has nothing to look for
            await carry_out(document(await domid_at(host, connecting, planning.domid), usbback), host)

    def plan_for(domid: int | None, usbback: bool) -> Plan:
        return inputs.plan_of(data, source, msgspec.structs.replace(planning, domid=domid), max_size, usbback=usbback)

    def document(domid: int | None, usbback: bool) -> Plan:
        made = plan_for(domid, usbback)
        report.warnings(made.diagnostics, source)
        if report.failed:
            raise DocumentError([])  # a warning, taken for an error and told
        return made

    async def in_sandbox(made: Plan) -> None:
        from translator.hosts.sandbox import Sandbox

        async with Sandbox() as embedded:
            guest = embedded.make_host_for(made)
            made = made.bind(domid=guest.domid) if made.topology.domain.hypervisor == "xen" else made
            async with translator.Host(
                xenstore=embedded.xenstore_socket,
                qmp=guest.qmp_sockets,
                sysfs=embedded.sysfs,
                timeout_s=connecting.timeout,
            ) as host:
                await carry_out(made, host)
                seen = await host.observe(domid=made.topology.domain.domid)
            if format != "json":
                shown = msgspec.structs.replace(made, topology=seen, steps=(), untranslated=())
                click.echo(render.text(shown), nl=False)

    async def carry_out(made: Plan, host: translator.Host) -> None:
        for model in host.qmp_paths.keys() - {one.name for one in made.topology.device_models}:
            inputs.usage(f"--qmp names device model {model!r}, which the domain does not have")
        if made.basis is not None and (prune, replace, force) != (False,) * 3:
            inputs.usage(f"{source} says itself what may be removed, as it was made: leave --prune and the like out")
        with progress_of(journaling.progress, report.for_people) as progress:
            applied = await host.apply(
                made,
                prune=prune,
                replace=replace,
                force=force,
                dry_run=dry_run,
                on_step=progress.tell,
                confirm_s=(COMMIT_TIMEOUT_S if commit_timeout is None else commit_timeout) if no_commit else None,
                on_confirm=progress.waiting,
            )
        report.warnings(applied.notes, source)
        if applied.plan is not None and format == "json":
            inputs.write(applied.plan.to_json(), output)
        elif dry_run:
            inputs.write(would_do(applied.steps), output)
        elif applied.steps:
            click.echo(f"{counted(applied.steps)} carried out; {visible(made.topology.domain.name)} matches")
        else:
            click.echo("no change")

    with report.document(source):
        run(work())
    report.exit()
