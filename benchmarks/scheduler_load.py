"""How many workers the scheduler and the planning process can serve: real ones, with stub workers.

``python -m benchmarks.scheduler_load tasks|rounds|study ...``, from the repository's root; no part is all of them. The
scheduler is started as every local cluster starts it; this process is the planning process and uses the real
`cluster.submit.run_tasks` and `cluster.resident.ResidentRows`. The workers are `benchmarks.stub_workers`. Figures are
CPU seconds of scheduler and planning process, each by itself, and what follows from them; a thousand stub workers need
processors, too, so times by the clock are worse here than on a cluster (the share of time for which the scheduler
waited for a processor is shown).

``tasks`` sends tasks of one length, some for each worker. ``rounds`` does evaluations over actors. ``study`` sends the
tasks of a whole study, numbers and lengths as given (`benchmarks.study_size` finds them).
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from distributed import Client

from benchmarks.measuring import machine
from benchmarks.processes import Traffic, cpu_s, waited_s
from benchmarks.stub_workers import StubLoader, StubTask, answer
from cluster.local import SCHEDULER, LocalProcesses
from cluster.resident import ResidentRows
from cluster.security import path_of
from cluster.submit import run_tasks
from cluster.workers import known_workers
from engine.optimise.functions import SquaredOverdose
from engine.optimise.group import Term
from engine.optimise.problem import Problem

PARTS = ("tasks", "rounds", "study")
PAYLOAD_BYTES = 52_000
"""Pickled size of a task of the head-and-neck study."""
_WORKERS_A_PROCESS = 125
_JOIN_S = 600.0
Figures = dict[str, Any]


class Load:
    """A scheduler, stub workers and this process as their client.

    Parameters
    ----------
    n_worker
        Stub workers.
    direct
        Whether this process talks to actors itself instead of through the scheduler.
    """

    def __init__(self, n_worker: int, direct: bool = False) -> None:
        self.n_worker = n_worker
        self._traffic = Traffic()
        self._local = LocalProcesses(0)
        address = self._local.address()
        self._scheduler = self._local.pids()[SCHEDULER]
        self._stubs = [
            _start_stubs(first, min(_WORKERS_A_PROCESS, n_worker - first), address, self._local.certificate)
            for first in range(0, n_worker, _WORKERS_A_PROCESS)
        ]
        for stubs in self._stubs:
            if stubs.stdout.readline().strip() != "joined":  # type: ignore[union-attr]
                sys.exit("stub workers did not start")
        self.client = Client(  # type: ignore[no-untyped-call]
            address, timeout=60, security=self._local.security(), direct_to_workers=direct
        )
        known_workers(self.client, n_worker, _JOIN_S)

    def close(self) -> None:
        """End all processes."""
        self.client.close()  # type: ignore[no-untyped-call]
        for stubs in self._stubs:
            stubs.stdin.close()  # type: ignore[union-attr]
        for stubs in self._stubs:
            try:
                stubs.wait(60)
            except subprocess.TimeoutExpired:
                stubs.kill()
                stubs.wait()
            stubs.stdout.close()  # type: ignore[union-attr]
        self._local.close()

    @contextmanager
    def measured(self, figures: Figures) -> Iterator[None]:
        """Add to ``figures`` what happens inside: CPU seconds, messages and bytes."""
        before = self._look()
        yield
        for name, value in self._look().items():
            figures[name] = value - before[name]
        # What the scheduler sends, somebody reads, and the other way round.
        figures["scheduler_messages"] = figures.pop("n_written") + figures.pop("n_read")
        figures["scheduler_bytes"] = figures.pop("written_bytes") + figures.pop("read_bytes")

    def _look(self) -> dict[str, float]:
        traffic = np.array(self._traffic.now())
        for stubs in self._stubs:
            stubs.stdin.write("\n")  # type: ignore[union-attr]
            stubs.stdin.flush()  # type: ignore[union-attr]
        for stubs in self._stubs:
            traffic += json.loads(stubs.stdout.readline())  # type: ignore[union-attr]
        n_written, written_bytes, n_read, read_bytes = (int(value) for value in traffic)
        return {
            "wall_s": time.monotonic(),
            "scheduler_s": cpu_s(self._scheduler),
            "scheduler_waited_s": waited_s(self._scheduler),
            "planning_s": time.process_time(),
            "stubs_s": sum(cpu_s(stubs.pid) for stubs in self._stubs),
            "n_written": n_written,
            "written_bytes": written_bytes,
            "n_read": n_read,
            "read_bytes": read_bytes,
        }


def _start_stubs(first: int, number: int, address: str, certificate: int) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.stub_workers", str(path_of(certificate)), str(first), str(number)],
        pass_fds=[certificate], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdin.write(f"{address}\n")  # type: ignore[union-attr]
    process.stdin.flush()  # type: ignore[union-attr]
    return process


# -- tasks ----------------------------------------------------------------------------------------------------------


def measure_tasks(n_worker: int, seconds: Sequence[float], payload_bytes: int, idle_s: float) -> Figures:
    """Return what tasks of given lengths cost, after a time in which the cluster did nothing.

    Parameters
    ----------
    n_worker
        Stub workers.
    seconds
        How long each task takes.
    payload_bytes
        Size of a task.
    idle_s
        How long to look at the cluster at rest.
    """
    load = Load(n_worker)
    try:
        idle: Figures = {}
        with load.measured(idle):
            time.sleep(idle_s)
        tasks = [StubTask(os.urandom(payload_bytes), task_s) for task_s in seconds]
        busy: Figures = {}
        with load.measured(busy):
            run_tasks(load.client, answer, tasks)
    finally:
        load.close()
    work_s = float(sum(seconds))
    busy["efficiency"] = work_s / n_worker / busy["wall_s"]
    return {"n_worker": n_worker, "n_task": len(tasks), "work_s": work_s, "idle": idle, "busy": busy}


# -- rounds ---------------------------------------------------------------------------------------------------------


def measure_rounds(
    n_worker: int,
    n_group: int,
    n_beamlet: int,
    n_scenario: int,
    work_s: float,
    n_evaluation: int,
    direct: bool,
) -> Figures:
    """Return what evaluations over actors cost.

    Parameters
    ----------
    n_worker
        Stub workers; an actor on each that gets a group.
    n_group
        Reduction groups.
    n_beamlet, n_scenario
        Size of the problem; it has eight objectives.
    work_s
        What one evaluation would cost on one worker; groups share it.
    n_evaluation
        Evaluations.
    direct
        Whether the planning process talks to workers itself.
    """
    load = Load(n_worker, direct)
    try:
        making: Figures = {}
        with load.measured(making):
            loader = StubLoader(n_beamlet, work_s / n_group)
            rows = ResidentRows(load.client, loader, np.full(n_group, 1 << 20), n_beamlet)  # type: ignore[arg-type]
        functions = [SquaredOverdose(kind="squared_overdose", dose_gy=10.0 + i) for i in range(8)]
        terms = [Term(f"objective {i}", i, function, 1.0) for i, function in enumerate(functions)]
        problem = Problem(rows, terms, "expected", np.full(n_scenario, 1.0 / n_scenario))
        weights = np.random.default_rng(0).random((n_evaluation + 1, n_beamlet))
        problem.evaluate(weights[0], 0.0)
        busy: Figures = {}
        with load.measured(busy):
            for weight in weights[1:]:
                problem.evaluate(weight, 0.0)
        rows.close()
    finally:
        load.close()
    n_actor = min(n_worker, n_group)
    busy["efficiency"] = work_s * n_evaluation / n_worker / busy["wall_s"]
    return {
        "n_worker": n_worker, "n_group": n_group, "n_actor": n_actor, "n_beamlet": n_beamlet, "direct": direct,
        "n_scenario": n_scenario, "work_s": work_s, "n_evaluation": n_evaluation, "making": making, "busy": busy,
    }  # fmt: skip


# -- tables ---------------------------------------------------------------------------------------------------------


def task_heading() -> list[str]:
    """Return the heading of what tasks cost."""
    return [
        "| workers | tasks | mean task, s | wall s | efficiency | scheduler CPU, ms a task | of a core | "
        "planning CPU, ms a task | of a core | messages a task | kB a task | scheduler waited | "
        "at rest: scheduler, ms a worker and s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]


def task_row(one: Figures) -> str:
    """Return a line of the table."""
    busy, idle, n = one["busy"], one["idle"], one["n_task"]
    return (
        f"| {one['n_worker']} | {n} | {one['work_s'] / n:.2f} | {busy['wall_s']:.1f} | {busy['efficiency']:.2f} "
        f"| {busy['scheduler_s'] / n * 1e3:.2f} | {busy['scheduler_s'] / busy['wall_s']:.2f} "
        f"| {busy['planning_s'] / n * 1e3:.2f} | {busy['planning_s'] / busy['wall_s']:.2f} "
        f"| {busy['scheduler_messages'] / n:.1f} | {busy['scheduler_bytes'] / n / 1e3:.0f} "
        f"| {busy['scheduler_waited_s'] / busy['wall_s']:.2f} "
        f"| {idle['scheduler_s'] / idle['wall_s'] / one['n_worker'] * 1e3:.3f} |"
    )


def round_heading() -> list[str]:
    """Return the heading of what evaluations cost."""
    return [
        "| workers | groups | actors | through | work, s | wall, s an evaluation | efficiency | "
        "scheduler CPU, ms an evaluation | planning CPU, ms an evaluation | MB an evaluation | making actors, wall s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]


def round_row(one: Figures) -> str:
    """Return a line of the table."""
    busy, n = one["busy"], one["n_evaluation"]
    return (
        f"| {one['n_worker']} | {one['n_group']} | {one['n_actor']} | {'workers' if one['direct'] else 'scheduler'} "
        f"| {one['work_s']:g} | {busy['wall_s'] / n:.3f} | {busy['efficiency']:.2f} "
        f"| {busy['scheduler_s'] / n * 1e3:.1f} | {busy['planning_s'] / n * 1e3:.1f} "
        f"| {busy['scheduler_bytes'] / n / 1e6:.2f} | {one['making']['wall_s']:.1f} |"
    )


def main() -> None:
    """Read the command line, measure, print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], metavar="|".join(PARTS), help="default: all"
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--task-s", type=float, default=5.0, help="of the part tasks; default 5")
    parser.add_argument("--tasks-each", type=int, default=6, help="tasks for each worker, of the part tasks")
    parser.add_argument("--payload", type=int, default=PAYLOAD_BYTES, help="bytes of a task")
    parser.add_argument("--groups", type=int, nargs="+", default=[16, 64, 1000], help="of the part rounds")
    parser.add_argument("--beamlets", type=int, default=4427)
    parser.add_argument("--scenarios", type=int, default=200)
    parser.add_argument("--evaluation-s", type=float, default=23.0, help="work of one evaluation")
    parser.add_argument("--evaluations", type=int, default=10)
    parser.add_argument("--direct", action="store_true", help="actors without the scheduler in between")
    parser.add_argument(
        "--stage", nargs=2, action="append", metavar=("NUMBER", "SECONDS"),
        help="of the part study: tasks and the length of each; several for several stages",
    )  # fmt: skip
    parser.add_argument("--idle-s", type=float, default=10.0, help="how long to look at the cluster at rest")
    parser.add_argument("--json", type=Path, help="file for all figures")
    given = parser.parse_args()
    print(f"{machine()}\n", flush=True)
    result: Figures = {"machine": machine()}
    for part in given.parts or PARTS:
        print("\n".join(round_heading() if part == "rounds" else task_heading()), flush=True)
        result[part] = []
        for one in _measurements(part, given):
            result[part].append(one)
            # Line by line: what was measured stays, whatever becomes of the rest.
            print(round_row(one) if part == "rounds" else task_row(one), flush=True)
            if given.json:
                given.json.write_text(json.dumps(result, indent=2) + "\n")
        print()


def _measurements(part: str, given: argparse.Namespace) -> Iterator[Figures]:
    for n_worker in given.workers:
        if part == "tasks":
            seconds = [given.task_s] * (given.tasks_each * n_worker)
            yield measure_tasks(n_worker, seconds, given.payload, given.idle_s)
        elif part == "study":
            for number, task_s in given.stage or [(242, 1.2), (1800, 0.45)]:
                yield measure_tasks(n_worker, [float(task_s)] * int(number), given.payload, given.idle_s)
        else:
            for n_group in given.groups:
                if n_group <= max(16, n_worker):
                    yield measure_rounds(
                        n_worker, n_group, given.beamlets, given.scenarios, given.evaluation_s,
                        given.evaluations, given.direct,
                    )  # fmt: skip


if __name__ == "__main__":
    main()
