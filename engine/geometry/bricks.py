"""Bricks: cubes of voxels, the row unit of influence matrices and the chunk of stored volumes.

Rows are numbered brick by brick, inside a brick mini-block by mini-block (2×2×2 voxels), inside a mini-block in
C order of [z, y, x]. So the eight voxels of a mini-block are neighbours in memory, and a brick is one contiguous
piece of every row vector. Bricks at the far faces may reach beyond the grid; rows there stay empty.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine._jit import kernel
from engine.model.arrays import F32, F64, I32, I64
from engine.model.grid import Grid

MINI_EDGE = 2
MINI_SIZE = MINI_EDGE**3
_EDGES = (32, 16, 8)
_ENOUGH_BRICKS = 64
"""Fewer bricks than this cannot be shared out evenly among some tens of reduction groups."""


def choose_brick_edge(grid: Grid) -> int:
    """Return the largest edge of 32, 16 and 8 voxels that cuts ``grid`` into at least 64 bricks, or else 8."""
    for edge in _EDGES:
        if int(np.prod([-(-n // edge) for n in grid.shape_zyx])) >= _ENOUGH_BRICKS:
            return edge
    return _EDGES[-1]


@dataclass(frozen=True)
class BrickLayout:
    """How the voxels of a grid are numbered as rows.

    Parameters
    ----------
    grid
        The voxel grid.
    edge
        Voxels along a brick edge; a multiple of 2 and at most 32, so that a mini-block number fits 16 bits.
    """

    grid: Grid
    edge: int

    def __reduce__(self) -> tuple[type["BrickLayout"], tuple[Grid, int]]:
        # What was worked out is large and stays here: every task of a cluster carries a layout.
        return type(self), (self.grid, self.edge)

    @property
    def bricks_zyx(self) -> tuple[int, int, int]:
        """Number of bricks along each axis."""
        nz, ny, nx = (-(-n // self.edge) for n in self.grid.shape_zyx)
        return nz, ny, nx

    @property
    def n_brick(self) -> int:
        """Number of bricks."""
        nz, ny, nx = self.bricks_zyx
        return nz * ny * nx

    @property
    def brick_size(self) -> int:
        """Rows of one brick."""
        return self.edge**3

    @property
    def n_row(self) -> int:
        """Number of rows, those beyond the grid included."""
        return self.n_brick * self.brick_size

    @cached_property
    def row_of_voxel(self) -> I32:
        """Row of every voxel of the grid, shape ``grid.shape_zyx``."""
        z, y, x = (np.arange(n) for n in self.grid.shape_zyx)
        return self.rows_of_box(z, y, x)

    def rows_of_box(self, z: I64, y: I64, x: I64) -> I32:
        """Return the rows of all voxels whose indices are among those of each axis, shape (n_z, n_y, n_x)."""
        _, by, bx = self.bricks_zyx
        half = self.edge // MINI_EDGE
        # A row number is a sum of three numbers, each of which depends on one axis alone.
        parts = []
        for index, bricks, minis, inner in zip(
            (z, y, x), (by * bx, bx, 1), (half * half, half, 1), (4, 2, 1), strict=True
        ):
            mini = index % self.edge // MINI_EDGE * minis
            part = (
                index // self.edge * bricks * self.brick_size + mini * MINI_SIZE + index % MINI_EDGE * inner
            )
            parts.append(part.astype(np.int32))
        of_z, of_y, of_x = parts
        row: I32 = of_z[:, None, None] + of_y[:, None] + of_x
        return row

    def voxels_zyx(self, rows: I32 | I64) -> I64:
        """Return the voxel indices of ``rows``, shape (n, 3) as z, y, x; also right beyond the grid."""
        _, by, bx = self.bricks_zyx
        half = self.edge // MINI_EDGE
        brick, inside = np.divmod(np.asarray(rows, dtype=np.int64), self.brick_size)
        mini, inner = np.divmod(inside, MINI_SIZE)
        z = brick // (by * bx) * self.edge + mini // (half * half) * MINI_EDGE + inner // 4
        y = brick // bx % by * self.edge + mini // half % half * MINI_EDGE + inner // 2 % 2
        x = brick % bx * self.edge + mini % half * MINI_EDGE + inner % 2
        return np.stack([z, y, x], axis=1)

    def to_rows(self, volume: F32 | F64) -> F32:
        """Return a volume, shape ``grid.shape_zyx``, as float32 rows, shape (n_row,); empty rows are 0."""
        rows = np.zeros(self.n_row, dtype=np.float32)
        rows[self.row_of_voxel] = volume
        return rows

    def to_volume(self, rows: F32 | F64) -> F32:
        """Return rows, shape (n_row,), as a float32 volume, shape ``grid.shape_zyx``."""
        volume: F32 = rows[self.row_of_voxel].astype(np.float32)
        return volume

    def centres_mm(self, rows: I32 | I64) -> F64:
        """Return the voxel centres of ``rows``, shape (n, 3) as x, y, z; also right beyond the grid."""
        _, by, bx = self.bricks_zyx
        centres = np.empty((rows.size, 3))
        _fill_centres(
            np.ascontiguousarray(rows, dtype=np.int64), self.edge, by, bx,
            np.asarray(self.grid.origin_mm_xyz), np.asarray(self.grid.spacing_mm_xyz), centres,
        )  # fmt: skip
        return centres


@kernel
def _fill_centres(
    rows: I64, edge: int, bricks_y: int, bricks_x: int, origin_mm: F64, spacing_mm: F64, centres_mm: F64
) -> None:
    """Write the voxel centres, (n, 3) as x, y, z, of ``rows`` (n,)."""
    half = edge // MINI_EDGE
    for i in range(rows.size):
        brick, inside = divmod(rows[i], edge**3)
        mini, inner = divmod(inside, MINI_SIZE)
        z = brick // (bricks_y * bricks_x) * edge + mini // (half * half) * MINI_EDGE + inner // 4
        y = brick // bricks_x % bricks_y * edge + mini // half % half * MINI_EDGE + inner // 2 % 2
        x = brick % bricks_x * edge + mini % half * MINI_EDGE + inner % 2
        centres_mm[i, 0] = origin_mm[0] + x * spacing_mm[0]
        centres_mm[i, 1] = origin_mm[1] + y * spacing_mm[1]
        centres_mm[i, 2] = origin_mm[2] + z * spacing_mm[2]
