"""Boot an emulated Xen host, install our wheel in it and run the scenarios: `python -m tests.xenhost [NAME…]`."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from .job import scenarios as _scenarios  # noqa: F401 - which makes them known
from .job.harness import SCENARIOS

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent

REPORT = PROJECT / "docs/xen.md"
COMPARED = "pv-beside-xl"

# dom0 is Debian 12 on amd64, whatever we run on.
DOM0_PYTHON = "3.11"
DOM0_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_28_x86_64")


def main() -> int:
    """Return the exit code: 0 when every scenario passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.xenhost", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="run the scenarios whose names begin so")
    parser.add_argument("--out", type=Path, help="keep report.json, logs and consoles in this folder")
    parser.add_argument("--minutes", type=int, default=45, help="give up after so long")
    parser.add_argument("--record", action="store_true", help="write what a whole run has shown into docs/xen.md")
    arguments = parser.parse_args()
    for name in arguments.names:
        if not any(one.startswith(name) for one in SCENARIOS):
            parser.error(f"no scenario's name begins with {name!r}; there are: {', '.join(SCENARIOS)}")
    if arguments.record and arguments.names:
        parser.error("only a whole run is recorded")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print("skipped: building a Xen host takes root and Debian's apt-get", file=sys.stderr)
        return 0
    if subprocess.run(["bash", str(HERE / "build.sh")]).returncode:
        # Debian's archive cannot be reached, say: that tells nothing of ours
        print("skipped: the Xen host cannot be built on this machine, for the reason above", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        job = Path(temporary, "job")
        shutil.copytree(HERE / "job", job, ignore=shutil.ignore_patterns("__pycache__"))
        install(job / "site")
        out = arguments.out or Path(temporary, "out")
        command = f"python3 -m job.scenarios {' '.join(arguments.names)}"
        words = ["bash", str(HERE / "run.sh"), "-t", str(60 * arguments.minutes), "-o", str(out), "-c", str(job)]
        print("boot", flush=True)
        code = subprocess.run([*words, command]).returncode
        report = out / "report.json"
        if not report.exists():
            print(f"the host did not come to report: exit code {code}", file=sys.stderr)
            return code or 1
        verdicts = json.loads(report.read_text())
        print(told(verdicts))
        if arguments.record and code == 0:
            record(verdicts)
        return code


def install(site: Path) -> None:
    """Install our wheel with its dependencies as dom0, which is offline, needs them."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as wheels:
        subprocess.run(
            [*pip, "wheel", "--no-deps", "--wheel-dir", wheels, str(PROJECT), "pyxs>=0.4.1,<0.5"], check=True
        )
        ours = next(Path(wheels).glob("translator-*.whl"))
        platforms = [f"--platform={platform}" for platform in DOM0_PLATFORMS]
        what = ["--target", str(site), "--python-version", DOM0_PYTHON, *platforms, "--only-binary=:all:"]
        subprocess.run([*pip, "install", *what, "--find-links", wheels, str(ours)], check=True)


def told(verdicts: list[dict[str, Any]]) -> str:
    """Return the report."""
    return "\n\n".join(part for part in (scenarios(verdicts), beside(verdicts), commands(verdicts)) if part)


def record(verdicts: list[dict[str, Any]]) -> None:
    """Put the report of a whole run into the documentation, in the place of the one before."""
    text = REPORT.read_text()
    for name, table in (("scenarios", scenarios), ("beside xl", beside), ("commands", commands)):
        begin, end = f"<!-- {name} -->\n\n", f"\n\n<!-- end of {name} -->"
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}{table(verdicts)}{end}{after}"
    REPORT.write_text(text)


def scenarios(verdicts: list[dict[str, Any]]) -> str:
    """Return what holds."""
    lines = ["| scenario | what holds | seconds | verdict |", "|---|---|---|---|"]
    for verdict in verdicts:
        word = "passed" if verdict["passed"] else "FAILED"
        lines.append(f"| {verdict['name']} | {verdict['claim']} | {verdict['seconds']:.0f} | {word} |")
    return "\n".join(lines)


def beside(verdicts: list[dict[str, Any]]) -> str:
    """Return what we and xl take for the same effects."""
    effects: dict[str, dict[str, tuple[str, str]]] = {}
    for verdict in verdicts:
        for what, seconds, requests, _ in verdict["figures"]:
            effect, colon, who = what.partition(": ")
            if verdict["name"] == COMPARED and colon:
                effects.setdefault(effect, {})[who] = str(requests or ""), f"{seconds:.2f}"
    if not effects:
        return ""
    whose = ("xl", "translator", "Host", "xl in turn")
    heads = ("| | requests | | | seconds | | | |", "|---|---|---|---|---|---|---|---|")
    lines = [*heads, "| | xl | translator | Host | xl | translator | Host | xl in turn |"]
    for effect, by in effects.items():
        cells = [by.get(who, ("", ""))[0] for who in whose[:3]] + [by.get(who, ("", ""))[1] for who in whose]
        lines.append(f"| {effect} | {' | '.join(cells)} |")
    return "\n".join(lines)


def commands(verdicts: list[dict[str, Any]]) -> str:
    """Return what the commands of the scenarios take."""
    lines = ["| command | seconds in dom0 | its requests |", "|---|---|---|"]
    for verdict in verdicts:
        if verdict["name"] == COMPARED:
            continue
        for command, seconds, requests, _ in verdict["figures"]:
            short = command.replace("/tmp/", "").removesuffix(" --state state")
            lines.append(f"| {verdict['name']}: `{short}` | {seconds:.1f} | {requests or ''} |")
    return "\n".join(lines) if len(lines) > 2 else ""


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
