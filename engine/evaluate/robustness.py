"""Goals and curves of one plan over many scenarios."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from engine.errors import CaseError
from engine.evaluate.goals import Goal
from engine.evaluate.metrics import Unit
from engine.evaluate.plan import DoseEvaluation
from engine.model.arrays import F64
from engine.model.case import StructureKind
from engine.units import PERCENT

ScenarioSetKind = Literal["design", "sampled"]
"""``design``: chosen scenarios with design weights; ``sampled``: draws from a distribution."""


@dataclass(frozen=True, slots=True)
class RobustnessRow:
    """One goal over all scenarios; values in ``unit``.

    ``expected`` is the mean under the probabilities of the scenarios. Percentiles are given for sampled sets
    only (linear between the ordered draws): design weights describe no distribution.
    """

    structure: str
    expression: str
    unit: Unit
    nominal: float
    worst: float
    worst_scenario: str
    expected: float
    percentile_5: float | None
    percentile_50: float | None
    percentile_95: float | None
    n_passed: int
    n_scenario: int
    nominal_passed: bool
    worst_passed: bool


@dataclass(frozen=True, slots=True)
class DvhBand:
    """The curves of one structure: nominal, and least and greatest volume at every dose over all scenarios.

    All arrays have shape (n_bin + 1,). Minimum and maximum are envelopes, not the curves of one scenario.
    """

    structure: str
    kind: StructureKind
    dose_axis_gy: F64
    nominal_percent: F64
    minimum_percent: F64
    maximum_percent: F64


def robustness_table(
    goals: Sequence[Goal], nominal: DoseEvaluation, scenarios: Sequence[DoseEvaluation], kind: ScenarioSetKind
) -> tuple[RobustnessRow, ...]:
    """Return a row for every goal.

    Parameters
    ----------
    goals
        The goals, in the order in which every evaluation holds them.
    nominal
        The evaluation without errors; it is counted as a scenario only if ``scenarios`` holds it.
    scenarios
        All scenarios of the set.
    kind
        Whether percentiles have a meaning.

    Raises
    ------
    CaseError
        If there is no scenario, probabilities do not sum to 1 or differ in a sampled set, or an evaluation
        holds other goals.
    """
    if not scenarios:
        raise CaseError("a robustness table needs at least one scenario")
    probability = np.array([evaluation.scenario.probability for evaluation in scenarios])
    if abs(probability.sum() - 1.0) > 1e-6 or probability.min() < 0.0:
        raise CaseError(
            f"probabilities of the scenarios sum to {probability.sum():g} (they must be parts of 1)"
        )
    if kind == "sampled" and np.ptp(probability) > 1e-9:
        raise CaseError(
            "sampled scenarios differ in probability (each draw counts the same); call the set a design"
        )
    asked = [(goal.structure, goal.expression) for goal in goals]
    for evaluation in (nominal, *scenarios):
        if [(result.structure, result.expression) for result in evaluation.goals] != asked:
            raise CaseError(f"scenario '{evaluation.scenario.name}' was judged by other goals than the table")
    return tuple(_row(goal, place, nominal, scenarios, probability, kind) for place, goal in enumerate(goals))


def _row(
    goal: Goal,
    place: int,
    nominal: DoseEvaluation,
    scenarios: Sequence[DoseEvaluation],
    probability: F64,
    kind: ScenarioSetKind,
) -> RobustnessRow:
    values = np.array([evaluation.goals[place].value for evaluation in scenarios])
    worst = int(values.argmin() if goal.wants_more else values.argmax())
    percentiles: tuple[float | None, ...] = (None, None, None)
    if kind == "sampled":
        percentiles = tuple(float(value) for value in np.percentile(values, [5.0, 50.0, 95.0]))
    return RobustnessRow(
        structure=goal.structure,
        expression=goal.expression,
        unit=goal.metric.unit,
        nominal=nominal.goals[place].value,
        worst=float(values[worst]),
        worst_scenario=scenarios[worst].scenario.name,
        expected=float(np.dot(probability, values)),
        percentile_5=percentiles[0],
        percentile_50=percentiles[1],
        percentile_95=percentiles[2],
        n_passed=sum(evaluation.goals[place].passed for evaluation in scenarios),
        n_scenario=len(scenarios),
        nominal_passed=nominal.goals[place].passed,
        worst_passed=scenarios[worst].goals[place].passed,
    )


def dvh_bands(nominal: DoseEvaluation, scenarios: Sequence[DoseEvaluation]) -> tuple[DvhBand, ...]:
    """Return the band of every structure of ``nominal`` over it and all scenarios.

    Raises
    ------
    CaseError
        If an evaluation holds other structures or another dose axis.
    """
    names = [curve.structure for curve in nominal.curves]
    for evaluation in scenarios:
        if [curve.structure for curve in evaluation.curves] != names:
            raise CaseError(
                f"scenario '{evaluation.scenario.name}' holds other structures than the nominal one"
            )
    bands: list[DvhBand] = []
    for place, curve in enumerate(nominal.curves):
        several = [curve, *(evaluation.curves[place] for evaluation in scenarios)]
        if any(not np.array_equal(other.dose_axis_gy, curve.dose_axis_gy) for other in several):
            raise CaseError(f"curves of '{curve.structure}' have different dose axes")
        volumes = np.stack([other.volume_percent for other in several])
        bands.append(
            DvhBand(
                curve.structure,
                curve.kind,
                curve.dose_axis_gy,
                curve.volume_percent,
                np.clip(volumes.min(axis=0), 0.0, PERCENT),
                np.clip(volumes.max(axis=0), 0.0, PERCENT),
            )
        )
    return tuple(bands)
