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
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from scipy.optimize import isotonic_regression, least_squares

from engine.errors import StudyError
from engine.model.arrays import F64

# Atomic number and standard atomic weight (IUPAC 2021, abridged).
ELEMENTS: Mapping[str, tuple[int, float]] = {
    "H": (1, 1.008), "C": (6, 12.011), "N": (7, 14.007), "O": (8, 15.999), "F": (9, 18.998), "Na": (11, 22.990),
    "Mg": (12, 24.305), "Al": (13, 26.982), "Si": (14, 28.085), "P": (15, 30.974), "S": (16, 32.06),
    "Cl": (17, 35.45), "Ar": (18, 39.95), "K": (19, 39.098), "Ca": (20, 40.078), "Ti": (22, 47.867),
    "Fe": (26, 55.845), "I": (53, 126.90),
}  # fmt: skip
COHERENT_POWER, PHOTO_POWER = 2.86, 4.62
_START = (1.24e-3, 3.06e-5)
"""Where the fit begins: the scanner of Schneider et al. 2000."""
_LEAST_MEASURED = 4
_LARGEST_MISS_HU = 60.0
"""A substitute that the fit misses by more was mistaken for another, or its HU read from another image."""
_WHOLE_PERCENT = (98.0, 102.0)


@dataclass(frozen=True)
class Material:
    """A substance: mass density, and parts by mass in per cent by symbol of the element.

    Raises
    ------
    StudyError
        If an element is unknown, the parts do not make a whole, or the density is not positive.
    """

    name: str
    density_g_cm3: float
    mass_percent: Mapping[str, float]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.mass_percent) - set(ELEMENTS))
        if unknown:
            raise StudyError(
                f"material '{self.name}': unknown elements {unknown} (known: {', '.join(ELEMENTS)})"
            )
        total = math.fsum(self.mass_percent.values())
        if not _WHOLE_PERCENT[0] <= total <= _WHOLE_PERCENT[1] or min(self.mass_percent.values()) < 0.0:
            raise StudyError(f"material '{self.name}': its parts by mass add up to {total:g} %, not to 100 %")
        if not self.density_g_cm3 > 0.0:
            raise StudyError(f"material '{self.name}': density_g_cm3 must be positive")

    def terms(self) -> F64:
        """Return electrons, and sums of the coherent and the photoelectric term, per volume (mol/cm³); shape (3,)."""
        total = math.fsum(self.mass_percent.values())
        result = np.zeros(3)
        for symbol, percent in self.mass_percent.items():
            z, weight = ELEMENTS[symbol]
            atoms = self.density_g_cm3 * percent / total / weight
            result += atoms * np.array([z, z**COHERENT_POWER, z**PHOTO_POWER])
        return result

    @property
    def relative_electron_density(self) -> float:
        """Electrons per volume relative to water."""
        return float(self.terms()[0] / WATER.terms()[0])

    def hu(self, coherent: float, photo: float) -> float:
        """Return the HU for a scanner with these two numbers."""
        factors = np.array([1.0, coherent, photo])
        return 1000.0 * float(self.terms() @ factors / (WATER.terms() @ factors) - 1.0)


WATER = Material("water", 1.0, {"H": 11.19, "O": 88.81})
AIR = Material("air", 1.205e-3, {"C": 0.01, "N": 75.53, "O": 23.18, "Ar": 1.28})
"""Dry, 20 °C, near sea level (NIST)."""


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
        materials = (AIR, WATER, *reference_tissues())
        return sorted((m.hu(self.coherent, self.photo), m.relative_electron_density) for m in materials)

    def table(self) -> tuple[F64, F64]:
        """Return HU and relative electron density of a table whose density never falls.

        Tissues that are out of order (their HU differ by composition, too) get the mean density of their
        neighbourhood: isotonic regression. Points closer than 1 HU are one.
        """
        hu, density = np.array(self.points()).T
        fitted = isotonic_regression(density).x
        keep = np.concatenate([[True], np.diff(hu) >= 1.0])
        return hu[keep], fitted[keep]


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
    if max(hu for _, hu in measured) < 400.0:
        raise StudyError(
            "a stoichiometric calibration needs a bone substitute of 400 HU or more: without it the photoelectric "
            "part of bone would be a guess"
        )
    hu = np.array([value for _, value in measured])

    def miss(numbers: F64) -> F64:
        # In units of the start, so that both are of the order of 1.
        coherent, photo = numbers * _START
        computed: F64 = np.array([material.hu(coherent, photo) for material, _ in measured])
        result: F64 = computed - hu
        return result

    found = least_squares(miss, np.ones(2), bounds=(0.0, np.inf))
    left = np.abs(miss(found.x))
    worst = int(left.argmax())
    if left[worst] > _LARGEST_MISS_HU:
        raise StudyError(
            f"no scanner sees '{measured[worst][0].name}' at {hu[worst]:g} HU and the other substitutes at theirs "
            f"(the best fit misses it by {left[worst]:.0f} HU); check its name, composition, density and HU"
        )
    coherent, photo = (float(v) for v in found.x * _START)
    return Calibration(coherent, photo, len(measured), float(np.sqrt((left**2).mean())), float(left[worst]))


def reference_tissues() -> tuple[Material, ...]:
    """Return the tissues of ICRU Reports 44 and 46 that tables are made of."""
    text = files("engine.physics").joinpath("data/tissues_icru.toml").read_text(encoding="utf-8")
    return tuple(Material(**tissue) for tissue in tomllib.loads(text)["tissue"])
