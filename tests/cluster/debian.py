"""Debian packages that tests need."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def install(*packages: str) -> None:
    """Install packages; needs root."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with alone_with_apt():
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", *command], check=True, capture_output=True, env=quiet)


@contextmanager
def alone_with_apt() -> Iterator[None]:
    """Have other processes of the tests wait: apt-get does not wait for its own locks."""
    with Path(tempfile.gettempdir(), "nightbeam-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
