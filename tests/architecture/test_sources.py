"""What every source file keeps to and no linter checks: size, errors."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("engine", "storage", "cluster", "flows")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 600


def name_of(file):
    return file.relative_to(ROOT).as_posix()


each_file = pytest.mark.parametrize("file", FILES, ids=name_of)


@pytest.mark.parametrize("file", FILES + TESTS, ids=name_of)
def test_no_file_is_too_long_to_read(file):
    assert len(file.read_text().splitlines()) <= MAX_LINES


@each_file
def test_public_errors_are_those_of_the_project(file):
    if name_of(file) == "engine/errors.py":
        return
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Exception")):
            assert node.name.startswith("_"), f"line {node.lineno}: move {node.name} to engine/errors.py"


def test_all_errors_have_one_root_and_a_built_in_kind():
    import engine.errors

    leaves = [
        e
        for e in vars(engine.errors).values()
        if isinstance(e, type) and e is not engine.errors.NightbeamError
    ]
    assert leaves
    for leaf in leaves:
        assert issubclass(leaf, engine.errors.NightbeamError)
        assert issubclass(leaf, ValueError | OSError | RuntimeError)


@each_file
def test_no_error_is_swallowed(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.ExceptHandler):
            continue
        broad = node.type is None or (
            isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
        )
        raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        assert not broad or raises, f"line {node.lineno}: catches everything and goes on"
