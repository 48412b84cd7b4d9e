"""Everything here is a test of a site: it needs root and Debian's packages, and runs in `make test-cluster` only."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.debian import install, lacks
from tests.cluster.one_machine import OneMachine, one_machine
from tests.faults.environment import one_prefect_server
from tests.faults.trial import PLAN, uninterrupted

_HERE = Path(__file__).parent


# First, so that the marker is there when markers are looked at.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.site)


def require_slurm() -> None:
    """Have Debian's SLURM, or skip."""
    if os.geteuid() != 0:
        lacks("needs root, to run SLURM's daemons")
    if any(shutil.which(program) is None for program in ("munged", "slurmctld", "slurmd", "sbatch")):
        install("munge", "slurmctld", "slurmd", "slurm-client")


@pytest.fixture(scope="session")
def slurm() -> Iterator[OneMachine]:
    """Return a running SLURM of two nodes with two cores each."""
    require_slurm()
    with one_machine() as machine:
        yield machine


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return the environment of commands that share one Prefect server, because its start is the longest wait."""
    with one_prefect_server(tmp_path_factory.mktemp("prefect")) as environment:
        yield environment


@pytest.fixture(scope="session")
def small_study() -> str:
    """Return the text of the study that is planned on SLURM: three scenarios, soon judged."""
    return PLAN.replace("\ngrid_mm = 8.0", "\ngrid_mm = 4.0")


@pytest.fixture(scope="session")
def quiet(small_study: str, prefect: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a quiet local run of that study."""
    return uninterrupted("plan", small_study, tmp_path_factory.mktemp("quiet"), prefect, limit_s=550.0)
