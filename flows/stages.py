"""The stages from a patient to a report, one plain function each, in the order of the work.

read → place → vary → size → dose (and keep) → optimise → judge → tell. References go in, references come out; results
lie in the store, found by the digest of what they were made from. So a stage that was done costs a look-up, whether in
this run, an earlier one, or one that was killed. The Prefect flows in `flows.plan_case` and `flows.pareto` call these.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.dose.photon_pencil_beam import PhotonPencilBeam
from engine.errors import CaseError
from engine.geometry.beamlets import place_beamlets
from engine.geometry.bricks import BrickLayout, choose_brick_edge
from engine.geometry.resample import grid_over
from engine.model.machine import MACHINES
from engine.model.scenario import Scenario
from engine.spec.study import Study
from flows.beam_settings import beam_target, beams_of_study
from flows.generation import generate_weights
from flows.influence import compute_influence
from flows.judging import Judgement, judge_plan
from flows.limits import limits_in_words
from flows.memory import fit_memory
from flows.reading import take_case
from flows.references import CaseRef, Influence, Placement, Solve
from flows.run import Run
from flows.solving import (
    OptimiserInput,
    ResidentTiles,
    find_weights,
    prepare_optimiser,
    solver_options,
)
from flows.telling import certificate_in_words, write_results
from flows.work.patient import PatientRef


def read(run: Run, study: Study, case_digest: str, folder: Path) -> CaseRef:
    """Take an imported case out of the store and turn its HU into electron density."""
    return take_case(run, study, case_digest, folder)


def place(run: Run, study: Study, reference: CaseRef) -> Placement:
    """Put beams and beamlets on the target, and dose grids over the body."""
    case = reference.case
    target = beam_target(study, case)
    machine = MACHINES[study.beams.machine]
    beams, beamlets = beams_of_study(run, study, reference), []
    for beam in beams:
        size = (study.beams.beamlet_mm, study.beams.beamlet_mm)
        beamlets.append(place_beamlets(case, target, beam, size, study.beams.margin_mm))
        reach_mm = max(float(np.abs(centre).max()) for centre in beamlets[-1].centres_mm()) + 0.5 * max(size)
        if reach_mm > 0.5 * machine.largest_field_mm:
            raise CaseError(
                f"beam '{beam.name}' would have to reach {reach_mm:.0f} mm from its axis to cover '{target.name}' "
                f"({machine.name} reaches {0.5 * machine.largest_field_mm:g} mm); check isocentre and target"
            )
    body = case.external.coverage
    optimiser_grid = grid_over(case.grid, study.dose.grid_mm, body)
    report_grid = case.grid
    if min(case.grid.spacing_mm_xyz) < 0.99 * study.dose.report_grid_mm:
        report_grid = grid_over(case.grid, study.dose.report_grid_mm, body)
    engine = PhotonPencilBeam(machine, study.dose.lateral_cutoff_mm, study.dose.threshold_fraction)
    optimiser, report = (
        PatientRef(run.store.address, reference.density_digest, BrickLayout(grid, choose_brick_edge(grid)))
        for grid in (optimiser_grid, report_grid)
    )
    return Placement(tuple(beams), tuple(beamlets), optimiser, report, engine)


def vary(study: Study) -> tuple[Scenario, ...]:
    """List the scenarios, the nominal one first."""
    return study.scenarios.scenarios()


def size(
    run: Run,
    study: Study,
    reference: CaseRef,
    placement: Placement,
    scenarios: Sequence[Scenario],
    n_question: int = 1,
) -> None:
    """Have the memory of every worker projected before anything is computed, and refused what cannot fit.

    A study whose results are all in the store needs no memory of any worker, and is not asked.
    """
    optimised, wanted = _optimised(study, scenarios), study.optimisation
    run.before_computing(
        lambda: fit_memory(
            run, reference, placement, optimised, n_question, wanted.shifted, wanted.scenario_generation
        )
    )


def dose(run: Run, study: Study, placement: Placement, scenarios: Sequence[Scenario]) -> Influence:
    """Compute the influence tiles that the store lacks, and keep them: of the scenarios that the optimiser looks at."""
    return compute_influence(run, placement, _optimised(study, scenarios), study.optimisation.shifted)


def _optimised(study: Study, scenarios: Sequence[Scenario]) -> Sequence[Scenario]:
    return scenarios[:1] if study.optimisation.robust == "nominal" else scenarios


def optimise(
    run: Run,
    study: Study,
    reference: CaseRef,
    placement: Placement,
    influence: Influence,
) -> Solve:
    """Find the weights of all beamlets."""
    prepared = prepare_optimiser(run, study, reference, placement, influence)
    if study.optimisation.scenario_generation:
        solved = generate_weights(run, study, placement, influence, prepared)
    else:
        solved = _solve_over_all(run, study, placement, influence, prepared)
    run.reporter.say(f"  {certificate_in_words(study, solved.certificate)}")
    for line in limits_in_words(study, influence.scenarios, solved):
        run.reporter.say(f"  {line}")
    return solved


def _solve_over_all(
    run: Run, study: Study, placement: Placement, influence: Influence, prepared: OptimiserInput
) -> Solve:
    tiles = ResidentTiles(run, prepared, placement.first_beamlet[-1])
    solved = find_weights(
        run,
        tiles,
        prepared,
        prepared.terms,
        study.optimisation.robust,
        influence.scenarios,
        solver_options(study),
        study.prescription.dose_gy,
        part=study.optimisation.part,
    )
    tiles.close()
    return solved


def judge(
    run: Run,
    study: Study,
    reference: CaseRef,
    placement: Placement,
    scenarios: Sequence[Scenario],
    influence: Influence,
    solve: Solve,
) -> Judgement:
    """Compute the final dose in every scenario, without cut-offs, normalise it, and judge it on the CT grid."""
    return judge_plan(run, study, reference, placement, scenarios, influence, solve)


def tell(
    run: Run,
    study: Study,
    reference: CaseRef,
    placement: Placement,
    influence: Influence,
    solve: Solve,
    judgement: Judgement,
    output: Path,
) -> Path:
    """Write report, summary and DICOM; returns the path of the report."""
    return write_results(run, study, reference, placement, influence, solve, judgement, output)
