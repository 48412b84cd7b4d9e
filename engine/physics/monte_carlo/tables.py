"""Interaction data of a list of materials, laid out for the transport kernels.

Everything is per mm at 1 g/cm3. Rows are energies, spaced evenly in their logarithm; a kernel finds its place with one
logarithm and interpolates between two neighbouring rows, whose columns lie side by side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.errors import DoseError
from engine.model.arrays import F64
from engine.physics.attenuation import mass_attenuation
from engine.physics.constants import ELECTRON_REST_ENERGY_MEV
from engine.physics.materials import Material
from engine.physics.monte_carlo.collisions import collision_moment, largest_transfer_mev
from engine.physics.monte_carlo.elastic import (
    hard_bound_per_mm,
    screening_constant_mev2,
    soft_strength_per_mm,
)
from engine.physics.monte_carlo.radiation import (
    bremsstrahlung_quantiles,
    bremsstrahlung_split,
    pair_quantiles,
)
from engine.physics.stopping_power import Charge, collision_stopping_power, radiative_stopping_power
from engine.units import CM_PER_MM

LOSS, SOFT_STRENGTH, HARD, HARD_RADIATIVE, HARD_COLLISION, STRAGGLING, STEP_STRENGTH, SPREAD = range(8)
"""Columns of `Tables.electron`."""
ATTENUATION, INCOHERENT, INCOHERENT_OR_PHOTOELECTRIC = range(3)
"""Columns of `Tables.photon`."""

N_ELECTRON_ENERGY = 300
N_PHOTON_ENERGY = 1000
N_RADIATION_ENERGY = 60
_LOWEST_CUTOFF_MEV = 0.01


@dataclass(frozen=True)
class Settings:
    """What is simulated one by one, and how long the steps in between are.

    Parameters
    ----------
    electron_cutoff_mev
        Kinetic energy at which an electron or positron stops and leaves what it has; collisions with atomic electrons
        that transfer more are simulated one by one.
    photon_cutoff_mev
        The same for photons and bremsstrahlung; at most the electrons' cut-off.
    step_loss_fraction
        Longest step: share of the energy lost.
    step_strength
        Longest step: sum of the mean 1 - cos of its small deflections.

    Raises
    ------
    DoseError
        If a value is out of range.
    """

    electron_cutoff_mev: float = 0.2
    photon_cutoff_mev: float = 0.05
    step_loss_fraction: float = 0.2
    step_strength: float = 0.1

    def __post_init__(self) -> None:
        if not _LOWEST_CUTOFF_MEV <= self.photon_cutoff_mev <= self.electron_cutoff_mev <= 1.0:
            raise DoseError(
                f"cut-offs of {self.photon_cutoff_mev:g} MeV for photons and {self.electron_cutoff_mev:g} MeV for "
                f"electrons (they must be at least {_LOWEST_CUTOFF_MEV:g} and at most 1 MeV, the photons' not above "
                "the electrons'); choose others"
            )
        if not (0.0 < self.step_loss_fraction <= 0.5 and 0.0 < self.step_strength <= 0.3):
            raise DoseError(
                f"steps that lose {self.step_loss_fraction:g} of the energy and deflect by {self.step_strength:g} "
                "(at most 0.5 and 0.3, above 0); choose shorter ones"
            )


class Tables(NamedTuple):
    """Interaction data of n_material materials; a tuple, so that kernels take it as it is.

    Parameters
    ----------
    electron
        Shape (2, n_material, n_energy, 8), electrons first, then positrons; columns: loss in MeV that is not simulated
        one by one; mean of 1 - cos of small deflections; events simulated one by one; share of bremsstrahlung in
        these; share of bremsstrahlung and collisions; variance of the loss in MeV2; strength of the next step;
        sum of the square of 1 - cos of small deflections over that of 1 - cos.
    electron_log_low, electron_per_log
        Logarithm of the first energy, and rows per unit of the logarithm. Likewise below.
    photon
        Shape (n_material, n_energy, 3): attenuation without coherent scattering; share of incoherent scattering; share
        of that and of photoelectric absorption.
    bremsstrahlung
        Quantiles, shape (n_material, n_energy, n_quantile), see `radiation.bremsstrahlung_quantiles`.
    pair
        Quantiles, shape (n_material, n_energy, n_quantile), see `radiation.pair_quantiles`.
    element_share
        Share of the elements in large deflections, summed up, shape (n_material, n_element); 1 from the last on.
    element_number
        Their atomic numbers, same shape.
    element_screening_mev2
        Their screening constants, same shape.
    heaviest
        Largest atomic number of every material, shape (n_material,).
    electron_cutoff_mev, photon_cutoff_mev
        As in `Settings`.
    """

    electron: F64
    electron_log_low: float
    electron_per_log: float
    photon: F64
    photon_log_low: float
    photon_per_log: float
    bremsstrahlung: F64
    bremsstrahlung_log_low: float
    bremsstrahlung_per_log: float
    pair: F64
    pair_log_low: float
    pair_per_log: float
    element_share: F64
    element_number: F64
    element_screening_mev2: F64
    heaviest: F64
    electron_cutoff_mev: float
    photon_cutoff_mev: float


def build_tables(materials: Sequence[Material], highest_mev: float, settings: Settings) -> Tables:
    """Return the tables of some materials up to the highest energy of a source.

    Raises
    ------
    DoseError
        If there is no material, or the energy is not above the cut-offs.
    """
    if not materials:
        raise DoseError("no materials to make tables of; name at least one")
    if not 2.0 * settings.electron_cutoff_mev < highest_mev <= 50.0:
        raise DoseError(
            f"highest energy of {highest_mev:g} MeV (it must be above twice the electrons' cut-off of "
            f"{settings.electron_cutoff_mev:g} MeV and at most 50 MeV); choose another"
        )
    # The middle of the last step lies below the cut-off.
    electron_mev = np.geomspace(0.5 * settings.electron_cutoff_mev, highest_mev, N_ELECTRON_ENERGY)
    photon_mev = np.geomspace(settings.photon_cutoff_mev, highest_mev, N_PHOTON_ENERGY)
    radiating_mev = np.geomspace(settings.electron_cutoff_mev, highest_mev, N_RADIATION_ENERGY)
    threshold_mev = 2.0 * ELECTRON_REST_ENERGY_MEV
    pair_mev = np.geomspace(threshold_mev, max(highest_mev, 1.1 * threshold_mev), N_RADIATION_ENERGY)
    radiated = [_radiation(material, electron_mev, settings) for material in materials]
    return Tables(
        np.array(
            [
                [
                    _electron_rows(material, electron_mev, settings, charge, photons, loss)
                    for material, (photons, loss) in zip(materials, radiated, strict=True)
                ]
                for charge in Charge
            ]
        ),
        *_scale(electron_mev),
        np.array([_photon_rows(material, photon_mev) for material in materials]),
        *_scale(photon_mev),
        np.array(
            [
                bremsstrahlung_quantiles(m.atoms(), radiating_mev, settings.photon_cutoff_mev * (1.0 - 1e-9))
                for m in materials
            ]
        ),
        *_scale(radiating_mev),
        np.array([pair_quantiles(material.atoms(), pair_mev) for material in materials]),
        *_scale(pair_mev),
        *_elements(materials),
        settings.electron_cutoff_mev,
        settings.photon_cutoff_mev,
    )


def _scale(energy_mev: F64) -> tuple[float, float]:
    log_low, log_high = float(np.log(energy_mev[0])), float(np.log(energy_mev[-1]))
    return log_low, (energy_mev.size - 1) / (log_high - log_low)


def _photon_rows(material: Material, energy_mev: F64) -> F64:
    found = mass_attenuation(material, energy_mev)
    total = found.incoherent + found.photoelectric + found.pair
    return np.column_stack(
        [total * CM_PER_MM, found.incoherent / total, (found.incoherent + found.photoelectric) / total]
    )


def _radiation(material: Material, energy_mev: F64, settings: Settings) -> tuple[F64, F64]:
    """Return photons above the cut-off per mm, and the loss to photons below it in MeV per mm."""
    # Below the electrons' cut-off, where steps only end, the spectrum is that at the cut-off.
    radiating_mev = np.maximum(energy_mev, settings.electron_cutoff_mev)
    split = [
        bremsstrahlung_split(material.atoms(), float(e), settings.photon_cutoff_mev) for e in radiating_mev
    ]
    per_mev, quiet = np.array(split).T
    radiative = radiative_stopping_power(material, energy_mev) * CM_PER_MM
    return radiative * per_mev, radiative * quiet


def _electron_rows(
    material: Material, energy_mev: F64, settings: Settings, charge: Charge, photons: F64, quiet_loss: F64
) -> F64:
    cutoff_mev = settings.electron_cutoff_mev
    soft_mev = np.minimum(cutoff_mev, largest_transfer_mev(energy_mev, charge))
    hard = np.array(
        [
            [
                collision_moment(
                    material, float(e), cutoff_mev, float(largest_transfer_mev(e, charge)), power, charge
                )
                for power in (0, 1)
            ]
            for e in energy_mev
        ]
    )
    straggling = [
        collision_moment(material, float(e), 1.0e-6 * float(s), float(s), 2, charge)
        for e, s in zip(energy_mev, soft_mev, strict=True)
    ]
    loss = collision_stopping_power(material, energy_mev, charge) * CM_PER_MM
    loss += quiet_loss - hard[:, 1]
    strength, square = soft_strength_per_mm(material.atoms(), energy_mev, soft_mev, charge)
    total = photons + hard[:, 0] + hard_bound_per_mm(material.atoms(), energy_mev)
    step = np.minimum(settings.step_strength, strength * settings.step_loss_fraction * energy_mev / loss)
    return np.column_stack(
        [
            loss,
            strength,
            total,
            photons / total,
            (photons + hard[:, 0]) / total,
            straggling,
            step,
            square / strength,
        ]
    )


def _elements(materials: Sequence[Material]) -> tuple[F64, F64, F64, F64]:
    shape = (len(materials), max(len(material.atoms()) for material in materials))
    share, number, screening = np.ones(shape), np.ones(shape), np.ones(shape)
    for row, material in enumerate(materials):
        atoms = material.atoms()
        summed = np.cumsum([mol_per_g * z**2 for z, mol_per_g in atoms])
        share[row, : len(atoms) - 1] = summed[:-1] / summed[-1]
        number[row, : len(atoms)] = [z for z, _ in atoms]
        screening[row, : len(atoms)] = [screening_constant_mev2(z) for z, _ in atoms]
    return share, number, screening, np.array([float(max(z for z, _ in m.atoms())) for m in materials])
