"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest


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
