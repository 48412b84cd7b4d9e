"""Plans of nightbeam and pyRadPlan for one problem, judged alike: ``python -m benchmarks.tg119_plans``.

Both programs optimise the same objectives on matrices of their own, for the same beamlets and dose grid
(benchmarks.tg119_matrix). Then both fluence maps get their dose from one engine on one grid, are normalised alike and
judged by one evaluator: by nightbeam's full dose (no cut-off, no threshold) on 2.5 mm and on the optimisers' grid, and
by the peer's matrix on that grid. Run from the repository's root.
"""

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import minimize_scalar

from benchmarks.measuring import machine, timed
from benchmarks.peer import environment
from benchmarks.tg119_matrix import DEFAULT_THRESHOLD, ROOT, run_peer
from benchmarks.tg119_nightbeam import LATERAL_CUTOFF_MM, build, group_rows
from benchmarks.tg119_problem import TARGET, Problem, read_problem
from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.evaluate.metrics import parse_metric
from engine.evaluate.region import Region, region_from_coverage
from engine.geometry.bricks import BrickLayout, choose_brick_edge
from engine.geometry.resample import average_onto, grid_over, touched_rows
from engine.influence.rows import RowGroup
from engine.model.arrays import F64, Bool
from engine.model.grid import Grid
from engine.model.machine import MACHINES
from engine.optimise.functions import Function, SquaredDeviation, SquaredOverdose
from engine.optimise.group import GroupEvaluator, Term, regions_of_group
from engine.optimise.problem import LocalRows, uniform_start
from engine.optimise.problem import Problem as Objective
from engine.optimise.solvers import SolveResult, SolverOptions, solve

PRESCRIPTION_GY = 50.0
NORMALISED_PERCENT = 95.0
FINE_MM = 2.5
PEER_GRID_MM = 5.0
"""The peer's dose grid unless it is told another."""
OBJECTIVES: tuple[tuple[str, Function, float], ...] = (
    ("Core", SquaredOverdose(dose_gy=25.0), 300.0),
    (TARGET, SquaredDeviation(dose_gy=50.0), 1000.0),
    ("BODY", SquaredOverdose(dose_gy=30.0), 100.0),
)
"""Those stored in the peer's phantom; BODY without the other two."""
METRICS = (
    (TARGET, "D98%"),
    (TARGET, "D95%"),
    (TARGET, "D50%"),
    (TARGET, "D10%"),
    (TARGET, "D5%"),
    (TARGET, "D2%"),
    ("Core", "D10%"),
    ("Core", "Dmean"),
    ("Core", "Dmax"),
    ("BODY", "Dmean"),
    ("BODY", "V20Gy"),
    ("BODY", "V30Gy"),
)

Figures = dict[str, Any]


@dataclass(frozen=True)
class Judge:
    """Structures on one grid: ``regions`` for metrics, ``shares`` (n_voxel,) of every objective's structure."""

    regions: dict[str, Region]
    shares: dict[str, F64]
    voxel_volume_mm3: float

    def objective(self, dose_gy: F64) -> float:
        """Return the value of all objectives, by nightbeam's functions."""
        flat = dose_gy.ravel().astype(np.float64)
        return sum(
            weight * function.value(function.sums(flat, self.shares[name]))
            for name, function, weight in OBJECTIVES
        )

    def judge(self, dose_gy: F64) -> Figures:
        """Return the metrics of a dose after normalisation, and its objective."""
        found_gy = self.regions[TARGET].dvh(dose_gy).dose_at_percent_gy(NORMALISED_PERCENT)
        normalised = dose_gy * (PRESCRIPTION_GY / found_gy)
        dvhs = {name: region.dvh(normalised) for name, region in self.regions.items()}
        figures: Figures = {f"{name} {text}": parse_metric(text).value(dvhs[name]) for name, text in METRICS}
        body = dvhs["BODY"]
        figures["BODY integral dose, Gy·l"] = body.mean_gy * body.total_cc / 1000.0
        figures["objective"] = self.objective(normalised)
        best = minimize_scalar(
            lambda factor: self.objective(factor * normalised), bounds=(0.8, 1.25), method="bounded"
        )
        figures["objective at its own best scale"] = float(best.fun)
        return figures


def judge_on(
    grid: Grid,
    coverage: dict[str, npt.NDArray[np.float32]],
    objective_coverage: dict[str, npt.NDArray[np.float32]],
) -> Judge:
    """Return the judge on a grid, from the coverage of structures as metrics and as objectives see them."""
    return Judge(
        {name: region_from_coverage(name, "ORGAN", grid, volume) for name, volume in coverage.items()},
        {
            name: volume.ravel().astype(np.float64) / volume.sum(dtype=np.float64)
            for name, volume in objective_coverage.items()
        },
        grid.voxel_volume_mm3,
    )


