"""Every number that the report of a plan prints; ``summary.json`` is its dump."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.dose.monitor_units import BeamMonitorUnits
from engine.evaluate.goals import GoalResult
from engine.evaluate.plan import GridDifference, StructureStatistics, TargetIndices
from engine.evaluate.robustness import RobustnessRow, ScenarioSetKind
from engine.evaluate.skin_loading import SkinLoading
from engine.model.arrays import I32
from engine.model.beam import Beam, BeamletGrid
from engine.model.grid import Grid
from engine.model.scenario import Scenario


class ReportModel(BaseModel):
    """A frozen part of a summary; infinities and NaN are refused, as JSON has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class GridSummary(ReportModel):
    """A voxel grid in numbers."""

    spacing_mm_xyz: tuple[float, float, float]
    shape_xyz: tuple[int, int, int]

    @classmethod
    def of(cls, grid: Grid) -> "GridSummary":
        """Describe ``grid``."""
        nz, ny, nx = grid.shape_zyx
        return cls(spacing_mm_xyz=grid.spacing_mm_xyz, shape_xyz=(nx, ny, nz))


class CaseSummary(ReportModel):
    """What was planned on; ``source`` says where it came from (phantom, DICOM series)."""

    name: str
    source: str
    patient_position: str
    ct_grid: GridSummary


class MadeStructure(ReportModel):
    """A structure that the study made of others, and how, in words (such as "CTV + 5 mm in all directions")."""

    name: str
    how: str


class TemplateSummary(ReportModel):
    """A template of the study in words, the structures it made, and the objectives it added or changed."""

    text: str
    structures: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()


class PrescriptionSummary(ReportModel):
    """Dose of the whole course and what was done to reach it.

    ``rule`` is a sentence part such as "D95% = 100 % of prescription"; rule and factor are None for a plan
    that was not normalised.
    """

    dose_gy: float = Field(gt=0.0)
    n_fraction: int = Field(gt=0)
    target: str
    rule: str | None = None
    factor: float | None = Field(default=None, gt=0.0)

    @model_validator(mode="after")
    def _rule_and_factor_belong_together(self) -> Self:
        if (self.rule is None) != (self.factor is None):
            raise ValueError(
                "a normalisation has both a rule and a factor; give both, or none for 'not normalised'"
            )
        return self


class BeamSummary(ReportModel):
    """One beam; angles after IEC 61217, isocentre in patient coordinates (LPS).

    ``field_x_mm`` and ``field_y_mm`` are the edges of the open beamlets along the collimator's axes at the isocentre
    plane, ``ssd_mm`` the distance from source to skin on the axis (None: the axis misses the body), ``water_depth_mm``
    the radiological depth of the isocentre. MU and modulation factor are those of
    `engine.dose.monitor_units.BeamMonitorUnits`.
    """

    name: str
    gantry_deg: float
    couch_deg: float
    collimator_deg: float
    isocentre_mm: tuple[float, float, float]
    sad_mm: float
    beamlet_size_mm: tuple[float, float]
    n_beamlet: int
    field_x_mm: tuple[float, float]
    field_y_mm: tuple[float, float]
    ssd_mm: float | None
    water_depth_mm: float
    mu_per_fraction: float
    modulation_factor: float

    @classmethod
    def of(
        cls,
        beam: Beam,
        beamlets: BeamletGrid,
        units: BeamMonitorUnits,
        ssd_mm: float | None,
        water_depth_mm: float,
    ) -> "BeamSummary":
        """Describe a beam and its beamlets."""
        return cls(
            name=beam.name,
            gantry_deg=beam.gantry_deg,
            couch_deg=beam.couch_deg,
            collimator_deg=beam.collimator_deg,
            isocentre_mm=beam.isocentre_mm,
            sad_mm=beam.sad_mm,
            beamlet_size_mm=beamlets.size_mm,
            n_beamlet=beamlets.n_beamlet,
            field_x_mm=_edges_mm(beamlets.column, beamlets.size_mm[0]),
            field_y_mm=_edges_mm(beamlets.row, beamlets.size_mm[1]),
            ssd_mm=ssd_mm,
            water_depth_mm=water_depth_mm,
            mu_per_fraction=units.mu_per_fraction,
            modulation_factor=units.modulation_factor,
        )


