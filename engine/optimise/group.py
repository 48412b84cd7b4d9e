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


@dataclass(frozen=True)
class Question:
    """What a solver wants to know of one set of weights.

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
    """

    weight: F64
    terms: tuple[Term, ...]
    used: int
    voxel_temperature_gy: float | None = None

    @property
    def n_state(self) -> int:
        """States of every term: one a scenario, or a single one for the voxel-wise worst case."""
        return self.used if self.voxel_temperature_gy is None else 1


class GroupEvaluator:
    """Holds the rows of one group for all scenarios.

    Takes several questions at once, because products with several sets of weights share the reading of the tiles.
    Answers do not depend on what is asked together.

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
        self._dose_gy: list[list[F64]] = []
        """Doses of every question of the last `sums`, one a scenario."""

    @property
    def n_bytes(self) -> int:
        """Bytes of the tiles."""
        return sum(rows.n_bytes for rows in self.scenarios)

    def sums(self, questions: Sequence[Question]) -> list[F64]:
        """Form the doses and return the partial sums of all terms of every question.

        Returns
        -------
        list
            For every question an array, shape (n_term, n_state).
        """
        self._dose_gy = [[] for _ in questions]
        for scenario, rows in enumerate(self.scenarios):
            asked = [number for number, question in enumerate(questions) if scenario < question.used]
            if asked:
                doses = rows.dose(np.stack([questions[number].weight for number in asked]))
                for number, dose_gy in zip(asked, doses, strict=True):
                    self._dose_gy[number].append(dose_gy)
        return [
            self._sums_of(question, dose_gy)
            for question, dose_gy in zip(questions, self._dose_gy, strict=True)
        ]

    def _sums_of(self, question: Question, dose_gy: Sequence[F64]) -> F64:
        result = np.zeros((len(question.terms), question.n_state), dtype=np.float64)
        temperature_gy = question.voxel_temperature_gy
        for number, term in enumerate(question.terms):
            region = self.regions[term.region]
            if region.row.size == 0:
                continue
            if temperature_gy is not None and term.robust:
                extreme_gy, _ = self._extreme(term, dose_gy, temperature_gy)
                result[number, 0] = term.function.sum(extreme_gy, region.share)
            else:
                for state in range(question.n_state if term.robust else 1):
                    result[number, state] = term.function.sum(dose_gy[state][region.row], region.share)
        return result

    def gradients(
        self, questions: Sequence[Question], factors: Sequence[F64], totals: Sequence[F64]
    ) -> list[F64]:
        """Return this group's part of the gradients in the weights, for the doses of the last `sums`.

        Parameters
        ----------
        questions
            As given to `sums`.
        factors
            Of every question, the derivative of its objective by the value of each term in each state, shape
            (n_term, n_state).
        totals
            Of every question, its merged sums, shape (n_term, n_state).

        Returns
        -------
        list
            For every question an array, shape (n_beamlet,).
        """
        slopes = [
            self._slopes_of(*asked) for asked in zip(questions, self._dose_gy, factors, totals, strict=True)
        ]
        result = [np.zeros(question.weight.size, dtype=np.float64) for question in questions]
        for scenario, rows in enumerate(self.scenarios):
            steep = [n for n, of_rows in enumerate(slopes) if scenario in of_rows]
            if steep:
                parts = np.zeros((len(steep), result[0].size))
                rows.add_adjoint(np.stack([slopes[n][scenario] for n in steep]), parts)
                for number, part in zip(steep, parts, strict=True):
                    result[number] += part
        return result

    def _slopes_of(
        self, question: Question, dose_gy: Sequence[F64], factor: F64, totals: F64
    ) -> dict[int, F64]:
        """Return the derivative of the objective by the doses of the group's rows, by scenario; none where it is 0."""
        slopes: dict[int, F64] = {}

        def add(scenario: int, region: RegionRows, slope: F64) -> None:
            here = slopes.setdefault(scenario, np.zeros(self.scenarios[scenario].n_row, dtype=np.float64))
            here[region.row] += slope

        for number, term in enumerate(question.terms):
            region = self.regions[term.region]
            if region.row.size == 0:
                continue
            if question.voxel_temperature_gy is not None and term.robust:
                extreme_gy, derivative = self._extreme(term, dose_gy, question.voxel_temperature_gy)
                slope = factor[number, 0] * term.function.gradient(
                    extreme_gy, region.share, totals[number, 0]
                )
                for scenario in range(question.used):
                    add(scenario, region, slope * derivative[scenario])
                continue
            for state in range(question.n_state if term.robust else 1):
                if factor[number, state] != 0.0:
                    slope = term.function.gradient(
                        dose_gy[state][region.row], region.share, totals[number, state]
                    )
                    add(state, region, factor[number, state] * slope)
        return slopes

    def _extreme(self, term: Term, dose_gy: Sequence[F64], temperature_gy: float) -> tuple[F64, F64]:
        stacked = np.stack([of_scenario[self.regions[term.region].row] for of_scenario in dose_gy])
        return soft_extreme_dose(stacked, -1 if term.function.side == "under" else 1, temperature_gy)
