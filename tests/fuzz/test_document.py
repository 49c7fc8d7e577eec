"""A short run of the fuzzer, the same every time and without coverage to guide it; `make fuzz` is the long one."""

from __future__ import annotations

from random import Random

from tests.fuzz.document import check, mutate, seeds

RUNS = 2500


def test_damaged_documents_come_to_a_plan_or_a_refusal() -> None:
    random = Random(0)
    accepted = 0
    for number in range(RUNS):
        seed = random.choice(seeds())
        data = mutate(seed, random)
        try:
            accepted += check(data)
        except BaseException as error:
            error.add_note(f"run {number}, document:\n{data!r}")
            raise
    assert RUNS / 10 < accepted < RUNS * 9 / 10, "the damage is so that both outcomes are common"
