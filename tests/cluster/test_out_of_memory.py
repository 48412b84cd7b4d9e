"""The system's own killer, in a control group with little memory: told apart from any other end (needs root)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.site

LIMIT_BYTES = 1200 << 20
RUN = """
import os, sys
from pathlib import Path
Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))
import numpy as np
from cluster.open import Cluster
from cluster.submit import run_tasks
from engine.errors import ClusterError

def work(name):
    return np.ones(2 << 30, np.uint8).nbytes

cluster = Cluster("local", 1)
try:
    run_tasks(cluster.client(), work, ["hungry"], ends=cluster)
except ClusterError as error:
    print(error)
finally:
    cluster.close()
"""


@pytest.fixture
def group():
    """Yield a control group with little memory."""
    one = Path("/sys/fs/cgroup/memory")
    folder = (one if one.is_dir() else Path("/sys/fs/cgroup")) / f"nightbeam-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("memory.limit_in_bytes" if one.is_dir() else "memory.max")).write_text(str(LIMIT_BYTES))
    except OSError as error:
        pytest.skip(f"needs to make control groups, as root and not in every container: {error}")
    yield folder
    folder.rmdir()


def test_a_task_whose_worker_the_system_kills_for_want_of_memory_is_refused_with_the_numbers(group):
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(group)], capture_output=True, text=True, timeout=300, check=True
    )
    assert ran.stdout.startswith(
        "a task needs more memory than a worker has (hungry, alone and in its smallest piece): it used "
    )
    assert "killed by SIGKILL" in ran.stdout
