"""Cumulative dose-volume histograms over voxels that may belong to a structure in part."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.errors import CaseError
from engine.model.arrays import F64
from engine.units import MM3_PER_CM3, PERCENT

ROUNDING_FRACTION = 1e-6
"""Doses are stored as float32 (relative spacing up to 1.2e-7): this close below a limit has reached it."""
N_BIN = 400
"""Number of steps of a curve that is sampled for a plot."""


@dataclass(frozen=True, slots=True)
class Dvh:
    """The exact cumulative dose-volume histogram of one structure.

    A voxel counts with the part of its volume that lies inside the structure; what has one dose is called a voxel here,
    even if it is a part of one (`engine.evaluate.subvoxel`).

    Parameters
    ----------
    structure
        Name, for messages.
    dose_gy
        Dose of every voxel that the structure touches, ascending; shape (n_voxel,).
    volume_cc
        Volume of the structure in each of those voxels, same order and shape, all positive.
    hotter_cc
        Volume of all hotter voxels and of half of this one, same order and shape (so descending).
    """

    structure: str
    dose_gy: F64
    volume_cc: F64
    hotter_cc: F64

    @classmethod
    def from_voxels(
        cls,
        structure: str,
        dose_gy: npt.NDArray[np.floating],
        coverage: npt.NDArray[np.floating],
        voxel_volume_mm3: float,
    ) -> "Dvh":
        """Sort the voxels of a structure by dose.

        Parameters
        ----------
        structure
            Name, for messages.
        dose_gy, coverage
            Dose, and fraction of the voxel inside the structure, of every voxel; same shape.
        voxel_volume_mm3
            Volume of a whole voxel.

        Raises
        ------
        CaseError
            If the structure is empty, shapes differ, or a dose is not finite.
        """
        if dose_gy.shape != coverage.shape:
            raise CaseError(
                f"dose of shape {dose_gy.shape} does not fit '{structure}' of shape {coverage.shape}"
            )
        inside = coverage > 0.0
        dose = dose_gy[inside].astype(np.float64)
        volume_cc = coverage[inside].astype(np.float64) * (voxel_volume_mm3 / MM3_PER_CM3)
        if dose.size == 0:
            raise CaseError(
                f"structure '{structure}' has no dose-volume histogram (it is empty on this grid) "
                "leave it out or use a finer grid"
            )
        if not np.isfinite(dose).all():
            raise CaseError(f"the dose in '{structure}' holds values that are not finite numbers")
        order = np.argsort(dose, kind="stable")
        dose, volume_cc = dose[order], volume_cc[order]
        hotter_cc = np.cumsum(volume_cc[::-1])[::-1] - 0.5 * volume_cc
        return cls(structure, dose, volume_cc, hotter_cc)

    @property
    def total_cc(self) -> float:
        """Volume of the structure."""
        return float(self.hotter_cc[0] + 0.5 * self.volume_cc[0])

    @property
    def mean_gy(self) -> float:
        """Mean dose, weighted with volume."""
        return float(np.dot(self.dose_gy, self.volume_cc) / self.volume_cc.sum())

    @property
    def min_gy(self) -> float:
        """Lowest dose among all voxels that the structure touches."""
        return float(self.dose_gy[0])

    @property
    def max_gy(self) -> float:
        """Highest dose among all voxels that the structure touches."""
        return float(self.dose_gy[-1])

    def dose_at_volume_gy(self, volume_cc: float) -> float:
        """Return the dose D_V that the hottest ``volume_cc`` receive at least.

        Linear between voxels: the dose of a voxel is reached at the middle of its share of the cumulated
        volume. Before the middle of the hottest and behind that of the coldest voxel the dose is constant.
        The result is at most half of one voxel volume away from the step function of the voxels.

        Raises
        ------
        CaseError
            If the structure is smaller than ``volume_cc``.
        """
        if volume_cc > self.total_cc * (1.0 + ROUNDING_FRACTION):
            raise CaseError(
                f"D{volume_cc:g}cc has no meaning for '{self.structure}' (which has {self.total_cc:.3g} cc) "
                "ask for a smaller volume or for a percentage"
            )
        return float(np.interp(volume_cc, self.hotter_cc[::-1], self.dose_gy[::-1]))

    def dose_at_percent_gy(self, volume_percent: float) -> float:
        """Return the dose that the hottest ``volume_percent`` of the structure receive at least."""
        return self.dose_at_volume_gy(self.total_cc * volume_percent / PERCENT)

    def volume_at_dose_cc(self, dose_gy: npt.ArrayLike) -> F64:
        """Return the volume of all voxels with at least ``dose_gy``, same shape as that.

        The exact sum over voxels, without interpolation; see `ROUNDING_FRACTION` for equality.
        """
        limit_gy = np.asarray(dose_gy, dtype=np.float64) * (1.0 - ROUNDING_FRACTION)
        from_here_cc = np.append(self.hotter_cc + 0.5 * self.volume_cc, 0.0)
        return np.asarray(
            from_here_cc[np.searchsorted(self.dose_gy, limit_gy, side="left")], dtype=np.float64
        )

    def curve_percent(self, axis_gy: F64) -> F64:
        """Return the cumulative curve in percent of the volume at the doses ``axis_gy``, for plots."""
        return self.volume_at_dose_cc(axis_gy) * (PERCENT / self.total_cc)


def dose_axis_gy(max_gy: float, n_bin: int = N_BIN) -> F64:
    """Return ``n_bin + 1`` doses from 0 to a little above ``max_gy``, the common axis of sampled curves.

    The end is at least 2 % above ``max_gy``, rounded up to a tenth of its decade (51.3 Gy: 53 Gy).
    """
    if not np.isfinite(max_gy) or max_gy <= 0.0:
        return np.linspace(0.0, 1.0, n_bin + 1)
    step_gy = 10.0 ** np.floor(np.log10(max_gy)) / 10.0
    return np.linspace(0.0, step_gy * np.ceil(1.02 * max_gy / step_gy), n_bin + 1)
