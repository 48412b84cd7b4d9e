"""Stage optimise: regions and reduction groups, tiles on the workers, a solve that can be interrupted at any time."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, astuple, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from engine.geometry.resample import touched_rows
from engine.influence.halo import held_by_groups, stencils_of
from engine.influence.rows import rows_bytes, share_out
from engine.model.arrays import F64
from engine.model.scenario import Scenario
from engine.optimise.bound import Certificate, Cuts, certify
from engine.optimise.constraints import Constraint
from engine.optimise.group import Term
from engine.optimise.limits import LimitsOutcome, plan_within_limits
from engine.optimise.problem import Evaluation, Problem, RowHolders, split_terms, uniform_start
from engine.optimise.robust import Form, n_smoothing_stage, smoothing
from engine.optimise.solvers import Further, SolveResult, SolverOptions, solve
from engine.optimise.together import Meeting
from engine.spec.study import Study
from flows.further_questions import Asking, CpuSeconds, further_questions
from flows.objective_regions import constraints_of_study, store_regions, terms_of_study
from flows.progress import Steps
from flows.references import CaseRef, Influence, Placement, Solve
from flows.run import Run
from flows.turns import find_or_make
from flows.work.rows import (
    REGIONS,
    MovedNominal,
    StoredGroups,
    StoredTiles,
    TilesOfViews,
    rows_in_regions,
)
from storage.digest import digest_of, digest_of_code, provenance
from storage.evaluation_log import EvaluationLog, remove_logs
from storage.lease import Lease

if TYPE_CHECKING:
    from cluster.resident import ResidentRows

SOLVE = "solve"
SOLVE_CODE = (
    "engine.optimise", "engine.influence", "engine.model", "engine.dose", "engine.geometry", "engine._jit",
    "engine._vector", "flows.work.rows",
)  # fmt: skip
"""What solutions depend on."""
N_GROUP = 16
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
    constraints
        One for each constraint of the study.
    target_region
        Number of the region that the starting point is scaled to.
    groups
        Loader of the reduction groups.
    work
        Mini-blocks that every group holds.
    """

    terms: tuple[Term, ...]
    constraints: tuple[Constraint, ...]
    regions_digest: str
    target_region: int
    groups: StoredGroups
    work: tuple[int, ...]


def prepare_optimiser(
    run: Run, study: Study, reference: CaseRef, placement: Placement, influence: Influence
) -> OptimiserInput:
    """Store what the regions have on the rows, and fix the reduction groups."""
    layout = placement.optimiser.layout
    digest = store_regions(run, study, reference, layout)
    terms = terms_of_study(study)
    # The other scenarios' tiles are not known yet; they are about as many in each brick.
    n_mini = influence.mini_blocks_per_brick(layout.n_brick)
    bricks = share_out(n_mini * len(influence.scenarios), N_GROUP)
    position = reference.case.patient_position
    nominal = StoredTiles(tuple((begin, record.digest) for begin, record in influence.blocks))
    others = tuple(
        TilesOfViews(placement.engine, placement.beams, placement.beamlets, views, scenario, position)
        if views
        else MovedNominal(nominal, scenario.shift_mm)
        for scenario, views in zip(influence.scenarios[1:], influence.views, strict=True)
    )
    groups = StoredGroups(run.store.address, layout, tuple(bricks), (nominal, *others), digest)
    shifts_mm = [source.shift_mm for source in others if isinstance(source, MovedNominal)]
    n_matrix = 1 + len(others) - len(shifts_mm)
    of_groups = n_matrix * np.array([int(n_mini[first : first + n].sum()) for first, n in bricks])
    if shifts_mm:
        active = touched_rows(layout, reference.case.external.coverage, reference.case.grid)
        wanted = rows_in_regions(run.store.read_arrays(REGIONS, digest)[0])
        held = held_by_groups(layout, bricks, wanted, active, n_mini, stencils_of(layout, shifts_mm))
        of_groups = of_groups // n_matrix * (n_matrix - 1) + [one.n_mini for one in held]
    work = tuple(int(n) for n in of_groups)
    return OptimiserInput(terms, constraints_of_study(study), digest, 0, groups, work)


