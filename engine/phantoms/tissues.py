"""Tissues of the anatomical phantoms: composition and density, and what a CT scanner of 120 kV shows of them.

Compositions (mass per cent) and densities are those of ICRU Reports 44 (1989) and 46 (1992), adults; they are also in
table 1 of Schneider et al., Phys. Med. Biol. 45 (2000) 459. Hounsfield units follow from them by the parametrisation
of the same paper (equations 7 and 8; `SCHNEIDER_K1`, `SCHNEIDER_K2`), so they are those of a real scanner's bone, and
not those of the straight line that the built-in table ``phantom`` is. The table that belongs to them is
``examples/hu_tables/tissue_phantoms.csv``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

SCHNEIDER_K1, SCHNEIDER_K2 = 1.24e-3, 3.06e-5
"""Coherent scattering and photoelectric effect, relative to Compton scattering, of a Siemens scanner at 120 kV."""
ATOMS: Mapping[str, tuple[int, float]] = {
    "H": (1, 1.008),
    "C": (6, 12.011),
    "N": (7, 14.007),
    "O": (8, 15.999),
    "Na": (11, 22.990),
    "Mg": (12, 24.305),
    "P": (15, 30.974),
    "S": (16, 32.06),
    "Cl": (17, 35.45),
    "K": (19, 39.098),
    "Ca": (20, 40.078),
    "Fe": (26, 55.845),
}
"""Atomic number and standard atomic weight."""


@dataclass(frozen=True)
class Tissue:
    """A tissue.

    Parameters
    ----------
    density_g_cm3
        Mass density.
    mass_percent
        Mass per cent of the elements.
    """

    density_g_cm3: float
    mass_percent: Mapping[str, float]

    def at_density(self, density_g_cm3: float) -> "Tissue":
        """Return the same composition at another density, such as lung with more air."""
        return Tissue(density_g_cm3, self.mass_percent)

    @property
    def electron_density(self) -> float:
        """Electron density relative to water."""
        return self._per_mass(0.0, 0.0) / WATER._per_mass(0.0, 0.0) * self.density_g_cm3

    @property
    def hu(self) -> float:
        """Hounsfield units: 1000 (mu / mu_water - 1)."""
        mu = self._per_mass(SCHNEIDER_K1, SCHNEIDER_K2) * self.density_g_cm3
        return 1000.0 * (mu / WATER._per_mass(SCHNEIDER_K1, SCHNEIDER_K2) - 1.0)

    def _per_mass(self, k1: float, k2: float) -> float:
        """Return sum of w / A (Z + k1 Z^2.86 + k2 Z^4.62): attenuation per mass, in units of Compton scattering."""
        total = sum(self.mass_percent.values())
        return math.fsum(
            percent / total / ATOMS[name][1] * (z + k1 * float(z) ** 2.86 + k2 * float(z) ** 4.62)
            for name, percent in self.mass_percent.items()
            for z in (ATOMS[name][0],)
        )


def _tissue(density_g_cm3: float, **mass_percent: float) -> Tissue:
    """Return a tissue from keywords."""
    return Tissue(density_g_cm3, mass_percent)


WATER = _tissue(1.0, H=11.19, O=88.81)
ADIPOSE = _tissue(0.95, H=11.4, C=59.8, N=0.7, O=27.8, Na=0.1, S=0.1, Cl=0.1)
MUSCLE = _tissue(1.05, H=10.2, C=14.3, N=3.4, O=71.0, Na=0.1, P=0.2, S=0.3, Cl=0.1, K=0.4)
LUNG = _tissue(0.26, H=10.3, C=10.5, N=3.1, O=74.9, Na=0.2, P=0.2, S=0.3, Cl=0.3, K=0.2)
BLOOD = _tissue(1.06, H=10.2, C=11.0, N=3.3, O=74.5, Na=0.1, P=0.1, S=0.2, Cl=0.3, K=0.2, Fe=0.1)
BRAIN = _tissue(1.04, H=10.7, C=14.5, N=2.2, O=71.2, Na=0.2, P=0.4, S=0.2, Cl=0.3, K=0.3)
LIVER = _tissue(1.06, H=10.2, C=13.9, N=3.0, O=71.6, Na=0.2, P=0.3, S=0.3, Cl=0.2, K=0.3)
URINE = _tissue(1.02, H=11.0, C=0.5, N=1.0, O=86.2, Na=0.4, P=0.1, Cl=0.6, K=0.2)
SPONGIOSA = _tissue(
    1.18, H=8.5, C=40.4, N=2.8, O=36.7, Na=0.1, Mg=0.1, P=3.4, S=0.2, Cl=0.2, K=0.1, Ca=7.4, Fe=0.1
)
CRANIUM = _tissue(1.61, H=5.0, C=21.2, N=4.0, O=43.5, Na=0.1, Mg=0.2, P=8.1, S=0.3, Ca=17.6)
MANDIBLE = _tissue(1.68, H=4.6, C=19.9, N=4.1, O=43.5, Na=0.1, Mg=0.2, P=8.6, S=0.3, Ca=18.7)
CORTICAL_BONE = _tissue(1.92, H=3.4, C=15.5, N=4.2, O=43.5, Na=0.1, Mg=0.2, P=10.3, S=0.3, Ca=22.5)

TABLE_TISSUES: tuple[Tissue, ...] = (LUNG, ADIPOSE, MUSCLE, BLOOD, SPONGIOSA, CRANIUM, CORTICAL_BONE)
"""The tissues, with air and water, that the phantoms' table of electron densities goes through."""
