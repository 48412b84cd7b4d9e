"""Pieces of an influence matrix: a tile is what some beamlets give one brick, a column all tiles of a block."""

from collections.abc import Iterator
from dataclasses import dataclass

from engine.model.arrays import F32, I32, I64, U16


@dataclass(frozen=True)
class Tile:
    """Dose per weight of some consecutive beamlets of one beam in one brick; entries as in `TileColumn`.

    Parameters
    ----------
    brick
        The brick.
    begin
        First mini-block of every beamlet and, last, the end, counted in ``mini``; shape (n_beamlet + 1,).
    scale
        Gy per weight of one count, shape (n_beamlet,).
    mini, value
        Numbers of mini-blocks (n_mini,) and counts (n_mini, 8), of these beamlets or of more.
    """

    brick: int
    begin: I64
    scale: F32
    mini: U16
    value: U16


@dataclass(frozen=True)
class TileColumn:
    """Dose per weight of one beamlet block, brick by brick, as dense mini-blocks of 2×2×2 voxels.

    A *segment* is one beamlet inside one brick; segments are ordered by brick, then beamlet. Entry ``k`` of mini-block
    ``i`` of segment ``s`` says that row ``brick * brick_size + mini[i] * 8 + k`` gets ``scale[s] * value[i, k]`` Gy
    for weight 1 of the segment's beamlet.

    Parameters
    ----------
    n_beamlet
        Beamlets of the block.
    brick
        Bricks with content, ascending, shape (n_tile,).
    segment_begin
        First mini-block of every segment and, last, their number; shape (n_tile * n_beamlet + 1,).
    scale
        Gy per weight of one count, shape (n_tile * n_beamlet,).
    mini
        Number of the mini-block within its brick, shape (n_mini,).
    value
        Counts, shape (n_mini, 8).
    n_entry
        Entries above the threshold (padding inside mini-blocks not counted).
    """

    n_beamlet: int
    brick: I32
    segment_begin: I64
    scale: F32
    mini: U16
    value: U16
    n_entry: int

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles, brick by brick."""
        for number, brick in enumerate(self.brick):
            a, b = number * self.n_beamlet, (number + 1) * self.n_beamlet
            yield Tile(int(brick), self.segment_begin[a : b + 1], self.scale[a:b], self.mini, self.value)

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in (self.brick, self.segment_begin, self.scale, self.mini, self.value))
