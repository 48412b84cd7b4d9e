"""A cluster of SLURM jobs: the scheduler as a child of the planning process, workers in jobs that a supervisor keeps.

Jobs outlive a lost scheduler: their workers join the next one. They do not outlive the planning process: keepers end
when nobody has answered for a minute, and the next run on the same store cancels what waits in the queue.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from distributed import Security

from cluster.ends import WorkerEnd
from cluster.local import LocalProcesses
from cluster.security import make_certificate, security
from cluster.slurm.commands import Jobs, SlurmJobs
from cluster.slurm.folder import left_over, make_run_folder, remove, usage_file
from cluster.slurm.keeper import CERTIFICATE
from cluster.slurm.notes import JOBS, Orders, read_jobs, read_orders, write_orders, write_scheduler
from cluster.slurm.script import job_name, log_folder, worker_script
from cluster.slurm.site import SlurmSite
from cluster.slurm.steps import StepJobs
from cluster.slurm.supervisor import Supervisor
from cluster.slurm.usage import USAGE, Used, append_usage, read_usage, used
from cluster.slurm.worker import own_host
from engine.errors import ClusterError

SCRIPT = "worker.sh"
_LOG = logging.getLogger("nightbeam")


class SlurmCluster:
    """Scheduler and worker jobs of one run; they are starting when the constructor returns.

    Parameters
    ----------
    site
        The site's file.
    root
        Where run folders are, on a file system that all nodes share.
    usage
        The file that the usage of the jobs is added to at the end, if any.
    imports
        Modules that workers import while they start.
    say
        Tells a person one line.

    Raises
    ------
    ClusterError
        If this machine has no such network interface, or no SLURM.
    """

    def __init__(
        self,
        site: SlurmSite,
        root: Path,
        usage: Path | None = None,
        imports: Sequence[str] = (),
        say: Callable[[str], None] = _LOG.info,
    ) -> None:
        self.site = site
        self._host = own_host(site.interface)
        self.folder = make_run_folder(root, usage)
        descriptor = os.open(self.folder / CERTIFICATE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(make_certificate())
        log_folder(site, self.folder).mkdir(parents=True, exist_ok=True)
        write_orders(
            self.folder,
            Orders(
                site.processes, site.n_thread, site.worker_bytes, site.walltime_s, list(imports), site.interface,
                site.ports, site.scratch,
            ),
        )  # fmt: skip
        script = self.folder / SCRIPT
        script.write_text(worker_script(site, self.folder))
        jobs = self._jobs()
        self._scheduler = self._start_scheduler()
        self.supervisor = Supervisor(site, self.folder, script, jobs, say)
        self.supervisor.start()

    def _jobs(self) -> Jobs:
        if self.site.start == "srun":
            return StepJobs(self.site, self.folder)
        return SlurmJobs(job_name(self.folder))

    def _start_scheduler(self) -> LocalProcesses:
        ports = ":".join(map(str, self.site.ports)) if self.site.ports else ""
        scheduler = LocalProcesses(0, certificate=self.folder / CERTIFICATE, listen=(self._host, ports))
        # Jobs begin to wait at once, and find the address when it is known.
        threading.Thread(
            target=self._publish, args=(scheduler,), name="nightbeam-address", daemon=True
        ).start()
        return scheduler

    def _publish(self, scheduler: LocalProcesses) -> None:
        # Whoever asks for a client is told of errors.
        with suppress(ClusterError, OSError):
            write_scheduler(self.folder, scheduler.address())

    def renew_scheduler(self) -> None:
        """Start another scheduler in the place of one that is lost; workers find it."""
        self._scheduler.close()
        self._scheduler = self._start_scheduler()

    def address(self) -> str:
        """Return the scheduler's address, waiting for it to start."""
        return self._scheduler.address()

    def security(self) -> Security:
        """Return what a client of the scheduler needs to be let in."""
        return security(self.folder / CERTIFICATE)

    def failure(self) -> ClusterError | None:
        """Return why there will be no workers any more, or why the scheduler ended; None if neither is so."""
        return self.supervisor.failure() or self._scheduler.failure()

    def why(self, address: str) -> WorkerEnd | None:
        """Return why the worker at an address ended, or None if that is not known."""
        return self.supervisor.why(address)

    def close(self) -> None:
        """End all jobs and the scheduler, and hand over what the jobs used; logs stay where jobs failed."""
        self.supervisor.close()
        self._scheduler.close()
        hand_over_usage(self.folder)
        if self.supervisor.failure() is None:
            remove(self.folder)


def hand_over_usage(folder: Path) -> None:
    """Add what is noted of jobs in a run folder to the file that it is for."""
    file = usage_file(folder)
    if file is not None:
        try:
            append_usage(file, read_usage(folder / USAGE))
        except OSError as error:
            _LOG.warning("the usage of jobs cannot be noted: %s", error)
    (folder / USAGE).unlink(missing_ok=True)
    for note in (folder / JOBS).glob("*.json"):
        note.unlink(missing_ok=True)


def clear_left_over(root: Path, say: Callable[[str], None] = _LOG.info) -> None:
    """Cancel the worker jobs of planning processes that are gone, count what they used, and remove their folders."""
    for folder in left_over(root):
        jobs = SlurmJobs(job_name(folder))
        try:
            listing = jobs.listing()
            n_live = sum(not job.has_ended for job in listing)
            jobs.cancel_all()
        except ClusterError as error:
            say(f"jobs of a run that was killed may be left ({error})")
            continue
        gone = folder.with_name(f".{folder.name}.gone")
        try:
            folder.rename(gone)
        except OSError:
            continue  # somebody else does the same
        if n_live:
            say(f"{n_live} worker jobs of a run that was killed were cancelled")
        _count_unnoted(
            gone, {job.id: used(job, time.time(), None if job.is_over else "cancelled") for job in listing}
        )
        hand_over_usage(gone)
        remove(gone)


def _count_unnoted(folder: Path, known: dict[str, Used | None]) -> None:
    """Note the usage of jobs that their supervisor did not come to note: from SLURM, or from their keepers."""
    noted = {line.job for line in read_usage(folder / USAGE)}
    lines = [line for job, line in known.items() if line is not None and job not in noted]
    try:
        orders = read_orders(folder)
    except (OSError, ValueError):
        orders = None
    for job, (note, seen_s) in read_jobs(folder).items():
        if job not in noted and known.get(job) is None and orders is not None:
            cores = orders.n_process * orders.n_thread
            lines.append(Used(job, note.host, cores, note.begin_s, seen_s, "lost"))
    append_usage(folder / USAGE, lines)
