"""What scenarios cost, what a second worker brings, and how long a start takes.

``python -m benchmarks.scenarios_and_workers scenarios|workers|start ...``, from the repository's root; no part is all
of them. The study is the main job's example. ``scenarios`` takes CPU seconds of one process and stands other work on
the machine; ``workers`` and ``start`` take times by the clock and need a machine that does nothing else.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.in_process import (
    NO_SCENARIOS,
    RunHere,
    TasksHere,
    changed,
    influence_by,
    new_run,
    placed,
    warm_up,
)
from benchmarks.measuring import machine, timed
from cluster.open import Cluster
from cluster.resident import ResidentRows
from cluster.submit import run_tasks
from engine.influence.rows import rows_bytes
from engine.optimise.problem import LocalRows, Problem, RowHolders, uniform_start
from engine.spec.study import Study, load_study
from flows.progress import Reporter
from flows.solving import OptimiserInput, prepare_optimiser
from storage.store import Store

ROOT = Path(__file__).parents[1]
PARTS = ("scenarios", "workers", "start")
N_EVALUATION = 20
SHIFT_MM = 3.0
DENSITY_FACTORS = tuple(round(1.0 + 0.005 * step, 3) for step in range(-7, 8) if step)
VARIANTS: dict[str, dict[str, Any]] = {
    "nominal": NO_SCENARIOS,
    "15 setups": {**NO_SCENARIOS, "setup": "corners14", "shift_mm": SHIFT_MM},
    "15 densities": {**NO_SCENARIOS, "density_factors": DENSITY_FACTORS},
}
_START_LIMIT_S = 120.0
_END_S = 30.0

Figures = dict[str, Any]


def variant_of(study: Study, scenarios: dict[str, Any]) -> Study:
    """Return the study with other scenarios, judged by their expected value, or with the nominal one alone."""
    alone = all(value is None for value in scenarios.values())
    return changed(study, scenarios=scenarios, optimisation={"robust": "nominal" if alone else "expected"})


def problem_on(rows: RowHolders, study: Study, prepared: OptimiserInput) -> Problem:
    """Return the study's problem over rows that somebody holds."""
    probability = np.array([scenario.probability for scenario in study.scenarios.scenarios()])
    return Problem(rows, prepared.terms, study.optimisation.robust, probability, study.optimisation.part)


def weights_around(start: np.ndarray) -> list[np.ndarray]:
    """Return different weights for every evaluation, the same in every process."""
    random = np.random.default_rng(0)
    return [start * (0.5 + random.random(start.size)) for _ in range(N_EVALUATION)]


# -- scenarios ------------------------------------------------------------------------------------------------------


def measure_variant(study: Study, folder: Path) -> Figures:
    """Return the CPU seconds of the dose stage, of getting the rows, and of evaluations, in this process."""
    with new_run() as run:
        reference, placement = placed(run, study, folder)
        tasks = TasksHere()
        influence = influence_by(run, study, placement, tasks)
        prepared = prepare_optimiser(run, study, reference, placement, influence)
        groups, rows_s = timed(lambda: prepared.groups(range(len(prepared.groups.bricks))))
        n_stored = sum(
            path.stat().st_size
            for kind in ("influence", "view")
            for path in (run.store.folder / kind).rglob("*.zip")
        )
        n_entry = influence.n_entry
    problem = problem_on(LocalRows(groups, placement.first_beamlet[-1]), study, prepared)
    weights = weights_around(uniform_start(problem.rows, prepared.target_region, study.prescription.dose_gy))
    problem.evaluate(weights[0], 0.0)
    evaluations_s = [timed(lambda w=weight: problem.evaluate(w, 0.0))[1] for weight in weights]
    return {
        "tiles_s": tasks.cpu_s.get("BlockTask", 0.0),
        "views_s": tasks.cpu_s.get("ViewTask", 0.0),
        "dose_s": sum(tasks.cpu_s.values()),
        "rows_s": rows_s,
        "dose_and_rows_s": sum(tasks.cpu_s.values()) + rows_s,
        "evaluation_s": float(np.median(evaluations_s)),
        "n_scenario": len(influence.scenarios),
        "n_entry": n_entry,
        "stored_bytes": n_stored,
        "resident_bytes": sum(group.n_bytes for group in groups),
    }


