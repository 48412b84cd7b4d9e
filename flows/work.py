"""What runs on workers: importable by name, small arguments in, small records out, results into the store."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from engine.dose.engine import DoseEngine, Patient
from engine.geometry.bricks import BrickLayout
from engine.geometry.resample import touched_rows
from engine.influence.rows import rows_of_columns
from engine.model.arrays import F32, F64, I64, Bool
from engine.model.beam import Beam, BeamletGrid
from engine.model.influence import TileColumn
from engine.model.scenario import Scenario
from engine.optimise.group import GroupEvaluator, regions_of_group
from storage.digest import provenance
from storage.influence import KIND as INFLUENCE
from storage.influence import read_tiles, write_tiles
from storage.store import Store

DENSITY, REGIONS, BEAM_DOSE = "density", "regions", "beam_dose"


@dataclass(frozen=True)
class PatientRef:
    """Where a worker finds the patient: the digest of the density object, and the grid that gets dose."""

    store: Path
    density: str
    layout: BrickLayout


@lru_cache(maxsize=2)
def _patient(store: Path, density: str) -> tuple[Patient, F32]:
    from engine.model.grid import Grid

    arrays, attributes = Store(store).read_arrays(DENSITY, density)
    grid = Grid.from_dict(attributes["grid"])
    return Patient(grid, arrays["density"], attributes["patient_position"]), arrays["body"]


@lru_cache(maxsize=2)
def active_rows(reference: PatientRef) -> Bool:
    """Return the rows that get dose: voxels that the body touches, shape (n_row,)."""
    patient, body = _patient(reference.store, reference.density)
    return touched_rows(reference.layout, body, patient.grid)


@dataclass(frozen=True)
class DoseTask:
    """Some beamlet blocks of one beam in one scenario, with the digests they are to be published under."""

    patient: PatientRef
    engine: DoseEngine
    beam: Beam
    beamlets: BeamletGrid
    scenario: Scenario
    blocks: tuple[int, ...]
    digests: tuple[str, ...]
    made_from: dict[str, Any]


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


def compute_blocks(task: DoseTask) -> list[BlockRecord]:
    """Compute and publish blocks; returns their records."""
    begin_s = time.process_time()
    patient, _ = _patient(task.patient.store, task.patient.density)
    layout = task.patient.layout
    view = task.engine.view(
        patient, layout, active_rows(task.patient), task.beam, task.scenario.shift_mm, task.beamlets
    )
    columns = task.engine.tile_columns(view, task.beamlets, task.blocks, task.scenario.density_factor)
    store = Store(task.patient.store)
    shared_cpu_s = (time.process_time() - begin_s) / len(columns)
    records = []
    for block, digest, column in zip(task.blocks, task.digests, columns, strict=True):
        begin_s = time.process_time()
        made_from = {**task.made_from, "block": block}
        write_tiles(store, digest, column, provenance(made_from, shared_cpu_s))
        records.append(_record(digest, column, shared_cpu_s + time.process_time() - begin_s))
    return records


def record_of_block(store: Store, digest: str) -> BlockRecord:
    """Return the record of a block that is in the store."""
    with store.open_arrays(INFLUENCE, digest) as (_, attributes):
        cpu_s = float(attributes["provenance"]["cpu_s"])
    return _record(digest, read_tiles(store, digest), cpu_s)


def _record(digest: str, column: TileColumn, cpu_s: float) -> BlockRecord:
    tile_begin = column.segment_begin[:: column.n_beamlet]
    return BlockRecord(
        digest, tuple(map(int, column.brick)), tuple(map(int, np.diff(tile_begin))), column.n_entry, cpu_s
    )


@dataclass(frozen=True)
class StoredGroups:
    """Loads reduction groups from the store: the `cluster.resident.GroupLoader` of every study.

    Parameters
    ----------
    store
        The store's folder.
    layout
        Row numbering.
    bricks
        First brick and number of bricks of every group.
    scenarios
        For every scenario, the number of each block's first beamlet and the block's digest, in beamlet order.
    regions
        Digest of the regions' relative volumes.
    """

    store: Path
    layout: BrickLayout
    bricks: tuple[tuple[int, int], ...]
    scenarios: tuple[tuple[tuple[int, str], ...], ...]
    regions: str

    def __call__(self, groups: Sequence[int]) -> list[GroupEvaluator]:
        """Return evaluators of some consecutive groups."""
        store = Store(self.store)
        size = self.layout.brick_size
        first = self.bricks[groups[0]][0]
        n_brick = sum(self.bricks[groups[-1]]) - first
        arrays, _ = store.read_arrays(REGIONS, self.regions)
        shares = [arrays[f"share_{number}"] for number in range(len(arrays))]
        rows_by_scenario = []
        for blocks in self.scenarios:
            columns = [(begin, read_tiles(store, digest, (first, n_brick))) for begin, digest in blocks]
            rows_by_scenario.append([rows_of_columns(columns, *self.bricks[group], size) for group in groups])
        return [
            GroupEvaluator(
                [rows[number] for rows in rows_by_scenario],
                regions_of_group(shares, self.bricks[group][0] * size, self.bricks[group][1] * size),
            )
            for number, group in enumerate(groups)
        ]


@dataclass(frozen=True)
class ForwardTask:
    """The full dose of one beam in one scenario, without lateral cut-off or threshold, for some sets of weights."""

    patient: PatientRef
    engine: DoseEngine
    beam: Beam
    beamlets: BeamletGrid
    scenario: Scenario
    weights: tuple[F64, ...]
    digests: tuple[str, ...]


def compute_forward(task: ForwardTask) -> None:
    """Compute and publish a beam's doses on their grid."""
    begin_s = time.process_time()
    patient, _ = _patient(task.patient.store, task.patient.density)
    layout = task.patient.layout
    store = Store(task.patient.store)
    view = task.engine.view(
        patient, layout, active_rows(task.patient), task.beam, task.scenario.shift_mm, None
    )
    for weight, digest in zip(task.weights, task.digests, strict=True):
        rows = task.engine.forward(view, task.beamlets, weight, task.scenario.density_factor)
        _write_dose(store, digest, layout, rows, time.process_time() - begin_s)
        begin_s = time.process_time()


