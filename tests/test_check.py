"""Committed plans, the pre-commit hooks and the CI examples: each as it would be run, on a repository of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import translator
from tests.conftest import FIXTURES, PROJECT

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = FIXTURES / "diffs/everything-at-once"
GUIDE = (PROJECT / "docs/ci.md").read_text(encoding="utf-8")
HOOKS, GITHUB, GITLAB = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL))


def plan(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "translator", "plan", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


# Committed plans


def test_a_plan_is_written_checked_and_found_out_of_date(tmp_path: Path) -> None:
    document, committed = tmp_path / "guest.xml", tmp_path / "guest.plan.json"
    before, after = ((EVERYTHING / name).read_text() for name in ("before.xml", "after.xml"))
    document.write_text(before)

    def check(*words: object) -> tuple[int, str]:
        done = plan("--check", *(words or ["."]), cwd=tmp_path)
        return done.returncode, (done.stderr + done.stdout).splitlines()[0]

    assert check() == (1, "guest.xml: error[T374]: there is no guest.plan.json beside it")
    assert plan("--update", ".", cwd=tmp_path).stdout == "plans: 1 written\n"
    assert committed.read_text() == translator.plan(translator.load(before.encode())).to_json()
    assert committed.stat().st_mode == document.stat().st_mode
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert check() == (0, "plans: 1 up to date")
    assert check("guest.plan.json", "guest.xml") == (0, "plans: 1 up to date")
    assert check("--coldplug=all", "guest.xml")[0] == 1
    document.write_text(before.replace("<devices>", "<devices>\n"))
    same = "it means the same, but lines or the words of steps are others"
    assert check() == (1, f"guest.xml: error[T373]: guest.plan.json is out of date: {same}")
    document.write_text(after)
    summary = (EVERYTHING / "diff.txt").read_text().splitlines()[-1]
    assert check() == (1, f"guest.xml: error[T373]: guest.plan.json is out of date: {summary}")
    committed.write_text("{}")
    assert check()[1].startswith("guest.xml: error[T373]: guest.plan.json: this is not a plan: ")
    assert plan("--update", "guest.xml", cwd=tmp_path).stdout == "plans: 1 written\n"
    assert check()[0] == 0
    committed.rename(tmp_path / "gone for good.plan.json")
    orphan = (1, "gone for good.plan.json: error[T373]: there is no document beside this plan")
    assert check("gone for good.plan.json") == orphan
    done = plan("--update", ".", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "plans: 1 written, 1 without a document\n")
    assert "help: remove it: git rm 'gone for good.plan.json'" in done.stderr
    assert check() == orphan
    assert (tmp_path / "gone for good.plan.json").exists()


def test_a_summary_counts_what_it_is_about(tmp_path: Path) -> None:
    before = (EVERYTHING / "before.xml").read_text()
    for name in ("fine", "missing", "out of date", "bad"):
        (tmp_path / f"{name}.xml").write_text(before)
    plan("--update", ".", cwd=tmp_path)
    (tmp_path / "missing.plan.json").unlink()
    (tmp_path / "out of date.xml").write_text((EVERYTHING / "after.xml").read_text())
    (tmp_path / "bad.xml").write_text("<domain/>")
    done = plan("--check", ".", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "plans: 1 up to date, 1 out of date, 1 missing, 1 refused\n")
    assert "help: translator plan --update 'out of date.xml'; what changed: translator diff 'out of" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
@pytest.mark.parametrize("option", ["--check", "--update"])
def test_an_interrupted_run_leaves_nothing_half_done(
    tmp_path: Path, option: str, number: signal.Signals, code: int
) -> None:
    """The signal comes while a plan is read, or written."""
    shutil.copy(EVERYTHING / "before.xml", tmp_path / "guest.xml")
    where = "committed._stale" if option == "--check" else "inputs.os.fsync"
    script = (
        "import os, sys\n"
        "from translator.cli import committed, inputs, main\n"
        f"{where} = lambda *_: os.kill(os.getpid(), {int(number)})\n"
        f"sys.argv = ['translator', 'plan', {option!r}, 'guest.xml']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    died = option == "--check" and number == signal.SIGTERM  # with nothing to put away
    assert (done.returncode, "Traceback" in done.stderr) == (-number if died else code, False), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["guest.xml"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize(
    "words", ["plan --check .", "plan guest.xml", "explain T301", "--help", "apply --sandbox guest.xml"]
)
def test_what_cannot_be_printed_is_told(tmp_path: Path, words: str) -> None:
    shutil.copy(EVERYTHING / "before.xml", tmp_path / "guest.xml")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "translator", *words.split()],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(PROJECT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    said = done.stderr.splitlines()[-1]
    assert (done.returncode, said) == (2, "Error: cannot write standard output: No space left on device")


def test_a_refused_document_leaves_its_plan_alone(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "errors/unknown-model/domain.xml", tmp_path / "bad.xml")
    shutil.copy(EVERYTHING / "before.xml", tmp_path / "good.xml")
    (tmp_path / "bad.plan.json").write_text("as it was")
    done = plan("--update", ".", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "plans: 1 written, 1 refused\n")
    assert (tmp_path / "bad.plan.json").read_text() == "as it was"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--check", "--update", "."], "--check tells what --update would write"),
        (["--check", "-"], "standard input has no place"),
        (["--check", "--output", "x", "."], "'x' would not be written"),
        (["--check", "--sysfs", "/sys", "."], "is for every host"),
        (["--check", "gone.plan.json"], "cannot read 'gone.plan.json'"),
        (["--check", "no.xml", "guests.tar.gz"], "'guests.tar.gz' is an archive: unpack it"),
        (["--update", "no.xml", "s3://bucket/guests"], "'s3://bucket/guests' is a URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(tmp_path: Path, words: list[str], says: str) -> None:
    done = plan(*words, cwd=tmp_path)
    assert (done.returncode, says in done.stderr) == (2, True), done.stderr


# Hooks and examples


class Repository:
    """A repository whose last commit changes a guest, and what a job finds in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        self.programs = folder / "bin"
        for path in (self.folder / "guests", self.programs):
            path.mkdir(parents=True)
        # what a job installs or sends is not what is tested: it is noted down
        for name in ("pip", "gh"):
            self.program(name, f'echo {name} "$@" >>"{folder}/called"\n')
        self.program("translator", f'exec "{sys.executable}" -m translator "$@"\n')
        self.called = folder / "called"
        self.git("init", "-b", "main")
        self.base = self.commit((EVERYTHING / "before.xml").read_text())

    def program(self, name: str, script: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\n{script}")
        (self.programs / name).chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        who = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "PYTHONPATH": str(PROJECT)}
        path = {"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}"}
        return os.environ | who | quiet | path | more

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=self.folder, env=self.environment(), check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, text: str) -> str:
        (self.folder / "guests/web.xml").write_text(text)
        plan("--update", "guests", cwd=self.folder)
        self.git("add", "-A")
        self.git("commit", "-m", "guests")
        return self.git("rev-parse", "HEAD")

    def run(self, script: str, **environment: str) -> tuple[int, str]:
        """Run a job's script as both services do: by bash, to the first command that fails."""
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_pre_commit(repository: Repository) -> None:
    offered = {hook["id"]: hook for hook in yaml.safe_load((PROJECT / ".pre-commit-hooks.yaml").read_text())}
    chosen: list[dict[str, Any]] = HOOKS["repos"][0]["hooks"]

    def committing(*files: str) -> dict[str, int]:
        codes = {}
        for hook in chosen:
            offer = offered[hook["id"]] | hook
            given = [file for file in files if re.search(offer["files"], file)]
            assert all(re.search(offered[hook["id"]]["files"], file) for file in given)
            if given:
                codes[hook["id"]], _ = repository.run(f"{offer['entry']} {' '.join(given)}")
        return codes

    files = ("guests/web.xml", "guests/web.plan.json", "README.xml.txt")
    assert committing(*files) == {"translator-validate": 0, "translator-plan-check": 0}
    (repository.folder / "guests/web.xml").write_text((EVERYTHING / "after.xml").read_text())
    assert committing(*files[:1]) == {"translator-validate": 0, "translator-plan-check": 1}
    assert committing("guests/web.plan.json") == {"translator-plan-check": 1}
    (repository.folder / "guests/web.xml").write_text("<domain/>")
    assert committing(*files) == {"translator-validate": 3, "translator-plan-check": 3}


