import numpy as np
import pytest

from engine.errors import CaseError, StudyError
from engine.evaluate.dvh import Dvh, dose_axis_gy
from engine.evaluate.goals import parse_goal
from engine.evaluate.plan import DoseEvaluation, Evaluator, compare_grids
from engine.evaluate.region import region_from_coverage, regions_of
from engine.evaluate.robustness import dvh_bands, robustness_table
from engine.model.case import Structure
from engine.model.grid import Grid
from engine.model.scenario import Scenario

RAMP = Dvh.from_voxels("Lung", np.arange(0.05, 100.0, 0.1), np.ones(1000), 10.0)


@pytest.mark.parametrize(
    ("text", "value", "limit", "passed"),
    [
        ("D95% >= 4.9 Gy", 5.0, 4.9, True),
        ("D95%>=5.1Gy", 5.0, 5.1, False),
        ("D10% <= 90.5 Gy", 90.0, 90.5, True),
        ("V20Gy <= 30 %", 80.0, 30.0, False),
        ("V20Gy[cc] <= 500 cc", 8.0, 500.0, True),
        ("Dmean < 50.5 Gy", 50.0, 50.5, True),
        ("Dmax > 100 Gy", 99.95, 100.0, False),
        ("Dmax ≤ 100 Gy", 99.95, 100.0, True),
    ],
)
def test_goal_is_read_and_judged(text: str, value: float, limit: float, passed: bool) -> None:
    result = parse_goal("Lung", text, "5.01 ± 0.17 Gy (someone)").judge(RAMP)
    assert result.value == pytest.approx(value)
    assert result.limit == limit
    assert result.passed is passed
    assert (result.expression, result.published) == (text, "5.01 ± 0.17 Gy (someone)")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("D95% 50 Gy", "exactly one comparison"),
        ("D95% = 50 Gy", "exactly one comparison"),
        ("40 Gy <= D95% <= 50 Gy", "exactly one comparison"),
        ("D95 >= 50 Gy", "'D95' is not a metric"),
        ("D95% >= Gy", "no number on its right"),
        ("D95% >= 50", "limit without a unit"),
        ("D95% >= 5000 cGy", "divide the number by 100"),
        ("V20Gy <= 500 cc", r"write V20Gy\[cc\]"),
        ("V20Gy[cc] <= 30 %", r"write V20Gy\[%\]"),
        ("Dmean <= 30 %", "write the limit in Gy"),
        ("Dmean <= -1 Gy", "negative limit"),
        ("V20Gy <= 130 %", "above 100 %"),
    ],
)
def test_mistake_in_a_goal_is_named_with_its_structure(text: str, mistake: str) -> None:
    with pytest.raises(StudyError, match=mistake) as error:
        parse_goal("Lung", text)
    assert "'Lung'" in str(error.value)


def test_rounding_of_stored_doses_does_not_fail_a_goal() -> None:
    dvh = Dvh.from_voxels("PTV", np.full(10, 66.6, np.float32), np.ones(10), 1.0)
    assert dvh.max_gy != 66.6
    for text in ("D95% >= 66.6 Gy", "Dmax <= 66.6 Gy", "V66.6Gy >= 100 %"):
        assert parse_goal("PTV", text).judge(dvh).passed


GRID = Grid((-9.5, -9.5, -9.5), (1.0, 1.0, 1.0), (20, 20, 20))
GOALS = (parse_goal("PTV", "D95% >= 50 Gy"), parse_goal("Cord", "Dmax <= 20 Gy"))


def _structures() -> tuple[Structure, ...]:
    body = np.ones(GRID.shape_zyx, np.float32)
    target, cord, nothing = np.zeros_like(body), np.zeros_like(body), np.zeros_like(body)
    target[6:14, 6:14, 6:14] = 1.0
    cord[:, 16:18, 8:12] = 1.0
    return (
        Structure("Body", "EXTERNAL", body),
        Structure("PTV", "TARGET", target),
        Structure("Cord", "ORGAN", cord),
        Structure("Couch", "OTHER", nothing),
    )


def _evaluate(name: str, target_gy: float, cord_gy: float, probability: float) -> DoseEvaluation:
    dose_gy = np.full(GRID.shape_zyx, 1.0, np.float32)
    dose_gy[6:14, 6:14, 6:14] = target_gy
    dose_gy[:, 16:18, 8:12] = cord_gy
    evaluator = Evaluator(regions_of(GRID, _structures()), GOALS, dose_axis_gy(60.0), "PTV", 50.0)
    return evaluator.evaluate(Scenario(name, probability=probability), dose_gy)


