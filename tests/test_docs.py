"""What README and docs/ show is what happens.

In a `console` block a line after `$` is run, and prints what follows it; one after `#` is for a host of one's own,
and is a call that the command line understands. A block with a title is the file of that name. Each document is one
session: what a line has made is there for the next.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner

import translator
from tests.conftest import FIXTURES, PROJECT
from tests.test_apply import run
from translator.cli import COMMANDS, cli, reference
from translator.hosts.sandbox import Sandbox
from translator.live.host import Host

ELSEWHERE = {  # whole documents that other tests run, or whose generator they hold to its word
    "ci.md": "test_check",
    "commands.md": "test_docs",
    "diagnostics.md": "test_errors",
    "manager.md": "test_manager",
    "models.md": "test_models",
}


class Block(NamedTuple):
    """What is fenced in a document."""

    language: str
    title: str | None
    text: str

    def lines(self, prompt: str) -> list[tuple[str, str]]:
        """Return what is typed after the prompt, each with what it prints."""
        return re.findall(rf"^{prompt} (.*)\n((?:(?![$#] ).*\n)*)", self.text, re.MULTILINE)


def _blocks(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    assert len(found) * 2 == len(re.findall("^```", text, re.MULTILINE)), f"{path}: a fence is not understood"
    return [Block(language, title or None, inside) for language, title, inside in found]


PATHS = sorted((PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")))
DOCUMENTS = {path.name: _blocks(path) for path in PATHS if path.name not in ELSEWHERE}
CONSOLES = {name: [one for one in blocks if one.language == "console"] for name, blocks in DOCUMENTS.items()}
SESSIONS = {
    name: lines
    for name, blocks in CONSOLES.items()
    if (lines := [line for one in blocks for line in one.lines(r"\$")])
}
ENTRIES = reference.entries()
CALLS = {
    *(call for blocks in CONSOLES.values() for one in blocks for call, _ in one.lines("#")),
    *(example for entry in ENTRIES for example in entry.examples),
    *(  # scripts, units and the like
        call.replace('"$@"', "guest started begin -")
        for blocks in DOCUMENTS.values()
        for one in blocks
        if one.language in {"", "ini", "sh"}
        for call in re.findall(r"(?:^|exec |/)(translator .*)", one.text, re.MULTILINE)
    ),
}
MENTIONED = {
    mention
    for path in PATHS
    for mention in re.findall(r"`(translator [a-z][^`]*)`", path.read_text(encoding="utf-8"))
} - {entry.path for entry in ENTRIES}


@pytest.mark.parametrize("name", SESSIONS)
def test_session(name: str, tmp_path: Path) -> None:
    (tmp_path / "fixtures").symlink_to(FIXTURES)
    for block in DOCUMENTS[name]:
        if block.title is not None:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
    typed = [(command, printed) for command, printed in SESSIONS[name] if not command.startswith("make ")]
    assert [(command, _timeless(printed)) for command, printed in typed] == [
        (command, _timeless(printed))
        for (command, _), printed in zip(typed, _run([command for command, _ in typed], tmp_path), strict=True)
    ]


def _run(commands: list[str], folder: Path) -> list[str]:
    """Return what each command prints, in one shell; what ends with & runs on, and is there once it has printed."""
    script = ["background="]
    for number, command in enumerate(commands):
        script.append("printf '\\036'")
        if command.endswith(" &"):
            out = shlex.quote(str(folder.parent / f"{number}.out"))
            script.append(f'{command[:-2]} >{out} 2>&1 & background="$background $!"')
            script.append(f"until [ -s {out} ]; do sleep 0.05; done; cat {out}")
        else:
            script.append(command)
    script.append('if [ -n "$background" ]; then kill $background; wait; fi')
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(folder.parent),
    }
    with subprocess.Popen(
        ["sh", "-c", "\n".join(script)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            printed, _ = shell.communicate(timeout=120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return printed.split("\036")[1:]


def _timeless(text: str) -> str:
    return re.sub(r"\d+\.\d{3}\b", "0.000", text)


@pytest.mark.parametrize("call", sorted(CALLS))
def test_call(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = _words(call)
    if words[0] == "translator":
        monkeypatch.chdir(tmp_path)
        for word in words:
            if word.endswith(".xml") and "/" not in word:
                Path(word).touch()
        monkeypatch.setattr(click.Command, "invoke", lambda command, context: None)
        cli.main(words[1:], prog_name="translator", standalone_mode=False)


def _words(call: str) -> list[str]:
    """Return the words of a call, up to the shell's first operator."""
    lexer = shlex.shlex(call, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    end = next((number for number, word in enumerate(words) if set(word) <= set("|<>&;()")), len(words))
    return words[:end]


@pytest.mark.parametrize("call", sorted(MENTIONED))
def test_what_is_mentioned(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Command, "invoke", lambda command, context: None)
    with contextlib.suppress(click.MissingParameter):  # a mention need not be a whole call
        cli.main(_words(call)[1:], prog_name="translator", standalone_mode=False)


def test_every_target_of_make_is_there() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    named = {command.split()[1] for lines in SESSIONS.values() for command, _ in lines if command.startswith("make ")}
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_the_document_shown_is_the_one_that_is_planned() -> None:
    shown = [one.text for one in DOCUMENTS["README.md"] if one.language == "xml"]
    assert shown == [(FIXTURES / "demo/desk/domain.xml").read_text(encoding="utf-8")]


def test_python_of_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = (one.text for one in DOCUMENTS["README.md"] if one.language == "python")
    desk = (FIXTURES / "demo/desk/domain.xml").read_text(encoding="utf-8")
    (tmp_path / "guest.xml").write_text(desk)
    (tmp_path / "guest-2.xml").write_text(desk.replace("qusb2", "xenusb2"))  # who serves it is not the guest's
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()

    async def scenario() -> None:
        async with Sandbox() as sandbox:
            guest = sandbox.make_host_for(translator.plan(translator.load("guest.xml"), domid=7))
            here = Host(xenstore=sandbox.xenstore_socket, qmp=guest.qmp_sockets, sysfs=sandbox.sysfs)
            monkeypatch.setattr(translator, "Host", lambda xenstore: here)
            with contextlib.redirect_stdout(printed):
                await eval(compile(code, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {})

    run(scenario())
    assert [printed.getvalue().strip()] == re.findall(r"print\(.*\)  # (.*)", code)


def test_every_module_has_its_place_in_the_architecture() -> None:
    text = (PROJECT / "docs/architecture.md").read_text(encoding="utf-8")
    package = PROJECT / "translator"
    folders = {path.parent for path in package.glob("*/__init__.py")}
    # what is in these is told of where it is
    apart = {"cli", "families", "hosts", "layouts", "units", "xlcfg"}
    modules = {
        one.stem for folder in (package, *folders) if folder.name not in apart for one in folder.glob("[a-z]*")
    }
    expected = modules - {"py", "schemas", *(folder.name for folder in folders)} | {f"{one.name}/" for one in folders}
    table = "".join(line for line in text.splitlines(keepends=True) if line.startswith("| `"))
    assert expected - set(re.findall(r"`([a-z_]+/?)`", table)) == set()


def test_no_module_takes_the_place_of_what_is_public() -> None:
    for name in translator.__all__:
        if find_spec(f"translator.{name}") is not None:
            import_module(f"translator.{name}")
            assert callable(getattr(translator, name))


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.path for entry in ENTRIES])
def test_help_fits_a_terminal_and_has_an_example(entry: reference.Entry) -> None:
    words = entry.path.split()[1:]
    done = CliRunner().invoke(cli, [*words, "--help"], prog_name="translator", terminal_width=80)
    assert done.exit_code == 0
    assert max(map(len, done.output.splitlines())) <= 80
    if words:
        assert entry.examples
        assert all(set(entry.path.split()) <= set(_words(example)) for example in entry.examples)


