"""The fluence of a beam as an image in the beam's eye view."""

from dataclasses import dataclass

import numpy as np

from engine.model.arrays import F64
from engine.model.beam import BeamletGrid


@dataclass(frozen=True, slots=True)
class FluenceMap:
    """The fluence of one beam on the isocentre plane, seen from the source.

    Parameters
    ----------
    name
        Name of the beam.
    x_edges_mm, y_edges_mm
        Edges of the beamlets along the collimator's axes (IEC 61217), shapes (n_column + 1,) and (n_row + 1,).
    mu
        Monitor units of one fraction, NaN where there is no beamlet; shape (n_row, n_column).
    """

    name: str
    x_edges_mm: F64
    y_edges_mm: F64
    mu: F64


def fluence_map(name: str, beamlets: BeamletGrid, mu: F64) -> FluenceMap:
    """Put the values of all beamlets, shape (n_beamlet,), in their places."""
    column, row = beamlets.column - beamlets.column.min(), beamlets.row - beamlets.row.min()
    image = np.full((int(row.max()) + 1, int(column.max()) + 1), np.nan, dtype=np.float64)
    image[row, column] = mu
    size_x_mm, size_y_mm = beamlets.size_mm
    x_edges_mm = (
        np.arange(image.shape[1] + 1, dtype=np.float64) + float(beamlets.column.min()) - 0.5
    ) * size_x_mm
    y_edges_mm = (
        np.arange(image.shape[0] + 1, dtype=np.float64) + float(beamlets.row.min()) - 0.5
    ) * size_y_mm
    return FluenceMap(name, x_edges_mm, y_edges_mm, image)
