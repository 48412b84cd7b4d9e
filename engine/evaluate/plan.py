"""One dose of a plan judged: statistics, goals, indices and curves of all structures."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import CaseError
from engine.evaluate.dvh import Dvh
from engine.evaluate.goals import Goal, GoalResult
from engine.evaluate.indices import IsodoseFit, NearExtremes, homogeneity_index, isodose_fit, near_extremes
from engine.evaluate.region import Region
from engine.model.arrays import F64
from engine.model.case import StructureKind
from engine.model.scenario import Scenario
from engine.units import PERCENT

SMALL_VOLUME_CC = 0.03
"""Volume of the near-maximum D0.03cc."""
FIT_SHARES = (1.0, 0.95)
"""Isodoses that the target of the prescription is compared with, as shares of the prescription."""
LEVELS_PERCENT = (50.0, 95.0, 100.0, 107.0)
"""Doses at which volumes are reported, in percent of the prescription (95 and 107 %: ICRU Report 50)."""


@dataclass(frozen=True, slots=True)
class StructureStatistics:
    """What a report tables for a structure (ICRU Report 83 level 2); ``d0_03cc_gy`` is None below 0.03 cc.

    ``v50_percent`` and so on are the shares of the volume with at least 50, 95, 100 and 107 % of the prescribed dose.
    """

    name: str
    kind: StructureKind
    volume_cc: float
    n_voxel: int
    mean_gy: float
    min_gy: float
    max_gy: float
    d98_gy: float
    d95_gy: float
    d50_gy: float
    d2_gy: float
    d0_03cc_gy: float | None
    v50_percent: float
    v95_percent: float
    v100_percent: float
    v107_percent: float


@dataclass(frozen=True, slots=True)
class TargetIndices:
    """Indices of one target.

    ``near`` is None for a target of less than 35 mm³. ``fits`` are those to the isodoses of 100 and 95 % of the
    prescription, for the target of the prescription alone and where the case has a body outline.
    """

    structure: str
    volume_cc: float
    homogeneity: float | None
    near: NearExtremes | None
    fits: tuple[IsodoseFit, ...]


@dataclass(frozen=True, slots=True)
class DvhCurve:
    """A cumulative curve on a common dose axis: both arrays of shape (n_bin + 1,)."""

    structure: str
    kind: StructureKind
    dose_axis_gy: F64
    volume_percent: F64


@dataclass(frozen=True, slots=True)
class DoseEvaluation:
    """Everything that is judged on one dose; ``curves`` has one entry a structure, as ``statistics``."""

    scenario: Scenario
    statistics: tuple[StructureStatistics, ...]
    goals: tuple[GoalResult, ...]
    indices: tuple[TargetIndices, ...]
    curves: tuple[DvhCurve, ...]


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Judges doses on one grid.

    Parameters
    ----------
    regions
        All structures, see `engine.evaluate.region.regions_of`.
    goals
        Clinical goals; their structures are among the regions.
    dose_axis_gy
        Doses at which curves are sampled, see `engine.evaluate.dvh.dose_axis_gy`.
    prescription_target, prescription_gy
        Target and dose of the prescription; conformity is that of the target to this isodose.

    Raises
    ------
    CaseError
        If a goal or the prescription names a structure that is not among the regions.
    """

    regions: tuple[Region, ...]
    goals: tuple[Goal, ...]
    dose_axis_gy: F64
    prescription_target: str
    prescription_gy: float

    def __post_init__(self) -> None:
        for name in (self.prescription_target, *(goal.structure for goal in self.goals)):
            self.region(name)

    def region(self, name: str) -> Region:
        """Return the region called ``name``.

        Raises
        ------
        CaseError
            If there is none.
        """
        for region in self.regions:
            if region.name == name:
                return region
        known = ", ".join(region.name for region in self.regions) or "none"
        raise CaseError(
            f"structure '{name}' cannot be judged (it is unknown or empty on this grid; there are: {known})"
        )

    def evaluate(self, scenario: Scenario, dose_gy: npt.NDArray[np.floating]) -> DoseEvaluation:
        """Judge the total-course dose of one scenario, shape of the grid of the regions.

        Raises
        ------
        CaseError
            If the dose is on another grid or not finite, or a goal wants more volume than its structure has.
        """
        dvhs = {region.name: region.dvh(dose_gy) for region in self.regions}
        body = next((region for region in self.regions if region.kind == "EXTERNAL"), None)
        targets = [r for r in self.regions if r.kind == "TARGET" or r.name == self.prescription_target]
        indices: list[TargetIndices] = []
        for target in targets:
            dvh = dvhs[target.name]
            fits: tuple[IsodoseFit, ...] = ()
            if body is not None and target.name == self.prescription_target:
                fits = tuple(
                    isodose_fit(dvh, dvhs[body.name], share * self.prescription_gy) for share in FIT_SHARES
                )
            indices.append(
                TargetIndices(target.name, dvh.total_cc, homogeneity_index(dvh), near_extremes(dvh), fits)
            )
        return DoseEvaluation(
            scenario,
            tuple(structure_statistics(r, dvhs[r.name], self.prescription_gy) for r in self.regions),
            tuple(goal.judge(dvhs[goal.structure]) for goal in self.goals),
            tuple(indices),
            tuple(
                DvhCurve(r.name, r.kind, self.dose_axis_gy, dvhs[r.name].curve_percent(self.dose_axis_gy))
                for r in self.regions
            ),
        )


