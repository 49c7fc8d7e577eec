"""The forms in which findings are told, and that each is what its readers take."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from lxml import etree

from tests.conftest import FIXTURES, PROJECT
from translator.catalog import CATALOG, markdown
from translator.errors import Diagnostic
from translator.output.ci import DOCUMENTS, Run, fingerprints, github, gitlab, junit, sarif

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

FOLDER = "fixtures/errors"
GOOD = "fixtures/demo/web/domain.xml"


def stderr(form: str, *words: str, code: int = 3, command: str = "validate", input: str | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "translator", command, "--diagnostics", form, *words],
        capture_output=True,
        text=True,
        input=input,
        cwd=PROJECT,
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def finding(message: str = "odd", **fields: Any) -> Diagnostic:
    known: dict[str, Any] = {"code": "T301", "message": message, "file": "a.xml", "line": 2, "column": 3}
    return Diagnostic(**known | fields)


def run(*findings: Diagnostic, files: Iterable[str] = ("a.xml",), code: int = 3) -> Run:
    return Run(tuple(files), findings, code)


RUNS = {
    "nothing to tell": run(code=0),
    "no input": run(files=(), code=0),
    "one of each severity": run(finding(), finding(severity="warning"), finding(severity="note")),
    "a host's": run(finding(code="T403", file=None, line=None, column=None), code=4),
    "no place in the file": run(finding(line=None, column=None)),
    "an element and a way out": run(finding(element="/domain/devices/hub[2]/@type", help="look")),
    "signs that mean something": run(finding("<&\"'>\r\n%::]]>\x01\U0001f600, é\u2028"), files=("é:,% <&>.xml",)),
    "a code of another version": run(finding(code="T999")),
    "twice the same": run(finding(), finding()),
}


# SARIF


@pytest.mark.parametrize("about", RUNS.values(), ids=RUNS)
def test_sarif_is_what_its_schema_wants(about: Run, sarif_schema: jsonschema.protocols.Validator) -> None:
    sarif_schema.validate(json.loads(sarif(about)))


def test_sarif_of_a_broken_folder(sarif_schema: jsonschema.protocols.Validator) -> None:
    log = json.loads(stderr("sarif", FOLDER, GOOD))
    sarif_schema.validate(log)
    (only,) = log["runs"]
    assert {"location": {"uri": GOOD}} in only["artifacts"]
    assert {result["ruleId"] for result in only["results"]} >= {code for code in CATALOG if "T301" <= code < "T318"}


def test_sarif_holds_together() -> None:
    """What no schema can say."""
    (only,) = json.loads(stderr("sarif", FOLDER, GOOD))["runs"]
    rules = only["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == sorted({rule["id"] for rule in rules})
    for rule in rules:
        entry = CATALOG[rule["id"]]
        assert re.fullmatch(r"[A-Z]\w+", rule["name"])
        assert rule["shortDescription"]["text"] == entry.title
        assert rule["fullDescription"]["text"] == entry.meaning
        assert entry.example in rule["help"]["text"]
    uris = {artifact["location"]["uri"] for artifact in only["artifacts"]}
    for result in only["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"] in uris
    prints = [result["partialFingerprints"]["translator/v1"] for result in only["results"]]
    assert len(set(prints)) == len(prints)


def test_a_sarif_result_has_the_place_in_text_and_in_the_tree() -> None:
    log = json.loads(stderr("sarif", "fixtures/errors/unknown-model/domain.xml"))
    (only,) = log["runs"]
    (result,) = only["results"]
    assert only["columnKind"] == "unicodeCodePoints"
    assert (result["ruleId"], result["level"]) == ("T301", "error")
    assert result["message"]["text"] == "unknown USB controller model 'piix3-uhcl'\nhelp: did you mean 'piix3-uhci'?"
    assert result["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "fixtures/errors/unknown-model/domain.xml"},
                "region": {"startLine": 5, "startColumn": 38},
            },
            "logicalLocations": [
                {
                    "fullyQualifiedName": "/domain/devices/controller[1]/@model",
                    "name": "@model",
                    "kind": "attribute",
                }
            ],
        }
    ]


def test_columns_are_code_points(tmp_path: Path) -> None:
    """As `columnKind` claims, in every encoding, for the parser's own complaints too."""
    for encoding in ("utf-8", "utf-16"):
        file = tmp_path / "guest.xml"
        for text in ("<domain type='kvm'><!-- é😀 --><hub typ='usb'/></domain>", "<a x='é😀' x='1'/>"):
            file.write_text(text, encoding=encoding)
            (only,) = json.loads(stderr("sarif", str(file)))["runs"]
            region = only["results"][0]["locations"][0]["physicalLocation"]["region"]
            expected = text.find("typ=") + 1 if "typ=" in text else text.rfind("'1'") + len("'1'") + 1
            assert region["startColumn"] == expected


