"""Stage judge: the final dose in every scenario, on the report's grid and the CT grid, normalised and evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.errors import CaseError
from engine.evaluate.dvh import dose_axis_gy
from engine.evaluate.goals import Goal, parse_goal
from engine.evaluate.plan import (
    DoseEvaluation,
    Evaluator,
    GridDifference,
    StructureStatistics,
    compare_grids,
    structure_statistics,
)
from engine.evaluate.region import Region, region_from_coverage, regions_of, remaining_volume
from engine.evaluate.robustness import DvhBand, RobustnessRow, ScenarioSetKind, dvh_bands, robustness_table
from engine.geometry.resample import average_onto, interpolate_onto
from engine.model.arrays import F32, F64
from engine.model.case import Case
from engine.model.grid import Grid
from engine.model.scenario import Scenario
from engine.spec.study import Study
from flows.influence import tiles_made_from
from flows.limits import limited_by_dose
from flows.references import CaseRef, Influence, Placement, Solve
from flows.report.summary import ShiftSummary
from flows.run import Run
from flows.shift_error import shift_summary, shifted_scenarios
from flows.work.doses import BEAM_DOSE, BeamDose, ForwardTask, MatrixDoseTask, compute
from flows.work.matrix import Shift
from flows.work.patient import PatientRef
from storage.digest import digest_of, digest_of_array, digest_of_code


@dataclass(frozen=True)
class DoseLoss:
    """What the optimiser's matrix leaves out, as shares of the prescribed dose, over the whole body.

    Parameters
    ----------
    largest_percent, target_mean_percent
        Largest difference in any voxel, and mean difference in the target.
    """

    largest_percent: float
    target_mean_percent: float


@dataclass(frozen=True)
class FinalDose:
    """A dose on some grid, all beams together, and the CPU seconds it took, whenever it was computed."""

    dose_gy: F32
    cpu_s: float


@dataclass(frozen=True)
class Judgement:
    """A plan judged.

    Parameters
    ----------
    factor
        Factor of the normalisation, or None.
    weight
        Weights after normalisation, shape (n_beamlet,).
    dose_gy
        Nominal total dose on the CT grid.
    report_grid, report_dose_gy
        Grid of the final dose, and the nominal dose on it.
    evaluations
        One for each scenario, the nominal one first.
    remaining
        Nominal dose of the remaining volume at risk, if there is one.
    robustness
        Goals over scenarios; empty with one scenario.
    bands
        DVH curves for the figure.
    grid_comparison
        The optimiser's dose and grid against the report's.
    loss
        What the cut-off and threshold left out.
    limited
        What every hard constraint's function has in the nominal dose without cut-offs on the optimiser's grid.
    shifted
        What shifting the nominal dose did in place of recomputing it, where the optimiser did so.
    set_kind
        Whether scenarios are design points or samples.
    cpu_s
        CPU seconds of all doses that were computed for the judgement.
    """

    factor: float | None
    weight: F64
    dose_gy: F32
    report_grid: Grid
    report_dose_gy: F32
    evaluations: tuple[DoseEvaluation, ...]
    remaining: StructureStatistics | None
    robustness: tuple[RobustnessRow, ...]
    bands: tuple[DvhBand, ...]
    grid_comparison: tuple[GridDifference, ...]
    loss: DoseLoss
    limited: tuple[float, ...]
    shifted: ShiftSummary | None
    set_kind: ScenarioSetKind
    cpu_s: float


def judge_plan(
    run: Run,
    study: Study,
    reference: CaseRef,
    placement: Placement,
    scenarios: Sequence[Scenario],
    influence: Influence,
    solve: Solve,
) -> Judgement:
    """Compute and evaluate the doses of a plan."""
    case = reference.case
    weight = solve.result.weight
    wanted = [(placement.report, scenario) for scenario in scenarios]
    shifted = shifted_scenarios(study, scenarios)
    everywhere = [*wanted, *((placement.optimiser, scenario) for scenario in (scenarios[0], *shifted))]
    (forward,) = forward_doses(run, placement, everywhere, [weight], "final dose")
    coarse_gy = [final.dose_gy for final in forward[len(wanted) :]]
    matrix = matrix_dose(run, placement, influence, weight)
    unscaled = on_ct_grid(case, placement.report.layout.grid, forward[0].dose_gy)
    factor = normalisation_factor(study, case, unscaled)
    scale = np.float32(1.0 if factor is None else factor)
    goals = study_goals(study)
    regions = regions_of(case.grid, case.structures)
    nominal_gy = unscaled * scale
    axis_gy = dose_axis_gy(max(float(final.dose_gy.max()) for final in forward) * float(scale) * 1.02)
    evaluator = Evaluator(regions, goals, axis_gy, study.prescription.target, study.prescription.dose_gy)
    evaluations = [evaluator.evaluate(scenarios[0], nominal_gy)]
    with run.reporter.stage("judge", len(scenarios), "scenarios") as steps:
        steps.advance(1)
        for scenario, final in zip(scenarios[1:], forward[1 : len(wanted)], strict=True):
            on_ct = on_ct_grid(case, placement.report.layout.grid, final.dose_gy) * scale
            evaluations.append(evaluator.evaluate(scenario, on_ct))
            steps.advance(1)
    rest = remaining_volume(regions)
    # Density scenarios are design points: no percentiles from a set that holds any.
    set_kind: ScenarioSetKind = "sampled" if study.scenarios.only_samples else "design"
    coarse = evaluate_on_optimiser_grid(
        study, case, placement, goals, axis_gy, scenarios[0], matrix.dose_gy * scale
    )
    return Judgement(
        factor,
        weight * float(scale),
        nominal_gy,
        placement.report.layout.grid,
        forward[0].dose_gy * scale,
        tuple(evaluations),
        None
        if rest is None
        else structure_statistics(rest, rest.dvh(nominal_gy), study.prescription.dose_gy),
        _robustness(goals, evaluations, set_kind),
        dvh_bands(evaluations[0], evaluations),
        compare_grids(coarse, evaluations[0], {name for _, name in study.structure_names()}),
        dose_loss(study, case, placement, matrix.dose_gy * scale, coarse_gy[0] * scale),
        limited_by_dose(run, study, reference, placement, coarse_gy[0]),
        shift_summary(
            run,
            study,
            reference,
            placement,
            goals,
            coarse_gy[0],
            list(zip(shifted, coarse_gy[1:], strict=True)),
            float(scale),
        ),
        set_kind,
        sum(final.cpu_s for final in (*forward, matrix)),
    )


def _robustness(
    goals: Sequence[Goal], evaluations: Sequence[DoseEvaluation], kind: ScenarioSetKind
) -> tuple[RobustnessRow, ...]:
    """Return goals over scenarios; of a sampled set the samples alone count, each as much as the others."""
    if len(evaluations) == 1:
        return ()
    judged = list(evaluations)
    if kind == "sampled":
        judged = [
            replace(e, scenario=replace(e.scenario, probability=1.0 / (len(evaluations) - 1)))
            for e in evaluations[1:]
        ]
    return robustness_table(goals, evaluations[0], judged, kind)


def study_goals(study: Study) -> tuple[Goal, ...]:
    """Return the study's goals, parsed."""
    return tuple(parse_goal(goal.structure, goal.goal, goal.published) for goal in study.goals)


