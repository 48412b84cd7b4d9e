import re
from pathlib import Path

import numpy as np
import pytest

from engine.errors import StudyError
from engine.physics.hu_table import AIR_DENSITY, HuTable, load_hu_table

TABLE = HuTable("t", (-1000.0, 0.0, 1000.0), (0.001, 1.0, 1.6))


def test_densities_lie_on_straight_lines_between_the_rows() -> None:
    hu = np.array([[-1000.0, -500.0], [0.0, 250.0]], np.float32)
    np.testing.assert_allclose(TABLE.density_of(hu), [[0.001, 0.5005], [1.0, 1.15]], rtol=1e-6)
    assert TABLE.density_of(hu).dtype == np.float32


def test_end_values_hold_beyond_the_table() -> None:
    np.testing.assert_allclose(
        TABLE.density_of(np.array([-3024.0, 8000.0], np.float32)), [0.001, 1.6], rtol=1e-6
    )


def test_built_in_table_knows_air_and_water(tmp_path: Path) -> None:
    table = load_hu_table("phantom", tmp_path)
    np.testing.assert_allclose(
        table.density_of(np.array([-1000.0, 0.0], np.float32)), [AIR_DENSITY, 1.0], rtol=1e-6
    )
    # Electrons per gram: nitrogen, oxygen and argon by mass 0.755, 0.231, 0.013 (NIST); water 10 / 18.015.
    per_gram = 0.7553 * 7 / 14.007 + 0.2318 * 8 / 15.999 + 0.0128 * 18 / 39.948
    assert pytest.approx(0.001205 * per_gram / (10 / 18.015), rel=0.005) == AIR_DENSITY


def test_table_is_read_from_a_file_with_comments(tmp_path: Path) -> None:
    (tmp_path / "ct.csv").write_text(
        "# scanner, 120 kV\nhu,relative_electron_density\n-1000,0.001\n0,1\n1000,1.6\n"
    )
    table = load_hu_table("ct.csv", tmp_path)
    assert table == HuTable("ct.csv", TABLE.hu, TABLE.density)


def test_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"'scanner.csv' is neither built in \(phantom\) nor a file"):
        load_hu_table("scanner.csv", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "hu,density\n0,1\n1,2\n",
        "hu,relative_electron_density\n0,one\n1,2\n",
        "hu,relative_electron_density\n0\n1,2\n",
    ],
)
def test_unreadable_table_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ct.csv").write_text(text)
    with pytest.raises(StudyError, match="cannot be read"):
        load_hu_table("ct.csv", tmp_path)


@pytest.mark.parametrize(
    ("hu", "density", "message"),
    [
        ((0.0,), (1.0,), "two rows"),
        ((0.0, 1.0), (1.0,), "two rows"),
        ((0.0, 0.0), (1.0, 2.0), "must rise"),
        ((0.0, 1.0), (1.0, float("nan")), "not finite"),
        ((0.0, 1.0), (-0.1, 1.0), "negative"),
        ((0.0, 1.0), (1.0, 0.9), "fall"),
    ],
)
def test_table_without_sense_is_refused(
    hu: tuple[float, ...], density: tuple[float, ...], message: str
) -> None:
    with pytest.raises(StudyError, match=message):
        HuTable("t", hu, density)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "hu,relative_electron_density\n-1000,0,001\n0,0,98\n1000,1,6\n",
            "'-1000,0,001' has 3 numbers: a decimal comma?",
        ),
        ("hu;relative_electron_density\n-1000;0,001\n", "its first line is 'hu;relative_electron_density'"),
        ("", "its first line is ''"),
        ("hu,relative_electron_density\n-1000\n", "has 1 numbers"),
    ],
)
def test_commas_that_make_other_numbers_of_a_table_are_refused(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(StudyError, match=re.escape(message)):
        load_hu_table("table.csv", tmp_path)
