"""Stage size: the memory that a study needs of every worker, projected from geometry alone, against what there is."""

import math
from collections.abc import Sequence

import numpy as np

from cluster.memory import MemoryNeed, gib
from engine.geometry.bricks import MINI_SIZE
from engine.geometry.resample import touched_rows
from engine.influence.rows import rows_bytes
from engine.model.scenario import Scenario
from flows.references import CaseRef, Placement
from flows.run import Run
from flows.solving import N_GROUP
from flows.work.matrix import BLOCKS_AT_ONCE

_VALUE = 4
"""Bytes of a voxel's or row's float32."""


def fit_memory(
    run: Run, reference: CaseRef, placement: Placement, scenarios: Sequence[Scenario], n_question: int
) -> MemoryNeed:
    """Return what each worker will use at most: all that it needs, or less where tiles have to be streamed.

    Raises
    ------
    ClusterError
        If even that does not fit, with the numbers.
    """
    n_worker, n_thread, limit = run.workers()
    need = project_memory(reference, placement, scenarios, n_question, n_worker, n_thread)
    fitting = need.streaming(limit)
    text = f"memory: at most {gib(fitting.peak)} in each worker, which may use {gib(limit)}"
    if fitting is not need:
        text += (
            f"; {gib(need.rows - fitting.rows)} of {gib(need.rows)} of tiles do not fit and are loaded from the store "
            "in every evaluation, which takes much longer"
        )
    run.reporter.say(text)
    return fitting


def project_memory(
    reference: CaseRef,
    placement: Placement,
    scenarios: Sequence[Scenario],
    n_question: int,
    n_worker: int,
    n_thread: int,
) -> MemoryNeed:
    """Return what each worker needs at most.

    Parameters
    ----------
    reference, placement
        Patient, beams, beamlets, grids.
    scenarios
        Those whose influence matrix is needed, the nominal one first.
    n_question
        Sets of weights that are evaluated at a time.
    n_worker, n_thread
        Workers, and threads of each.
    """
    engine, case = placement.engine, reference.case
    layout = placement.optimiser.layout
    active = touched_rows(layout, case.external.coverage, case.grid)
    sizes = [
        engine.matrix_size(layout, active, beam, beamlets, case.patient_position)
        for beam, beamlets in zip(placement.beams, placement.beamlets, strict=True)
    ]
    n_ct = math.prod(case.grid.shape_zyx)
    grids = [patient.layout for patient in (placement.optimiser, placement.report)]
    largest = max(grids, key=lambda grid: grid.n_row)
    n_row = sum(grid.n_row for grid in grids)
    # Density, and which rows get dose; while those are found, the body, its mean on the grid, and row numbers.
    patient = _VALUE * n_ct + n_row
    finding_rows = _VALUE * n_ct + largest.n_row * 3 * _VALUE
    blocks = 0
    for size, beamlets in zip(sizes, placement.beamlets, strict=True):
        share = min(1.0, BLOCKS_AT_ONCE / beamlets.n_block)
        tiles = int(rows_bytes(size.n_mini, size.n_segment) * share)
        n_beamlet = int(np.diff(beamlets.block_begin[:: min(BLOCKS_AT_ONCE, beamlets.n_block)]).max())
        scratch = engine.scratch_bytes(n_beamlet, layout.brick_size)
        # Once brick by brick, once block by block, and what of it is being written.
        blocks = max(blocks, engine.view_bytes(size.n_view) + scratch + 2 * tiles + tiles // 2)
    of_body = math.ceil(np.count_nonzero(active) / layout.brick_size * layout.edge**3)
    volume_ratio = (
        (layout.grid.voxel_volume_mm3 / largest.grid.voxel_volume_mm3) if largest is not layout else 1.0
    )
    n_view = int(of_body * volume_ratio / MINI_SIZE * 1.1)
    forward = engine.view_bytes(n_view) + n_view * MINI_SIZE * _VALUE + largest.n_row * 5 * _VALUE
    nominal = rows_bytes(sum(size.n_mini for size in sizes), sum(size.n_segment for size in sizes))
    share = math.ceil(N_GROUP / min(n_worker, N_GROUP)) / N_GROUP
    views = sum(size.n_view for size in sizes) * MINI_SIZE * (_VALUE + 1)
    of_group = nominal // N_GROUP
    return MemoryNeed(
        patient=patient,
        tasks={
            "computing the influence matrix": max(blocks, finding_rows),
            "computing final doses": max(forward, finding_rows),
        },
        n_thread=n_thread,
        rows=int(nominal * len(scenarios) * share),
        rows_of_group=of_group * len(scenarios),
        loading=max(int(nominal * share), views + 2 * of_group) + of_group,
        evaluating=int(np.count_nonzero(active) * share * 8 * (len(scenarios) + 2) * n_question),
    )