def test_the_reference_is_the_commands() -> None:
    written = (PROJECT / "docs/commands.md").read_text(encoding="utf-8")
    assert written == reference.markdown(), "write it again: python -m translator.cli.reference > docs/commands.md"


def test_every_link_leads_to_a_file() -> None:
    links = {
        (path.parent / link).resolve(): path.name
        for path in PATHS
        for link in re.findall(r"\]\((?![a-z]+:|#)([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    }
    assert {str(target): name for target, name in links.items() if not target.exists()} == {}


def test_each_command_has_a_manual_page() -> None:
    pages = reference.manual_pages()
    assert {"translator.1", *(f"translator-{name}.1" for name in COMMANDS)} <= set(pages)
    for entry in ENTRIES:
        page = pages[f"{entry.path.replace(' ', '-')}.1"]
        assert page.startswith(f".TH {entry.path.replace(' ', '-').upper()} 1 ")
        assert not re.search(r"[^ -~\n]|^\.(?!TH|SH|PP|TP|BR|B|nf|fi)", page, re.MULTILINE)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    script = CliRunner(env={"_TRANSLATOR_COMPLETE": f"{shell}_source"}).invoke(cli, prog_name="translator").output
    assert "_translator_completion" in script
    assert shutil.which(shell) is None or not subprocess.run([shell, "-n"], input=script, text=True).returncode

    def offered(typed: str) -> list[str]:
        last = typed.split(" ")[-1]
        words = {"COMP_WORDS": typed, "COMP_CWORD": last if shell == "fish" else str(typed.count(" "))}
        done = CliRunner(env={"_TRANSLATOR_COMPLETE": f"{shell}_complete", **words}).invoke(
            cli, prog_name="translator"
        )
        return [one for one in re.split(r"[,\n\t]", done.output) if one and one != "_"]

    assert offered("translator pl")[:2] == ["plain", "plan"]
    assert offered("translator plan gu") == ["file", "gu"]
    assert offered("translator explain T30")[:4] == ["plain", "T301", "plain", "T302"]
    assert offered("translator attach guest ")[1::2][:4] == ["tablet", "mouse", "keyboard", "hub"]
    assert offered("translator attach guest h") == ["plain", "hub", "plain", "hostdev:", "file", "h"]
    assert offered("translator models qu")[1::2] == ["qusb1", "qusb2"]


@pytest.mark.skipif(find_spec("mkdocs") is None and "CI" not in os.environ, reason="mkdocs is not installed")
def test_the_site_is_built_without_warnings(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    reference_page = (tmp_path / "commands.html").read_text(encoding="utf-8")
    assert all(f">{entry.path}<" in reference_page for entry in ENTRIES)
    python = (tmp_path / "python.html").read_text(encoding="utf-8")
    assert all(f'id="translator.{name}"' in python for name in translator.__all__)
