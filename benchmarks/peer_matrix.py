"""nightbeam's optimiser on pyRadPlan's own matrix and functions: ``python -m benchmarks.peer_matrix [--no-peer]``.

The peer computes its matrix of the TG-119 C-shape and optimises with its own solvers, 500 iterations long. Then its
matrix becomes nightbeam's tiles, and nightbeam solves the same problem from the same start: until it has reached what
the peer reached, and on until the certified gap is below 1 %. In the end the peer judges nightbeam's weights. CPU
seconds of one process each, on one thread. From the repository's root.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from benchmarks.foreign_matrix import tile_columns
from benchmarks.measuring import machine, timed
from benchmarks.peer import environment
from benchmarks.tg119_matrix import ROOT
from benchmarks.tg119_nightbeam import group_rows
from benchmarks.tg119_plans import OBJECTIVES, PRESCRIPTION_GY, objective_over
from benchmarks.tg119_problem import TARGET, read_problem
from engine.model.arrays import F64, Bool
from engine.optimise.bound import Cuts, certify
from engine.optimise.problem import Evaluation, Problem, uniform_start
from engine.optimise.solvers import SolverOptions, solve

MODULE = "benchmarks.peer.pyradplan_solve"
N_PASS = 2
"""Passes over the matrix of an evaluation: doses, and the gradient."""
FACTOR = 3.0
"""How many times the passes that reach the peer's objective may be spent until the gap is certified."""
SHARES = (1.5, 2.0, 2.5, 2.9)
"""Lengths of a solve that ends with a certificate, as multiples of the passes that reach the peer's objective."""
OPTIONS = SolverOptions(max_evaluations=1500)
"""nightbeam's own but for the limit, which is to be the tolerance's."""
N_REPEAT = 2
N_ITERATION = 500
"""Of the peer, where what it has reached is to be reached and certified."""
FILES = ("geometry.npz", "matrix.npz", "solves.json")

Figures = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """The peer's problem: on nightbeam's tiles, and on the peer's own entries, beamlets in nightbeam's order.

    Parameters
    ----------
    problem
        Over tiles.
    matrix
        The peer's entries.
    masks
        Voxels of every objective's structure, shape (n_voxel,).
    order
        The peer's column of every beamlet.
    sizes
        What the two matrices take.
    """

    problem: Problem
    matrix: sparse.csc_array
    masks: dict[str, Bool]
    order: np.ndarray
    sizes: Figures

    def exact(self, weight: F64) -> float:
        """Return the objective with neither program's rounding: the peer's entries, and all sums in float64."""
        used = np.flatnonzero(weight)
        part = self.matrix[:, used]
        dose_gy = part.astype(np.float64) @ weight[used]
        total = 0.0
        for name, function, factor in OBJECTIVES:
            beyond_gy = dose_gy[self.masks[name]] - function.dose_gy
            if function.side == "over":
                beyond_gy = np.maximum(beyond_gy, 0.0)
            total += factor * float(np.mean(beyond_gy**2))
        return total


@dataclass
class Asked:
    """A problem that keeps what it was asked and when; one that remembers is asked nothing twice."""

    problem: Problem
    remembers: bool = False
    known: dict[bytes, Evaluation] = field(default_factory=dict)
    weights: list[F64] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    begin_s: float = field(default_factory=time.process_time)

    def evaluate(self, weight: F64, temperature: float) -> Evaluation:
        """Return the evaluation."""
        key = weight.tobytes()
        evaluation = self.known.get(key) if self.remembers else None
        if evaluation is None:
            evaluation = self.known[key] = self.problem.evaluate(weight, temperature)
        self.weights.append(weight.copy())
        self.values.append(evaluation.value)
        self.cpu_s.append(time.process_time() - self.begin_s)
        return evaluation

    def first_at_most(self, value: float) -> int:
        """Return the number of the first question that found a value as low; the number of all if none did."""
        found = np.flatnonzero(np.array(self.values) <= value)
        return int(found[0]) if found.size else len(self.values)


