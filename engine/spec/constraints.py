"""The study's hard constraints: limits that hold, or that the report says cannot be met."""

from typing import Any, Self, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator

from engine.errors import OptimisationError
from engine.optimise.constraints import Constraint, Sense, require_sense, stands_for_dose
from engine.optimise.functions import DvhPenalty, Function, LimitedFunction, in_words
from engine.spec.base import Spec
from engine.spec.function_keys import gather_function

_LIMITED_DOSES = {
    kind.model_fields["kind"].default: kind
    for kind in get_args(get_args(Function)[0])
    if issubclass(kind, LimitedFunction) and kind is not DvhPenalty
}
"""Functions that stand for a dose: at_most or at_least is what dose_gy is in an objective."""


class ConstraintSpec(Spec):
    """One hard constraint: the function's own keys stand beside the others; in every scenario of the robust form."""

    structure: str
    function: Function
    at_most: float | None = Field(None, gt=0.0, description="upper limit, in the function's unit")
    at_least: float | None = Field(
        None, gt=0.0, description="lower limit, in Gy, of a function that stands for a dose"
    )
    robust: bool = Field(True, description="false: holds in the nominal scenario alone")
    excluding: tuple[str, ...] = Field(
        (), description="structures whose voxels are left out, such as targets"
    )

    @field_validator("excluding")
    @classmethod
    def _not_all_of_it(cls, excluding: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("structure") in excluding:
            raise ValueError("names the constraint's own structure, so no voxel is left; take it out")
        return excluding

    @model_validator(mode="before")
    @classmethod
    def _gather_function(cls, values: Any) -> Any:
        gathered = gather_function(values, cls.model_fields)
        if gathered is values:
            return values
        if (values.get("at_most") is None) == (values.get("at_least") is None):
            raise ValueError("needs at_most or at_least, and not both (write two constraints for both)")
        function = gathered["function"]
        kind = _LIMITED_DOSES.get(function["kind"]) if isinstance(function["kind"], str) else None
        if kind is not None:
            sense: Sense = "at_least" if values.get("at_most") is None else "at_most"
            if "dose_gy" in function:
                raise ValueError(f"the limit is {sense}; leave dose_gy out")
            function["dose_gy"] = values[sense]
            if "limit" in kind.model_fields:
                if "limit" in function:
                    raise ValueError(f"{sense} says which side is limited; leave limit out")
                function["limit"] = "upper" if sense == "at_most" else "lower"
        return gathered

    @model_validator(mode="after")
    def _on_its_side(self) -> Self:
        try:
            require_sense(self.function, self.sense)
        except OptimisationError as error:
            raise ValueError(f"'{self.function.kind}': {error}") from error
        return self

    @property
    def sense(self) -> Sense:
        """Which side is limited."""
        return "at_least" if self.at_most is None else "at_most"

    def label(self) -> str:
        """Return a text for reports, without the limit."""
        without = f" without {', '.join(self.excluding)}" if self.excluding else ""
        hidden = ("dose_gy", "limit") if stands_for_dose(self.function) else ()
        return f"{self.structure}{without}: {in_words(self.function, hidden)}"

    def constraint(self, region: int, fractions: int) -> Constraint:
        """Return the constraint on a region, in a course of so many fractions."""
        limit = self.at_least if self.at_most is None else self.at_most
        return Constraint(
            self.label(), region, self.function.of_course(fractions), self.sense, limit or 0.0, self.robust
        )
