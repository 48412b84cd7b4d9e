"""Stage size: the memory that a study needs of every worker, projected from geometry alone, against what there is."""

import math
from collections.abc import Sequence

import numpy as np

from cluster.memory import MemoryNeed, gib
from engine.geometry.bricks import MINI_SIZE
from engine.geometry.resample import touched_rows
from engine.influence.halo import held_by_groups, stencils_of
from engine.influence.rows import owners, rows_bytes, share_out
from engine.model.scenario import Scenario
from engine.optimise.quiet import N_KNOWN
from flows.references import CaseRef, Placement
from flows.run import Run
from flows.solving import N_GROUP
from flows.work.matrix import BLOCKS_AT_ONCE

_VALUE = 4
"""Bytes of a voxel's or row's float32."""
_SKIN = 1.1
"""Mini-blocks that the body touches are so much more than its volume."""
_SAMPLING = 1.08
"""The number of mini-blocks in a group is counted on a sample, and may be a little more in other scenarios."""


def fit_memory(
    run: Run,
    reference: CaseRef,
    placement: Placement,
    scenarios: Sequence[Scenario],
    n_question: int,
    shifted: bool = False,
    some: bool = False,
) -> MemoryNeed:
    """Return what each worker will use at most: all that it needs, or less where tiles have to be streamed.

    Parameters
    ----------
    run, reference, placement, scenarios, n_question
        The run, and as for `project_memory`.
    some
        Whether the tiles of some of the scenarios are likely to do, as with scenario generation.

    Raises
    ------
    ClusterError
        If even that does not fit, with the numbers.
    """
    n_worker, n_thread, limit = run.workers()
    need = project_memory(reference, placement, scenarios, n_question, n_worker, n_thread, shifted)
    fitting = need.streaming(limit)
    text = f"memory: at most {gib(fitting.peak)} in each worker, which may use {gib(limit)}"
    if some and fitting.rows < need.rows and fitting.room is not None:
        n_fit = len(scenarios) * fitting.room.alone // need.rows
        text += (
            f"; that is enough for the tiles of {n_fit} of {len(scenarios)} scenarios, and if more are needed, some "
            "are loaded from the store in every evaluation"
        )
    elif fitting.rows < need.rows:
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
    shifted: bool = False,
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
    shifted
        Whether the nominal dose is moved for setup scenarios, which then have no matrix.
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
    # Density, and which rows get dose; while those are found, the body, its mean on the grid, and row numbers.
    patient = _VALUE * n_ct + sum(grid.n_row for grid in grids)
    finding_rows = _VALUE * n_ct + largest.n_row * 3 * _VALUE
    blocks = scratch = 0
    for size, beamlets in zip(sizes, placement.beamlets, strict=True):
        share = min(1.0, BLOCKS_AT_ONCE / beamlets.n_block)
        tiles = int(rows_bytes(int(size.n_mini.sum()), size.n_segment) * share)
        at_once = min(BLOCKS_AT_ONCE, beamlets.n_block)
        n_beamlet = int((beamlets.block_begin[at_once:] - beamlets.block_begin[:-at_once]).max())
        scratch = max(scratch, engine.scratch_bytes(n_beamlet, layout.brick_size))
        # Once brick by brick, once block by block, and what of it is being written.
        blocks = max(blocks, engine.view_bytes(size.n_view) + scratch + 2 * tiles + tiles // 2)
    n_active = np.count_nonzero(active)
    volume_ratio = layout.grid.voxel_volume_mm3 / largest.grid.voxel_volume_mm3
    n_view = int(n_active * volume_ratio / MINI_SIZE * _SKIN)
    forward = engine.view_bytes(n_view) + n_view * MINI_SIZE * _VALUE + largest.n_row * 5 * _VALUE
    # What workers will hold: the same groups, and the same sharing out, as with the matrix itself.
    n_mini = np.sum([size.n_mini for size in sizes], axis=0)
    n_segment = sum(size.n_segment for size in sizes)
    groups = share_out(n_mini, N_GROUP)
    shifts_mm = [scenario.shift_mm for scenario in scenarios if shifted and scenario.is_setup_error]
    of_group = np.array(
        [_group_bytes(int(n_mini[a : a + n].sum()), n_segment // max(1, len(groups))) for a, n in groups]
    )
    of_worker = np.bincount(owners(of_group, n_worker), of_group, minlength=n_worker)
    most, largest_group = int(of_worker.max(initial=0)), int(of_group.max(initial=0))
    share = most / max(1, int(of_group.sum()))
    resident, around, places = of_group * (len(scenarios) - len(shifts_mm)), 0, 0
    if shifts_mm:
        held = held_by_groups(layout, groups, active, active, n_mini, stencils_of(layout, shifts_mm))
        n_segment_in_brick = n_segment / max(1, int(np.count_nonzero(n_mini)))
        nominal = np.array(
            [_group_bytes(one.n_mini, int(n_segment_in_brick * one.n_brick)) + one.n_bytes for one in held]
        )
        resident += nominal - of_group
        largest_group = int(max(largest_group, nominal.max(initial=0)))
        # Each thread reads its groups' bricks and those around, and forms doses of one group at a time.
        around = n_thread * max((_group_bytes(one.n_mini_read, 0) for one in held), default=0)
        places = n_thread * max((one.n_place for one in held), default=0)
    of_worker = np.bincount(owners(resident, n_worker), resident, minlength=n_worker)
    views = sum(size.n_view for size in sizes) * MINI_SIZE * (_VALUE + 1)
    filling = views + scratch + 3 * largest_group
    return MemoryNeed(
        patient=patient,
        tasks={
            "computing the influence matrix": max(blocks, finding_rows),
            "computing final doses": max(forward, finding_rows),
        },
        n_thread=n_thread,
        rows=int(of_worker.max(initial=0)),
        rows_of_group=int(resident.max(initial=0)),
        loading=max(most + around + largest_group, filling * n_thread),
        evaluating=int(
            # Doses and gradients of a row in each scenario.
            (n_active * share * (2 * len(scenarios) + 1) + 2 * places) * 8 * n_question
            # Its silent level, and for eight rows together how far they may be above in each scenario; and weights.
            + (n_active * share * (8 + len(scenarios)) + placement.first_beamlet[-1] * 8 * len(groups))
            * max(n_question, N_KNOWN)
        ),
    )


def _group_bytes(n_mini: int, n_segment: int) -> int:
    return rows_bytes(int(n_mini * _SAMPLING), n_segment)
