"""The study file: what a person asks for. Units are part of every key; unknown keys are errors."""

import json
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from engine.errors import NightbeamError, StudyError
from engine.evaluate.goals import parse_goal
from engine.model.machine import MACHINES
from engine.model.scenario import Scenario
from engine.optimise.functions import Function
from engine.optimise.robust import Form
from engine.scenarios.sets import SetupPattern, scenario_set, setup_shifts
from engine.spec.locate import line_of_key

FUNCTION_KINDS: tuple[str, ...] = tuple(
    model.model_fields["kind"].default for model in get_args(get_args(Function)[0])
)
"""What ``function`` of an objective can be."""


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CaseSpec(_Spec):
    """Which patient or phantom, and how its HU become electron density."""

    phantom: str | None = Field(
        None, description="name of a built-in phantom (see `nightbeam phantom --help`)"
    )
    dicom: Path | None = Field(None, description="folder with a CT series and its structure set")
    imported: str | None = Field(
        None, description="name of a case that `nightbeam import` put into the store"
    )
    series_uid: str | None = Field(None, description="which CT series, if the folder holds several")
    external: str | None = Field(None, description="name of the body outline, if its type is not EXTERNAL")
    hu_table: str = Field(description="'phantom' for built-in phantoms, or a CSV file of the scanner's table")

    @field_validator("hu_table")
    @classmethod
    def _a_table_for_patients(cls, hu_table: str, info: ValidationInfo) -> str:
        patient = any(info.data.get(key) is not None for key in ("dicom", "imported"))
        if hu_table == "phantom" and patient and info.data.get("phantom") is None:
            raise ValueError(
                "'phantom' is the table of the built-in phantoms (there is no default table for a patient); "
                "give a CSV file with the table of the scanner"
            )
        return hu_table

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("phantom", "dicom", "imported") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of phantom, dicom and imported (given: {given or 'none'})")
        return self


class PrescriptionSpec(_Spec):
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
        if not found or not 0.0 < float(found[1]) < 100.0 or float(found[2]) <= 0.0:
            raise ValueError(
                f"normalise = '{self.normalise}' is not understood; write 'D95% = 100 %' or 'none'"
            )
        return float(found[1]), float(found[2])


class BeamsSpec(_Spec):
    """Beams of one machine, and their beamlets."""

    machine: Literal["generic-6mv", "point-source-6mv"]
    gantry_deg: tuple[float, ...] = Field(min_length=1, description="one angle a beam, IEC 61217")
    couch_deg: float | tuple[float, ...] = 0.0
    collimator_deg: float | tuple[float, ...] = 0.0
    isocentre_mm: tuple[float, float, float] | None = Field(
        None, description="x, y, z in DICOM patient coordinates; the target's centre if absent"
    )
    beamlet_mm: float = Field(5.0, gt=0.5, le=50.0, description="edge of a beamlet at the isocentre plane")
    margin_mm: float = Field(
        5.0, ge=0.0, le=100.0, description="how far beamlets reach beyond the target's projection"
    )

    @model_validator(mode="after")
    def _as_many_angles(self) -> Self:
        for key in ("couch_deg", "collimator_deg"):
            angles = getattr(self, key)
            if isinstance(angles, tuple) and len(angles) != len(self.gantry_deg):
                raise ValueError(
                    f"{key} has {len(angles)} angles for {len(self.gantry_deg)} beams; give one, or one for each beam"
                )
        whole_turns_apart = {tuple(angle % 360.0 for angle in beam) for beam in self.angles()}
        if len(whole_turns_apart) != len(self.gantry_deg):
            raise ValueError("two beams have the same angles (0 and 360 are the same); leave one out")
        return self

    def angles(self) -> list[tuple[float, float, float]]:
        """Return gantry, couch and collimator angle of every beam."""

        def each(value: float | tuple[float, ...]) -> tuple[float, ...]:
            return value if isinstance(value, tuple) else (value,) * len(self.gantry_deg)

        return list(zip(self.gantry_deg, each(self.couch_deg), each(self.collimator_deg), strict=True))


class DoseSpec(_Spec):
    """How dose is computed."""

    engine: Literal["photon_pencil_beam"]
    grid_mm: float = Field(ge=1.0, le=10.0, description="voxel edge of the optimiser's dose grid")
    report_grid_mm: float = Field(2.5, ge=0.5, le=10.0, description="voxel edge of the final dose")
    lateral_cutoff_mm: float = Field(
        50.0, gt=5.0, le=500.0, description="how far from its centre a beamlet reaches"
    )
    threshold_fraction: float = Field(
        1e-4, ge=0.0, lt=0.1, description="entries below this share are left out"
    )


