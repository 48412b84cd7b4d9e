"""Mean dose over free voxels: evenly spaced points of every voxel, which an engine sees as rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from engine.errors import ExperimentError
from engine.geometry.bricks import BrickLayout
from engine.model.arrays import F32, F64, I32, I64, Bool
from engine.model.grid import Grid
from engine.spec.experiment import ScoreSpec

_POINTS_AT_ONCE = 2_000_000
_MOST_POINTS = 2_000_000_000


@dataclass(frozen=True, eq=False)
class Samples(BrickLayout):
    """Points of a raster that need not be regular, numbered as rows: ``grid`` only counts them, one unit apart.

    Parameters
    ----------
    at_mm_xyz
        Positions along x, y and z.
    voxel_xyz
        For every position the scoring voxel along that axis that it lies in, ascending.
    """

    at_mm_xyz: tuple[F64, F64, F64]
    voxel_xyz: tuple[I64, I64, I64]

    def centres_mm(self, rows: I32 | I64) -> F64:
        """Return the points of ``rows``, shape (n, 3); those beyond the raster are its last ones."""
        index = super().centres_mm(rows).astype(np.int64)
        return np.stack(
            [at[np.minimum(index[:, a], at.size - 1)] for a, at in enumerate(self.at_mm_xyz)], axis=1
        )

    def mean(self, dose_gy: F32, inside: Bool) -> tuple[F64, F64]:
        """Return the mean dose over the points inside of every voxel (0 if none is), and the share that is inside.

        Parameters
        ----------
        dose_gy, inside
            At all points, shape (n_z, n_y, n_x).
        """
        total = self._sums(np.where(inside, dose_gy, 0.0))
        n_inside = self._sums(inside.astype(np.float64))
        n_point = self._sums(np.ones(inside.shape))
        return total / np.maximum(n_inside, 1.0), n_inside / n_point

    def _sums(self, values: F64) -> F64:
        for axis, voxel in zip((2, 1, 0), self.voxel_xyz, strict=True):
            starts = np.flatnonzero(np.diff(voxel, prepend=voxel[0] - 1))
            values = np.add.reduceat(values, starts, axis=axis)
        return values


def samples_of(spec: ScoreSpec) -> Iterator[tuple[slice, Samples]]:
    """Yield the points of a scoring grid, some voxel planes along z at a time: so memory stays bounded.

    An interval of width w gets ceil(w / sample_mm) points, each in the middle of an equal part.

    Raises
    ------
    ExperimentError
        If there are too many points.
    """
    x, y, z = (
        _points(edges, sample_mm)
        for edges, sample_mm in zip(spec.edges_mm_xyz(), spec.sample_mm_xyz(), strict=True)
    )
    if float(x[0].size) * y[0].size * z[0].size > _MOST_POINTS:
        raise ExperimentError(
            ("score",),
            f"{x[0].size} × {y[0].size} × {z[0].size} points are too many (at most {_MOST_POINTS / 1e9:.0f} billion); "
            "take a larger sample_mm, or fewer voxels",
        )
    in_plane = x[0].size * y[0].size
    begin = 0
    while begin < z[0].size:
        # Whole voxels: as many as are affordable, but at least one.
        end = min(begin + _POINTS_AT_ONCE // in_plane, z[0].size)
        if end < z[0].size:
            end = int(np.searchsorted(z[1], z[1][end]))
        end = max(end, int(np.searchsorted(z[1], z[1][begin], side="right")))
        part = slice(begin, end)
        grid = Grid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (end - begin, y[0].size, x[0].size))
        samples = Samples(grid, 8, (x[0], y[0], z[0][part]), (x[1], y[1], z[1][part]))
        yield slice(int(z[1][begin]), int(z[1][end - 1]) + 1), samples
        begin = end


def _points(edges_mm: F64, sample_mm: float) -> tuple[F64, I64]:
    """Return positions, and the number of the interval that each lies in."""
    widths_mm = np.diff(edges_mm)
    n = np.maximum(np.ceil(widths_mm / sample_mm - 1e-9), 1.0).astype(np.int64)
    interval = np.repeat(np.arange(n.size), n)
    within = np.arange(interval.size) - np.repeat(np.cumsum(n) - n, n) + 0.5
    return edges_mm[interval] + within * (widths_mm / n)[interval], interval
