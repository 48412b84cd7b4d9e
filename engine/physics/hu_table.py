"""From Hounsfield units to electron density relative to water, by a table that the study names."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import StudyError
from engine.model.arrays import F32

AIR_DENSITY = 0.00108
"""Relative electron density of dry air at 20 °C: 0.001205 g/cm³ times Z/A 0.49919 (NIST) over water's 0.55508."""


@dataclass(frozen=True)
class HuTable:
    """A piecewise linear table; beyond its ends the end values hold.

    Parameters
    ----------
    name
        Name as the study gives it.
    hu
        Hounsfield units, ascending.
    density
        Electron density relative to water, not negative, never falling.

    Raises
    ------
    StudyError
        If the columns are not as said.
    """

    name: str
    hu: tuple[float, ...]
    density: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.hu) < 2 or len(self.hu) != len(self.density):
            raise StudyError(f"HU table '{self.name}' needs at least two rows of HU and density")
        if not np.isfinite(self.hu).all() or not np.isfinite(self.density).all():
            raise StudyError(f"HU table '{self.name}' holds values that are not finite numbers")
        if np.any(np.diff(self.hu) <= 0.0):
            raise StudyError(f"HU table '{self.name}': the HU column must rise from row to row")
        if min(self.density) < 0.0 or np.any(np.diff(self.density) < 0.0):
            raise StudyError(
                f"HU table '{self.name}': densities must not be negative, nor fall with rising HU"
            )

    def density_of(self, hu: F32) -> F32:
        """Return the relative electron density of every voxel, same shape as ``hu``."""
        return np.interp(hu, self.hu, self.density).astype(np.float32)

    def density_at(self, hu: float) -> float:
        """Return the relative electron density of one number of HU."""
        return float(np.interp(hu, self.hu, self.density))


BUILT_IN = {
    # For the built-in phantoms only, whose materials are defined by it: air, water and a straight line through both.
    "phantom": HuTable("phantom", (-1000.0, 0.0, 3000.0), (AIR_DENSITY, 1.0, 4.0)),
}


def load_hu_table(name: str, folder: Path) -> HuTable:
    """Return a built-in table, or read one from a CSV file with the columns ``hu`` and ``relative_electron_density``.

    Parameters
    ----------
    name
        ``phantom``, or the path of a file, relative to ``folder``. Lines that begin with # are comments.
    folder
        Where the study file lies.

    Raises
    ------
    StudyError
        If there is no such table or file, or a row is not two numbers.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    path = folder / name
    if not path.is_file():
        raise StudyError(
            f"HU table '{name}' is neither built in ({', '.join(BUILT_IN)}) nor a file in {folder}; "
            "give the scanner's own table as a CSV file with the columns hu,relative_electron_density"
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(line for line in stream if not line.startswith("#")))
        hu = tuple(float(row["hu"]) for row in rows)
        density = tuple(float(row["relative_electron_density"]) for row in rows)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"HU table {path.name} cannot be read ({error}); it needs a header line "
            "hu,relative_electron_density and two numbers in every row"
        ) from error
    return HuTable(path.name, hu, density)
