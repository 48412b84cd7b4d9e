"""Stoichiometric calibration against published numbers: Schneider's HU of tissues."""

from pathlib import Path

import numpy as np
import pytest

from engine.errors import StudyError
from engine.physics.hu_table import AIR_DENSITY, HuTable, load_hu_table
from engine.physics.materials import MATERIALS
from engine.physics.stoichiometric import SCHNEIDER, TABLE_MATERIALS, Calibration, fit, hu, substitute

TISSUES = [MATERIALS[name] for name in TABLE_MATERIALS if name not in ("air", "water")]
# Name, density and parts by mass in per cent; SB3 is White's bone substitute, after ICRU Report 44.
PRINTED = (
    ("PMMA", 1.19, {"H": 8.05, "C": 59.99, "O": 31.96}),
    ("PTFE", 2.2, {"C": 24.02, "F": 75.98}),
    ("polyethylene", 0.93, {"H": 14.37, "C": 85.63}),
    ("SB3", 1.84, {"H": 3.10, "C": 31.26, "N": 0.99, "O": 37.57, "Cl": 0.05, "Ca": 27.03}),
    ("water", 1.0, {"H": 11.19, "O": 88.81}),
)
ONE = 'kind = "stoichiometric"\n[[measured]]\nname = "half"\nhu = 0\ndensity_g_cm3 = 1.0\nmass_percent = '
SUBSTITUTES = tuple(substitute(*printed) for printed in PRINTED)


def test_hu_of_tissues_are_those_that_schneider_published() -> None:
    """Schneider et al. 2000, the HU that their interpolations between tissues begin and end with."""
    adipose_3 = substitute(
        "adipose 3", 0.93, {"H": 11.6, "C": 68.1, "N": 0.2, "O": 19.8, "Na": 0.1, "S": 0.1, "Cl": 0.1}
    )
    assert hu(adipose_3, *SCHNEIDER) == pytest.approx(-98.0, abs=1.0)
    assert hu(MATERIALS["bone-cortical"], *SCHNEIDER) == pytest.approx(1524.0, abs=1.0)
    # Their line through bones: density = 1.017 + 0.592e-3 HU.
    for name in ("vertebral-column", "femur", "cranium", "mandible", "bone-cortical"):
        tissue = MATERIALS[name]
        assert 1.017 + 0.592e-3 * hu(tissue, *SCHNEIDER) == pytest.approx(tissue.density_g_cm3, abs=0.005)


def test_air_is_the_air_of_the_tables() -> None:
    assert MATERIALS["air"].relative_electron_density == pytest.approx(AIR_DENSITY, rel=0.005)


def test_a_scanner_is_found_again_and_the_better_the_less_noise() -> None:
    truth = (1.9e-3, 4.1e-5)
    exact = fit([(m, hu(m, *truth)) for m in SUBSTITUTES])
    assert (exact.coherent, exact.photo) == pytest.approx(truth, rel=1e-4)
    assert exact.largest_hu < 0.01
    draw = np.random.default_rng(3)
    noisy = fit([(m, hu(m, *truth) + draw.normal(0.0, 5.0)) for m in SUBSTITUTES])
    assert 0.5 < noisy.rms_hu < 10.0
    # What counts is the density of tissues.
    hus, density = exact.table()
    np.testing.assert_allclose(np.interp(hus, *noisy.table()), density, rtol=0.01, atol=0.002)


def test_the_table_never_falls_and_knows_its_tissues() -> None:
    calibration = Calibration(*SCHNEIDER, 5, 0.0, 0.0)
    hus, density = calibration.table()
    table = HuTable("t", tuple(hus), tuple(density))  # refuses what is out of order
    for tissue in TISSUES:
        found = table.density_at(hu(tissue, *SCHNEIDER))
        assert found == pytest.approx(tissue.relative_electron_density, rel=0.016)
    assert table.density_at(0.0) == pytest.approx(1.0)


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    (tmp_path / "lines.toml").write_text(
        'kind = "two_lines"\nbelow = [-1000, 0.001]\njoin = [0, 1.0]\nabove = [2000, 2.0]\n'
    )
    lines = load_hu_table("lines.toml", tmp_path)
    assert lines.density_at(1000.0) == pytest.approx(1.5)
    assert lines.told == "lines.toml (two lines, 3 points)"
    text = ['kind = "stoichiometric"']
    for printed, material in zip(PRINTED, SUBSTITUTES, strict=True):
        name, density, mass_percent = printed
        parts = ", ".join(f"{symbol} = {percent}" for symbol, percent in mass_percent.items())
        text += [
            "[[measured]]", f'name = "{name}"', f"hu = {hu(material, *SCHNEIDER):.0f}",
            f"density_g_cm3 = {density}", f"mass_percent = {{ {parts} }}",
        ]  # fmt: skip
    (tmp_path / "scanner.toml").write_text("\n".join(text))
    table = load_hu_table("scanner.toml", tmp_path)
    assert table.told.startswith(
        "scanner.toml (stoichiometric calibration with 5 substitutes, k_coherent 0.0012"
    )
    assert table.density_at(1524.0) == pytest.approx(1.7806, abs=0.003)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('kind = "bilinear"', "neither 'two_lines' nor 'stoichiometric'"),
        ('kind = "two_lines"\nbelow = [-1000, 0.0]\njoin = [0, 1]', "cannot be read .*'above'"),
        ('kind = "two_lines"\nbelow = [0, 0.0]\njoin = [0, 1]\nabove = [9, 2]', "the HU column must rise"),
        ('kind = "two_lines"\nbelow = [-1, 0.0]\njoin = [0, 1]\nabove = [9, 2]\nnext = 1', "mean nothing here: next"),
        ('kind = "stoichiometric"\nmeasured = []', "at least 4 substitutes"),
        (ONE + "{ H = 50 }", "scanner.toml: material 'half': .* add up to 50 %"),
        (ONE + "{ Xx = 100 }", "scanner.toml: material 'half' holds Xx, which is no element"),
    ],
)  # fmt: skip
def test_files_that_are_wrong_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scanner.toml").write_text(text)
    with pytest.raises(StudyError, match=message):
        load_hu_table("scanner.toml", tmp_path)


def test_measurements_that_cannot_be_are_refused() -> None:
    measured = [(m, hu(m, *SCHNEIDER)) for m in SUBSTITUTES]
    with pytest.raises(StudyError, match="no scanner sees"):
        fit([(m, -seen if m.name == "PTFE" else seen) for m, seen in measured])
    with pytest.raises(StudyError, match="bone substitute"):
        fit([(m, min(seen, 300.0)) for m, seen in measured])
