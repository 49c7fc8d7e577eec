"""Verdicts, devices, ports and properties are libvirt's: its own test data, and domains that it judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import corpus
from tests.conftest import PROJECT
from tests.differences import DIFFERENCES, rule_of

if TYPE_CHECKING:
    from collections.abc import Callable

# How many cases may differ: the number may sink.
MOST = {"core": 1, "incidental": 0, "implicit": 1, "fuzz": 7}


@pytest.fixture(scope="module")
def comparisons(say: Callable[[str], None]) -> list[corpus.Comparison]:
    if reason := corpus.missing():
        pytest.skip(reason)
    found = [corpus.compare(case) for case in corpus.read_corpus()]
    say("agreement with libvirt\n" + corpus.table(found))
    return found


def of_scope(comparisons: list[corpus.Comparison], scope: str) -> list[corpus.Comparison]:
    return [one for one in comparisons if one.case.scope == scope and one.case.reason is None]


@pytest.mark.parametrize("scope", corpus.SCOPES)
def test_as_many_are_equal_as_before(comparisons: list[corpus.Comparison], scope: str) -> None:
    members = of_scope(comparisons, scope)
    assert members
    assert sum(bool(one.differs) for one in members) <= MOST[scope]


@pytest.mark.parametrize("scope", corpus.SCOPES)
def test_every_difference_has_a_rule(comparisons: list[corpus.Comparison], scope: str) -> None:
    unexplained = [one for one in of_scope(comparisons, scope) if one.differs and rule_of(one) is None]
    assert not unexplained, "\n\n".join(map(corpus.explain, unexplained[:3]))


def test_every_core_case_is_accounted_for(comparisons: list[corpus.Comparison]) -> None:
    assert f"\n{corpus.account(comparisons, 'core')}\n" in (PROJECT / "docs/libvirt-differences.md").read_text()


@pytest.mark.parametrize("rule", DIFFERENCES)
def test_every_rule_is_documented(rule: str) -> None:
    assert f"## {rule}\n" in (PROJECT / "docs/libvirt-differences.md").read_text()