def read_case(folder: Path) -> Case:
    """Read what the peer wrote, and turn its matrix into tiles."""
    geometry = read_problem(folder / "geometry.npz")
    matrix = sparse.csc_array(sparse.load_npz(folder / "matrix.npz"))
    blocks = [
        column[begin:end]
        for column, beamlets in zip(geometry.peer_column, geometry.beamlets, strict=True)
        for begin, end in zip(beamlets.block_begin[:-1], beamlets.block_begin[1:], strict=True)
    ]
    columns, conversion_s = timed(lambda: tile_columns(matrix, geometry.layout, blocks))
    groups, rows_s = timed(lambda: group_rows(geometry, columns))
    with np.load(folder / "geometry.npz") as stored:
        names = [str(name) for name in stored["structure_names"]]
        masks = dict(zip(names, stored["dose_objective_masks"], strict=True))
    order = np.concatenate(geometry.peer_column)
    return Case(
        objective_over(geometry, groups, masks),
        matrix[:, order],
        {name: mask.ravel() for name, mask in masks.items()},
        order,
        {
            "n_entry": int(matrix.nnz),
            "peer_bytes": sum(part.nbytes for part in (matrix.data, matrix.indices, matrix.indptr)),
            "tiles_bytes": sum(group.n_bytes for group in groups),
            "conversion_s": conversion_s + rows_s,
        },
    )


def solves(case: Case, start: F64, options: SolverOptions) -> list[Asked]:
    """Return the same solve several times: it differs in nothing but the CPU seconds."""
    repeats = []
    for _ in range(N_REPEAT):
        asked = Asked(case.problem)
        solve(asked.evaluate, start, 1, lambda stage, at: 0.0, options)
        repeats.append(asked)
    return repeats


def reached(case: Case, repeats: list[Asked], value: float) -> Figures | None:
    """Return when a solve had an objective as low, on tiles and on the peer's entries, by the quickest repeat."""
    first = repeats[0]
    for number in range(first.first_at_most(value), len(first.values)):
        exact = case.exact(first.weights[number]) if first.values[number] <= value else np.inf
        if exact <= value:
            return {
                "n_evaluation": number + 1,
                "n_pass": N_PASS * (number + 1),
                "cpu_s": min(asked.cpu_s[number] for asked in repeats),
                "objective": first.values[number],
                "exact": exact,
                "weight": first.weights[number],
            }
    return None


def certified(asked: Asked, start: F64, n_most: int, options: SolverOptions) -> Figures:
    """Return the gap that a solve of limited length proves, with at most ``n_most`` evaluations for all together.

    ``asked`` remembers a longer solve from the same start, of which this one is the beginning.
    """
    n_bound = n_most - options.max_evaluations - len(asked.problem.terms)
    n_solve = options.max_evaluations + min(n_bound, 0)
    options = replace(
        options,
        max_evaluations=n_solve,
        max_bound_evaluations=min(max(n_bound, 0), options.max_bound_evaluations),
    )
    cuts = Cuts()

    def for_solver(weight: F64, temperature: float) -> Evaluation:
        evaluation = asked.evaluate(weight, temperature)
        cuts.add(weight, evaluation)
        return evaluation

    def for_bound(of: Problem, weight: F64, temperature: float) -> Evaluation:
        return of.evaluate(weight, temperature)

    result = solve(for_solver, start, 1, lambda stage, at: 0.0, options)
    certificate, bound_s = timed(lambda: certify(asked.problem, for_bound, cuts, result, options))
    return {
        "n_solve": int(result.history.size),
        "n_bound": certificate.n_evaluation,
        "n_pass": N_PASS * (int(result.history.size) + certificate.n_evaluation),
        "bound_s": bound_s,
        "objective": certificate.value,
        "lower_bound": certificate.lower_bound,
        "gap": certificate.gap,
    }


