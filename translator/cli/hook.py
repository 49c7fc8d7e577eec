"""`translator hook`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

import translator
from translator.cli import inputs, options
from translator.cli.hosts import host_of, run
from translator.document.domain import MAX_SIZE
from translator.errors import HostError

if TYPE_CHECKING:
    from translator.cli.options import Journaling, Reaching, Reporting
    from translator.cli.report import Report
    from translator.document.domain import Domain


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
        from translator.hotplug.hook import release, started

        async with host_of(connecting, journaling) as host:
            assert host.state is not None, "a command keeps its journals"
            note = _Note(Path(host.state) / "hook" / (domain.uuid or domain.name))
            if operation == "started":
                applied = await started(domain, host, connecting.layout)
                if applied is not None:
                    report.warnings(applied.notes, domain.name)
                    note.write(f"{domain.domid}\n")
            elif (domid := note.domid()) is not None:
                await release(host, domid)
                note.path.unlink(missing_ok=True)

    run(work())


class _Note(NamedTuple):
    """Under which domid a domain was started: at its release libvirt does not tell any more."""

    path: Path

    def write(self, text: str) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            inputs.replace_file(self.path, (text.encode(),))
        except OSError as error:
            raise self.unusable(error.strerror or str(error)) from error

    def domid(self) -> int | None:
        try:
            text = self.path.read_text(errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.unusable(error.strerror or str(error)) from error
        if not re.fullmatch(r"[1-9][0-9]{0,4}", text, re.ASCII):
            raise self.unusable("it holds no domid")
        return int(text)

    def unusable(self, why: str) -> HostError:
        return HostError(
            "T507",
            f"{self.path}: which domid the domain had cannot be kept: {why}",
            "remove the file, and what is left of the domain by hand: xenstore-ls /libxl",
        )
