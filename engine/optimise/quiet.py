"""Which mini-blocks may count: those whose dose is not known to be below where every objective begins to look.

Most objectives of healthy tissue say nothing of doses below a level. Where a mini-block's doses were last read, how far
below the levels they were is known, and every change of the weights since then can have raised them by so much at most
(`RowGroup.most_rise_gy`). As long as that is less, sums and gradients are those of a dose of 0, to the last bit, and
neither product reads the mini-block. What is remembered changes what is read, and never a result.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from engine._jit import kernel
from engine.geometry.bricks import MINI_SIZE
from engine.influence.rows import RowGroup
from engine.model.arrays import F64, Bool

if TYPE_CHECKING:
    from engine.optimise.group import Question, RegionRows, Term

_MARGIN_GY = 1e-6
"""Doses are sums in double precision, off by far less."""
N_KNOWN = 4
"""Solves that are remembered, if no more are asking."""


def silent_to_gy(terms: "Sequence[Term]", regions: "Sequence[RegionRows]", n_row: int) -> F64:
    """Return the dose up to which each row adds nothing to any term, shape (n_row,).

    It is -inf where some term looks at every dose, and inf in no term's region.
    """
    level_gy = np.full(n_row, np.inf)
    for term in terms:
        region = regions[term.region]
        silent = term.function.silent_to_gy(region.reference_gy)
        level_gy[region.row] = np.minimum(level_gy[region.row], -np.inf if silent is None else silent)
    return level_gy


class QuietRows:
    """Knows of one scenario, and of a series of weights, which mini-blocks cannot count.

    Parameters
    ----------
    rows
        Rows of the scenario.
    level_gy
        Dose up to which each row adds nothing, shape (n_row,).
    """

    def __init__(self, rows: RowGroup, level_gy: F64) -> None:
        self._rows = rows
        self._weight: F64 | None = None
        by_mini = level_gy.reshape(-1, MINI_SIZE)
        has_levels = bool((np.isfinite(by_mini).any(axis=1) & ~np.isneginf(by_mini).any(axis=1)).any())
        self._level_gy = level_gy if has_levels else None
        # Where no row is in a region, none is ever above its level.
        self._above_gy: F64 = np.where(np.isposinf(by_mini).all(axis=1), -np.inf, np.inf)
        """How far each mini-block's doses can be above their levels at most."""

    def may_count(self, weight: F64) -> Bool:
        """Return which mini-blocks may count at some weights, shape (n_mini_row,); the weights are kept."""
        if self._level_gy is not None:
            if self._weight is not None:
                rise_gy = self._rows.most_rise_gy(weight - self._weight)
                self._above_gy += np.repeat(rise_gy, self._rows.brick_size // MINI_SIZE)
            self._weight = weight
        # Said like this, what is not a number counts, and shows.
        return ~(self._above_gy <= -_MARGIN_GY)

    def note(self, read: Bool, dose_gy: F64) -> None:
        """Take note of the doses of mini-blocks that were read, at the weights of the last `may_count`."""
        if self._level_gy is not None:
            _note(read, dose_gy, self._level_gy, self._above_gy)


@kernel
def _note(read: Bool, dose_gy: F64, level_gy: F64, above_gy: F64) -> None:
    for mini in range(read.size):
        if read[mini]:
            above = -np.inf
            for row in range(mini * MINI_SIZE, (mini + 1) * MINI_SIZE):
                beyond = dose_gy[row] - level_gy[row]
                if not beyond <= above:
                    above = beyond
            above_gy[mini] = above


class Quiet:
    """Remembers what the questions of several solves have left quiet in one group.

    Parameters
    ----------
    scenarios
        Rows of the group, one `RowGroup` a scenario; without any, nothing is known to be quiet.
    regions
        The regions' rows in this group.
    """

    def __init__(self, scenarios: "Sequence[RowGroup]", regions: "Sequence[RegionRows]") -> None:
        self._scenarios, self._regions = scenarios, regions
        self._known: dict[tuple[Term, ...], list[QuietRows]] = {}

    def of(self, questions: "Sequence[Question]") -> "list[list[QuietRows] | None]":
        """Return for every question what is known of each scenario; nothing for one with the terms of another.

        Each solve asks about its own terms again and again, at weights that change little.
        """
        if not self._scenarios:
            return [None] * len(questions)
        found: list[list[QuietRows] | None] = []
        asked: set[tuple[Term, ...]] = set()
        for question in questions:
            found.append(None if question.terms in asked else self._of_terms(question.terms))
            asked.add(question.terms)
        for terms in list(self._known)[: max(0, len(self._known) - max(len(asked), N_KNOWN))]:
            del self._known[terms]
        return found

    def _of_terms(self, terms: "tuple[Term, ...]") -> list[QuietRows]:
        known = self._known.pop(terms, None)
        if known is None:
            level_gy = silent_to_gy(terms, self._regions, self._scenarios[0].n_row)
            known = [QuietRows(rows, level_gy) for rows in self._scenarios]
        self._known[terms] = known
        return known