def certificates(solved: Asked, start: F64, n_evaluation: int) -> list[Figures]:
    """Return the gaps of solves of several lengths, until one is small enough."""
    found: list[Figures] = []
    asked = replace(solved, remembers=True, weights=[], values=[], cpu_s=[])
    for share in SHARES:
        options = replace(OPTIONS, max_evaluations=int(share * n_evaluation))
        found.append(certified(asked, start, int(FACTOR * n_evaluation), options))
        found[-1]["solve_s"] = solved.cpu_s[min(found[-1]["n_solve"], len(solved.cpu_s)) - 1]
        if found[-1]["gap"] is not None and found[-1]["gap"] <= OPTIONS.gap:
            break
    return found


def compare(folder: Path, peer: Figures) -> Figures:
    """Return nightbeam's half: agreement at the peer's weights, what it takes to reach each, and certificates."""
    case = read_case(folder)
    case.problem.evaluate(np.ones(case.order.size), 0.0)  # compiles, or loads what was compiled
    target = [name for name, _, _ in OBJECTIVES].index(TARGET)
    starts = {
        "start 0": np.zeros(case.order.size),
        "uniform start": uniform_start(case.problem.rows, target, PRESCRIPTION_GY),
    }
    variants = {
        **{name: (start, OPTIONS) for name, start in starts.items()},
        "start 0, 10 pairs": (starts["start 0"], replace(OPTIONS, memory=10)),
    }
    agreement = {}
    for name in peer["solves"]:
        weight = np.load(folder / f"weights-{name}.npy")[case.order]
        agreement[name] = {
            "peer": peer["solves"][name]["objective"],
            "tiles": case.problem.value(weight, 0.0).value,
            "exact": case.exact(weight),
        }
    runs = {name: solves(case, start, options) for name, (start, options) in variants.items()}
    ends = {
        name: {
            "n_evaluation": len(repeats[0].values),
            "objective": min(repeats[0].values),
            "cpu_s": min(asked.cpu_s[-1] for asked in repeats),
        }
        for name, repeats in runs.items()
    }
    reaches: Figures = {}
    for peer_name, of_peer in peer["solves"].items():
        for name, repeats in runs.items():
            found = reached(case, repeats, of_peer["objective"])
            if found is None:
                continue
            weight = found.pop("weight")
            found["file"] = f"nightbeam-{peer_name}-{name}.npy".replace(" ", "_").replace(",", "")
            by_column = np.empty_like(weight)
            by_column[case.order] = weight
            np.save(folder / found["file"], by_column)
            reaches.setdefault(peer_name, {})[name] = found
    proofs = {
        peer_name: {
            name: certificates(runs[name][0], starts[name], reaches[peer_name][name]["n_evaluation"])
            for name in starts
            if name in reaches.get(peer_name, {})
        }
        for peer_name, of_peer in peer["solves"].items()
        if of_peer["n_iteration"] >= N_ITERATION
    }
    return {
        "sizes": case.sizes, "agreement": agreement, "ends": ends, "reaches": reaches, "certificates": proofs,
    }  # fmt: skip


