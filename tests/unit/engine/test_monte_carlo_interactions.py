"""Single interactions of the Monte Carlo against theory."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2

from engine.model.arrays import F64
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV
from engine.physics.materials import MATERIALS
from engine.physics.monte_carlo.collisions import (
    collision_moment,
    collisions_per_mev_mm,
    largest_transfer_mev,
)
from engine.physics.monte_carlo.elastic import SINGLE_ONE_MINUS_COS, deflections
from engine.physics.monte_carlo.interactions import (
    bhabha_knock_on_mev,
    compton_photon_mev,
    hard_deflection_cosine,
    knock_on_mev,
    quantile,
)
from engine.physics.monte_carlo.radiation import (
    bremsstrahlung_quantiles,
    bremsstrahlung_shape,
    bremsstrahlung_split,
    pair_quantiles,
    pair_shape,
)
from engine.physics.monte_carlo.tables import Settings, build_tables
from engine.physics.stopping_power import Charge, collision_stopping_power
from engine.units import CM_PER_MM

WATER = MATERIALS["water"]
BONE = MATERIALS["bone-cortical"]
N_DRAW = 20_000
ODDS = 1.0e-4
"""Of a false alarm, if the seeds were not fixed."""


def assert_distributed(drawn: F64, place: F64, density: F64, n_bin: int = 40) -> None:
    """Compare numbers with a density by chi-square, in bins that hold equal shares of the density."""
    summed = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(place))])
    edges = np.interp(np.linspace(0.0, 1.0, n_bin + 1), summed / summed[-1], place)
    # What rounding leaves outside the ends belongs to the first and the last bin.
    counts = np.histogram(np.clip(drawn, edges[0], edges[-1]), edges)[0]
    statistic = float(np.sum((counts - drawn.size / n_bin) ** 2) / (drawn.size / n_bin))
    assert statistic < chi2.ppf(1.0 - ODDS, n_bin - 1)


def draws(sample: Callable[[np.ndarray], float]) -> F64:
    random_state = np.zeros(1, dtype=np.uint64)
    return np.array([sample(random_state) for _ in range(N_DRAW)])


@pytest.mark.parametrize("energy_mev", [0.06, 0.6, 6.0])
def test_compton_photons_are_distributed_as_klein_and_nishina_say(energy_mev: float) -> None:
    kept = np.linspace(1.0 / (1.0 + 2.0 * energy_mev / ELECTRON_REST_ENERGY_MEV), 1.0, 20_001)
    cosine = 1.0 - ELECTRON_REST_ENERGY_MEV / energy_mev * (1.0 / kept - 1.0)
    drawn = draws(lambda state: compton_photon_mev(energy_mev, state)) / energy_mev
    assert_distributed(drawn, kept, kept + 1.0 / kept - 1.0 + cosine**2)


@pytest.mark.parametrize("energy_mev", [0.5, 10.0])
def test_knocked_on_electrons_are_distributed_as_moller_says(energy_mev: float) -> None:
    transfer_mev = np.geomspace(0.2, 0.5 * energy_mev, 20_001)
    expected = collisions_per_mev_mm(WATER, energy_mev, transfer_mev, Charge.ELECTRON)
    assert_distributed(draws(lambda state: knock_on_mev(energy_mev, 0.2, state)), transfer_mev, expected)


@pytest.mark.parametrize("energy_mev", [0.5, 10.0])
def test_electrons_knocked_on_by_positrons_are_distributed_as_bhabha_says(energy_mev: float) -> None:
    transfer_mev = np.geomspace(0.2, energy_mev, 20_001)
    expected = collisions_per_mev_mm(WATER, energy_mev, transfer_mev, Charge.POSITRON)
    assert_distributed(
        draws(lambda state: bhabha_knock_on_mev(energy_mev, 0.2, state)), transfer_mev, expected
    )


@pytest.mark.parametrize("energy_mev", [1.0, 10.0])
def test_bremsstrahlung_photons_are_distributed_as_the_cross_section_says(energy_mev: float) -> None:
    quantiles = bremsstrahlung_quantiles(WATER.atoms(), np.array([energy_mev, 2.0 * energy_mev]), 0.05)
    log_photon = np.linspace(math.log(0.05), math.log(energy_mev), 20_001)
    drawn = draws(lambda state: quantile(quantiles, 0.0, state)) * math.log(energy_mev / 0.05)
    shape = bremsstrahlung_shape(WATER.atoms(), energy_mev, np.exp(log_photon))
    assert_distributed(drawn + math.log(0.05), log_photon, shape)


@pytest.mark.parametrize("photon_mev", [1.1, 3.0, 15.0])
def test_pairs_share_their_energy_as_the_cross_section_says(photon_mev: float) -> None:
    quantiles = pair_quantiles(WATER.atoms(), np.array([photon_mev, 2.0 * photon_mev]))
    share = np.linspace(0.0, 1.0, 20_001)
    drawn = draws(lambda state: quantile(quantiles, 0.0, state))
    assert_distributed(drawn, share, pair_shape(WATER.atoms(), photon_mev, share))


@pytest.mark.parametrize("charge", Charge)
@pytest.mark.parametrize("energy_mev", [0.3, 6.0])
def test_large_deflections_are_distributed_as_screened_mott_scattering(
    charge: Charge, energy_mev: float
) -> None:
    tables = build_tables([BONE], 12.0, Settings())
    arguments = (
        energy_mev,
        1.0 if charge is Charge.ELECTRON else -1.0,
        0,
        tables.heaviest,
        tables.element_share,
        tables.element_number,
        tables.element_screening_mev2,
    )
    cosine = draws(lambda state: hard_deflection_cosine(*arguments, state))
    x = np.geomspace(SINGLE_ONE_MINUS_COS, 2.0, 4001)
    expected = np.zeros_like(x)
    for atomic_number, mol_per_g in BONE.atoms():
        nodes, density = deflections(
            energy_mev, atomic_number, SINGLE_ONE_MINUS_COS, 2.0, mott=True, charge=charge
        )
        expected += mol_per_g * atomic_number**2 * np.interp(x, nodes, density)
    collided = cosine < 1.0
    assert_distributed(1.0 - cosine[collided], x, expected)


def test_photons_and_quiet_losses_of_bremsstrahlung_make_up_the_radiated_energy() -> None:
    per_mev, quiet = bremsstrahlung_split(WATER.atoms(), 5.0, 0.05)
    quantiles = bremsstrahlung_quantiles(WATER.atoms(), np.array([5.0, 6.0]), 0.05)
    mean_mev = float(
        np.mean(
            0.05 * (5.0 / 0.05) ** np.interp(np.linspace(0, 1, 9001), np.linspace(0, 1, 129), quantiles[0])
        )
    )
    # 129 quantiles, straight in between, give the mean to a tenth of a percent.
    assert per_mev * mean_mev + quiet == pytest.approx(1.0, abs=2e-3)


def test_soft_losses_of_electrons_and_positrons_are_the_same() -> None:
    # Both lose by many small transfers alike; exchange and annihilation show in large ones only. So the formulas for
    # stopping (ICRU 37) less those for collisions (Moller, Bhabha) must agree.
    energy_mev, cutoff_mev = 5.0, 0.001
    soft = [
        collision_stopping_power(WATER, np.array([energy_mev]), charge)[0] * CM_PER_MM
        - collision_moment(
            WATER,
            energy_mev,
            cutoff_mev,
            float(largest_transfer_mev(np.float64(energy_mev), charge)),
            1,
            charge,
        )
        for charge in Charge
    ]
    # Terms of the order of the cut-off over the energy differ, 2e-4, and the integrals are good to 1e-4.
    assert soft[0] == pytest.approx(soft[1], rel=1e-3)