def test_what_a_host_says_is_a_notification_and_no_result() -> None:
    (only,) = json.loads(sarif(RUNS["a host's"]))["runs"]
    assert only["results"] == []
    (invocation,) = only["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 4)
    (said,) = invocation["toolExecutionNotifications"]
    assert said["associatedRule"] == {"id": "T403", "index": 0}


@pytest.mark.parametrize(
    ("file", "uri"),
    [("a.xml", "a.xml"), ("a b/é%.xml", "a%20b/%C3%A9%25.xml"), ("c:d.xml", "c%3Ad.xml"), ("/a b", "file:///a%20b")],
)
def test_sarif_names_files_by_uri(file: str, uri: str) -> None:
    (only,) = json.loads(sarif(run(finding(file=file), files=[file])))["runs"]
    assert only["artifacts"] == [{"location": {"uri": uri}}]
    assert only["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": uri}


def test_every_code_has_an_anchor_that_links_can_point_to() -> None:
    text = markdown(FIXTURES / "errors")
    assert re.findall(r'<a id="(t\d+)"></a>', text) == [code.lower() for code in sorted(CATALOG)]


# GitLab: https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format

CODE_QUALITY = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "required": ["description", "check_name", "fingerprint", "severity", "location"],
        "properties": {
            "description": {"type": "string", "minLength": 1},
            "check_name": {"type": "string", "pattern": r"^T\d{3}$"},
            "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
            "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
            "location": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path", "lines"],
                "properties": {
                    "path": {"type": "string", "pattern": r"^(?!\./)."},
                    "lines": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["begin"],
                        "properties": {"begin": {"type": "integer", "minimum": 1}},
                    },
                },
            },
        },
    },
}


@pytest.mark.parametrize("about", RUNS.values(), ids=RUNS)
def test_gitlab_is_what_it_wants(about: Run) -> None:
    report = json.loads(gitlab(about))
    jsonschema.validate(report, CODE_QUALITY)
    assert len({issue["fingerprint"] for issue in report}) == len(report) == len(about.findings)


def test_gitlab_of_a_broken_folder() -> None:
    report = json.loads(stderr("gitlab", f"./{FOLDER}"))
    jsonschema.validate(report, CODE_QUALITY)
    assert len({issue["fingerprint"] for issue in report}) == len(report) > 60


def test_fingerprints_stay_when_lines_are_added_and_tell_all_else_apart() -> None:
    (first,) = fingerprints([finding()])
    assert [first] == list(fingerprints([finding(line=99, column=1)]))
    assert [first] == list(fingerprints([finding(file="./a.xml")]))
    others = [{"message": "other"}, {"code": "T302"}, {"file": "b.xml"}, {"element": "/domain"}]
    assert len({first, *fingerprints(finding(**other) for other in others)}) == 5


# GitHub


def test_github_shows_findings_at_their_lines() -> None:
    (line,) = stderr("github", "fixtures/errors/unknown-model/domain.xml").splitlines()
    assert line == (
        "::error file=fixtures/errors/unknown-model/domain.xml,line=5,col=38,"
        "title=T301%3A unknown controller model::"
        "unknown USB controller model 'piix3-uhcl'%0Ahelp: did you mean 'piix3-uhci'?"
    )


def test_github_commands_cannot_be_smuggled() -> None:
    """As @actions/toolkit's core command.ts escapes and the runner takes apart."""
    said = github(finding("100%\r\n::set-env name=X::y", file="a,b:c%.xml", severity="note"))
    assert said.splitlines() == [said]
    assert said.startswith("::notice file=a%2Cb%3Ac%25.xml,line=2,col=3,title=")
    assert said.endswith("::100%25%0D%0A::set-env name=X::y")


def test_github_has_nothing_to_say_of_what_is_good() -> None:
    assert stderr("github", GOOD, code=0) == ""


# JUnit


@pytest.mark.parametrize("about", RUNS.values(), ids=RUNS)
def test_junit_is_well_formed(about: Run) -> None:
    suite = etree.fromstring(junit(about).encode())
    assert suite.tag == "testsuite"
    assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
    assert int(suite.get("failures", "")) == len(suite.findall("testcase/failure"))


def test_junit_has_a_case_for_each_input() -> None:
    warned = "fixtures/plans/kvm-full-speed-hub-on-ehci-warns/domain.xml"
    bad = "fixtures/errors/three-faults-at-once/domain.xml"
    suite = etree.fromstring(stderr("junit", GOOD, warned, bad).encode())
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    good, odd, failed = suite.findall("testcase")
    assert [case.get("name") for case in (good, odd, failed)] == [GOOD, warned, bad]
    assert len(good) == 0
    assert "warning[T318]" in (odd.findtext("system-out") or "")
    assert (failed.findtext("failure") or "").count("error[") == 3


# All of them


@pytest.mark.parametrize("form", DOCUMENTS)
def test_documents_are_whole_whatever_happens(form: str, tmp_path: Path) -> None:
    read = etree.fromstring if form == "junit" else json.loads
    empty = tmp_path / "empty"
    empty.mkdir()
    read(stderr(form, GOOD, code=0).encode())
    read(stderr(form, "-", code=3, input="<domain>").encode())
    assert "T107" in stderr(form, "/no/such.xml", code=2)
    read(stderr(form, "/no/such.xml", str(empty), GOOD, code=2).encode())
    read(stderr(form, GOOD, code=4, command="apply").encode())
    read(stderr(form, "--sandbox", GOOD, code=0, command="apply").encode())
    read(stderr(form, "--qmp", "/no/socket", code=4, command="observe").encode())


def test_a_name_that_is_not_utf_8_is_spelled_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "guest\udcff.xml").write_text("<domain>", encoding="utf-8")
    for form in (*DOCUMENTS, "json", "text", "github"):
        assert "T101" in stderr(form, str(tmp_path))


def test_strict_makes_errors_of_warnings_in_every_form() -> None:
    warned = "fixtures/plans/kvm-full-speed-hub-on-ehci-warns"
    for form, word in [("sarif", '"level": "error"'), ("gitlab", '"major"'), ("junit", "<failure")]:
        assert word in stderr(form, "--strict", warned)
        assert word not in stderr(form, warned, code=0).replace('"defaultConfiguration": {"level": "error"', "")
