"""The workers that a scheduler knows, and what to do when there are none."""

import time

from distributed import Client

from engine.errors import ClusterError

WORKER_WAIT_S = 60.0
"""How long a cluster may be without any worker before a run ends: local workers restart in some seconds."""


def known_workers(client: Client) -> list[str]:
    """Return the addresses of all workers, sorted; where the last one has left, wait for the next.

    Raises
    ------
    ClusterError
        If no worker comes.
    """
    deadline_s = time.monotonic() + WORKER_WAIT_S
    while True:
        workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
        if workers:
            return workers
        if time.monotonic() > deadline_s:
            raise ClusterError(
                f"the cluster has been without workers for {WORKER_WAIT_S:g} s (they were killed, or their time is "
                "up); look at their logs, start some, and start again: what is finished is kept"
            )
        time.sleep(0.1)
