"""A study that is planned on SLURM, or submitted to it: its jobs, its workers, its log, and what it leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from cluster.slurm.notes import read_jobs
from tests.cluster.one_machine import REPOSITORY, Job, OneMachine
from tests.e2e.small_study import command, write_study

SITE = """\
partition = "scavenge"
cores = 2
memory_gib = 2.0
jobs = 2
walltime = "00:30:00"
"""
_MARK = "NIGHTBEAM_SLURM_RUN"
_CLEAR_S = 60.0


class SlurmRun:
    """One run in a folder of its own, which is the working directory of all its jobs.

    Parameters
    ----------
    slurm
        Where it computes.
    folder
        An empty folder.
    study
        Text of the study file.
    environment
        For the command, beyond that of SLURM.
    site
        Text of the SLURM file.
    """

    def __init__(
        self, slurm: OneMachine, folder: Path, study: str, environment: Mapping[str, str], site: str = SITE
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.slurm, self.folder = slurm, folder
        self.store, self.output = folder / "store", folder / "out"
        self._study, self._site = write_study(folder, study), folder / "slurm.toml"
        self._site.write_text(site)
        self._mark = f"{_MARK}={folder}"
        self.environment = {
            **slurm.environment, **environment, _MARK: str(folder), "PYTHONPATH": str(REPOSITORY),
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, what: str = "plan") -> None:
        """Give the command; it computes on SLURM."""
        arguments = command(what, self._study, self.store, self.output, "--cluster", str(self._site))
        with (self.folder / "printed").open("ab") as printed:
            self._process = subprocess.Popen(
                arguments, stdout=printed, stderr=printed, stdin=subprocess.DEVNULL,
                env=self.environment, cwd=self.folder,
            )  # fmt: skip

    def submit(self) -> str:
        """Put the command itself into a job, and return the job's number."""
        arguments = [
            sys.executable, "-m", "flows.cli", "submit", str(self._study), "--cluster", str(self._site),
            "--store", str(self.store), "--output", str(self.output),
        ]  # fmt: skip
        done = subprocess.run(
            arguments, capture_output=True, text=True, timeout=300, check=False,
            env=self.environment, cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.search(r"\bjob (\d+)", done.stdout)
        assert found, done.stdout
        return found[1]

    @property
    def printed(self) -> str:
        """What the command, or the job that ran it, has printed."""
        files = [self.folder / "printed", *sorted(self.output.glob("controller/*.log"))]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def log(self) -> str:
        """Return the log of the run."""
        file = self.output / "nightbeam.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def reach(self, pattern: str, limit_s: float = 240.0) -> None:
        """Wait until the log says something, while the command runs."""
        until_s = time.monotonic() + limit_s
        while not re.search(pattern, self.log()):
            ended = self._process is not None and self._process.poll() is not None
            assert not ended, f"the run ended before '{pattern}': {self.printed[-2000:]}"
            assert time.monotonic() < until_s, f"no '{pattern}' within {limit_s:g} s; {self.printed[-2000:]}"
            time.sleep(0.02)

    def finish(self, limit_s: float = 500.0) -> None:
        """Wait for the end of the command, which must be a good one."""
        assert self._process is not None
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not over after {limit_s:g} s: {self.log()[-4000:]}") from None
        assert self._process.returncode == 0, self.printed[-4000:]

    def failure(self) -> str:
        """Say what is wrong with a submitted run that is over; an empty text if it ended well."""
        file = self.output / "progress.json"
        state = json.loads(file.read_text())["state"] if file.exists() else "never begun"
        return "" if state == "done" else f"{state}: {self.printed[-2000:]}"

    def stage(self) -> str:
        """Return what the run is doing."""
        begun = re.findall(r" INFO (dose|optimise|final dose|judge)[^:\n]*: (begins|done)", self.log())
        if not begun:
            return "starting"
        name, state = begun[-1]
        if name in ("final dose", "judge") or (name, state) == ("optimise", "done"):
            return "judging, telling"
        return "optimise" if name == "optimise" or state == "done" else "dose"

    def kill(self) -> None:
        """Kill the command, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def worker_jobs(self, *states: str) -> list[Job]:
        """Return the worker jobs of this run, running ones if no state is given."""
        return [
            job
            for job in self.slurm.jobs(self.folder, *(states or ("RUNNING",)))
            if re.fullmatch(r"nightbeam-[0-9a-f]{8}", job.name)
        ]

    def computing_jobs(self) -> list[Job]:
        """Return the running worker jobs that have had a worker in the cluster."""
        folders = (self.store / "clusters").glob("*")
        joined = {
            number for folder in folders for number, (note, _) in read_jobs(folder).items() if note.workers
        }
        return [job for job in self.worker_jobs() if job.number in joined]

    def workers(self, job: str = "") -> list[int]:
        """Return the process ids of Dask workers, of a job or of all."""
        return [
            pid
            for pid, line, environment in self._processes()
            if " job-worker " in line and (not job or f"SLURM_JOB_ID={job}".encode() in environment)
        ]

    def commands(self) -> list[int]:
        """Return the process ids of the planning process."""
        return [
            pid
            for pid, line, _ in self._processes()
            if " -m flows.cli plan " in line and " cluster.slurm.control " not in line
        ]

    def left_behind(self) -> list[str]:
        """Return jobs, processes and run folders of this run that are still there, after giving them time to end."""
        until_s = time.monotonic() + _CLEAR_S
        while (found := list(self._left())) and time.monotonic() < until_s:
            time.sleep(0.2)
        return found

    def clear(self) -> None:
        """End whatever is left of it, for the tests that come after."""
        self.kill()
        for job in self.slurm.jobs(self.folder):
            self.slurm.says("scancel", job.number)
        for pid, _, _ in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def usage(self) -> list[dict[str, object]]:
        """Return the lines of usage.jsonl."""
        return [json.loads(line) for line in (self.output / "usage.jsonl").read_text().splitlines()]

    def is_queued(self, job: str) -> bool:
        """Return whether a job of this run waits or runs."""
        return any(found.number == job for found in self.slurm.jobs(self.folder))

    def _left(self) -> Iterator[str]:
        for job in self.slurm.jobs(self.folder):
            yield f"job {job}"
        for _, line, _ in self._processes():
            yield f"process {line}"
        for folder in (self.store / "clusters").glob("*"):
            yield f"run folder {folder.name}"

    def _processes(self) -> Iterator[tuple[int, str, list[bytes]]]:
        mark = self._mark.encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    environment = (entry / "environ").read_bytes().split(b"\0")
                    if mark in environment:
                        yield int(entry.name), (entry / "cmdline").read_text().replace("\0", " "), environment
