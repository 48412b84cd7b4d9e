"""A dose moved against the patient: what it is interpolated from, and the rows that a group needs for it.

A setup error s moves the patient against beams that stay. Where the dose stays with the beams (a static dose cloud),
what lies at p in the planned patient gets what the nominal dose has at p + s. All voxels of a grid are interpolated
alike: between the same neighbours, with the same factors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from engine.geometry.bricks import MINI_SIZE, BrickLayout
from engine.model.arrays import F64, I32, I64, Bool

_ROUNDING = 1e-9
"""Part of a voxel by which a shift may be off through rounding: whole voxels shall have one neighbour."""


@dataclass(frozen=True)
class Stencil:
    """The neighbours that a moved dose is interpolated between.

    Parameters
    ----------
    offset_zyx
        Whole voxels from a voxel to each neighbour, shape (n, 3).
    factor
        Factor of each neighbour's dose; they sum to 1, shape (n,).
    """

    offset_zyx: I64
    factor: F64


def stencil_of(shift_mm: tuple[float, float, float], spacing_mm_xyz: tuple[float, float, float]) -> Stencil:
    """Return the trilinear interpolation for a displacement of the patient against the beams (LPS, x, y, z)."""
    axes = []
    for shift, spacing in zip(shift_mm[::-1], spacing_mm_xyz[::-1], strict=True):
        position = shift / spacing
        lower = int(np.floor(position + _ROUNDING))
        upper_factor = position - lower
        axes.append(
            [(lower, 1.0 - upper_factor), (lower + 1, upper_factor)]
            if upper_factor > _ROUNDING
            else [(lower, 1.0)]
        )
    taps = list(product(*axes))
    return Stencil(
        np.array([[offset for offset, _ in tap] for tap in taps], dtype=np.int64),
        np.array([z[1] * y[1] * x[1] for z, y, x in taps]),
    )


def stencils_of(layout: BrickLayout, shifts_mm: Sequence[tuple[float, float, float]]) -> list[Stencil]:
    """Return the interpolations for the dose at rest and for some displacements of the patient."""
    return [stencil_of(shift_mm, layout.grid.spacing_mm_xyz) for shift_mm in ((0.0, 0.0, 0.0), *shifts_mm)]


@dataclass(frozen=True)
class Halo:
    """The rows that the moved doses of some voxels are interpolated from.

    Held rows are numbered anew: brick by brick, in the order of ``bricks``.

    Parameters
    ----------
    row
        The voxels' own rows, counted from their group's first, shape (n,).
    bricks
        Bricks with held rows, ascending, shape (n_brick,).
    keep
        Which of their mini-blocks are held, shape (n_brick, mini-blocks of a brick).
    n_box
        Voxels of a box around all.
    place
        Place of each of the voxels in the box, shape (n,).
    held_row, held_place
        Every held row and its place in the box; everywhere else there is no dose. Shape (n_held,).
    stride
        How far voxels that are neighbours along z, y and x lie apart in the box.
    """

    row: I32
    bricks: I64
    keep: Bool
    n_box: int
    place: I32
    held_row: I32
    held_place: I32
    stride: I64

    @property
    def n_bytes(self) -> int:
        """Bytes of what an evaluation needs."""
        return sum(a.nbytes for a in (self.row, self.place, self.held_row, self.held_place))


def halo_of(layout: BrickLayout, first_row: int, row: I64, stencils: Sequence[Stencil]) -> Halo:
    """Return what the doses of some rows need that are moved in several ways.

    Voxels beyond the grid are not held: their dose is 0.

    Parameters
    ----------
    layout
        Row numbering.
    first_row
        First row of the group.
    row
        The wanted rows, counted from there, shape (n,).
    stencils
        Of all moves; the dose as it is has one of its own.
    """
    size, n_mini = layout.brick_size, layout.brick_size // MINI_SIZE
    offset_zyx = np.unique(np.concatenate([stencil.offset_zyx for stencil in stencils]), axis=0)
    voxel_zyx = layout.voxels_zyx(first_row + row)
    if row.size == 0:
        nothing, empty = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int32)
        keep = np.zeros((0, n_mini), dtype=np.bool_)
        return Halo(empty, nothing, keep, 0, empty, empty, empty, np.ones(3, dtype=np.int64))
    begin = voxel_zyx.min(axis=0) + offset_zyx.min(axis=0)
    end = voxel_zyx.max(axis=0) + offset_zyx.max(axis=0) + 1
    shape = end - begin
    stride = np.array([shape[1] * shape[2], shape[2], 1], dtype=np.int64)
    place = (voxel_zyx - begin) @ stride
    needed = np.zeros(int(shape.prod()), dtype=np.bool_)
    for step in offset_zyx @ stride:
        needed[place + step] = True
    axes = [np.arange(a, b) for a, b in zip(begin, end, strict=True)]
    z, y, x = ((axis >= 0) & (axis < n) for axis, n in zip(axes, layout.grid.shape_zyx, strict=True))
    needed &= (z[:, None, None] & y[:, None] & x).reshape(-1)
    rows = layout.rows_of_box(*axes).reshape(-1)[needed]
    brick, inside = np.divmod(rows, size)
    bricks = np.unique(brick)
    number = np.searchsorted(bricks, brick)
    keep = np.zeros((bricks.size, n_mini), dtype=np.bool_)
    keep[number, inside // MINI_SIZE] = True
    return Halo(
        row.astype(np.int32),
        bricks.astype(np.int64),
        keep,
        needed.size,
        place.astype(np.int32),
        (number * size + inside).astype(np.int32),
        np.flatnonzero(needed).astype(np.int32),
        stride,
    )


@dataclass(frozen=True)
class Held:
    """About how much a group holds of the nominal matrix.

    Parameters
    ----------
    n_mini, n_brick
        Mini-blocks of all beamlets, and bricks.
    n_mini_read
        Mini-blocks of all bricks from the first to the last of these: they are stored in this order.
    n_place
        Doses that are formed to interpolate between: of the bricks' rows, and of the box.
    n_bytes
        Bytes of the numbers of rows.
    """

    n_mini: int
    n_brick: int
    n_mini_read: int
    n_place: int
    n_bytes: int


def held_by_groups(
    layout: BrickLayout,
    groups: Sequence[tuple[int, int]],
    wanted: Bool,
    active: Bool,
    n_mini_per_brick: I64,
    stencils: Sequence[Stencil],
) -> list[Held]:
    """Return about how much each group holds of the nominal matrix.

    Parameters
    ----------
    layout
        Row numbering.
    groups
        First brick and number of bricks of every group.
    wanted, active
        Rows whose moved doses are wanted, and rows that get dose, shape (n_row,).
    n_mini_per_brick
        Mini-blocks of all beamlets in every brick, taken as spread evenly over its active ones; shape (n_brick,).
    stencils
        As for `halo_of`.
    """
    size = layout.brick_size
    active_mini: Bool = np.any(active.reshape(layout.n_brick, -1, MINI_SIZE), axis=2)
    per_mini = n_mini_per_brick / np.maximum(active_mini.sum(axis=1), 1)
    held = []
    for first, n in groups:
        row = np.flatnonzero(wanted[first * size : (first + n) * size])
        halo = halo_of(layout, first * size, row, stencils)
        n_kept = (halo.keep & active_mini[halo.bricks]).sum(axis=1)
        read = slice(int(halo.bricks.min(initial=first)), int(halo.bricks.max(initial=first)) + 1)
        held.append(
            Held(
                int(np.ceil((n_kept * per_mini[halo.bricks]).sum())),
                halo.bricks.size,
                int(n_mini_per_brick[read].sum()),
                halo.bricks.size * size + halo.n_box,
                halo.n_bytes,
            )
        )
    return held
