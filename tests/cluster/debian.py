"""Debian packages that tests need."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest


def lacks(what: str) -> NoReturn:
    """Skip a test that cannot be run here; with NIGHTBEAM_SITE_TESTS=required, fail it."""
    (pytest.fail if os.environ.get("NIGHTBEAM_SITE_TESTS") == "required" else pytest.skip)(what)


def install(*packages: str) -> None:
    """Install packages, or say that the test lacks them."""
    wanted = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        lacks(f"needs root and apt-get, to install {wanted}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with alone_with_apt():
        for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(
                ["apt-get", *command], capture_output=True, text=True, check=False, env=quiet
            )
            if done.returncode != 0:
                lacks(f"apt-get cannot install {wanted}: {done.stderr.strip()[-300:]}")


@contextmanager
def alone_with_apt() -> Iterator[None]:
    """Have other processes of the tests wait: apt-get does not wait for its own locks."""
    with Path(tempfile.gettempdir(), "nightbeam-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
