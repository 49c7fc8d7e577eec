"""Findings in the forms that a CI system reads: of one at a time, or of a whole run.

github                  a line for each finding
sarif, junit, gitlab    one document for all inputs, well-formed also when there is nothing to tell
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import msgspec

from translator.errors import EXIT_DIRTY, EXIT_HOST, EXIT_USAGE, Diagnostic, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping


class Run(msgspec.Struct, frozen=True):
    """What a whole run was about: its inputs in order, what was found, and the exit code that comes of it.

    A finding about a host names no file.
    """

    files: tuple[str, ...]
    findings: tuple[Diagnostic, ...]
    code: int


# GitHub: workflow commands


_GITHUB_LEVELS: Mapping[Severity, str] = {"error": "error", "warning": "warning", "note": "notice"}


def github(finding: Diagnostic) -> str:
    """Return the finding as a command that a GitHub workflow shows at its line."""
    from translator.catalog import entry_of

    properties = {
        "file": finding.file,
        "line": finding.line,
        "col": finding.column,
        "title": f"{finding.code}: {entry_of(finding.code).title}",
    }
    words = (
        f"{name}={_github_escaped(str(value)).replace(':', '%3A').replace(',', '%2C')}"
        for name, value in properties.items()
        if value is not None
    )
    return f"::{_GITHUB_LEVELS[finding.severity]} {','.join(words)}::{_github_escaped(_message(finding))}"


def _github_escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


# SARIF 2.1.0, https://docs.oasis-open.org/sarif/sarif/v2.1.0/


def sarif(run: Run) -> str:
    """Return the run as a SARIF log.

    What was found in a document is a result. What a host had to say is about carrying out, not about a place
    in a file: it is a notification.
    """
    from importlib.metadata import metadata

    about = metadata("translator")
    urls = dict(url.split(", ", 1) for url in about.get_all("Project-URL") or ())
    documentation = urls.get("Documentation")
    codes = sorted({finding.code for finding in run.findings})
    places = [finding for finding in run.findings if finding.file is not None]
    log = {
        "$schema": "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "translator",
                        "version": about["Version"],
                        "rules": [_sarif_rule(code, documentation) for code in codes],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "invocations": [
                    {
                        "executionSuccessful": run.code not in (EXIT_USAGE, EXIT_HOST, EXIT_DIRTY),
                        "exitCode": run.code,
                        "toolExecutionNotifications": [
                            {
                                "associatedRule": {"id": finding.code, "index": codes.index(finding.code)},
                                "level": finding.severity,
                                "message": {"text": _message(finding)},
                            }
                            for finding in run.findings
                            if finding.file is None
                        ],
                    }
                ],
                "artifacts": [{"location": {"uri": _uri(file)}} for file in run.files],
                "results": [
                    _sarif_result(finding, codes.index(finding.code), print)
                    for finding, print in zip(places, fingerprints(places), strict=True)
                ],
            }
        ],
    }
    return _json(log)


def _sarif_rule(code: str, documentation: str | None) -> dict[str, Any]:
    """Return the catalog's entry; `documentation` is where docs/ is published, if it is: SARIF wants a whole URI."""
    from translator.catalog import entry_of

    entry = entry_of(code)
    link = {"helpUri": f"{documentation.rstrip('/')}/diagnostics.md#{code.lower()}"} if documentation else {}
    return {
        "id": code,
        "name": "".join(word[:1].upper() + word[1:] for word in re.findall(r"\w+", entry.title)),
        "shortDescription": {"text": entry.title},
        "fullDescription": {"text": entry.meaning},
        "help": {"text": f"{entry.meaning}\n\nExample: {entry.example}" if entry.example else entry.meaning},
        "defaultConfiguration": {"level": entry.severity},
        **link,
    }


def _sarif_result(finding: Diagnostic, rule: int, fingerprint: str) -> dict[str, Any]:
    physical: dict[str, Any] = {"artifactLocation": {"uri": _uri(finding.file or "")}}
    if finding.line is not None:
        physical["region"] = {"startLine": finding.line} | (
            {} if finding.column is None else {"startColumn": finding.column}
        )
    location: dict[str, Any] = {"physicalLocation": physical}
    if finding.element is not None:
        location["logicalLocations"] = [
            {
                "fullyQualifiedName": finding.element,
                "name": finding.element.rpartition("/")[2],
                "kind": "attribute" if "/@" in finding.element else "element",
            }
        ]
    return {
        "ruleId": finding.code,
        "ruleIndex": rule,
        "level": finding.severity,
        "message": {"text": _message(finding)},
        "locations": [location],
        "partialFingerprints": {"translator/v1": fingerprint},
    }


def _uri(file: str) -> str:
    """Return the path as a URI reference: relative as it was given, with the scheme when absolute."""
    from urllib.parse import quote

    path = quote(file)
    return f"file://{path}" if path.startswith("/") else path


# GitLab's code quality report


_GITLAB_SEVERITIES: Mapping[Severity, str] = {"error": "major", "warning": "minor", "note": "info"}


def gitlab(run: Run) -> str:
    """Return the run as a code quality report. It wants a place for everything: a host's is the document's."""
    elsewhere = run.files[0] if run.files else "host"
    return _json(
        [
            {
                "description": _message(finding),
                "check_name": finding.code,
                "fingerprint": print,
                "severity": _GITLAB_SEVERITIES[finding.severity],
                "location": {
                    "path": os.path.normpath(finding.file or elsewhere),
                    "lines": {"begin": finding.line or 1},
                },
            }
            for finding, print in zip(run.findings, fingerprints(run.findings), strict=True)
        ]
    )


# JUnit


def junit(run: Run) -> str:
    """Return the run as a test suite with a case for each input; what a host refused fails a case `host`."""
    from lxml import etree

    cases: dict[str, list[Diagnostic]] = {file: [] for file in run.files}
    for finding in run.findings:
        cases.setdefault(finding.file or "host", []).append(finding)
    failed = {name for name, findings in cases.items() if any(finding.severity == "error" for finding in findings)}
    suite = etree.Element("testsuite", name="translator", tests=str(len(cases)), failures=str(len(failed)))
    for name, findings in cases.items():
        case = etree.SubElement(suite, "testcase", classname="translator", name=_xml_text(name))
        if findings:
            told = etree.SubElement(case, "failure" if name in failed else "system-out")
            told.text = _xml_text("\n".join(map(str, findings)))
            if name in failed:
                first = next(finding for finding in findings if finding.severity == "error")
                told.set("type", first.code)
                told.set("message", _xml_text(first.message))
    etree.indent(suite)
    return etree.tostring(suite, xml_declaration=True, encoding="UTF-8").decode() + "\n"


def _xml_text(text: str) -> str:
    """Replace what XML cannot hold."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)


DOCUMENTS: Mapping[str, Callable[[Run], str]] = {"sarif": sarif, "junit": junit, "gitlab": gitlab}


def fingerprints(findings: Iterable[Diagnostic]) -> Iterator[str]:
    """Yield for each finding what tells it from the others, and stays when lines are added above it."""
    import hashlib  # loads OpenSSL, which the other forms do without

    seen: dict[tuple[str | None, ...], int] = {}
    for finding in findings:
        key = (finding.file and os.path.normpath(finding.file), finding.code, finding.element, finding.message)
        seen[key] = number = seen.get(key, 0) + 1
        yield hashlib.sha256(msgspec.json.encode((key, number))).hexdigest()[:32]


def _message(finding: Diagnostic) -> str:
    return finding.message + (f"\nhelp: {finding.help}" if finding.help else "")


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