def objective_over(
    problem: Problem, groups: Sequence[RowGroup], masks: Mapping[str, npt.NDArray[np.bool_]]
) -> Objective:
    """Return the objectives over some rows, each normalised to the voxels of its mask."""
    shares = []
    for name, _, _ in OBJECTIVES:
        rows = problem.layout.to_rows(masks[name].astype(np.float32))
        shares.append((rows / rows.sum(dtype=np.float64)).astype(np.float32))
    evaluators = [
        GroupEvaluator([group], regions_of_group(shares, group.first_brick * group.brick_size, group.n_row))
        for group in groups
    ]
    terms = [
        Term(name, number, function, weight) for number, (name, function, weight) in enumerate(OBJECTIVES)
    ]
    return Objective(LocalRows(evaluators, problem.n_beamlet), terms, "nominal", np.ones(1))


def optimise(
    problem: Problem, masks: dict[str, npt.NDArray[np.bool_]], options: SolverOptions
) -> tuple[SolveResult, Figures]:
    """Return nightbeam's weights, over its own matrix with its default cut-off and threshold, and what they took."""
    engine = PhotonPencilBeam(MACHINES["generic-6mv"], LATERAL_CUTOFF_MM, DEFAULT_THRESHOLD)
    build(problem, engine)  # compiles, or loads what was compiled
    (columns, parts_s), _ = timed(lambda: build(problem, engine))
    groups, rows_s = timed(lambda: group_rows(problem, columns))
    objective = objective_over(problem, groups, masks)
    target = [name for name, _, _ in OBJECTIVES].index(TARGET)

    def run() -> SolveResult:
        start = uniform_start(objective.rows, target, PRESCRIPTION_GY)
        return solve(objective.evaluate, start, 1, lambda stage, at: 0.0, options)

    result, solve_s = timed(run)
    return result, {
        "matrix_s": parts_s["total"] + rows_s,
        "solve_s": solve_s,
        "n_evaluation": int(result.history.size),
        "objective": result.value,
        "reason": result.reason,
    }


def full_doses(problem: Problem, layout: BrickLayout, active: Bool, weights: Sequence[F64]) -> list[F64]:
    """Return nightbeam's dose of fluence maps without cut-off and threshold, shape of the grid."""
    engine = PhotonPencilBeam(MACHINES["generic-6mv"], LATERAL_CUTOFF_MM, 0.0)
    doses = [np.zeros(layout.n_row) for _ in weights]
    first = 0
    for beam, beamlets in zip(problem.beams, problem.beamlets, strict=True):
        view = engine.view(problem.patient, layout, active, beam, (0.0, 0.0, 0.0), None)
        for dose, weight in zip(doses, weights, strict=True):
            dose += engine.forward(view, beamlets, weight[first : first + beamlets.n_beamlet], 1.0)
        first += beamlets.n_beamlet
    return [layout.to_volume(dose).astype(np.float64) for dose in doses]


def compare(folder: Path, options: SolverOptions) -> Figures:
    """Return what nightbeam's optimisation took, and all judgements of both plans."""
    problem = read_problem(folder / "geometry.npz")
    with np.load(folder / "geometry.npz") as stored:
        names = [str(name) for name in stored["structure_names"]]
        ct, dose, objective = (
            dict(zip(names, stored[key], strict=True))
            for key in ("structure_masks", "dose_structure_masks", "dose_objective_masks")
        )
    result, spent = optimise(problem, objective, options)
    # The peer's weights in nightbeam's order of beamlets, and the other way round.
    order = np.concatenate(problem.peer_column)
    theirs_by_column = np.load(folder / "weights.npy").astype(np.float64)
    ours_by_column = np.empty_like(theirs_by_column)
    ours_by_column[order] = result.weight
    plans = {"nightbeam": result.weight, "peer": theirs_by_column[order]}

    ct_grid = problem.patient.grid
    grid = grid_over(ct_grid, FINE_MM, ct["BODY"].astype(np.float32))
    fine = {name: average_onto(mask.astype(np.float32), ct_grid, grid) for name, mask in ct.items()}
    apart = {**fine, "BODY": fine["BODY"] * (1.0 - fine["Core"]) * (1.0 - fine[TARGET])}
    body = ct["BODY"].astype(np.float32)
    layout = BrickLayout(grid, choose_brick_edge(grid))
    weights = list(plans.values())
    matrix = sparse.load_npz(folder / "matrix.npz")
    by_peer = [
        (matrix @ by_column.astype(np.float32)).reshape(problem.layout.grid.shape_zyx).astype(np.float64)
        for by_column in (ours_by_column, theirs_by_column)
    ]
    fine_judge = judge_on(grid, fine, apart)
    judge = judge_on(
        problem.layout.grid,
        {name: mask.astype(np.float32) for name, mask in dose.items()},
        {name: mask.astype(np.float32) for name, mask in objective.items()},
    )
    spacing = " × ".join(f"{mm:g}" for mm in sorted(set(problem.layout.grid.spacing_mm_xyz)))
    doses = {
        f"nightbeam's full dose, {FINE_MM:g} mm": (
            fine_judge, full_doses(problem, layout, touched_rows(layout, body, ct_grid), weights)
        ),
        f"nightbeam's full dose, {spacing} mm": (
            judge, full_doses(problem, problem.layout, problem.active, weights)
        ),
        f"peer's matrix, {spacing} mm": (judge, by_peer),
    }  # fmt: skip
    return {
        "nightbeam": spent,
        "judged": {
            by: {plan: judged_by.judge(volume) for plan, volume in zip(plans, volumes, strict=True)}
            for by, (judged_by, volumes) in doses.items()
        },
    }


