"""Every number that the report of a Pareto front prints."""

from typing import Literal, Self

from pydantic import Field, model_validator

from engine.evaluate.goals import GoalResult
from flows.report.summary import (
    CaseSummary,
    CertificateSummary,
    PrescriptionSummary,
    ProvenanceSummary,
    ReportModel,
)


class CriterionSummary(ReportModel):
    """One axis of the front; ``terms`` says which functions of which structures it sums."""

    name: str
    unit: str
    terms: tuple[str, ...]


class FrontPlanSummary(ReportModel):
    """One plan: weights and values have one entry a criterion, in the order of the criteria.

    ``factor`` is that of its normalisation, after which goals and curves were taken (None: not normalised).

    ``role``: an anchor minimises one criterion, the balanced plan is the one proposed as a start.
    """

    name: str
    role: Literal["anchor", "balanced", "point"] = "point"
    weights: tuple[float, ...]
    values: tuple[float, ...]
    dominated: bool
    factor: float | None = Field(default=None, gt=0.0)
    goals: tuple[GoalResult, ...] = ()
    stopping_reason: str
    certificate: CertificateSummary | None = None


class FrontSummary(ReportModel):
    """Everything that the report of a front says, apart from pictures."""

    kind: Literal["front"] = "front"
    title: str
    case: CaseSummary
    prescription: PrescriptionSummary
    normalisation: str
    criteria: tuple[CriterionSummary, ...] = Field(min_length=2)
    plans: tuple[FrontPlanSummary, ...] = Field(min_length=1)
    provenance: ProvenanceSummary
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _plans_fit_the_criteria(self) -> Self:
        names = [plan.name for plan in self.plans]
        if len(set(names)) != len(names):
            raise ValueError("plan names occur more than once; number them")
        asked = [(goal.structure, goal.expression) for goal in self.plans[0].goals]
        for plan in self.plans:
            if not len(plan.weights) == len(plan.values) == len(self.criteria):
                raise ValueError(
                    f"plan '{plan.name}' needs {len(self.criteria)} weights and values, one a criterion"
                )
            if [(goal.structure, goal.expression) for goal in plan.goals] != asked:
                raise ValueError(f"plan '{plan.name}' was judged by other goals than the first")
        return self
