"""Stage optimise: regions and reduction groups, tiles on the workers, a solve that can be interrupted at any time."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from engine.influence.rows import share_out
from engine.model.arrays import F64
from engine.model.scenario import Scenario
from engine.optimise.group import Term
from engine.optimise.problem import Evaluation, Problem, RowHolders, split_terms, uniform_start
from engine.optimise.regions import region_share
from engine.optimise.robust import Form, n_smoothing_stage, smoothing
from engine.optimise.solver import SolveResult, SolverOptions, solve
from engine.spec.study import ObjectiveSpec, Study
from flows.references import CaseRef, Influence, Placement, Solve
from flows.run import Run
from flows.work import REGIONS, StoredGroups, mini_blocks_per_brick
from storage.digest import digest_of, digest_of_array, digest_of_code, provenance
from storage.evaluation_log import EvaluationLog

if TYPE_CHECKING:
    from cluster.resident import ResidentRows

SOLVE = "solve"
_SOLVE_CODE = ("engine.optimise", "engine.influence", "engine.model", "engine._jit", "engine._vector")
_N_GROUP = 16
"""Reduction groups: bounds the traffic of gradients and the number of workers that can share an optimisation."""


@dataclass(frozen=True)
class OptimiserInput:
    """What a solve is made from, apart from weights of objectives: regions, terms and scenarios.

    Parameters
    ----------
    terms
        One for each objective of the study.
    regions_digest
        Relative volumes of all regions on the rows.
    target_region
        Number of the region that the starting point is scaled to.
    groups
        Loader of the reduction groups.
    work
        Mini-blocks of every group.
    """

    terms: tuple[Term, ...]
    regions_digest: str
    target_region: int
    groups: StoredGroups
    work: tuple[int, ...]


def prepare_optimiser(
    run: Run, study: Study, reference: CaseRef, placement: Placement, influence: Influence
) -> OptimiserInput:
    """Store the regions' relative volumes on the rows, and fix the reduction groups."""
    layout = placement.optimiser.layout
    wanted: list[tuple[str, tuple[str, ...]]] = [(study.prescription.target, ())]
    for objective in study.objectives:
        key = (objective.structure, objective.excluding)
        if key not in wanted:
            wanted.append(key)
    case = reference.case
    named = sorted({name for key in wanted for name in (key[0], *key[1])})
    made_from = {
        "ct_grid": case.grid.as_dict(),
        "grid": layout.grid.as_dict(),
        "brick_edge": layout.edge,
        "external": digest_of_array(case.external.coverage),
        "regions": [[name, list(excluding)] for name, excluding in wanted],
        "structures": {name: digest_of_array(case.structure(name).coverage) for name in named},
        "code": digest_of_code(("engine.geometry", "engine.optimise.regions")),
    }
    digest = digest_of(made_from)
    if not run.store.has_arrays(REGIONS, digest):
        shares = {
            f"share_{number}": region_share(case, layout, name, excluding)
            for number, (name, excluding) in enumerate(wanted)
        }
        run.store.write_arrays(REGIONS, digest, shares, {"provenance": provenance(made_from, 0.0)})
    terms = tuple(_term(objective, wanted) for objective in study.objectives)
    work = sum(
        mini_blocks_per_brick([record for _, record in blocks], layout.n_brick) for blocks in influence.blocks
    )
    bricks = share_out(np.asarray(work), _N_GROUP)
    groups = StoredGroups(
        run.store.folder,
        layout,
        tuple(bricks),
        tuple(tuple((begin, record.digest) for begin, record in blocks) for blocks in influence.blocks),
        digest,
    )
    of_groups = tuple(int(np.asarray(work)[first : first + n].sum()) for first, n in bricks)
    return OptimiserInput(terms, digest, 0, groups, of_groups)


def _term(objective: ObjectiveSpec, regions: Sequence[tuple[str, tuple[str, ...]]]) -> Term:
    region = regions.index((objective.structure, objective.excluding))
    return Term(objective.label(), region, objective.function, objective.weight, objective.robust)


def solve_digest(
    prepared: OptimiserInput,
    terms: Sequence[Term],
    form: Form,
    scenarios: Sequence[Scenario],
    options: SolverOptions,
    prescription_gy: float,
    start: str,
) -> str:
    """Return the digest of everything a solution depends on."""
    return digest_of(
        {
            "blocks": [[digest for _, digest in blocks] for blocks in prepared.groups.scenarios],
            "regions": prepared.regions_digest,
            "groups": [list(group) for group in prepared.groups.bricks],
            "terms": [[t.region, t.function.model_dump(), t.weight, t.robust] for t in terms],
            "form": form,
            "probability": [scenario.probability for scenario in scenarios],
            "options": [options.max_evaluations, options.tolerance, options.memory],
            "prescription_gy": prescription_gy,
            "start": start,
            "code": digest_of_code(_SOLVE_CODE),
            # Another scipy may take other steps: its solve is another one, and so is the log of it.
            "scipy": version("scipy"),
        }
    )


