"""Materials by name: mass density, composition by mass, and the electron density that follows from both."""

import csv
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from engine.errors import CaseError

_LARGEST_MISSING = 0.002
"""Published compositions are rounded to three digits."""
_DENSEST_G_CM3 = 23.0
"""Osmium, the densest element, has 22.6 g/cm³."""


@dataclass(frozen=True)
class Material:
    """What something is made of.

    Parameters
    ----------
    name
        Name for people.
    density_g_cm3
        Mass density.
    composition
        Fraction by mass of every element, by its symbol; they sum to 1.
    mean_excitation_ev
        Mean excitation energy for the stopping of charged particles, where it is known for the material as a whole;
        else it follows from the composition (`engine.physics.stopping_power`).

    Raises
    ------
    CaseError
        If the density makes no sense, an element is unknown, or the fractions do not sum to 1.
    """

    name: str
    density_g_cm3: float
    composition: Mapping[str, float]
    mean_excitation_ev: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.density_g_cm3 <= _DENSEST_G_CM3:
            raise CaseError(
                f"material '{self.name}' of {self.density_g_cm3:g} g/cm³ (it must be above 0 and at most "
                f"{_DENSEST_G_CM3:g}); give g/cm³, not kg/m³"
            )
        unknown = sorted(set(self.composition) - set(_elements()))
        if unknown:
            raise CaseError(
                f"material '{self.name}' holds {', '.join(unknown)}, which is no element with a standard atomic weight "
                "up to uranium; write symbols such as H, Ca"
            )
        if self.mean_excitation_ev is not None and not 10.0 < self.mean_excitation_ev < 1000.0:
            raise CaseError(
                f"material '{self.name}' with a mean excitation energy of {self.mean_excitation_ev:g} eV (hydrogen has "
                "19, uranium 890); give eV, or leave it out"
            )
        total = math.fsum(self.composition.values())
        if min(self.composition.values(), default=0.0) < 0.0 or abs(total - 1.0) > _LARGEST_MISSING:
            raise CaseError(
                f"the composition of material '{self.name}' sums to {total:.4g} (fractions by mass, none below 0, must "
                "sum to 1)"
            )

    def atoms(self) -> list[tuple[int, float]]:
        """Return atomic number and amount, in mol/g, of every element; what rounding left out is made up for."""
        total = math.fsum(self.composition.values())
        return [
            (z, share / total / weight)
            for symbol, share in self.composition.items()
            for z, weight in (_elements()[symbol],)
        ]

    @property
    def electrons_per_nucleon(self) -> float:
        """Mean of Z/A by mass, in mol/g."""
        return math.fsum(z * amount for z, amount in self.atoms())

    @property
    def relative_electron_density(self) -> float:
        """Electrons per volume, relative to water of 1 g/cm³."""
        return self.density_g_cm3 * self.electrons_per_nucleon / MATERIALS["water"].electrons_per_nucleon


@cache
def _elements() -> dict[str, tuple[int, float]]:
    """Return atomic number and standard atomic weight in g/mol by symbol."""
    with (files("engine.physics") / "data" / "elements.csv").open(encoding="utf-8") as stream:
        return {
            row["symbol"]: (int(row["atomic_number"]), float(row["g_per_mol"]))
            for row in csv.DictReader(stream)
        }


def _load() -> dict[str, Material]:
    text = (files("engine.physics") / "data" / "materials.toml").read_text(encoding="utf-8")
    return {
        name: Material(name, values["density_g_cm3"], values["composition"], values.get("mean_excitation_ev"))
        for name, values in tomllib.loads(text)["materials"].items()
    }


MATERIALS = _load()
"""The named materials; the source of each stands in the file."""