def _edges_mm(place: I32, size_mm: float) -> tuple[float, float]:
    return (float(place.min()) - 0.5) * size_mm, (float(place.max()) + 0.5) * size_mm


class TechniqueSummary(ReportModel):
    """Modality, machine and beams.

    In words: ``monitor_unit`` is the reference condition of the machine, ``fields`` how the beamlets were placed.
    ``skin`` is there where the target reaches the skin.
    """

    modality: str
    technique: str
    energy: str
    machine: str
    monitor_unit: str
    fields: str
    beams: tuple[BeamSummary, ...] = Field(min_length=1)
    skin: SkinLoading | None = None

    @property
    def mu_per_fraction(self) -> float:
        """Monitor units of all beams."""
        return sum(beam.mu_per_fraction for beam in self.beams)


class DoseSummary(ReportModel):
    """How dose was computed.

    ``lateral_cutoff_mm`` (None: no cut) and ``threshold_fraction`` (of the maximum of a beamlet; 0: none) say
    what was left out, ``loss_bound`` in words how much that can be at most, ``measured_loss_percent`` how
    much it was (None: not measured). ``hu_points`` are HU and relative electron density, linear in between;
    ``densities`` says which structures got theirs in another way.
    ``maximum_gy`` is the highest nominal dose of any voxel of the CT grid, at ``maximum_mm``.
    """

    algorithm: str
    hu_table: str
    hu_points: tuple[tuple[float, float], ...]
    densities: tuple[str, ...] = ()
    optimiser_grid: GridSummary
    report_grid: GridSummary
    lateral_cutoff_mm: float | None
    threshold_fraction: float
    loss_bound: str
    measured_loss_percent: float | None = None
    maximum_gy: float
    maximum_mm: tuple[float, float, float]


class ScenarioSummary(ReportModel):
    """A scenario and where it was used."""

    name: str
    shift_mm: tuple[float, float, float]
    density_factor: float
    probability: float
    in_optimisation: bool
    in_evaluation: bool

    @classmethod
    def of(cls, scenario: Scenario, in_optimisation: bool, in_evaluation: bool) -> "ScenarioSummary":
        """Describe a scenario."""
        return cls(
            name=scenario.name,
            shift_mm=scenario.shift_mm,
            density_factor=scenario.density_factor,
            probability=scenario.probability,
            in_optimisation=in_optimisation,
            in_evaluation=in_evaluation,
        )


class RobustnessSummary(ReportModel):
    """Goals over scenarios; ``method`` is how the optimiser used them, ``set_kind`` what weights mean."""

    method: str
    set_kind: ScenarioSetKind
    rows: tuple[RobustnessRow, ...]


class ObjectiveTerm(ReportModel):
    """One term of the objective at the end; ``value`` before weighting, in ``unit``."""

    structure: str
    function: str
    weight: float
    value: float
    unit: str


class CertificateSummary(ReportModel):
    """How far the objective is from the least possible, at most: ``gap`` is a share of it; in words as ``text``.

    ``objective`` is that of the plan without smoothing; ``evaluations`` are those for the lower bound alone.
    """

    objective: float
    lower_bound: float | None
    gap: float | None
    evaluations: int
    text: str


class LimitRow(ReportModel):
    """One hard constraint, in ``unit`` of its function.

    ``value`` is what the optimiser's dose has in its ``worst_scenario``, ``full_dose`` what the nominal dose without
    cut-offs has on the same grid. ``plan_limit`` is the limit that the plan was made with: another one than ``limit``
    if that had to give. ``buys`` is by how much the objective would fall if the limit gave by ``step`` (such as 1 Gy),
    to first order, and ``buys_percent`` the same as a share of the objective.
    """

    structure: str
    function: str
    sense: Literal["at most", "at least"]
    limit: float
    plan_limit: float
    unit: str
    value: float
    worst_scenario: str
    full_dose: float
    met: bool
    step: str
    buys: float
    buys_percent: float | None


class LimitsSummary(ReportModel):
    """The hard constraints; ``diagnosis`` says in sentences why they are not met, if they are not."""

    rows: tuple[LimitRow, ...]
    diagnosis: tuple[str, ...] = ()


