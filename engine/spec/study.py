"""The study file: what a person asks for. Units are part of every key; unknown keys are errors."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from engine.errors import OptimisationError, StudyError, TemplateError, printable
from engine.evaluate.goals import parse_goal
from engine.model.machine import MACHINES
from engine.model.scenario import Scenario
from engine.optimise.augmented import SOLVERS_WITHIN_LIMITS, why_not_within_limits
from engine.optimise.functions import DoseFallOff, Function, in_words, one_sided
from engine.optimise.robust import FORMS_OF_A_PART, Form
from engine.optimise.solvers import SolverName
from engine.optimise.solvers.saddle import is_linear, why_no_linear_program
from engine.optimise.subsets import why_no_generation
from engine.scenarios.sets import SetupPattern, scenario_set, setup_shifts
from engine.spec.base import Spec
from engine.spec.case import CaseSpec
from engine.spec.constraints import ConstraintSpec
from engine.spec.expansion import Expanded, expand
from engine.spec.function_keys import gather_function
from engine.spec.prescription import PrescriptionSpec
from engine.spec.reading import read_spec, where
from engine.spec.structures import check_order
from engine.spec.templates import Aim, RemainingVolume, Rings, Template
from engine.structures.recipes import Recipe
from engine.units import PERCENT

LARGEST_SHIFT_MM = 200.0


class BeamsSpec(Spec):
    """Beams of one machine, and their beamlets."""

    machine: Literal["generic-6mv", "point-source-6mv"]
    gantry_deg: tuple[float, ...] = Field((), max_length=1000, description="one angle a beam, IEC 61217")
    from_plan: str | None = Field(
        None, min_length=1, description="instead of angles: label, name or UID of an imported photon plan"
    )
    couch_deg: float | tuple[float, ...] = 0.0
    collimator_deg: float | tuple[float, ...] = 0.0
    isocentre_mm: tuple[float, float, float] | None = Field(
        None, description="x, y, z in DICOM patient coordinates; the targets' centre if absent"
    )
    also_cover: tuple[str, ...] = Field(
        (), description="targets that beamlets cover beside prescription.target, such as those of lower dose"
    )
    beamlet_mm: float = Field(5.0, gt=0.5, le=50.0, description="edge of a beamlet at the isocentre plane")
    margin_mm: float = Field(
        5.0, ge=0.0, le=100.0, description="how far beamlets reach beyond the target's projection"
    )

    @model_validator(mode="after")
    def _angles_from_one_place(self) -> Self:
        if (self.from_plan is None) == (not self.gantry_deg):
            raise ValueError("give beams.gantry_deg (one angle a beam) or beams.from_plan, and not both")
        given = {"couch_deg", "collimator_deg", "isocentre_mm"} & self.model_fields_set
        if self.from_plan is not None and given:
            raise ValueError(
                f"{', '.join(sorted(given))}: with from_plan these come from the plan; leave them out"
            )
        return self

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


class DoseSpec(Spec):
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


class ScenariosSpec(Spec):
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

    @field_validator("nominal_probability")
    @classmethod
    def _not_of_one(cls, probability: float | None, info: ValidationInfo) -> float | None:
        if (
            probability is not None
            and info.data.get("setup") == "none"
            and not info.data.get("density_factors")
        ):
            raise ValueError(
                "there is one scenario alone, whose probability is 1; give setup, or leave it out"
            )
        return probability

    @model_validator(mode="after")
    def _complete(self) -> Self:
        shifts = self.shift_mm if isinstance(self.shift_mm, tuple) else (self.shift_mm,)
        if max(shifts) > LARGEST_SHIFT_MM:
            raise ValueError(f"shift_mm is larger than {LARGEST_SHIFT_MM:g} mm; give it in millimetres")
        if self.setup != "none" and (max(shifts) <= 0.0 or min(shifts) < 0.0):
            raise ValueError(f"setup = '{self.setup}' needs a positive shift_mm")
        if self.setup == "random" and self.number == 0:
            raise ValueError("setup = 'random' needs number = ... (how many shifts to draw)")
        self.scenarios()
        return self

    @property
    def only_samples(self) -> bool:
        """Whether all but the nominal scenario are random draws, rather than chosen."""
        return self.setup == "random" and not self.density_factors

    def scenarios(self) -> tuple[Scenario, ...]:
        """Return the scenarios, the nominal one first."""
        shift = self.shift_mm if isinstance(self.shift_mm, tuple) else (self.shift_mm,) * 3
        shifts = setup_shifts(self.setup, shift, self.number, self.seed)
        equal = 1.0 / (1 + len(shifts) + len(self.density_factors))
        nominal = equal if self.nominal_probability is None else self.nominal_probability
        return scenario_set(shifts, self.density_factors, nominal)


class OptimisationSpec(Spec):
    """How to optimise."""

    robust: Form = Field(
        "nominal",
        description="what is made small: the nominal objective; over scenarios its expected value; its worst scenario "
        "(composite); each objective in its own worst scenario; the extreme doses of each voxel; the mean of the worst "
        "part (cvar); the mean if probabilities are wrong (soft); a percentile",
    )
    worst_percent: float | None = Field(
        None,
        gt=0.0,
        le=100.0,
        description="cvar: mean of the objective over this worst part of the probability (100 is the expected value, "
        "that of one scenario or less the worst case). soft_worst_case: the same for wrong probabilities, as wrong at "
        "most as if an event of this probability were certain; never below cvar. percentile: what this part exceeds "
        "(10 is the 90th percentile)",
    )
    scenario_dose: Literal["recomputed", "shifted"] = Field(
        "recomputed",
        description="dose of setup scenarios while optimising. recomputed: with a matrix for each; shifted: the "
        "nominal dose, shifted by the setup error (static dose cloud), which takes far less memory and time, and is "
        "wrong near the skin and across lung. Density scenarios always have a matrix. The finished plan is always "
        "recomputed in all scenarios, and the report says what shifting did",
    )
    scenario_generation: bool = Field(
        False,
        description="for worst cases (composite, objective-wise, cvar, soft): keep the matrices of those scenarios in "
        "memory alone that matter, found in rounds by looking at the plan in all others; ends with bounds for all. "
        "max_evaluations is each round's, then",
    )
    solver: SolverName = Field(
        "lbfgsb",
        description=(
            "lbfgsb: nearly always; newton_cg: few beamlets, or the last digits of a smooth objective; "
            "projected_gradient: to compare with, or where the line search of lbfgsb fails; "
            "primal_dual: all objectives are mean, linear_overdose, linear_underdose or upper_mean_tail without limit; "
            "highs: the same, if small; "
            "ipopt: to compare with, if the package ipyopt is installed; "
            "simulated_annealing: as a historical baseline alone"
        ),
    )
    max_evaluations: int = Field(
        500,
        ge=10,
        le=100_000,
        description="evaluations of the objective and, of newton_cg, products with its Hessian, altogether",
    )
    tolerance: float = Field(1e-7, gt=0.0, le=1e-2)
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of the random moves of simulated_annealing")
    gap: float = Field(
        0.01, ge=0.0, le=1.0, description="certified gap, as a share of the objective, that is good enough"
    )
    max_bound_evaluations: int = Field(
        20,
        ge=0,
        le=100_000,
        description="further evaluations that the certified gap may take, besides one for each cap",
    )

    @field_validator("worst_percent")
    @classmethod
    def _of_a_part(cls, worst_percent: float | None, info: ValidationInfo) -> float | None:
        robust = info.data.get("robust")  # absent if it is itself a mistake
        if worst_percent is not None and robust is not None and robust not in FORMS_OF_A_PART:
            raise ValueError(
                f"is for robust = {', '.join(map(repr, FORMS_OF_A_PART))} alone (robust is '{robust}'); leave it out"
            )
        if worst_percent == 100.0 and robust == "percentile":
            raise ValueError("100 % exceed no percentile; give less, such as 10 for the 90th percentile")
        return worst_percent

    @field_validator("scenario_dose")
    @classmethod
    def _of_scenarios(cls, scenario_dose: str, info: ValidationInfo) -> str:
        if scenario_dose == "shifted" and info.data.get("robust") == "nominal":
            raise ValueError(
                "'shifted' is for a robust form, which looks at scenarios; give robust, or leave it out"
            )
        return scenario_dose

    @field_validator("scenario_generation")
    @classmethod
    def _of_worst_cases(cls, wanted: bool, info: ValidationInfo) -> bool:
        robust = info.data.get("robust")  # absent if it is itself a mistake
        why_not = why_no_generation(robust) if wanted and robust is not None else ""
        if why_not:
            raise ValueError(why_not)
        if wanted and info.data.get("scenario_dose") == "shifted":
            raise ValueError(
                "it cannot be combined with scenario_dose = 'shifted', which keeps one matrix for all setup scenarios; "
                "leave one of both out"
            )
        return wanted

    @model_validator(mode="after")
    def _part_is_given(self) -> Self:
        if self.robust in FORMS_OF_A_PART and self.worst_percent is None:
            raise ValueError(
                f"robust = '{self.robust}' needs worst_percent, the part of the probability that counts as worst "
                "(such as 10)"
            )
        return self

    @property
    def shifted(self) -> bool:
        """Whether the nominal dose is moved for setup scenarios, while optimising."""
        return self.scenario_dose == "shifted"

    @property
    def part(self) -> float | None:
        """The part of the probability that counts as worst."""
        return None if self.worst_percent is None else self.worst_percent / PERCENT

    @field_validator("seed")
    @classmethod
    def _of_random_moves(cls, seed: int, info: ValidationInfo) -> int:
        solver = info.data.get("solver")
        if solver not in ("simulated_annealing", None):
            raise ValueError(
                f"is for solver = 'simulated_annealing' alone (solver is '{solver}'); leave it out"
            )
        return seed


class ObjectiveSpec(Spec):
    """One weighted objective: the function's own keys stand beside the others."""

    structure: str
    function: Function
    weight: float = Field(gt=0.0)
    robust: bool = Field(True, description="false: judged in the nominal scenario alone")
    excluding: tuple[str, ...] = Field(
        (), description="structures whose voxels are left out, such as targets"
    )
    criterion: str | None = Field(None, description="criterion of the Pareto front it belongs to")

    @field_validator("excluding")
    @classmethod
    def _not_all_of_it(cls, excluding: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("structure") in excluding:
            raise ValueError("names the objective's own structure, so no voxel is left; take it out")
        return excluding

    @model_validator(mode="before")
    @classmethod
    def _gather_function(cls, values: Any) -> Any:
        return gather_function(values, cls.model_fields)

    def label(self) -> str:
        """Return a text for reports."""
        without = f" without {', '.join(self.excluding)}" if self.excluding else ""
        return f"{self.structure}{without}: {in_words(self.function)}"


class GoalSpec(Spec):
    """A clinical goal such as 'D95% >= 50 Gy'."""

    structure: str
    goal: str
    published: str = Field("", description="what others reached, shown beside ours")

    @model_validator(mode="after")
    def _readable(self) -> Self:
        parse_goal(self.structure, self.goal, self.published)
        return self


class ParetoSpec(Spec):
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


class Study(Spec):
    """A whole study."""

    name: str = Field(min_length=1, max_length=200)
    case: CaseSpec
    structures: tuple[Recipe, ...] = Field(
        (), description="made in this order, each from what there is by then"
    )
    prescription: PrescriptionSpec
    beams: BeamsSpec
    dose: DoseSpec
    scenarios: ScenariosSpec = ScenariosSpec()
    optimisation: OptimisationSpec = OptimisationSpec()
    objectives: Annotated[tuple[ObjectiveSpec, ...], Field(min_length=1)]
    constraints: tuple[ConstraintSpec, ...] = ()
    templates: tuple[Template, ...] = Field(
        (), description="stand for structures and objectives: `nightbeam check STUDY` lists what they come to"
    )
    goals: tuple[GoalSpec, ...] = ()
    pareto: ParetoSpec | None = None

    _expanded: tuple[Expanded, ...] = PrivateAttr(())

    @field_validator("structures")
    @classmethod
    def _made_in_order(cls, recipes: tuple[Recipe, ...]) -> tuple[Recipe, ...]:
        check_order(recipes)
        return recipes

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str) -> str:
        if printable(name) != name:
            raise ValueError("has a control character; write one line of plain text")
        return name

    @field_validator("constraints")
    @classmethod
    def _not_scaled_away(
        cls, constraints: tuple[ConstraintSpec, ...], info: ValidationInfo
    ) -> tuple[ConstraintSpec, ...]:
        prescription = info.data.get("prescription")  # absent if it is itself a mistake
        if constraints and prescription is not None and prescription.normalisation() is not None:
            raise ValueError(
                f"normalise = '{prescription.normalise}' would scale the plan out of its limits; write "
                "prescription.normalise = 'none', and what the target shall have as a constraint of its own (such as "
                "dvh_mean_tail with at_least)"
            )
        return constraints

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
        if self.optimisation.shifted and self.scenarios.setup == "none":
            raise ValueError(
                "optimisation.scenario_dose = 'shifted' needs setup scenarios, whose dose it is; give scenarios.setup, "
                "or leave it out"
            )
        if self.optimisation.shifted and self.dose.grid_mm >= self.beams.beamlet_mm:
            # Measured: on 6 mm with beamlets of 5 mm recomputing raised the expected objective by 63 %.
            raise ValueError(
                f"optimisation.scenario_dose = 'shifted' needs a dose.grid_mm finer than the beamlets "
                f"({self.beams.beamlet_mm:g} mm): between points that lie further apart the dose is left to chance"
            )
        if self.optimisation.robust == "percentile" and not self.scenarios.only_samples:
            raise ValueError(
                "optimisation.robust = 'percentile' needs scenarios.setup = 'random' without density_factors: chosen "
                "scenarios are no samples and have no percentiles; use 'cvar' for them"
            )
        if self.optimisation.robust == "voxel_worst_case":
            for number, objective in enumerate(self.objectives):
                if objective.robust:
                    _require_sides(number, objective)
        unfit = "" if self.templates else self._why_unfit_solver()
        if unfit:
            raise ValueError(f"optimisation.solver: {unfit}")
        if self.pareto is not None:
            used = {objective.criterion for objective in self.objectives}
            used |= {t.criterion for t in self.templates if isinstance(t, Rings | RemainingVolume)}
            missing = [name for name in self.pareto.criteria if name not in used]
            if missing:
                raise ValueError(f"pareto.criteria names {missing}, but no objective has that criterion")
        return self

    @property
    def from_templates(self) -> tuple[Expanded, ...]:
        """What the templates came to, if they were expanded."""
        return self._expanded

    def with_templates_expanded(self) -> Self:
        """Return the study with the structures and objectives that its templates stand for, and no templates.

        Raises
        ------
        TemplateError, ValueError
            If a template does not fit, or the solver does not fit what they add, or one makes a structure whose name
            is taken.
        """
        if not self.templates:
            return self
        whole = self.prescription.target
        aim = Aim((whole, *self.beams.also_cover), self.prescription.dose_gy)
        expansion = expand(self.templates, aim, self.objectives, ObjectiveSpec.model_validate)
        changes: dict[str, Any] = {
            "structures": (*self.structures, *expansion.structures),
            "objectives": expansion.objectives,
            "templates": (),
        }
        if expansion.target != whole:
            changes["prescription"] = self.prescription.model_copy(update={"target": expansion.target})
            covered = (whole, *self.beams.also_cover)
            changes["beams"] = self.beams.model_copy(update={"also_cover": covered})
        check_order(changes["structures"])
        study = self.model_copy(update=changes)
        study._expanded = expansion.templates
        unfit = study._why_unfit_solver()
        if unfit:
            raise TemplateError("optimisation.solver", unfit)
        return study

    def _why_unfit_solver(self) -> str:
        """Return in words why the solver is none for this study; nothing if it is one."""
        solver = self.optimisation.solver
        if self.constraints and solver not in SOLVERS_WITHIN_LIMITS:
            return why_not_within_limits(solver)
        functions = [(objective.label(), objective.function) for objective in self.objectives]
        if solver in ("primal_dual", "highs"):
            refusal = why_no_linear_program(functions, self.optimisation.robust)
            return f"'{solver}': {refusal}" if refusal else ""
        if solver == "newton_cg" and all(is_linear(function) for _, function in functions):
            return (
                "'newton_cg' uses curvature, and all objectives are linear or made of linear pieces; "
                "use 'primal_dual'"
            )
        return ""

    def structure_names(self) -> list[tuple[str, str]]:
        """Return every structure the study names, with the key that names it."""
        names = [("prescription.target", self.prescription.target)]
        if self.case.external is not None:
            names.append(("case.external", self.case.external))
        names.extend(self.case.density_names())
        for number, recipe in enumerate(self.structures):
            names.extend((f"structures[{number}].{key}", name) for key, name in recipe.inputs())
        names.extend(("beams.also_cover", name) for name in self.beams.also_cover)
        for number, objective in enumerate(self.objectives):
            names.append((f"objectives[{number}].structure", objective.structure))
            names.extend((f"objectives[{number}].excluding", name) for name in objective.excluding)
            if isinstance(objective.function, DoseFallOff):
                names.append((f"objectives[{number}].from_structure", objective.function.from_structure))
        for number, constraint in enumerate(self.constraints):
            names.append((f"constraints[{number}].structure", constraint.structure))
            names.extend((f"constraints[{number}].excluding", name) for name in constraint.excluding)
            if isinstance(constraint.function, DoseFallOff):
                names.append((f"constraints[{number}].from_structure", constraint.function.from_structure))
        names.extend((f"goals[{number}].structure", goal.structure) for number, goal in enumerate(self.goals))
        return names


def _require_sides(number: int, objective: ObjectiveSpec) -> None:
    try:
        one_sided(objective.function)
    except OptimisationError as error:
        raise ValueError(f"objectives[{number}]: {error}") from error


def load_study(path: Path) -> Study:
    """Read and validate a study file, and expand its templates.

    Raises
    ------
    StudyError
        As `engine.spec.reading.read_spec` does, or if a template does not fit the study.
    """
    study = read_spec(path, Study, "a study")
    try:
        return study.with_templates_expanded()
    except TemplateError as error:
        raise StudyError(
            f"{path.name} does not describe a study:\n  {where(path, error.key)}{error.key}: {error.why}"
        ) from error
    except ValueError as error:
        raise StudyError(f"{path.name} does not describe a study:\n  templates: {error}") from error
