"""Broken and hostile DICOM folders: one clear message or a good case, and nothing left behind."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.cli import main
from tests.hostile.answers import require_answer
from tests.hostile.dicom_kinds import KINDS
from tests.hostile.good import write_good


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "dicom"
    write_good(folder)
    return folder


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.slow])
def test_a_hostile_folder_is_answered_clearly(name, good, tmp_path, monkeypatch):
    require_answer(KINDS[name], good, tmp_path, monkeypatch)


def test_the_good_folder_is_good(good, tmp_path):
    answer = CliRunner().invoke(main, ["import", str(good), "--store", str(tmp_path / "store")])
    assert answer.exit_code == 0, answer.output
    assert "note" not in answer.output


def test_there_are_more_than_forty_kinds():
    assert len(KINDS) >= 40
