"""From Hounsfield units to electron density relative to water, by a table that the study names."""

import csv
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import CaseError, StudyError, shortened
from engine.model.arrays import F32
from engine.physics.stoichiometric import fit, substitute

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
    kind
        Where it comes from, for the report.

    Raises
    ------
    StudyError
        If the columns are not as said.
    """

    name: str
    hu: tuple[float, ...]
    density: tuple[float, ...]
    kind: str = "table"

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

    @property
    def told(self) -> str:
        """Name and kind, for the report."""
        return self.name if self.name in BUILT_IN else f"{self.name} ({self.kind}, {len(self.hu)} points)"

    def density_of(self, hu: F32) -> F32:
        """Return the relative electron density of every voxel, same shape as ``hu``."""
        return np.interp(hu, self.hu, self.density).astype(np.float32)

    def density_at(self, hu: float) -> float:
        """Return the relative electron density of one number of HU."""
        return float(np.interp(hu, self.hu, self.density))


_COLUMNS = ("hu", "relative_electron_density")
BUILT_IN = {
    # For the built-in phantoms only, whose materials are defined by it: air, water and a straight line through both.
    "phantom": HuTable("phantom", (-1000.0, 0.0, 3000.0), (AIR_DENSITY, 1.0, 4.0)),
}


def load_hu_table(name: str, folder: Path) -> HuTable:
    """Return a built-in table, or read one from a file.

    A CSV file is a table with the columns ``hu`` and ``relative_electron_density``; lines that begin with # are
    comments. A TOML file has a ``kind``: ``two_lines`` with the points ``below``, ``join`` and ``above``, each HU and
    relative electron density; or ``stoichiometric`` with the tables ``[[measured]]``, each with ``name``, ``hu``,
    ``density_g_cm3`` and ``mass_percent`` by element (see `engine.physics.stoichiometric`).

    Parameters
    ----------
    name
        ``phantom``, or the path of a file, relative to ``folder``.
    folder
        Where the study file lies.

    Raises
    ------
    StudyError
        If there is no such table or file, or it does not hold what it should.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    path = folder / name
    if not path.is_file():
        raise StudyError(
            f"HU table '{name}' is neither built in ({', '.join(BUILT_IN)}) nor a file ({path.resolve()}); "
            "give the scanner's own table: CSV with the columns hu,relative_electron_density, or TOML "
            "(docs/methods/electron_density.md)"
        )
    return _from_toml(path) if path.suffix == ".toml" else _from_csv(path)


def _from_csv(path: Path) -> HuTable:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.reader(line for line in stream if not line.startswith("#")) if row]
        if not rows or [name.strip() for name in rows[0]] != list(_COLUMNS):
            raise ValueError(f"its first line is '{shortened(','.join(rows[0] if rows else []))}'")
        for row in rows[1:]:
            if len(row) != len(_COLUMNS):
                # A comma in a number would make two of it, and the density of bone that of water.
                raise ValueError(
                    f"the row '{shortened(','.join(row))}' has {len(row)} numbers: a decimal comma?"
                )
        hu, density = (tuple(float(row[column]) for row in rows[1:]) for column in (0, 1))
    except (OSError, ValueError, csv.Error) as error:
        raise StudyError(
            f"HU table {path.name} cannot be read ({error}); it needs the header line {','.join(_COLUMNS)} and two "
            "numbers in every row, with decimal points"
        ) from error
    return HuTable(path.name, hu, density)


def _from_toml(path: Path) -> HuTable:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        kind = values.pop("kind", None)
        if kind == "two_lines":
            points = [tuple(float(v) for v in values.pop(key)) for key in ("below", "join", "above")]
            hu, density = zip(*points, strict=True)
            told = "two lines"
        elif kind == "stoichiometric":
            found = fit(
                [
                    (substitute(m["name"], m["density_g_cm3"], m["mass_percent"]), float(m["hu"]))
                    for m in values.pop("measured")
                ]
            )
            hu, density = (tuple(float(v) for v in column) for column in found.table())
            told = (
                f"stoichiometric calibration with {found.n_measured} substitutes, k_coherent {found.coherent:.3g}, "
                f"k_photo {found.photo:.3g}, missed by {found.rms_hu:.1f} HU rms, {found.largest_hu:.1f} HU at most"
            )
        else:
            raise StudyError(f"kind = '{kind}' is neither 'two_lines' nor 'stoichiometric'")
    except (StudyError, CaseError) as error:
        raise StudyError(f"HU table {path.name}: {error}") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StudyError(
            f"HU table {path.name} cannot be read ({type(error).__name__}: {error}); what it should hold is told in "
            "docs/methods/electron_density.md"
        ) from error
    if values:
        raise StudyError(f"HU table {path.name} has keys that mean nothing here: {', '.join(values)}")
    return HuTable(path.name, hu, density, told)
