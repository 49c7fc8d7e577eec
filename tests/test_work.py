"""Many inputs: by several processes, from wherever they lie, and without those that are settled."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from tests.conftest import FIXTURES, PROJECT
from translator.cli import cli, since

if TYPE_CHECKING:
    from collections.abc import Callable

WEB = (FIXTURES / "demo/web/domain.xml").read_text()
BAD = (FIXTURES / "errors/unknown-model/domain.xml").read_text()
WARNED = (FIXTURES / "plans/kvm-full-speed-hub-on-ehci-warns/domain.xml").read_text()


def translator(*words: object) -> Result:
    """Run a command in this process."""
    done = CliRunner().invoke(cli, [*map(str, words)], prog_name="translator")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done


def said(done: Result) -> tuple[str, str, int]:
    return done.stdout, done.stderr, done.exit_code


def named(text: str, name: str) -> str:
    return text.replace("<name>web</name>", f"<name>{name}</name>")


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of documents, sound and otherwise, in the folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guests/more").mkdir(parents=True)
    for path, text in {
        "guests/a.xml": named(WEB, "a"),
        "guests/bad.xml": BAD,
        "guests/more/b.xml": named(WEB, "b"),
        "guests/more/note.txt": "no document",
        "guests/warned.xml": WARNED,
    }.items():
        (tmp_path / path).write_text(text)
    return Path("guests")


# By several processes


@pytest.mark.parametrize(
    "words",
    [
        ("validate", "guests", "none.xml"),
        ("plan", "--format", "json", "guests", "guests/none.plan.json", "guests"),
        ("diff", "guests", "others"),
        ("diff", "--format", "html", "guests", "others"),
        ("validate", "--diagnostics", "junit", "guests"),
    ],
    ids=" ".join,
)
def test_several_processes_say_what_one_says(guests: Path, words: tuple[str, ...]) -> None:
    shutil.copytree(guests, "others")
    Path("others/a.xml").write_text(named(WEB, "a").replace("qusb2", "xenusb2"))
    Path("others/warned.xml").unlink()
    shutil.copy(FIXTURES / "plans/none-means-none/plan.json", guests / "none.plan.json")
    assert said(translator(*words, "--jobs", "2")) == said(translator(*words))


def test_an_interrupted_run_ends_at_once_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal's foreground group."""
    for number in range(200):
        (tmp_path / f"{number}.xml").write_text(named(WEB, f"guest{number}"))
    state = tmp_path / "state"

    def plan(interrupt: Callable[[subprocess.Popen[bytes]], None] | None = None) -> tuple[set[str], int, str]:
        words = ("plan", "--format", "json", "--jobs", "2", "--since", str(state), str(tmp_path))
        with subprocess.Popen(
            [sys.executable, "-m", "translator", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            cwd=PROJECT,
        ) as process:
            assert process.stdout is not None
            begun = b""
            if interrupt is not None:
                begun = process.stdout.read(1000)  # it is under way, and waits to be read on
                interrupt(process)
            out, err = process.communicate()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
        return _names((begun + out).decode()), process.returncode, err.decode()

    first, code, err = plan(lambda process: os.killpg(process.pid, signal.SIGINT))
    assert (code, err) == (130, "interrupted\n")
    assert 0 < len(first) < 200
    second, code, err = plan()
    assert code == 0
    assert first | second == {f"guest{number}" for number in range(200)}
    assert len(first & second) <= 1  # the one that was being printed
    assert err == f"unchanged since the last run: {200 - len(second)} of 200\n"


def _names(text: str) -> set[str]:
    """Return the domains of the plans that are whole."""
    names = set()
    with contextlib.suppress(json.JSONDecodeError):
        while text:
            plan, end = json.JSONDecoder().raw_decode(text)
            names.add(plan["domain"]["name"])
            text = text[end:].lstrip()
    return names


def test_a_bar_is_for_those_who_look_on(guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("translator.cli.bar.QUICK_S", 0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    assert "documents" not in translator("validate", guests / "a.xml").stderr
    leader, follower = os.openpty()
    try:
        with open(follower, "w", closefd=False) as terminal, monkeypatch.context() as here:
            here.setattr(sys, "stderr", terminal)
            here.setattr(sys, "stdout", io.StringIO())
            for words in (["validate", "guests"], ["validate", "--progress", "none", "guests"]):
                with pytest.raises(SystemExit):
                    cli.main(words, prog_name="translator")
                os.write(follower, b"|")
        shown, _, unshown = os.read(leader, 2**16).decode().rstrip("|").partition("|")
    finally:
        os.close(leader)
        os.close(follower)
    assert "documents" in shown
    assert "1/4" in shown
    assert "error[T301]" in shown
    assert "documents" not in unshown


# From wherever they lie


def _tar(mode: str) -> Callable[[str], None]:
    def pack(name: str) -> None:
        with tarfile.open(name, mode) as archive:  # type: ignore[call-overload]
            archive.add("guests", filter=lambda one: one)

    return pack


def _zip(name: str) -> None:
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(Path("guests").rglob("*")):
            archive.write(path)


def _into_memory(name: str) -> None:
    import fsspec

    fsspec.filesystem("memory").put("guests", "/", recursive=True)


PLACES: dict[str, tuple[str, Callable[[str], None] | None]] = {
    "tar": ("guests.tar", _tar("w")),
    "gzip": ("guests.tar.gz", _tar("w:gz")),
    "bzip2": ("guests.tbz2", _tar("w:bz2")),
    "xz": ("guests.tar.xz", _tar("w:xz")),
    "zip": ("guests.zip", _zip),
    "url": ("file://{}/guests", None),
    "pattern": ("file://{}/guests/**/*.xml", None),
    "url of an archive": ("file://{}/guests.tgz", _tar("w:gz")),
    "chain": ("zip://guests::file://{}/guests.zip", _zip),
    "memory": ("memory://guests", _into_memory),
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, guests: Path) -> str:
    """Return the name of a place that has what the folder has."""
    name, pack = PLACES[request.param]
    if pack is not None:
        pack(name.rpartition("/")[2].format("") if "::" not in name else "guests.zip")
    return name.format(Path.cwd())


def test_documents_lie_in_folders_archives_and_behind_urls(guests: Path, place: str) -> None:
    plain, other = (translator("plan", "--format", "json", "--jobs", "2", name) for name in (guests, place))
    assert other.exit_code == plain.exit_code == 3
    assert _names(other.stdout) == _names(plain.stdout)
    assert other.stderr.count("error[T301]") == 1
    assert "bad.xml" in other.stderr


def test_places_are_compared_with_folders(guests: Path, place: str) -> None:
    top = "guests" if re.search(r"\.(t|zip$)", place) and "::" not in place else "."  # an archive has it in its names
    shutil.copytree(guests, Path("old", top))
    done = translator("diff", "--jobs", "2", "old", place)
    assert done.exit_code == 3
    assert done.stdout.endswith("bad.xml: refused\n4 files: 3 the same, 1 refused\n")
    assert done.stderr.count("error[T301]") == 1


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("guests.tar.gz", lambda data: data[:-9], "cannot read 'guests.tar.gz': "),
        ("guests.tar.gz", lambda data: data[:-8] + b"xxxxxxxx", "cannot read 'guests.tar.gz': CRC check failed"),
        ("guests.tar", lambda data: data.replace(b"ustar", b"wrong"), "cannot read 'guests.tar': "),
        ("guests.tar", lambda data: data[:-10240], "cannot read 'guests.tar': it is damaged, or cut short"),
        ("guests.zip", lambda data: data[:-30], "cannot read 'guests.zip': File is not a zip file"),
        ("guests.zip", lambda data: data.replace(b"PK\3\4", b"PK\3\5"), "cannot read 'guests.zip/guests/a.xml': Bad"),
        ("guests.tar", lambda data: WEB.encode(), "cannot read 'guests.tar': "),
    ],
    ids=["cut short", "another checksum", "headers", "no end", "no directory", "member", "no archive"],
)
def test_a_damaged_archive_is_not_taken_for_a_whole_one(
    guests: Path, name: str, spoil: Callable[[bytes], bytes], says: str
) -> None:
    (guests / "bad.xml").unlink()
    (_zip if name.endswith("zip") else _tar("w:gz" if name.endswith("gz") else "w"))(name)
    Path(name).write_bytes(spoil(Path(name).read_bytes()))
    done = translator("validate", name)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


def test_what_is_in_an_archive_is_bounded_and_no_link(guests: Path) -> None:
    (guests / "bad.xml").write_bytes(b"<domain>" + bytes(2**24))
    (guests / "warned.xml").unlink()
    (guests / "link.xml").symlink_to("/etc/passwd")
    _tar("w:gz")("guests.tar.gz")
    done = translator("validate", "guests.tar.gz")
    assert done.stderr.splitlines()[0].startswith("guests.tar.gz/guests/bad.xml:1:1: error[T103]")
    link = "cannot read 'guests.tar.gz/guests/link.xml': it is a link in an archive, or no file at all"
    assert f"guests.tar.gz/guests/link.xml: error[T107]: {link}" in done.stderr.splitlines()
    assert done.exit_code == 3


def test_a_folder_that_cannot_be_looked_into_is_told_of(guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if path == "guests/more":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    done = translator("validate", guests)
    assert "guests/more: error[T107]: cannot read 'guests/more': Permission denied" in done.stderr
    assert (done.exit_code, "warning[T318]" in done.stderr) == (3, True)  # those behind it are read
    assert said(translator("diff", guests, guests))[::2] == ("", 2)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("s4://bucket/a.xml", "cannot read 's4://bucket/a.xml': Protocol not known: s4"),
        ("file:///no/such", "there is no *.xml below the folder 'file:///no/such'"),
        ("/no/such.tar.gz", "cannot read '/no/such.tar.gz': No such file or directory"),
    ],
)
def test_a_place_that_is_not_there(name: str, says: str) -> None:
    done = translator("validate", name)
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr


