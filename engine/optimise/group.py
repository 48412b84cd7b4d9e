"""What one worker does for one reduction group: doses, partial sums of the objectives, its part of the gradient.

An evaluation takes two rounds, because a function like the gEUD needs its sums over all rows before any row knows
its gradient: `GroupEvaluator.sums`, then, after the driver has merged the groups in order, `GroupEvaluator.gradients`.
So does a product of the Hessian with a direction: `curvature_sums`, then `curvature_products`. The sums of all
functions lie one below the other in one array, shape (n_sum, n_state).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.influence.rows import RowGroup
from engine.influence.scenarios import OwnMatrices, ScenarioRows
from engine.model.arrays import F32, F64, I32, Bool
from engine.optimise.functions import DoseFunction
from engine.optimise.quiet import Quiet, QuietRows
from engine.optimise.robust import soft_extreme_dose, soft_extreme_dose_change


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
    each_scenario
        Whether a voxel-wise worst case, too, judges it in each scenario by itself, as hard constraints are.
    """

    label: str
    region: int
    function: DoseFunction
    weight: float
    robust: bool = True
    each_scenario: bool = False


@dataclass(frozen=True)
class RegionRows:
    """The rows of one region within one group.

    Parameters
    ----------
    row
        Rows counted from the group's first, shape (n,).
    share
        Relative volume of each voxel; 1 in total over all groups, shape (n,).
    reference_gy
        Each voxel's own reference dose, where the region's objectives have one, shape (n,).
    """

    row: I32
    share: F64
    reference_gy: F64 | None = None


def regions_of_group(
    shares: Sequence[F32], first_row: int, n_row: int, references_gy: Mapping[int, F32] | None = None
) -> list[RegionRows]:
    """Cut the part of some regions that lies in one group out of what they have on all rows.

    Parameters
    ----------
    shares
        Relative volumes of every region.
    first_row, n_row
        Rows of the group.
    references_gy
        Reference doses of those regions that have them, by the region's number.
    """
    regions = []
    for number, share in enumerate(shares):
        part = share[first_row : first_row + n_row]
        row = np.flatnonzero(part)
        reference_gy = (references_gy or {}).get(number)
        regions.append(
            RegionRows(
                row.astype(np.int32),
                part[row].astype(np.float64),
                None if reference_gy is None else reference_gy[first_row + row].astype(np.float64),
            )
        )
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
        """States of every term: one a scenario, or a single one for the voxel-wise worst case of all terms."""
        by_scenario = self.voxel_temperature_gy is None or any(term.each_scenario for term in self.terms)
        return self.used if by_scenario else 1

    @property
    def places(self) -> list[slice]:
        """Where the sums of each term lie among all."""
        ends = np.cumsum([term.function.n_sum for term in self.terms])
        return [
            slice(int(end) - term.function.n_sum, int(end))
            for term, end in zip(self.terms, ends, strict=True)
        ]

    @property
    def n_sum(self) -> int:
        """Sums of all terms."""
        return sum(term.function.n_sum for term in self.terms)


