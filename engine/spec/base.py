"""What every table of a study file has in common."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A table of keys: frozen, unknown keys are errors, numbers are finite."""

    keys_command: ClassVar[str] = "nightbeam check --keys"
    """The command that lists the keys of the file that this is the root of."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
