"""Stoichiometric calibration: HU and electron density of real tissues from measurements of tissue substitutes.

Schneider, Pedroni and Lomax, Phys Med Biol 41 (1996) 111: at a scanner's energies the attenuation of an atom is, in
units of what each of its electrons scatters incoherently,

    Z + k_coherent Z^2.86 + k_photo Z^4.62        (written by element as in Schneider, Bortfeld and Schlegel,
                                                    Phys Med Biol 45 (2000) 459, equation 8)

The two numbers of a scanner are fitted to the HU of substitutes of known composition; then the HU of every tissue of
known composition can be computed, and its electron density is known from composition and density alone. Substitutes
are not tissue: a table that is drawn straight through their measured HU is wrong for bone by some per cent.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression, least_squares

from engine.errors import StudyError
from engine.model.arrays import F64
from engine.physics.materials import MATERIALS, Material

COHERENT_POWER, PHOTO_POWER = 2.86, 4.62
SCHNEIDER = (1.24e-3, 3.06e-5)
"""k_coherent and k_photo of Schneider et al. 2000: a Siemens scanner at 120 kV. Fits begin here."""
_LEAST_MEASURED = 4
_LARGEST_MISS_HU = 60.0
"""A substitute that the fit misses by more was mistaken for another, or its HU read from another image."""
_WHOLE_PERCENT = (98.0, 102.0)


TABLE_MATERIALS = (
    "air", "water", "lung-inflated", "adipose", "breast", "brain", "lung", "muscle", "liver", "blood", "skin",
    "cartilage", "spongiosa", "vertebral-column", "femur", "cranium", "mandible", "bone-cortical",
)  # fmt: skip
"""Materials that the table of a scanner goes through."""


def hu(material: Material, coherent: float, photo: float) -> float:
    """Return the HU of a material for a scanner with these two numbers."""
    attenuation, of_water = (
        m.density_g_cm3
        * math.fsum(
            amount * (z + coherent * z**COHERENT_POWER + photo * z**PHOTO_POWER) for z, amount in m.atoms()
        )
        for m in (material, MATERIALS["water"])
    )
    return 1000.0 * (attenuation / of_water - 1.0)


def substitute(name: str, density_g_cm3: float, mass_percent: Mapping[str, float]) -> Material:
    """Return a substitute as makers print it: parts by mass in per cent, with what rounding left out made up for.

    Raises
    ------
    StudyError
        If the parts do not make a whole.
    CaseError
        If an element or the density cannot be.
    """
    total = math.fsum(mass_percent.values())
    if not _WHOLE_PERCENT[0] <= total <= _WHOLE_PERCENT[1]:
        raise StudyError(f"material '{name}': its parts by mass add up to {total:g} %, not to 100 %")
    return Material(name, density_g_cm3, {symbol: part / total for symbol, part in mass_percent.items()})


@dataclass(frozen=True)
class Calibration:
    """A scanner's two numbers, and how well they describe what was measured.

    Parameters
    ----------
    coherent, photo
        k_coherent and k_photo.
    n_measured
        How many substitutes were measured.
    rms_hu, largest_hu
        Root mean square and largest difference between measured and computed HU.
    """

    coherent: float
    photo: float
    n_measured: int
    rms_hu: float
    largest_hu: float

    def points(self) -> list[tuple[float, float]]:
        """Return HU and relative electron density of air, water and the reference tissues, HU rising."""
        materials = [MATERIALS[name] for name in TABLE_MATERIALS]
        return sorted((hu(m, self.coherent, self.photo), m.relative_electron_density) for m in materials)

    def table(self) -> tuple[F64, F64]:
        """Return HU and relative electron density of a table whose density never falls.

        Tissues that are out of order (their HU differ by composition, too) get the mean density of their
        neighbourhood: isotonic regression. Points closer than 1 HU are one.
        """
        hus, density = np.array(self.points()).T
        fitted = isotonic_regression(density).x
        keep = np.concatenate([[True], np.diff(hus) >= 1.0])
        return hus[keep], fitted[keep]


def fit(measured: Sequence[tuple[Material, float]]) -> Calibration:
    """Fit a scanner's two numbers to measured substitutes.

    Parameters
    ----------
    measured
        Substitute and measured HU.

    Raises
    ------
    StudyError
        If there are too few, none of them is dense, or the best fit misses one of them by far.
    """
    if len(measured) < _LEAST_MEASURED:
        raise StudyError(
            f"a stoichiometric calibration needs at least {_LEAST_MEASURED} substitutes (there are {len(measured)})"
        )
    if max(value for _, value in measured) < 400.0:
        raise StudyError(
            "a stoichiometric calibration needs a bone substitute of 400 HU or more: without it the photoelectric "
            "part of bone would be a guess"
        )
    seen_hu = np.array([value for _, value in measured])

    def miss(numbers: F64) -> F64:
        # In units of the start, so that both are of the order of 1.
        coherent, photo = numbers * SCHNEIDER
        computed: F64 = np.array([hu(material, coherent, photo) for material, _ in measured])
        result: F64 = computed - seen_hu
        return result

    found = least_squares(miss, np.ones(2), bounds=(0.0, np.inf))
    left = np.abs(miss(found.x))
    worst = int(left.argmax())
    if left[worst] > _LARGEST_MISS_HU:
        raise StudyError(
            f"no scanner sees '{measured[worst][0].name}' at {seen_hu[worst]:g} HU and the other substitutes at theirs "
            f"(the best fit misses it by {left[worst]:.0f} HU); check its name, composition, density and HU"
        )
    coherent, photo = (float(v) for v in found.x * SCHNEIDER)
    return Calibration(coherent, photo, len(measured), float(np.sqrt((left**2).mean())), float(left[worst]))
