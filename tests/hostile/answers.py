"""What every answer to a hostile folder has to keep to."""

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from storage.store import Store
from tests.hostile.dicom_kinds import Kind


def files_below(folder: Path) -> set[str]:
    """Return the paths of all files in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def require_answer(kind: Kind, good: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Attack a copy of a good folder of DICOM files, import it, and look at the answer and at what is left."""
    folder = here / "dicom"
    shutil.copytree(good, folder)
    kind.attack(folder)
    return import_clearly(kind, [str(folder)], here, monkeypatch)


def import_clearly(kind: Kind, arguments: list[str], here: Path, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Import with some arguments, and look at the answer and at what is left."""
    store, temporary = here / "store", here / "tmp"
    temporary.mkdir()
    Store(store)
    before = files_below(store)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    answer = CliRunner().invoke(main, ["import", *arguments, "--store", str(store), "--name", "x"])
    said = " ".join(answer.output.split())  # the terminal breaks lines
    assert answer.exception is None or isinstance(answer.exception, SystemExit), answer.exception
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", answer.output), repr(answer.output)
    assert len(answer.output) < 4000
    assert not list(temporary.iterdir())
    if kind.read:
        assert answer.exit_code == 0, answer.output
        assert re.search(kind.says, said), answer.output
        assert "case 'x'" in answer.output
        assert len(answer.output.splitlines()) < 30
    else:
        assert answer.exit_code == 2, answer.output
        messages = [line for line in answer.stderr.splitlines() if line.startswith("nightbeam:")]
        assert len(messages) == 1, answer.stderr
        assert re.search(kind.says, messages[0]), messages[0]
        assert files_below(store) == before
    return answer
