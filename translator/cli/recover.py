"""`translator recover`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
import msgspec

from translator.cli import inputs, options
from translator.cli.hosts import run, state_of
from translator.cli.progress import progress_of
from translator.errors import RollbackError
from translator.report import EXIT_DIRTY

if TYPE_CHECKING:
    from pathlib import Path

    from translator.cli.options import Progress, Reporting
    from translator.recover import Recovered
    from translator.state import Found, State


@click.command(
    "recover",
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
    from translator.recover import recover
    from translator.state import State

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
            listed = [_listed(directory, one) for one in found]
            inputs.write(_json(listed) if format == "json" else "".join(map(_line, listed)), None)
        else:
            for one in found:
                with report.document(None):
                    run(work(one), stopped=EXIT_DIRTY, told="interrupted; the journal stays")
            if format == "json":
                inputs.write(_json(results), None)
            elif not found:
                click.echo("nothing to recover")
    report.exit()


def _listed(directory: State, found: Found) -> dict[str, Any]:
    """Return what there is to say of a journal; `state` is `running`, `waiting`, `confirmed`, `left` or `damaged`."""
    from translator.confirm import waiting

    if isinstance(found.content, RollbackError):
        return {"journal": found.path, "state": "damaged", "error": found.content.message}
    content = found.content
    state = "confirmed" if found.confirmed else "left"
    if directory.is_locked(found.key):
        state = "waiting" if found in waiting(directory) else "running"
    return {
        "journal": found.path,
        "state": state,
        "domain": {name: getattr(content.intent.domain, name) for name in ("name", "uuid", "domid")},
        "started": content.intent.started,
        "steps": [
            {"id": step.id, "mark": mark, "why": step.why}
            for step, mark in zip(content.intent.steps, content.marks, strict=True)
        ],
    }


def _line(listed: dict[str, Any]) -> str:
    if "domain" not in listed:
        return f"{listed['journal']}: {listed['state']}\n"
    domain = listed["domain"]
    begun = [step["id"] for step in listed["steps"] if step["mark"] == "begun"]
    who = domain["name"] if domain["domid"] is None else f"{domain['name']} (domid {domain['domid']})"
    return (
        f"{listed['journal']}: {listed['state']}: {who}, {listed['started']}, "
        f"{len(begun)} of {len(listed['steps'])} steps begun\n" + "".join(f"  {id}\n" for id in begun)
    )


def _told(result: Recovered) -> str:
    names = {
        "rolled-back": f"{_steps(result)} undone; as it was before",
        "finished": f"{_steps(result)} carried out; as planned",
        "kept": "it was confirmed; as planned",
        "running": "somebody is working on it; left alone",
    }
    where = {
        "same": "",
        "gone": " (the domain is gone)",
        "other": " (another domain has its id)",
        "rebooted": " (the host was started anew)",
    }
    left = f"; changed by somebody else since, and left so: {', '.join(result.left)}" if result.left else ""
    return f"{result.domain.name}{where[result.whereabouts]}: {names[result.result]}{left}"


def _steps(result: Recovered) -> str:
    return f"{len(result.steps)} step{'' if len(result.steps) == 1 else 's'}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
