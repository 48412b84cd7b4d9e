"""The file that says how a site's SLURM is used: partition, walltime, size and number of worker jobs."""

import re
import sys
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from engine.errors import StudyError
from engine.spec.base import Spec
from engine.spec.reading import read_spec

KEEPER_BYTES = 256 << 20
"""Of a job's memory, what is left to the keeper and to SLURM's own processes."""
_SHARE_PLANNED = 0.9
"""Of what a worker may use before its keeper kills it, a run may plan to use so much."""
_SHORTEST_S = 60
_NAME = re.compile(r"[^\s\"'\\;|&$`]+")
_WALLTIME = re.compile(
    r"(?:(?P<days>\d+)-(?P<day_h>\d+)(?::(?P<day_min>\d+))?(?::(?P<day_s>\d+))?"
    r"|(?:(?P<h>\d+):)?(?P<min>\d+):(?P<s>\d+)|(?P<only_min>\d+))"
)
# Options that have keys: given twice, nobody would know which one counts.
_KEY_OF_OPTION = {
    "--time": "walltime", "-t": "walltime",
    "--partition": "partition", "-p": "partition",
    "--account": "account", "-A": "account",
    "--qos": "qos", "-q": "qos",
    "--cpus-per-task": "cores", "-c": "cores",
    "--mem": "memory_gib", "--mem-per-cpu": "memory_gib",
    "--output": "logs", "-o": "logs", "--error": "logs", "-e": "logs",
}  # fmt: skip
_OURS = (
    "--job-name",
    "-J",
    "--ntasks",
    "-n",
    "--nodes",
    "-N",
    "--array",
    "-a",
    "--requeue",
    "--no-requeue",
    "--clusters",
    "-M",
)


