"""What one worker does for one reduction group: doses, partial sums of the objectives, its part of the gradient.

An evaluation takes two rounds, because a function like the gEUD needs its sum over all rows before any row knows
its gradient: `GroupEvaluator.sums`, then, after the driver has merged the groups in order, `GroupEvaluator.gradient`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.influence.rows import RowGroup
from engine.model.arrays import F32, F64, I32
from engine.optimise.functions import Function
from engine.optimise.robust import soft_extreme_dose


@dataclass(frozen=True)
class Term:
    """One weighted objective.

    Parameters
    ----------
    label
        Text for reports.
    region
        Number of the region (structure, perhaps without others) it looks at.
    function
        The function of the dose.
    weight
        Factor on its value.
    robust
        Whether it is judged in all scenarios, or in the first alone.
    """

    label: str
    region: int
    function: Function
    weight: float
    robust: bool = True


@dataclass(frozen=True)
class RegionRows:
    """The rows of one region within one group.

    Parameters
    ----------
    row
        Rows counted from the group's first, shape (n,).
    share
        Relative volume of each voxel; 1 in total over all groups, shape (n,).
    """

    row: I32
    share: F64


def regions_of_group(shares: Sequence[F32], first_row: int, n_row: int) -> list[RegionRows]:
    """Cut the part of some regions that lies in one group out of their relative volumes on all rows."""
    regions = []
    for share in shares:
        part = share[first_row : first_row + n_row]
        row = np.flatnonzero(part)
        regions.append(RegionRows(row.astype(np.int32), part[row].astype(np.float64)))
    return regions


class GroupEvaluator:
    """Holds the rows of one group for all scenarios.

    Parameters
    ----------
    scenarios
        Rows of the group, one `RowGroup` a scenario; the first is the nominal one.
    regions
        The regions' rows in this group.
    """

    def __init__(self, scenarios: Sequence[RowGroup], regions: Sequence[RegionRows]) -> None:
        self.scenarios = tuple(scenarios)
        self.regions = tuple(regions)
        self._dose_gy: list[F64] = []

    @property
    def n_bytes(self) -> int:
        """Bytes of the tiles."""
        return sum(rows.n_bytes for rows in self.scenarios)

    def sums(self, weight: F64, terms: Sequence[Term], used: int, voxel_temperature_gy: float | None) -> F64:
        """Form the doses and return the partial sums of all terms.

        Parameters
        ----------
        weight
            Weights of all beamlets, shape (n_beamlet,).
        terms
            The objectives.
        used
            Number of scenarios that count, from the first.
        voxel_temperature_gy
            Smoothing of the voxel-wise worst case, or None if values are formed per scenario.

        Returns
        -------
        array
            Shape (n_term, n_state): one state a scenario, or a single one for the voxel-wise worst case.
        """
        self._dose_gy = [rows.dose(weight) for rows in self.scenarios[:used]]
        n_state = used if voxel_temperature_gy is None else 1
        result = np.zeros((len(terms), n_state), dtype=np.float64)
        for number, term in enumerate(terms):
            region = self.regions[term.region]
            if region.row.size == 0:
                continue
            if voxel_temperature_gy is not None and term.robust:
                extreme_gy, _ = self._extreme(term, voxel_temperature_gy)
                result[number, 0] = term.function.sum(extreme_gy, region.share)
            else:
                for state in range(n_state if term.robust else 1):
                    result[number, state] = term.function.sum(self._region_dose(term, state), region.share)
        return result

    def gradient(
        self,
        n_beamlet: int,
        terms: Sequence[Term],
        factor: F64,
        totals: F64,
        voxel_temperature_gy: float | None,
    ) -> F64:
        """Return this group's part of the gradient in the weights, for the doses of the last `sums`.

        Parameters
        ----------
        n_beamlet
            Number of beamlets of all beams.
        terms
            The objectives, as given to `sums`.
        factor
            Derivative of the whole objective by the value of each term in each state, shape (n_term, n_state).
        totals
            Merged sums, shape (n_term, n_state).
        voxel_temperature_gy
            As given to `sums`.

        Returns
        -------
        array
            Shape (n_beamlet,).
        """
        row_gradient: list[F64 | None] = [None] * len(self._dose_gy)
        for number, term in enumerate(terms):
            region = self.regions[term.region]
            if region.row.size == 0:
                continue
            if voxel_temperature_gy is not None and term.robust:
                extreme_gy, derivative = self._extreme(term, voxel_temperature_gy)
                slope = factor[number, 0] * term.function.gradient(
                    extreme_gy, region.share, totals[number, 0]
                )
                for scenario in range(len(self._dose_gy)):
                    self._add(row_gradient, scenario, region, slope * derivative[scenario])
                continue
            for state in range(factor.shape[1] if term.robust else 1):
                if factor[number, state] != 0.0:
                    dose_gy = self._region_dose(term, state)
                    slope = term.function.gradient(dose_gy, region.share, totals[number, state])
                    self._add(row_gradient, state, region, factor[number, state] * slope)
        result = np.zeros(n_beamlet, dtype=np.float64)
        for rows, gradient in zip(self.scenarios, row_gradient, strict=False):
            if gradient is not None:
                rows.add_adjoint(gradient, result)
        return result

    def _region_dose(self, term: Term, scenario: int) -> F64:
        dose_gy: F64 = self._dose_gy[scenario][self.regions[term.region].row]
        return dose_gy

    def _extreme(self, term: Term, temperature_gy: float) -> tuple[F64, F64]:
        dose_gy = np.stack([self._region_dose(term, s) for s in range(len(self._dose_gy))])
        return soft_extreme_dose(dose_gy, -1 if term.function.side == "under" else 1, temperature_gy)

    def _add(self, row_gradient: list[F64 | None], scenario: int, region: RegionRows, slope: F64) -> None:
        here = row_gradient[scenario]
        if here is None:
            here = np.zeros(self.scenarios[scenario].n_row, dtype=np.float64)
            row_gradient[scenario] = here
        here[region.row] += slope
