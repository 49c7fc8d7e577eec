"""Random domains, and the live libvirt's answer to each against ours.

    python -m tests.oracle --seconds 1800 --seed 7

Prints the agreement, and keeps documents on which we differ in a folder that it names.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.corpus import Comparison, arguments_of, compare, explain, of_oracle, table
from tests.differences import rule_of
from tests.domains import random_domain
from translator.registry.models import DRIVERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SYSTEM_PYTHON = "/usr/bin/python3"  # the system's, which has Debian's binding
_WORKER = Path(__file__).with_name("libvirt_worker.py")
_BATCH = 400
_BATCH_S = 120.0
_KEPT = 20  # documents kept for each rule
_UNEXPLAINED = "NO RULE ACCOUNTS FOR IT"


class Libvirt:
    """The QEMU driver of the installed libvirt, in a process and a folder of its own."""

    package = "python3-libvirt and libvirt-daemon-system"

    @classmethod
    def available(cls) -> str | None:
        """Return why there is no libvirt to ask here, or None."""
        if (
            not Path(SYSTEM_PYTHON).exists()
            or subprocess.run([SYSTEM_PYTHON, "-c", "import libvirt"], capture_output=True).returncode
        ):
            return f"no libvirt for {SYSTEM_PYTHON}: install {cls.package}"
        if not Path("/etc/libvirt/qemu.conf").exists() or shutil.which("qemu-system-x86_64") is None:
            return f"libvirt has no QEMU to ask about: install {cls.package} and qemu-system-x86"
        return None

    @classmethod
    def ask(cls, documents: Sequence[str]) -> list[dict[str, Any]]:
        """Return libvirt's answer to each document, in the corpus' form; see `ask_raw`."""
        return [_in_corpus_form(answer) for answer in cls.ask_raw(documents)]

    @staticmethod
    def ask_raw(documents: Sequence[str]) -> list[dict[str, Any]]:
        """Return libvirt's answer to each document: `stage`, `error` and the command line, `argv`.

        Raises:
            RuntimeError: libvirt did not start, or did not answer in time.
        """
        with tempfile.TemporaryDirectory(prefix="translator-libvirt-") as root:
            try:
                done = subprocess.run(
                    [SYSTEM_PYTHON, str(_WORKER), root],
                    input="".join(json.dumps(document) + "\n" for document in documents),
                    capture_output=True,
                    text=True,
                    timeout=_BATCH_S,
                    env={"PATH": os.environ["PATH"]},
                )
            except subprocess.TimeoutExpired as error:
                raise RuntimeError(f"libvirt did not answer {len(documents)} documents in {_BATCH_S:g} s") from error
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        if len(answers) != len(documents):
            raise RuntimeError(f"libvirt's process ended after {len(answers)} documents:\n{done.stderr[-2000:]}")
        return answers


def _in_corpus_form(answer: dict[str, Any]) -> dict[str, Any]:
    devices: list[dict[str, Any]] = []
    backends: list[dict[str, Any]] = []
    words = shlex.split(answer["argv"] or "")
    for option, value in pairwise(words):
        if option == "-device":
            devices.append(arguments_of(value))
        elif option in ("-chardev", "-blockdev", "-audiodev"):
            backends.append({"kind": option[1:], "args": arguments_of(value)})
    usb = [one for one in devices if one["driver"] in DRIVERS or re.match(r"usb-(?!net)|ccid-card-", one["driver"])]
    used = {one[key] for one in usb for key in ("chardev", "drive", "audiodev") if key in one}
    arguments = [one["args"] for one in backends]
    # a format node stands on a storage node
    used |= {one["file"] for one in arguments if one.get("node-name") in used and "file" in one}
    return {
        "stage": answer["stage"],
        "error": answer["error"],
        "devices": usb,
        "backends": [one for one in backends if (one["args"].get("id") or one["args"].get("node-name")) in used],
    }


def compared(seeds: range) -> list[Comparison]:
    """Return how we agree about the random domains of these seeds."""
    documents = [random_domain(random.Random(seed)) for seed in seeds]
    answers = Libvirt.ask(documents)
    return [
        compare(of_oracle("live", f"seed-{seed}", document, answer))
        for seed, document, answer in zip(seeds, documents, answers, strict=True)
    ]


def _batches(first: int, seconds: float) -> Iterator[list[Comparison]]:
    """Yield comparisons until the time is up; libvirt answers one batch while the one before is compared."""
    end = time.monotonic() + seconds
    with ThreadPoolExecutor(max_workers=2) as pool:
        ahead = [pool.submit(compared, range(first + n * _BATCH, first + (n + 1) * _BATCH)) for n in range(2)]
        first += 2 * _BATCH
        while ahead:
            yield ahead.pop(0).result()
            if time.monotonic() < end:
                ahead.append(pool.submit(compared, range(first, first + _BATCH)))
                first += _BATCH


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; return 1 where something differs that no rule accounts for."""
    parser = argparse.ArgumentParser(prog="python -m tests.oracle", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=60, help="how long to go on [default: 60]")
    parser.add_argument("--seed", type=int, help="the first seed [default: a random one]")
    options = parser.parse_args(words)
    if reason := Libvirt.available():
        parser.error(reason)
    seed = secrets.randbelow(10**9) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="translator-oracle-"))
    comparisons: list[Comparison] = []
    rules: Counter[str] = Counter()
    for batch in _batches(seed, options.seconds):
        comparisons += batch
        for one in batch:
            if one.differs and one.case.reason is None:
                rule = rule_of(one) or _UNEXPLAINED
                rules[rule] += 1
                if rules[rule] <= _KEPT or rule == _UNEXPLAINED:
                    (folder / f"{one.case.name}.xml").write_bytes(one.case.xml)
                    (folder / f"{one.case.name}.txt").write_text(f"{rule}\n{explain(one)}\n")
    print(f"seeds {seed} to {seed + len(comparisons) - 1}")
    print(table(comparisons))
    refused = sum(one.case.expected.error is not None for one in comparisons)
    print(f"libvirt refuses {refused} of {len(comparisons)}")
    for rule, count in rules.most_common():
        print(f"{count:6}  {rule}")
    if rules:
        print(f"documents on which we differ: {folder}")
    else:
        folder.rmdir()
    return int(_UNEXPLAINED in rules)


if __name__ == "__main__":
    sys.exit(main())
