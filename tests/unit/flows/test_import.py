"""The command ``nightbeam import``: what it lists, and how it is told which series."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from flows.cli import main
from tests.dicom_files import write_contours, write_series


def water(places: np.ndarray) -> np.ndarray:
    return np.zeros(places.shape[:-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scans = tmp_path / "scans"
    write_series(scans, water, number=2, SeriesDescription="Thorax early")
    write_series(scans, lambda places: water(places) + 5.0, number=3, SeriesDescription="Thorax late")
    write_series(scans, water, number=8, modality="MR", SeriesDescription="T1")
    square = np.array([[-10, -5, 0], [10, -5, 0], [10, 5, 0], [-10, 5, 0]], float)
    for label in ("first", "second"):
        write_contours(scans, {label: [square]}, label=f"{label} set")
    return scans


def call(folder: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["import", str(folder), "--store", str(folder.parent / "store"), *more])


def test_import_asks_which_and_lists_what_it_read(folder: Path) -> None:
    asked = call(folder)
    assert asked.exit_code == 2
    assert "CT 2 'Thorax early', 21 slices" in asked.output
    asked = call(folder, "--series", "late")
    assert asked.exit_code == 2
    assert "'second set', 1 structure," in asked.output
    done = call(folder, "--series", "late", "--structure-set", "second", "--name", "x")
    assert done.exit_code == 0, done.output
    assert "case 'x': CT of 32 × 16 × 21 voxels" in done.output
    assert "OTHER" not in done.output
    assert "second" in done.output
    assert "IMAGE     MR 8" in done.output
    assert "Thorax" not in done.output


def test_another_choice_is_another_case(folder: Path) -> None:
    outputs = [
        call(folder, "--series", series, "--structure-set", structure_set, "--quiet").exit_code
        for series, structure_set in (("2", "first"), ("3", "first"), ("3", "second"), ("3", "second"))
    ]
    assert outputs == [0, 0, 0, 0]
    assert len(list((folder.parent / "store" / "case").rglob("*.zip"))) == 3


def test_second_images_may_be_chosen(folder: Path) -> None:
    done = call(folder, "--series", "3", "--structure-set", "first", "--second", "2")
    assert done.exit_code == 0, done.output
    assert "IMAGE     CT 2                     in HU" in done.output
    assert "MR 8" not in done.output
    wrong = call(folder, "--series", "3", "--structure-set", "first", "--second", "T2")
    assert wrong.exit_code == 2
    assert "'T2' fits no second image series" in wrong.output
