"""The development SLURM (deploy/slurm) as tests use it: a folder of its own, free ports, stopped at the end."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.debian import alone_with_apt

REPOSITORY = Path(__file__).parents[2]
_PROGRAM = REPOSITORY / "deploy" / "slurm" / "dev_slurm.py"
_FIRST_PORT, _LAST_PORT = 21000, 29000


@dataclass(frozen=True)
class Job:
    """A job as squeue lists it."""

    number: str
    name: str
    state: str
    node: str
    folder: str


class OneMachine:
    """A SLURM of one machine.

    Parameters
    ----------
    folder
        Where it keeps everything. A short path: there is a socket inside.
    n_node, n_core
        Virtual nodes, and cores of each.
    """

    def __init__(self, folder: Path, n_node: int = 2, n_core: int = 2) -> None:
        self.folder = folder
        self.nodes = [f"dev{number}" for number in range(1, n_node + 1)]
        self.n_core = n_core
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_DEV_STATE": str(folder),
            "SLURM_DEV_PORT": str(_free_ports(1 + n_node)),
            "SLURM_DEV_NODES": str(n_node),
            "SLURM_DEV_CPUS": str(n_core),
            # SLURM looks whether a grace is over once in half a minute.
            "SLURM_DEV_GRACE": "0",
            "SLURM_DEV_NODE_TIMEOUT": "10",
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def do(self, *arguments: str) -> str:
        """Give a command of `dev_slurm.py`, and return what it says."""
        done = subprocess.run(
            [sys.executable, str(_PROGRAM), *arguments],
            capture_output=True, text=True, timeout=600, check=False, env=self.environment,
        )  # fmt: skip
        assert done.returncode == 0, f"dev_slurm.py {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def says(self, *command: str) -> str:
        """Return what a command of SLURM says, with patience: a controller may be away for a moment."""
        for left in reversed(range(30)):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, env=self.environment
            )
            if done.returncode == 0:
                return done.stdout
            if not left:
                break
            time.sleep(0.5)
        raise AssertionError(f"{' '.join(command)}: {done.stderr}")

    def jobs(self, folder: Path | None = None, *states: str) -> list[Job]:
        """Return the jobs that are not over, of a working directory or all; of some states only if any is given."""
        lines = self.says("squeue", "-h", "-o", "%A|%j|%T|%N|%Z").splitlines()
        jobs = [Job(*line.split("|")) for line in lines]
        return [
            job
            for job in jobs
            if (folder is None or Path(job.folder).is_relative_to(folder))
            and (not states or job.state in states)
        ]

    def submit(self, *arguments: str) -> str:
        """Submit a job, and return its number."""
        return self.says(
            "sbatch", "--parsable", f"--chdir={self.folder}", "--output=/dev/null", *arguments
        ).strip()

    def all_up(self) -> bool:
        """Return whether every node can take jobs."""
        states = self.says("sinfo", "-h", "-N", "-p", "batch", "-o", "%t").split()
        return len(states) == len(self.nodes) and all(state in ("idle", "mix", "alloc") for state in states)


@contextmanager
def one_machine(n_node: int = 2, n_core: int = 2) -> Iterator[OneMachine]:
    """Start one, yield it, and stop it."""
    folder = Path(tempfile.mkdtemp(prefix="nightbeam-slurm-"))
    slurm = OneMachine(folder, n_node, n_core)
    try:
        with alone_with_apt():
            slurm.do("start")
        yield slurm
    finally:
        slurm.do("stop", "--purge")
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: Callable[[], object], what: str, limit_s: float = 300.0) -> None:
    """Wait for something, and fail if it does not happen."""
    until_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < until_s, f"within {limit_s:g} s it did not happen: {what}"
        time.sleep(0.1)


def _free_ports(number: int) -> int:
    """Return the first of some free ports in a row."""
    start = _FIRST_PORT + (os.getpid() * 16) % (_LAST_PORT - _FIRST_PORT)
    for first in [*range(start, _LAST_PORT, 16), *range(_FIRST_PORT, start, 16)]:
        if all(_is_free(port) for port in range(first, first + number)):
            return first
    raise AssertionError("there are no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
