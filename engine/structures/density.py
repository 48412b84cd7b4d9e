"""Electron density of the patient: by the HU table in the body, air around it, and what the study says otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.model.arrays import F32
from engine.model.grid import Grid
from engine.physics.hu_table import AIR_DENSITY, HuTable
from engine.structures.booleans import overlap


@dataclass(frozen=True)
class DensityOf:
    """A structure whose density is said.

    Parameters
    ----------
    coverage
        Fraction of every voxel inside, on the grid of the CT.
    density
        Electron density relative to water; None for the CT's.
    """

    coverage: F32
    density: float | None


def patient_density(
    ct_hu: F32,
    grid: Grid,
    body: F32,
    table: HuTable,
    outside: Sequence[DensityOf] = (),
    overrides: Sequence[DensityOf] = (),
) -> F32:
    """Return electron density relative to water in every voxel.

    A voxel at the skin has two parts, one in the body and one outside. The first begins with the density of the
    table, the other with that of air. Structures outside the body fill their share of the outer part; where they
    overlap the body, the body counts. Then overrides replace their share of either part, one after the other: of
    several at the same place the last one holds. The result is the mean of both parts.

    Parameters
    ----------
    ct_hu, body
        Hounsfield units and coverage of the body outline, shape ``grid.shape_zyx``.
    grid
        The CT grid.
    table
        From HU to density.
    outside, overrides
        Structures, in order.
    """
    by_ct = table.density_of(ct_hu)
    if not outside and not overrides:
        return (body * by_ct + (1.0 - body) * np.float32(AIR_DENSITY)).astype(np.float32)
    within, around = by_ct.copy(), np.full_like(by_ct, AIR_DENSITY)
    rest = 1.0 - body
    for number, entry in enumerate((*outside, *overrides)):
        inner = overlap(entry.coverage, body, grid)
        outer_share = _share(entry.coverage - inner, rest)
        value = by_ct if entry.density is None else np.float32(entry.density)
        around += outer_share * (value - around)
        if number >= len(outside):
            within += _share(inner, body) * (value - within)
    return (body * within + rest * around).astype(np.float32)


def _share(part: F32, whole: F32) -> F32:
    """Return which share of the whole a part is, at most 1; 0 of nothing."""
    result: F32 = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0.0)
    return result.clip(0.0, 1.0)
