"""Interaction data of liquid water on logarithmic energy grids, as the transport kernels look them up.

Lengths in mm, water of 1 g/cm3. Rows are energies, columns quantities; kernels interpolate linearly in ln(energy).
"""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from engine.model.arrays import F64
from engine.physics.constants import CLASSICAL_ELECTRON_RADIUS_MM, ELECTRON_REST_ENERGY_MEV
from engine.physics.kernel_calculation.elastic_scattering import (
    ELECTRONS_PER_MM3,
    OXYGEN,
    multiple_scattering_per_mm,
    single_scattering_per_mm,
)
from engine.physics.monte_carlo.elastic import half_screening_angle2
from engine.units import CM_PER_MM

PHOTON_CUTOFF_MEV = 0.010
ELECTRON_CUTOFF_MEV = 0.100
"""Kinetic energy at which an electron is absorbed on the spot (its range is 0.14 mm)."""
DELTA_CUTOFF_MEV = 0.100
"""Electrons knocked on with more than this are followed on their own, the rest is continuous loss."""
BREMSSTRAHLUNG_CUTOFF_MEV = 0.010
HIGHEST_ENERGY_MEV = 6.5

N_PHOTON_ENERGY = 1200
N_ELECTRON_ENERGY = 600
_N_QUADRATURE = 400


@dataclass(frozen=True)
class WaterTables:
    """Tables for the transport kernels.

    Parameters
    ----------
    photon
        Shape (n_photon_energy, 3), energies log-spaced from `PHOTON_CUTOFF_MEV`: attenuation coefficient without
        coherent scattering per mm; share of incoherent scattering; share of incoherent scattering and
        photoelectric absorption together (the rest is pair production).
    electron
        Shape (n_electron_energy, 6), energies log-spaced from `ELECTRON_CUTOFF_MEV`: restricted collision stopping
        power in MeV/mm; bremsstrahlung photons, knock-on electrons and large nuclear deflections per mm; mean of
        1 - cos per mm of the small deflections; half of the squared screening angle of oxygen in rad2.
    """

    photon: F64
    electron: F64


def load_water_tables() -> WaterTables:
    """Return the tables made from the NIST data in ``engine/physics/data``."""
    return WaterTables(_photon_table(), _electron_table())


def attenuation_per_mm(energy_mev: F64, *, with_coherent: bool = False) -> F64:
    """Return the linear attenuation coefficient of water, same shape as ``energy_mev``."""
    rows = _read("water_photons.csv")
    columns = rows[:, 1:] if with_coherent else rows[:, 2:]
    return np.exp(_log_log(energy_mev, rows[:, 0], columns.sum(axis=1))) * CM_PER_MM


def collision_stopping_power_mev_mm(energy_mev: F64) -> F64:
    """Return the unrestricted collision stopping power of water for electrons (ESTAR)."""
    rows = _read("water_electrons.csv")
    return np.exp(_log_log(energy_mev, rows[:, 0], rows[:, 1])) * CM_PER_MM


def radiative_stopping_power_mev_mm(energy_mev: F64) -> F64:
    """Return the radiative stopping power of water for electrons (ESTAR)."""
    rows = _read("water_electrons.csv")
    return np.exp(_log_log(energy_mev, rows[:, 0], rows[:, 2])) * CM_PER_MM


def bremsstrahlung_shape(photon_fraction: F64) -> F64:
    """Return k dN/dk up to a factor, for k as a fraction of the total energy: Bethe-Heitler, complete screening."""
    return 1.0 - photon_fraction + 0.75 * photon_fraction**2


def moller_per_mev_mm(energy_mev: float, transfer_mev: F64) -> F64:
    """Return knock-on electrons per mm and MeV of transfer (Moller 1932; ICRU 37, equation 3.1)."""
    tau = energy_mev / ELECTRON_REST_ENERGY_MEV
    beta2 = tau * (tau + 2.0) / (tau + 1.0) ** 2
    share = transfer_mev / energy_mev
    bracket = (
        1.0 / share**2
        + 1.0 / (1.0 - share) ** 2
        + (tau / (tau + 1.0)) ** 2
        - (2.0 * tau + 1.0) / (tau + 1.0) ** 2 / (share * (1.0 - share))
    )
    front = (
        2.0 * np.pi * CLASSICAL_ELECTRON_RADIUS_MM**2 * ELECTRON_REST_ENERGY_MEV * ELECTRONS_PER_MM3 / beta2
    )
    return np.asarray(front * bracket / energy_mev**2)


def _photon_table() -> F64:
    rows = _read("water_photons.csv")
    energy_mev = np.geomspace(PHOTON_CUTOFF_MEV, HIGHEST_ENERGY_MEV, N_PHOTON_ENERGY)
    incoherent, photoelectric = (np.exp(_log_log(energy_mev, rows[:, 0], rows[:, i])) for i in (2, 3))
    pair = np.interp(energy_mev, rows[:, 0], rows[:, 4] + rows[:, 5])
    total = incoherent + photoelectric + pair
    return np.column_stack([total * CM_PER_MM, incoherent / total, (incoherent + photoelectric) / total])


def _electron_table() -> F64:
    energy_mev = np.geomspace(ELECTRON_CUTOFF_MEV, HIGHEST_ENERGY_MEV, N_ELECTRON_ENERGY)
    knock_on = np.array([_knock_on_moments(float(e)) for e in energy_mev])
    return np.column_stack(
        [
            collision_stopping_power_mev_mm(energy_mev) - knock_on[:, 1],
            radiative_stopping_power_mev_mm(energy_mev) / _mean_bremsstrahlung_mev(energy_mev),
            knock_on[:, 0],
            single_scattering_per_mm(energy_mev),
            multiple_scattering_per_mm(energy_mev, DELTA_CUTOFF_MEV),
            half_screening_angle2(energy_mev, OXYGEN),
        ]
    )


def _knock_on_moments(energy_mev: float) -> tuple[float, float]:
    """Return the number and the energy (MeV) of followed knock-on electrons per mm."""
    if energy_mev <= 2.0 * DELTA_CUTOFF_MEV:
        return 0.0, 0.0
    transfer_mev = np.geomspace(DELTA_CUTOFF_MEV, 0.5 * energy_mev, _N_QUADRATURE)
    rate = moller_per_mev_mm(energy_mev, transfer_mev)
    return float(np.trapezoid(rate, transfer_mev)), float(np.trapezoid(rate * transfer_mev, transfer_mev))


def _mean_bremsstrahlung_mev(energy_mev: F64) -> F64:
    """Return the mean energy of photons above the cut-off, shape as ``energy_mev``."""
    share = np.linspace(0.0, 1.0, _N_QUADRATURE)
    log_ratio = np.log(energy_mev / BREMSSTRAHLUNG_CUTOFF_MEV)
    photon_mev = BREMSSTRAHLUNG_CUTOFF_MEV * np.exp(share[None, :] * log_ratio[:, None])
    shape = bremsstrahlung_shape(photon_mev / (energy_mev[:, None] + ELECTRON_REST_ENERGY_MEV))
    return np.asarray(np.trapezoid(shape * photon_mev, share) / np.trapezoid(shape, share))


def _log_log(energy_mev: F64, table_mev: F64, values: F64) -> F64:
    return np.interp(np.log(energy_mev), np.log(table_mev), np.log(values))


def _read(name: str) -> F64:
    with (files("engine.physics") / "data" / name).open(encoding="utf-8") as stream:
        return np.loadtxt(stream, delimiter=",", skiprows=1)
