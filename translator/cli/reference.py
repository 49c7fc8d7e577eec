"""The command line as a reference: one Markdown document, or a manual page for each command, from click's own help.

`python -m translator.cli.reference > docs/commands.md` writes the document; with an argument DIR, the pages there.
"""

from __future__ import annotations

import html
import inspect
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from translator.cli import cli
from translator.output.escape import code

if TYPE_CHECKING:
    from collections.abc import Iterator


class Paragraph(msgspec.Struct, frozen=True):
    """Some lines of a help; where they are `verbatim`, each stands as it is."""

    lines: tuple[str, ...]
    verbatim: bool


class Entry(msgspec.Struct, frozen=True):
    """What the help of one command says. A term of `options` or `commands` is followed by what it is for."""

    path: str  # such as "translator xl usb-list"
    name: str  # the last word of it
    summary: str
    usage: str
    description: tuple[Paragraph, ...]
    options: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]
    examples: tuple[str, ...]


def entries() -> tuple[Entry, ...]:
    """Return the whole command line, each command before its own commands."""
    return tuple(_entries(click.Context(cli, info_name="translator", **cli.context_settings)))


def _entries(context: click.Context) -> Iterator[Entry]:
    command = context.command
    description = _paragraphs(command.help or "")
    below = []
    if isinstance(command, click.Group):
        named = {name: command.get_command(context, name) for name in command.list_commands(context)}
        below = [
            click.Context(one, info_name=name, parent=context, **one.context_settings)
            for name, one in named.items()
            if one is not None
        ]
    options = [one.get_help_record(context) for one in command.get_params(context) if isinstance(one, click.Option)]
    yield Entry(
        path=context.command_path,
        name=context.info_name or "",
        summary=_summary(command),
        usage=" ".join((context.command_path, *command.collect_usage_pieces(context))),
        description=description,
        options=tuple(one for one in options if one is not None),
        commands=tuple((one.command_path, _summary(one.command)) for one in below),
        examples=examples_of(command),
    )
    for one in below:
        yield from _entries(one)


def examples_of(command: click.Command) -> tuple[str, ...]:
    """Return the calls that the end of a command's help shows; see `options.examples`."""
    return tuple(line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  "))


def _summary(command: click.Command) -> str:
    return " ".join(_paragraphs(command.help or "")[0].lines)


def _paragraphs(text: str) -> tuple[Paragraph, ...]:
    """Return the paragraphs of a help, in which a line of its own with \\b begins what is left as it is."""
    found = []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.splitlines()
        verbatim = lines[0].strip() == "\b"
        found.append(Paragraph(tuple(lines[1:] if verbatim else lines), verbatim))
    return tuple(found)


_HEAD = """# Commands

`translator COMMAND --help` says the same, and so does `man translator-COMMAND` ([how to get it](install.md)). What a
`FILE` is, and what else may be relied on, stands in [the contract](contract.md).
"""


def markdown() -> str:
    """Return docs/commands.md."""
    return _HEAD + "".join(f"\n{_section(entry)}" for entry in entries())


def _section(entry: Entry) -> str:
    parts = [f"## {entry.path}", *(_plain(paragraph) for paragraph in entry.description)]
    parts.append(f"```\n{entry.usage}\n```")
    for terms in (entry.commands, entry.options):
        if terms:
            parts.append("\n".join(f"- {code(term)}: {_text(' '.join(told.split()))}" for term, told in terms))
    if entry.examples:
        parts.append("```console\n" + "".join(f"# {example}\n" for example in entry.examples) + "```")
    return "\n\n".join(parts) + "\n"


def _plain(paragraph: Paragraph) -> str:
    text = "\n".join(paragraph.lines)
    return f"```\n{text}\n```" if paragraph.verbatim else _text(" ".join(paragraph.lines))


def _text(words: str) -> str:
    """Return words of ours as Markdown, which looks for HTML in them."""
    return html.escape(words, quote=False)


def manual_pages() -> dict[str, str]:
    """Return the manual pages, each under its file's name."""
    return {f"{entry.path.replace(' ', '-')}.1": _page(entry) for entry in entries()}


def _page(entry: Entry) -> str:
    name = entry.path.replace(" ", "-")
    lines = [
        f'.TH {name.upper()} 1 "" "translator {version("translator")}" "translator"',
        ".SH NAME",
        _roff(f"{name} - {entry.summary.rstrip('.')}"),
        ".SH SYNOPSIS",
        f".B {_roff(entry.path)}",
        _roff(entry.usage.removeprefix(f"{entry.path} ")),
        ".SH DESCRIPTION",
    ]
    for number, paragraph in enumerate(entry.description):
        lines += [".PP"] if number else []
        lines += (
            [".nf", *map(_roff, paragraph.lines), ".fi"] if paragraph.verbatim else [_roff(" ".join(paragraph.lines))]
        )
    for title, terms in (("COMMANDS", entry.commands), ("OPTIONS", entry.options)):
        if terms:
            lines.append(f".SH {title}")
            for term, told in terms:
                lines += [".TP", f".B {_roff(term)}", _roff(" ".join(told.split()))]
    if entry.examples:
        lines += [".SH EXAMPLES", ".nf", *map(_roff, entry.examples), ".fi"]
    related = [one.replace(" ", "-") for one, _ in entry.commands] or [name.removesuffix(f"-{entry.name}")]
    lines += [".SH SEE ALSO", ",\n".join(f".BR {_roff(one)} (1)" for one in related)]
    return "\n".join(lines) + "\n"


_TYPED = str.maketrans({"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "…": "..."})


def _roff(text: str) -> str:
    """Return the text as a line of roff: each character is the one that is typed, and none makes a request."""
    typed = text.translate(_TYPED)
    return f"\\&{typed}" if typed.startswith(".") else typed


def write_pages(directory: Path) -> None:
    """Write the manual pages."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, page in manual_pages().items():
        (directory / name).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_pages(Path(sys.argv[1]))
    else:
        sys.stdout.write(markdown())
