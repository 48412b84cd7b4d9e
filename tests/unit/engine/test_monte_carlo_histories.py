"""Histories of the Monte Carlo: conservation, statistics, and limits that are known exactly."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import chi2

from engine.errors import DoseError
from engine.model.arrays import F64
from engine.physics.attenuation import mass_attenuation
from engine.physics.materials import MATERIALS
from engine.physics.monte_carlo.beam import Beam, Rectangle, build_beam, emit
from engine.physics.monte_carlo.elastic import SINGLE_ONE_MINUS_COS, cosine_of_transfer, deflections
from engine.physics.monte_carlo.electron_transport import follow_electron
from engine.physics.monte_carlo.histories import run_histories
from engine.physics.monte_carlo.particles import ELECTRON, ENERGY, KIND, PARTICLE_SIZE, VOXEL_X, W, X, Y, Z
from engine.physics.monte_carlo.photon_transport import fly
from engine.physics.monte_carlo.random_numbers import seed_history
from engine.physics.monte_carlo.tables import (
    HARD,
    HARD_COLLISION,
    HARD_RADIATIVE,
    LOSS,
    SOFT_STRENGTH,
    SPREAD,
    STEP_STRENGTH,
    STRAGGLING,
    Settings,
    Tables,
    build_tables,
)
from engine.physics.monte_carlo.voxels import Voxels, build_voxels
from engine.physics.stopping_power import collision_stopping_power, csda_range_g_cm2
from engine.units import CM_PER_MM, MM3_PER_CM3, MM_PER_CM

AVOGADRO = 6.02214076e23
MATERIAL_NAMES = ("water", "lung-inflated", "bone-cortical", "titanium")


@pytest.fixture(scope="module")
def tables() -> Tables:
    return build_tables([MATERIALS[name] for name in MATERIAL_NAMES], 12.0, Settings(0.2, 0.05))


def mixed_voxels(tables: Tables) -> Voxels:
    """Return 20 voxels of 5 mm in each direction, of random materials."""
    material = np.random.default_rng(3).integers(0, len(MATERIAL_NAMES), (20, 20, 20)).astype(np.uint8)
    density = np.array([MATERIALS[name].density_g_cm3 for name in MATERIAL_NAMES], dtype=np.float32)[material]
    return build_voxels(material, density, (5.0, 5.0, 5.0), tables)


def uniform_voxels(
    tables: Tables, shape_zyx: tuple[int, int, int], size_mm: tuple[float, float, float]
) -> Voxels:
    return build_voxels(np.zeros(shape_zyx, np.uint8), np.ones(shape_zyx, np.float32), size_mm, tables)


def beam_of(energy_mev: float, *, photons: bool, distance_mm: float = math.inf) -> Beam:
    one = np.array([energy_mev])
    return build_beam(
        Rectangle(20.0, 80.0, 20.0, 80.0),
        one,
        one,
        np.ones(1),
        photons=photons,
        source_distance_mm=distance_mm,
    )


@pytest.mark.parametrize("photons", [True, False])
def test_every_history_leaves_or_loses_the_energy_of_its_particle(tables: Tables, photons: bool) -> None:
    voxels = mixed_voxels(tables)
    beam = beam_of(12.0, photons=photons, distance_mm=1000.0)
    for history in range(150):
        tally = run_histories(beam, voxels, tables, first_history=history, n_history=1, seed=5)
        # Some hundred deposits, each rounded to 2**-30 MeV.
        assert abs(tally.lost_mev()) < 1.0e-6
        assert tally.energy.sum() > 0 or tally.escaped > 0


def test_the_tally_does_not_depend_on_how_histories_are_cut(tables: Tables) -> None:
    voxels = mixed_voxels(tables)
    beam = beam_of(6.0, photons=True)
    whole = run_histories(beam, voxels, tables, first_history=0, n_history=900, seed=5)
    parts = [
        run_histories(beam, voxels, tables, first_history=first, n_history=n, seed=5)
        for first, n in ((400, 500), (0, 1), (1, 399))
    ]
    merged = parts[0].merged(parts[1]).merged(parts[2])
    np.testing.assert_array_equal(merged.energy, whole.energy)
    np.testing.assert_array_equal(merged.square, whole.square)
    assert (merged.n_history, merged.started, merged.escaped) == (
        whole.n_history,
        whole.started,
        whole.escaped,
    )


def test_the_standard_error_is_that_of_independent_batches(tables: Tables) -> None:
    voxels = uniform_voxels(tables, (10, 10, 10), (10.0, 10.0, 10.0))
    beam = beam_of(12.0, photons=False)
    batches = [
        run_histories(beam, voxels, tables, first_history=300 * batch, n_history=300, seed=9)
        for batch in range(30)
    ]
    energy = np.array([batch.energy_mev() for batch in batches])
    told2 = np.mean([batch.standard_error_mev() ** 2 for batch in batches], axis=0)
    hit = energy.mean(axis=0) > 0.3 * energy.mean(axis=0).max()
    # Some 150 voxels in 30 batches: their mean ratio of variances scatters by about 3 %.
    assert np.mean(energy.var(axis=0, ddof=1)[hit] / told2[hit]) == pytest.approx(1.0, abs=0.12)


def test_photons_collide_first_where_attenuation_says(tables: Tables) -> None:
    # Slabs of water, bone, lung and titanium, 20 mm each, again and again.
    slab = np.arange(20) // 4 % 4
    order = np.array([0, 2, 1, 3], dtype=np.uint8)
    density = np.array([MATERIALS[name].density_g_cm3 for name in MATERIAL_NAMES])
    material = np.broadcast_to(order[slab][:, None, None], (20, 1, 1))
    voxels = build_voxels(
        np.ascontiguousarray(material),
        np.ascontiguousarray(density[material], dtype=np.float32),
        (1000.0, 1000.0, 5.0),
        tables,
    )
    place = (math.log(2.0) - tables.photon_log_low) * tables.photon_per_log
    row = int(place)
    photon = np.zeros(PARTICLE_SIZE)
    random_state = np.zeros(1, dtype=np.uint64)
    n_photon = 40_000
    count = np.zeros(21)
    for history in range(n_photon):
        seed_history(random_state, np.uint64(1), np.uint64(history))
        photon[:] = 0.0
        photon[X], photon[2], photon[W] = 500.0, 500.0, 1.0
        inside = fly(photon, row, place - row, voxels, tables, random_state)
        count[int(photon[Z] / 5.0) if inside else 20] += 1
    at_2_mev = [mass_attenuation(MATERIALS[name], np.array([2.0])) for name in MATERIAL_NAMES]
    per_mm = np.array([(a.total - a.coherent)[0] for a in at_2_mev]) * CM_PER_MM * density
    reached = np.exp(-np.concatenate([[0.0], np.cumsum(per_mm[order[slab]] * 5.0)]))
    expected = n_photon * np.append(-np.diff(reached), reached[-1])
    # Odds of a false alarm 1e-4, if the seed were not fixed.
    assert np.sum((count - expected) ** 2 / expected) < chi2.ppf(1.0 - 1.0e-4, 20)
    assert count[20] / n_photon == pytest.approx(reached[-1], rel=4.0 / math.sqrt(expected[20]))


def test_electrons_that_only_lose_energy_go_as_far_as_estar_says(tables: Tables) -> None:
    # All losses continuous, no deflection: what is left at the cut-off lies at the difference of two ranges.
    energies = np.exp(tables.electron_log_low + np.arange(tables.electron.shape[2]) / tables.electron_per_log)
    electron = tables.electron.copy()
    water = MATERIALS["water"]
    electron[0, 0, :, LOSS] = collision_stopping_power(water, energies) * CM_PER_MM
    electron[..., SOFT_STRENGTH] = 1.0e-9
    electron[..., STEP_STRENGTH] = 1.0e-9
    electron[..., HARD] = 1.0e-12
    electron[..., STRAGGLING] = 0.0
    straight = tables._replace(electron=electron)
    voxels = uniform_voxels(tables, (700, 1, 1), (100.0, 100.0, 0.1))
    tally = run_histories(
        beam_of(12.0, photons=False), voxels, straight, first_history=0, n_history=1, seed=1
    )
    deepest_mm = 0.1 * (np.flatnonzero(tally.energy[:, 0, 0])[-1] + 0.5)
    grid_mev = np.geomspace(0.2, 12.0, 4001)
    inverse = grid_mev / (collision_stopping_power(water, grid_mev) * CM_PER_MM)
    expected_mm = float(np.trapezoid(inverse, np.log(grid_mev)))
    assert deepest_mm == pytest.approx(expected_mm, rel=0.002)
    # With the radiative loss it is the range of ESTAR, 5.89 g/cm2; what radiation takes, its yield says.
    range_mm = MM_PER_CM * np.diff(csda_range_g_cm2(water, np.array([0.2, 12.0])))[0]
    assert expected_mm == pytest.approx(range_mm, rel=0.09)


@pytest.mark.parametrize("strength", [0.02, 0.1])
def test_deflections_along_a_path_are_those_of_goudsmit_and_saunderson(strength: float) -> None:
    # An electron of 1 MeV loses next to nothing on a path of fixed length: it ends where a constant loss has taken it
    # to a cut-off of 0.999 MeV. The distribution of its direction is known exactly, by Legendre moments.
    water, energy_mev, path_mm = MATERIALS["water"], 1.0, 3.0
    tables = build_tables([water], 3.0, Settings(0.999, 0.05, step_strength=strength))
    place = (math.log(energy_mev) - tables.electron_log_low) * tables.electron_per_log
    row = int(place)
    here = tables.electron[0, 0, row] + (place - row) * (
        tables.electron[0, 0, row + 1] - tables.electron[0, 0, row]
    )
    elastic = here[HARD] * (1.0 - here[HARD_COLLISION])
    electron = tables.electron.copy()
    electron[..., LOSS] = 0.001 / path_mm
    electron[..., STRAGGLING] = 0.0
    electron[..., SOFT_STRENGTH] = here[SOFT_STRENGTH]
    electron[..., STEP_STRENGTH] = strength
    electron[..., SPREAD] = here[SPREAD]
    electron[..., HARD] = elastic
    electron[..., HARD_RADIATIVE] = electron[..., HARD_COLLISION] = 0.0
    tables = tables._replace(electron=electron)
    # A flight that passes the end of the path goes on to the next face: small voxels end it soon.
    voxels = uniform_voxels(tables, (80, 80, 80), (0.1, 0.1, 0.1))
    n_electron = 20_000
    cosine, gone_mm = np.empty(n_electron), np.empty(n_electron)
    particle, stack = np.zeros(PARTICLE_SIZE), np.zeros((8, PARTICLE_SIZE))
    rows, counts = np.zeros((80**3, 4), dtype=np.int64), np.zeros(2, dtype=np.int64)
    random_state = np.zeros(1, dtype=np.uint64)
    for history in range(n_electron):
        seed_history(random_state, np.uint64(2), np.uint64(history))
        particle[:] = 0.0
        particle[ENERGY], particle[KIND], particle[W] = energy_mev, ELECTRON, 1.0
        particle[X : X + 3], particle[VOXEL_X : VOXEL_X + 3] = 4.05, 40.0
        follow_electron(particle, history, voxels, tables, stack, 0, rows, counts, random_state)
        cosine[history] = particle[W]
        gone_mm[history] = (energy_mev - particle[ENERGY]) * path_mm / 0.001
    assert gone_mm.mean() == pytest.approx(path_mm, rel=0.03)
    expected = legendre_means(energy_mev, float(gone_mm.mean()), 8)
    for order, mean in enumerate(expected, 1):
        polynomial = np.polynomial.legendre.Legendre.basis(order)(cosine)
        error = polynomial.std() / math.sqrt(n_electron)
        # Four standard errors (odds 6e-5), and 0.002 for the tail that the Gaussian of a step does not have.
        assert polynomial.mean() == pytest.approx(mean, abs=4.0 * error + 0.002), f"order {order}"


def legendre_means(energy_mev: float, path_mm: float, n_order: int) -> F64:
    """Return the means of the Legendre polynomials 1 to n of the direction's cosine (Goudsmit and Saunderson 1940)."""
    exponent = np.zeros(n_order)
    largest = 1.0 - cosine_of_transfer(energy_mev, 0.5 * energy_mev)
    for atomic_number, mol_per_g in MATERIALS["water"].atoms():
        per_mm3 = mol_per_g * AVOGADRO / MM3_PER_CM3
        for charge2, end, mott in ((atomic_number**2, 2.0, True), (atomic_number, largest, False)):
            for low, high in itertools.pairwise((0.0, min(end, SINGLE_ONE_MINUS_COS), end)):
                x, density = deflections(energy_mev, atomic_number, low, high, mott=mott)
                for order in range(1, n_order + 1):
                    lost = 1.0 - np.polynomial.legendre.Legendre.basis(order)(1.0 - x)
                    exponent[order - 1] += per_mm3 * charge2 * np.trapezoid(density * lost, x)
    return np.exp(-exponent * path_mm)