class ShiftedScenario(ReportModel):
    """A setup scenario with the nominal dose shifted, as the optimiser took it, and recomputed; pairs in this order.

    ``objective`` is the weighted sum of all terms before the plan is normalised, all others are of the normalised plan,
    in the target; ``largest_gy`` is the largest difference in any of its voxels.
    """

    scenario: str
    objective: tuple[float, float]
    d98_gy: tuple[float, float]
    d2_gy: tuple[float, float]
    mean_gy: tuple[float, float]
    largest_gy: float


class ShiftedMetric(ReportModel):
    """A goal or hard constraint, in the scenario where shifting the dose changed it most: shifted, and recomputed."""

    structure: str
    metric: str
    scenario: str
    values: tuple[float, float]
    unit: str


class ShiftSummary(ReportModel):
    """What shifting the nominal dose did in place of recomputing it, on the optimiser's grid; in words as ``text``."""

    text: str
    scenarios: tuple[ShiftedScenario, ...] = Field(min_length=1)
    metrics: tuple[ShiftedMetric, ...] = ()


class GenerationRound(ReportModel):
    """One round of scenario generation.

    ``n_held`` scenarios were solved over, ``added`` are those that the round before had not. ``purpose`` says whether
    it was to find scenarios or to find the plan. ``objective_held`` (None: these scenarios alone make none) and
    ``objective`` are those of its plan over these and over all scenarios, ``worst_scenario`` has the largest share in
    the latter. No plan is below ``lower_bound`` over all scenarios, as far as is proven by then.
    """

    n_held: int
    added: tuple[str, ...]
    purpose: Literal["to find scenarios", "to find the plan"]
    evaluations: int
    objective_held: float | None
    objective: float
    worst_scenario: str
    lower_bound: float | None


class GenerationSummary(ReportModel):
    """How the scenarios were found that matter: rounds, ``n_built`` matrices of ``n_scenario``, and why it ended."""

    rounds: tuple[GenerationRound, ...] = Field(min_length=1)
    n_built: int
    n_scenario: int
    reason: str


class ConvergenceSummary(ReportModel):
    """How the solver got there: objective after each number of evaluations, and why it stopped, in words.

    With ``generation`` these are the evaluations of all rounds, and every round's objective is that over its scenarios.
    """

    solver: str
    evaluations: tuple[int, ...]
    objectives: tuple[float, ...]
    terms: tuple[ObjectiveTerm, ...]
    stopping_reason: str
    certificate: CertificateSummary | None = None
    generation: GenerationSummary | None = None

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if len(self.evaluations) != len(self.objectives):
            raise ValueError(
                f"{len(self.evaluations)} evaluation numbers do not fit {len(self.objectives)} objectives"
            )
        return self


class ProvenanceSummary(ReportModel):
    """What produced the numbers; ``cpu_s`` has processor seconds by stage."""

    nightbeam_version: str
    code_digest: str
    store_digests: dict[str, str]
    libraries: dict[str, str]
    seeds: dict[str, int]
    cpu_s: dict[str, float]
    date: str


class PlanSummary(ReportModel):
    """Everything that the report of one plan says, apart from pictures.

    ``remaining`` is the remaining volume at risk, see `engine.evaluate.region.remaining_volume`.
    """

    kind: Literal["plan"] = "plan"
    title: str
    case: CaseSummary
    prescription: PrescriptionSummary
    made_structures: tuple[MadeStructure, ...] = ()
    templates: tuple[TemplateSummary, ...] = ()
    technique: TechniqueSummary
    dose: DoseSummary
    volumes: tuple[StructureStatistics, ...] = Field(min_length=1)
    remaining: StructureStatistics | None = None
    goals: tuple[GoalResult, ...]
    limits: LimitsSummary | None = None
    indices: tuple[TargetIndices, ...]
    robustness: RobustnessSummary | None
    scenarios: tuple[ScenarioSummary, ...] = Field(min_length=1)
    shifted: ShiftSummary | None = None
    grid_comparison: tuple[GridDifference, ...]
    convergence: ConvergenceSummary
    provenance: ProvenanceSummary
    notes: tuple[str, ...] = ()
