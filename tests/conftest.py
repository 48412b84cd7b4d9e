"""Fixtures that all tests share."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("nightbeam", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("nightbeam")


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Return the folder of outside data that NIGHTBEAM_REFERENCE_DATA names, or skip."""
    folder = os.environ.get("NIGHTBEAM_REFERENCE_DATA")
    if not folder:
        pytest.skip(
            "needs outside data: set NIGHTBEAM_REFERENCE_DATA to the folder with dicom/, cases/, reference/"
        )
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"NIGHTBEAM_REFERENCE_DATA={folder} is not a folder")
    return path.resolve()


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return a function that mounts a file system of its own: ``mount(folder, "size=4m")``; undone at the end.

    Called again for the same folder, it changes the options. Skips where mounting is not permitted.
    """
    mounted: list[Path] = []

    def mount_memory(folder: Path, options: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("needs root, to mount a file system of its own")
        folder.mkdir(exist_ok=True)
        command = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"{'remount,' * (folder in mounted)}{options}",
            "none",
            folder,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        if folder not in mounted:
            mounted.append(folder)
        return folder

    yield mount_memory
    for folder in reversed(mounted):
        subprocess.run(["umount", folder], check=True)
