"""All solvers' gaps against passes over the matrix: ``python -m benchmarks.solvers [--grid-mm 5] [--passes 1000]``.

A study's nominal scenario, solved in this process by every solver from the same start: once with its own objectives,
and once with linear forms in the place of the squared ones, for the primal-dual solver. A pass reads all tiles once: an
evaluation is two, a product with the Hessian two (the doses of weights and direction share one), a value alone is one,
a step of the primal-dual solver two. The gap is the distance to the best lower bound that was proven from any of the
solves, as a share of the objective. Writes a picture, and prints a table. From the repository's root.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from benchmarks.in_process import NO_SCENARIOS, TasksHere, changed, influence_by, new_run, placed
from benchmarks.measuring import timed
from engine.model.arrays import F64
from engine.optimise.bound import Cuts, certify
from engine.optimise.functions import (
    DoseFunction,
    LinearOverdose,
    LinearUnderdose,
    SquaredDeviation,
    SquaredOverdose,
    SquaredUnderdose,
)
from engine.optimise.group import Term
from engine.optimise.problem import Evaluation, LocalRows, Problem, RowHolders, uniform_start
from engine.optimise.solvers import Further, SolverName, SolverOptions, solve
from engine.optimise.solvers.base import SOLVER_WORDS
from engine.optimise.solvers.saddle import SaddlePoint
from engine.spec.study import load_study
from flows.solving import prepare_optimiser

STUDY = Path("examples/tg119_cshape.toml")
PICTURE = Path("docs/solvers.png")
SMOOTH: tuple[SolverName, ...] = ("lbfgsb", "newton_cg", "projected_gradient", "simulated_annealing")
LINEAR: tuple[SolverName, ...] = ("primal_dual", "lbfgsb", "projected_gradient", "simulated_annealing")
COLOURS: dict[SolverName, str] = {
    "lbfgsb": "#0072B2", "newton_cg": "#D55E00", "projected_gradient": "#009E73", "simulated_annealing": "#999999",
    "primal_dual": "#CC79A7",
}  # fmt: skip
_LOWEST_SHOWN = 1e-5


class CountedRows:
    """Rows that count how often their tiles are read."""

    def __init__(self, rows: RowHolders) -> None:
        self._rows, self.n_beamlet, self.n_pass = rows, rows.n_beamlet, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._rows, name)
        if name == "regions":
            return method

        def ask(*arguments: Any) -> Any:
            self.n_pass += 1
            return method(*arguments)

        return ask


@dataclass(frozen=True)
class Curve:
    """The lowest objective after some passes, the lower bound that was proven in the end, and why it ended."""

    n_pass: F64
    lowest: F64
    bound: float
    cpu_s: float
    reason: str

    def gap_at(self, n_pass: int, bound: float) -> float:
        """Return the gap after so many passes, to the best bound of all."""
        here = self.lowest[self.n_pass <= n_pass]
        return float((here[-1] - bound) / here[-1]) if here.size else np.nan


class CountedSaddlePoint(SaddlePoint):
    """A saddle point that hands on every objective it finds."""

    def __init__(self, problem: Problem, found: Any) -> None:
        super().__init__(problem)
        self._found = found

    def value(self, weight: F64, dose_gy: F64) -> float:
        """Return the objective."""
        value = super().value(weight, dose_gy)
        self._found(value)
        return value


def curve(rows: RowHolders, terms: Sequence[Term], start: F64, solver: SolverName, n_pass: int) -> Curve:
    """Solve with at most about so many passes."""
    counted = CountedRows(rows)
    problem = Problem(counted, terms, "nominal", np.ones(1))
    points: list[tuple[int, float]] = []
    cuts = Cuts()

    def found(value: float) -> None:
        points.append((counted.n_pass, value))

    def noted(evaluation: Evaluation) -> Evaluation:
        found(evaluation.exact)
        return evaluation

    def evaluate(weight: F64, temperature: float) -> Evaluation:
        evaluation = noted(problem.evaluate(weight, temperature))
        cuts.add(weight, evaluation)
        return evaluation

    def value(weight: F64, temperature: float) -> Evaluation:
        return noted(problem.value(weight, temperature))

    n_most = n_pass if solver == "simulated_annealing" else n_pass // 2
    options = SolverOptions(n_most, 1e-10, max_bound_evaluations=40, gap=1e-4, solver=solver)
    saddle = CountedSaddlePoint(problem, found) if solver == "primal_dual" else None
    further = Further(problem.hessian_product, value, saddle, cuts.add)
    result, cpu_s = timed(lambda: solve(evaluate, start, 1, lambda stage, at: 0.0, options, further))
    passes, values = (np.array(numbers, dtype=np.float64) for numbers in zip(*points, strict=True))
    certificate = certify(problem, Problem.evaluate, cuts, result, options)
    bound = -np.inf if certificate.lower_bound is None else certificate.lower_bound
    return Curve(passes, np.minimum.accumulate(values), bound, cpu_s, result.reason)


def linear_terms(terms: Sequence[Term]) -> list[Term]:
    """Return the terms with linear forms at the same doses in the place of squared ones, each of ten times the weight.

    The factor is about what makes both as hard: a Gy beyond a limit counts as ten Gy² did.
    """
    return [
        replace(term, function=function, weight=10.0 * term.weight)
        for term in terms
        for function in _linear(term.function)
    ]


def _linear(function: DoseFunction) -> tuple[DoseFunction, ...]:
    if isinstance(function, SquaredOverdose | SquaredDeviation | SquaredUnderdose) and function.dose_gy:
        over, under = LinearOverdose(dose_gy=function.dose_gy), LinearUnderdose(dose_gy=function.dose_gy)
        return {"over": (over,), "under": (under,), "both": (over, under)}[function.side]
    raise SystemExit(f"{function.kind} has no linear form; name a study whose objectives are squared ones")


def draw(panels: dict[str, dict[SolverName, Curve]], title: str, file: Path) -> None:
    """Draw the gaps of both problems side by side."""
    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11.0, 4.4), sharey=True, layout="constrained")
    for axis, (name, curves) in zip(axes, panels.items(), strict=True):
        bound = max(one.bound for one in curves.values())
        for solver, one in curves.items():
            gap = np.maximum((one.lowest - bound) / one.lowest, _LOWEST_SHOWN)
            axis.step(
                one.n_pass,
                100.0 * gap,
                where="post",
                color=COLOURS[solver],
                label=SOLVER_WORDS[solver],
                lw=1.8,
            )
        axis.set(xscale="log", yscale="log", title=name, xlabel="passes over the matrix")
        axis.grid(alpha=0.3)
        axis.legend(loc="lower left", fontsize=9)
    axes[0].set_ylabel("objective above the best proven bound, % of it")
    figure.suptitle(title)
    figure.savefig(file, dpi=110)


def table(panels: dict[str, dict[SolverName, Curve]], n_pass: int) -> str:
    """Return the gaps after some numbers of passes."""
    shown = [n for n in (30, 100, 300, 1000, 3000, 10000) if n < n_pass] + [n_pass]
    lines = [
        "| objectives | solver | " + " | ".join(f"{n} passes" for n in shown) + " | CPU s | ended because |"
    ]
    lines.append("|---" * (len(shown) + 4) + "|")
    for name, curves in panels.items():
        bound = max(one.bound for one in curves.values())
        for solver, one in curves.items():
            gaps = " | ".join(f"{100.0 * one.gap_at(n, bound):.3g} %" for n in shown)
            lines.append(f"| {name} | {SOLVER_WORDS[solver]} | {gaps} | {one.cpu_s:.0f} | {one.reason} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", nargs="?", type=Path, default=STUDY)
    parser.add_argument("--grid-mm", type=float, default=5.0, help="dose grid; default 5")
    parser.add_argument("--passes", type=int, default=1000, help="passes of each solve; default 1000")
    parser.add_argument("--picture", type=Path, default=PICTURE, help=f"default {PICTURE}")
    given = parser.parse_args()
    study = changed(
        load_study(given.study),
        scenarios=NO_SCENARIOS,
        optimisation={"robust": "nominal"},
        dose={"grid_mm": given.grid_mm},
    )
    with new_run() as run:
        reference, placement = placed(run, study, given.study.parent)
        influence = influence_by(run, study, placement, TasksHere())
        prepared = prepare_optimiser(run, study, reference, placement, influence)
        rows = LocalRows(prepared.groups(range(len(prepared.groups.bricks))), placement.first_beamlet[-1])
    start = uniform_start(rows, prepared.target_region, study.prescription.dose_gy)
    panels: dict[str, dict[SolverName, Curve]] = {}
    for name, terms, solvers in (
        ("squared", prepared.terms, SMOOTH),
        ("linear", linear_terms(prepared.terms), LINEAR),
    ):
        panels[name] = {solver: curve(rows, terms, start, solver, given.passes) for solver in solvers}
    print(f"{rows.n_beamlet} beamlets, {influence.n_entry / 1e6:.1f} million entries, {given.grid_mm:g} mm\n")
    print(table(panels, given.passes))
    for name, curves in panels.items():
        best = max(curves.values(), key=lambda one: one.bound)
        lowest = min(one.lowest[-1] for one in curves.values())
        print(f"\n{name}: lowest objective {lowest:.6g}, best proven bound {best.bound:.6g}")
    draw(panels, f"{study.name}, nominal, {given.grid_mm:g} mm", given.picture)


if __name__ == "__main__":
    main()
