"""What every table of a study file has in common."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A table of keys: frozen, unknown keys are errors, numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