def tables(figures: Figures, peer: Figures | None) -> list[str]:
    """Return all judgements, and what the optimisations took."""
    judged = figures["judged"]
    lines = [
        f"| D{NORMALISED_PERCENT:g}% of the target = {PRESCRIPTION_GY:g} Gy; dose by: | "
        + " | ".join(f"{by}: **nightbeam's plan** | the peer's plan" for by in judged)
        + " |",
        "|---|" + "---|---|" * len(judged),
    ]
    for key in next(iter(judged.values()))["nightbeam"]:
        unit = " (%)" if " V" in key else " (Gy)" if " D" in key else ""
        cells = " | ".join(f"{of[plan][key]:.2f}" for of in judged.values() for plan in ("nightbeam", "peer"))
        lines.append(f"| {key}{unit} | {cells} |")
    ours = figures["nightbeam"]
    lines += ["", "| optimisation | nightbeam | peer |", "|---|---|---|"]
    theirs = peer.get("optimisation") if peer else None
    if peer is None or theirs is None:
        theirs_cells = dict.fromkeys(("matrix", "solve", "evaluations", "objective", "end"), "not run")
    else:
        theirs_cells = {
            "matrix": f"{peer['influence_s']['second']:.2f}",
            "solve": f"{theirs['cpu_s']:.1f}",
            "evaluations": f"{theirs['n_evaluation']}",
            "objective": f"{theirs['objective']:.2f}",
            "end": theirs["message"],
        }
    for name, mine, key in (
        ("matrix, CPU s", f"{ours['matrix_s']:.2f}", "matrix"),
        ("optimisation, CPU s", f"{ours['solve_s']:.1f}", "solve"),
        ("evaluations", f"{ours['n_evaluation']}", "evaluations"),
        ("objective reached, each on its own matrix", f"{ours['objective']:.2f}", "objective"),
        ("end", ours["reason"], "end"),
    ):
        lines.append(f"| {name} | {mine} | {theirs_cells[key]} |")
    return lines


def main() -> None:
    """Read the command line, run both programs, and print the judgement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="default: runs/peer, or runs/peer-MMmm of another grid")
    parser.add_argument(
        "--dose-grid", type=float, default=PEER_GRID_MM, metavar="MM", help="of both optimisers; default 5"
    )
    parser.add_argument("--environment", type=Path, default=environment.DEFAULT_FOLDER, help="the peer's")
    parser.add_argument(
        "--no-peer", action="store_true", help="take weights.npy and matrix.npz of an earlier run"
    )
    parser.add_argument("--evaluations", type=int, default=SolverOptions().max_evaluations)
    given = parser.parse_args()
    other = "" if given.dose_grid == PEER_GRID_MM else f"-{given.dose_grid:g}mm"
    folder = (given.folder or ROOT / "runs" / f"peer{other}").absolute()
    peer = None
    if given.no_peer:
        missing = [n for n in ("geometry.npz", "matrix.npz", "weights.npy") if not (folder / n).exists()]
        if missing:
            parser.error(
                f"--no-peer needs {', '.join(missing)} in {folder}, which a run with the peer leaves there"
            )
    else:
        try:
            python = environment.ensure(given.environment.absolute())
        except (OSError, subprocess.CalledProcessError) as error:
            parser.error(f"the peer's environment cannot be made ({error}); it needs a package index once")
        folder.mkdir(parents=True, exist_ok=True)
        peer = run_peer(
            python, folder, with_matrix=True, more=("--optimise", "--dose-grid", str(given.dose_grid))
        )
    options = replace(SolverOptions(), max_evaluations=given.evaluations)
    figures = compare(folder, options)
    print(f"{machine()}\n\n" + "\n".join(tables(figures, peer)))
    (folder / "plans.json").write_text(json.dumps({"peer": peer, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
