"""Noise and unevenness: how strong, how correlated, and always the same."""

import numpy as np
import pytest

from engine.phantoms.texture import NOISE_HU, lumps, noise, scanned

EXPECTED = [-9, 10, 24, -1, -15, -2, 15, -13, -9, 0, 11, -4, 9, 14, 4, -6, -15, -4, -3, -7, -13, -13, -9, -3]


def test_noise_has_mean_0_deviation_1_and_is_gaussian() -> None:
    field = noise((40, 64, 64), 3, 1)
    assert field.mean() == pytest.approx(0.0, abs=0.01)
    assert field.std() == pytest.approx(1.0, abs=0.01)
    assert (field**4).mean() == pytest.approx(3.0, abs=0.2)


def test_noise_has_the_band_of_a_scanner() -> None:
    field = noise((60, 64, 64), 3, 1)
    power = (np.abs(np.fft.fft2(field)) ** 2).mean(axis=0)[0, :33]
    peak = int(power.argmax())
    assert 5 < peak < 22
    assert power[1:4].mean() < 0.7 * power[peak]
    assert power[-4:].mean() < 0.05 * power[peak]
    # Slices know nothing of each other: 245760 pairs.
    assert abs(float((field[1:] * field[:-1]).mean())) < 0.02


def test_lumps_have_deviation_1_and_the_width_asked_for() -> None:
    field = lumps((60, 60, 60), 2.0, 5, 2)
    assert field.std() == pytest.approx(1.0, abs=0.04)
    # White noise through a Gaussian of width s: autocorrelation exp(-d^2 / 4 s^2), 0.779 at 2 voxels, 0.368 at 4.
    for distance, expected in ((2, 0.779), (4, 0.368)):
        for axis in range(3):
            moved = np.moveaxis(field, axis, 0)
            assert float((moved[distance:] * moved[:-distance]).mean()) == pytest.approx(expected, abs=0.06)


def test_the_same_seed_gives_the_same_ct_on_every_machine() -> None:
    ct_hu = np.zeros((2, 3, 4), np.float32)
    np.testing.assert_array_equal(scanned(ct_hu, 1, 0), scanned(ct_hu, 1, 0))
    assert (scanned(ct_hu, 1, 0) != scanned(ct_hu, 1, 1)).any()
    assert (scanned(ct_hu, 1, 0) != scanned(ct_hu, 2, 0)).any()
    # Written down from one machine; the arithmetic is that of whole numbers.
    assert scanned(ct_hu, 1, 0).astype(int).ravel().tolist() == EXPECTED


def test_scanned_ct_is_whole_and_within_12_bits() -> None:
    ct_hu = np.full((4, 40, 40), -1020.0, np.float32)
    ct_hu[2:] = 3060.0
    found = scanned(ct_hu, 1, 0)
    np.testing.assert_array_equal(found, np.rint(found))
    assert found.min() == -1024.0
    assert found.max() == 3071.0
    assert NOISE_HU == 12.0
