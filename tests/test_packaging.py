"""What is distributed: the same bytes from the same files, with all that is needed, where nobody may write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.conftest import FIXTURES, PROJECT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    find_spec("hatchling") is None and "CI" not in os.environ, reason="hatchling is not installed"
)


def build(source: Path, folder: Path, *targets: str, **environment: str) -> dict[str, Path]:
    """Build these of `sdist` and `wheel`; return each, by the end of its name."""
    words = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    for target in targets:
        words += ["-t", target]
    environment = {"SOURCE_DATE_EPOCH": "1700000000"} | environment
    subprocess.run(words, cwd=source, env=os.environ | environment, check=True, capture_output=True)
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return build(PROJECT, tmp_path_factory.mktemp("built"), "sdist", "wheel", PYTHONHASHSEED="1", TZ="UTC")


def test_the_same_files_are_the_same_bytes(built: dict[str, Path], tmp_path: Path) -> None:
    again = build(PROJECT, tmp_path, "sdist", "wheel", PYTHONHASHSEED="2", TZ="Asia/Tokyo", LC_ALL="C")
    assert {path.name: path.read_bytes() for path in again.values()} == {
        path.name: path.read_bytes() for path in built.values()
    }


def test_a_wheel_made_of_the_sdist_is_the_same(built: dict[str, Path], tmp_path: Path) -> None:
    with tarfile.open(built[".gz"]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    wheel = build(source, tmp_path / "dist", "wheel")[".whl"]
    assert wheel.read_bytes() == built[".whl"].read_bytes()


def test_a_wheel_has_what_is_needed_and_no_more(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = PROJECT / "translator"
    modules = {str(path.relative_to(PROJECT)) for path in package.rglob("*.py")}
    schemas = {f"translator/schemas/{path.name}" for path in (PROJECT / "schemas").iterdir()}
    assert names == {*modules, *schemas, "translator/hosts/sandbox/drivers.json", "translator/py.typed"}


def test_it_runs_where_nobody_may_write(built: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(built[".whl"]) as archive:
        archive.extractall(tmp_path)
    files = sorted(tmp_path.rglob("*"), reverse=True)
    for path in (*files, tmp_path):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", "from translator.cli import main; main()", *words],
            env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout + done.stderr

    assert run("--version") == (0, f"translator {version('translator')}\n")
    assert run("validate", str(FIXTURES / "demo/desk/domain.xml")) == (0, "")
    assert sorted(tmp_path.rglob("*"), reverse=True) == files


def test_debians_package_needs_what_the_wheel_does() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    control = (PROJECT / "packaging/debian/control").read_text(encoding="utf-8")
    for needed in (*project["dependencies"], *project["optional-dependencies"]["fleet"]):
        found = re.fullmatch(r"([a-z.]+)>=([0-9.]+)(?:,.*)?", needed)
        assert found is not None
        assert f" python3-{found[1].replace('.', '-')} (>= {found[2]})" in control
