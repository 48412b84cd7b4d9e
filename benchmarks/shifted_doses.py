"""What shifted doses save against recomputed ones, and what they get wrong: ``python -m benchmarks.shifted_doses``.

The study is the main job's example with 14 setups, on some grid; all is done in this process by one thread. Times are
CPU seconds of one evaluation of the objective with its gradient. Doses are compared at the weights that a short solve
with shifted doses ends with: both are those of the optimiser, with its cut-offs, on its grid.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.in_process import (
    NO_SCENARIOS,
    RunHere,
    TasksHere,
    changed,
    influence_by,
    new_run,
    placed,
    warm_up,
)
from benchmarks.scenarios_and_workers import problem_on
from engine.model.arrays import F64
from engine.optimise.problem import LocalRows, uniform_start
from engine.optimise.robust import smoothing
from engine.optimise.solvers import SolverOptions, solve
from engine.spec.study import Study, load_study
from engine.units import PERCENT
from flows.references import CaseRef, Placement
from flows.solving import prepare_optimiser

ROOT = Path(__file__).parents[1]
N_EVALUATION = 5


def measured(
    run: RunHere, study: Study, reference: CaseRef, placement: Placement
) -> tuple[dict[str, Any], LocalRows, Any]:
    """Return figures of one way to the doses of scenarios, its rows and its problem."""
    tasks = TasksHere()
    influence = influence_by(run, study, placement, tasks)
    prepared = prepare_optimiser(run, study, reference, placement, influence)
    begin_s = time.process_time()
    rows = LocalRows(prepared.groups(range(len(prepared.groups.bricks))), placement.first_beamlet[-1])
    load_s = time.process_time() - begin_s
    problem = problem_on(rows, study, prepared)
    weight = uniform_start(rows, prepared.target_region, study.prescription.dose_gy)
    problem.evaluate(weight, 0.0)
    seconds = []
    for _ in range(N_EVALUATION):
        begin_s = time.process_time()
        problem.evaluate(weight, 0.0)
        seconds.append(time.process_time() - begin_s)
    figures = {
        "n_row": placement.optimiser.layout.n_row,
        "n_beamlet": rows.n_beamlet,
        "n_group": len(rows.groups),
        "resident_mb": sum(group.n_bytes for group in rows.groups) / 1e6,
        "projected_mb": sum(prepared.work) * 18 / 1e6,
        "dose_cpu_s": tasks.cpu_s,
        "load_cpu_s": load_s,
        "evaluation_cpu_s": min(seconds),
    }
    return figures, rows, (problem, weight)


def compared(
    shifted: LocalRows, recomputed: LocalRows, problems: list[Any], weight: F64, study: Study
) -> list[Any]:
    """Return for every scenario its objective both ways, and how the target's doses differ."""
    n_scenario = problems[0].used
    found = []
    values = [problem.evaluate(weight, 0.0).term_values for problem in problems]
    factors = np.array([term.weight for term in problems[0].terms])
    for number, scenario in enumerate(study.scenarios.scenarios()):
        apart, share = [], []
        for one, other in zip(shifted.groups, recomputed.groups, strict=True):
            region = one.regions[0]
            a, b = (group.doses(weight, n_scenario)[number][region.row] for group in (one, other))
            apart.append(a - b)
            share.append(region.share)
        gy, volume = np.concatenate(apart), np.concatenate(share)
        found.append(
            {
                "scenario": scenario.name,
                "objective": [float(factors @ of[:, number]) for of in values],
                "target_mean_gy": float(volume @ gy),
                "target_rms_gy": float(np.sqrt(volume @ gy**2)),
                "target_largest_gy": float(np.abs(gy).max()),
            }
        )
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid-mm", type=float, default=5.0)
    parser.add_argument("--shift-mm", type=float, default=3.0)
    parser.add_argument("--evaluations", type=int, default=60)
    parser.add_argument("--example", default="tg119_cshape.toml")
    arguments = parser.parse_args()
    path = ROOT / "examples" / arguments.example
    study = changed(
        load_study(path),
        dose={"grid_mm": arguments.grid_mm},
        scenarios={**NO_SCENARIOS, "setup": "corners14", "shift_mm": arguments.shift_mm},
        optimisation={"robust": "expected"},
    )
    warm_up(study, path.parent)
    ways = {
        "shifted": changed(study, optimisation={"scenario_dose": "shifted"}),
        "recomputed": study,
        "nominal": changed(study, scenarios=NO_SCENARIOS, optimisation={"robust": "nominal"}),
    }
    result: dict[str, Any] = {"grid_mm": arguments.grid_mm, "shift_mm": arguments.shift_mm}
    kept: dict[str, Any] = {}
    with new_run() as run:
        reference, placement = placed(run, study, path.parent)
        for name in ("nominal", "shifted", "recomputed"):
            result[name], rows, problem = measured(run, ways[name], reference, placement)
            if name != "nominal":
                kept[name] = rows, problem
    (shifted, (problem, start)), (recomputed, (other, _)) = kept["shifted"], kept["recomputed"]
    options = SolverOptions(arguments.evaluations, 1e-7)
    solved = solve(
        lambda weight, temperature: problem.evaluate(weight, temperature),
        start,
        1,
        lambda stage, at: smoothing(problem.form, stage, at.exact, study.prescription.dose_gy),
        options,
    )
    result["scenarios"] = compared(shifted, recomputed, [problem, other], solved.weight, study)
    values = [one.evaluate(solved.weight, 0.0).exact for one in (problem, other)]
    result["objective"] = {
        "shifted": values[0],
        "recomputed": values[1],
        "change_%": PERCENT * (values[1] / values[0] - 1),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
