"""Stoichiometric calibration against published numbers: NIST's electrons per gram, Schneider's HU of tissues."""

import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from engine.errors import StudyError
from engine.physics.hu_table import AIR_DENSITY, HuTable, load_hu_table
from engine.physics.kernel_calculation.sources import file_sha256
from engine.physics.stoichiometric import AIR, WATER, Calibration, Material, fit, reference_tissues

SCHNEIDER = (1.24e-3, 3.06e-5)
"""Schneider, Bortfeld and Schlegel, Phys Med Biol 45 (2000) 459: k1 and k2 of their scanner."""
TISSUES = {tissue.name: tissue for tissue in reference_tissues()}
PMMA = Material("PMMA", 1.19, {"H": 8.05, "C": 59.99, "O": 31.96})
PTFE = Material("PTFE", 2.2, {"C": 24.02, "F": 75.98})
POLYETHYLENE = Material("polyethylene", 0.93, {"H": 14.37, "C": 85.63})
# White's bone substitute, after ICRU Report 44.
SB3 = Material("SB3", 1.84, {"H": 3.10, "C": 31.26, "N": 0.99, "O": 37.57, "Cl": 0.05, "Ca": 27.03})
SUBSTITUTES = (PMMA, PTFE, POLYETHYLENE, SB3, WATER)


@pytest.mark.parametrize(
    ("tissue", "z_over_a"),
    [
        ("adipose tissue", 0.55579),
        ("blood", 0.54999),
        ("brain", 0.55239),
        ("breast", 0.55196),
        ("cortical bone", 0.51478),
        ("lung tissue", 0.55048),
        ("skeletal muscle", 0.55000),
    ],
)
def test_electrons_per_gram_are_those_of_nist(tissue: str, z_over_a: float) -> None:
    """NIST, X-Ray Mass Attenuation Coefficients (NISTIR 5632), table 2, materials of ICRU Report 44."""
    found = TISSUES[tissue]
    assert found.terms()[0] / found.density_g_cm3 == pytest.approx(z_over_a, abs=2e-5)


def test_hu_of_tissues_are_those_that_schneider_published() -> None:
    """Schneider et al. 2000, the HU that their interpolations between tissues begin and end with."""
    adipose_3 = Material(
        "adipose 3", 0.93, {"H": 11.6, "C": 68.1, "N": 0.2, "O": 19.8, "Na": 0.1, "S": 0.1, "Cl": 0.1}
    )
    assert adipose_3.hu(*SCHNEIDER) == pytest.approx(-98.0, abs=1.0)
    assert TISSUES["cortical bone"].hu(*SCHNEIDER) == pytest.approx(1524.0, abs=1.0)
    # Their line through bones: density = 1.017 + 0.592e-3 HU.
    for name in ("vertebral column, whole", "femur, whole", "cranium", "mandible", "cortical bone"):
        tissue = TISSUES[name]
        assert 1.017 + 0.592e-3 * tissue.hu(*SCHNEIDER) == pytest.approx(tissue.density_g_cm3, abs=0.005)


def test_air_is_the_air_of_the_tables() -> None:
    assert AIR.relative_electron_density == pytest.approx(AIR_DENSITY, rel=0.005)


def test_a_scanner_is_found_again_and_the_better_the_less_noise() -> None:
    truth = (1.9e-3, 4.1e-5)
    exact = fit([(m, m.hu(*truth)) for m in SUBSTITUTES])
    assert (exact.coherent, exact.photo) == pytest.approx(truth, rel=1e-4)
    assert exact.largest_hu < 0.01
    draw = np.random.default_rng(3)
    noisy = fit([(m, m.hu(*truth) + draw.normal(0.0, 5.0)) for m in SUBSTITUTES])
    assert 0.5 < noisy.rms_hu < 10.0
    # What counts is the density of tissues.
    hu, density = exact.table()
    np.testing.assert_allclose(np.interp(hu, *noisy.table()), density, rtol=0.01, atol=0.002)


def test_the_table_never_falls_and_knows_its_tissues() -> None:
    calibration = Calibration(*SCHNEIDER, 5, 0.0, 0.0)
    hu, density = calibration.table()
    table = HuTable("t", tuple(hu), tuple(density))  # refuses what is out of order
    for tissue in TISSUES.values():
        found = table.density_at(tissue.hu(*SCHNEIDER))
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
    for m in SUBSTITUTES:
        parts = ", ".join(f"{symbol} = {percent}" for symbol, percent in m.mass_percent.items())
        text += [
            "[[measured]]", f'name = "{m.name}"', f"hu = {m.hu(*SCHNEIDER):.0f}",
            f"density_g_cm3 = {m.density_g_cm3}", f"mass_percent = {{ {parts} }}",
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
    ],
)  # fmt: skip
def test_files_that_are_wrong_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "scanner.toml").write_text(text)
    with pytest.raises(StudyError, match=message):
        load_hu_table("scanner.toml", tmp_path)


def test_measurements_that_cannot_be_are_refused() -> None:
    measured = [(m, m.hu(*SCHNEIDER)) for m in SUBSTITUTES]
    with pytest.raises(StudyError, match="no scanner sees"):
        fit([(m, -hu if m is PTFE else hu) for m, hu in measured])
    with pytest.raises(StudyError, match="bone substitute"):
        fit([(m, min(hu, 300.0)) for m, hu in measured])
    with pytest.raises(StudyError, match="add up to 50 %"):
        Material("half", 1.0, {"H": 50.0})
    with pytest.raises(StudyError, match="unknown elements"):
        Material("odd", 1.0, {"Xx": 100.0})


def test_the_tissues_are_those_that_the_list_of_sources_names() -> None:
    folder = files("engine.physics").joinpath("data")
    entry = tomllib.loads(folder.joinpath("SOURCES.toml").read_text())["tissues_icru.toml"]
    assert file_sha256(Path(str(folder)) / "tissues_icru.toml") == entry["sha256"]