def tables(figures: Figures, peer: Figures) -> list[str]:
    """Return all that was found, as tables."""
    ours, judged = figures["nightbeam"], figures["judged"]["objective"]
    sizes = ours["sizes"]
    lines = [
        f"{sizes['n_entry'] / 1e6:.2f} million entries: the peer's {sizes['peer_bytes'] / 1e6:.0f} MB, tiles "
        f"{sizes['tiles_bytes'] / 1e6:.0f} MB, made in {sizes['conversion_s']:.1f} CPU s; the peer's matrix made twice "
        f"is {'the same' if figures['judged']['same_matrix'] else 'NOT the same'}.",
        "",
        "| the peer's solve | iterations | evaluations | passes | CPU s | objective | nightbeam's value - the peer's | "
        "of that, rounding of entries | ended because |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, of in peer["solves"].items():
        at = ours["agreement"][name]
        lines.append(
            f"| {name} | {of['n_iteration']} | {len(of['evaluated'])} | {of['n_forward'] + of['n_adjoint']} | "
            f"{of['cpu_s']:.1f} | {of['objective']:.4f} | {(at['tiles'] - at['peer']) / at['peer']:.1e} | "
            f"{(at['tiles'] - at['exact']) / at['peer']:.1e} | {of['message']} |"
        )
    lines += [
        "",
        "| nightbeam until it has the objective of | from | evaluations | passes | CPU s | objective | by the peer | "
        "**CPU: peer ÷ nightbeam** | passes: peer ÷ nightbeam | CPU of a pass: peer ÷ nightbeam |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, of_variants in ours["reaches"].items():
        of = peer["solves"][name]
        n_pass = of["n_forward"] + of["n_adjoint"]
        for variant, found in of_variants.items():
            quicker, fewer = of["cpu_s"] / found["cpu_s"], n_pass / found["n_pass"]
            lines.append(
                f"| {name} | {variant} | {found['n_evaluation']} | {found['n_pass']} | {found['cpu_s']:.2f} | "
                f"{found['objective']:.4f} | {judged[found['file']]:.4f} | **{quicker:.1f}** | {fewer:.2f} | "
                f"{quicker / fewer:.2f} |"
            )
    lines += [
        "",
        "| nightbeam's solve to its tolerance, from | evaluations | CPU s | objective |",
        "|---|---|---|---|",
    ]
    for variant, end in ours["ends"].items():
        lines.append(f"| {variant} | {end['n_evaluation']} | {end['cpu_s']:.1f} | {end['objective']:.4f} |")
    lines += [
        "",
        "| certified gap, with the passes that reach | from | evaluations: solve + bound | passes | times those that "
        "reach it | CPU s: solve + bound | objective | lower bound | gap |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, of_starts in ours["certificates"].items():
        for variant, found in of_starts.items():
            n_pass = ours["reaches"][name][variant]["n_pass"]
            for one in found:
                times, proven = one["n_pass"] / n_pass, one["gap"] is not None
                bound = f"{one['lower_bound']:.4f} | {100.0 * one['gap']:.2f} %" if proven else "none | none"
                lines.append(
                    f"| {name} | {variant} | {one['n_solve']} + {one['n_bound']} | {one['n_pass']} | {times:.2f} | "
                    f"{one['solve_s']:.1f} + {one['bound_s']:.1f} | {one['objective']:.4f} | {bound} |"
                )
    return lines


def run_peer(python: Path, folder: Path, *more: str) -> None:
    """Run the peer's half in its own environment."""
    command = [str(python), "-m", MODULE, "--folder", str(folder), *more]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        # Its progress bars and warnings are kept from the screen as long as all goes well.
        sys.exit(f"the peer's half failed:\n{done.stderr[-3000:]}")


def main() -> None:
    """Read the command line, run both programs, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs" / "peer-solves", help="default: runs/peer-solves"
    )
    parser.add_argument("--environment", type=Path, default=environment.DEFAULT_FOLDER, help="the peer's")
    parser.add_argument(
        "--no-peer",
        action="store_true",
        help="take the peer's solves of an earlier run; it judges nonetheless",
    )
    given = parser.parse_args()
    folder = given.folder.absolute()
    missing = [name for name in FILES if not (folder / name).exists()]
    if given.no_peer and missing:
        parser.error(
            f"--no-peer needs {', '.join(missing)} in {folder}, which a run with the peer leaves there"
        )
    try:
        python = environment.ensure(given.environment.absolute())
    except (OSError, subprocess.CalledProcessError) as error:
        parser.error(f"the peer's environment cannot be made ({error}); it needs a package index once")
    if not given.no_peer:
        run_peer(python, folder)
    peer = json.loads((folder / "solves.json").read_text())
    with threadpool_limits(1):
        ours = compare(folder, peer)
    files = [found["file"] for of_variants in ours["reaches"].values() for found in of_variants.values()]
    run_peer(python, folder, "--judge", *(str(folder / file) for file in files))
    figures = {"nightbeam": ours, "judged": json.loads((folder / "judged.json").read_text())}
    (folder / "comparison.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(f"{machine()}\n\n" + "\n".join(tables(figures, peer)))


if __name__ == "__main__":
    main()
