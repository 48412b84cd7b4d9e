"""What reading less of the matrix is worth: ``python -m benchmarks.less_to_read [VARIANT ...] [--grid-mm 5]``.

A study's nominal scenario, solved in this process by L-BFGS-B: on the full matrix alone, and first on a reduced one
(fewer rows, fewer bits, fewer entries) and from there on the full one, until the usual stop. Counted are the bytes of
tiles that the products read, in reads of the full matrix: an evaluation is two at most. What cannot count is left
unread (`engine.optimise.quiet`) in all of them, but for "everything". From the repository's root.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.in_process import NO_SCENARIOS, TasksHere, changed, influence_by, new_run, placed
from benchmarks.measuring import timed
from engine.geometry.bricks import MINI_SIZE, BrickLayout
from engine.influence.rows import RowGroup
from engine.model.arrays import F64, I64, Bool
from engine.optimise.group import GroupEvaluator, Question, RegionRows, Term
from engine.optimise.problem import Evaluation, LocalRows, Problem, uniform_start
from engine.optimise.quiet import QuietRows, silent_to_gy
from engine.optimise.solvers import SolverOptions, solve
from engine.spec.study import load_study
from flows.solving import prepare_optimiser

STUDY = Path("examples/tg119_cshape.toml")
GAPS = (1e-2, 1e-3)
N_LONG = 1500
N_FIRST = 300
HOT = 0.9
"""Share of its level that a row has at the start of the first phase if it is kept in it."""
_INDEX_BYTES, _SEGMENT_BYTES = 2.0, 16.0


class CountedGroup(GroupEvaluator):
    """A group that counts the bytes of tiles that its products read: of values, what is wanted; of indices, all.

    Parameters
    ----------
    rows, regions
        The group's rows in one scenario, and regions.
    value_bytes
        Bytes that one entry takes, or would take.
    reads_everything
        Whether it reads what cannot count as well.
    """

    def __init__(
        self,
        rows: RowGroup,
        regions: Sequence[RegionRows],
        value_bytes: float = 2.0,
        reads_everything: bool = False,
    ) -> None:
        super().__init__([rows], regions)
        self._stored = np.bincount(mini_of(rows), minlength=rows.n_mini_row)
        self._values, self._everything = value_bytes * MINI_SIZE, reads_everything
        self._indices = _INDEX_BYTES * rows.mini.size + _SEGMENT_BYTES * rows.beamlet.size
        self.n_read = 0.0

    def all_read(self) -> float:
        """Return the bytes of a product that leaves nothing out."""
        return self._indices + self._values * float(self._stored.sum())

    def _wanted(self, question: Question, known: Sequence[QuietRows] | None) -> list[Bool] | None:
        wanted = super()._wanted(question, None if self._everything else known)
        self._count(np.ones(self._stored.size, dtype=np.bool_) if wanted is None else wanted[0])
        return wanted

    def _adjoint(self, questions: Sequence[Question], by_rows: Sequence[dict[int, F64]]) -> list[F64]:
        nothing = np.zeros(self.scenarios.n_row)
        self._count((by_rows[0].get(0, nothing).reshape(-1, MINI_SIZE) != 0.0).any(axis=1))
        return super()._adjoint(questions, by_rows)

    def _count(self, wanted: Bool) -> None:
        read = self._stored if self._everything else self._stored[wanted]
        self.n_read += self._indices + self._values * float(read.sum())


def mini_of(rows: RowGroup) -> I64:
    """Return the number within the group of the mini-block of every stored one, shape (n_mini,)."""
    brick_of_segment = np.repeat(np.arange(rows.n_brick), np.diff(rows.brick_begin))
    brick = np.repeat(brick_of_segment, np.diff(rows.segment_begin))
    return brick * (rows.brick_size // MINI_SIZE) + rows.mini


def kept_minis(rows: RowGroup, keep: Bool, factor: F64 | None = None) -> RowGroup:
    """Return the rows with some of the stored mini-blocks alone, perhaps times a factor each."""
    n_kept = np.concatenate([[0], np.cumsum(keep)])
    begin = n_kept[rows.segment_begin]
    filled = np.diff(begin) > 0
    n_filled = np.concatenate([[0], np.cumsum(filled)])
    value = rows.value[keep]
    if factor is not None:
        value = np.minimum(np.rint(value * factor[keep, None]), 65535).astype(np.uint16)
    return replace(
        rows,
        brick_begin=n_filled[rows.brick_begin],
        beamlet=rows.beamlet[filled],
        scale=rows.scale[filled],
        segment_begin=np.concatenate([begin[:-1][filled], begin[-1:]]),
        mini=rows.mini[keep],
        value=value,
    )


def sampled(
    groups: Sequence[CountedGroup], kept: Sequence[Bool], chosen: Sequence[Bool]
) -> list[CountedGroup]:
    """Keep some mini-blocks, and some chosen ones of the others for all of them, brick by brick.

    What a region has in those left out goes to those of the others that are kept in the brick, if there are any.
    """
    result = []
    for group, fixed, some in zip(groups, kept, chosen, strict=True):
        (rows,) = group.scenarios.matrices
        fixed_rows, some_rows = (np.repeat(keep, MINI_SIZE) for keep in (fixed, some & ~fixed))
        regions = []
        for region in group.regions:
            brick, share = region.row // rows.brick_size, region.share.copy()
            free, here = ~fixed_rows[region.row], some_rows[region.row]
            before = np.bincount(brick[free], share[free], minlength=rows.n_brick)
            after = np.bincount(brick[here], share[here], minlength=rows.n_brick)
            share[here] *= (before / np.where(after > 0.0, after, 1.0))[brick[here]]
            left = ~free | here
            reference_gy = None if region.reference_gy is None else region.reference_gy[left]
            regions.append(RegionRows(region.row[left], share[left], reference_gy))
        result.append(CountedGroup(kept_minis(rows, (fixed | some)[mini_of(rows)]), regions))
    return result


def lattice(groups: Sequence[CountedGroup], layout: BrickLayout, one_in: int) -> list[Bool]:
    """Return one in so many mini-blocks of every group, evenly spread; none where that is 0."""
    half = layout.edge // 2
    _, by, bx = layout.bricks_zyx
    chosen = []
    for group in groups:
        (rows,) = group.scenarios.matrices
        brick, inside = np.divmod(np.arange(rows.n_row // MINI_SIZE), half**3)
        brick += rows.first_brick
        z = brick // (by * bx) * half + inside // (half * half)
        y = brick // bx % by * half + inside // half % half
        x = brick % bx * half + inside % half
        chosen.append((x + 3 * y + 5 * z) % one_in == 0 if one_in else np.zeros(x.size, np.bool_))
    return chosen


def fewer_bits(groups: Sequence[CountedGroup], square: bool) -> list[CountedGroup]:
    """Store 8 bits an entry: in equal steps of the largest of a segment, or as squares of equal steps."""
    result = []
    for group in groups:
        (rows,) = group.scenarios.matrices
        part = rows.value / 65535.0
        coded = np.rint(255.0 * (np.sqrt(part) if square else part)) / 255.0
        value = np.rint(65535.0 * (coded**2 if square else coded)).astype(np.uint16)
        result.append(CountedGroup(replace(rows, value=value), group.regions, 1.0))
    return result


def rectified(groups: Sequence[CountedGroup], below: float, n_beamlet: int) -> list[CountedGroup]:
    """Keep mini-blocks with an entry of at least a share of its beamlet's largest, and others by chance, raised.

    One whose largest entry is p times that is kept with the probability p, times 1/p: on average nothing changes.
    """
    largest = np.zeros(n_beamlet)
    for group in groups:
        (rows,) = group.scenarios.matrices
        np.maximum.at(largest, rows.beamlet, rows.scale * 65535.0)
    random, result = np.random.default_rng(0), []
    for group in groups:
        (rows,) = group.scenarios.matrices
        segment = np.repeat(np.arange(rows.beamlet.size), np.diff(rows.segment_begin))
        most = rows.value.max(axis=1) * rows.scale[segment].astype(np.float64)
        chance = np.minimum(most / (below * largest[rows.beamlet[segment]]), 1.0)
        keep = random.random(chance.size) < chance
        result.append(CountedGroup(kept_minis(rows, keep, 1.0 / np.maximum(chance, 1e-9)), group.regions))
    return result


@dataclass(frozen=True)
class Found:
    """A solve.

    Parameters
    ----------
    part
        Bytes of the reduced matrix, as a share of the full one's.
    n_first, n_full
        Evaluations of both phases.
    reduced, on_full
        Objective at the end of the first phase, on the reduced matrix and on the full one.
    n_read, lowest
        For every evaluation on the full matrix the reads until then, first phase included, and the lowest objective.
    cpu_s
        CPU seconds of both phases.
    """

    part: float
    n_first: int
    n_full: int
    reduced: float
    on_full: float
    n_read: F64
    lowest: F64
    cpu_s: float

    def reads_to(self, objective: float) -> float:
        """Return the reads of the full matrix that it took to get to an objective; nan if it did not."""
        there = self.n_read[self.lowest <= objective]
        return float(there[0]) if there.size else np.nan


def solved(
    full: Sequence[CountedGroup],
    terms: Sequence[Term],
    start: F64,
    options: SolverOptions,
    n_beamlet: int,
    first: Sequence[CountedGroup] = (),
    tolerance: float = 0.0,
) -> Found:
    """Solve on the reduced matrix, if there is one, and from there on the full one."""
    full_bytes = sum(CountedGroup(*group.scenarios.matrices, group.regions).all_read() for group in full)

    def problem_of(groups: Sequence[CountedGroup]) -> Problem:
        for group in groups:
            group.n_read = 0.0
        return Problem(LocalRows(groups, n_beamlet), terms, "nominal", np.ones(1))

    part, n_first, reduced, first_s, read = 0.0, 0, np.nan, 0.0, 0.0
    if first:
        part = sum(group.all_read() for group in first) / full_bytes
        problem = problem_of(first)
        first_options = replace(options, max_evaluations=N_FIRST, tolerance=tolerance)
        found, first_s = timed(
            lambda: solve(problem.evaluate, start, 1, lambda stage, at: 0.0, first_options)
        )
        n_first, reduced, start = found.history.size, found.value, found.weight
        read = sum(group.n_read for group in first) / full_bytes
    problem = problem_of(full)
    points: list[tuple[float, float]] = []

    def evaluate(weight: F64, temperature: float) -> Evaluation:
        evaluation = problem.evaluate(weight, temperature)
        points.append((read + sum(group.n_read for group in full) / full_bytes, evaluation.exact))
        return evaluation

    _, full_s = timed(lambda: solve(evaluate, start, 1, lambda stage, at: 0.0, options))
    n_read, values = np.array(points).T
    return Found(
        part, n_first, len(points), reduced, float(values[0]), n_read, np.minimum.accumulate(values),
        first_s + full_s,
    )  # fmt: skip


def line(name: str, one: Found, best: float) -> str:
    """Return a line of the table."""
    reads = " | ".join(f"{one.reads_to(best * (1.0 + gap)):.0f}" for gap in GAPS)
    first = "| | | | " if not one.n_first else (
        f"| {one.part:.2f} | {one.n_first} | {one.reduced:.5g} → {one.on_full:.5g} "
    )  # fmt: skip
    gap = 100.0 * (one.lowest[-1] / best - 1.0)
    return (
        f"| {name} {first}| {reads} | {one.n_read[-1]:.0f} | {one.n_full} | {gap:.2g} % | {one.cpu_s:.0f} |"
    )


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "variants", nargs="*", help="those whose names begin like this; all, if none is named"
    )
    parser.add_argument("--grid-mm", type=float, default=5.0, help="dose grid; default 5")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="of the first phase; default 1e-4")
    parser.add_argument(
        "--best", type=float, help=f"lowest objective known; default: {N_LONG} evaluations' lowest"
    )
    parser.add_argument("--evaluations", type=int, default=500, help="limit of the second phase; default 500")
    given = parser.parse_args()
    study = changed(
        load_study(STUDY),
        scenarios=NO_SCENARIOS,
        optimisation={"robust": "nominal"},
        dose={"grid_mm": given.grid_mm},
    )
    with new_run() as run:
        reference, placement = placed(run, study, STUDY.parent)
        influence = influence_by(run, study, placement, TasksHere())
        prepared = prepare_optimiser(run, study, reference, placement, influence)
        loaded = prepared.groups(range(len(prepared.groups.bricks)))
    terms, n_beamlet, layout = prepared.terms, placement.first_beamlet[-1], placement.optimiser.layout
    groups = [CountedGroup(*group.scenarios.matrices, group.regions) for group in loaded]
    start = uniform_start(LocalRows(loaded, n_beamlet), prepared.target_region, study.prescription.dose_gy)
    # Kept in every sample: regions that are small, which the target and organs at risk are.
    n_row = np.sum([[region.row.size for region in group.regions] for group in loaded], axis=0)
    small = [number for number, n in enumerate(n_row) if n < 0.2 * n_row.max()]
    kept, hot, nothing = [], [], []
    for group in groups:
        (rows,) = group.scenarios.matrices
        mine = np.zeros(rows.n_row, np.bool_)
        for number in small:
            mine[group.regions[number].row] = True
        level_gy = silent_to_gy(terms, group.regions, rows.n_row)
        kept.append(mine.reshape(-1, MINI_SIZE).any(axis=1))
        hot.append(kept[-1] | (rows.dose(start) > HOT * level_gy).reshape(-1, MINI_SIZE).any(axis=1))
        nothing.append(np.zeros(rows.n_mini_row, np.bool_))

    def one_in(n: int) -> Callable[[], list[CountedGroup]]:
        return lambda: sampled(groups, kept, lattice(groups, layout, n))

    def by_chance(below: float) -> Callable[[], list[CountedGroup]]:
        return lambda: rectified(groups, below, n_beamlet)

    makers: dict[str, Callable[[], list[CountedGroup]]] = {
        "unread": list,
        "everything": list,
        **{f"rows outside 1 in {n}": one_in(n) for n in (2, 4, 8, 16)},
        f"rows at {HOT:g} of their level": lambda: sampled(groups, hot, nothing),
        "bits 8": lambda: fewer_bits(groups, False),
        "bits 8, squares": lambda: fewer_bits(groups, True),
        **{f"chance below {below:g}": by_chance(below) for below in (0.01, 0.05, 0.2)},
    }
    options, best = SolverOptions(given.evaluations, 1e-7), given.best
    if best is None:
        best = float(solved(groups, terms, start, SolverOptions(N_LONG, 1e-12), n_beamlet).lowest[-1])
    print(
        f"{n_beamlet} beamlets, {influence.n_entry / 1e6:.1f} million entries, {given.grid_mm:g} mm, "
        f"lowest objective {best:.8g}\n"
    )
    print(
        "| variant | part | first | reduced → full | reads to 1 % | to 0.1 % | at the end | evaluations | gap | CPU s |"
    )
    print("|---" * 10 + "|")
    for name, make in makers.items():
        if not given.variants or any(name.startswith(begin) for begin in given.variants):
            whole = name == "everything"
            full = [CountedGroup(*g.scenarios.matrices, g.regions, reads_everything=whole) for g in loaded]
            found = solved(full, terms, start, options, n_beamlet, make(), given.tolerance)
            print(line(name, found, best), flush=True)


if __name__ == "__main__":
    main()
