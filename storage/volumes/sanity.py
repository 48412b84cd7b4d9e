"""What no file of voxels has: refused before memory is filled, with one message that names the file."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from engine.errors import NightbeamError, VolumeError, printable, shortened
from engine.model.grid import Grid
from storage.dicom.sanity import (
    LARGEST_COORDINATE_MM,
    LARGEST_N_VOXEL,
    LARGEST_SPACING_MM,
    SMALLEST_SPACING_MM,
)

LARGEST_FILE_BYTES = 4 << 30
LARGEST_HELD_BYTES = 4 << 30
"""Of all numbers in a file, unpacked."""
LARGEST_TABLE_BYTES = 1 << 20
MOST_STRUCTURES = 500
LARGEST_PACKING = 1100
"""Deflate packs at most 1032 bytes into one (https://zlib.net/zlib_tech.html)."""
_NAME_LENGTH = 64


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what libraries raise on damaged files into an error that names the file.

    Raises
    ------
    VolumeError
        If anything but a deliberate error or one of the system comes up; also for deliberate ones that name no file.
    """
    try:
        yield
    except VolumeError:
        raise
    except NightbeamError as error:
        raise VolumeError(f"'{path.name}': {error}") from error
    except MemoryError as error:
        raise VolumeError(
            f"'{path.name}' needs more memory than there is (damaged?): write it again"
        ) from error
    except OSError:
        raise
    except Exception as error:  # no list of what damaged files bring up is complete
        raise VolumeError(
            f"'{path.name}' cannot be understood ({type(error).__name__}: {shortened(str(error))}): damaged, or none "
            "of these files; write it again"
        ) from error


@contextmanager
def without_chatter() -> Iterator[None]:
    """Keep what libraries in C print on damaged files from the terminal; they raise errors as well."""
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    saved = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)


def require_file(path: Path, largest_bytes: int = LARGEST_FILE_BYTES) -> None:
    """Refuse what is no file (a pipe would be waited for) or far too large.

    Raises
    ------
    VolumeError
        If so.
    """
    if not path.is_file():
        raise VolumeError(f"'{path.name}' is no file (a pipe, a device or a folder?): give a file")
    size_bytes = path.stat().st_size
    if size_bytes > largest_bytes:
        raise VolumeError(
            f"'{path.name}' has {size_bytes / (1 << 20):.0f} MiB (at most {largest_bytes >> 20} are read): write fewer "
            "or coarser voxels"
        )


def require_held(path: Path, n_voxel: int, n_byte: int) -> None:
    """Refuse a file that says it holds more than an image can be.

    Raises
    ------
    VolumeError
        If so.
    """
    if n_voxel > LARGEST_N_VOXEL or n_byte > LARGEST_HELD_BYTES:
        raise VolumeError(
            f"'{path.name}' says it holds {n_voxel} voxels in {n_byte / (1 << 30):.1f} GiB (at most {LARGEST_N_VOXEL} "
            f"in {LARGEST_HELD_BYTES >> 30} GiB are read): write fewer or coarser voxels"
        )


def require_packed(path: Path, file_bytes: int, n_byte: int) -> None:
    """Refuse a file that cannot hold what it says, before memory is taken for it.

    Raises
    ------
    VolumeError
        If so.
    """
    if n_byte > LARGEST_PACKING * file_bytes:
        raise VolumeError(
            f"'{path.name}' says it holds {n_byte} bytes of voxels, and has {file_bytes}: damaged or cut short; write "
            "it again"
        )


def require_place(path: Path, grid: Grid) -> None:
    """Refuse voxels of no reasonable size, or far from any scanner.

    Raises
    ------
    VolumeError
        If so.
    """
    spacing_mm = grid.spacing_mm_xyz
    if not SMALLEST_SPACING_MM <= min(spacing_mm) <= max(spacing_mm) <= LARGEST_SPACING_MM:
        raise VolumeError(
            f"'{path.name}' has voxels of {' × '.join(f'{v:g}' for v in spacing_mm)} mm (from {SMALLEST_SPACING_MM} to "
            f"{LARGEST_SPACING_MM:g} mm can be): write it again in mm"
        )
    if max(np.abs(grid.origin_mm_xyz)) > LARGEST_COORDINATE_MM:
        raise VolumeError(
            f"'{path.name}' begins at {grid.origin_mm_xyz} mm (more than {LARGEST_COORDINATE_MM / 1000:.0f} m away): "
            "write it again in mm"
        )


def shown_name(name: str) -> str:
    """Return a structure's name without control characters and of at most the 64 characters that DICOM gives it."""
    return printable(name)[:_NAME_LENGTH]