def test_a_point_source_is_even_in_solid_angle() -> None:
    beam = beam_of(1.0, photons=True, distance_mm=30.0)
    particle, random_state = np.zeros(PARTICLE_SIZE), np.zeros(1, dtype=np.uint64)
    count = np.zeros((6, 6))
    n_photon = 30_000
    for _ in range(n_photon):
        emit(beam, particle, random_state)
        count[int(particle[Y] / 10.0) - 2, int(particle[X] / 10.0) - 2] += 1
    # The solid angle of a rectangle that begins under the source (Khadjavi, J. Opt. Soc. Am. 58 (1968) 1417).
    edge = (np.arange(7) * 10.0 - 30.0) / 30.0
    x, y = np.meshgrid(edge, edge)
    corner = np.arctan(x * y / np.sqrt(1.0 + x**2 + y**2))
    solid_angle = np.diff(np.diff(corner, axis=0), axis=1)
    expected = n_photon * solid_angle / solid_angle.sum()
    assert np.sum((count - expected) ** 2 / expected) < chi2.ppf(1.0 - 1.0e-4, 35)


def test_energy_that_the_tables_do_not_reach_is_refused(tables: Tables) -> None:
    with pytest.raises(DoseError, match="up to the beam's highest energy"):
        run_histories(
            beam_of(15.0, photons=True), mixed_voxels(tables), tables, first_history=0, n_history=1, seed=1
        )


def test_a_voxel_of_vacuum_is_refused(tables: Tables) -> None:
    with pytest.raises(DoseError, match="give air its own"):
        build_voxels(np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1), np.float32), (1.0, 1.0, 1.0), tables)


def test_cut_offs_of_photons_above_those_of_electrons_are_refused() -> None:
    with pytest.raises(DoseError, match="not above the electrons'"):
        Settings(electron_cutoff_mev=0.1, photon_cutoff_mev=0.2)
