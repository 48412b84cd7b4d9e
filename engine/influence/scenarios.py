"""The rows of a group in all scenarios: a matrix for each, or the nominal dose moved by the setup error."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine._jit import kernel
from engine.influence.halo import Halo, Stencil
from engine.influence.rows import RowGroup
from engine.model.arrays import F64, I32, I64, Bool


class ScenarioRows(Protocol):
    """Doses of a group's rows in all scenarios, the nominal one first, and what their numbers come to for beamlets."""

    @property
    def n_row(self) -> int:
        """Rows of the group."""
        ...

    @property
    def n_bytes(self) -> int:
        """Bytes that are held."""
        ...

    @property
    def matrices(self) -> tuple[RowGroup, ...]:
        """The matrix of every scenario by itself; none where scenarios share one."""
        ...

    def doses(
        self, asked: Sequence[tuple[int, F64]], wanted: Sequence[Sequence[Bool] | None] | None = None
    ) -> list[list[F64]]:
        """Return the doses (n_row,) of some weights (n_beamlet,), each in as many scenarios as it asks for.

        ``wanted`` says for each of them of which mini-blocks in every scenario, shape (n_row / 8,), or None for all.
        Of others the dose is 0, or what it is.
        """
        ...

    def add_adjoints(self, by_rows: Sequence[Mapping[int, F64]], results: Sequence[F64]) -> None:
        """Add to every result (n_beamlet,) what its numbers on the rows (n_row,), by scenario, come to."""
        ...


@dataclass(frozen=True)
class OwnMatrices:
    """A matrix for each scenario."""

    matrices: tuple[RowGroup, ...]

    @property
    def n_row(self) -> int:
        """Rows of the group."""
        return self.matrices[0].n_row

    @property
    def n_bytes(self) -> int:
        """Bytes of all tiles."""
        return sum(rows.n_bytes for rows in self.matrices)

    def doses(
        self, asked: Sequence[tuple[int, F64]], wanted: Sequence[Sequence[Bool] | None] | None = None
    ) -> list[list[F64]]:
        """Return the doses of some weights, each in as many scenarios as it asks for; 0 where none is wanted."""
        result: list[list[F64]] = [[] for _ in asked]
        of_all = wanted or [None] * len(asked)
        everything = np.ones(self.matrices[0].n_mini_row, dtype=np.bool_)
        for scenario, rows in enumerate(self.matrices):
            asking = [number for number, (used, _) in enumerate(asked) if scenario < used]
            if not asking:
                break
            known = [of_all[number] for number in asking]
            read = None
            if any(of is not None for of in known):
                read = np.stack([everything if of is None else of[scenario] for of in known])
            doses = rows.dose(np.stack([asked[number][1] for number in asking]), read)
            for number, dose_gy in zip(asking, doses, strict=True):
                result[number].append(dose_gy)
        return result

    def add_adjoints(self, by_rows: Sequence[Mapping[int, F64]], results: Sequence[F64]) -> None:
        """Add to every result what its numbers on the rows come to for the beamlets, scenario by scenario."""
        for scenario, rows in enumerate(self.matrices):
            _add_adjoints(rows, {n: of[scenario] for n, of in enumerate(by_rows) if scenario in of}, results)


