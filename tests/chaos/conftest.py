"""Chaos takes long and needs root: it runs in `make test-chaos` only."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import prefect, require_slurm
from tests.cluster.one_machine import OneMachine, one_machine

__all__ = ["prefect"]
_HERE = Path(__file__).parent


# First, so that the marker is there when markers are looked at.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.chaos)


@pytest.fixture(scope="session")
def slurm() -> Iterator[OneMachine]:
    """Return a running SLURM with room for some runs side by side."""
    require_slurm()
    with one_machine(n_node=4, n_core=3) as machine:
        yield machine
