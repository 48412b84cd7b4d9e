"""One Prefect server for many commands, because its start is the longest wait of a small run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flows.prefect_server import QUIET, EmbeddedServer


@contextmanager
def one_prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """Start one, and yield the environment of commands that use it."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in QUIET.items():
            patch.setenv(key, value)
        server = EmbeddedServer(home)
        try:
            server.wait()
            yield {
                **QUIET,
                "PREFECT_API_URL": server.url,
                "PREFECT_API_AUTH_STRING": server.password,
                "PREFECT_HOME": str(home),
                "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
            }
        finally:
            server.stop()
