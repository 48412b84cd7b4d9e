"""Stage tell: the report, its numbers as JSON, and the plan as DICOM."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from engine.evaluate.robustness import DvhBand
from engine.model.arrays import F32, F64
from engine.model.case import Case, PatientPosition
from engine.model.machine import MACHINES
from engine.model.scenario import Scenario
from engine.optimise.bound import Certificate
from engine.optimise.generation import Generation
from engine.optimise.robust import Form, in_words, over_scenarios
from engine.optimise.solvers.base import SOLVER_WORDS
from engine.physics.hu_table import BUILT_IN
from engine.spec.study import Study
from engine.units import PERCENT
from flows.beams import beam_summaries, fluence_maps, skin_loading_of
from flows.export import export_plan
from flows.judging import Judgement
from flows.limits import limits_summary
from flows.references import CaseRef, Influence, Placement, Solve
from flows.report.summary import (
    CaseSummary,
    CertificateSummary,
    ConvergenceSummary,
    DoseSummary,
    GenerationRound,
    GenerationSummary,
    GridSummary,
    MadeStructure,
    ObjectiveTerm,
    PlanSummary,
    PrescriptionSummary,
    ProvenanceSummary,
    RobustnessSummary,
    ScenarioSummary,
    TechniqueSummary,
    TemplateSummary,
)
from flows.report.write import write_plan_report
from flows.run import Run
from storage.dicom.datasets import remove_written
from storage.digest import digest_of, digest_of_code
from storage.whole_file import whole_file

_SHOWN_EVALUATIONS = 2000
_LEAST_DRAWN_CC = 0.1
"""Smaller structures that the study does not name are markers: their curves would only hide the others."""


def write_results(
    run: Run,
    study: Study,
    reference: CaseRef,
    placement: Placement,
    influence: Influence,
    solve: Solve,
    judgement: Judgement,
    output: Path,
) -> Path:
    """Write the report (HTML, PDF, JSON), the weights and the plan as DICOM; returns the path of the report's page."""
    summary = plan_summary(run, study, reference, placement, influence, solve, judgement)
    remove_written(output / "dicom")
    maps = fluence_maps(
        placement, MACHINES[study.beams.machine], judgement.weight, study.prescription.fractions
    )
    report = write_plan_report(
        summary, reference.case, judgement.dose_gy, bands_to_draw(study, judgement), maps, output
    )
    with whole_file(output / "weights.npz") as aside, aside.open("wb") as stream:
        np.savez_compressed(
            stream,
            weight=judgement.weight,
            beam=np.repeat(np.arange(len(placement.beams)), [b.n_beamlet for b in placement.beamlets]),
            column=np.concatenate([b.column for b in placement.beamlets]),
            row=np.concatenate([b.row for b in placement.beamlets]),
            beamlet_mm=np.asarray(placement.beamlets[0].size_mm),
        )
    exported = export_plan(
        run, study, reference, placement, study.scenarios.scenarios(), solve, judgement, output / "dicom"
    )
    for note in exported.notes:
        run.reporter.say(f"  note: {note}")
    return report


def bands_to_draw(study: Study, judgement: Judgement) -> list[DvhBand]:
    """Return the curves worth drawing: those the study names, and others that are no mere markers.

    What the study made of others for the optimiser's sake alone (kind OTHER, no goal) would hide the rest.
    """
    named = {name for _, name in study.structure_names()}
    judged = {goal.structure for goal in study.goals}
    helpers = {recipe.name for recipe in study.structures if recipe.kind == "OTHER"} - judged
    volume_cc = {row.name: row.volume_cc for row in judgement.evaluations[0].statistics}

    def drawn(band: DvhBand) -> bool:
        if band.structure in named:
            return band.structure not in helpers
        return band.kind != "OTHER" and volume_cc[band.structure] >= _LEAST_DRAWN_CC

    return [band for band in judgement.bands if drawn(band)]


def study_notes(study: Study) -> tuple[str, ...]:
    """Return what a reader should know of the study's choices."""
    if study.dose.grid_mm < study.beams.beamlet_mm:
        return ()
    return (
        f"the optimiser's grid ({study.dose.grid_mm:g} mm) is not finer than the beamlets "
        f"({study.beams.beamlet_mm:g} mm): dose between its points was left to chance; use a smaller dose.grid_mm",
    )


