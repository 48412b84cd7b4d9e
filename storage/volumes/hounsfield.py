"""Whether numbers can be Hounsfield units: a file of voxels does not say."""

import numpy as np

from engine.errors import VolumeError
from engine.model.arrays import F32

AIR_BELOW_HU = -500.0
SOFT_TISSUE_HU = 300.0
LEAST_SOFT_TISSUE = 0.002
LOWEST_HU = -1024.0
"""The least a 12-bit CT number can say; scanners fill what they did not scan with less, such as -2000 or -3024."""
_LOWEST_CEILING_HU = 1500.0
"""Cortical bone reaches about 1500 HU: a CT cut off below it has lost the density of bone."""
_REAL_CT_VALUES = 500
_PILE_FACTOR = 20.0
_LEAST_PILE = 200
_PILE_WINDOW_HU = 50.0


def require_hounsfield(values: F32, file_name: str) -> tuple[F32, tuple[str, ...]]:
    """Return Hounsfield units, with padding raised to -1024, and notes; refuse what cannot be a CT of a patient.

    A planning CT holds the air around the patient and something like water. Images stored with an offset (0 to 4095),
    scaled to 0..1, windowed, or from other modalities lack one of both; images clipped below the density of bone show
    it by the voxels heaped up at their ceiling.

    Parameters
    ----------
    values
        The numbers of the file.
    file_name
        For messages.

    Raises
    ------
    VolumeError
        If the values are not finite or cannot be Hounsfield units of a patient in air.
    """
    if not np.isfinite(values).all():
        raise VolumeError(
            f"'{file_name}': the CT holds values that are not finite numbers; write it again without NaN"
        )
    low, high = float(values.min()), float(values.max())
    air = values < AIR_BELOW_HU
    if not air.any():
        raise VolumeError(
            f"'{file_name}': the values, {low:g} to {high:g}, cannot be Hounsfield units of a patient in air "
            f"(none is below {AIR_BELOW_HU:g}; air is -1000). {_likely(low, high)}"
        )
    soft = float((np.abs(values) <= SOFT_TISSUE_HU).mean())
    if soft < LEAST_SOFT_TISSUE:
        raise VolumeError(
            f"'{file_name}': the values, {low:g} to {high:g}, cannot be Hounsfield units of a patient: only "
            f"{100.0 * soft:.2g} % lie within {SOFT_TISSUE_HU:g} HU of water; undo what scaled or shifted them"
        )
    _require_bone(values, air, high, file_name)
    n_padding = int((values < LOWEST_HU).sum())
    if not n_padding:
        return values, ()
    return np.maximum(values, np.float32(LOWEST_HU)), (
        f"{n_padding} voxels below {LOWEST_HU:.0f} HU (padding around the scanned circle) were raised to it",
    )


def _likely(low: float, high: float) -> str:
    if low >= 0.0 and high <= 1.0:
        return "They look scaled to 0..1: write the original numbers"
    if low >= 0.0 and 1000.0 < high <= 65535.0:
        return "They look like stored numbers with an offset: subtract it (often 1024 or 1000)"
    return "They look windowed or of another modality: write the original numbers of the planning CT"


def _require_bone(
    values: F32, air: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], high: float, file_name: str
) -> None:
    """Refuse a CT that was clipped below the density of bone."""
    if high >= _LOWEST_CEILING_HU:
        return
    below = values[~air & (values < high)]
    below = below[below >= high - _PILE_WINDOW_HU]
    n_top = int((values == high).sum())
    # Phantoms are made of few values, each of them a heap.
    if np.unique(values[::2, ::2, ::2]).size < _REAL_CT_VALUES or below.size == 0:
        return
    if n_top >= _LEAST_PILE and n_top > _PILE_FACTOR * below.size / _PILE_WINDOW_HU:
        raise VolumeError(
            f"'{file_name}': the CT was clipped at {high:g} HU ({n_top} voxels have exactly this value), so that the "
            "density of bone is lost and dose would be wrong; write the original numbers"
        )
