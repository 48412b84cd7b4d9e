"""Work of the dose stage: tiles of beamlet blocks, and views of a beam in other setups.

The nominal scenario's tiles are computed here and kept. Of every other scenario only the views are kept, from which
whoever holds rows fills in the tiles: that takes less time than reading them (docs/decisions/0008).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.dose.engine import DoseEngine
from engine.model.beam import Beam, BeamletGrid
from engine.model.influence import TileColumn
from flows.work.cpu import cpu_clock_s
from flows.work.patient import PatientRef, active_rows, patient_of
from storage.digest import provenance
from storage.influence import KIND as INFLUENCE
from storage.influence import read_tiles, write_tiles
from storage.store import Store

VIEW = "view"
BLOCKS_AT_ONCE = 12
"""Blocks that are computed together: this bounds a task's memory, however many it has (`flows.memory`)."""
Shift = tuple[float, float, float]


@dataclass(frozen=True)
class BlockRecord:
    """What the planning process needs to know of a stored block.

    Parameters
    ----------
    digest
        Name of the block.
    brick, n_mini
        Bricks with tiles and the number of mini-blocks in each.
    n_entry
        Entries above the threshold.
    cpu_s
        CPU seconds that it took, its share of what it had in common with others included.
    """

    digest: str
    brick: tuple[int, ...]
    n_mini: tuple[int, ...]
    n_entry: int
    cpu_s: float


@dataclass(frozen=True)
class ViewRecord:
    """A stored view and the CPU seconds that it took."""

    digest: str
    cpu_s: float


Record = BlockRecord | ViewRecord


@dataclass(frozen=True)
class BlockTask:
    """Some beamlet blocks of one beam in the nominal scenario, with the digests they are to be published under.

    A `cluster.pieces.Divisible`, as all tasks of the dose stage.
    """

    patient: PatientRef
    engine: DoseEngine
    beam: Beam
    beamlets: BeamletGrid
    blocks: tuple[int, ...]
    digests: tuple[str, ...]
    made_from: dict[str, Any]

    n_at_once = BLOCKS_AT_ONCE

    def __str__(self) -> str:
        return f"{_several('block', self.blocks)} of beam '{self.beam.name}'"

    @property
    def n_part(self) -> int:
        """How many blocks they are."""
        return len(self.blocks)

    def piece(self, begin: int, end: int) -> "BlockTask":
        """Return a task of some of the blocks."""
        return replace(self, blocks=self.blocks[begin:end], digests=self.digests[begin:end])

    def compute(self) -> list[BlockRecord]:
        """Compute and publish the blocks that nobody has published in the meantime; returns the records of all."""
        store = Store(self.patient.store)
        wanted = dict(zip(self.digests, self.blocks, strict=True))
        records = {d: record_of_block(store, d) for d in wanted if store.has_arrays(INFLUENCE, d)}
        missing = {digest: block for digest, block in wanted.items() if digest not in records}
        if missing:
            records.update(self._publish_all(store, missing))
        return [records[digest] for digest in self.digests]

    def _publish_all(self, store: Store, blocks: dict[str, int]) -> dict[str, BlockRecord]:
        begin_s = cpu_clock_s()
        view = self.engine.view(
            patient_of(self.patient), self.patient.layout, active_rows(self.patient), self.beam, (0.0, 0.0, 0.0),
            self.beamlets,
        )  # fmt: skip
        view_cpu_s = (cpu_clock_s() - begin_s) / len(blocks)
        records = {}
        wanted = list(blocks.items())
        for begin in range(0, len(wanted), BLOCKS_AT_ONCE):
            some = dict(wanted[begin : begin + BLOCKS_AT_ONCE])
            records.update(self._publish(store, view, some, view_cpu_s))
        return records

    def _publish(
        self, store: Store, view: Any, blocks: dict[str, int], view_cpu_s: float
    ) -> dict[str, BlockRecord]:
        begin_s = cpu_clock_s()
        columns = self.engine.tile_columns(view, self.beamlets, tuple(blocks.values()), 1.0)
        shared_cpu_s = view_cpu_s + (cpu_clock_s() - begin_s) / len(columns)
        records = {}
        for (digest, block), column in zip(blocks.items(), columns, strict=True):
            begin_s = cpu_clock_s()
            write_tiles(store, digest, column, provenance({**self.made_from, "block": block}, shared_cpu_s))
            records[digest] = _record(digest, column, shared_cpu_s + cpu_clock_s() - begin_s)
        return records


@dataclass(frozen=True)
class ViewTask:
    """What one beam sees of the patient in some setups, with the digests the views are to be published under."""

    patient: PatientRef
    engine: DoseEngine
    beam: Beam
    beamlets: BeamletGrid
    shifts_mm: tuple[Shift, ...]
    digests: tuple[str, ...]
    made_from: tuple[dict[str, Any], ...]

    n_at_once = 1

    def __str__(self) -> str:
        return f"{len(self.digests)} views of beam '{self.beam.name}', the first shifted by {self.shifts_mm[0]} mm"

    @property
    def n_part(self) -> int:
        """How many views they are."""
        return len(self.shifts_mm)

    def piece(self, begin: int, end: int) -> "ViewTask":
        """Return a task of some of the views."""
        some = slice(begin, end)
        return replace(
            self, shifts_mm=self.shifts_mm[some], digests=self.digests[some], made_from=self.made_from[some]
        )

    def compute(self) -> list[ViewRecord]:
        """Compute and publish the views that nobody has published in the meantime; returns the records of all."""
        store = Store(self.patient.store)
        records = []
        for shift_mm, digest, made_from in zip(self.shifts_mm, self.digests, self.made_from, strict=True):
            if not store.has_arrays(VIEW, digest):
                begin_s = cpu_clock_s()
                view = self.engine.view(
                    patient_of(self.patient), self.patient.layout, active_rows(self.patient), self.beam, shift_mm,
                    self.beamlets,
                )  # fmt: skip
                arrays = self.engine.view_to_arrays(view)
                store.write_arrays(
                    VIEW, digest, arrays, {"provenance": provenance(made_from, cpu_clock_s() - begin_s)}
                )
            records.append(record_of_view(store, digest))
        return records


def compute(task: BlockTask | ViewTask) -> Sequence[Record]:
    """Do a task: what is sent to workers."""
    return task.compute()


def _several(name: str, numbers: Sequence[int]) -> str:
    """Return numbers of things for people; they are ascending."""
    if len(numbers) == 1:
        return f"{name} {numbers[0]}"
    return f"{len(numbers)} {name}s ({numbers[0]} to {numbers[-1]})"


def record_of_block(store: Store, digest: str) -> BlockRecord:
    """Return the record of a block that is in the store."""
    with store.open_arrays(INFLUENCE, digest) as (_, attributes):
        cpu_s = float(attributes["provenance"]["cpu_s"])
    return _record(digest, read_tiles(store, digest), cpu_s)


def record_of_view(store: Store, digest: str) -> ViewRecord:
    """Return the record of a view that is in the store."""
    with store.open_arrays(VIEW, digest) as (_, attributes):
        return ViewRecord(digest, float(attributes["provenance"]["cpu_s"]))


def _record(digest: str, column: TileColumn, cpu_s: float) -> BlockRecord:
    tile_begin = column.segment_begin[:: column.n_beamlet]
    return BlockRecord(
        digest, tuple(map(int, column.brick)), tuple(map(int, np.diff(tile_begin))), column.n_entry, cpu_s
    )
