"""Where the CPU time of a study's dose and optimise stages goes: ``python -m benchmarks.profile_main_job STUDY``.

Does the workers' part of both stages in this one process, on one thread, with the same calls, and sums up user and
system CPU seconds and page faults by step. The store lies in a temporary folder unless one is given; only a new one
shows what computing costs.
"""

import os

# Read by the libraries while they are imported.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))

import argparse
import resource
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.optimise.group import GroupEvaluator, Question
from engine.optimise.problem import Problem, uniform_start
from engine.spec.study import Study, load_study
from flows import stages
from flows.cases import case_of_study
from flows.influence import (
    BLOCKS_AT_ONCE,
    compute_influence,
    digests_of_blocks,
    tiles_made_from,
    view_made_from,
)
from flows.progress import Reporter
from flows.references import Influence, Placement
from flows.run import Run
from flows.solving import prepare_optimiser
from flows.work.matrix import VIEW
from flows.work.patient import active_rows, patient_of
from storage.digest import digest_of, provenance
from storage.influence import write_tiles
from storage.store import Store

N_EVALUATION = 20


@dataclass
class Ledger:
    """User seconds, system seconds and page faults of every step."""

    steps: dict[str, list[float]] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add what happens inside to ``name``."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        yield
        after = resource.getrusage(resource.RUSAGE_SELF)
        entry = self.steps.setdefault(name, [0.0, 0.0, 0.0])
        for number, what in enumerate(("ru_utime", "ru_stime", "ru_minflt")):
            entry[number] += getattr(after, what) - getattr(before, what)

    def table(self) -> str:
        """Return the ledger as a markdown table."""
        lines = ["| step | user s | system s | page faults, 10³ |", "|---|---|---|---|"]
        for name, (user_s, system_s, faults) in self.steps.items():
            lines.append(f"| {name} | {user_s:.2f} | {system_s:.2f} | {faults / 1000:.0f} |")
        total = np.sum(list(self.steps.values()), axis=0)
        return "\n".join([*lines, f"| **sum** | {total[0]:.2f} | {total[1]:.2f} | {total[2] / 1000:.0f} |"])


def profile_dose(run: Run, study: Study, placement: Placement, ledger: Ledger) -> Influence:
    """Compute and store nominal tiles and other scenarios' views, as the tasks of flows.work.matrix do it."""
    engine, layout = placement.engine, placement.optimiser.layout
    patient, active = patient_of(placement.optimiser), active_rows(placement.optimiser)
    scenarios = stages.vary(study)
    for number, (beam, beamlets) in enumerate(zip(placement.beams, placement.beamlets, strict=True)):
        digests = digests_of_blocks(placement, number)
        for begin in range(0, beamlets.n_block, BLOCKS_AT_ONCE):
            blocks = range(begin, min(begin + BLOCKS_AT_ONCE, beamlets.n_block))
            with ledger.step("nominal: view"):
                view = engine.view(patient, layout, active, beam, (0.0, 0.0, 0.0), beamlets)
            with ledger.step("nominal: doses and quantising"):
                columns = engine.tile_columns(view, beamlets, blocks, 1.0)
            with ledger.step("nominal: compression and writing"):
                made_from = tiles_made_from(placement, number)
                for block, column in zip(blocks, columns, strict=True):
                    made_now = provenance({**made_from, "block": block}, 0.0)
                    write_tiles(run.store, digests[block], column, made_now)
        for shift_mm in dict.fromkeys(scenario.shift_mm for scenario in scenarios[1:]):
            with ledger.step("other scenarios: views"):
                view = engine.view(patient, layout, active, beam, shift_mm, beamlets)
            with ledger.step("other scenarios: compression and writing"):
                made_from = view_made_from(placement, number, shift_mm)
                arrays = engine.view_to_arrays(view)
                run.store.write_arrays(
                    VIEW, digest_of(made_from), arrays, {"provenance": provenance(made_from, 0.0)}
                )
    # Finds everything; whatever were missing would start a cluster, which this process shall not.
    run.may_compute = False
    return compute_influence(run, placement, scenarios)


