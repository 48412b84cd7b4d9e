"""Who may import whom, and where the packages come from."""

import ast
import importlib
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PACKAGES = ("engine", "storage", "cluster", "flows")
ROOT = Path(__file__).resolve().parents[2]


def imported_modules(file):
    """Return the top-level names that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_the_import_contracts_are_kept():
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 broken" in run.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_comes_from_this_repository_and_from_nothing_else(name):
    # Their names are short: another installed package of the same name would be found in their place.
    module = importlib.import_module(name)
    assert Path(str(module.__file__)).resolve().parent == ROOT / name
    assert set(packages_distributions().get(name, ["nightbeam"])) == {"nightbeam"}


def test_numba_is_imported_by_the_modules_made_for_it_alone():
    # One place decides how kernels are compiled; a second one holds what numba lacks.
    found = {
        file.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if imported_modules(file) & {"numba", "llvmlite"}
    }
    assert "engine/_jit.py" in found
    assert found <= {"engine/_jit.py", "engine/_vector.py"}


def test_every_folder_with_code_is_a_package():
    # Without __init__.py, import-linter and the wheel would pass it over without a word.
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            assert (file.parent / "__init__.py").exists(), (
                f"{file.parent.relative_to(ROOT)} has no __init__.py"
            )
