"""What tasks cost beside their work: CPU milliseconds a task in every process, and how long the tasks of a study last.

    python -m benchmarks.task_overhead overhead [--tasks 1000]
    python -m benchmarks.task_overhead durations examples/tg119_cshape.toml [--workers 2]

``overhead`` sends the dose stage's own tasks to workers that do nothing with them: what is left is picking them apart,
sending, scheduling, and taking the answers. CPU seconds stand other work on the machine, if not too much of it.
"""

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.in_process import TasksHere, influence_by, new_run, placed
from cluster.local import SCHEDULER
from cluster.open import Cluster
from cluster.pieces import Divisible, Piece, Supply
from cluster.submit import run_tasks
from engine.spec.study import load_study
from flows import stages
from flows.judging import forward_doses
from flows.progress import Reporter
from flows.run import Computing, Run
from storage.store import Store

STUDY = Path("examples/tg119_cshape.toml")


class _TasksKept(TasksHere):
    """Does the tasks of a stage in this process, and keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: list[Any] = []

    def __call__(
        self, client: Any, function: Callable[[Any], Any], tasks: Sequence[Any], *arguments: Any, **more: Any
    ) -> list[Any]:
        self.tasks.extend(tasks)
        return super().__call__(client, function, tasks, *arguments, **more)


def pieces_of_study(study_file: Path) -> list[Any]:
    """Return the dose stage's tasks in pieces of as much as is in memory at a time."""
    study = load_study(study_file)
    kept = _TasksKept()
    with new_run() as run:
        influence_by(run, study, placed(run, study, study_file.parent)[1], kept)
    return [
        task.piece(begin, min(begin + task.n_at_once, task.n_part))
        for task in kept.tasks
        if isinstance(task, Divisible)
        for begin in range(0, task.n_part, task.n_at_once)
    ]


def _nothing(task: tuple[Any]) -> int:
    return len(task)


def cpu_s(cluster: Cluster) -> dict[str, float]:
    """Return the CPU seconds that planning process, scheduler and workers have used."""
    assert cluster.local is not None  # noqa: S101  (it was opened as one of local processes)
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    found = {"planning process": time.process_time(), "scheduler": 0.0, "workers": 0.0}
    for role, pid in cluster.local.pids().items():
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        name = "scheduler" if role == SCHEDULER else "workers"
        found[name] += (int(fields[11]) + int(fields[12])) * tick_s
    return found


def overhead_ms(tasks: Sequence[Any], n_worker: int = 2) -> dict[str, float]:
    """Return the CPU milliseconds that one task costs, by process, if nothing is done with it."""
    cluster = Cluster("local", n_worker, imports=("flows.work.matrix", __name__))
    try:
        client = cluster.client()
        # In tuples, so that they are not cut in other ways; and once before it counts.
        wrapped = [(task,) for task in tasks]
        run_tasks(client, _nothing, wrapped[:20], ends=cluster)
        before = cpu_s(cluster)
        run_tasks(client, _nothing, wrapped, ends=cluster)
        after = cpu_s(cluster)
    finally:
        cluster.close()
    return {name: (after[name] - before[name]) / len(tasks) * 1e3 for name in after}


def durations_s(study_file: Path, n_worker: int) -> dict[str, list[float]]:
    """Compute tiles, views and final doses in a new store; return the seconds of the tasks on the workers, by kind."""
    seconds: dict[str, list[float]] = defaultdict(list)
    done = Supply.done

    def keep(supply: Supply, piece: Piece, took_s: float) -> None:
        seconds[type(piece.task).__name__].append(took_s)
        done(supply, piece, took_s)

    study = load_study(study_file)
    with (
        tempfile.TemporaryDirectory(prefix="nightbeam-bench-") as folder,
        patch.object(Supply, "done", keep),
        Run(Store(Path(folder)), Reporter(quiet=True), Computing("local", n_worker)) as run,
    ):
        _, placement = placed(run, study, study_file.parent)
        scenarios = stages.vary(study)
        stages.dose(run, study, placement, scenarios)
        wanted = [(placement.report, scenario) for scenario in scenarios]
        forward_doses(run, placement, wanted, [np.ones(placement.first_beamlet[-1])], "final dose")
    return dict(seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    overhead = commands.add_parser("overhead", help="CPU milliseconds that a task costs beside its work")
    overhead.add_argument("--tasks", type=int, default=1000, help="how many (default 1000)")
    durations = commands.add_parser("durations", help="how long the tasks of a study last")
    durations.add_argument("study", type=Path, nargs="?", default=STUDY)
    durations.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if options.command == "overhead":
        pieces = pieces_of_study(STUDY)
        found = overhead_ms([pieces[n % len(pieces)] for n in range(options.tasks)])
        print("| process | CPU ms a task |\n|---|---|")
        for name, ms in {**found, "all": sum(found.values())}.items():
            print(f"| {name} | {ms:.2f} |")
        return
    print("| tasks | how many | least s | median s | most s | all s |\n|---|---|---|---|---|---|")
    for kind, seconds in durations_s(options.study, options.workers).items():
        print(
            f"| {kind} | {len(seconds)} | {min(seconds):.2f} | {np.median(seconds):.2f} | {max(seconds):.2f} | "
            f"{sum(seconds):.1f} |"
        )


if __name__ == "__main__":
    main()
