"""Many Dask workers in one process that answer after a given time and compute nothing.

``python -m benchmarks.stub_workers CERTIFICATE FIRST NUMBER`` reads the address from standard input, starts workers
FIRST, FIRST + 1, ..., and says ``joined``. They are Dask's own `Worker` objects, so what they say to the scheduler, and
how often, is what real ones say; what they would look at on their own machine (profiles, memory) is switched off. To
each further line it answers with the messages and bytes it has written and read, as JSON; it ends when the lines do.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np

from benchmarks.processes import Traffic
from engine.model.arrays import F64
from engine.optimise.group import Question


@dataclass(frozen=True)
class StubTask:
    """As many bytes as a task of a study, and the time to answer after."""

    payload: bytes
    task_s: float


async def answer(task: StubTask) -> list[str]:
    """Return a small record after the task's time: on the worker's loop, so that a thousand need no threads."""
    await asyncio.sleep(task.task_s)
    return ["0" * 64]


@dataclass(frozen=True)
class StubGroup:
    """Answers for a reduction group: zeros of the right shapes, half of the time for sums, half for gradients."""

    n_beamlet: int
    evaluation_s: float
    n_bytes: int = 0

    def sums(self, questions: Sequence[Question]) -> list[F64]:
        """Return partial sums."""
        time.sleep(self.evaluation_s / 2.0)
        return [np.zeros((question.n_sum, question.n_state)) for question in questions]

    def gradients(self, questions: Sequence[Question], slopes: Sequence[F64]) -> list[F64]:
        """Return parts of gradients."""
        time.sleep(self.evaluation_s / 2.0)
        return [np.zeros(self.n_beamlet) for _ in questions]


@dataclass(frozen=True)
class StubLoader:
    """The `cluster.rows_actor.GroupLoader` of stubs."""

    n_beamlet: int
    evaluation_s: float

    def __call__(self, groups: Sequence[int]) -> list[StubGroup]:
        """Return stubs for some groups."""
        return [StubGroup(self.n_beamlet, self.evaluation_s) for _ in groups]


async def _work(certificate: Path, first: int, number: int) -> None:
    from distributed import Worker

    from cluster.security import security

    loop = asyncio.get_running_loop()
    address = (await loop.run_in_executor(None, sys.stdin.readline)).strip()
    traffic = Traffic()
    workers = [
        Worker(
            address, name=f"stub {first + i}", nthreads=1, host="127.0.0.1",
            dashboard_address="127.0.0.1:0", memory_limit=None, protocol="tls", security=security(certificate),
        )
        for i in range(number)
    ]  # fmt: skip
    for begin in range(0, number, 10):
        await asyncio.gather(*workers[begin : begin + 10])
    print("joined", flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(traffic.now()), flush=True)
    for begin in range(0, number, 50):
        await asyncio.gather(*(worker.close(nanny=False) for worker in workers[begin : begin + 50]))


def main() -> None:
    """Run the workers until standard input ends."""
    import distributed  # noqa: F401  (sets the levels of its loggers)

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    quiet = {
        "distributed.worker.profile.enabled": False,
        # Each worker would look through the scratch folders of all others.
        "distributed.worker.use-file-locking": False,
        "distributed.admin.system-monitor.interval": "60s",
        "distributed.worker.http.routes": [],
        "distributed.admin.tick.interval": "1s",
        "distributed.admin.tick.cycle": "10s",
    }
    with dask.config.set(quiet):
        asyncio.run(_work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))


if __name__ == "__main__":
    main()