def plan_summary(
    run: Run,
    study: Study,
    reference: CaseRef,
    placement: Placement,
    influence: Influence,
    solve: Solve,
    judgement: Judgement,
) -> PlanSummary:
    """Gather every number of the report."""
    case, nominal = reference.case, judgement.evaluations[0]
    robust = study.optimisation.robust
    engine = placement.engine
    machine = MACHINES[study.beams.machine]
    maximum_gy, maximum_mm = dose_maximum(case, judgement.dose_gy)
    bound_gy = loss_bound_gy(case.patient_position, placement, judgement.weight)
    return PlanSummary(
        title=study.name,
        case=case_summary(study, reference),
        prescription=PrescriptionSummary(
            dose_gy=study.prescription.dose_gy,
            n_fraction=study.prescription.fractions,
            target=study.prescription.target,
            rule=None if judgement.factor is None else f"{study.prescription.normalise} of the prescription",
            factor=judgement.factor,
        ),
        made_structures=tuple(MadeStructure(name=made.name, how=made.recipe) for made in reference.made),
        templates=tuple(
            TemplateSummary(
                text=template.text,
                structures=tuple(name for name, _ in template.structures),
                objectives=template.objectives,
            )
            for template in study.from_templates
        ),
        technique=TechniqueSummary(
            modality="photons",
            technique="IMRT: static beams, one fluence per beamlet (as of a compensator; not sequenced for leaves)",
            energy=f"{machine.nominal_energy_mv:g} MV",
            machine=study.beams.machine,
            monitor_unit=str(machine.reference),
            fields=fields_in_words(study),
            beams=beam_summaries(
                run, reference, placement, machine, judgement.weight, study.prescription.fractions
            ),
            skin=skin_loading_of(study, case, placement, judgement.weight),
        ),
        dose=DoseSummary(
            algorithm=f"{engine.name} {engine.version}: Gaussian kernels in water, radiological depth, inverse square",
            hu_table=reference.hu_table + (" (built in)" if reference.hu_table in BUILT_IN else ""),
            hu_points=reference.hu_points,
            densities=reference.densities,
            optimiser_grid=GridSummary.of(placement.optimiser.layout.grid),
            report_grid=GridSummary.of(placement.report.layout.grid),
            lateral_cutoff_mm=engine.lateral_cutoff_mm,
            threshold_fraction=engine.threshold_fraction,
            loss_bound=(
                f"with these weights no voxel of the optimiser's matrix lacks more than {bound_gy:.2f} Gy "
                f"({PERCENT * bound_gy / study.prescription.dose_gy:.1f} % of the prescription) in the nominal "
                "scenario; the final dose has no cut-off. In this plan the matrix lacks "
                f"{judgement.loss.target_mean_percent:.2f} % of the prescription in the target on average"
            ),
            measured_loss_percent=judgement.loss.largest_percent,
            maximum_gy=maximum_gy,
            maximum_mm=maximum_mm,
        ),
        volumes=nominal.statistics,
        remaining=judgement.remaining,
        goals=nominal.goals,
        limits=limits_summary(study, influence.scenarios, solve, judgement.limited),
        indices=nominal.indices,
        robustness=(
            RobustnessSummary(
                method=f"Optimised for {in_words(robust, study.optimisation.part)}.",
                set_kind=judgement.set_kind,
                rows=judgement.robustness,
            )
            if judgement.robustness
            else None
        ),
        scenarios=tuple(
            ScenarioSummary.of(
                e.scenario, in_optimisation=_is_optimised_on(index, robust, solve), in_evaluation=True
            )
            for index, e in enumerate(judgement.evaluations)
        ),
        shifted=judgement.shifted,
        grid_comparison=judgement.grid_comparison,
        convergence=convergence(study, influence.scenarios, solve),
        provenance=provenance_summary(
            study,
            reference,
            {"solve": solve.digest, "study": digest_of(study.model_dump(mode="json"))},
            {"dose": influence.cpu_s, "optimise": solve.cpu_s, "final dose": judgement.cpu_s},
        ),
        notes=(*study_notes(study), *reference.notes, *case.notes),
    )


def _is_optimised_on(index: int, robust: Form, solve: Solve) -> bool:
    """Return whether the tiles of a scenario were made for the optimiser."""
    if solve.generation is not None:
        return index in solve.generation.built
    return index == 0 or robust != "nominal"


def fields_in_words(study: Study) -> str:
    """Return which targets' projections the beamlets cover, and how far they reach beyond."""
    *others, last = study.prescription.target, *study.beams.also_cover
    targets, beyond = (f"{', '.join(others)} and {last}", "them") if others else (last, "it")
    return f"beamlets over the projection of {targets} and up to {study.beams.margin_mm:g} mm beyond {beyond}"


def dose_maximum(case: Case, dose_gy: F32) -> tuple[float, tuple[float, float, float]]:
    """Return the highest dose of any voxel of the CT grid, and that voxel's centre, x, y, z."""
    z, y, x = np.unravel_index(int(dose_gy.argmax()), dose_gy.shape)
    x_mm, y_mm, z_mm = case.grid.centres_mm_xyz
    return float(dose_gy[z, y, x]), (float(x_mm[x]), float(y_mm[y]), float(z_mm[z]))


def loss_bound_gy(position: PatientPosition, placement: Placement, weight: F64) -> float:
    """Return the dose that no voxel of the optimiser's matrix lacks more than, all beams together."""
    grid = placement.optimiser.layout.grid
    return sum(
        placement.engine.lost_dose_bound_gy(beam, beamlets, float(of_beam.sum()), position, grid)
        for beam, beamlets, of_beam in zip(
            placement.beams, placement.beamlets, placement.weights_of_beams(weight), strict=True
        )
    )