class GroupEvaluator:
    """Holds the rows of one group for all scenarios.

    Takes several questions at once, because products with several sets of weights share the reading of the tiles.
    Answers do not depend on what is asked together, nor on what was asked before: that leaves unread what cannot count.

    Parameters
    ----------
    scenarios
        Rows of the group in all scenarios, or one `RowGroup` a scenario; the first is the nominal one.
    regions
        The regions' rows in this group.
    """

    def __init__(self, scenarios: ScenarioRows | Sequence[RowGroup], regions: Sequence[RegionRows]) -> None:
        self.scenarios = OwnMatrices(tuple(scenarios)) if isinstance(scenarios, Sequence) else scenarios
        self.regions = tuple(regions)
        self._quiet = Quiet(self.scenarios.matrices, self.regions)
        self._dose_gy: list[list[F64]] = []
        """Doses of every question of the last `sums`, one a scenario."""
        self._change_gy: list[list[F64]] = []
        """Their changes, of the last `curvature_sums`."""

    @property
    def n_bytes(self) -> int:
        """Bytes of the tiles."""
        return self.scenarios.n_bytes

    def sums(self, questions: Sequence[Question]) -> list[F64]:
        """Form the doses and return the partial sums of all terms of every question.

        Returns
        -------
        list
            For every question an array, shape (n_sum, n_state).
        """
        self._dose_gy, _ = self._doses(questions)
        return [
            self._sums_of(question, dose_gy)
            for question, dose_gy in zip(questions, self._dose_gy, strict=True)
        ]

    def curvature_sums(self, questions: Sequence[Question], directions: Sequence[F64]) -> list[F64]:
        """Form the doses and their changes, and return the partial sums and theirs.

        Parameters
        ----------
        questions
            What is asked, as to `sums`.
        directions
            For every question a change of its weights, shape (n_beamlet,).

        Returns
        -------
        list
            For every question an array, shape (2, n_sum, n_state).
        """
        self._dose_gy, self._change_gy = self._doses(questions, directions)
        return [
            np.stack([self._sums_of(question, dose_gy), self._sums_of(question, dose_gy, change_gy)])
            for question, dose_gy, change_gy in zip(questions, self._dose_gy, self._change_gy, strict=True)
        ]

    def gradients(self, questions: Sequence[Question], slopes: Sequence[F64]) -> list[F64]:
        """Return this group's part of the gradients in the weights, for the doses of the last `sums`.

        Parameters
        ----------
        questions
            As given to `sums`.
        slopes
            Of every question, the derivative of its objective by each merged sum, shape (n_sum, n_state).

        Returns
        -------
        list
            For every question an array, shape (n_beamlet,).
        """
        by_rows = [self._slopes_of(*asked) for asked in zip(questions, self._dose_gy, slopes, strict=True)]
        return self._adjoint(questions, by_rows)

    def curvature_products(
        self, questions: Sequence[Question], slopes: Sequence[F64], changes: Sequence[F64]
    ) -> list[F64]:
        """Return this group's part of the Hessians' products, for the doses of the last `curvature_sums`.

        Parameters
        ----------
        questions, slopes
            As for `gradients`.
        changes
            Of every question, the derivative of its slopes along the direction, shape (n_sum, n_state).

        Returns
        -------
        list
            For every question an array, shape (n_beamlet,).
        """
        by_rows = [
            self._slope_changes_of(*asked)
            for asked in zip(questions, self._dose_gy, self._change_gy, slopes, changes, strict=True)
        ]
        return self._adjoint(questions, by_rows)

    def doses(self, weight: F64, used: int) -> F64:
        """Return the dose of every row in the first ``used`` scenarios, shape (used, n_row)."""
        (doses,) = self.scenarios.doses([(used, weight)])
        return np.stack(doses)

    def adjoint(self, by_rows: F64, n_beamlet: int) -> F64:
        """Return what numbers on the rows, shape (used, n_row), come to for the beamlets, shape (n_beamlet,)."""
        result = np.zeros(n_beamlet)
        self.scenarios.add_adjoints([dict(enumerate(by_rows))], [result])
        return result

    def _doses(
        self, questions: Sequence[Question], directions: Sequence[F64] = ()
    ) -> tuple[list[list[F64]], list[list[F64]]]:
        """Return the doses of every question in the scenarios that it looks at, and their changes along directions.

        Where a dose cannot count, both are 0.
        """
        quiet = self._quiet.of(questions)
        wanted = [self._wanted(question, known) for question, known in zip(questions, quiet, strict=True)]
        asked = [(question.used, question.weight) for question in questions]
        if directions:
            asked += [(question.used, along) for question, along in zip(questions, directions, strict=True)]
            wanted += wanted
        found = self.scenarios.doses(asked, wanted)
        doses, changes = found[: len(questions)], found[len(questions) :]
        for known, read, of_question in zip(quiet, wanted, doses, strict=False):
            if known is not None and read is not None:
                for of_scenario, here, dose_gy in zip(known, read, of_question, strict=False):
                    of_scenario.note(here, dose_gy)
        return doses, changes

    def _wanted(self, question: Question, known: Sequence[QuietRows] | None) -> list[Bool] | None:
        """Return which mini-blocks may count for a question in each scenario that it looks at; None if all may."""
        if known is None:
            return None
        weight = question.weight.copy()  # a solver may go on in the same array
        wanted = [of_scenario.may_count(weight) for of_scenario in known[: question.used]]
        if question.voxel_temperature_gy is None:
            return wanted
        # The extreme dose of a voxel is made from those of all scenarios.
        return [np.logical_or.reduce(wanted)] * question.used

    def _adjoint(self, questions: Sequence[Question], by_rows: Sequence[dict[int, F64]]) -> list[F64]:
        """Return for every question what its rows' numbers (by scenario) come to for the beamlets."""
        result = [np.zeros(question.weight.size, dtype=np.float64) for question in questions]
        self.scenarios.add_adjoints(by_rows, result)
        return result

    def _states(self, question: Question) -> Iterator[tuple[Term, slice, RegionRows, int | None]]:
        """Yield every term with rows here, the place of its sums, and each scenario of its (None: all in one)."""
        for term, place in zip(question.terms, question.places, strict=True):
            region = self.regions[term.region]
            if region.row.size == 0:
                continue
            if question.voxel_temperature_gy is not None and term.robust and not term.each_scenario:
                yield term, place, region, None
            else:
                for state in range(question.n_state if term.robust else 1):
                    yield term, place, region, state

    def _sums_of(
        self, question: Question, dose_gy: Sequence[F64], change_gy: Sequence[F64] | None = None
    ) -> F64:
        """Return the sums at some doses, or their derivative along a change of the doses."""
        result = np.zeros((question.n_sum, question.n_state), dtype=np.float64)
        for term, place, region, state in self._states(question):
            if state is None:
                here_gy, derivative = self._extreme(question, term, region, dose_gy)
            else:
                here_gy = dose_gy[state][region.row]
            if change_gy is None:
                sums = term.function.sums(here_gy, region.share, region.reference_gy)
            else:
                moved_gy = (
                    (derivative * _stacked(region, change_gy)).sum(axis=0)
                    if state is None
                    else change_gy[state][region.row]
                )
                sums = term.function.directional_sums(here_gy, region.share, moved_gy, region.reference_gy)
            result[place, state or 0] = sums
        return result

    def _slopes_of(self, question: Question, dose_gy: Sequence[F64], slopes: F64) -> dict[int, F64]:
        """Return the derivative of the objective by the doses of the group's rows, by scenario; none where it is 0."""
        result = _ByRows(self.scenarios.n_row)
        for term, place, region, state in self._states(question):
            slope = slopes[place, state or 0]
            if state is None:
                extreme_gy, derivative = self._extreme(question, term, region, dose_gy)
                by_voxel = term.function.gradient(extreme_gy, region.share, slope, region.reference_gy)
                for scenario in range(question.used):
                    result.add(scenario, region, by_voxel * derivative[scenario])
            elif slope.any():
                here_gy = dose_gy[state][region.row]
                result.add(
                    state, region, term.function.gradient(here_gy, region.share, slope, region.reference_gy)
                )
        return result.of_scenario

    def _slope_changes_of(
        self,
        question: Question,
        dose_gy: Sequence[F64],
        change_gy: Sequence[F64],
        slopes: F64,
        changes: F64,
    ) -> dict[int, F64]:
        """Return the derivative of `_slopes_of` along a change of the doses."""
        result = _ByRows(self.scenarios.n_row)
        for term, place, region, state in self._states(question):
            slope, change = slopes[place, state or 0], changes[place, state or 0]
            share, reference_gy = region.share, region.reference_gy
            if state is None:
                extreme_gy, derivative = self._extreme(question, term, region, dose_gy)
                by_scenario = _stacked(region, change_gy)
                moved_gy = (derivative * by_scenario).sum(axis=0)
                by_voxel = term.function.gradient(extreme_gy, share, slope, reference_gy)
                product = term.function.product(extreme_gy, share, moved_gy, slope, change, reference_gy)
                turned = soft_extreme_dose_change(
                    derivative, by_scenario, _sign(term), question.voxel_temperature_gy or 0.0
                )
                for scenario in range(question.used):
                    result.add(scenario, region, product * derivative[scenario] + by_voxel * turned[scenario])
            elif slope.any() or change.any():
                here_gy, moved_gy = dose_gy[state][region.row], change_gy[state][region.row]
                result.add(
                    state,
                    region,
                    term.function.product(here_gy, share, moved_gy, slope, change, reference_gy),
                )
        return result.of_scenario

    def _extreme(
        self, question: Question, term: Term, region: RegionRows, dose_gy: Sequence[F64]
    ) -> tuple[F64, F64]:
        return soft_extreme_dose(_stacked(region, dose_gy), _sign(term), question.voxel_temperature_gy or 0.0)


class _ByRows:
    """Numbers on the rows of a group, by scenario; none where nothing was added."""

    def __init__(self, n_row: int) -> None:
        self._n_row = n_row
        self.of_scenario: dict[int, F64] = {}

    def add(self, scenario: int, region: RegionRows, by_voxel: F64) -> None:
        """Add numbers on the rows of a region."""
        here = self.of_scenario.setdefault(scenario, np.zeros(self._n_row, dtype=np.float64))
        here[region.row] += by_voxel


def _stacked(region: RegionRows, dose_gy: Sequence[F64]) -> F64:
    return np.stack([of_scenario[region.row] for of_scenario in dose_gy])


def _sign(term: Term) -> int:
    return -1 if term.function.side == "under" else 1
