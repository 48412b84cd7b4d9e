"""The photon kernel's loader, and the parts of its calculation on problems with known answers."""

import tomllib
from importlib.resources import as_file, files

import numpy as np
import pytest

from engine.errors import DoseError
from engine.model.arrays import F64
from engine.physics.kernel_calculation.gaussian_fit import SIGMA_MM, fit_gaussians, ring_share
from engine.physics.kernel_calculation.pencil_kernel import (
    DEPTH_MM,
    histories_per_interval,
    strung_along_pencil,
)
from engine.physics.kernel_calculation.point_kernel import (
    RING_EDGES_MM,
    SLAB_MM,
    Z_HIGH_MM,
    Z_LOW_MM,
    PointKernel,
    point_kernel,
)
from engine.physics.kernel_calculation.water_tables import attenuation_per_mm, load_water_tables
from engine.physics.monte_carlo.random_numbers import seed_history, uniform
from engine.physics.photon_kernel import PhotonKernel, load_photon_kernel
from engine.physics.sources import SOURCES_FILE, file_sha256
from engine.physics.spectrum import load_spectrum
from engine.units import GY_PER_MEV_G, MM3_PER_CM3


def small_kernel(**changes: F64) -> PhotonKernel:
    fields = {
        "depth_mm": np.array([0.0, 10.0]),
        "sigma_mm": np.array([1.0, 10.0]),
        "weight_gy_mm2": np.array([[3.0, 1.0], [1.0, 1.0]]),
    }
    return PhotonKernel(name="small", **(fields | changes))


def test_kernel_table_reaches_40_cm_and_covers_the_build_up() -> None:
    kernel = load_photon_kernel("mohan_6mv")
    assert kernel.depth_mm[-1] == 400.0
    assert np.diff(kernel.depth_mm[kernel.depth_mm <= 30.0]).max() <= 1.0
    broad = kernel.weight_gy_mm2.sum(axis=1)
    assert 10.0 < kernel.depth_mm[broad.argmax()] < 20.0


def test_unknown_kernel_is_refused_with_the_known_names() -> None:
    with pytest.raises(DoseError, match=r"no photon kernel 'mohan_18mv'.*choose one of mohan_6mv"):
        load_photon_kernel("mohan_18mv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma_mm": np.array([1.0, 2.0, 3.0])}, "weights of shape"),
        ({"depth_mm": np.array([1.0, 10.0])}, "do not rise from 0"),
        ({"depth_mm": np.array([0.0, 0.0])}, "do not rise from 0"),
        ({"sigma_mm": np.array([0.0, 1.0])}, "widths that are not positive"),
        ({"weight_gy_mm2": np.array([[1.0, -1.0], [1.0, 1.0]])}, "weights below 0"),
        ({"weight_gy_mm2": np.array([[1.0, np.nan], [1.0, 1.0]])}, "weights below 0 or not finite"),
    ],
)
def test_damaged_kernel_is_refused(changes: dict[str, F64], message: str) -> None:
    with pytest.raises(DoseError, match=message):
        small_kernel(**changes)


def test_fraction_beyond_is_that_of_the_gaussians() -> None:
    expected = np.array([3.0 * np.exp(-2.0) + np.exp(-0.02), np.exp(-2.0) + np.exp(-0.02)]) / [4.0, 2.0]
    np.testing.assert_allclose(small_kernel().fraction_beyond(2.0), expected)
    np.testing.assert_array_equal(small_kernel().fraction_beyond(0.0), 1.0)


def test_data_files_have_the_checksums_of_their_source_entries() -> None:
    with as_file(files("engine.physics") / "data") as folder:
        sources = tomllib.loads((folder / SOURCES_FILE).read_text(encoding="utf-8"))
        found = {path.name: file_sha256(path) for path in folder.iterdir() if path.name != SOURCES_FILE}
    assert found == {name: entry["sha256"] for name, entry in sources.items()}


def test_uniform_numbers_are_uniform_and_differ_by_history() -> None:
    random_state = np.zeros(1, dtype=np.uint64)
    streams = []
    for history in range(2):
        seed_history(random_state, np.uint64(1), np.uint64(history))
        streams.append(np.array([uniform(random_state) for _ in range(20_000)]))
    drawn = np.concatenate(streams)
    assert drawn.min() > 0.0
    assert drawn.max() < 1.0
    # Each of 20 bins expects 2000 with a standard deviation of 44: five of them, one false alarm in 10^5, fixed seed.
    np.testing.assert_allclose(np.histogram(drawn, 20, (0.0, 1.0))[0], 2000, atol=220)
    # The correlation of independent streams has a standard deviation of 1 / sqrt(20000).
    assert abs(np.corrcoef(*streams)[0, 1]) < 5.0 / np.sqrt(20_000)


def test_point_kernel_is_reproducible_and_its_parts_add_up() -> None:
    tables = load_water_tables()
    whole = point_kernel(tables, 1.0, 1.25, n_history=300, first_history=0, seed=5)
    again = point_kernel(tables, 1.0, 1.25, n_history=300, first_history=0, seed=5)
    np.testing.assert_array_equal(whole.energy_mev, again.energy_mev)
    parts = [point_kernel(tables, 1.0, 1.25, n_history=150, first_history=n, seed=5) for n in (0, 150)]
    # Rounding of sums in another order.
    np.testing.assert_allclose(
        0.5 * (parts[0].energy_mev + parts[1].energy_mev), whole.energy_mev, atol=1e-12
    )
    assert whole.energy_mev.sum() + whole.outside_mev == pytest.approx(whole.mean_energy_mev, rel=1e-12)


def test_pencil_of_photons_absorbed_on_the_spot_follows_the_attenuation_law() -> None:
    n_slab = round((Z_HIGH_MM - Z_LOW_MM) / SLAB_MM)
    energy_mev = np.zeros((n_slab, RING_EDGES_MM.size - 1))
    energy_mev[round(-Z_LOW_MM / SLAB_MM), 0] = 2.0
    narrow = strung_along_pencil(PointKernel(2.0, energy_mev, 0.0), 1.999, 2.001)
    attenuation = float(attenuation_per_mm(np.array([2.0]))[0])
    # The energy lies in the slab from 0 to SLAB_MM behind the interaction.
    mean_survival = np.exp(-attenuation * DEPTH_MM) * np.expm1(attenuation * SLAB_MM) / SLAB_MM
    expected = 2.0 * MM3_PER_CM3 * GY_PER_MEV_G * mean_survival
    assert narrow[0, 0] == 0.0
    np.testing.assert_allclose(narrow[1:, 0], expected[1:], rtol=1e-6)
    np.testing.assert_array_equal(narrow[:, 1:], 0.0)


def test_every_spectral_interval_gets_histories() -> None:
    spectrum = load_spectrum("mohan_6mv")
    assert spectrum.share.sum() == pytest.approx(1.0)
    counts = histories_per_interval(spectrum, 100_000)
    assert min(counts) >= 400
    assert sum(counts) == pytest.approx(100_000, abs=len(counts))


def test_gaussian_fit_recovers_a_mixture_of_its_own_widths() -> None:
    weights = np.array([[4.0, 2.0, 1.0, 0.5, 0.0, 0.1, 0.2, 0.3], [0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]])
    rings = weights @ ring_share(RING_EDGES_MM, SIGMA_MM).T
    # The widest Gaussian loses 0.3 % beyond the last ring, which the enforced total moves to the others.
    np.testing.assert_allclose(fit_gaussians(rings, RING_EDGES_MM, SIGMA_MM), weights, atol=0.01)