def case_summary(study: Study, reference: CaseRef) -> CaseSummary:
    """Describe the case."""
    if study.case.phantom is not None:
        source = f"built-in phantom {study.case.phantom}, written as DICOM and read back"
    elif study.case.dicom is not None:
        source = "DICOM CT series and RT Structure Set"
    else:
        source = f"imported case '{study.case.imported}'"
    case = reference.case
    return CaseSummary(
        name=case.name,
        source=source,
        patient_position=case.patient_position,
        ct_grid=GridSummary.of(case.grid),
    )


def convergence(study: Study, scenarios: Sequence[Scenario], solve: Solve) -> ConvergenceSummary:
    """Describe how the solver got to its end; the terms add up to the objective."""
    of_states = state_weights(study, scenarios, solve)
    history = solve.result.history
    shown = np.unique(np.linspace(0, history.size - 1, min(history.size, _SHOWN_EVALUATIONS)).astype(int))
    n_stage = len(solve.result.stage_begin)
    how = f" in {n_stage} smoothing stages" if n_stage > 1 else ""
    if solve.limits is not None:
        how = " in rounds of an augmented Lagrangian"
    if solve.generation is not None:
        how = f" in {len(solve.generation.rounds)} rounds of scenario generation"
    return ConvergenceSummary(
        solver=SOLVER_WORDS[study.optimisation.solver]
        + how
        + (f", {solve.result.n_product} products with the Hessian" if solve.result.n_product else ""),
        evaluations=tuple(int(i) + 1 for i in shown),
        objectives=tuple(float(history[i]) for i in shown),
        terms=tuple(
            ObjectiveTerm(
                structure=term.label.split(":")[0],
                function=term.label.split(":", 1)[1].strip() + ("" if term.robust else ", nominal only"),
                weight=term.weight,
                value=float((of_state * values).sum()),
                unit=term.function.unit,
            )
            for term, of_state, values in zip(solve.terms, of_states, solve.result.term_values, strict=True)
        ),
        stopping_reason=solve.result.reason,
        certificate=certificate_summary(solve.certificate, certificate_in_words(study, solve.certificate)),
        generation=None if solve.generation is None else generation_summary(solve.generation, scenarios),
    )


def generation_summary(generation: Generation, scenarios: Sequence[Scenario]) -> GenerationSummary:
    """Describe how the scenarios were found that matter."""
    return GenerationSummary(
        rounds=tuple(
            GenerationRound(
                n_held=len(told.held),
                added=tuple(scenarios[number].name for number in told.added),
                purpose="to find scenarios" if told.loose else "to find the plan",
                evaluations=told.n_evaluation,
                objective_held=told.value_held,
                objective=told.value,
                worst_scenario=scenarios[told.worst].name,
                lower_bound=told.lower_bound,
            )
            for told in generation.rounds
        ),
        n_built=len(generation.built),
        n_scenario=generation.n_scenario,
        reason=generation.reason,
    )


def certificate_in_words(study: Study, certificate: Certificate) -> str:
    """Return how far a plan is from the best at most, and which problem's best that is."""
    if not study.optimisation.shifted:
        return certificate.text
    return f"{certificate.text}. This is about the problem with shifted doses, not with recomputed ones"


def certificate_summary(certificate: Certificate, text: str) -> CertificateSummary:
    """Describe how far a plan is from the best at most, and in words."""
    return CertificateSummary(
        objective=certificate.value,
        lower_bound=certificate.lower_bound,
        gap=certificate.gap,
        evaluations=certificate.n_evaluation,
        text=text,
    )


def state_weights(study: Study, scenarios: Sequence[Scenario], solve: Solve) -> F64:
    """Return how much each state of each term counts in the exact objective, shape (n_term, n_state)."""
    values = solve.result.term_values
    if values.shape[1] == 1:
        return np.ones_like(values)
    weighted = values * np.array([term.weight for term in solve.terms])[:, None]
    probability = np.array([scenario.probability for scenario in scenarios])
    wanted = study.optimisation
    return over_scenarios(wanted.robust, weighted, probability, wanted.part, 0.0).derivative


def provenance_summary(
    study: Study, reference: CaseRef, digests: dict[str, str], cpu_s: dict[str, float]
) -> ProvenanceSummary:
    """Say what produced the numbers, and how long it took, whenever that was."""
    libraries = ("numpy", "scipy", "numba", "zarr", "dask", "prefect", "pydicom")
    return ProvenanceSummary(
        nightbeam_version=version("nightbeam"),
        code_digest=digest_of_code(("engine", "storage", "cluster", "flows")),
        store_digests={"case": reference.digest, "density": reference.density_digest, **digests},
        libraries={name: version(name) for name in libraries},
        seeds={"scenarios": study.scenarios.seed} if study.scenarios.setup == "random" else {},
        cpu_s=cpu_s,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