def find_weights(
    run: Run,
    tiles: "ResidentTiles",
    prepared: OptimiserInput,
    terms: Sequence[Term],
    form: Form,
    scenarios: Sequence[Scenario],
    options: SolverOptions,
    prescription_gy: float,
    name: str = "optimise",
    start_from: Solve | None = None,
) -> Solve:
    """Find the weights: look the solution up, or go on with a solve that was interrupted, or solve."""
    started_at = start_from.digest if start_from else "uniform"
    digest = solve_digest(prepared, terms, form, scenarios, options, prescription_gy, started_at)
    log_file = run.store.folder / "solve_log" / f"{digest}.log"
    if run.store.has_arrays(SOLVE, digest):
        # Left over if the process was ended between publishing the solve and this line.
        log_file.unlink(missing_ok=True)
        with run.reporter.stage(name, 1, "solves") as steps:
            steps.found(1)
        return _read_solve(run, digest, split_terms(terms, form))
    run.require_computing()
    log = EvaluationLog(log_file)
    finished = False
    try:
        with run.reporter.stage(name, options.max_evaluations, "evaluations") as steps:
            problem = Problem(tiles.holders(), terms, form, np.array([s.probability for s in scenarios]))
            steps.found(log.n_replayable)
            cpu_before_s = tiles.cpu_s()

            def evaluate(weight: F64, temperature: float) -> Evaluation:
                known = log.replay(weight, temperature)
                if known is not None:
                    return known
                evaluation = problem.evaluate(weight, temperature)
                log.append(weight, temperature, evaluation)
                steps.advance(1, f"objective {evaluation.exact:.6g}")
                return evaluation

            weight = (
                start_from.result.weight
                if start_from
                else uniform_start(problem.rows, prepared.target_region, prescription_gy)
            )
            result = solve(
                evaluate,
                weight,
                n_smoothing_stage(form),
                lambda stage, at: smoothing(form, stage, at.exact, prescription_gy),
                options,
            )
        # Not below 0: what lost workers had spent is not known.
        cpu_s = max(0.0, tiles.cpu_s() - cpu_before_s)
        _write_solve(run, digest, result, cpu_s)
        finished = True
    finally:
        log.close(finished)
    return Solve(digest, result, problem.terms, cpu_s)


class ResidentTiles:
    """The tiles of some scenarios on the cluster's workers, loaded when a solve first needs them."""

    def __init__(self, run: Run, prepared: OptimiserInput, n_beamlet: int) -> None:
        self._run, self._prepared, self._n_beamlet = run, prepared, n_beamlet
        self._holders: ResidentRows | None = None

    def holders(self) -> RowHolders:
        """Return the holders of the rows."""
        if self._holders is None:
            from cluster.resident import ResidentRows

            self._run.reporter.say("loading the tiles into the workers' memory")
            resident = ResidentRows(
                self._run.client, self._prepared.groups, np.asarray(self._prepared.work), self._n_beamlet
            )
            self._run.reporter.say(f"tiles: {resident.n_bytes() / 1e6:.0f} MB resident")
            self._holders = resident
        return self._holders

    def cpu_s(self) -> float:
        """Return the CPU seconds that workers spent on products and objectives since the tiles were loaded."""
        return self._holders.cpu_s() if self._holders is not None else 0.0


def _write_solve(run: Run, digest: str, result: SolveResult, cpu_s: float) -> None:
    run.store.write_arrays(
        SOLVE,
        digest,
        {"weight": result.weight, "history": result.history, "term_values": result.term_values},
        {
            "value": result.value,
            "stage_begin": list(result.stage_begin),
            "reason": result.reason,
            "converged": result.converged,
            "provenance": provenance({}, cpu_s),
        },
    )


def _read_solve(run: Run, digest: str, terms: tuple[Term, ...]) -> Solve:
    """Return a solve that is in the store."""
    arrays, attributes = run.store.read_arrays(SOLVE, digest)
    result = SolveResult(
        arrays["weight"],
        float(attributes["value"]),
        arrays["history"],
        tuple(attributes["stage_begin"]),
        arrays["term_values"],
        attributes["reason"],
        bool(attributes["converged"]),
    )
    return Solve(digest, result, terms, float(attributes["provenance"]["cpu_s"]))
