"""Mass attenuation coefficients of any mixture: NIST XCOM by element, mixed by mass."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.interpolate import CubicSpline

from engine.model.arrays import F64
from engine.physics.constants import AVOGADRO_PER_MOL, CM2_PER_BARN
from engine.physics.element_tables import photons_of, require_energies
from engine.physics.materials import Material

PAIR_THRESHOLD_MEV = 1.022007
TRIPLET_THRESHOLD_MEV = 2.044014
"""As XCOM has them."""


@dataclass(frozen=True)
class Attenuation:
    """Mass attenuation coefficients in cm2/g by process, each of the shape of the energies asked for.

    ``pair`` is pair production by nuclei and by electrons together.
    """

    coherent: F64
    incoherent: F64
    photoelectric: F64
    pair: F64

    @property
    def total(self) -> F64:
        """All processes together."""
        return self.coherent + self.incoherent + self.photoelectric + self.pair


def mass_attenuation(material: Material, energy_mev: F64) -> Attenuation:
    """Return the mass attenuation coefficients of a material.

    Raises
    ------
    CaseError
        If the tables do not reach an energy.
    """
    require_energies(energy_mev)
    total = np.zeros((4, *energy_mev.shape))
    for atomic_number, mol_per_g in material.atoms():
        for row, cross_section_barn in enumerate(_interpolators(atomic_number)):
            total[row] += mol_per_g * AVOGADRO_PER_MOL * CM2_PER_BARN * cross_section_barn(energy_mev)
    return Attenuation(*total)


@cache
def _interpolators(atomic_number: int) -> tuple[Callable[[F64], F64], ...]:
    data = photons_of(atomic_number)
    # Splines want rising energies; only the photoelectric cross section jumps at an edge.
    smooth = np.append(np.diff(data.energy_mev) > 1.0e-6 * data.energy_mev[1:], True)
    return (
        _log_spline(data.energy_mev[smooth], data.coherent_barn[smooth]),
        _log_spline(data.energy_mev[smooth], data.incoherent_barn[smooth]),
        _photoelectric(data.energy_mev, data.photoelectric_barn),
        _pair(data.energy_mev[smooth], data.pair_barn[smooth], data.triplet_barn[smooth]),
    )


def _log_spline(energy_mev: F64, values: F64) -> Callable[[F64], F64]:
    spline = CubicSpline(np.log(energy_mev), np.log(values))
    return lambda asked_mev: np.exp(spline(np.log(asked_mev)))


def _photoelectric(energy_mev: F64, values: F64) -> Callable[[F64], F64]:
    """As XCOM does: a spline above the K edge, straight lines (both scales logarithmic) below."""
    edges = np.flatnonzero(np.diff(values) > 0.0)
    first = int(edges[-1]) + 1 if edges.size else 0
    above = _log_spline(energy_mev[first:], values[first:])

    def value(asked_mev: F64) -> F64:
        below = np.exp(np.interp(np.log(asked_mev), np.log(energy_mev), np.log(values)))
        return np.where(asked_mev < energy_mev[first], below, above(np.maximum(asked_mev, energy_mev[first])))

    return value


def _pair(energy_mev: F64, nuclear: F64, electronic: F64) -> Callable[[F64], F64]:
    """Splines of the cross sections over the cube of the excess above the threshold, which is smooth down to it."""

    def excess(asked_mev: F64, threshold_mev: float) -> F64:
        return np.maximum(1.0 - threshold_mev / asked_mev, 0.0) ** 3

    parts = []
    for values, threshold_mev in ((nuclear, PAIR_THRESHOLD_MEV), (electronic, TRIPLET_THRESHOLD_MEV)):
        known = (energy_mev > threshold_mev) & (values > 0.0)
        reduced = values[known] / excess(energy_mev[known], threshold_mev)
        parts.append((_log_spline(energy_mev[known], reduced), float(energy_mev[known][0]), threshold_mev))

    def value(asked_mev: F64) -> F64:
        total = np.zeros_like(asked_mev)
        for spline, first_mev, threshold_mev in parts:
            total += spline(np.maximum(asked_mev, first_mev)) * excess(asked_mev, threshold_mev)
        return total

    return value
