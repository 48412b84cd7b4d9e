"""Worker "jobs" inside one allocation: steps that srun starts, for sites that forbid sbatch from compute nodes.

The allocation is the job that this process runs in: that of ``nightbeam submit`` with start = "srun", one of somebody's
own, or salloc's. A step has one srun, which is our child and ends the step when it dies, as it does with this process.
"""

import ctypes
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cluster.slurm.commands import Job, outside_of_job, run_slurm
from cluster.slurm.script import job_name, log_pattern
from cluster.slurm.site import SlurmSite
from engine.errors import ClusterError, SlurmAwayError

_ROOM_S = 10.0
"""How long srun may wait for room in the allocation: it would wait for ever."""
_LEAVING_S = 300.0
"""How long workers of a run that was killed may be in the way."""
_LOOK_S = 0.2
_PR_SET_PDEATHSIG = 1
_LAST_WORDS = 400


@dataclass
class _Step:
    """One srun and its step."""

    srun: subprocess.Popen[bytes]
    words: IO[bytes]
    begin_s: float
    host: str
    end_s: float | None = None
    cancelled: bool = False


class StepJobs:
    """Worker jobs as steps of the allocation that this process runs in.

    Parameters
    ----------
    site
        The site's file.
    folder
        The run folder.

    Raises
    ------
    ClusterError
        If this process runs in no allocation.
    """

    def __init__(self, site: SlurmSite, folder: Path) -> None:
        job = os.environ.get("SLURM_JOB_ID")
        if not job:
            raise ClusterError(
                'the SLURM file says start = "srun", but this process runs in no allocation; use `nightbeam submit`, '
                'give the command inside a job or salloc, or write start = "sbatch"'
            )
        self._job, self._site, self._folder = job, site, folder
        self._steps: dict[str, _Step] = {}
        self._n_started = 0
        self._first_s = 0.0
        self._lock = threading.Lock()

    def submit(self, script: Path) -> str:
        """Start a step; returns its number.

        Raises
        ------
        ClusterError
            If there is no room for it in the allocation, or srun fails.
        """
        self._first_s = self._first_s or time.monotonic()
        self._n_started += 1
        name = f"{job_name(self._folder)}-{self._n_started}"
        words = (self._folder / f"srun-{self._n_started}.log").open("w+b")
        begin_s = time.time()
        try:
            srun = subprocess.Popen(
                [*self._options(name), "bash", str(script)],
                stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT,
                env=outside_of_job(dict(os.environ)), start_new_session=True, preexec_fn=_die_with_thread,
            )  # fmt: skip
        except OSError as error:
            words.close()
            raise ClusterError(
                f"srun cannot be started ({error.strerror or error}); is this a node of SLURM?"
            ) from error
        limit_s = time.monotonic() + _ROOM_S
        while time.monotonic() < limit_s and srun.poll() is None:
            time.sleep(_LOOK_S)
            try:
                found = self._find(name)
            except ClusterError:
                # Nobody would know of this step.
                _end(srun)
                words.close()
                raise
            if found is not None:
                number, host = found
                with self._lock:
                    self._steps[number] = _Step(srun, words, begin_s, host)
                return number
        waited_in_vain = srun.poll() is None
        _end(srun)
        said = _last_words(words)
        words.close()
        if not waited_in_vain:
            raise ClusterError(f"srun failed: {said or f'exit status {srun.returncode}'}")
        no_room = (
            f"job {self._job} has no room for another worker of {self._site.cores} cores and "
            f"{self._site.memory_gib:g} GiB; have fewer jobs in the SLURM file, or a larger allocation"
        )
        # Workers of a run that was killed may be leaving: the first ones are waited for, as long as that takes.
        may_wait = not self._steps and time.monotonic() < self._first_s + _LEAVING_S
        raise SlurmAwayError(no_room) if may_wait else ClusterError(no_room)

    def listing(self) -> list[Job]:
        """Return all steps that were started, with those that ended."""
        with self._lock:
            return [self._describe(number, step) for number, step in self._steps.items()]

    def cancel(self, ids: Sequence[str]) -> None:
        """Ask the workers of some steps to leave; one that is over already is no error."""
        for number in ids:
            step = self._steps.get(number)
            if step is not None and step.srun.poll() is None:
                step.cancelled = True
                # A plain scancel, or ending srun, would kill the workers at once.
                try:
                    run_slurm(["scancel", "--quiet", "--signal=TERM", number])
                except SlurmAwayError:
                    raise
                except ClusterError:
                    step.srun.terminate()

    def _options(self, name: str) -> list[str]:
        site = self._site
        return [
            "srun", f"--jobid={self._job}", "--nodes=1", "--ntasks=1", f"--cpus-per-task={site.cores}",
            f"--mem={round(site.memory_gib * 1024)}M", "--exact", f"--job-name={name}",
            f"--output={log_pattern(site, self._folder, '%J')}",
        ]  # fmt: skip

    def _find(self, name: str) -> tuple[str, str] | None:
        """Return number and host of the step of a name."""
        listed = run_slurm(["squeue", "--noheader", "--steps", f"--jobs={self._job}", "--format=%i|%N|%j"])
        for line in listed.splitlines():
            number, host, listed_name = line.strip().split("|", 2)
            if listed_name == name:
                return number, host
        return None

    def _describe(self, number: str, step: _Step) -> Job:
        code = step.srun.poll()
        if code is not None and step.end_s is None:
            step.end_s = time.time()
            step.words.close()
        state = "RUNNING"
        if code is not None:
            state = "CANCELLED" if step.cancelled else "COMPLETED" if code == 0 else "FAILED"
        return Job(number, state, self._site.cores, step.begin_s, step.end_s, None, step.host, "")


def _end(srun: subprocess.Popen[bytes]) -> None:
    if srun.poll() is None:
        srun.terminate()
        try:
            srun.wait(_ROOM_S)
        except subprocess.TimeoutExpired:
            srun.kill()
            srun.wait()


def _last_words(words: IO[bytes]) -> str:
    words.seek(0)
    said = " ".join(words.read().decode(errors="replace").split())[-_LAST_WORDS:]
    return re.sub(r"srun: (error: )?", "", said)


def _die_with_thread() -> None:
    """Have the kernel end srun, and so its step, when this process is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
