"""Run the benchmarks named, or all."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module

import tests.benchmarks

names = sys.argv[1:] or [
    one.name for one in pkgutil.iter_modules(tests.benchmarks.__path__) if one.name != "__main__"
]
kept = [import_module(f"tests.benchmarks.{name}").run() for name in sorted(names)]
sys.exit(0 if all(kept) else "a bound is not kept")
