"""`translator hook`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

import translator
from translator.cli import options
from translator.cli.hosts import host_of, run
from translator.domain import MAX_SIZE

if TYPE_CHECKING:
    from translator.cli.options import Journaling, Reaching, Reporting
    from translator.domain import Domain
    from translator.report import Report


@click.command("hook", epilog=options.examples("translator hook guest prepare begin - <guest.xml"))
@click.argument("guest", metavar="NAME")
@click.argument("operation")
@click.argument("suboperation", default="-")
@click.argument("extra", default="-")
@options.reaching
@options.journaling
@options.reporting
def command(
    guest: str,
    operation: str,
    suboperation: str,
    extra: str,
    connecting: Reaching,
    journaling: Journaling,
    reporting: Reporting,
) -> None:
    """Serve libvirt's hooks for libxl and qemu; the domain's document comes on standard input.

    prepare refuses a document that cannot be, started gives a Xen domain its paravirtual USB, and release removes
    what is left of it. See docs/hooks.md.
    """
    report = reporting.report()
    if operation == "prepare":
        with report.document(guest):
            domain = _domain(guest)
            report.warnings(translator.plan(domain).diagnostics, guest)
        report.exit()
    elif operation in ("started", "release"):
        with report.document(guest):
            _on_host(_domain(guest), operation, report, connecting, journaling)
        report.exit()


def _domain(name: str) -> Domain:
    return translator.load(sys.stdin.buffer.read(MAX_SIZE + 1), file=name)


def _on_host(domain: Domain, operation: str, report: Report, connecting: Reaching, journaling: Journaling) -> None:
    async def work() -> None:
        from translator.hook import release, started

        async with host_of(connecting, journaling) as host:
            assert host.state is not None, "a command keeps its journals"
            note = Path(host.state) / "hook" / (domain.uuid or domain.name)
            if operation == "started":
                applied = await started(domain, host, connecting.layout)
                if applied is not None:
                    report.warnings(applied.notes, domain.name)
                    note.parent.mkdir(parents=True, exist_ok=True)
                    note.write_text(f"{domain.domid}\n")
            elif note.is_file():  # libvirt does not tell any more which domid it was
                await release(host, int(note.read_text()))
                note.unlink()

    run(work())
