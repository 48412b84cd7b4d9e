"""What a report tells of shifted doses, against doses whose difference is known."""

import numpy as np
import pytest

from engine.geometry.resample import average_onto, moved_against
from engine.spec.study import load_study
from flows import stages
from flows.cases import case_of_study
from flows.judging import study_goals
from flows.progress import Reporter
from flows.run import Run
from flows.shift_error import shift_summary, shifted_scenarios
from storage.store import Store
from tests.e2e.small_study import STUDY, write_study

SHIFTED = STUDY.replace("max_evaluations = 60", 'scenario_dose = "shifted"').replace(
    "shift_mm = 4.0", "shift_mm = [4.0, 0.0, 0.0]\ndensity_factors = [1.03]"
)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Return run, study, case and placement, and a smooth nominal dose on the optimiser's grid."""
    folder = tmp_path_factory.mktemp("shifted")
    study = load_study(write_study(folder, SHIFTED))
    with Run(Store(folder / "store"), Reporter(quiet=True)) as run:
        reference = stages.read(run, study, case_of_study(run, study.case, folder), folder)
        placement = stages.place(run, study, reference)
        x, y, z = placement.optimiser.layout.grid.centres_mm_xyz
        squared_mm2 = z[:, None, None] ** 2 + y[:, None] ** 2 + (x - 7.0) ** 2
        yield run, study, reference, placement, (22.0 * np.exp(-squared_mm2 / 60.0**2)).astype(np.float32)


def test_the_difference_of_one_voxel_of_the_target_is_told_and_where_it_is(planned):
    run, study, reference, placement, nominal_gy = planned
    scenarios = shifted_scenarios(study, stages.vary(study))
    assert [scenario.name for scenario in scenarios] == ["+x", "-x"]
    grid = placement.optimiser.layout.grid
    moved = [moved_against(nominal_gy, grid, scenario.shift_mm).astype(np.float32) for scenario in scenarios]
    target = average_onto(reference.case.structure("Target").coverage, reference.case.grid, grid)
    moved[1][np.unravel_index(target.argmax(), target.shape)] -= 1.5
    doses = list(zip(scenarios, moved, strict=True))
    found = shift_summary(run, study, reference, placement, study_goals(study), nominal_gy, doses, 2.0)
    same, other = found.scenarios
    for shifted, recomputed in (same.objective, same.d98_gy, same.d2_gy, same.mean_gy):
        assert shifted == recomputed > 0.0
    assert same.largest_gy == 0.0
    # The plan is normalised by 2.
    assert other.largest_gy == pytest.approx(3.0, rel=1e-5)
    assert other.mean_gy[0] > other.mean_gy[1]
    assert "differs by more than 3 Gy ('-x')" in found.text
    (goal,) = found.metrics
    assert (goal.structure, goal.unit) == ("Target", "Gy")


def test_there_is_nothing_to_tell_of_recomputed_doses(planned):
    run, study, reference, placement, nominal_gy = planned
    recomputed = study.model_copy(
        update={"optimisation": study.optimisation.model_copy(update={"scenario_dose": "recomputed"})}
    )
    assert shifted_scenarios(recomputed, stages.vary(recomputed)) == []
    assert shift_summary(run, recomputed, reference, placement, (), nominal_gy, [], 1.0) is None
