"""The tables of the elements, as `engine.physics.nist_elements` wrote them."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from engine.errors import CaseError
from engine.model.arrays import F64

LOWEST_ENERGY_MEV = 0.001
HIGHEST_ENERGY_MEV = 100.0
"""First and last energy of the tables of photons and electrons."""


@dataclass(frozen=True)
class ElementPhotons:
    """Cross sections of one element per atom, in barn, at the energies that XCOM stores; each of shape (n_energy,).

    At an absorption edge two energies stand 0.1 eV apart.
    """

    energy_mev: F64
    coherent_barn: F64
    incoherent_barn: F64
    photoelectric_barn: F64
    pair_barn: F64
    triplet_barn: F64


@dataclass(frozen=True)
class ElementShells:
    """Electrons of one element: number and binding energy of every shell, each of shape (n_shell,).

    ``conducting`` marks shells whose electrons are free where the element stands alone.
    """

    n_electron: F64
    binding_ev: F64
    conducting: F64


def photons_of(atomic_number: int) -> ElementPhotons:
    """Return the photon cross sections of an element."""
    return ElementPhotons(*_rows_of("element_photons.csv", atomic_number).T)


def shells_of(atomic_number: int) -> ElementShells:
    """Return the shells of an element."""
    return ElementShells(*_rows_of("element_shells.csv", atomic_number).T)


def mean_excitation_ev_of(atomic_number: int) -> float:
    """Return the mean excitation energy of an element that stands alone."""
    return float(_rows_of("element_excitation.csv", atomic_number)[0, 0])


def radiative_of(atomic_number: int) -> tuple[F64, F64]:
    """Return energies in MeV and there the radiative stopping power of an element in MeV cm2/g."""
    columns, rows = _radiative()
    return rows[:, 0], rows[:, columns[atomic_number]]


def require_energies(energy_mev: F64) -> None:
    """Refuse energies that the tables do not reach.

    Raises
    ------
    CaseError
        If an energy is below 1 keV or above 100 MeV.
    """
    if energy_mev.size and not (
        LOWEST_ENERGY_MEV <= energy_mev.min() <= energy_mev.max() <= HIGHEST_ENERGY_MEV
    ):
        raise CaseError(
            f"energies from {energy_mev.min():g} to {energy_mev.max():g} MeV are asked for (the tables go from "
            f"{LOWEST_ENERGY_MEV:g} to {HIGHEST_ENERGY_MEV:g} MeV); stay within"
        )


def _rows_of(name: str, atomic_number: int) -> F64:
    rows = _table(name)
    return rows[rows[:, 0] == atomic_number, 1:]


@cache
def _table(name: str) -> F64:
    with (files("engine.physics") / "data" / name).open(encoding="utf-8") as stream:
        return np.loadtxt(stream, delimiter=",", skiprows=1, ndmin=2)


@cache
def _radiative() -> tuple[dict[int, int], F64]:
    with (files("engine.physics") / "data" / "element_radiative.csv").open(encoding="utf-8") as stream:
        numbers = stream.readline().split(",")[1:]
        return {int(n): column for column, n in enumerate(numbers, 1)}, np.loadtxt(stream, delimiter=",")