def structure_statistics(region: Region, dvh: Dvh, prescription_gy: float) -> StructureStatistics:
    """Return the statistics of one structure from its histogram."""
    small = dvh.total_cc >= SMALL_VOLUME_CC
    at_cc = dvh.volume_at_dose_cc(np.array(LEVELS_PERCENT) * prescription_gy / PERCENT)
    v50, v95, v100, v107 = (PERCENT * float(cc) / dvh.total_cc for cc in at_cc)
    return StructureStatistics(
        name=region.name,
        kind=region.kind,
        volume_cc=dvh.total_cc,
        n_voxel=int(region.voxel.size),
        mean_gy=dvh.mean_gy,
        min_gy=dvh.min_gy,
        max_gy=dvh.max_gy,
        d98_gy=dvh.dose_at_percent_gy(98.0),
        d95_gy=dvh.dose_at_percent_gy(95.0),
        d50_gy=dvh.dose_at_percent_gy(50.0),
        d2_gy=dvh.dose_at_percent_gy(2.0),
        d0_03cc_gy=dvh.dose_at_volume_gy(SMALL_VOLUME_CC) if small else None,
        v50_percent=v50,
        v95_percent=v95,
        v100_percent=v100,
        v107_percent=v107,
    )


@dataclass(frozen=True, slots=True)
class GridDifference:
    """One metric of one structure on the optimiser's and the report's grid; difference is report − optimiser."""

    structure: str
    metric: str
    unit: str
    optimiser: float
    report: float
    difference: float


def compare_grids(
    optimiser: DoseEvaluation, report: DoseEvaluation, structures: Iterable[str] | None = None
) -> tuple[GridDifference, ...]:
    """Set the main metrics of the nominal dose on two grids side by side.

    Volume, Dmean and D2% of every structure that both know (but the body), also D98% and D50% of targets,
    then the value of every goal.

    Parameters
    ----------
    optimiser, report
        Evaluations of the same dose on the two grids, with the same goals.
    structures
        Names to be compared; by default all that both know.
    """
    there = {s.name: s for s in optimiser.statistics}
    wanted = set(there) if structures is None else set(structures)
    rows: list[GridDifference] = []

    def add(structure: str, metric: str, unit: str, coarse: float, fine: float) -> None:
        rows.append(GridDifference(structure, metric, unit, coarse, fine, fine - coarse))

    for here in report.statistics:
        if here.name not in there or here.name not in wanted or here.kind == "EXTERNAL":
            continue
        other = there[here.name]
        add(here.name, "volume", "cc", other.volume_cc, here.volume_cc)
        add(here.name, "Dmean", "Gy", other.mean_gy, here.mean_gy)
        if here.kind == "TARGET":
            add(here.name, "D98%", "Gy", other.d98_gy, here.d98_gy)
            add(here.name, "D50%", "Gy", other.d50_gy, here.d50_gy)
        add(here.name, "D2%", "Gy", other.d2_gy, here.d2_gy)
    judged = {(goal.structure, goal.expression): goal.value for goal in optimiser.goals}
    for goal in report.goals:
        key = (goal.structure, goal.expression)
        if key in judged:
            add(goal.structure, goal.expression, goal.unit, judged[key], goal.value)
    return tuple(rows)
