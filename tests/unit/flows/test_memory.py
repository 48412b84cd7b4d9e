"""The projection of memory against what is there when it has been computed."""

import re

import numpy as np
import pytest

from engine.dose.engine import Patient
from engine.geometry.resample import touched_rows
from engine.influence.halo import halo_of, stencils_of
from engine.influence.rows import owners, rows_of_columns, rows_within, share_out
from engine.model.scenario import Scenario
from engine.spec.study import load_study
from flows import stages
from flows.cases import case_of_study
from flows.memory import fit_memory, project_memory
from flows.progress import Reporter
from flows.run import Computing, Run
from flows.solving import N_GROUP
from storage.store import Store
from tests.e2e.small_study import STUDY, write_study


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Return case, placement and the bytes of every group of the real matrix, on a grid of some ten thousand rows."""
    folder = tmp_path_factory.mktemp("memory")
    study_file = write_study(folder, STUDY.replace("grid_mm = 8.0", "grid_mm = 4.0", 1))
    study = load_study(study_file)
    with Run(Store(folder / "store"), Reporter(quiet=True)) as run:
        reference = stages.read(run, study, case_of_study(run, study.case, folder), folder)
        placement = stages.place(run, study, reference)
        density = run.store.read_arrays("density", reference.density_digest)[0]["density"]
    case, layout = reference.case, placement.optimiser.layout
    active = touched_rows(layout, case.external.coverage, case.grid)
    patient = Patient(case.grid, density, case.patient_position)
    columns, work = [], np.zeros(layout.n_brick, np.int64)
    for first, beam, beamlets in zip(
        placement.first_beamlet, placement.beams, placement.beamlets, strict=False
    ):
        view = placement.engine.view(patient, layout, active, beam, (0.0, 0.0, 0.0), beamlets)
        for block, column in enumerate(
            placement.engine.tile_columns(view, beamlets, range(beamlets.n_block), 1.0)
        ):
            columns.append((first + int(beamlets.block_begin[block]), column))
            np.add.at(work, column.brick, np.diff(column.segment_begin[:: column.n_beamlet]))
    groups = [
        rows_of_columns(columns, *group, layout.brick_size).n_bytes for group in share_out(work, N_GROUP)
    ]
    shifts_mm = [scenario.shift_mm for scenario in stages.vary(study)[1:]]
    stencils, size, moved = stencils_of(layout, shifts_mm), layout.brick_size, []
    for first, n in share_out(work, N_GROUP):
        halo = halo_of(
            layout, first * size, np.flatnonzero(active[first * size : (first + n) * size]), stencils
        )
        moved.append(rows_within(columns, halo.bricks, halo.keep, size).n_bytes + halo.n_bytes)
    return reference, placement, stages.vary(study), np.array(groups), np.array(moved)


@pytest.mark.parametrize("n_worker", [1, 2, 3, 4, 6, 8, 16])
def test_no_worker_holds_more_rows_than_projected_nor_much_less(planned, n_worker):
    reference, placement, scenarios, groups, _ = planned
    need = project_memory(reference, placement, scenarios, 1, n_worker, 1)
    held = np.bincount(owners(groups, n_worker), groups, minlength=n_worker).max() * len(scenarios)
    assert held <= need.rows <= 1.3 * held
    assert groups.max() * len(scenarios) <= need.rows_of_group


@pytest.mark.parametrize("n_worker", [1, 2, 4, 16])
def test_shifted_doses_need_the_nominal_rows_and_those_around_each_group(planned, n_worker):
    reference, placement, scenarios, groups, moved = planned
    need = project_memory(reference, placement, scenarios, 1, n_worker, 1, shifted=True)
    held = np.bincount(owners(moved, n_worker), moved, minlength=n_worker).max()
    assert held <= need.rows <= 1.3 * held
    assert moved.max() <= need.rows_of_group
    recomputed = project_memory(reference, placement, scenarios, 1, n_worker, 1)
    assert need.rows < recomputed.rows
    # A density scenario has its own matrix beside it.
    denser = [*scenarios, Scenario("denser", density_factor=1.03)]
    more = project_memory(reference, placement, denser, 1, n_worker, 1, shifted=True)
    own = np.bincount(owners(groups, n_worker), groups, minlength=n_worker).max()
    assert more.rows >= 0.9 * (held + own)


def test_more_threads_and_more_questions_need_more(planned):
    reference, placement, scenarios, _, _ = planned
    one = project_memory(reference, placement, scenarios, 1, 2, 1)
    threads = project_memory(reference, placement, scenarios, 1, 2, 4)
    assert threads.loading > one.loading or threads.loading == one.loading >= one.rows_of_group
    assert threads.peak >= one.peak
    nine, twice_nine = (project_memory(reference, placement, scenarios, n, 2, 1).evaluating for n in (9, 18))
    assert 3 * one.evaluating < nine == pytest.approx(twice_nine / 2)


def test_where_some_scenarios_will_do_it_is_told_how_many_fit(planned, tmp_path, caplog):
    reference, placement, scenarios, _, _ = planned
    need = project_memory(reference, placement, scenarios, 1, 1, 1)
    half = Computing(n_worker=1, memory_gib=(need.peak - need.rows // 2) / (1 << 30))
    caplog.set_level("INFO", "nightbeam")
    with Run(Store(tmp_path), Reporter(quiet=True), half) as run:
        fit_memory(run, reference, placement, scenarios, 1, some=True)
    assert re.search(r"enough for the tiles of [3-6] of 7 scenarios", caplog.text)
