"""The study's prescription."""

import re
from typing import Self

from pydantic import Field, model_validator

from engine.spec.base import Spec


class PrescriptionSpec(Spec):
    """What dose, where, and how the plan is scaled to it."""

    target: str = Field(description="structure that gets the dose")
    dose_gy: float = Field(gt=0.0, le=200.0, description="total dose of the course")
    fractions: int = Field(ge=1, le=100)
    normalise: str = Field(description="such as 'D95% = 100 %' (of dose_gy), or 'none'")

    @model_validator(mode="after")
    def _readable(self) -> Self:
        self.normalisation()
        return self

    def normalisation(self) -> tuple[float, float] | None:
        """Return volume and dose, both in per cent, or None for an unnormalised plan.

        Raises
        ------
        ValueError
            If ``normalise`` cannot be read.
        """
        if self.normalise.strip() == "none":
            return None
        number = r"(\d+(?:\.\d+)?)"
        found = re.fullmatch(rf"\s*D{number}\s*%\s*=\s*{number}\s*%\s*", self.normalise)
        if not found or not 0.0 < float(found[1]) < 100.0 or not 0.0 < float(found[2]) <= 200.0:
            raise ValueError(
                f"normalise = '{self.normalise}' is not understood; write 'D95% = 100 %' or 'none'"
            )
        return float(found[1]), float(found[2])
