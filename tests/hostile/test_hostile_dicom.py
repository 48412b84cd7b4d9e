"""Broken and hostile DICOM folders: one clear message or a good case, and nothing left behind."""

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import main
from storage.store import Store
from tests.hostile.dicom_kinds import KINDS
from tests.hostile.good import write_good


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "dicom"
    write_good(folder)
    return folder


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.slow])
def test_a_hostile_folder_is_answered_clearly(name, good, tmp_path, monkeypatch):
    kind = KINDS[name]
    folder, store, temporary = tmp_path / "dicom", tmp_path / "store", tmp_path / "tmp"
    shutil.copytree(good, folder)
    temporary.mkdir()
    kind.attack(folder)
    Store(store)
    before = files_below(store)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    answer = CliRunner().invoke(main, ["import", str(folder), "--store", str(store), "--name", "x"])
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", answer.output), repr(answer.output)
    assert len(answer.output) < 3000
    assert not list(temporary.iterdir())
    if kind.read:
        assert answer.exit_code == 0, answer.output
        assert re.search(kind.says, answer.output), answer.output
        assert "case 'x'" in answer.output
        assert len(answer.output.splitlines()) < 15
    else:
        assert answer.exit_code == 2, answer.output
        messages = [line for line in answer.stderr.splitlines() if line.startswith("nightbeam:")]
        assert len(messages) == 1, answer.stderr
        assert re.search(kind.says, messages[0]), messages[0]
        assert files_below(store) == before


def test_the_good_folder_is_good(good, tmp_path):
    answer = CliRunner().invoke(main, ["import", str(good), "--store", str(tmp_path / "store")])
    assert answer.exit_code == 0, answer.output
    assert "note" not in answer.output


def test_there_are_more_than_forty_kinds():
    assert len(KINDS) >= 40
