"""The stages of a Pareto front: many weightings of three criteria on the same resident tiles, judged and told."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from engine.errors import StudyError
from engine.evaluate.dvh import dose_axis_gy
from engine.evaluate.plan import DoseEvaluation, Evaluator
from engine.evaluate.region import regions_of
from engine.model.arrays import F64
from engine.model.scenario import Scenario
from engine.optimise.pareto import dominated, emphasis_lattice
from engine.optimise.together import Meeting, side_by_side
from engine.spec.study import ObjectiveSpec, ParetoSpec, Study
from flows.judging import forward_doses, normalisation_factor, on_ct_grid, study_goals
from flows.progress import Steps
from flows.references import CaseRef, Influence, Placement, Solve
from flows.report.front_summary import CriterionSummary, FrontPlanSummary, FrontSummary
from flows.report.summary import PrescriptionSummary
from flows.report.write import write_front_report
from flows.run import Run
from flows.solving import ResidentTiles, find_weights, most_evaluations, prepare_optimiser, solver_options
from flows.telling import case_summary, certificate_summary, provenance_summary
from storage.digest import digest_of
from storage.whole_file import whole_file


@dataclass(frozen=True)
class FrontPlan:
    """One plan of a front.

    Parameters
    ----------
    emphasis
        Shares of the criteria on the lattice; they sum to 1.
    factors
        Factors on the weights of each criterion's objectives.
    solve
        The solution.
    values
        Value of each criterion: its objectives, with the study's weights.
    """

    emphasis: tuple[float, float, float]
    factors: tuple[float, float, float]
    solve: Solve
    values: tuple[float, float, float]

    @property
    def role(self) -> str:
        """Anchor, balanced, or point."""
        if max(self.emphasis) == 1.0:
            return "anchor"
        return "balanced" if max(self.emphasis) - min(self.emphasis) < 1e-9 else "point"


@dataclass(frozen=True)
class JudgedPlan:
    """A plan of a front judged: factor of its normalisation (None: none), evaluation, CPU seconds of its dose."""

    factor: float | None
    evaluation: DoseEvaluation
    cpu_s: float


def pareto_spec(study: Study) -> ParetoSpec:
    """Return the study's [pareto] table.

    Raises
    ------
    StudyError
        If there is none, or there are hard constraints.
    """
    if study.pareto is None:
        raise StudyError("the study has no [pareto] table; add one with criteria = [three names of criteria]")
    if study.constraints:
        raise StudyError(
            "the study has [[constraints]], which a Pareto front does not know; make them objectives for it"
        )
    return study.pareto


def n_plan(study: Study) -> int:
    """Return the number of plans of a study's front."""
    return len(emphasis_lattice(pareto_spec(study).divisions))


def solve_front(
    run: Run, study: Study, reference: CaseRef, placement: Placement, influence: Influence
) -> tuple[FrontPlan, ...]:
    """Solve for every weighting, on one set of resident tiles; all but the first side by side."""
    spec = pareto_spec(study)
    prepared = prepare_optimiser(run, study, reference, placement, influence)
    tiles = ResidentTiles(run, prepared, placement.first_beamlet[-1])
    # A bound for each plan from the evaluations of its solve alone: many plans, and none of them the final one.
    options = replace(solver_options(study), max_bound_evaluations=0)
    lattice = emphasis_lattice(spec.divisions)
    # The most balanced weighting comes first; every other solve starts from its solution.
    order = sorted(range(len(lattice)), key=lambda number: (max(lattice[number]), number))
    criterion_of = [
        spec.criteria.index(o.criterion) if o.criterion in spec.criteria else None for o in study.objectives
    ]
    factors = [[spec.spread ** (3.0 * share - 1.0) for share in emphasis] for emphasis in lattice]

    def solve(steps: Steps, place: int, start_from: Solve | None, meeting: Meeting | None) -> Solve:
        terms = tuple(
            replace(term, weight=term.weight * (1.0 if c is None else factors[order[place]][c]))
            for term, c in zip(prepared.terms, criterion_of, strict=True)
        )
        return find_weights(
            run, tiles, prepared, terms, "nominal", influence.scenarios, options, study.prescription.dose_gy,
            start_from, meeting, steps,
        )  # fmt: skip

    n_most = most_evaluations(options, prepared.terms)
    with run.reporter.stage("solve 1", n_most, "evaluations") as steps:
        first = solve(steps, 0, None, None)
    with run.reporter.stage(f"solve 2-{len(order)}", (len(order) - 1) * n_most, "evaluations") as steps:
        others = side_by_side([partial(solve, steps, place, first) for place in range(1, len(order))])
    tiles.close()
    plans: dict[int, FrontPlan] = {}
    for number, solved in zip(order, [first, *others], strict=True):
        values = [0.0, 0.0, 0.0]
        for term, c, value in zip(prepared.terms, criterion_of, solved.result.term_values[:, 0], strict=True):
            if c is not None:
                values[c] += term.weight * float(value)
        x, y, z = factors[number]
        plans[number] = FrontPlan(lattice[number], (x, y, z), solved, (values[0], values[1], values[2]))
    return tuple(plans[number] for number in range(len(lattice)))


