"""Debian packages that tests need."""

import os
import subprocess


def install(*packages: str) -> None:
    """Install packages; needs root."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        subprocess.run(["apt-get", *command], check=True, capture_output=True, env=quiet)
