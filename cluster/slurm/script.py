"""The script of a worker job, as sbatch takes it."""

import os
import shlex
from pathlib import Path

from cluster.child import import_path
from cluster.slurm.site import SlurmSite

JOB_NAME = "nightbeam-"
"""Worker jobs are called so, followed by the name of their run folder: `squeue --name` finds them."""


def job_name(folder: Path) -> str:
    """Return the name of the worker jobs of a run folder."""
    return JOB_NAME + folder.name


def log_folder(site: SlurmSite, folder: Path) -> Path:
    """Return where the logs of worker jobs are."""
    if site.logs is None:
        return folder / "logs"
    return Path(os.path.expandvars(site.logs)).expanduser().absolute()


def log_file(site: SlurmSite, folder: Path, job: str) -> Path:
    """Return the log of one worker job."""
    return log_folder(site, folder) / f"{job_name(folder)}-{job}.log"


def log_pattern(site: SlurmSite, folder: Path, number: str) -> str:
    """Return the same as SLURM wants it, with what it puts the number in the place of, such as ``%j``."""
    return f"{log_folder(site, folder)}/{job_name(folder)}-".replace("%", "%%") + f"{number}.log"


def directives(site: SlurmSite, folder: Path) -> list[str]:
    """Return what is asked of SLURM for a worker job, as options of sbatch."""
    asked = [
        f"--job-name={job_name(folder)}",
        f"--partition={site.partition}" if site.partition else "",
        f"--account={site.account}" if site.account else "",
        f"--qos={site.qos}" if site.qos else "",
        f"--time={site.walltime}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={site.cores}",
        f"--mem={round(site.memory_gib * 1024)}M",
        f"--output={shlex.quote(log_pattern(site, folder, '%j'))}",
        # A job that ends is replaced by another one at once; one that SLURM starts again waits first.
        "--no-requeue",
    ]
    return [*filter(None, asked), *site.directives]


def worker_script(site: SlurmSite, folder: Path) -> str:
    """Return the script of the worker jobs of a run.

    Parameters
    ----------
    site
        The site's file.
    folder
        The run folder, which the job's keeper reads and writes.
    """
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in directives(site, folder)),
        *site.setup,
        f"export PYTHONPATH={shlex.quote(import_path(site.python))}",
        # In the place of the shell, so that SLURM's signals reach it.
        f"exec {shlex.quote(site.python)} -P -m cluster.slurm.keeper {shlex.quote(str(folder))}",
    ]
    return "\n".join(lines) + "\n"
