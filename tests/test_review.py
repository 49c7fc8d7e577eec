"""What `diff` tells of two files, folders, revisions, or of a host; in every form, whatever things are called."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from lxml import etree

import translator
from tests.conftest import FIXTURES, PROJECT, cases
from translator.cli import pairs
from translator.cli.report import Report
from translator.comparison import review
from translator.comparison.review import Compared, Review
from translator.hosts.qmp import Qmp
from translator.hosts.sandbox import Sandbox
from translator.hosts.xenstore import Xenstore
from translator.planning.plan import XenstoreOp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DIFFS = cases("diffs")
EVERYTHING = FIXTURES / "diffs/everything-at-once"
SCHEMA = jsonschema.Draft202012Validator(json.loads((PROJECT / "schemas/diff.schema.json").read_text()))


def diff(*words: object, cwd: Path = PROJECT, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "translator", "diff", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(PROJECT)} | environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def compared(case: Path, path: str = "guest.xml") -> Compared:
    old, new = (translator.plan(translator.load(case / name)) for name in ("before.xml", "after.xml"))
    return Compared(path=path, status="changed", old=old, new=new, delta=translator.diff(old, new))


def told(form: str, *files: Compared, single: bool = False) -> str:
    return "".join(review.FORMS[form](Review(files=files, single=single)))


# Forms


@pytest.mark.parametrize("case", DIFFS, ids=lambda case: case.name)
def test_golden_diff(case: Path, check_golden: Callable[[Path, str], None]) -> None:
    one = compared(case)
    check_golden(case / "diff.txt", told("text", one, single=True))
    check_golden(case / "diff.json", one.delta.to_json())
    assert told("json", one, single=True) == one.delta.to_json()
    SCHEMA.validate(json.loads(one.delta.to_json()))


@pytest.mark.parametrize("form", ["markdown", "junit", "sarif"])
def test_golden_form(form: str, check_golden: Callable[[Path, str], None]) -> None:
    version = f'"{translator_version()}"'
    check_golden(EVERYTHING / f"diff.{form}.txt", told(form, compared(EVERYTHING)).replace(version, '"VERSION"'))


def translator_version() -> str:
    from importlib.metadata import version

    return version("translator")


def test_json_of_several_files_is_one_document() -> None:
    files = [compared(case, case.name) for case in DIFFS]
    files += [Compared(path="same.xml", status="same"), Compared(path="new.xml", status="added", new=files[0].new)]
    files.append(Compared(path="bad.xml", status="refused"))
    text = told("json", *files)
    whole = json.loads(text)
    SCHEMA.validate(whole)
    assert text == json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    assert {one["file"] for one in whole["changes"]} == {case.name for case in DIFFS}
    counts = {name: count for name, count in whole["summary"]["files"].items() if count}
    assert counts == {"same": 1, "changed": len(DIFFS), "added": 1, "refused": 1}
    assert [one["path"] for one in whole["files"]] == [one.path for one in files if one.status != "same"]
    counted = sum(whole["summary"][name] for name in ("add", "remove", "change", "move"))
    assert counted == len(whole["changes"])


def test_sarif_is_what_its_schema_wants(sarif_schema: jsonschema.protocols.Validator) -> None:
    log = json.loads(told("sarif", compared(EVERYTHING), Compared(path="new.xml", status="added")))
    sarif_schema.validate(log)
    levels = {one["ruleId"]: one["level"] for one in log["runs"][0]["results"]}
    assert levels == {"T370": "warning", "T371": "note", "T372": "warning"}


def test_a_comment_stays_within_what_a_merge_request_takes() -> None:
    text = told("markdown", *(compared(EVERYTHING, f"{number}.xml") for number in range(200)))
    assert len(text) < 65_000
    assert "more files, left out here for its length." in text
    assert text.startswith(f"{review.MARKER}\n**USB hardware:** 200 to add, 200 to remove,")


HOSTILE = '</td></tr></table><script>alert("1")</script>|`[x](javascript:y)`@all\\&amp;\x1b[31m\u202e\n# y'


def hostile() -> Compared:
    """Return a comparison of plan files: those can hold what no document may say."""
    text = (EVERYTHING / "diff.json").read_text()
    assert "nec-xhci" in text
    case = compared(EVERYTHING)
    assert case.old is not None
    assert case.new is not None
    wire = json.loads(case.new.to_json())
    wire["domain"]["name"] = wire["domain"]["machine"] = HOSTILE
    wire["device_models"][0]["emulator"] = HOSTILE
    for device in wire["devices"]:
        device["id"] = HOSTILE
    new = translator.Plan.from_json(json.dumps(wire))
    return Compared(path=HOSTILE, status="changed", old=case.old, new=new, delta=translator.diff(case.old, new))


@pytest.mark.parametrize("form", sorted(review.FORMS))
def test_a_name_is_never_more_than_a_text(form: str) -> None:
    text = told(form, hostile())
    assert "\x1b" not in text
    if form in ("text", "markdown", "html"):  # which people read
        assert "\u202e" not in text
        assert text.count("\n") == told(form, compared(EVERYTHING)).count("\n") + (2 if form == "text" else 0)
    if form == "junit":
        assert {one.tag for one in etree.fromstring(text.encode()).iter()} == {"testsuite", "testcase", "failure"}
    if form in ("json", "sarif"):
        assert json.loads(text)
    if form == "markdown":
        for line in text.splitlines():
            outside = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", line)
            assert re.fullmatch(r"(<!--|-->|<br>|[\w |*:;,.→#-])*", outside), outside


# Files and folders


def test_exit_codes(tmp_path: Path) -> None:
    before, after = EVERYTHING / "before.xml", EVERYTHING / "after.xml"
    backend = FIXTURES / "diffs/another-implementation-is-the-hosts-affair"
    bad = FIXTURES / "errors/unknown-model/domain.xml"
    (tmp_path / "empty").mkdir()
    for words, code, says in (
        ([before, before], 0, ""),
        ([before, after], 1, ""),
        (["--guest-visible-only", before, after], 1, ""),
        (["--guest-visible-only", backend / "before.xml", backend / "after.xml"], 0, ""),
        ([before, bad], 3, "error[T301]"),
        ([bad, bad], 3, "error[T301]"),
        ([before], 2, "diff compares OLD with NEW, and 1 are named"),
        ([before, tmp_path], 2, "a folder can be compared with a folder only"),
        ([before, tmp_path / "none.xml"], 2, "No such file"),
        (["-", "-"], 2, "standard input can be one of the two"),
        ([tmp_path / "empty", EVERYTHING], 2, "there is no *.xml below the folder"),
        (["--live", before, after], 2, "--live compares one FILE with a host"),
        (["--live", before, "--domid", "7", "--xenstore", "/no/socket"], 4, "error[T4"),
    ):
        done = diff(*words)
        assert (done.returncode, says in done.stderr) == (code, True), (words, done.stderr)


def test_what_is_not_there_twice_is_planned_once(tmp_path: Path) -> None:
    plan = tmp_path / "guest.plan.json"
    plan.write_text(translator.plan(translator.load(EVERYTHING / "before.xml"), domid=7).to_json())
    assert diff(plan, EVERYTHING / "before.xml").stdout == "no difference\n"
    assert diff(plan, EVERYTHING / "after.xml").stdout == (EVERYTHING / "diff.txt").read_text()


UUID = re.compile("<uuid>.*</uuid>")
OWN, OTHER = (f"<uuid>7ad38f4d-0000-4000-8000-{number:012}</uuid>" for number in (1, 2))


def test_folders_are_matched_by_path(tmp_path: Path) -> None:
    before, after = ((EVERYTHING / name).read_text() for name in ("before.xml", "after.xml"))
    for name, text in {
        "old/a/same.xml": before,
        "old/a/gone.xml": UUID.sub(OTHER, before),
        "old/other.xml": before,
        "old/plan.plan.json": translator.plan(translator.load(before.encode())).to_json(),
        "new/a/same.xml": before.replace("<devices>", "<devices> <!-- the same -->"),
        "old/before.xml": UUID.sub(OWN, before),
        "new/after.xml": UUID.sub(OWN, before),
        "new/new.xml": after,
        "new/other.xml": after,
        "new/plan.xml": before,
        "new/bad.xml": "<domain",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = diff("old", "new", "--format", "json", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("new/bad.xml:1:")
    whole = json.loads(done.stdout)
    assert {one["path"]: one["status"] for one in whole["files"]} == {
        "a/gone.xml": "removed",
        "after.xml": "renamed",
        "bad.xml": "refused",
        "new.xml": "added",
        "other.xml": "changed",
    }
    assert {one["file"] for one in whole["changes"]} == {"other.xml"}
    assert whole["summary"]["files"]["same"] == 2
    (tmp_path / "new/bad.xml").unlink()
    done = diff("old", "new", "--color", "never", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-2] == "6 files: 2 the same, 1 changed, 1 renamed, 1 added, 1 removed"
    assert "after.xml: renamed from before.xml" in done.stdout.splitlines()


# Revisions


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository of two commits that does whatever it can to have something of its own executed."""
    tripwire = tmp_path / "executed"
    folder = tmp_path / "repository"

    def git(*words: str) -> str:
        identity = {
            f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        done = subprocess.run(
            ["git", *words], cwd=folder, env=os.environ | identity | quiet, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    folder.mkdir()
    git("init", "-b", "main")
    before = (EVERYTHING / "before.xml").read_text()
    (folder / "guests").mkdir()
    (folder / "guests/web.xml").write_text(before)
    (folder / "guests/old.xml").write_text(before)
    (folder / "guests/same.xml").write_text(before)
    (folder / "guests/link.xml").symlink_to("/etc/passwd")
    (folder / "notes.txt").write_text("x")
    git("add", "-A")
    git("commit", "-m", "one")
    git("tag", "base")
    (folder / "guests/web.xml").write_text((EVERYTHING / "after.xml").read_text())
    (folder / "guests/old.xml").rename(folder / "guests/new.xml")
    (folder / "notes.txt").write_text("y")
    git("add", "-A")
    git("commit", "-m", "two")
    git("branch", "alone", git("commit-tree", "HEAD^{tree}", "-m", "no parent"))
    trap = folder / "trap"
    trap.write_text(f"#!/bin/sh\ntouch '{tripwire}'\ncat\n")
    trap.chmod(0o755)
    for name in (
        "core.fsmonitor",
        "diff.trap.textconv",
        "diff.trap.command",
        "filter.trap.smudge",
        "diff.external",
        "core.pager",
    ):
        git("config", name, str(trap))
    (folder / ".git/info/attributes").write_text("*.xml diff=trap filter=trap\n")
    for hook in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman"):
        (folder / ".git/hooks" / hook).write_text(trap.read_text())
        (folder / ".git/hooks" / hook).chmod(0o755)
    (folder / "guests/web.xml").write_text("what is in the work tree does not matter")
    tripwire.unlink(missing_ok=True)
    return folder


def test_of_an_object_that_is_too_large_no_more_is_held_than_shows_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "guests/huge.xml").write_bytes(b"<domain>" + bytes(2**25))
    quiet = ("git", "-c", "core.hooksPath=/dev/null", "-c", "user.name=a", "-c", "user.email=a@example.org")
    for words in (("add", "guests/huge.xml"), ("commit", "-m", "three")):
        subprocess.run([*quiet, *words], cwd=repository, check=True, capture_output=True)
    monkeypatch.chdir(repository)
    tracemalloc.start()
    try:
        found = [*pairs.of_revisions("base..HEAD", ("guests",), Report(False, "text", "never"), 1000)]
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sizes = {one.path: len(one.new.read(0)) for one in found if one.new is not None}
    assert sizes.pop("guests/huge.xml") == 1001
    assert set(sizes) == {"guests/new.xml", "guests/web.xml"}  # read whole behind it
    assert all(size < 1000 for size in sizes.values())
    assert held < 2**20


def test_two_revisions_are_read_from_objects_and_nothing_is_executed(repository: Path) -> None:
    done = diff("--git", "base..HEAD", "--format", "json", "--", "guests", cwd=repository)
    assert (done.returncode, done.stderr) == (1, "")
    whole = json.loads(done.stdout)
    SCHEMA.validate(whole)
    assert {one["path"]: (one["status"], one.get("was")) for one in whole["files"]} == {
        "guests/new.xml": ("renamed", "guests/old.xml"),
        "guests/web.xml": ("changed", None),
    }
    assert whole["summary"]["files"]["same"] == 1
    golden = json.loads((EVERYTHING / "diff.json").read_text())
    assert [one | {"file": None} for one in whole["changes"]] == [one | {"file": None} for one in golden["changes"]]
    assert not (repository.parent / "executed").exists()


BAD = "<domain type='xen'><name>bad</name><devices><controller type='usb' model='nonsense'/></devices></domain>"


class Folders:
    """Two folders, and what is told of going from one to the other."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, side: str, **files: str) -> None:
        for name, text in files.items():
            (self.root / side).mkdir(exist_ok=True)
            (self.root / side / f"{name}.xml").write_text(text)

    def diff(self, form: str, *options: str) -> tuple[int, str, str]:
        done = diff("old", "new", "--format", form, *options, cwd=self.root)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    found = Folders(tmp_path)
    before = (EVERYTHING / "before.xml").read_text()
    found.put("old", same=before)
    found.put("new", same=before)
    return found


def test_a_refused_document_fails_in_every_form(folders: Folders) -> None:
    """A report that shows nothing of it would be green."""
    folders.put("old", web=(EVERYTHING / "before.xml").read_text())
    folders.put("new", web=BAD)
    code, text, _ = folders.diff("junit")
    suite = etree.fromstring(text.encode())
    assert (code, suite.get("failures")) == (3, "1")
    assert [(case.get("name"), [one.get("type") for one in case]) for case in suite] == [
        ("same.xml", []),
        ("web.xml", ["T301"]),
    ]
    code, text, _ = folders.diff("sarif")
    (run,) = json.loads(text)["runs"]
    assert (code, run["invocations"][0]["exitCode"]) == (3, 3)
    assert [(one["ruleId"], one["level"]) for one in run["results"]] == [("T301", "error")]
    assert "**USB hardware:** Documents: 1 refused\n" in folders.diff("markdown")[1]
    assert "Documents: 1 refused</p>" in folders.diff("html")[1]
    for form, says in (("junit", 'failures="1"'), ("sarif", '"exitCode": 3')):
        done = diff("old/web.xml", "new/web.xml", "--format", form, cwd=folders.root)
        assert (done.returncode, says in done.stdout) == (3, True)
    (folders.root / "new/web.xml").unlink()
    (folders.root / "new/web.xml").symlink_to("nowhere")
    code, text, _ = folders.diff("junit")
    assert (code, 'type="T107"' in text) == (2, True)


def test_a_document_that_comes_goes_or_moves_is_no_running_guests_notice(folders: Folders) -> None:
    before = (EVERYTHING / "before.xml").read_text()
    folders.put("old", gone=UUID.sub(OWN, before), here=UUID.sub(OTHER, before))
    folders.put("new", come=before, there=UUID.sub(OTHER, before))
    told = "Documents: 1 renamed, 1 added, 1 removed"
    for options, code in (((), 1), (("--guest-visible-only",), 0)):
        found = folders.diff("markdown", *options)
        assert (found[0], told in found[1]) == (code, True)
        assert "`there.xml`: renamed from `here.xml`\n" in found[1]
        found = folders.diff("junit", *options)
        assert (found[0], f'failures="{3 * code}"' in found[1]) == (code, True)
        found = folders.diff("sarif", *options)
        assert f'"exitCode": {code}' in found[1]
        assert [one["message"]["text"] for one in json.loads(found[1])["runs"][0]["results"]] == [
            "this domain was added",
            "this domain was removed",
            "this domain was renamed from here.xml",
        ]
    folders.put("new", there=UUID.sub(OTHER, (EVERYTHING / "after.xml").read_text()))
    code, text, _ = folders.diff("text", "--guest-visible-only")
    assert (code, "there.xml: renamed from here.xml, changed\n" in text) == (1, True)


def test_of_copies_none_is_taken_for_the_one_that_was_renamed(folders: Folders) -> None:
    text = UUID.sub(OWN, (EVERYTHING / "before.xml").read_text())
    folders.put("old", one=text)
    folders.put("new", two=text, three=text)
    assert folders.diff("text")[1].endswith("4 files: 1 the same, 2 added, 1 removed\n")


def test_what_was_refused_and_is_not_any_more_is_repaired(repository: Path) -> None:
    quiet = ("git", "-c", "core.hooksPath=/dev/null", "-c", "user.name=a", "-c", "user.email=a@example.org")
    for text in (BAD, (EVERYTHING / "before.xml").read_text()):
        (repository / "guests/web.xml").write_text(text)
        for words in (("add", "guests/web.xml"), ("commit", "-m", "more")):
            subprocess.run([*quiet, *words], cwd=repository, check=True, capture_output=True)
    range = ("--git", "HEAD~1..HEAD", "--diagnostics", "github")
    done = diff(*range, cwd=repository)
    assert done.returncode == 3
    assert done.stderr.startswith("::error file=guests/web.xml,title=T301%3A ")
    done = diff(*range, "--old-may-be-refused", cwd=repository)
    assert (done.returncode, done.stdout) == (1, "guests/web.xml: repaired\n3 files: 2 the same, 1 repaired\n")
    assert done.stderr.startswith("::notice file=guests/web.xml,title=T301%3A ")
    assert re.search(r"\(on the old side: line 1 of \w{12}:guests/web.xml\)", done.stderr)
    for options in ((), ("--strict",)):
        assert diff(*range, "--old-may-be-refused", "--guest-visible-only", *options, cwd=repository).returncode == 0
    done = diff(*range, "--old-may-be-refused", "--format", "sarif", cwd=repository)
    found = json.loads(done.stdout)["runs"][0]
    assert [(one["ruleId"], one["level"]) for one in found["results"]] == [("T301", "note"), ("T372", "warning")]
    assert found["invocations"][0]["exitCode"] == 1
    back = diff("--git", "HEAD..HEAD~1", "--old-may-be-refused", cwd=repository)
    assert back.returncode == 3  # only the old one may be


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["base..HEAD"], 1, ""),
        (["base...main", "--", "guests/web.xml"], 1, ""),
        (["HEAD..", "--", "guests"], 0, ""),
        (["HEAD..HEAD", "--", "no/such/folder"], 2, "neither revision has a document at 'no/such/folder'"),
        (["base..HEAD", "--", "./guests/", "guests/old.xml"], 1, ""),
        (
            ["nowhere..HEAD"],
            2,
            "cannot compare 'nowhere..HEAD': the old side, 'nowhere', is no revision that is known",
        ),
        (["HEAD...nowhere"], 2, "the new side, 'nowhere', is no revision that is known here\n  help: fetch it"),
        (["base...alone"], 2, "'base' and 'alone' have no commit in common here\n  help: fetch it"),
        (["--output=x..HEAD"], 2, "error[T130]"),
        (["HEAD"], 2, "it is not of the form BASE..HEAD"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_revisions(repository: Path, words: list[str], code: int, says: str) -> None:
    done = diff(f"--git={words[0]}", *words[1:], cwd=repository)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert not (repository / "x").exists()


def test_outside_a_repository(tmp_path: Path) -> None:
    done = diff("--git", "a..b", cwd=tmp_path, GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
    assert done.returncode == 2
    assert "error[T130]: cannot compare 'a..b': not a git repository" in done.stderr
    assert "help: go into the repository" in done.stderr


# A host


@pytest.mark.parametrize(
    "case", ["demo/web", "demo/desk", "plans/xen-pv-xenusb2", "diffs/a-device-that-went-elsewhere-has-moved"]
)
def test_a_host_that_matches_has_not_drifted(case: str) -> None:
    name = "before.xml" if case.startswith("diffs") else "domain.xml"

    async def run() -> None:
        domain = translator.load(FIXTURES / case / name)
        async with Sandbox() as sandbox:
            guest = sandbox.make_host_for(translator.plan(domain))
            xen = domain.hypervisor == "xen"
            domid = guest.domid if xen else None
            plan = translator.plan(domain, domid=domid)
            async with translator.Host(
                xenstore=sandbox.xenstore_socket, qmp=guest.qmp_socket, sysfs=sandbox.sysfs
            ) as host:
                empty = translator.Plan(topology=await host.observe(domid=domid), steps=())
                missing = translator.diff(empty, plan)
                brought = (one for one in plan.topology.controllers if not one.built_in)
                parts = [*brought, *plan.topology.devices]
                assert missing.summary.add == len(parts) - len(empty.topology.controllers)
                await host.apply(plan)
                seen = translator.Plan(topology=await host.observe(domid=domid), steps=())
            assert translator.diff(seen, plan).changes == ()
            assert translator.diff(plan, seen).changes == ()

    asyncio.run(run())


def test_drift_is_told(tmp_path: Path) -> None:
    text = (FIXTURES / "demo/web/domain.xml").read_text()
    other = tmp_path / "other.xml"
    other.write_text(text.replace("port='2.2'", "port='2.3'").replace("bus='0' port='1'", "bus='0' port='2'"))

    async def run() -> dict[str, Any]:
        plan = translator.plan(translator.load(text.encode()))
        async with Sandbox() as sandbox:
            guest = sandbox.make_host_for(plan)
            paths = {"xenstore": sandbox.xenstore_socket, "qmp": guest.qmp_socket, "sysfs": sandbox.sysfs}
            async with translator.Host(**paths) as host:  # type: ignore[arg-type]  # each of its own type
                await host.apply(plan.bind(domid=guest.domid))
            options = [f"--{name}={path}" for name, path in paths.items()]
            for document, code in ((FIXTURES / "demo/web/domain.xml", 0), (other, 1)):
                if document == other:  # and what neither we nor the document made
                    monitor = await Qmp.connect(str(guest.qmp_socket))
                    await monitor.execute(
                        "device_add", {"driver": "usb-wacom-tablet", "bus": "xenusb-2.0", "port": "5"}
                    )
                    await monitor.close()
                    store = await Xenstore.connect(str(sandbox.xenstore_socket))
                    await store.commit([XenstoreOp("rm", f"/libxl/{guest.domid}/device/vusb/0")])
                    await store.close()
                words = ["--live", document, "--domid", guest.domid, "--format", "json", *options]
                done = await asyncio.to_thread(diff, *words)
                assert (done.returncode, done.stderr) == (code, "")
            SCHEMA.validate(json.loads(done.stdout))
            return dict(json.loads(done.stdout))

    told = asyncio.run(run())
    assert [(one["action"], one["id"]) for one in told["changes"]] == [
        ("move", "device:usb:0:2"),
        ("move", "device:usb:2:2.3"),
        ("add", "controller:usb:0:record"),
        ("remove", "device:usb:2:5"),
    ]