def judge_front(
    run: Run,
    study: Study,
    reference: CaseRef,
    placement: Placement,
    nominal: Scenario,
    plans: Sequence[FrontPlan],
) -> list[JudgedPlan]:
    """Compute the final dose of every plan, normalise it and judge it."""
    case, grid = reference.case, placement.report.layout.grid
    doses = forward_doses(
        run,
        placement,
        [(placement.report, nominal)],
        [plan.solve.result.weight for plan in plans],
        "final dose",
    )
    regions = regions_of(case.grid, case.structures)
    axis_gy = dose_axis_gy(2.0 * study.prescription.dose_gy)
    evaluator = Evaluator(
        regions, study_goals(study), axis_gy, study.prescription.target, study.prescription.dose_gy
    )
    judged = []
    with run.reporter.stage("judge", len(plans), "plans") as steps:
        for (final,) in doses:
            on_ct = on_ct_grid(case, grid, final.dose_gy)
            factor = normalisation_factor(study, case, on_ct)
            evaluation = evaluator.evaluate(nominal, on_ct * np.float32(1.0 if factor is None else factor))
            judged.append(JudgedPlan(factor, evaluation, final.cpu_s))
            steps.advance(1)
    return judged


def tell_front(
    study: Study,
    reference: CaseRef,
    influence: Influence,
    plans: Sequence[FrontPlan],
    judged: Sequence[JudgedPlan],
    output: Path,
) -> Path:
    """Write front.html, front.json and the weights of all plans; returns the path of the page."""
    spec = pareto_spec(study)
    values: F64 = np.array([plan.values for plan in plans])
    beaten = dominated(values)
    names = [_plan_name(plan, spec.criteria, number) for number, plan in enumerate(plans, start=1)]
    summary = FrontSummary(
        title=f"{study.name}: Pareto front",
        normalisation=study.prescription.normalise,
        case=case_summary(study, reference),
        prescription=PrescriptionSummary(
            dose_gy=study.prescription.dose_gy,
            n_fraction=study.prescription.fractions,
            target=study.prescription.target,
        ),
        criteria=tuple(
            CriterionSummary(
                name=name,
                unit=_unit([o for o in study.objectives if o.criterion == name]),
                terms=tuple(o.label() for o in study.objectives if o.criterion == name),
            )
            for name in spec.criteria
        ),
        plans=tuple(
            FrontPlanSummary(
                name=name,
                role=plan.role,
                weights=plan.factors,
                values=plan.values,
                dominated=bool(worse),
                factor=judgement.factor,
                goals=judgement.evaluation.goals,
                stopping_reason=plan.solve.result.reason,
                certificate=certificate_summary(plan.solve.certificate, plan.solve.certificate.text),
            )
            for name, plan, worse, judgement in zip(names, plans, beaten, judged, strict=True)
        ),
        provenance=provenance_summary(
            study,
            reference,
            {"front": digest_of([plan.solve.digest for plan in plans])},
            {
                "dose": influence.cpu_s,
                "optimise": sum(plan.solve.cpu_s for plan in plans),
                "final dose": sum(judgement.cpu_s for judgement in judged),
            },
        ),
        notes=(
            "Criterion values are those of the optimiser: nominal scenario, its own grid, before normalisation. "
            f"Goals and DVHs are of the final dose, each plan normalised ({study.prescription.normalise}).",
            *reference.case.notes,
        ),
    )
    drawn = {name for _, name in study.structure_names()} - {reference.case.external.name}
    shown = {
        name: [curve for curve in judgement.evaluation.curves if curve.structure in drawn]
        for name, plan, judgement in zip(names, plans, judged, strict=True)
        if plan.role != "point"
    }
    page = write_front_report(summary, shown, output)
    with whole_file(output / "front_weights.npz") as aside, aside.open("wb") as stream:
        np.savez_compressed(
            stream,
            weight=np.stack(
                [plan.solve.result.weight * (j.factor or 1.0) for plan, j in zip(plans, judged, strict=True)]
            ),
            name=np.array(names),
            criteria=np.array(spec.criteria),
            value=values,
        )
    return page


def _unit(objectives: Sequence[ObjectiveSpec]) -> str:
    units = {objective.function.unit for objective in objectives}
    return f"weighted {units.pop()}" if len(units) == 1 else "weighted, mixed units"


def _plan_name(plan: FrontPlan, criteria: Sequence[str], number: int) -> str:
    if plan.role == "anchor":
        return f"{number} mostly {criteria[int(np.argmax(plan.emphasis))]}"
    return f"{number} balanced" if plan.role == "balanced" else f"{number}"
