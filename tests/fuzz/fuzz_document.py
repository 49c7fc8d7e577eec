"""Looks for documents that load and plan cannot take, guided by coverage: `make fuzz`.

    python -m tests.fuzz.fuzz_document FOLDER fixtures -max_total_time=60

What adds coverage is kept in FOLDER; the words behind are libFuzzer's. What fails is left in a file that begins
with `crash-`, `timeout-` or `oom-`; given as the only argument, it is run alone.
"""

from __future__ import annotations

import sys
from importlib import import_module
from random import Random

# It is not needed for the tests and has no types.
atheris = import_module("atheris")

with atheris.instrument_imports(include=["translator"]):
    # what is imported late too, or it would not be instrumented
    from tests.fuzz.document import check, mutate
    from translator.document import (
        explain,  # noqa: F401
        parse,  # noqa: F401
        pinpoint,  # noqa: F401
        validate,  # noqa: F401
    )


def one_input(data: bytes) -> None:
    check(data)


def mutated(data: bytes, max_size: int, seed: int) -> bytes:
    random = Random(seed)
    if random.random() < 0.2:
        return bytes(atheris.Mutate(data, max_size))
    return mutate(data, random)[:max_size]


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input, custom_mutator=mutated)
    atheris.Fuzz()
