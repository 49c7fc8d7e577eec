"""The command line: arguments in, an exit code out; the only part that prints.

A command is a module of its own, imported when it is called; a line in `COMMANDS` makes it known.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from translator.errors import EXIT_INTERRUPTED, EXIT_USAGE

if TYPE_CHECKING:
    from collections.abc import Mapping

# The command of a name is the attribute `command` of the module.
COMMANDS: Mapping[str, str] = {
    "validate": "translator.cli.validate",
    "plan": "translator.cli.plan",
    "normalize": "translator.cli.normalize",
    "diff": "translator.cli.diff",
    "convert": "translator.cli.convert",
    "apply": "translator.cli.apply",
    "attach": "translator.cli.attach",
    "detach": "translator.cli.detach",
    "xl": "translator.cli.xl",
    "follow": "translator.cli.follow",
    "hook": "translator.cli.hook",
    "observe": "translator.cli.observe",
    "commit": "translator.cli.commit",
    "recover": "translator.cli.recover",
    "sandbox": "translator.cli.sandbox",
    "models": "translator.cli.models",
    "capabilities": "translator.cli.capabilities",
    "explain": "translator.cli.explain",
}


class _Group(click.Group):
    """Imports a command when it is asked for, so that none pays for another's start."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and say so where nothing can be written any more; files are each command's to tell of."""
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.filename is not None:
                raise
            with suppress(OSError):
                click.echo(f"Error: cannot write standard output: {error.strerror}", err=True)
            sys.exit(EXIT_USAGE)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name]).command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="translator", message="%(prog)s %(version)s")
def cli() -> None:
    """Turn libvirt-style domain XML into what a Xen or QEMU host must be told, and tell it.

    \b
    Exit codes:
      0  done; for diff and plan --check: no difference
      1  a difference
      2  wrong usage, or a file that cannot be read
      3  the document is refused; nothing was touched
      4  the host refused or could not be reached; it is as it was before
      5  the host is not as it was: see `translator recover`
    """


def main() -> None:
    """Run the command line.

    A process that is over frees nothing, and one that is short collects nothing: a sixth of the time of a plan.
    """
    gc.set_threshold(50_000)
    try:
        cli(prog_name="translator")
    finally:
        _leave(sys.exc_info()[1])


def _leave(reason: BaseException | None) -> None:
    """End at once, with what has to be said said; where threads are left, or no exit was asked for, Python does."""
    if not isinstance(reason, SystemExit) or isinstance(reason.code, str) or threading.active_count() > 1:
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(reason.code or 0)
