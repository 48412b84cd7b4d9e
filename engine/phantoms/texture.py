"""Noise as on a CT, and unevenness as in tissue: seeded, and the same on every machine.

Random numbers come from the counter-based generator Philox (Salmon et al., SC11 (2011)); they are summed and filtered
as integers, so that neither the order of sums nor a library's square roots can change them. The last step is a
multiplication and a rounding to whole Hounsfield units.
"""

import math

import numpy as np
import numpy.typing as npt

from engine.model.arrays import F32, F64

NOISE_HU = 12.0
"""Standard deviation of the noise; 10 to 20 HU are usual in planning CTs of the trunk at slices of 2 to 3 mm."""
LUNG_UNEVENNESS_HU = 35.0
"""Standard deviation of the lungs' texture (vessels and airways that a voxel averages over)."""
LOWEST_HU, HIGHEST_HU = -1024.0, 3071.0
"""The range of a 12-bit scanner."""
_RAW_SIGMA = math.sqrt(4.0 * (65536.0**2 - 1.0) / 12.0)
_NOISE_PEAK, _NOISE_WIDE = 4, 3
"""Weights of the narrow and the wide filter: their difference keeps a quarter of the lowest frequencies."""
_GUARD_BITS = 12


def noise(shape_zyx: tuple[int, int, int], seed: int, stream: int) -> F64:
    """Return noise of mean 0 and standard deviation 1 with neighbours in a slice correlated as on a CT.

    Filtered back-projection leaves few low and few high frequencies in the noise power spectrum (Riederer et al., Phys.
    Med. Biol. 23 (1978) 446). Here the band is cut by the difference of two binomial filters, 3 and 5 pixels wide;
    slices
    are independent.

    Parameters
    ----------
    shape_zyx
        Shape of the result.
    seed, stream
        Two numbers that name the noise, both not negative; streams of one seed are independent.
    """
    nz, ny, nx = shape_zyx
    raw = _raw((nz, ny + 4, nx + 4), seed, stream)
    narrow = _smooth(_smooth(raw, 1), 2)
    wide = _smooth(_smooth(narrow, 1), 2)
    band = _NOISE_PEAK * 16 * narrow[:, 1:-1, 1:-1] - _NOISE_WIDE * wide
    line = np.array([1.0, 2.0, 1.0])
    long_line = np.convolve(line, line)
    kernel = -_NOISE_WIDE * np.outer(long_line, long_line)
    kernel[1:-1, 1:-1] += _NOISE_PEAK * 16.0 * np.outer(line, line)
    unit: F64 = band / (_RAW_SIGMA * math.sqrt(math.fsum((kernel**2).ravel().tolist())))
    return unit


def lumps(shape_zyx: tuple[int, int, int], width_voxels: float, seed: int, stream: int) -> F64:
    """Return smooth random lumps of mean 0 and standard deviation 1.

    White noise through a binomial filter in all three directions, whose standard deviation is the width (rounded to
    what whole passes of 1-2-1 give).
    """
    n_pass = max(1, round(2.0 * width_voxels**2))
    nz, ny, nx = shape_zyx
    field = _raw((nz + 2 * n_pass, ny + 2 * n_pass, nx + 2 * n_pass), seed, stream) << _GUARD_BITS
    for axis in range(3):
        for _ in range(n_pass):
            field = _smooth(field, axis) >> 2
    share = math.comb(4 * n_pass, 2 * n_pass) / 16**n_pass  # of the variance that an axis leaves
    unit: F64 = field / (_RAW_SIGMA * 2.0**_GUARD_BITS * share**1.5)
    return unit


def scanned(ct_hu: F32, seed: int, stream: int, uneven_hu: F64 | None = None) -> F32:
    """Return a CT as a scanner gives it: with unevenness, noise, whole Hounsfield units and a scanner's range.

    Parameters
    ----------
    ct_hu
        The CT without noise.
    seed, stream
        Name of the noise.
    uneven_hu
        What to add before the noise, same shape.
    """
    noisy = ct_hu.astype(np.float64) + NOISE_HU * noise(_shape(ct_hu), seed, stream)
    if uneven_hu is not None:
        noisy += uneven_hu
    return np.clip(np.rint(noisy), LOWEST_HU, HIGHEST_HU).astype(np.float32)


def _shape(array: F32) -> tuple[int, int, int]:
    """Return the shape of a volume."""
    nz, ny, nx = array.shape
    return nz, ny, nx


def _raw(shape_zyx: tuple[int, int, int], seed: int, stream: int) -> npt.NDArray[np.int64]:
    """Return independent whole numbers of mean 0 and standard deviation `_RAW_SIGMA`: sums of four uniform ones."""
    words = np.random.Philox(key=np.array([seed, stream], np.uint64)).random_raw(math.prod(shape_zyx))
    mask = np.uint64(0xFFFF)
    total = sum((words >> np.uint64(shift)) & mask for shift in (0, 16, 32, 48))
    centred: npt.NDArray[np.int64] = np.asarray(total).astype(np.int64).reshape(shape_zyx) - 131070
    return centred


def _smooth(field: npt.NDArray[np.int64], axis: int) -> npt.NDArray[np.int64]:
    """Return 1-2-1 sums of neighbours along an axis, which becomes shorter by two."""
    n = field.shape[axis]
    first, middle, last = (_cut(field, axis, begin, n) for begin in (0, 1, 2))
    sums: npt.NDArray[np.int64] = first + 2 * middle + last
    return sums


def _cut(field: npt.NDArray[np.int64], axis: int, begin: int, n: int) -> npt.NDArray[np.int64]:
    """Return a view of all but two layers along an axis."""
    where = [slice(None)] * 3
    where[axis] = slice(begin, n - 2 + begin)
    view: npt.NDArray[np.int64] = field[tuple(where)]
    return view