@dataclass
class TimedRows:
    """All groups in this process, with a ledger for what they do."""

    groups: list[GroupEvaluator]
    n_beamlet: int
    ledger: Ledger

    def sums(self, questions: Sequence[Question]) -> list[list[np.ndarray]]:
        """Return `GroupEvaluator.sums` of every group."""
        with self.ledger.step("doses and sums of objectives"):
            return [group.sums(questions) for group in self.groups]

    def gradients(self, questions, slopes) -> list[list[np.ndarray]]:  # type: ignore[no-untyped-def]
        """Return `GroupEvaluator.gradients` of every group."""
        with self.ledger.step("slopes of objectives and adjoint"):
            return [group.gradients(questions, slopes) for group in self.groups]


def main() -> None:
    """Read the command line and print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument(
        "--store", type=Path, help="a new folder on the disk to be measured; default: temporary"
    )
    given = parser.parse_args()
    study = load_study(given.study)
    with (
        tempfile.TemporaryDirectory() as temporary,
        Run(Store(given.store or Path(temporary) / "store"), Reporter(True)) as run,
    ):
        reference = stages.read(
            run, study, case_of_study(run, study.case, given.study.parent), given.study.parent
        )
        placement = stages.place(run, study, reference)
        layout = placement.optimiser.layout
        warm_up(placement)
        dose = Ledger()
        influence = profile_dose(run, study, placement, dose)
        print(
            f"brick edge {layout.edge}, {layout.n_brick} bricks, {influence.n_entry} entries in the nominal scenario\n"
        )
        print(f"Dose stage, {len(influence.scenarios)} scenarios\n\n{dose.table()}\n")

        solve = Ledger()
        prepared = prepare_optimiser(run, study, reference, placement, influence)
        with solve.step("loading tiles, once"):
            groups = prepared.groups(range(len(prepared.groups.bricks)))
        rows = TimedRows(groups, placement.first_beamlet[-1], solve)
        probability = np.array([scenario.probability for scenario in influence.scenarios])
        problem = Problem(
            rows, prepared.terms, study.optimisation.robust, probability, study.optimisation.part
        )
        weight = uniform_start(problem.rows, prepared.target_region, study.prescription.dose_gy)
        problem.evaluate(weight, 1.0)
        loading = solve.steps.pop("loading tiles, once")
        solve.steps.clear()
        with solve.step("all"):
            for _ in range(N_EVALUATION):
                problem.evaluate(weight, 1.0)
        whole = solve.steps.pop("all")
        held = np.sum(list(solve.steps.values()), axis=0)
        solve.steps["merging and the rest"] = list(np.array(whole) - held)
        products = Ledger()
        for _ in range(N_EVALUATION):
            profile_products(groups, placement.first_beamlet[-1], products)
        n_bytes = sum(group.n_bytes for group in groups)
        print(f"Loading tiles: {loading[0]:.2f} s user, {loading[1]:.2f} s system, {n_bytes / 1e6:.0f} MB\n")
        print(f"{N_EVALUATION} evaluations of the optimiser\n\n{solve.table()}\n")
        print(f"Of which the products alone, {N_EVALUATION} times\n\n{products.table()}")


def warm_up(placement: Placement) -> None:
    """Compile, or load what was compiled, before anything is timed."""
    patient, active = patient_of(placement.optimiser), active_rows(placement.optimiser)
    beam, beamlets, layout = placement.beams[0], placement.beamlets[0], placement.optimiser.layout
    view = placement.engine.view(patient, layout, active, beam, (0.0, 0.0, 0.0), beamlets)
    placement.engine.tile_columns(view, beamlets, [0], 1.0)


def profile_products(groups: list[GroupEvaluator], n_beamlet: int, ledger: Ledger) -> None:
    """Form both products once in every group and scenario."""
    weight, result = np.ones(n_beamlet), np.zeros(n_beamlet)
    for group in groups:
        for rows in group.scenarios:
            with ledger.step("D w"):
                dose_gy = rows.dose(weight)
            with ledger.step("Dᵀ g"):
                rows.add_adjoint(dose_gy, result)


if __name__ == "__main__":
    main()