class ScenariosSpec(_Spec):
    """What may go wrong."""

    setup: SetupPattern = "none"
    shift_mm: float | tuple[float, float, float] = Field(
        0.0, description="shift, or standard deviation if random"
    )
    number: int = Field(0, ge=0, le=10_000, description="how many random shifts")
    seed: int = Field(0, ge=0)
    density_factors: tuple[float, ...] = ()
    nominal_probability: float | None = Field(
        None, description="the rest is shared equally; equal shares if absent"
    )

    # Validators of fields run for keys that are given, and for those alone.
    @field_validator("shift_mm", "number", "seed")
    @classmethod
    def _not_ignored(cls, value: Any, info: ValidationInfo) -> Any:
        setup = info.data.get("setup")  # absent if it is itself a mistake
        if info.field_name == "shift_mm" and setup == "none":
            raise ValueError("a shift means nothing with setup = 'none'; give setup, or leave shift_mm out")
        if info.field_name in ("number", "seed") and setup not in ("random", None):
            raise ValueError(f"{info.field_name} is for setup = 'random' alone (setup is '{setup}')")
        return value

    @field_validator("density_factors")
    @classmethod
    def _each_factor_once(cls, factors: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(factors)) != len(factors):
            raise ValueError(
                "a density factor is given twice; leave one out (probabilities are shared equally)"
            )
        return factors

    @model_validator(mode="after")
    def _complete(self) -> Self:
        shifts = self.shift_mm if isinstance(self.shift_mm, tuple) else (self.shift_mm,)
        if self.setup != "none" and (max(shifts) <= 0.0 or min(shifts) < 0.0):
            raise ValueError(f"setup = '{self.setup}' needs a positive shift_mm")
        if self.setup == "random" and self.number == 0:
            raise ValueError("setup = 'random' needs number = ... (how many shifts to draw)")
        self.scenarios()
        return self

    def scenarios(self) -> tuple[Scenario, ...]:
        """Return the scenarios, the nominal one first."""
        shift = self.shift_mm if isinstance(self.shift_mm, tuple) else (self.shift_mm,) * 3
        shifts = setup_shifts(self.setup, shift, self.number, self.seed)
        equal = 1.0 / (1 + len(shifts) + len(self.density_factors))
        nominal = equal if self.nominal_probability is None else self.nominal_probability
        return scenario_set(shifts, self.density_factors, nominal)


class OptimisationSpec(_Spec):
    """How to optimise."""

    robust: Form = "nominal"
    max_evaluations: int = Field(500, ge=10, le=100_000)
    tolerance: float = Field(1e-7, gt=0.0, le=1e-2)


class ObjectiveSpec(_Spec):
    """One weighted objective: the function's own keys stand beside the others."""

    structure: str
    function: Function
    weight: float = Field(gt=0.0)
    robust: bool = Field(True, description="false: judged in the nominal scenario alone")
    excluding: tuple[str, ...] = Field(
        (), description="structures whose voxels are left out, such as targets"
    )
    criterion: str | None = Field(None, description="criterion of the Pareto front it belongs to")

    @model_validator(mode="before")
    @classmethod
    def _gather_function(cls, values: Any) -> Any:
        if not isinstance(values, dict) or isinstance(values.get("function"), dict | BaseModel):
            return values
        own = {
            # What a validator has touched is no longer JSON to pydantic, where an array may be a tuple.
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
            if key in cls.model_fields and key != "function"
        }
        rest = {key: value for key, value in values.items() if key not in cls.model_fields}
        return {**own, "function": {"kind": values.get("function"), **rest}}

    def label(self) -> str:
        """Return a text for reports."""
        values = self.function.model_dump(exclude={"kind"})
        detail = ", ".join(f"{key} {v:g}" if isinstance(v, float) else f"{v}" for key, v in values.items())
        without = f" without {', '.join(self.excluding)}" if self.excluding else ""
        return f"{self.structure}{without}: {self.function.kind.replace('_', ' ')}" + (
            f" ({detail})" if detail else ""
        )


class GoalSpec(_Spec):
    """A clinical goal such as 'D95% >= 50 Gy'."""

    structure: str
    goal: str
    published: str = Field("", description="what others reached, shown beside ours")

    @model_validator(mode="after")
    def _readable(self) -> Self:
        parse_goal(self.structure, self.goal, self.published)
        return self


