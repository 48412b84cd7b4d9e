"""pyRadPlan's own solves of the TG-119 C-shape, iteration by iteration, and its judgement of other weights.

It runs in the peer's own environment (environment.py), on one thread, from the repository's root, and imports nothing
of nightbeam:

    runs/peer-env/bin/python -m benchmarks.peer.pyradplan_solve [--folder F] [--judge WEIGHTS.npy ...]

Without ``--judge`` it writes ``matrix.npz``, ``geometry.npz``, ``solves.json`` and the weights of every solve,
``weights-NAME.npy``. With it, it computes its matrix anew and writes ``judged.json``: its own objective at each file's
weights, which are in the order of its columns.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

# First: it sets the number of threads before anything else is imported.
from benchmarks.peer.pyradplan_tg119 import (  # isort: skip
    DOSE_GRID_MM, GANTRY_DEG, F64, cpu_s, geometry, influence, plan_for, surroundings,
)  # fmt: skip

import numpy as np
import pyRadPlan  # type: ignore[import-not-found]
from pyRadPlan.optimization.problems import get_problem_from_pln  # type: ignore[import-not-found]
from pyRadPlan.optimization.solvers import get_available_solvers  # type: ignore[import-not-found]
from pyRadPlan.optimization.solvers._base_solvers import SolverBase  # type: ignore[import-not-found]
from pyRadPlan.quantities import Dose  # type: ignore[import-not-found]
from scipy import sparse

N_ITERATION = 500
"""The peer's own limit."""
SOLVES: dict[str, dict[str, Any]] = {"ipopt": {"name": "ipopt"}, "scipy": {"name": "scipy"}}
"""As they are: neither's own rule ends it before its limit. IPOPT is the peer's choice where it is installed."""


@dataclass
class Watch:
    """What a solve did: passes over the matrix, and objective and CPU seconds after every iteration."""

    n_forward: int = 0
    n_adjoint: int = 0
    begin_s: float = 0.0
    cpu_s: float = 0.0
    iterations: list[dict[str, float]] = field(default_factory=list)


@contextmanager
def watched() -> Iterator[Watch]:
    """Yield the record of the solve that is made inside. CPU seconds are those of the solver, without setting up."""
    watch = Watch()
    solve, emit = SolverBase.solve, SolverBase._emit_status
    forward, adjoint = (
        Dose._compute_quantity_single_scenario,
        Dose._compute_chain_derivative_single_scenario,
    )

    def timed_solve(self: Any, x0: Any) -> Any:
        watch.begin_s = cpu_s()
        found = solve(self, x0)
        watch.cpu_s = cpu_s() - watch.begin_s
        return found

    def noted(self: Any, message: str = "", **data: Any) -> bool:
        watch.iterations.append(
            {
                "objective": float(data["objective"]),
                "n_pass": watch.n_forward + watch.n_adjoint,
                "cpu_s": cpu_s() - watch.begin_s,
            }
        )
        return bool(emit(self, message, **data))

    def counted_forward(self: Any, scenario: int) -> Any:
        watch.n_forward += 1
        return forward(self, scenario)

    def counted_adjoint(self: Any, by_dose: Any, scenario: int) -> Any:
        watch.n_adjoint += 1
        return adjoint(self, by_dose, scenario)

    with (
        patch.object(SolverBase, "solve", timed_solve),
        patch.object(SolverBase, "_emit_status", noted),
        patch.object(Dose, "_compute_quantity_single_scenario", counted_forward),
        patch.object(Dose, "_compute_chain_derivative_single_scenario", counted_adjoint),
    ):
        yield watch


def solve_as(solver: dict[str, Any], ct: Any, cst: Any, stf: Any, dij: Any) -> tuple[F64, dict[str, Any]]:
    """Return the weights of one of the peer's solvers with the stored objectives, and its record."""
    plan = plan_for(GANTRY_DEG, DOSE_GRID_MM)
    plan.prop_opt = {
        "problem": "nonlin_fluence",
        "solver": {**solver, "max_iter": N_ITERATION, "display": False},
    }
    problem = get_problem_from_pln(plan)
    problem.obj_history = []
    with watched() as watch:
        weights, info = problem.solve(ct, cst, stf, dij)
    record = asdict(watch)
    del record["begin_s"]
    record["evaluated"] = [float(value) for value in problem.obj_history]
    return np.asarray(weights, dtype=np.float64), {
        "solver": solver,
        **record,
        "n_iteration": int(info["num_iter"]),
        "objective": float(problem._objective_function(np.asarray(weights, dtype=np.float64))),
        "message": str(info.get("message", info.get("status"))),
    }


def judge(files: list[Path], ct: Any, cst: Any, stf: Any, dij: Any) -> dict[str, float]:
    """Return the peer's objective at the weights in each file."""
    problem = get_problem_from_pln(plan_for(GANTRY_DEG, DOSE_GRID_MM))
    # Sets the problem up as for a solve, and asks nothing.
    with patch.object(SolverBase, "solve", lambda self, x0: (x0, {})):
        problem.solve(ct, cst, stf, dij)
    return {file.name: float(problem._objective_function(np.load(file).astype(np.float64))) for file in files}


def main() -> None:
    """Read the command line, solve or judge, and write the files."""
    parser = argparse.ArgumentParser(description="pyRadPlan's solves of the TG-119 C-shape")
    parser.add_argument("--folder", type=Path, default=Path("runs/peer-solves"))
    parser.add_argument("--judge", type=Path, nargs="+", metavar="WEIGHTS", help="only judge these weights")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    ct, cst = pyRadPlan.load_tg119()
    plan = plan_for(GANTRY_DEG, DOSE_GRID_MM)
    stf = pyRadPlan.generate_stf(ct, cst, plan)
    dij, _ = influence(ct, cst, stf, plan)
    matrix = dij.physical_dose.flat[0]
    if given.judge:
        same = abs(sparse.load_npz(given.folder / "matrix.npz") - matrix).max() == 0.0
        judged = {"same_matrix": bool(same), "objective": judge(given.judge, ct, cst, stf, dij)}
        (given.folder / "judged.json").write_text(json.dumps(judged, indent=2) + "\n")
        return
    sparse.save_npz(given.folder / "matrix.npz", matrix, compressed=False)
    np.savez_compressed(given.folder / "geometry.npz", **geometry(ct, cst, stf, dij))
    solves: dict[str, Any] = {}
    for name, solver in SOLVES.items():
        if solver["name"] not in get_available_solvers():
            continue
        weights, solves[name] = solve_as(solver, ct, cst, stf, dij)
        np.save(given.folder / f"weights-{name}.npy", weights)
        figures = {"surroundings": surroundings(), "solves": solves}
        (given.folder / "solves.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
