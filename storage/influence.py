"""Influence tiles at rest: one object for a beamlet block in one scenario."""

from typing import Any

import numpy as np

from engine.errors import DamagedObjectError
from engine.model.influence import TileColumn
from storage.store import Store

KIND = "influence"
_ARRAYS = ("brick", "segment_begin", "scale", "mini", "value")


def write_tiles(store: Store, digest: str, column: TileColumn, provenance: dict[str, Any]) -> None:
    """Publish the tiles of one block."""
    store.write_arrays(
        KIND,
        digest,
        {name: getattr(column, name) for name in _ARRAYS},
        {"n_beamlet": column.n_beamlet, "n_entry": column.n_entry, "provenance": provenance},
    )


def read_tiles(store: Store, digest: str, bricks: tuple[int, int] | None = None) -> TileColumn:
    """Return the tiles of one block, all or those of some bricks.

    Parameters
    ----------
    store, digest
        Where, and which block.
    bricks
        First brick and number of bricks; only chunks that hold them are read. ``n_entry`` stays that of the block.

    Raises
    ------
    DamagedObjectError
        If a checksum is wrong or the arrays do not fit together.
    """
    with store.open_arrays(KIND, digest) as (group, attributes):
        n_beamlet = int(attributes["n_beamlet"])
        brick = group["brick"][...]
        first, last = (0, brick.size) if bricks is None else np.searchsorted(brick, [bricks[0], sum(bricks)])
        segments = slice(int(first) * n_beamlet, int(last) * n_beamlet)
        begin = group["segment_begin"][segments.start : segments.stop + 1]
        minis = slice(int(begin[0]), int(begin[-1]))
        column = TileColumn(
            n_beamlet,
            brick[first:last],
            begin - begin[0],
            group["scale"][segments],
            group["mini"][minis],
            group["value"][minis],
            int(attributes["n_entry"]),
        )
    if column.scale.size != begin.size - 1 or column.value.shape != (minis.stop - minis.start, 8):
        raise DamagedObjectError(KIND, digest, "its arrays do not fit together")
    return column