def test_github_actions(repository: Repository) -> None:
    head = repository.commit((EVERYTHING / "after.xml").read_text())
    steps = {step["name"]: step for step in GITHUB["jobs"]["guests"]["steps"] if "run" in step}
    summary = repository.folder.parent / "summary"
    environment = {
        "TRANSLATOR": GITHUB["env"]["TRANSLATOR"],
        "RANGE": f"{repository.base}...{head}",
        "GITHUB_STEP_SUMMARY": str(summary),
        "NUMBER": "7",
    }
    codes = {name: repository.run(step["run"], **environment)[0] for name, step in steps.items()}
    noticed = {name for name, code in codes.items() if code}
    assert noticed == {"Guests notice nothing"}
    assert codes["Guests notice nothing"] == 1
    assert repository.called.read_text().splitlines() == [
        f"pip install {environment['TRANSLATOR']}",
        "gh pr comment 7 --body-file hardware.markdown --edit-last --create-if-none",
    ]
    assert summary.read_text() == (repository.folder / "hardware.markdown").read_text()
    assert "| **interface** |" in summary.read_text()
    assert json.loads((repository.folder / "hardware.sarif").read_text())["runs"][0]["results"]
    assert (repository.folder / "hardware.html").read_text().startswith("<!DOCTYPE html>")
    same = environment | {"RANGE": f"{head}...{head}"}
    assert repository.run(steps["Guests notice nothing"]["run"], **same)[0] == 0
    (repository.folder / "guests/web.xml").write_text("<domain")
    assert repository.run(steps["Every document is sound"]["run"], **environment)[0] == 3
    nowhere = environment | {"RANGE": f"nowhere...{head}"}
    assert repository.run(steps["Compare with the base"]["run"], **nowhere)[0] == 1  # which test's is


def test_gitlab_ci(repository: Repository) -> None:
    head = repository.commit((EVERYTHING / "after.xml").read_text())
    job = GITLAB["guests"]
    script = "\n".join([*job["before_script"], *job["script"]])
    given = {"CI_MERGE_REQUEST_DIFF_BASE_SHA": repository.base, "CI_COMMIT_SHA": head}

    def run(**given: str) -> int:
        variables = {
            name: re.sub(r"\$(\w+)", lambda match: given[match[1]], value) for name, value in job["variables"].items()
        }
        return repository.run(script, **variables)[0]

    assert run(**given) == 1
    assert json.loads((repository.folder / "codequality.json").read_text()) == []
    assert "<failure" in (repository.folder / "hardware.junit").read_text()
    assert (repository.folder / "hardware.html").exists()
    assert run(CI_MERGE_REQUEST_DIFF_BASE_SHA=head, CI_COMMIT_SHA=head) == 0