def test_one_dose_is_judged_in_all_structures() -> None:
    evaluation = _evaluate("nominal", 51.0, 15.0, 1.0)
    assert [s.name for s in evaluation.statistics] == ["Body", "PTV", "Cord"]  # the empty couch is left out
    target = evaluation.statistics[1]
    assert target.volume_cc == pytest.approx(0.512)
    assert target.d98_gy == target.d2_gy == 51.0
    assert target.mean_gy == pytest.approx(51.0)
    assert [goal.passed for goal in evaluation.goals] == [True, True]
    (indices,) = evaluation.indices
    assert indices.homogeneity == 0.0
    assert [fit.paddick_conformity for fit in indices.fits] == pytest.approx([1.0, 1.0])
    assert evaluation.curves[2].volume_percent[0] == 100.0


def test_goal_for_an_unknown_or_empty_structure_is_refused() -> None:
    regions = regions_of(GRID, _structures())
    for name in ("Heart", "Couch"):
        with pytest.raises(CaseError, match=f"'{name}' cannot be judged"):
            Evaluator(regions, (parse_goal(name, "Dmax <= 1 Gy"),), dose_axis_gy(60.0), "PTV", 50.0)


def test_dose_on_another_grid_is_refused() -> None:
    evaluator = Evaluator(regions_of(GRID, _structures()), GOALS, dose_axis_gy(60.0), "PTV", 50.0)
    with pytest.raises(CaseError, match="not on the grid"):
        evaluator.evaluate(Scenario("nominal"), np.zeros((3, 3, 3), np.float32))


def test_robustness_table_has_worst_expected_and_passing_scenarios() -> None:
    nominal = _evaluate("nominal", 51.0, 15.0, 0.5)
    others = [_evaluate("left", 48.0, 18.0, 0.3), _evaluate("right", 50.5, 22.0, 0.2)]
    target, cord = robustness_table(GOALS, nominal, [nominal, *others], "design")
    assert (target.nominal, target.worst, target.worst_scenario) == (51.0, 48.0, "left")
    assert target.expected == pytest.approx(0.5 * 51.0 + 0.3 * 48.0 + 0.2 * 50.5)
    assert (target.n_passed, target.n_scenario, target.worst_passed) == (2, 3, False)
    assert (cord.worst, cord.worst_scenario, cord.n_passed) == (22.0, "right", 2)
    assert cord.percentile_50 is None  # design weights are no distribution


def test_percentiles_come_from_sampled_sets() -> None:
    samples = [_evaluate(f"s{i:02}", 40.0 + i, 15.0, 0.05) for i in range(20)]
    target, _ = robustness_table(GOALS, _evaluate("nominal", 51.0, 15.0, 1.0), samples, "sampled")
    assert (target.percentile_5, target.percentile_50, target.percentile_95) == pytest.approx(
        (40.95, 49.5, 58.05)
    )


def test_robustness_table_refuses_probabilities_that_are_no_parts_of_one() -> None:
    nominal = _evaluate("nominal", 51.0, 15.0, 0.5)
    with pytest.raises(CaseError, match=r"sum to 0\.5"):
        robustness_table(GOALS, nominal, [nominal], "design")
    uneven = [nominal, _evaluate("a", 51.0, 15.0, 0.2), _evaluate("b", 51.0, 15.0, 0.3)]
    with pytest.raises(CaseError, match="differ in probability"):
        robustness_table(GOALS, nominal, uneven, "sampled")


def test_band_is_the_envelope_of_all_curves() -> None:
    nominal = _evaluate("nominal", 51.0, 15.0, 0.5)
    bands = dvh_bands(nominal, [_evaluate("left", 48.0, 18.0, 0.5)])
    target = bands[1]
    at_50 = int(np.searchsorted(target.dose_axis_gy, 49.5))
    assert (target.minimum_percent[at_50], target.nominal_percent[at_50], target.maximum_percent[at_50]) == (
        0,
        100,
        100,
    )
    assert all((b.minimum_percent <= b.nominal_percent).all() for b in bands)


def test_grids_are_compared_metric_by_metric() -> None:
    fine = _evaluate("nominal", 51.0, 15.0, 1.0)
    coarse_grid = Grid((-8.0, -8.0, -8.0), (4.0, 4.0, 4.0), (5, 5, 5))
    regions = tuple(
        region_from_coverage(name, kind, coarse_grid, np.ones(coarse_grid.shape_zyx, np.float32))
        for name, kind in (("Body", "EXTERNAL"), ("PTV", "TARGET"), ("Cord", "ORGAN"))
    )
    evaluator = Evaluator(regions, GOALS, dose_axis_gy(60.0), "PTV", 50.0)
    coarse = evaluator.evaluate(Scenario("nominal"), np.full(coarse_grid.shape_zyx, 50.5, np.float32))
    rows = {(row.structure, row.metric): row for row in compare_grids(coarse, fine)}
    assert rows["PTV", "D98%"].difference == pytest.approx(0.5)
    assert rows["Cord", "Dmean"].difference == pytest.approx(-35.5)
    assert rows["PTV", "volume"].optimiser == pytest.approx(8.0)
    assert rows["PTV", "D95% >= 50 Gy"].report == pytest.approx(51.0)
    assert ("Body", "Dmean") not in rows