def solver_options(study: Study) -> SolverOptions:
    """Return how long and how exactly a study wants to be solved."""
    wanted = study.optimisation
    return SolverOptions(
        wanted.max_evaluations,
        wanted.tolerance,
        max_bound_evaluations=wanted.max_bound_evaluations,
        gap=wanted.gap,
        solver=wanted.solver,
        seed=wanted.seed,
    )


def most_evaluations(options: SolverOptions, terms: Sequence[Term]) -> int:
    """Return how many evaluations a solve can take: its own, and for the bound one without smoothing and the caps."""
    return options.max_evaluations + options.max_bound_evaluations + 1 + len(terms)


def solve_digest(
    prepared: OptimiserInput,
    terms: Sequence[Term],
    form: Form,
    scenarios: Sequence[Scenario],
    options: SolverOptions,
    prescription_gy: float,
    start: str,
    part: float | None = None,
    stages: Sequence[int] | None = None,
) -> str:
    """Return the digest of everything a solution depends on."""
    return digest_of(
        {
            "tiles": [source.digests for source in prepared.groups.scenarios],
            "density_factors": [scenario.density_factor for scenario in scenarios],
            "regions": prepared.regions_digest,
            "groups": [list(group) for group in prepared.groups.bricks],
            "terms": [[t.region, t.function.model_dump(), t.weight, t.robust] for t in terms],
            "constraints": [
                [c.region, c.function.model_dump(), c.sense, c.limit, c.robust] for c in prepared.constraints
            ],
            "form": form,
            "part": part,
            "stages": None if stages is None else list(stages),
            "probability": [scenario.probability for scenario in scenarios],
            "options": list(astuple(options)),
            "prescription_gy": prescription_gy,
            "start": start,
            "code": digest_of_code(SOLVE_CODE),
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
    start_from: Solve | None = None,
    meeting: Meeting | None = None,
    shared_steps: Steps | None = None,
    part: float | None = None,
    stages: Sequence[int] | None = None,
) -> Solve:
    """Find the weights: look the solution up, or go on with a solve that was interrupted, or solve.

    Where another run is solving the same problem, wait for it, and take over if it is gone. Solves side by side are
    given where they meet, and the steps of their common stage. ``part`` is the part of the probability that counts as
    worst, for the forms that have one; ``stages`` are the stages of smoothing, all if absent.
    """
    started_at = start_from.digest if start_from else "uniform"
    digest = solve_digest(
        prepared, terms, form, scenarios, options, prescription_gy, started_at, part, stages
    )
    n_most = most_evaluations(options, terms)

    def stage() -> AbstractContextManager[Steps]:
        if shared_steps is not None:
            return nullcontext(shared_steps)
        # How many it takes to find limits that fight is not known before.
        return run.reporter.stage("optimise", None if prepared.constraints else n_most, "evaluations")

    def find() -> Solve | None:
        if not run.store.has_arrays(SOLVE, digest):
            return None
        if run.may_compute:
            # Left over if the process was ended between publishing the solve and closing its log.
            remove_logs(run.store.address, digest)
        with stage() as steps:
            steps.found(n_most)
        return _read_solve(run, digest, split_terms(terms, form))

    def make(lease: Lease) -> Solve:
        log = EvaluationLog(run.store.address, digest, lease.id)
        finished = False
        try:
            with stage() as steps, ExitStack() as while_asking:
                probability = np.array([s.probability for s in scenarios])
                problem = Problem(tiles.holders(), terms, form, probability, part, prepared.constraints)
                if meeting is not None:
                    while_asking.enter_context(meeting.seat())
                ask = Problem.evaluate if meeting is None else meeting.evaluate
                cuts = Cuts()
                steps.found(log.n_replayable)
                cpu = CpuSeconds(tiles, log.cpu_s)

                def evaluate(asked: Problem, weight: F64, temperature: float) -> Evaluation:
                    lease.require_held()
                    known = log.replay(weight, temperature)
                    if known is not None:
                        return known
                    evaluation = ask(asked, weight, temperature)
                    cpu.count()
                    log.append(weight, temperature, evaluation, cpu.recent())
                    # What caps are made from is no objective, nor is what limits are exceeded by.
                    is_objective = asked.terms is problem.terms and asked.judges_objective
                    steps.advance(1, f"objective {evaluation.exact:.6g}" if is_objective else "")
                    return evaluation

                def evaluate_for_solver(weight: F64, temperature: float) -> Evaluation:
                    evaluation = evaluate(problem, weight, temperature)
                    cuts.add(weight, evaluation)
                    return evaluation

                weight = (
                    start_from.result.weight
                    if start_from
                    else uniform_start(problem.rows, prepared.target_region, prescription_gy)
                )

                def temperature_of(stage: int, at: Evaluation) -> float:
                    return smoothing(form, of_form[stage], at.exact, prescription_gy)

                asking = Asking(lease, log, steps, cpu, cuts)

                def further(asked: Problem) -> Further:
                    return further_questions(asked, options, meeting, asking)

                of_form = range(n_smoothing_stage(form)) if stages is None else stages
                n_stage, limits = len(of_form), None
                if problem.constraints:
                    result, certificate, limits = plan_within_limits(
                        problem, evaluate, weight, n_stage, temperature_of, options, further
                    )
                else:
                    result = solve(
                        evaluate_for_solver, weight, n_stage, temperature_of, options, further(problem)
                    )
                    certificate = certify(problem, evaluate, cuts, result, options)
            cpu_s = cpu.now()
            _write_solve(run, digest, result, certificate, limits, cpu_s)
            finished = True
        finally:
            log.close(finished)
        return Solve(digest, result, problem.terms, cpu_s, certificate, limits)

    return find_or_make(run, f"solve-{digest}", find, make, meeting.stopped if meeting else None)


class ResidentTiles:
    """The tiles of some scenarios on the cluster's workers, loaded when a solve first needs them.

    Parameters
    ----------
    run, prepared
        The run, and what is to be optimised.
    n_beamlet
        Beamlets of all beams.
    """

    def __init__(self, run: Run, prepared: OptimiserInput, n_beamlet: int) -> None:
        self._run, self._prepared, self._n_beamlet = run, prepared, n_beamlet
        self._holders: ResidentRows | None = None
        self._lock = threading.Lock()
        self.n_evaluation = 0

    def holders(self) -> RowHolders:
        """Return the holders of the rows."""
        with self._lock:
            if self._holders is None:
                from cluster.resident import ResidentRows

                self._run.reporter.say("loading the tiles into the workers' memory")
                n_bytes = np.array([rows_bytes(n_mini, 0) for n_mini in self._prepared.work])
                client = self._run.client
                room = self._run.need.room if self._run.need else None
                resident = ResidentRows(
                    client, self._prepared.groups, n_bytes, self._n_beamlet, room, self._run.ends
                )
                self._run.reporter.say(f"tiles: {resident.resident_bytes() / 1e6:.0f} MB resident")
                self._holders = resident
            return self._holders

    def close(self) -> None:
        """Let go of the tiles: what comes next shall have their memory."""
        with self._lock:
            if self._holders is not None:
                self._holders.close()
                self._holders = None

    def cpu_s(self) -> float:
        """Return the CPU seconds that workers spent on products and objectives since the tiles were loaded."""
        return self._holders.cpu_s() if self._holders is not None else 0.0

    def count(self) -> None:
        """Take note of an evaluation."""
        with self._lock:
            self.n_evaluation += 1


def _write_solve(
    run: Run,
    digest: str,
    result: SolveResult,
    certificate: Certificate,
    limits: LimitsOutcome | None,
    cpu_s: float,
) -> None:
    arrays = {"weight": result.weight, "history": result.history, "term_values": result.term_values}
    run.store.write_arrays(
        SOLVE,
        digest,
        arrays if limits is None else {**arrays, "limited": result.limited},
        {
            "value": result.value,
            "stage_begin": list(result.stage_begin),
            "reason": result.reason,
            "converged": result.converged,
            "n_product": result.n_product,
            "certificate": asdict(certificate),
            "limits": None if limits is None else asdict(limits),
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
        int(attributes["n_product"]),
        arrays.get("limited", np.zeros((0, 0))),
    )
    certificate = Certificate(**attributes["certificate"])
    limits = None if attributes["limits"] is None else LimitsOutcome.read(attributes["limits"])
    return Solve(digest, result, terms, float(attributes["provenance"]["cpu_s"]), certificate, limits)
