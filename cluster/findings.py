"""What is wrong with workers, in sentences that say what to do."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from distributed import Client, WorkerPlugin

from cluster.memory import BASE_BYTES, gib
from cluster.preflight import Worker, look_at_workers
from cluster.seen import Seen, digest_of_packages, see
from engine.errors import ClusterError

_LEAST_SCRATCH_BYTES = 1 << 30
_LEAST_MEMORY_BYTES = BASE_BYTES + (256 << 20)
_MOST_CLOCK_S = 30.0


def complaints(workers: Sequence[Worker], here: Seen) -> list[str]:
    """Return what is wrong, one sentence each, with what to do.

    Parameters
    ----------
    workers
        From `look_at_workers`.
    here
        The planning process.
    """
    wrong = other_code(workers, here)
    for worker in workers:
        seen = worker.seen
        if seen is None:
            continue
        if worker.n_thread > seen.n_core:
            wrong.append(
                f"worker {worker.name} has {worker.n_thread} threads but may use {seen.n_core} cores; give its job "
                "more cores, or start it with fewer threads"
            )
        usable = min(seen.free_bytes, worker.limit_bytes or seen.free_bytes)
        if usable < _LEAST_MEMORY_BYTES:
            wrong.append(
                f"worker {worker.name} has {gib(usable)} of memory left, and needs {gib(_LEAST_MEMORY_BYTES)} at the "
                "very least; give it more, or end what else uses it"
            )
        if seen.scratch_trouble:
            wrong.append(
                f"worker {worker.name} cannot write to its scratch folder {seen.scratch} ({seen.scratch_trouble}); "
                "name another one (scratch in the SLURM file, or TMPDIR)"
            )
        elif seen.scratch_bytes < _LEAST_SCRATCH_BYTES:
            wrong.append(
                f"worker {worker.name} has {gib(seen.scratch_bytes)} free in its scratch folder {seen.scratch}; free "
                "some, or name another one (scratch in the SLURM file, or TMPDIR)"
            )
        if abs(worker.clock_s) > _MOST_CLOCK_S:
            wrong.append(
                f"the clock of worker {worker.name} is {abs(worker.clock_s):.0f} s "
                f"{'ahead of' if worker.clock_s > 0.0 else 'behind'} this machine's; have both set by NTP"
            )
        if worker.trouble:
            wrong.append(
                f"worker {worker.name} could not do the known job: {worker.trouble}; look at its log"
            )
    return wrong + other_bits(workers)


def other_code(workers: Sequence[Worker], here: Seen) -> list[str]:
    """Return which workers have other code or libraries than the planning process."""
    wrong = []
    for worker in workers:
        seen = worker.seen
        if seen is None:
            wrong.append(
                f"worker {worker.name} does not have this nightbeam: {worker.trouble}; start it with the same Python "
                "environment as the planning process"
            )
            continue
        if seen.code != here.code:
            wrong.append(
                f"worker {worker.name} has other code ({seen.code} in {seen.folder}; here {here.code} in {here.folder})"
                "; start it from the same installation"
            )
        ours = {"Python": here.python, **here.libraries}
        theirs = {"Python": seen.python, **seen.libraries}
        differing = [
            f"{name} {theirs[name]} (here {ours[name]})" for name in ours if theirs.get(name) != ours[name]
        ]
        if differing:
            wrong.append(
                f"worker {worker.name} has other versions: {', '.join(differing)}; install the same requirements.lock "
                "there"
            )
    return wrong


def other_bits(workers: Sequence[Worker]) -> list[str]:
    """Return whether the known job has given different bits, and on which processors."""
    by_bits: dict[str, list[Worker]] = {}
    for worker in workers:
        if worker.bits:
            by_bits.setdefault(worker.bits, []).append(worker)
    if len(by_bits) < 2:
        return []
    groups = [
        f"{bits} on {', '.join(sorted({w.seen.processor if w.seen else '?' for w in group}))} "
        f"({', '.join(w.name for w in group)})"
        for bits, group in sorted(by_bits.items(), key=lambda item: -len(item[1]))
    ]
    return [
        f"the known job has different bits: {'; '.join(groups)}; the same answer to the last bit needs one kind of "
        'processor: have SLURM choose it (directives = ["--constraint=..."])'
    ]


def require_same_code(client: Client) -> list[str]:
    """Compare code, versions and bits of all workers before a run, and return what is worth a notice.

    Raises
    ------
    ClusterError
        If workers have other code or libraries: what they compute would be kept under this program's name.
    """
    workers = look_at_workers(client, clocks=False)
    wrong = other_code(workers, see())
    if wrong:
        raise ClusterError("; ".join(wrong))
    return other_bits(workers)


class SameCode(WorkerPlugin):
    """Ends workers that join later with other code, such as that of an update in the middle of the night."""

    name = "nightbeam-code"

    def __init__(self) -> None:
        self.code, self.folder = digest_of_packages(), see().folder

    def setup(self, worker: Any) -> None:
        """Look at the worker; one that is refused must not take a single task."""
        here = see()
        if here.code != self.code:
            print(
                f"nightbeam: this worker has other code ({here.code} in {here.folder}) than its planning process "
                f"({self.code} in {self.folder}); give the command again when the installation stays as it is",
                file=sys.stderr,
                flush=True,
            )
            os._exit(2)
