"""What tests of whole commands share."""

from collections.abc import Iterator

import pytest

from tests.faults.environment import one_prefect_server


@pytest.fixture(scope="session")
def _prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with one_prefect_server(tmp_path_factory.mktemp("prefect")) as environment:
        yield environment


@pytest.fixture
def shared_prefect(_prefect: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the commands of this test use one Prefect server, as the start of their own is a third of their time."""
    for key, value in _prefect.items():
        monkeypatch.setenv(key, value)
