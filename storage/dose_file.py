"""Doses of experiments as one npz file that numpy alone can read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.model.arrays import F64


def write_dose_file(
    path: Path, dose_gy: F64, inside: F64, edges_mm_xyz: tuple[F64, F64, F64], meta: Mapping[str, Any]
) -> None:
    """Write a scored dose; to be seen whole or not at all, give it a path of `storage.whole_file`.

    Parameters
    ----------
    path
        The file.
    dose_gy
        Mean dose of every voxel, shape (n_z, n_y, n_x); ``meta`` says per what.
    inside
        Share of every voxel that lies inside phantom or body, same shape.
    edges_mm_xyz
        Voxel edges along x, y and z.
    meta
        Plain values that say what it is and where it comes from.
    """
    x_mm, y_mm, z_mm = edges_mm_xyz
    with path.open("wb") as stream:  # to a path, numpy would add a suffix
        np.savez_compressed(
            stream,
            dose_gy=dose_gy.astype(np.float32),
            inside=inside.astype(np.float32),
            x_edges_mm=x_mm,
            y_edges_mm=y_mm,
            z_edges_mm=z_mm,
            meta=np.array(json.dumps(meta, ensure_ascii=False, allow_nan=False)),
        )