def measure_scenarios(study: Study, folder: Path, n_repeat: int) -> Figures:
    """Return the least figures of every variant, which are measured in turn."""
    warm_up(study, folder)
    found: dict[str, list[Figures]] = {name: [] for name in VARIANTS}
    for _ in range(n_repeat):
        for name, scenarios in VARIANTS.items():
            found[name].append(measure_variant(variant_of(study, scenarios), folder))
    return {name: {key: min(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()}


def scenario_table(figures: Figures) -> list[str]:
    """Return what scenarios cost, over the nominal one alone."""
    nominal = figures["nominal"]
    others = [name for name in figures if name != "nominal"]
    lines = [
        f"{nominal['n_entry'] / 1e6:.0f} million non-zeros in the nominal scenario; 15 scenarios each: the nominal one "
        "and 14 others.",
        "",
        "| CPU s | nominal | " + " | ".join(f"{name} | ÷ nominal" for name in others) + " |",
        "|---|---|" + "---|---|" * len(others),
    ]
    rows = (
        ("of dose: nominal tiles", "tiles_s", False),
        ("of dose: views of other setups", "views_s", False),
        ("**dose stage**", "dose_s", True),
        ("rows: loading tiles, filling in others", "rows_s", True),
        ("dose stage and rows together", "dose_and_rows_s", True),
        ("**one evaluation**", "evaluation_s", True),
    )
    for name, key, with_ratio in rows:
        cells = "".join(
            f" {figures[other][key]:.3f} | {f'**{figures[other][key] / nominal[key]:.2f}**' if with_ratio else ''} |"
            for other in others
        )
        lines.append(f"| {name} | {nominal[key]:.3f} |{cells}")
    for name, key in (("stored, 10⁶ bytes", "stored_bytes"), ("resident, 10⁶ bytes", "resident_bytes")):
        cells = "".join(
            f" {figures[other][key] / 1e6:.0f} | {figures[other][key] / nominal[key]:.2f} |"
            for other in others
        )
        lines.append(f"| {name} | {nominal[key] / 1e6:.0f} |{cells}")
    return lines


# -- workers --------------------------------------------------------------------------------------------------------


class _CountingClient:
    """Passes everything on, and counts the tasks that workers are given."""

    def __init__(self, client: Any) -> None:
        self._client, self.n_task = client, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        """Count one more."""
        self.n_task += 1
        return self._client.submit(*args, **kwargs)


class _OnCluster:
    """Stands in for `cluster.submit.run_tasks`: has a cluster do the tasks, and takes the time by the clock."""

    def __init__(self, client: Any) -> None:
        self._client, self.wall_s, self.n_task = client, 0.0, 0

    def __call__(
        self,
        client: Any,
        function: Callable[[Any], Any],
        tasks: Sequence[Any],
        on_done: Callable[[int], None],
        ends: Any = None,
    ) -> list[Any]:
        del client, ends
        counting = _CountingClient(self._client)
        begin_s = time.perf_counter()
        results = run_tasks(counting, function, tasks, on_done)
        self.wall_s += time.perf_counter() - begin_s
        self.n_task += counting.n_task
        return results


def dose_on(client: Any, study: Study, folder: Path, origin: Path) -> Figures:
    """Return the wall seconds of the dose stage's tasks in a new store, which is a copy of one with the case in it."""
    with tempfile.TemporaryDirectory(prefix="nightbeam-bench-") as temporary:
        store = shutil.copytree(origin, Path(temporary) / "store")
        with RunHere(Store(store), Reporter(quiet=True)) as run:
            on_cluster = _OnCluster(client)
            influence = influence_by(run, study, placed(run, study, folder)[1], on_cluster)
            return {"wall_s": on_cluster.wall_s, "n_task": on_cluster.n_task, "cpu_s": influence.cpu_s}


def evaluations_on(problem: Problem, weights: Sequence[np.ndarray]) -> float:
    """Return the wall seconds of an evaluation at all weights."""
    begin_s = time.perf_counter()
    for weight in weights:
        problem.evaluate(weight, 0.0)
    return time.perf_counter() - begin_s


def measure_workers(study: Study, dose_study: Study, folder: Path, n_repeat: int) -> Figures:
    """Return wall seconds of both stages on one and on two workers of one thread, in turn.

    Each cluster does everything once before it counts; its start, and loading the tiles for the optimiser, do not.
    """
    clusters = {n: Cluster("local", n, 1, ("flows.work",)) for n in (1, 2)}
    dose: dict[int, list[Figures]] = {n: [] for n in clusters}
    optimise: dict[int, list[float]] = {n: [] for n in clusters}
    try:
        clients = {n: cluster.client() for n, cluster in clusters.items()}
        with new_run() as origin:
            placed(origin, dose_study, folder)
            for repeat in range(n_repeat + 1):
                for n, client in clients.items():
                    found = dose_on(client, dose_study, folder, origin.store.folder)
                    if repeat:
                        dose[n].append(found)
        with new_run() as run:
            reference, placement = placed(run, study, folder)
            influence = influence_by(run, study, placement, _OnCluster(clients[2]))
            prepared = prepare_optimiser(run, study, reference, placement, influence)
            n_bytes = np.array([rows_bytes(n_mini, 0) for n_mini in prepared.work])
            holders = {
                n: ResidentRows(client, prepared.groups, n_bytes, placement.first_beamlet[-1])
                for n, client in clients.items()
            }
            start = uniform_start(holders[2], prepared.target_region, study.prescription.dose_gy)
            weights = weights_around(start)
            for repeat in range(n_repeat + 1):
                for n, rows in holders.items():
                    seconds = evaluations_on(problem_on(rows, study, prepared), weights)
                    if repeat:
                        optimise[n].append(seconds)
            resident_bytes = holders[2].resident_bytes()
            for rows in holders.values():
                rows.close()
    finally:
        for cluster in clusters.values():
            cluster.close()
    return {
        "dose_s": {n: [found["wall_s"] for found in runs] for n, runs in dose.items()},
        "dose_cpu_s": {n: [found["cpu_s"] for found in runs] for n, runs in dose.items()},
        "dose_tasks": dose[1][0]["n_task"],
        "dose_scenarios": len(dose_study.scenarios.scenarios()),
        "dose_grid_mm": dose_study.dose.grid_mm,
        "optimise_s": optimise,
        "optimise_scenarios": len(study.scenarios.scenarios()),
        "optimise_grid_mm": study.dose.grid_mm,
        "resident_bytes": resident_bytes,
    }


def worker_table(figures: Figures) -> list[str]:
    """Return times on one and two workers, and the efficiency T1 / (2 T2)."""
    lines = [
        "| wall s: median (least–largest) | one worker | two workers | efficiency |",
        "|---|---|---|---|",
    ]

    def row(name: str, of: dict[int, list[float]]) -> None:
        one, two = (float(np.median(of[n])) for n in (1, 2))
        cells = " | ".join(f"{np.median(of[n]):.2f} ({min(of[n]):.2f}–{max(of[n]):.2f})" for n in (1, 2))
        lines.append(f"| {name} | {cells} | **{one / (2.0 * two):.2f}** |")

    row(
        f"dose stage, {figures['dose_scenarios']} scenarios, {figures['dose_grid_mm']:g} mm, "
        f"{figures['dose_tasks']} tasks",
        figures["dose_s"],
    )
    row(
        f"{N_EVALUATION} evaluations, {figures['optimise_scenarios']} scenarios, {figures['optimise_grid_mm']:g} mm, "
        f"{figures['resident_bytes'] / 1e6:.0f} MB resident",
        figures["optimise_s"],
    )
    cells = " | ".join(f"{np.median(figures['dose_cpu_s'][n]):.2f}" for n in (1, 2))
    return [*lines, f"| for comparison: CPU s of the dose stage's tasks | {cells} | |"]


# -- start ----------------------------------------------------------------------------------------------------------


def first_published_s(store: Path) -> float | None:
    """Return when the first result of a dose task was published, or None."""
    written = [
        path.stat().st_mtime for kind in ("influence", "view") for path in (store / kind).rglob("*.zip")
    ]
    return min(written, default=None)


def cluster_found_s(log: Path) -> float | None:
    """Return when, says the log, the run had its workers: tasks are sent next."""
    for line in log.read_text().splitlines() if log.exists() else []:
        if " INFO cluster: " in line:
            return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()
    return None


def start_of_plan(study: Path) -> tuple[float, float]:
    """Return the seconds until a new plan sends its first dose task, and until the first result of one is there."""
    with tempfile.TemporaryDirectory(prefix="nightbeam-bench-") as temporary:
        folder = Path(temporary)
        command = [sys.executable, "-m", "flows.cli", "plan", str(study), "--quiet"]
        command += ["--store", str(folder / "store"), "--output", str(folder / "out")]
        begin_s = time.time()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while (published_s := first_published_s(folder / "store")) is None:
                if process.poll() is not None or time.time() - begin_s > _START_LIMIT_S:
                    sys.exit(f"no result of a dose task appeared (exit status {process.poll()})")
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        sent_s = cluster_found_s(folder / "out" / "nightbeam.log")
        if sent_s is None:
            sys.exit("the log does not say when the cluster was there")
        return sent_s - begin_s, published_s - begin_s


def start_of_help() -> float:
    """Return the wall seconds of ``nightbeam --help``, as installed."""
    command = str(Path(sys.executable).with_name("nightbeam"))
    begin_s = time.perf_counter()
    subprocess.run([command, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin_s


def measure_start(study: Path, n_repeat: int) -> Figures:
    """Return the seconds of every repeat, after one that does not count (it may have to compile)."""
    plans = [start_of_plan(study) for _ in range(n_repeat + 1)]
    helps = [start_of_help() for _ in range(n_repeat + 1)]
    return {
        "sent_s": [sent for sent, _ in plans[1:]],
        "published_s": [published for _, published in plans[1:]],
        "help_s": helps[1:],
        "before": {"published_s": plans[0][1], "help_s": helps[0]},
    }


def start_table(figures: Figures) -> list[str]:
    """Return the times of starts."""
    lines = ["| wall s | median | least–largest |", "|---|---|---|"]
    for name, key in (
        ("`nightbeam plan`, new store: until the first dose task is sent", "sent_s"),
        ("`nightbeam plan`, new store: until the first dose task's result is in the store", "published_s"),
        ("`nightbeam --help`", "help_s"),
    ):
        seconds = figures[key]
        lines.append(f"| {name} | **{np.median(seconds):.2f}** | {min(seconds):.2f}–{max(seconds):.2f} |")
    return lines


def main() -> None:
    """Read the command line, measure the chosen parts, and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], metavar="|".join(PARTS), help="default: all"
    )
    parser.add_argument("--study", type=Path, default=ROOT / "examples" / "tg119_cshape.toml")
    parser.add_argument("--grid", type=float, metavar="MM", help="voxel edge; default: the study's")
    parser.add_argument(
        "--dose-grid", type=float, default=3.0, metavar="MM", help="of the dose stage on workers; default 3"
    )
    parser.add_argument("--repeats", type=int, help="default: 3 of scenarios, 5 of the others")
    parser.add_argument("--json", type=Path, help="file for all figures")
    given = parser.parse_args()
    study_file, folder = given.study.resolve(), given.study.resolve().parent
    study = load_study(study_file)
    if given.grid is not None:
        study = changed(study, dose={"grid_mm": given.grid})
    many = variant_of(study, VARIANTS["15 setups"])
    result: Figures = {"machine": machine()}
    print(f"{result['machine']}\n")
    for part in given.parts or PARTS:
        if part == "scenarios":
            result[part] = measure_scenarios(study, folder, given.repeats or 3)
            lines = scenario_table(result[part])
        elif part == "workers":
            dose_study = changed(many, dose={"grid_mm": given.dose_grid})
            result[part] = measure_workers(study, dose_study, folder, given.repeats or 5)
            lines = worker_table(result[part])
        else:
            result[part] = measure_start(study_file, given.repeats or 5)
            lines = start_table(result[part])
        print("\n".join(lines), end="\n\n", flush=True)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
