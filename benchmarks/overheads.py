"""Where the wall time of a plan goes: ``python -m benchmarks.overheads STUDY.toml``, from the repository's root.

Runs the plan on a new store, looks at all its processes twenty times a second, and cuts the time at what the log says
into phases. In a phase in which workers compute, the wall time is what each of them does on average: work of tasks (by
the tasks' own clocks), other CPU of the worker, waiting for a processor, for the disk, and for tasks: for the first
one, for the last one of another worker, and while scheduler and planning process work. Elsewhere it is what the
planning process does. What is left is unexplained. Workers outside of this machine cannot be seen: on a cluster of
several, work is known from the store, and the rest of their time is not split.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measuring import machine
from storage.store import Store

ROOT = Path(__file__).parents[1]
EVERY_S = 0.05
PHASES = (
    # Name, text of the log line that begins it, and whose time it is.
    ("start: program, server, cluster", None, "planning"),
    ("read the case, place beams", "read: begins", "planning"),
    ("workers join, memory", "dose: begins", "planning"),
    ("dose", "tasks: ", "workers"),
    ("prepare the optimiser", "dose: done", "planning"),
    ("load tiles", "loading the tiles", "workers"),
    ("optimise", "tiles: ", "workers"),
    ("before the final dose", "optimise: done", "planning"),
    ("final dose", "final dose: begins", "workers"),
    ("dose of the matrix, sums of beams", "final dose: done", "planning"),
    ("judge", "judge: begins", "planning"),
    ("tell: report, DICOM", "judge: done", "planning"),
    ("end", "", "planning"),
)
_TICKS = os.sysconf("SC_CLK_TCK")
Figures = dict[str, Any]


@dataclass
class Process:
    """What was seen of a process: time, CPU seconds, seconds without a processor, and its state, for every look."""

    role: str
    time_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)
    on_disk: list[bool] = field(default_factory=list)

    def spent(self, begin_s: float, end_s: float) -> tuple[float, float, float]:
        """Return CPU seconds, seconds without a processor, and seconds on the disk between two times."""
        t = np.array(self.time_s)
        cpu, waited = (
            float(np.diff(np.interp([begin_s, end_s], t, values))[0])
            for values in (self.cpu_s, self.waited_s)
        )
        inside = (t >= begin_s) & (t < end_s)
        seen = np.array(self.on_disk)[inside]
        return cpu, waited, float(seen.mean() * (end_s - begin_s)) if seen.size else 0.0

    def busy(self, begin_s: float, end_s: float) -> tuple[float, float]:
        """Return when, between two times, it began to use the processor in earnest, and when it last did."""
        t, cpu = np.array(self.time_s), np.array(self.cpu_s)
        inside = np.flatnonzero((t[1:] > begin_s) & (t[1:] <= end_s) & (np.diff(cpu) > 0.3 * np.diff(t)))
        if not inside.size:
            return end_s, end_s
        return float(t[inside[0]]), float(t[inside[-1] + 1])


class Watcher(threading.Thread):
    """Looks at all processes of a command, and of whatever else names its folder, until it is told to stop."""

    def __init__(self, pid: int, mark: str) -> None:
        super().__init__(daemon=True)
        self._root, self._mark, self.ended = pid, mark, threading.Event()
        self.processes: dict[int, Process] = {}
        self._strangers: set[int] = {os.getpid()}

    def run(self) -> None:
        """Look."""
        while not self.ended.wait(EVERY_S):
            self._look()

    def _look(self) -> None:
        for pid in sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            if pid in self._strangers:
                continue
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                if pid not in self.processes:
                    self._meet(pid, int(fields[1]))
                process = self.processes.get(pid)
                if process is None:
                    continue
                waited_ns = 0
                state = fields[0]
                for thread in Path(f"/proc/{pid}/task").iterdir():
                    waited_ns += int((thread / "schedstat").read_text().split()[1])
                    words = (thread / "stat").read_text().rpartition(")")[2].split()
                    state = "D" if words[0] == "D" else state
            except OSError:
                continue
            process.time_s.append(time.time())
            process.cpu_s.append((int(fields[11]) + int(fields[12])) / _TICKS)
            # Threads that have ended take their waiting with them.
            process.waited_s.append(max(waited_ns * 1e-9, process.waited_s[-1] if process.waited_s else 0.0))
            process.on_disk.append(state == "D")

    def _meet(self, pid: int, parent: int) -> None:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        if pid == self._root:
            self.processes[pid] = Process("planning")
        elif parent in self.processes or self._mark in command:
            role = "other"
            if "scheduler" in command:
                role = "scheduler"
            elif "cluster" in command and "worker" in command:
                role = "worker"
            elif "prefect" in command or "uvicorn" in command:
                role = "server"
            self.processes[pid] = Process(role)
        elif command:
            self._strangers.add(pid)

    def of(self, role: str) -> list[Process]:
        """Return the processes of a role that were seen more than once."""
        return [
            process for process in self.processes.values() if process.role == role and len(process.time_s) > 1
        ]


def run_plan(study: Path, options: Sequence[str], folder: Path) -> tuple[float, float, Watcher]:
    """Run the plan; returns when it began and ended, and who was seen."""
    command = [sys.executable, "-m", "benchmarks.counted_plan", "plan", str(study), "--quiet", *options]
    command += ["--store", str(folder / "store"), "--output", str(folder / "out")]
    begin_s = time.time()
    process = subprocess.Popen(command, cwd=ROOT)
    watcher = Watcher(process.pid, str(folder))
    watcher.start()
    status = process.wait()
    end_s = time.time()
    watcher.ended.set()
    watcher.join()
    if status:
        sys.exit(f"the plan failed with exit status {status}")
    return begin_s, end_s, watcher


def cuts(log: Path, begin_s: float, end_s: float) -> list[tuple[str, str, float, float]]:
    """Return name, whose time, begin and end of every phase."""
    lines = []
    for line in log.read_text().splitlines():
        try:
            at_s = datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()
        except ValueError:
            continue
        lines.append((at_s, line[24:].partition(" ")[2]))
    begins = [begin_s]
    for _, text, _ in PHASES[1:-1]:
        begins.append(
            next((s for s, said in lines if said.startswith(str(text)) and s >= begins[-1]), begins[-1])
        )
    begins += [max(lines[-1][0], begins[-1]), end_s]
    return [
        (name, whose, begins[i], begins[i + 1])
        for i, (name, _, whose) in enumerate(PHASES)
        if begins[i + 1] > begins[i]
    ]


def work_of(store: Path) -> dict[str, float]:
    """Return the CPU seconds of tasks and evaluations, as the store knows them, by phase."""
    found = {"dose": 0.0, "final dose": 0.0, "optimise": 0.0}
    for kind, phase in (
        ("influence", "dose"),
        ("view", "dose"),
        ("beam_dose", "final dose"),
        ("solve", "optimise"),
    ):
        for path in (store / kind).rglob("*.zarr.zip"):
            with Store(store).open_arrays(kind, path.name.split(".")[0]) as (_, attributes):
                found[phase] += float(attributes["provenance"]["cpu_s"])
    return found


def explain(
    watcher: Watcher, phases: Sequence[tuple[str, str, float, float]], work: dict[str, float]
) -> list[Figures]:
    """Return every phase with its parts in seconds of wall time."""
    (planning,), workers = watcher.of("planning"), watcher.of("worker")
    helpers = [*watcher.of("scheduler"), *watcher.of("server"), *workers]
    rows = []
    for name, whose, begin_s, end_s in phases:
        wall_s = end_s - begin_s
        cpu_s, waited_s, disk_s = planning.spent(begin_s, end_s)
        scheduler = sum(sum(p.spent(begin_s, end_s)[:2]) for p in watcher.of("scheduler"))
        row: Figures = {"phase": name, "wall": wall_s, "planning_cpu": cpu_s}
        row["scheduler_cpu"] = sum(p.spent(begin_s, end_s)[0] for p in watcher.of("scheduler"))
        left = _Left(wall_s)
        if whose == "workers" and workers:
            n = len(workers)
            spent = [process.spent(begin_s, end_s) for process in workers]
            all_cpu_s = sum(s[0] for s in spent) / n
            row["worker_cpu"] = all_cpu_s * n
            row["work"] = left.take(min(all_cpu_s, work.get(name, all_cpu_s * n) / n))
            row["bookkeeping"] = left.take(all_cpu_s - row["work"])
            row["processor"] = left.take(sum(s[1] for s in spent) / n)
            row["disk"] = left.take(sum(s[2] for s in spent) / n)
            ends = [process.busy(begin_s, end_s) for process in workers]
            row["others"] = left.take(sum((b - begin_s) + (end_s - e) for b, e in ends) / n)
            # While these two work on what comes next, workers have nothing to do.
            row["others"] += left.take(cpu_s + waited_s + scheduler)
        else:
            row["work"] = row["bookkeeping"] = 0.0
            row["planning"] = left.take(cpu_s)
            row["processor"] = left.take(waited_s)
            row["disk"] = left.take(disk_s)
            row["others"] = left.take(max((sum(p.spent(begin_s, end_s)) for p in helpers), default=0.0))
        row["unexplained"] = left.s
        rows.append(row)
    return rows


class _Left:
    """Seconds that are not explained yet."""

    def __init__(self, s: float) -> None:
        self.s = s

    def take(self, s: float) -> float:
        """Explain so many of them, if there are so many."""
        taken = min(max(0.0, s), self.s)
        self.s -= taken
        return taken


def table(rows: Sequence[Figures], n_task: Sequence[int]) -> list[str]:
    """Return the phases as a markdown table, their sum, and the figures that the project has bounds for."""
    parts: tuple[tuple[str, Callable[[Figures], float]], ...] = (
        ("wall s", lambda row: row["wall"]),
        ("work of tasks", lambda row: row["work"]),
        ("workers' other CPU", lambda row: row["bookkeeping"]),
        ("planning process", lambda row: row.get("planning", 0.0)),
        ("for a processor", lambda row: row["processor"]),
        ("for the disk", lambda row: row["disk"]),
        ("for others", lambda row: row["others"]),
        ("unexplained", lambda row: row["unexplained"]),
    )
    lines = ["| phase | " + " | ".join(name for name, _ in parts) + " |", "|---|" + "---|" * len(parts)]
    lines += [f"| {row['phase']} | " + " | ".join(f"{of(row):.1f}" for _, of in parts) + " |" for row in rows]
    sums = [sum(of(row) for row in rows) for _, of in parts]
    lines.append("| **all** | " + " | ".join(f"**{s:.1f}**" for s in sums) + " |")
    lines.append("| % | " + " | ".join(f"{s / sums[0] * 100:.1f}" for s in sums) + " |")
    lines += [
        "",
        "wall = "
        + " + ".join(f"{s:.1f} ({name})" for s, (name, _) in list(zip(sums, parts, strict=True))[1:]),
    ]
    fixed_s = sum(row["wall"] for row in rows if row["phase"].startswith(("start", "workers join", "end")))
    lines.append(f"fixed part (start, workers join, end): {fixed_s:.1f} s")
    for row, number in zip((r for r in rows if r["phase"] in ("dose", "final dose")), n_task, strict=False):
        n_worker = row["worker_cpu"] / max(row["work"] + row["bookkeeping"], 1e-9)
        each = {
            "planning": row["planning_cpu"],
            "scheduler": row["scheduler_cpu"],
            "workers beside their work": row["bookkeeping"] * n_worker,
        }
        each["together"] = sum(each.values())
        told = ", ".join(f"{name} {s / number * 1e3:.1f}" for name, s in each.items())
        lines.append(f"{row['phase']}: {number} tasks; CPU ms a task: {told}")
    return lines


def main() -> None:
    """Read the command line, run the plan, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument("--cluster", default="local", help="as of nightbeam plan")
    parser.add_argument("--workers", type=int, help="as of nightbeam plan")
    parser.add_argument(
        "--folder", type=Path, help="where store and output go for the time; shared, on a cluster"
    )
    parser.add_argument("--json", type=Path, help="file for all figures")
    given = parser.parse_args()
    options = ["--cluster", given.cluster]
    if given.workers:
        options += ["--workers", str(given.workers)]
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="nightbeam-bench-", dir=given.folder) as temporary:
        folder = Path(temporary)
        begin_s, end_s, watcher = run_plan(given.study.resolve(), options, folder)
        log = folder / "out" / "nightbeam.log"
        n_task = [
            int(line.rpartition("tasks: ")[2]) for line in log.read_text().splitlines() if " tasks: " in line
        ]
        rows = explain(watcher, cuts(log, begin_s, end_s), work_of(folder / "store"))
    print(f"{machine()} at the end\n")
    print("\n".join(table(rows, n_task)))
    if given.json:
        given.json.write_text(
            json.dumps({"machine": machine(), "rows": rows, "tasks": n_task}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