class ParetoSpec(_Spec):
    """The front: objectives are grouped by their criterion, and the groups' weights are varied."""

    criteria: tuple[str, str, str] = Field(description="names of three criteria that objectives belong to")
    divisions: int = Field(3, ge=3, le=10, description="3 gives 10 plans, 4 gives 15, 5 gives 21")
    spread: float = Field(
        10.0, gt=1.0, le=1000.0, description="factor between weights of neighbouring emphasis"
    )

    @field_validator("criteria")
    @classmethod
    def _three_different(cls, criteria: tuple[str, str, str]) -> tuple[str, str, str]:
        if len(set(criteria)) != len(criteria):
            raise ValueError("a criterion is named twice; a front needs three different ones")
        return criteria


class Study(_Spec):
    """A whole study."""

    name: str = Field(min_length=1, max_length=200)
    case: CaseSpec
    prescription: PrescriptionSpec
    beams: BeamsSpec
    dose: DoseSpec
    scenarios: ScenariosSpec = ScenariosSpec()
    optimisation: OptimisationSpec = OptimisationSpec()
    objectives: Annotated[tuple[ObjectiveSpec, ...], Field(min_length=1)]
    goals: tuple[GoalSpec, ...] = ()
    pareto: ParetoSpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        sad_mm = MACHINES[self.beams.machine].sad_mm
        if self.dose.lateral_cutoff_mm > sad_mm / 2:
            raise ValueError("dose.lateral_cutoff_mm is larger than half the source distance")
        n_scenario = len(self.scenarios.scenarios())
        if self.optimisation.robust != "nominal" and n_scenario < 2:
            raise ValueError(
                f"optimisation.robust = '{self.optimisation.robust}' needs [scenarios] with shifts"
            )
        if self.pareto is not None:
            used = {objective.criterion for objective in self.objectives}
            missing = [name for name in self.pareto.criteria if name not in used]
            if missing:
                raise ValueError(f"pareto.criteria names {missing}, but no objective has that criterion")
        return self

    def structure_names(self) -> list[tuple[str, str]]:
        """Return every structure the study names, with the key that names it."""
        names = [("prescription.target", self.prescription.target)]
        if self.case.external is not None:
            names.append(("case.external", self.case.external))
        for number, objective in enumerate(self.objectives):
            names.append((f"objectives[{number}].structure", objective.structure))
            names.extend((f"objectives[{number}].excluding", name) for name in objective.excluding)
        names.extend((f"goals[{number}].structure", goal.structure) for number, goal in enumerate(self.goals))
        return names


def load_study(path: Path) -> Study:
    """Read and validate a study file.

    Raises
    ------
    StudyError
        If the file cannot be read, is not TOML, or does not describe a study; the message lists every mistake with
        the line of its key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(
            f"cannot read the study file {path} ({error}); check the path and that it is UTF-8"
        ) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path.name} is not valid TOML: {error}") from error
    try:
        # As JSON, where pydantic's strict types take arrays for tuples, text for paths and whole numbers for others,
        # but neither text nor truth values. TOML's dates fit no key: as a table they are refused everywhere.
        return Study.model_validate_json(
            json.dumps(values, default=lambda date: {"date": str(date)}), strict=True
        )
    except ValidationError as error:
        raise StudyError(_explain(path.name, text, error)) from error
    except NightbeamError as error:
        raise StudyError(f"{path.name}: {error}") from error


def _explain(name: str, text: str, error: ValidationError) -> str:
    lines = []
    for mistake in error.errors(include_url=False):
        # The chosen function's kind and the field 'function' are our own nesting: people see flat keys.
        nested = len(mistake["loc"]) > 3 and mistake["loc"][0] == "objectives"
        loc = tuple(
            part
            for part in mistake["loc"]
            if not (nested and part in ("function", *FUNCTION_KINDS))
            # Of a key that takes one number or several, pydantic names the sort it tried.
            and not str(part).startswith(("float", "tuple["))
        )
        key = (
            "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
            or "the study"
        )
        line = line_of_key(text, loc)
        where = f"line {line}: " if line else ""
        message = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            message = "there is no such key; see `nightbeam check --keys` for all of them"
        if mistake["type"] == "missing":
            message = "this key is needed but absent"
        if mistake["type"] in ("union_tag_invalid", "union_tag_not_found"):
            message = (
                f"unknown function {mistake['input'].get('kind')!r}; known are {', '.join(FUNCTION_KINDS)}"
            )
        lines.append(f"  {where}{key}: {message}")
    return f"{name} does not describe a study:\n" + "\n".join(lines)