def walltime_s(text: str) -> int:
    """Return the seconds of a walltime as sbatch writes it.

    Parameters
    ----------
    text
        ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``, ``days-hours:minutes`` or
        ``days-hours:minutes:seconds``.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    found = _WALLTIME.fullmatch(text)
    if not found:
        raise ValueError(
            f"'{text}' is no walltime; write hours:minutes:seconds such as '08:00:00', or days-hours such as '2-00'"
        )
    part = {name: int(value or 0) for name, value in found.groupdict().items()}
    hours = part["days"] * 24 + part["day_h"] + part["h"]
    minutes = part["day_min"] + part["min"] + part["only_min"]
    return (hours * 60 + minutes) * 60 + part["day_s"] + part["s"]


def _good_walltime(text: str) -> str:
    if walltime_s(text) < _SHORTEST_S:
        raise ValueError(f"walltime = '{text}' is less than a minute; SLURM counts in minutes")
    return text


def _good_directives(options: tuple[str, ...]) -> tuple[str, ...]:
    for text in options:
        option = re.split(r"[=\s]", text, maxsplit=1)[0]
        if not option.startswith("-") or "\n" in text:
            raise ValueError(
                f"'{text}' is no option of sbatch; write it without #SBATCH, such as '--constraint=avx512'"
            )
        if option in _KEY_OF_OPTION:
            raise ValueError(f"'{text}' has a key of its own: use {_KEY_OF_OPTION[option]}")
        if option in _OURS:
            raise ValueError(f"'{text}' cannot be set: nightbeam needs {option} itself")
    return options


def _good_name(text: str | None) -> str | None:
    if text is not None and not _NAME.fullmatch(text):
        raise ValueError(
            f"'{text}' is no name that SLURM could know; names have no spaces and no quotation marks"
        )
    return text


class Controller(Spec):
    """The job of the planning process itself (nightbeam submit)."""

    partition: str | None = Field(default=None, description="partition; the worker jobs' one if absent")
    walltime: str = Field(
        default="1-00:00:00", description="walltime; the job starts itself again when it ends"
    )
    cores: int = Field(default=1, ge=1, description="cores")
    memory_gib: float = Field(default=4.0, ge=1.0, description="memory in GiB")
    directives: tuple[str, ...] = Field(default=(), description="further options of sbatch")

    _walltime = field_validator("walltime")(_good_walltime)
    _names = field_validator("partition")(_good_name)
    _directives = field_validator("directives")(_good_directives)


class SlurmSite(Spec):
    """How a site's SLURM is used."""

    keys_command: ClassVar[str] = "nightbeam cluster keys"

    cores: int = Field(ge=1, description="cores of each worker job")
    memory_gib: float = Field(ge=1.0, description="memory of each worker job in GiB")
    processes: int = Field(
        default=1, ge=1, description="worker processes of a job; they share its cores and memory"
    )
    jobs: int | None = Field(
        default=None, ge=1, description="worker jobs; 4 if nothing is said of their number"
    )
    jobs_min: int | None = Field(
        default=None, ge=1, description="fewest worker jobs, if their number follows the work"
    )
    jobs_max: int | None = Field(
        default=None, ge=1, description="most worker jobs, if their number follows the work"
    )
    walltime: str = Field(default="08:00:00", description="walltime of each worker job, as sbatch writes it")
    partition: str | None = Field(default=None, description="partition; SLURM's default if absent")
    account: str | None = Field(default=None, description="account that is charged")
    qos: str | None = Field(default=None, description="quality of service")
    directives: tuple[str, ...] = Field(
        default=(), description="further options of sbatch, such as '--constraint=avx512'"
    )
    setup: tuple[str, ...] = Field(
        default=(), description="shell lines that run in a job before the worker starts"
    )
    python: str = Field(
        default=sys.executable, description="Python of the workers; that of nightbeam if absent"
    )
    scratch: str | None = Field(
        default=None,
        description="folder on the node for temporary files and compiled code; may hold ~ and $VARIABLES",
    )
    interface: str | None = Field(
        default=None, description="network interface, such as 'ib0'; that of the default route if absent"
    )
    ports: tuple[int, int] | None = Field(
        default=None, description="first and last port to listen on; any if absent"
    )
    start: Literal["sbatch", "srun"] = Field(
        default="sbatch",
        description="submit worker jobs, or start them by srun inside the allocation that exists",
    )
    logs: str | None = Field(
        default=None,
        description="folder of the jobs' logs; if absent in the store, and removed after a good end",
    )
    controller: Controller = Field(default=Controller(), description="the job of the planning process itself")

    _walltime = field_validator("walltime")(_good_walltime)
    _names = field_validator("partition", "account", "qos", "interface")(_good_name)
    _directives = field_validator("directives")(_good_directives)

    @field_validator("setup")
    @classmethod
    def _one_line_each(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        for line in lines:
            if "\n" in line or "\r" in line:
                raise ValueError(f"{line!r} has a line end; write one array entry for each line")
        return lines

    @model_validator(mode="after")
    def _is_possible(self) -> "SlurmSite":
        if self.jobs is not None and (self.jobs_min is not None or self.jobs_max is not None):
            raise ValueError("give jobs, or jobs_min and jobs_max, but not both")
        if (self.jobs_min is None) != (self.jobs_max is None):
            raise ValueError("jobs_min and jobs_max need each other")
        if self.jobs_min is not None and self.jobs_max is not None and self.jobs_min > self.jobs_max:
            raise ValueError(f"jobs_min = {self.jobs_min} is more than jobs_max = {self.jobs_max}")
        if self.cores % self.processes:
            raise ValueError(f"cores = {self.cores} cannot be shared equally by processes = {self.processes}")
        if self.worker_bytes <= 0.5 * (1 << 30):
            raise ValueError(
                f"memory_gib = {self.memory_gib:g} leaves less than half a GiB to each of {self.processes} processes"
            )
        if self.ports is not None:
            first, last = self.ports
            if not 1024 <= first <= last <= 65535:
                raise ValueError(f"ports = [{first}, {last}] is no range of ports between 1024 and 65535")
            if last - first + 1 < self.processes + 1:
                raise ValueError(
                    f"ports = [{first}, {last}] has fewer ports than {self.processes} processes and the scheduler need"
                )
        return self

    @property
    def n_job_min(self) -> int:
        """Fewest worker jobs."""
        return self.jobs_min or self.jobs or 4

    @property
    def n_job_max(self) -> int:
        """Most worker jobs."""
        return self.jobs_max or self.jobs or 4

    @property
    def n_thread(self) -> int:
        """Threads of each worker process."""
        return self.cores // self.processes

    @property
    def walltime_s(self) -> int:
        """Walltime of a worker job."""
        return walltime_s(self.walltime)

    @property
    def worker_bytes(self) -> int:
        """Memory that a worker process may use before its keeper kills it."""
        return (int(self.memory_gib * (1 << 30)) - KEEPER_BYTES) // self.processes

    @property
    def planned_bytes(self) -> int:
        """Memory of a worker process that a run may plan to use."""
        return int(self.worker_bytes * _SHARE_PLANNED)


def read_site(path: Path) -> SlurmSite:
    """Read the file of a site.

    Raises
    ------
    StudyError
        If it cannot be read or says what cannot be; the message lists every mistake with the line of its key.
    """
    if not path.is_file():
        raise StudyError(f"there is no cluster file {path}; examples/slurm.toml is one to begin with")
    return read_spec(path, SlurmSite, "a SLURM cluster")
