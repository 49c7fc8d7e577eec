"""A document's way to its plan: against reading and judging it alone, and against libvirt's way to a command line.

The documents are libvirt's own about USB where the corpus is there, else made up; those that libvirt converts are
made up in any case, since among its own are some that end its process.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from random import Random
from typing import TYPE_CHECKING

from lxml import etree

import translator
from tests import corpus
from tests.benchmarks.figures import Figure
from tests.domains import random_domain
from translator.document.validate import schema_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_OF_LXML = 3.0
MOST_OF_LIBVIRT = 0.1
_ROUNDS = 5

# Runs in the system's Python, which has the binding; prints the processor time of all conversions, in seconds.
_LIBVIRT = """
import json, libvirt, sys, time
libvirt.registerErrorHandler(lambda *_: None, None)
libvirt.virEventRegisterDefaultImpl()
connection = libvirt.open(f"qemu:///embed?root={sys.argv[1]}")
documents = json.load(sys.stdin)
def convert():
    done = []
    for number, one in enumerate(documents):
        try:
            connection.domainXMLToNative("qemu-argv", one, 0)
        except libvirt.libvirtError:
            continue
        done.append(number)
    return done
done = convert()  # asks QEMU what it has, once
documents = [documents[number] for number in done]
best = None
for _ in range(3):
    begin = time.process_time(); convert(); cost = time.process_time() - begin
    best = cost if best is None else min(best, cost)
print(json.dumps({"done": done, "cost": best}))
"""


def figures() -> Iterator[Figure]:
    """Measure ours against lxml's part of it, and against libvirt's way."""
    documents = [text for text in _documents() if _is_planned(text)]
    schema = etree.XMLSchema(etree.parse(os.path.join(schema_dir(), "domain.xsd")))

    def judge(text: bytes) -> None:
        assert schema.validate(etree.fromstring(text))

    floor, ours = _costs(documents, judge, _plan)
    count, size = len(documents), sum(map(len, documents)) / len(documents)
    yield Figure(
        name="documents",
        what="a document's way to JSON against lxml's parse and schema alone "
        f"({count} documents of {size:.0f} bytes)",
        measured=f"{ours / count * 1e6:.0f} us, {floor / count * 1e6:.0f} us",
        ratio=ours / floor,
        bound=MOST_OF_LXML,
    )
    convertible = [text for text in _made_up() if _is_planned(text)]
    with tempfile.TemporaryDirectory() as root:
        words = ["/usr/bin/python3", "-c", _LIBVIRT, root]
        done = subprocess.run(
            words, input=json.dumps([text.decode() for text in convertible]), capture_output=True, text=True
        )
    if done.returncode:
        print(f"documents: not compared with libvirt: {done.stderr.strip().splitlines()[-1]}")
        return
    answer = json.loads(done.stdout)
    shared = [convertible[number] for number in answer["done"]]
    (cost,) = _costs(shared, _plan)
    yield Figure(
        name="documents, libvirt",
        what=f"the same against libvirt's `domainXMLToNative` ({len(shared)} documents that it converts)",
        measured=f"{cost / len(shared) * 1e6:.0f} us, {answer['cost'] / len(shared) * 1e6:.0f} us",
        ratio=float(cost / answer["cost"]),
        bound=MOST_OF_LIBVIRT,
    )


def _plan(text: bytes) -> None:
    translator.plan(translator.load(text)).to_json()


def _costs(documents: list[bytes], *ways: Callable[[bytes], None]) -> tuple[float, ...]:
    """Return the best processor time of each way for all documents, in seconds; the ways take turns."""
    best = [float("inf")] * len(ways)
    for _ in range(_ROUNDS):
        for number, way in enumerate(ways):
            begin = time.process_time()
            for text in documents:
                way(text)
            best[number] = min(best[number], time.process_time() - begin)
    return tuple(best)


def _is_planned(text: bytes) -> bool:
    try:
        _plan(text)
    except translator.DocumentError:
        return False
    return True


def _documents() -> list[bytes]:
    if corpus.missing():
        return _made_up()
    return [case.xml for case in corpus.read_corpus() if case.scope in ("core", "incidental")]


def _made_up() -> list[bytes]:
    return [random_domain(Random(seed)).encode() for seed in range(500)]