def forward_doses(
    run: Run,
    placement: Placement,
    wanted: Sequence[tuple[PatientRef, Scenario]],
    weights: Sequence[F64],
    name: str,
) -> list[list[FinalDose]]:
    """Return the full dose of every plan on each wanted grid in each wanted scenario, beams summed in their order.

    Parameters
    ----------
    run, placement
        The run, and its beams.
    wanted
        Grids and scenarios.
    weights
        Weights of all beamlets of every plan.
    name
        Name of the stage for people.

    Returns
    -------
    list
        ``result[plan][place]`` is the dose of a plan on the grid and in the scenario of ``wanted[place]``.
    """
    digests = _beam_dose_digests(run, placement, wanted, weights, name)
    n_beam = len(placement.beams)
    return [
        [_sum_of(run, [digests[plan, place, beam] for beam in range(n_beam)]) for place in range(len(wanted))]
        for plan in range(len(weights))
    ]


def beam_doses(
    run: Run, placement: Placement, patient: PatientRef, scenario: Scenario, weight: F64
) -> list[FinalDose]:
    """Return the full dose of every beam of one plan in one scenario; their sum is that of `forward_doses`."""
    digests = _beam_dose_digests(run, placement, [(patient, scenario)], [weight], "doses of beams")
    return [_sum_of(run, [digests[0, 0, beam]]) for beam in range(len(placement.beams))]


def _beam_dose_digests(
    run: Run,
    placement: Placement,
    wanted: Sequence[tuple[PatientRef, Scenario]],
    weights: Sequence[F64],
    name: str,
) -> dict[tuple[int, int, int], str]:
    """Have the doses of beams computed that the store lacks; returns their digests by plan, place and beam."""
    by_beam = [placement.weights_of_beams(weight) for weight in weights]
    digests: dict[tuple[int, int, int], str] = {}
    tasks: list[ForwardTask] = []
    for beam in range(len(placement.beams)):
        made_from = tiles_made_from(placement, beam)
        # Side by side what shares a view: density scenarios of one setup, and all plans.
        missing: dict[tuple[PatientRef, Shift], list[BeamDose]] = {}
        for place, (patient, scenario) in enumerate(wanted):
            for plan, of_beams in enumerate(by_beam):
                digest = digests[plan, place, beam] = digest_of(
                    {
                        **made_from,
                        "grid": patient.layout.grid.as_dict(),
                        "scenario": [list(scenario.shift_mm), scenario.density_factor],
                        "forward": digest_of_array(of_beams[beam]),
                    }
                )
                if not run.store.has_arrays(BEAM_DOSE, digest):
                    doses = missing.setdefault((patient, scenario.shift_mm), [])
                    doses.append(BeamDose(digest, patient, scenario.shift_mm, scenario.density_factor, plan))
        if missing:
            wanted_of_beam = tuple(dose for doses in missing.values() for dose in doses)
            weights_of_beam = tuple(of_beams[beam] for of_beams in by_beam)
            tasks.append(
                ForwardTask(
                    placement.engine, placement.beams[beam], placement.beamlets[beam], wanted_of_beam, weights_of_beam
                )
            )  # fmt: skip
    with run.reporter.stage(name, len(digests), "beam doses") as steps:
        steps.found(len(digests) - sum(len(task.wanted) for task in tasks))
        if tasks:
            from cluster.submit import run_tasks

            run_tasks(run.client, compute, tasks, lambda _: steps.advance(1), ends=run.ends)
    return digests


