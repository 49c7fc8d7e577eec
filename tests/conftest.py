"""Golden files: what a fixture's folder says must come out, rewritten only when asked to."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import Xl

PROJECT = Path(__file__).resolve().parent.parent
FIXTURES = PROJECT / "fixtures"

# how long an example takes is the machine's affair
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# a shell's job in the background begins with interrupts ignored, and hands that on to what the tests start
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="rewrite the golden files; review with git diff")
    parser.addoption("--soak", action="store_true", help="run crash tests and attach cycles at their full length")


_SAID = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say something at the end of the run, whatever the tests' outcome."""
    return request.config.stash.setdefault(_SAID, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for text in config.stash.get(_SAID, []):
        terminalreporter.write_line(f"\n{text}")


def cases(kind: str) -> list[Path]:
    """Return the folders of fixtures/KIND, whose names are the claims under test."""
    return sorted(path for path in (FIXTURES / kind).iterdir() if path.is_dir())


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with its golden file; a missing one fails unless --regenerate is given."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--regenerate"):
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"{path} is missing: run pytest --regenerate, and read what it wrote")
        assert text == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(scope="session")
def sarif_schema() -> jsonschema.protocols.Validator:
    """Return the official schema, from a package of npm's that has it, which `make test` gets; CI must have it."""
    from tests.servers import do_without

    file = Path(sys.prefix) / "share/sarif-2.1.0.schema.json"
    if not file.exists():
        do_without(f"the SARIF schema is not in {file}: run make test where npm is installed")
    schema = json.loads(file.read_text(encoding="utf-8"))
    validator: type[jsonschema.protocols.Validator] = jsonschema.validators.validator_for(schema)
    validator.check_schema(schema)
    return validator(schema)


@pytest.fixture(scope="session")
def xl() -> Iterator[Xl]:
    """Return the real xl, with a xenstored of its own."""
    from tests.servers import OxenStored, Xl, require

    require(Xl)
    require(OxenStored)
    with OxenStored() as xenstored:
        yield Xl(xenstored)
