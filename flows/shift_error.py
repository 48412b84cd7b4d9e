"""What it did to shift the nominal dose in place of recomputing it, in every scenario where the optimiser did so."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.evaluate.dvh import Dvh
from engine.evaluate.goals import Goal, GoalResult
from engine.evaluate.region import Region, region_from_coverage
from engine.geometry.resample import average_onto, moved_against
from engine.model.arrays import F32
from engine.model.scenario import Scenario
from engine.spec.study import Study
from engine.units import PERCENT
from flows.objective_regions import constraints_of_study, store_regions, terms_of_study, values_in_dose
from flows.references import CaseRef, Placement
from flows.report.summary import ShiftedMetric, ShiftedScenario, ShiftSummary
from flows.run import Run
from flows.work.rows import REGIONS


@dataclass(frozen=True)
class _Judged:
    """One dose of one scenario: its objective, values of the constraints, histogram of the target, goals."""

    objective: float
    limited: list[float]
    target: Dvh
    goals: list[GoalResult]


def shifted_scenarios(study: Study, scenarios: Sequence[Scenario]) -> list[Scenario]:
    """Return the scenarios whose dose the optimiser takes for the nominal one, shifted."""
    return [scenario for scenario in scenarios if study.optimisation.shifted and scenario.is_setup_error]


def shift_summary(
    run: Run,
    study: Study,
    reference: CaseRef,
    placement: Placement,
    goals: Sequence[Goal],
    nominal_gy: F32,
    recomputed_gy: Sequence[tuple[Scenario, F32]],
    scale: float,
) -> ShiftSummary | None:
    """Compare shifted with recomputed doses, all without cut-offs and on the optimiser's grid; None if there are none.

    Parameters
    ----------
    run, study, reference, placement
        What was planned.
    goals
        The study's goals.
    nominal_gy
        The nominal dose.
    recomputed_gy
        Every scenario whose dose the optimiser took for the nominal one, shifted, and its dose.
    scale
        Factor of the plan's normalisation.
    """
    if not recomputed_gy:
        return None
    layout = placement.optimiser.layout
    target = _region(study.prescription.target, reference, placement)
    regions = {goal.structure: _region(goal.structure, reference, placement) for goal in goals}
    seen = [goal for goal in goals if regions[goal.structure].voxel.size]
    arrays, _ = run.store.read_arrays(REGIONS, store_regions(run, study, reference, layout))
    terms, constraints = terms_of_study(study), constraints_of_study(study)
    at_rest = values_in_dose(arrays, terms, layout.to_rows(nominal_gy).astype(np.float64))

    def judged(dose_gy: F32) -> _Judged:
        on_rows = layout.to_rows(dose_gy).astype(np.float64)
        values = values_in_dose(arrays, terms, on_rows)
        scaled_gy = dose_gy * np.float32(scale)
        return _Judged(
            sum(
                term.weight * (value if term.robust else nominal)
                for term, value, nominal in zip(terms, values, at_rest, strict=True)
            ),
            values_in_dose(arrays, constraints, on_rows),
            target.dvh(scaled_gy),
            [goal.judge(regions[goal.structure].dvh(scaled_gy)) for goal in seen],
        )

    rows, pairs = [], []
    for scenario, dose_gy in recomputed_gy:
        moved_gy = moved_against(nominal_gy, layout.grid, scenario.shift_mm).astype(np.float32)
        shifted, recomputed = judged(moved_gy), judged(dose_gy)
        pairs.append((scenario.name, shifted, recomputed))
        apart_gy = np.abs(moved_gy - dose_gy).ravel()[target.voxel] * scale
        rows.append(
            ShiftedScenario(
                scenario=scenario.name,
                objective=(shifted.objective, recomputed.objective),
                d98_gy=(shifted.target.dose_at_percent_gy(98.0), recomputed.target.dose_at_percent_gy(98.0)),
                d2_gy=(shifted.target.dose_at_percent_gy(2.0), recomputed.target.dose_at_percent_gy(2.0)),
                mean_gy=(shifted.target.mean_gy, recomputed.target.mean_gy),
                largest_gy=float(apart_gy.max()),
            )
        )
    metrics = [
        _most_changed(
            goal.structure,
            goal.expression,
            goal.metric.unit,
            [(name, a.goals[n].value, b.goals[n].value) for name, a, b in pairs],
        )
        for n, goal in enumerate(seen)
    ] + [
        _most_changed(
            constraint.label.split(":", 1)[0],
            constraint.label.split(":", 1)[1].strip(),
            constraint.unit,
            [(name, a.limited[n], b.limited[n]) for name, a, b in pairs],
        )
        for n, constraint in enumerate(constraints)
    ]
    return ShiftSummary(text=_in_words(rows), scenarios=tuple(rows), metrics=tuple(metrics))


def _region(name: str, reference: CaseRef, placement: Placement) -> Region:
    """Return a structure's voxels on the optimiser's grid."""
    structure, grid = reference.case.structure(name), placement.optimiser.layout.grid
    coverage = average_onto(structure.coverage, reference.case.grid, grid)
    return region_from_coverage(name, structure.kind, grid, coverage)


def _most_changed(
    structure: str, metric: str, unit: str, values: Sequence[tuple[str, float, float]]
) -> ShiftedMetric:
    scenario, shifted, recomputed = max(values, key=lambda of: abs(of[1] - of[2]))
    return ShiftedMetric(
        structure=structure, metric=metric, scenario=scenario, values=(shifted, recomputed), unit=unit
    )


def _in_words(rows: Sequence[ShiftedScenario]) -> str:
    worst = max(rows, key=lambda row: row.largest_gy)
    shifted, recomputed = (max(row.objective[n] for row in rows) for n in range(2))
    change = f", {PERCENT * (recomputed / shifted - 1.0):+.2g} %" if shifted > 0.0 else ""
    return (
        f"For the dose of {len(rows)} setup scenarios the optimiser took the nominal dose, shifted by the setup error. "
        f"Recomputed, the largest objective among them is {recomputed:.4g} instead of {shifted:.4g}{change}, and no "
        f"voxel of the target has a dose that differs by more than {worst.largest_gy:.3g} Gy ('{worst.scenario}')."
    )