def test_without_the_extra_it_is_said_what_to_install(guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("fsspec", "fsspec.core", "distributed"):
        monkeypatch.setitem(sys.modules, module, None)
    done = translator("validate", "file:///a.xml")
    assert (done.exit_code, "pip install 'translator[fleet]'" in done.stderr) == (2, True)
    done = translator("validate", "--scheduler", "tcp://localhost:8786", guests)
    assert (done.exit_code, "pip install 'translator[fleet]'" in done.stderr) == (2, True)


# Without those that are settled


def settle(*words: object) -> tuple[set[str], str, int]:
    """Plan with STATE; return the domains that are printed, the last line, and the exit code."""
    done = translator("plan", "--format", "json", "--since", "state", *(words or ["guests"]))
    return _names(done.stdout), done.stderr.splitlines()[-1], done.exit_code


WHOLE = ({"a", "b", "guest"}, "unchanged since the last run: 0 of 4", 3)
LITTLE = ({"guest"}, "unchanged since the last run: 2 of 4", 3)


@pytest.fixture
def settled(guests: Path) -> dict[str, Any]:
    """Return STATE after a first run."""
    assert settle() == WHOLE
    state: dict[str, Any] = json.loads(Path("state").read_text())
    assert set(state["settled"]) == {"guests/a.xml", "guests/more/b.xml"}
    return state


def test_what_is_settled_is_passed_over_and_all_else_told_again(settled: dict[str, Any]) -> None:
    assert settle() == LITTLE
    Path("guests/a.xml").touch()
    assert settle() == LITTLE
    Path("guests/a.xml").write_text(named(WEB, "changed"))
    assert settle() == ({"changed", "guest"}, "unchanged since the last run: 1 of 4", 3)
    Path("guests/a.xml").write_text(named(WEB, "a"))
    assert settle()[0] == {"a", "guest"}  # what it was before the last run is no matter
    Path("guests/more/b.xml").rename("guests/more/c.xml")
    assert settle()[0] == {"b", "guest"}
    assert set(json.loads(Path("state").read_text())["settled"]) == {"guests/a.xml", "guests/more/c.xml"}
    Path("guests/bad.xml").write_text(named(WEB, "good"))
    assert settle()[::2] == ({"good", "guest"}, 0)


@pytest.mark.parametrize("words", [("--coldplug", "all"), ("--max-size", "64K"), ("--domid", "7")], ids=str)
def test_other_options_settle_anew(settled: dict[str, Any], words: tuple[str, ...]) -> None:
    assert settle(*words, "guests") == WHOLE


def test_another_translator_settles_anew(settled: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(since, "build", lambda: "1.0+other")
    assert settle() == WHOLE


def _edited(edit: Callable[[dict[str, str]], object]) -> Callable[[dict[str, Any]], bytes]:
    def change(state: dict[str, Any]) -> bytes:
        edit(state["settled"])
        return json.dumps(state, separators=(",", ":")).encode()

    return change


SPOILT: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "empty": lambda state: b"",
    "cut short": lambda state: json.dumps(state, separators=(",", ":")).encode()[:-10],
    "no digest": _edited(lambda settled: settled.update({"guests/bad.xml": "x"})),
    "of another type": _edited(lambda settled: settled.update({"guests/bad.xml": []})),  # type: ignore[dict-item]
    "digests of others": _edited(lambda settled: settled.update({"guests/bad.xml": settled["guests/a.xml"]})),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_damaged_state_makes_work_and_is_never_wrong(
    settled: dict[str, Any], spoil: Callable[[dict[str, Any]], bytes]
) -> None:
    Path("state").write_bytes(spoil(settled))
    done = translator("validate", "--since", "state", "guests")
    assert (done.exit_code, done.stderr.count("error[T301]"), done.stderr.count("warning[T318]")) == (3, 1, 1)
    assert ("warning[T391]: 'state' is damaged" in done.stderr) == (spoil is not SPOILT["digests of others"])
    assert len(json.loads(Path("state").read_text())["settled"]) == 2


def _replaced_by(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def replace(state: Path) -> None:
        state.unlink()
        make(state)

    return replace


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda state: shutil.copy("guests/a.xml", state), "'state' is not what --since has written, and is left"),
        (lambda state: state.chmod(0o664), "somebody else may write it"),
        (_replaced_by(os.mkfifo), "it is no regular file"),
        (_replaced_by(lambda state: state.symlink_to("/dev/zero")), "it is no regular file"),
    ],
    ids=["a document", "anybody's", "a pipe", "a device"],
)
def test_a_file_that_is_no_state_is_left_alone(
    settled: dict[str, Any], prepare: Callable[[Path], object], says: str
) -> None:
    prepare(Path("state"))
    before = os.lstat("state")
    done = translator("validate", "--since", "state", "guests")
    assert (done.exit_code, says in done.stderr) == (2, True), done.stderr
    assert (os.lstat("state").st_mtime_ns, os.lstat("state").st_ino) == (before.st_mtime_ns, before.st_ino)


