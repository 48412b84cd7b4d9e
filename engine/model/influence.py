"""A block of an influence matrix: some beamlets of one beam, all bricks, one scenario."""

from dataclasses import dataclass

from engine.model.arrays import F32, I32, I64, U16


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

    @property
    def n_bytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in (self.brick, self.segment_begin, self.scale, self.mini, self.value))