def matrix_dose(run: Run, placement: Placement, influence: Influence, weight: F64) -> FinalDose:
    """Return the nominal dose that the stored tiles give: what the optimiser saw, on its grid."""
    blocks = [(begin, record.digest) for begin, record in influence.blocks]
    made_from = {
        "blocks": [d for _, d in blocks],
        "weight": digest_of_array(weight),
        "code": digest_of_code(("engine.influence", "engine._vector", "engine._jit")),
    }
    digest = digest_of(made_from)
    if not run.store.has_arrays(BEAM_DOSE, digest):
        from cluster.submit import run_tasks

        task = MatrixDoseTask(placement.optimiser, tuple(blocks), weight, digest)
        run_tasks(run.client, compute, [task], ends=run.ends)
    return _sum_of(run, [digest])


def _sum_of(run: Run, digests: Sequence[str]) -> FinalDose:
    stored = [run.store.read_arrays(BEAM_DOSE, digest) for digest in digests]
    total = np.zeros(stored[0][0]["dose_gy"].shape, dtype=np.float64)
    for arrays, _ in stored:
        total += arrays["dose_gy"]
    return FinalDose(
        total.astype(np.float32), sum(attributes["provenance"]["cpu_s"] for _, attributes in stored)
    )


def on_ct_grid(case: Case, grid: Grid, dose_gy: F32) -> F32:
    """Return a dose on the CT grid, 0 outside of the body."""
    body = case.external.coverage
    if grid == case.grid:
        return np.where(body > 0.0, dose_gy, np.float32(0.0))
    valid = average_onto(body, case.grid, grid)
    on_ct = interpolate_onto(dose_gy, grid, case.grid, valid)
    return np.where(body > 0.0, on_ct, np.float32(0.0))


def normalisation_factor(study: Study, case: Case, dose_gy: F32) -> float | None:
    """Return the factor that brings the target's dose at a volume to the prescribed share, or None for none.

    Raises
    ------
    CaseError
        If the plan gives the target no dose at that volume.
    """
    rule = study.prescription.normalisation()
    if rule is None:
        return None
    volume_percent, dose_percent = rule
    target = case.structure(study.prescription.target)
    region = region_from_coverage(target.name, target.kind, case.grid, target.coverage)
    found_gy = region.dvh(dose_gy).dose_at_percent_gy(volume_percent)
    if found_gy <= 0.0:
        raise CaseError(
            f"the plan cannot be normalised: D{volume_percent:g}% of '{target.name}' is {found_gy:g} Gy; "
            "check that beams and beamlets reach the whole target"
        )
    return study.prescription.dose_gy * dose_percent / 100.0 / found_gy


def evaluate_on_optimiser_grid(
    study: Study,
    case: Case,
    placement: Placement,
    goals: Sequence[Goal],
    axis_gy: F64,
    scenario: Scenario,
    dose_gy: F32,
) -> DoseEvaluation:
    """Judge what the optimiser saw: its own dose on its own grid."""
    grid = placement.optimiser.layout.grid
    regions: list[Region] = []
    for structure in case.structures:
        region = region_from_coverage(
            structure.name, structure.kind, grid, average_onto(structure.coverage, case.grid, grid)
        )
        if region.voxel.size:
            regions.append(region)
    there = {region.name for region in regions}
    evaluator = Evaluator(
        tuple(regions),
        tuple(goal for goal in goals if goal.structure in there),
        axis_gy,
        study.prescription.target,
        study.prescription.dose_gy,
    )
    return evaluator.evaluate(scenario, dose_gy)


def dose_loss(study: Study, case: Case, placement: Placement, matrix_gy: F32, exact_gy: F32) -> DoseLoss:
    """Compare the matrix with the full dose on the same grid."""
    grid = placement.optimiser.layout.grid
    body = average_onto(case.external.coverage, case.grid, grid) > 0.0
    target = average_onto(case.structure(study.prescription.target).coverage, case.grid, grid)
    lost = (exact_gy - matrix_gy) / study.prescription.dose_gy * 100.0
    return DoseLoss(
        float(np.abs(lost[body]).max()),
        float((lost * target).sum(dtype=np.float64) / target.sum(dtype=np.float64)),
    )