@dataclass(frozen=True)
class MovedDose:
    """The nominal matrix on the group's rows and around them, and a few matrices of scenarios that are no mere shift.

    Parameters
    ----------
    n_row
        Rows of the group.
    nominal
        The nominal matrix on the rows that ``halo`` holds.
    halo
        Rows that moved doses are interpolated from. Rows of the group that it was not made for get no dose.
    scenarios
        For each scenario, the nominal one first, how the nominal dose is moved, or a matrix of its own.
    """

    n_row: int
    nominal: RowGroup
    halo: Halo
    scenarios: tuple[Stencil | RowGroup, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of all tiles, and of the numbers of their rows."""
        own = sum(one.n_bytes for one in self.scenarios if isinstance(one, RowGroup))
        return self.nominal.n_bytes + self.halo.n_bytes + own

    @property
    def matrices(self) -> tuple[RowGroup, ...]:
        """None: scenarios share one."""
        return ()

    def doses(
        self, asked: Sequence[tuple[int, F64]], wanted: Sequence[Sequence[Bool] | None] | None = None
    ) -> list[list[F64]]:
        """Return the doses of some weights: one product with the nominal matrix for all that are moved."""
        del wanted  # what cannot count in one scenario may count in another that has it moved
        held_gy = self.nominal.dose(np.stack([weight for _, weight in asked]))
        box_gy = np.zeros((len(asked), self.halo.n_box))
        box_gy[:, self.halo.held_place] = held_gy[:, self.halo.held_row]
        result: list[list[F64]] = [[] for _ in asked]
        for scenario, how in enumerate(self.scenarios):
            asking = [number for number, (used, _) in enumerate(asked) if scenario < used]
            if not asking:
                continue
            if isinstance(how, Stencil):
                doses = [self._moved(box_gy[number], how) for number in asking]
            else:
                doses = list(how.dose(np.stack([asked[number][1] for number in asking])))
            for number, dose_gy in zip(asking, doses, strict=True):
                result[number].append(dose_gy)
        return result

    def add_adjoints(self, by_rows: Sequence[Mapping[int, F64]], results: Sequence[F64]) -> None:
        """Add to every result what its numbers on the rows come to: first of all moved doses, then of own matrices."""
        moved = [number for number, of_rows in enumerate(by_rows) if self._is_moved(of_rows)]
        on_held = np.zeros((len(moved), self.nominal.n_row))
        for on_rows, number in zip(on_held, moved, strict=True):
            on_box = np.zeros(self.halo.n_box)
            for scenario, how in enumerate(self.scenarios):
                if isinstance(how, Stencil) and scenario in by_rows[number]:
                    by_row = by_rows[number][scenario]
                    _scatter(self.halo.place, self.halo.row, self._steps(how), how.factor, by_row, on_box)
            on_rows[self.halo.held_row] = on_box[self.halo.held_place]
        _add_adjoints(self.nominal, dict(zip(moved, on_held, strict=True)), results)
        for scenario, how in enumerate(self.scenarios):
            if isinstance(how, RowGroup):
                here = {n: of[scenario] for n, of in enumerate(by_rows) if scenario in of}
                _add_adjoints(how, here, results)

    def _is_moved(self, of_rows: Mapping[int, F64]) -> bool:
        return any(isinstance(how, Stencil) and n in of_rows for n, how in enumerate(self.scenarios))

    def _moved(self, box_gy: F64, stencil: Stencil) -> F64:
        """Return the moved dose of the group's rows from that of the box."""
        dose_gy = np.zeros(self.n_row)
        _gather(self.halo.place, self.halo.row, self._steps(stencil), stencil.factor, box_gy, dose_gy)
        return dose_gy

    def _steps(self, stencil: Stencil) -> I64:
        steps: I64 = stencil.offset_zyx @ self.halo.stride
        return steps


def _add_adjoints(rows: RowGroup, by_rows: Mapping[int, F64], results: Sequence[F64]) -> None:
    """Add what numbers on rows come to for the beamlets to some of the results; all share the reading of the tiles."""
    if not by_rows:
        return
    parts = np.zeros((len(by_rows), results[0].size))
    here = list(by_rows.values())
    # Stacking copies, which one alone does not need.
    rows.add_adjoint(here[0][None] if len(here) == 1 else np.stack(here), parts)
    for number, part in zip(by_rows, parts, strict=True):
        results[number][...] += part


@kernel
def _gather(place: I32, row: I32, step: I64, factor: F64, box_gy: F64, dose_gy: F64) -> None:
    """Write the moved dose of every wanted row: ``box_gy`` (n_box,), ``dose_gy`` (n_row,)."""
    for i in range(place.size):
        total = 0.0
        for tap in range(step.size):
            total += factor[tap] * box_gy[place[i] + step[tap]]
        dose_gy[row[i]] = total


@kernel
def _scatter(place: I32, row: I32, step: I64, factor: F64, by_row: F64, on_box: F64) -> None:
    """Add the transposed interpolation of ``by_row`` (n_row,) to ``on_box`` (n_box,)."""
    for i in range(place.size):
        slope = by_row[row[i]]
        if slope != 0.0:
            for tap in range(step.size):
                on_box[place[i] + step[tap]] += factor[tap] * slope
