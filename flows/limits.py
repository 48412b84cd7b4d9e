"""The hard constraints of a plan, told: limit, what the plan has, and what a limit that gives way would buy."""

from collections.abc import Sequence

import numpy as np

from engine.model.arrays import F32
from engine.model.scenario import Scenario
from engine.optimise.constraints import Constraint
from engine.spec.study import Study
from engine.units import PERCENT
from flows.objective_regions import constraints_of_study, store_regions, values_in_dose
from flows.references import CaseRef, Placement, Solve
from flows.report.summary import LimitRow, LimitsSummary
from flows.run import Run
from flows.work.rows import REGIONS


def limited_by_dose(
    run: Run, study: Study, reference: CaseRef, placement: Placement, dose_gy: F32
) -> tuple[float, ...]:
    """Return what the functions of all constraints have in a dose on the optimiser's grid."""
    constraints, layout = constraints_of_study(study), placement.optimiser.layout
    if not constraints:
        return ()
    arrays, _ = run.store.read_arrays(REGIONS, store_regions(run, study, reference, layout))
    return tuple(values_in_dose(arrays, constraints, layout.to_rows(dose_gy).astype(np.float64)))


def limits_summary(
    study: Study, scenarios: Sequence[Scenario], solve: Solve, full_dose: Sequence[float]
) -> LimitsSummary | None:
    """Describe the constraints of a plan; None if there are none.

    Parameters
    ----------
    study, scenarios, solve
        The study, the optimiser's scenarios, and the solution.
    full_dose
        What every constraint's function has in the nominal dose without cut-offs.
    """
    outcome = solve.limits
    if outcome is None:
        return None
    objective = solve.result.value
    rows = []
    for number, constraint in enumerate(constraints_of_study(study)):
        structure, function = constraint.label.split(":", 1)
        step, step_words = _step(constraint)
        buys = outcome.multipliers[number] * step
        worst = outcome.worst_state[number]
        rows.append(
            LimitRow(
                structure=structure,
                function=function.strip() + ("" if constraint.robust else ", nominal only"),
                sense="at most" if constraint.sense == "at_most" else "at least",
                limit=constraint.limit,
                plan_limit=outcome.limits[number],
                unit=constraint.unit,
                value=float(solve.result.limited[number, worst]),
                worst_scenario=scenarios[worst].name,
                full_dose=full_dose[number],
                met=outcome.met[number],
                step=step_words,
                buys=buys,
                buys_percent=PERCENT * buys / objective if objective > 0.0 else None,
            )
        )
    return LimitsSummary(rows=tuple(rows), diagnosis=_diagnosis(study, solve))


def limits_in_words(study: Study, scenarios: Sequence[Scenario], solve: Solve) -> tuple[str, ...]:
    """Return a line for every constraint, and the sentences that say why they are not met, if they are not."""
    nothing = [0.0] * len(study.constraints)
    summary = limits_summary(study, scenarios, solve, nothing)
    if summary is None:
        return ()
    lines = []
    for row, constraint in zip(summary.rows, constraints_of_study(study), strict=True):
        share = "" if row.buys_percent is None else f" ({row.buys_percent:.3g} % of the objective)"
        lines.append(
            f"{constraint.in_words()}: {'met' if row.met else 'EXCEEDED'}, {row.value:.4g} {row.unit} in "
            f"'{row.worst_scenario}'; {row.step} more would buy {row.buys:.3g}{share}"
        )
    return (*lines, *summary.diagnosis)


def _diagnosis(study: Study, solve: Solve) -> tuple[str, ...]:
    if solve.limits is None or solve.limits.diagnosis is None:
        return ()
    diagnosis = solve.limits.diagnosis
    sentences = diagnosis.sentences(constraints_of_study(study))
    if diagnosis.can_be_met:
        return sentences
    return (*sentences, "This plan is the best one whose limits give what the smallest compromise needs.")


def _step(constraint: Constraint) -> tuple[float, str]:
    """Return how far a limit gives for what is told, in its unit, and in words."""
    return (
        (1.0, f"1 {constraint.unit}") if constraint.unit else (constraint.limit / PERCENT, "1 % of the limit")
    )
