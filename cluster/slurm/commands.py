"""sbatch, squeue and scancel: each called with a limit of time, as a controller that is away lets them hang.

What sbatch says is not believed: it was seen to fail by a time limit of its own while the job had been queued. What
counts is the list of jobs by name.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.errors import ClusterError, NoSlurmError, SlurmAwayError

_LIMIT_S = 60.0
_FORMAT = "%i|%T|%C|%S|%e|%L|%N|%r"
_ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT")
)  # fmt: skip
_NOT_YET = frozenset(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"))
_PASSING = re.compile(
    r"timed out|timeout|unable to contact|connection refused|connect failure|not responding|temporarily"
    r"|communication|zero bytes|slurm controller|resource busy|munge|authentication",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Job:
    """A worker job as SLURM lists it.

    Parameters
    ----------
    id
        Its number.
    state
        SLURM's word, such as ``RUNNING``.
    n_core
        Cores that it has, or waits for.
    begin_s, end_s
        When it began and ended or will end, in seconds since 1970; None where nobody knows.
    left_s
        Seconds until its walltime is over; None before it begins and where there is no limit.
    host
        Where it runs.
    reason
        Why it waits, in SLURM's words.
    """

    id: str
    state: str
    n_core: int
    begin_s: float | None
    end_s: float | None
    left_s: float | None
    host: str
    reason: str

    @property
    def is_pending(self) -> bool:
        """Whether it waits to begin."""
        return self.state in _NOT_YET

    @property
    def is_suspended(self) -> bool:
        """Whether SLURM has it stand still: it does nothing, keeps its memory, and goes on when it may."""
        return self.state == "SUSPENDED"

    @property
    def has_ended(self) -> bool:
        """Whether it computes no more."""
        # A completing job has got its SIGTERM, or is over.
        return self.state in _ENDED or self.state in ("COMPLETING", "STOPPED", "REVOKED")

    @property
    def is_over(self) -> bool:
        """Whether its state will not change any more."""
        return self.state in _ENDED


class Jobs(Protocol):
    """A way to start worker jobs, look at them, and end them."""

    def submit(self, script: Path) -> str | None:
        """Start one; returns its number if that is known."""
        ...

    def listing(self) -> list[Job]:
        """Return all that there are, and those that ended not long ago."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """End some."""
        ...


class SlurmJobs:
    """Worker jobs of one name.

    Parameters
    ----------
    name
        The name that all of them have.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def submit(self, script: Path) -> str | None:
        """Submit a job.

        Raises
        ------
        ClusterError
            If SLURM refuses it: `SlurmAwayError` where the same may be accepted later.
        """
        said = run_slurm(["sbatch", "--parsable", str(script)]).strip().splitlines()
        # Sites print what they like before; the last line is "number" or "number;cluster".
        number = said[-1].partition(";")[0].strip() if said else ""
        return number if number.isdigit() else None

    def listing(self) -> list[Job]:
        """Return the jobs that SLURM knows, with those that ended in the last minutes.

        Raises
        ------
        SlurmAwayError
            If squeue fails: an empty list would mean that all jobs are lost.
        """
        try:
            text = run_slurm(
                [
                    "squeue",
                    "--me",
                    "--noheader",
                    "--states=all",
                    f"--name={self._name}",
                    f"--format={_FORMAT}",
                ]
            )
        except (SlurmAwayError, NoSlurmError):
            raise
        except ClusterError as error:
            raise SlurmAwayError(str(error)) from error
        return [_job(line) for line in text.splitlines() if line.count("|") >= _FORMAT.count("|")]

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs; one that is over already is no error."""
        if ids:
            run_slurm(["scancel", "--quiet", *ids])

    def cancel_all(self) -> None:
        """Cancel all jobs of this name, also those that nobody has seen in a list yet."""
        # Root may cancel everybody's jobs, and must not.
        run_slurm(["scancel", "--quiet", f"--user={os.getuid()}", f"--name={self._name}"])


def _job(line: str) -> Job:
    number, state, n_core, begin, end, left, host, reason = line.split("|", 7)
    return Job(
        number, state, int(n_core or 0), _number(begin), _number(end), _span_s(left), host, reason.strip()
    )  # fmt: skip


def _number(text: str) -> float | None:
    return float(text) if text.strip().isdigit() else None


def _span_s(text: str) -> float | None:
    """Return the seconds of squeue's ``days-hours:minutes:seconds``, of which the first parts may lack."""
    days, _, clock = text.strip().rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or (days and not days.isdigit()):
        return None
    total = 0
    for part in parts:
        total = total * 60 + int(part)
    return float(total + int(days or 0) * 86400)


def run_slurm(command: Sequence[str]) -> str:
    """Run a command of SLURM and return what it prints.

    Raises
    ------
    ClusterError
        If it fails: `SlurmAwayError` where it may do better later.
    """
    # Whatever a person has set for their own eyes (SQUEUE_FORMAT, SBATCH_*) is not for these calls.
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SQUEUE_", "SCANCEL_", "SBATCH_", "SLURM_TIME_FORMAT"))
    }
    what = command[0]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT_S,
            check=False,
            env={**outside_of_job(own), "SLURM_TIME_FORMAT": "%s"},
        )
    except FileNotFoundError:
        raise NoSlurmError(
            f"there is no command {what} on this machine; give the command on a login node of the SLURM cluster"
        ) from None
    except OSError as error:
        # No process to be had, or no memory for one.
        raise SlurmAwayError(f"{what} cannot be started now ({error.strerror or error})") from error
    except subprocess.TimeoutExpired:
        raise SlurmAwayError(f"{what} did not answer within {_LIMIT_S:g} s") from None
    if done.returncode != 0:
        words = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        kind = SlurmAwayError if _PASSING.search(words) else ClusterError
        raise kind(f"{what} failed: {words}")
    return done.stdout


def outside_of_job(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment without what a job tells its processes: sbatch would hand it on to other jobs."""
    kept = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
    return {
        name: value for name, value in environment.items() if name in kept or not name.startswith("SLURM_")
    }
