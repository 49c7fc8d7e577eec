"""Random domains: the live libvirt's answer is ours, and our normal form means to it what the document does."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

import translator
from tests import corpus, families_oracle, oracle
from tests.differences import rule_of
from tests.domains import random_domain
from tests.servers import require
from translator.document.normalize import normalize

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST = 0.98


@pytest.fixture(autouse=True)
def _libvirt() -> None:
    require(oracle.Libvirt)


def test_two_hundred_random_domains(say: Callable[[str], None]) -> None:
    found = oracle.compared(range(200))
    say("agreement with the live libvirt\n" + corpus.table(found))
    counted = [one for one in found if one.case.reason is None]
    assert sum(not one.differs for one in counted) / len(counted) >= LEAST
    unexplained = [one for one in counted if one.differs and rule_of(one) is None]
    assert not unexplained, "\n\n".join(map(corpus.explain, unexplained[:3]))


def test_a_hundred_random_domains_of_the_other_families() -> None:
    found = families_oracle.compared(range(100))
    assert [one for one in found if not one.equal] == []


def test_the_normal_form_means_the_same_to_libvirt() -> None:
    documents = [random_domain(random.Random(seed)) for seed in range(200, 350)]
    pairs = [(document, normal) for document in documents if (normal := _normal(document)) is not None]
    answers = oracle.Libvirt.ask([text for pair in pairs for text in pair])
    for (document, normal), given, made in zip(pairs, answers[::2], answers[1::2], strict=True):
        if given["error"] is None:  # else the short run above tells
            assert made["error"] is None, f"{made['error']}\n{document}\n{normal}"
            assert _sorted(made) == _sorted(given), f"{document}\n{normal}"


def _normal(document: str) -> str | None:
    try:
        return normalize(document.encode()).decode()
    except translator.DocumentError:
        return None


def _sorted(answer: dict[str, object]) -> list[str]:
    devices = answer["devices"]
    assert isinstance(devices, list)
    return sorted(str(sorted(device.items())) for device in devices)