def test_a_state_that_cannot_be_written_is_told_of(guests: Path) -> None:
    done = translator("validate", "--since", "none/state", guests / "a.xml")
    assert (done.exit_code, "error[T392]: cannot write 'none/state'" in done.stderr) == (2, True)


def test_a_plan_that_nobody_has_got_is_not_settled(guests: Path) -> None:
    """A file of results is whole or not there: of a run that fails, nothing has been delivered."""
    (guests / "bad.xml").unlink()
    words = ("plan", "--format", "qemu-args", "--since", "state", "--output", "out")
    several = (FIXTURES / "plans/device-models-per-controller/domain.xml").read_text()
    (guests / "z.xml").write_text(several)  # whose words are meant has to be said
    assert translator(*words, guests).exit_code == 2
    assert not Path("state").exists()
    (guests / "z.xml").unlink()
    assert translator(*words, guests).stderr.endswith("unchanged since the last run: 0 of 3\n")


def test_pairs_that_are_the_same_are_passed_over(guests: Path) -> None:
    shutil.copytree(guests, "others")
    Path("others/a.xml").write_text(named(WEB, "a").replace("qusb2", "xenusb2"))
    Path("others/more/b.xml").write_text(named(WEB, "b").replace("<devices>", "<devices> "))
    whole = translator("diff", "guests", "others")
    first, second = (translator("diff", "--since", "state", "guests", "others") for _ in range(2))
    assert first.stdout == second.stdout == whole.stdout
    assert first.exit_code == second.exit_code == whole.exit_code == 3
    assert second.stderr.removeprefix(whole.stderr) == "unchanged since the last run: 1 of 4\n"
    Path("others/more/b.xml").unlink()
    assert "more/b.xml: removed" in translator("diff", "--since", "state", "guests", "others").stdout


def test_state_is_written_now_and_then(guests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed, with no time for anything, is not for nothing."""
    monkeypatch.setattr(since, "_EVERY_S", 0.0)
    seen = []
    keep = since.Since.keep

    def spy(self: since.Since, *, complete: bool) -> None:
        keep(self, complete=complete)
        seen.append((complete, len(json.loads(Path("state").read_text())["settled"])))

    monkeypatch.setattr(since.Since, "keep", spy)
    translator("validate", "--since", "state", guests)
    assert seen == [(False, 1), (False, 1), (False, 2), (False, 2), (True, 2)]
