"""The command line: what goes to which stream, and with which exit code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FIXTURES, PROJECT
from tests.test_xl import serving

WEB = str(FIXTURES / "demo/web/domain.xml")
PLAN = "fixtures/plans/none-means-none/plan.json"
BAD = str(FIXTURES / "errors/unknown-model/domain.xml")


def translator(*words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "translator", *words], input=input, capture_output=True, text=True, cwd=PROJECT
    )
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["plan", WEB], 0, ""),
        (["validate", WEB], 0, ""),
        (["validate", BAD], 3, "error[T301]: unknown USB controller model 'piix3-uhcl'"),
        (["plan", "/no/such.xml"], 2, "cannot read '/no/such.xml': No such file or directory"),
        (["plan", "tests"], 2, "there is no *.xml below the folder 'tests'"),
        (["plan", "--format", "yaml", WEB], 2, "'yaml' is not one of"),
        (["plan", "--domid", "0", WEB], 2, "--domid"),
        (["plan", "--check", "--jobs", "2", WEB], 2, "--check and --update look at all plans"),
        (["plan", "--sysfs", "/sys", "--since", "state", WEB], 2, "--sysfs and --probe ask this host"),
        (["diff", "--live", "--jobs", "2", WEB], 2, "--live asks a host"),
        (["normalize", WEB], 0, ""),
        (["normalize", BAD], 3, "error[T301]: unknown USB controller model 'piix3-uhcl'"),
        (["normalize", "fixtures/plans"], 2, "normalize takes one document"),
        (["normalize", PLAN], 2, f"normalize takes a document, and '{PLAN}' is a plan"),
        (["convert", PLAN, "--to", "xl"], 2, "is a plan"),
        (["convert", PLAN, "--to", "xml"], 2, "is a plan"),
        (["attach", "desk", PLAN], 2, "attach takes a document"),
        (["hook", "desk", "prepare"], 3, "error[T101]: the document is empty"),
        (["apply", WEB, "--sandbox", "--qmp", "x"], 2, "--sandbox brings its own host, so --qmp means nothing"),
        (["apply", WEB, "--sandbox", "--lock-timeout", "1"], 2, "so --lock-timeout means nothing"),
        (["diff", WEB, WEB, "--qmp", "x"], 2, "no host is asked but with --live, so --qmp means nothing"),
        (["observe", "web"], 2, "extra argument (web); a domain is named by --name NAME or --domid N or --qmp PATH"),
        (["sandbox", "--device", "046d:"], 2, "Invalid value for '--device'"),
        (["apply", "fixtures/plans"], 2, "apply takes one document"),
        (["apply", "/no/such.xml"], 2, "cannot read '/no/such.xml'"),
        (["apply", PLAN, "--domid", "0"], 2, "--domid"),
        (["apply", "fixtures/demo/desk/domain.xml", "--domid", "7", "--name", "desk"], 2, "take one of them"),
        (["diff", "--live", WEB, "--domid", "7", "--name", "desk"], 2, "take one of them"),
        (["observe"], 2, "say which domain"),
        (["follow", "desk", "tablet"], 2, "'tablet' is no device of the host"),
        (["follow", "/no/such.xml"], 2, "error[T107]"),
        (["follow", "guest.cfg"], 2, "error[T107]: cannot read 'guest.cfg'"),
        (["attach", "desk", "/no/such.xml"], 2, "error[T107]"),
        (["explain", "T301"], 0, ""),
        (["sandbox", "--directory", "/no/such"], 2, "there is no directory '/no/such'"),
        (["explain", "T999"], 2, "there is no code 'T999'"),
        (["models", "piix5"], 2, "unknown model 'piix5'"),
        (["models", "--family", "nvme"], 2, "'nvme' is not one of"),
        (["models", "--type", "pv", "--family", "ccid"], 2, "there is none of them"),
        (["apply", WEB], 4, "error[T403]: it is not said which running domain is meant"),
        (["apply", WEB, "--domid", "7", "--xenstore", "/no/socket"], 4, "error[T4"),
        (["validate", "--strict", "fixtures/plans/kvm-full-speed-hub-on-ehci-warns"], 3, "error[T318]"),
        (["validate", "fixtures/plans/kvm-full-speed-hub-on-ehci-warns"], 0, "warning[T318]"),
    ],
    ids=lambda value: " ".join(value).replace(str(FIXTURES), "") if isinstance(value, list) else "",
)
def test_exit_codes(words: list[str], code: int, says: str) -> None:
    done = translator(*words)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize("words", [("/no/such.xml", WEB), (WEB, BAD), ("docs", "fixtures/demo"), ("--live", BAD)])
@pytest.mark.parametrize("form", ["text", "json"])
def test_what_could_not_be_compared_is_not_said_to_be_the_same(words: tuple[str, ...], form: str) -> None:
    done = translator("diff", "--format", form, *words)
    assert done.returncode in (2, 3)
    assert done.stdout == ""


def test_a_line_that_a_plan_names_is_its_documents(tmp_path: Path) -> None:
    document = "fixtures/plans/kvm-full-speed-hub-on-ehci-warns/domain.xml"
    plan = str(tmp_path / "guest.plan.json")
    translator("plan", "--format", "json", "--output", plan, document)
    at = re.match(rf"{document}:(\d+):\d+: (warning.*)", translator("validate", document).stderr)
    assert at is not None
    assert translator("validate", plan).stderr.startswith(f"{plan}: {at[2]} (line {at[1]} of its document)\n")


def test_a_fault_of_a_setting_that_is_asked_for_often_is_told_once() -> None:
    done = translator("validate", "-", input="name = 'a'\nusb = 'yes'\n")
    assert done.stderr.count("error[T118]: usb is 'yes', which is not a number") == 1


def test_warnings_are_told_once(tmp_path: Path) -> None:
    """A domain named by --name is planned twice: before it is looked for, and with its id."""
    (tmp_path / "guest.cfg").write_text("name = 'hvm'\ntype = 'hvm'\nusbb = 1\n")
    with serving(tmp_path) as host:
        words = ("--name", "hvm", "--xenstore", host.xenstore, "--qmp", host.qmp, "--dry-run")
        done = translator("apply", str(tmp_path / "guest.cfg"), *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning[T121]") == 1


def test_an_input_that_cannot_be_read_is_told_of_once() -> None:
    assert translator("apply", "/no/such.xml").stderr.count("\n") == 1


def test_a_bad_document_does_not_stop_the_others() -> None:
    done = translator("plan", "--format", "json", BAD, WEB)
    assert done.returncode == 3
    assert json.loads(done.stdout)["domain"]["name"] == "web"
    assert done.stderr.startswith(f"{BAD}:5:38: error[T301]:")


def test_a_missing_file_does_not_stop_the_others() -> None:
    done = translator("plan", "--format", "json", "/no/such.xml", WEB)
    assert done.returncode == 2
    assert json.loads(done.stdout)["domain"]["name"] == "web"


def test_standard_input() -> None:
    done = translator("plan", "--format", "json", "-", input=(FIXTURES / "demo/web/domain.xml").read_text())
    assert json.loads(done.stdout)["domain"]["name"] == "web"


def test_diagnostics_as_json() -> None:
    done = translator("validate", "--diagnostics", "json", BAD)
    assert json.loads(done.stderr) == {
        "code": "T301",
        "severity": "error",
        "message": "unknown USB controller model 'piix3-uhcl'",
        "help": "did you mean 'piix3-uhci'?",
        "file": BAD,
        "line": 5,
        "column": 38,
        "element": "/domain/devices/controller[1]/@model",
    }


def test_output_goes_to_a_file(tmp_path: Path) -> None:
    done = translator("plan", "--format", "json", "--output", str(tmp_path / "plan.json"), WEB)
    assert done.stdout == ""
    assert json.loads((tmp_path / "plan.json").read_text())["format"] == "translator-plan/1"


def test_a_plan_can_be_planned_again(tmp_path: Path) -> None:
    """A plan file is as good as the document that it was made from."""
    translator("plan", "--format", "json", "--output", str(tmp_path / "plan.json"), WEB)
    assert translator("plan", str(tmp_path / "plan.json")).stdout == translator("plan", WEB).stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [(("plan",), 0), (("validate",), 0), (("apply", "--sandbox"), 0), (("apply", "--sandbox", "--dry-run"), 0)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_hostile_plan_says_does_not_reach_the_terminal(
    words: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    wire = json.loads((FIXTURES / "plans/xen-hvm-piix3-uhci/plan.json").read_text())
    hostile = "a\x1b]0;b\x07\x9bc\u202e\nd"
    wire["domain"]["name"] = hostile
    wire["steps"] = [step | {"why": hostile} for step in wire["steps"]]
    told = {"code": "T331", "severity": "warning", "message": hostile, "help": hostile}
    wire["diagnostics"] = [told | {"line": 1, "column": 1, "element": None}]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(wire))
    done = translator(*words, str(plan))
    assert done.returncode == code, done.stderr
    assert "\\u001b" in done.stdout + done.stderr
    assert re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]|^d", done.stdout + done.stderr, re.MULTILINE) is None


@pytest.mark.parametrize("choice", ["always", "never"])
def test_colour_is_for_findings_only(choice: str) -> None:
    done = translator("validate", "--color", choice, BAD)
    assert ("\x1b[" in done.stderr) == (choice == "always")
    assert "\x1b[" not in done.stdout


def test_models_prints_the_table() -> None:
    assert "piix3-uhci" in translator("models").stdout
    assert translator("models", "pvusb-v2").stdout.startswith("xenusb2: usb controller\n")
    reverse = translator("models", "--type", "emulated", "--version", "2").stdout.splitlines()
    assert [line.split()[1] for line in reverse] == ["MODEL", "ehci", "ich9-ehci1"]
    scsi = translator("models", "--family", "scsi").stdout.splitlines()
    assert {line.split()[0] for line in scsi if line} == {"FAMILY", "scsi"}
    assert "scsi-generic" in scsi[-1]
    both = translator("models", "virtio-transitional").stdout  # a model of two families
    assert both.startswith("virtio-transitional: scsi controller\n")
    assert "\nvirtio-transitional: virtio-serial controller\n" in both


def test_sandbox_apply_shows_what_it_made() -> None:
    done = translator("apply", "--sandbox", WEB)
    assert done.returncode == 0, done.stderr
    assert "13 steps carried out; web matches" in done.stdout
    # what was observed is what was planned; host devices' own names and the slots that QEMU chose come on top
    planned = translator("plan", WEB).stdout.partition("\n\n")[0].splitlines()[1:]
    observed = [re.sub(r", PCI [0-9a-f:.]+|, frontend connected", "", line) for line in done.stdout.splitlines()[2:]]
    assert [line.split("hostdev")[0] for line in observed] == [line.split("hostdev")[0] for line in planned]


@pytest.mark.parametrize(
    ("words", "input", "code", "says"),
    [
        (["--max-size", "300"], None, 3, "error[T103]: the document is larger than 300 bytes"),
        (["--max-size", "64k"], None, 0, ""),
        (["--max-size", "1M"], None, 0, ""),
        (["--max-size", "0"], None, 2, "'0' is not a size"),
        (["--max-size", "1G"], None, 2, "'1G' is not a size"),
        (["--max-size", "10", "-"], "<domain type='kvm'/>", 3, "error[T103]"),
        (["--max-size", "64K", "/dev/zero"], None, 3, "/dev/zero:1:1: error[T103]"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_largest_document_is_the_callers_to_say(
    words: list[str], input: str | None, code: int, says: str
) -> None:
    command = ["validate", *words] if len(words) == 3 else ["validate", *words, WEB]
    done = translator(*command, input=input)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr


def test_a_plan_may_be_larger_than_its_document(tmp_path: Path) -> None:
    translator("plan", "--format", "json", "--output", str(tmp_path / "plan.json"), WEB)
    assert translator("plan", "--max-size", "2K", str(tmp_path / "plan.json")).returncode == 0


def test_a_folder_stands_for_every_document_below_it(tmp_path: Path) -> None:
    for name in ("b/guest.xml", "a/b/guest.xml", "a.xml", "note.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("<network/>")
    done = translator("validate", "--diagnostics", "json", str(tmp_path))
    assert done.returncode == 3
    files = [json.loads(line)["file"] for line in done.stderr.splitlines()]
    assert files == [str(tmp_path / name) for name in ("a/b/guest.xml", "a.xml", "b/guest.xml")]


@pytest.mark.parametrize("wrapped", [False, True], ids=["domain", "domstatus"])
def test_the_document_of_a_running_domain_says_which_it_is(wrapped: bool) -> None:
    text = re.sub(r"<domain .*?>", "<domain type='xen' id='7'>", Path(WEB).read_text(), count=1)
    if wrapped:
        text = f"<domstatus state='running' pid='1'>{text[text.index('<domain') :]}</domstatus>"
    assert json.loads(translator("plan", "--format", "json", "-", input=text).stdout)["domain"]["domid"] == 7
    other = translator("plan", "--format", "json", "--domid", "9", "-", input=text).stdout
    assert json.loads(other)["domain"]["domid"] == 9
