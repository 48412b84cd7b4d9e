"""The job of the planning process itself: its script, its files in the output folder, and whether it is there.

``OUTPUT/controller`` holds ``job.sh``, ``job.log``, ``job.json`` (the job's number) and ``state.json`` (kept by
`cluster.slurm.control`, from one start to the next).
"""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.child import import_path
from cluster.slurm.commands import Job, SlurmJobs, run_slurm
from cluster.slurm.json_file import read_json, write_json
from cluster.slurm.script import JOB_NAME
from cluster.slurm.site import SlurmSite, walltime_s
from engine.errors import ClusterError, SlurmAwayError

_WARNING_S = 120
"""How long before its walltime ends the job is told."""


@dataclass(frozen=True)
class ControllingJob:
    """The files of a controlling job.

    Parameters
    ----------
    output
        The output folder of the command that it runs.
    """

    output: Path

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.output / "controller"

    @property
    def script(self) -> Path:
        """The job script."""
        return self.folder / "job.sh"

    @property
    def log(self) -> Path:
        """What the job and its command print."""
        return self.folder / "job.log"

    def live(self) -> Job | None:
        """Return the job that was submitted last if it waits or runs.

        Raises
        ------
        SlurmAwayError
            If SLURM does not answer.
        """
        told = read_json(self.folder / "job.json") or {}
        if "job" not in told:
            return None
        jobs = SlurmJobs(str(told["name"])).listing()
        # One that goes back into the queue is listed as completing at first.
        return next((job for job in jobs if job.id == told["job"] and not job.is_over), None)

    def submit(self, name: str, after: str | None = None) -> str:
        """Submit the script; returns the number of the job.

        Parameters
        ----------
        name
            The job's name.
        after
            A job that has to be over before.

        Raises
        ------
        ClusterError
            If SLURM refuses it, or does not answer.
        """
        dependency = [] if after is None else [f"--dependency=afterany:{after}"]
        try:
            said = run_slurm(["sbatch", "--parsable", *dependency, str(self.script)]).strip().splitlines()
        except SlurmAwayError as error:
            raise SlurmAwayError(
                f"{error}; the job may be in the queue nevertheless: look with `squeue --me --name={name}`, and end it "
                "with scancel before you try again"
            ) from error
        number = said[-1].partition(";")[0].strip() if said else ""
        if not number.isdigit():
            raise ClusterError(
                f"sbatch gave no number of a job; see whether there is one with `squeue --name={name}`, and end it "
                "with scancel before you try again"
            )
        write_json(self.folder / "job.json", {"job": number, "name": name})
        return number

    def read_state(self) -> dict[str, Any]:
        """Return what the last start has left; nothing where there was none."""
        return read_json(self.folder / "state.json") or {}

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace that."""
        write_json(self.folder / "state.json", state)

    def prepare(self, script: str) -> None:
        """Write the script for a submission that begins with nothing done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "state.json").unlink(missing_ok=True)
        self.script.write_text(script)
        self.script.chmod(0o755)


def controller_name(file: Path) -> str:
    """Return the name of the job for a study or batch file."""
    return JOB_NAME + re.sub(r"[^\w.-]", "_", file.stem)


def controller_script(site: SlurmSite, job: ControllingJob, name: str, command: Sequence[str]) -> str:
    """Return the script of a controlling job.

    Parameters
    ----------
    site
        The site's file.
    job
        Its files.
    name
        Its name.
    command
        What to run, as arguments of ``nightbeam``.
    """
    python = shlex.join([site.python, "-P"])
    control = shlex.join(["-m", "cluster.slurm.control", str(job.output), str(site.controller.cores)])
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in _directives(site, job, name)),
        f"cd {shlex.quote(os.getcwd())} || exit 2",  # noqa: PTH109
        *site.setup,
        f"export PYTHONPATH={shlex.quote(import_path(site.python))}",
        "# In the place of the shell, so that SLURM's signals reach it.",
        f"exec {python} {control} \\",
        f"  {python} -m flows.cli {shlex.join(command)}",
    ]
    return "\n".join(lines) + "\n"


def _directives(site: SlurmSite, job: ControllingJob, name: str) -> list[str]:
    own = site.controller
    partition = own.partition or site.partition
    if site.start == "srun":
        # One job holds the planning process and all workers; it has as much as a worker.
        size = [
            f"--ntasks={1 + site.n_job_max}",
            f"--cpus-per-task={max(site.cores, own.cores)}",
            f"--mem-per-cpu={_mib_per_core(site)}M",
            *site.directives,
        ]
    else:
        size = ["--ntasks=1", f"--cpus-per-task={own.cores}", f"--mem={round(own.memory_gib * 1024)}M"]
    # A job that is short is warned later: it would be warned before it has begun.
    warning_s = min(_WARNING_S, walltime_s(own.walltime) // 4)
    log = str(job.log).replace("%", "%%")
    asked = [
        f"--job-name={name}",
        f"--partition={partition}" if partition else "",
        f"--account={site.account}" if site.account else "",
        f"--qos={site.qos}" if site.qos else "",
        f"--time={own.walltime}",
        *size,
        f"--output={shlex.quote(log)}",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{warning_s}",
        *own.directives,
    ]
    return [option for option in asked if option]


def _mib_per_core(site: SlurmSite) -> int:
    return -(-round(site.memory_gib * 1024) // site.cores)