def _write_dose(store: Store, digest: str, layout: BrickLayout, rows: F32 | F64, cpu_s: float) -> None:
    store.write_arrays(
        BEAM_DOSE,
        digest,
        {"dose_gy": layout.to_volume(rows)},
        {"grid": layout.grid.as_dict(), "provenance": provenance({}, cpu_s)},
        {"dose_gy": tuple(min(layout.edge, n) for n in layout.grid.shape_zyx)},
    )


@dataclass(frozen=True)
class MatrixDoseTask:
    """The dose that the stored tiles of one beam give: what the optimiser saw."""

    patient: PatientRef
    blocks: tuple[tuple[int, str], ...]
    weight: F64
    digest: str


def compute_matrix_dose(task: MatrixDoseTask) -> None:
    """Compute and publish the dose of stored tiles."""
    begin_s = time.process_time()
    store = Store(task.patient.store)
    layout = task.patient.layout
    columns = [(begin, read_tiles(store, digest)) for begin, digest in task.blocks]
    rows = rows_of_columns(columns, 0, layout.n_brick, layout.brick_size).dose(task.weight)
    _write_dose(store, task.digest, layout, rows, time.process_time() - begin_s)


def mini_blocks_per_brick(records: Sequence[BlockRecord], n_brick: int) -> I64:
    """Return how many mini-blocks the bricks hold over all blocks, shape (n_brick,)."""
    work = np.zeros(n_brick, dtype=np.int64)
    for record in records:
        np.add.at(work, np.asarray(record.brick, dtype=np.int64), np.asarray(record.n_mini, dtype=np.int64))
    return work
