"""`translator recover`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import msgspec

from translator.cli import inputs, options
from translator.cli.hosts import run, state_of
from translator.cli.progress import counted, progress_of
from translator.errors import EXIT_DIRTY
from translator.output.escape import visible

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Progress, Reporting
    from translator.saga.recover import Recovered
    from translator.saga.state import Found
    from translator.saga.unfinished import Unfinished, UnfinishedStep


@click.command(
    "recover",
    cls=options.NamingCommand,
    epilog=options.examples("translator recover --list", "translator recover --resume --domid 7"),
)
@click.option("--rollback", is_flag=True, help="Take all back [default].")
@click.option("--resume", is_flag=True, help="Carry out what is not in effect yet.")
@click.option("--list", "listing", is_flag=True, help="Only print what is there.")
@click.option("--format", "format", type=click.Choice(["text", "json"]), default="text", help="What to print.")
@click.option("--timeout", callback=options.seconds, metavar="SECONDS", help="For each wait [default: apply's own].")
@options.domid
@options.state
@options.progress
@options.reporting
def command(
    rollback: bool,
    resume: bool,
    listing: bool,
    format: str,
    timeout: float | None,
    domid: int | None,
    state: Path | None,
    progress: Progress,
    reporting: Reporting,
) -> None:
    """Take back, or finish, what killed applies have left; --domid: only those of one Xen domain."""
    from translator.saga.recover import recover
    from translator.saga.state import State
    from translator.saga.unfinished import unfinished

    if rollback + resume + listing > 1:
        inputs.usage("--rollback, --resume and --list: take one of them")
    report = reporting.report()
    directory = State(state_of(state))
    results: list[dict[str, Any]] = []

    async def work(found: Found) -> None:
        with progress_of(progress, report.for_people) as telling:
            result = await recover(directory.path, found, resume=resume, timeout_s=timeout, on_step=telling.tell)
        results.append(msgspec.to_builtins(result))
        if format == "text":
            click.echo(_told(result))

    with report.document(None):
        found = [one for one in directory.journals() if domid is None or one.key == f"xen-{domid}"]
        if listing:
            listed = [unfinished(directory, one) for one in found]
            text = _json(msgspec.to_builtins(listed)) if format == "json" else "".join(map(_line, listed))
            inputs.write(text, None)
            if not listed and format == "text":
                click.echo("nothing to recover", err=True)
        else:
            for one in found:
                with report.document(None):
                    run(work(one), stopped=EXIT_DIRTY, told="interrupted; the journal stays")
            if format == "json":
                inputs.write(_json(results), None)
            elif not found:
                click.echo("nothing to recover")
    report.exit()


def _line(one: Unfinished) -> str:
    if one.domain is None:
        return f"{visible(str(one.journal))}: {one.state}\n"
    who = one.domain.name if one.domain.domid is None else f"{one.domain.name} (domid {one.domain.domid})"
    head = f"{one.journal}: {one.state}: {who}, {one.started}, {len(one.begun)} of {len(one.steps)} steps begun"
    return f"{visible(head)}\n" + "".join(f"{visible(f'  {step.id}{_for_good(step)}')}\n" for step in one.begun)


def _for_good(step: UnfinishedStep) -> str:
    return f" (nothing undoes it: {step.undo_reason}; only --resume)" if step.undo_reason else ""


def _told(result: Recovered) -> str:
    names = {
        "rolled-back": f"{counted(result.steps)} undone; as it was before",
        "finished": f"{counted(result.steps)} carried out; as planned",
        "kept": "it was confirmed; as planned",
        "running": "somebody is working on it; left alone",
    }
    where = {
        "same": "",
        "gone": " (the domain is gone)",
        "other": " (another domain has its id)",
        "restarted": " (its QEMU was started anew)",
        "rebooted": " (the host was started anew)",
    }
    left = f"; changed by somebody else since, and left so: {', '.join(result.left)}" if result.left else ""
    return visible(f"{result.domain.name}{where[result.whereabouts]}: {names[result.result]}{left}")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
