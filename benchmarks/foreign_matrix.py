"""A dose-influence matrix of another program, as nightbeam's tiles: the same entries, rounded to counts of 16 bits."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from engine.geometry.bricks import MINI_SIZE, BrickLayout
from engine.model.arrays import I64
from engine.model.influence import TileColumn

_LARGEST_COUNT = 65535


def tile_columns(
    matrix: sparse.csc_array | sparse.csc_matrix, layout: BrickLayout, blocks: Sequence[I64]
) -> list[tuple[int, TileColumn]]:
    """Return a matrix as blocks of tiles, each with the number of its first beamlet.

    Parameters
    ----------
    matrix
        Gy per weight; rows are the voxels of the grid in C order of [z, y, x], shape (n_voxel, n_beamlet).
    layout
        nightbeam's numbering of the same voxels.
    blocks
        Columns of each block. Together they are the order in which nightbeam numbers the beamlets.

    Raises
    ------
    ValueError
        If the matrix has negative doses or other voxels.
    """
    if matrix.shape[0] != layout.row_of_voxel.size:
        raise ValueError(f"the matrix has {matrix.shape[0]} rows, the grid {layout.row_of_voxel.size} voxels")
    if matrix.nnz and matrix.data.min() < 0.0:
        raise ValueError(f"the matrix has a dose of {matrix.data.min():g} Gy; tiles hold none below 0")
    row_of_voxel = layout.row_of_voxel.ravel()
    first = np.cumsum([0, *(block.size for block in blocks)])
    return [
        (int(begin), _column(matrix[:, block], row_of_voxel, layout.brick_size))
        for begin, block in zip(first, blocks, strict=False)
    ]


def _column(part: sparse.csc_array, row_of_voxel: np.ndarray, brick_size: int) -> TileColumn:
    """Return the tiles of some columns."""
    part = sparse.csc_array(part)
    part.sum_duplicates()
    part.eliminate_zeros()
    n_beamlet, per_brick = part.shape[1], brick_size // MINI_SIZE
    beamlet = np.repeat(np.arange(n_beamlet), np.diff(part.indptr))
    brick, inside = np.divmod(row_of_voxel[part.indices].astype(np.int64), brick_size)
    # Mini-blocks in the order of a column: by brick, then beamlet, then number.
    found, at = np.unique(
        (brick * n_beamlet + beamlet) * per_brick + inside // MINI_SIZE, return_inverse=True
    )
    dose_gy = np.zeros((found.size, MINI_SIZE), dtype=np.float32)
    dose_gy[at, inside % MINI_SIZE] = part.data
    bricks, tile = np.unique(found // per_brick // n_beamlet, return_inverse=True)
    segment = tile * n_beamlet + found // per_brick % n_beamlet
    top_gy = np.zeros(bricks.size * n_beamlet, dtype=np.float32)
    np.maximum.at(top_gy, segment, dose_gy.max(axis=1))
    scale = (top_gy / np.float32(_LARGEST_COUNT)).astype(np.float32)
    counts = np.rint(dose_gy / scale[segment][:, None].astype(np.float64))
    return TileColumn(
        n_beamlet,
        bricks.astype(np.int32),
        np.searchsorted(segment, np.arange(top_gy.size + 1)).astype(np.int64),
        scale,
        (found % per_brick).astype(np.uint16),
        np.minimum(counts, _LARGEST_COUNT).astype(np.uint16),
        int(part.nnz),
    )
