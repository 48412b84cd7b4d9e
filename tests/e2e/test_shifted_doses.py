"""A plan whose setup scenarios had the nominal dose, shifted: what is made, what is not, and what the report says."""

import json

import pytest

from tests.e2e.small_study import STUDY, plan, tiles

pytestmark = [pytest.mark.cluster, pytest.mark.prefect]

SHIFTED = (
    STUDY.replace('robust = "composite_worst_case"', 'robust = "expected"\nscenario_dose = "shifted"')
    .replace("shift_mm = 4.0", "shift_mm = [4.0, 0.0, 3.0]\ndensity_factors = [1.03]")
    .replace("max_evaluations = 60", "max_evaluations = 15\nmax_bound_evaluations = 2")
)


def test_a_plan_of_shifted_doses_is_judged_by_recomputed_ones_and_says_what_shifting_did(tmp_path):
    store = tmp_path / "store"
    plan(tmp_path, store, SHIFTED)
    # Of the density scenario alone: three beams.
    assert len(tiles(store, "view")) == 3
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    shifted = {row["scenario"]: row for row in summary["shifted"]["scenarios"]}
    assert list(shifted) == ["+x", "+z", "-z", "-x"]
    assert all(0.0 < row["largest_gy"] < 4.0 for row in shifted.values())
    assert "problem with shifted doses" in summary["convergence"]["certificate"]["text"]
    # Goals over scenarios are those of all recomputed doses.
    (goal,) = summary["robustness"]["rows"]
    assert goal["n_scenario"] == 6
    assert "Shifted against recomputed doses" in (tmp_path / "out" / "report.html").read_text()
