"""The certified gap against the evaluations spent on it: ``python -m benchmarks.certified_gap [FORM ...]``.

The main job's example in every robust form (or in those that are named), solved in this process. From the repository's
root.
"""

import argparse
from pathlib import Path
from typing import get_args

from benchmarks.in_process import NO_SCENARIOS, TasksHere, changed, influence_by, new_run, placed
from benchmarks.measuring import timed
from benchmarks.scenarios_and_workers import problem_on
from engine.model.arrays import F64
from engine.optimise.bound import Certificate, Cuts, certify
from engine.optimise.problem import Evaluation, LocalRows, Problem, uniform_start
from engine.optimise.robust import FORMS_OF_A_PART, Form, n_smoothing_stage, smoothing
from engine.optimise.solvers import SolverOptions, solve
from engine.spec.study import load_study
from flows.solving import prepare_optimiser

STUDY = Path("examples/tg119_cshape.toml")
FURTHER = (0, 10, 20)
WORST_PERCENT = 30.0
"""Of forms with a worst part: two of seven scenarios."""
FORMS = [form for form in get_args(Form) if form != "percentile"]
"""A percentile has no certificate."""


def curve(form: Form, n_most: int) -> tuple[int, float, list[Certificate]]:
    """Return the evaluations and CPU seconds of the solve, and its certificates after some further evaluations."""
    nominal = {"scenarios": NO_SCENARIOS} if form == "nominal" else {}
    part = {"worst_percent": WORST_PERCENT} if form in FORMS_OF_A_PART else {}
    study = changed(load_study(STUDY), **nominal, optimisation={"robust": form, **part})
    with new_run() as run:
        reference, placement = placed(run, study, STUDY.parent)
        influence = influence_by(run, study, placement, TasksHere())
        prepared = prepare_optimiser(run, study, reference, placement, influence)
        rows = LocalRows(prepared.groups(range(len(prepared.groups.bricks))), placement.first_beamlet[-1])
    problem, prescription_gy = problem_on(rows, study, prepared), study.prescription.dose_gy
    asked: list[tuple[F64, Evaluation]] = []
    known: dict[bytes, Evaluation] = {}

    def evaluate(weight: F64, temperature: float) -> Evaluation:
        asked.append((weight.copy(), problem.evaluate(weight, temperature)))
        return asked[-1][1]

    def remembered(of: Problem, weight: F64, temperature: float) -> Evaluation:
        if of is not problem:
            return of.evaluate(weight, temperature)
        key = weight.tobytes()
        if key not in known:
            known[key] = of.evaluate(weight, temperature)
        return known[key]

    result, solve_s = timed(
        lambda: solve(
            evaluate,
            uniform_start(rows, prepared.target_region, prescription_gy),
            n_smoothing_stage(form),
            lambda stage, at: smoothing(form, stage, at.exact, prescription_gy),
            SolverOptions(n_most),
        )
    )
    found = []
    for further in FURTHER:
        cuts = Cuts()
        for weight, evaluation in asked:
            cuts.add(weight, evaluation)
        options = SolverOptions(max_bound_evaluations=further, gap=0.0)
        found.append(certify(problem, remembered, cuts, result, options))
    return result.history.size, solve_s, found


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("forms", nargs="*", choices=[*FORMS, []], help="all, if none is named")
    parser.add_argument("--evaluations", type=int, default=200, help="limit of the solve; default 200")
    given = parser.parse_args()
    print("| form | evaluations of the solve | CPU s | objective | further evaluations | certified gap |")
    print("|---|---|---|---|---|---|")
    for form in given.forms or FORMS:
        n_evaluation, solve_s, certificates = curve(form, given.evaluations)
        for found in certificates:
            gap = "none" if found.gap is None else f"{100.0 * found.gap:.2f} %"
            print(
                f"| {form} | {n_evaluation} | {solve_s:.0f} | {found.value:.1f} | {found.n_evaluation} | {gap} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
