r"""The pencil kernel of a photon beam: dose around a thin pencil of photons in water, as a mixture of Gaussians.

.. math:: K(z, r) = \sum_m c_m(z) \frac{\exp(-r^2 / 2 \sigma_m^2)}{2 \pi \sigma_m^2}

How the tables are made, what they neglect and how far they agree with other codes: docs/methods/photon_kernel.md.
"""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from engine.errors import DoseError
from engine.model.arrays import F64

_PREFIX = "photon_kernel_"


@dataclass(frozen=True)
class PhotonKernel:
    """Dose of a parallel, infinitely thin pencil of photons in semi-infinite water of 1 g/cm3.

    A broad parallel field of ``n`` photons per mm2 gives the dose ``n * weight_gy_mm2.sum(axis=1)``.

    Parameters
    ----------
    name
        Name of the beam, as given to `load_photon_kernel`.
    depth_mm
        Depths below the surface, rising from 0, shape (n_depth,). Weights are linear in between.
    sigma_mm
        Widths of the Gaussians, rising, the same at all depths, shape (n_gauss,).
    weight_gy_mm2
        Dose integrated over the plane per photon and Gaussian, c_m(z) above, shape (n_depth, n_gauss).

    Raises
    ------
    DoseError
        If shapes do not fit each other or values are out of range.
    """

    name: str
    depth_mm: F64
    sigma_mm: F64
    weight_gy_mm2: F64

    def __post_init__(self) -> None:
        if self.weight_gy_mm2.shape != (self.depth_mm.size, self.sigma_mm.size):
            raise DoseError(
                f"photon kernel {self.name!r} has weights of shape {self.weight_gy_mm2.shape} "
                f"(there are {self.depth_mm.size} depths and {self.sigma_mm.size} widths): restore the table"
            )
        if self.depth_mm[0] != 0.0 or np.any(np.diff(self.depth_mm) <= 0.0):
            raise DoseError(
                f"photon kernel {self.name!r} has depths that do not rise from 0: restore the table"
            )
        if self.sigma_mm[0] <= 0.0 or np.any(np.diff(self.sigma_mm) <= 0.0):
            raise DoseError(
                f"photon kernel {self.name!r} has widths that are not positive and rising: restore the table"
            )
        if not np.all(np.isfinite(self.weight_gy_mm2)) or self.weight_gy_mm2.min() < 0.0:
            raise DoseError(
                f"photon kernel {self.name!r} has weights below 0 or not finite: restore the table"
            )

    def fraction_beyond(self, radius_mm: float) -> F64:
        """Return the share of a broad field's dose that comes from beyond a radius, shape (n_depth,)."""
        beyond = np.exp(-0.5 * (radius_mm / self.sigma_mm) ** 2)
        return np.asarray(self.weight_gy_mm2 @ beyond / self.weight_gy_mm2.sum(axis=1))


def load_photon_kernel(name: str) -> PhotonKernel:
    """Return the kernel called ``name``, for instance "mohan_6mv".

    Raises
    ------
    DoseError
        If there is no such kernel, or its table is damaged.
    """
    folder = files("engine.physics") / "data"
    known = sorted(
        entry.name.removeprefix(_PREFIX).removesuffix(".csv")
        for entry in folder.iterdir()
        if entry.name.startswith(_PREFIX)
    )
    if name not in known:
        raise DoseError(
            f"no photon kernel {name!r} (there is no table for it) choose one of {', '.join(known)}"
        )
    with (folder / f"{_PREFIX}{name}.csv").open(encoding="utf-8") as stream:
        sigma_mm = np.array([float(value) for value in stream.readline().split(",")[1:]])
        rows = np.loadtxt(stream, delimiter=",", ndmin=2)
    return PhotonKernel(name, rows[:, 0].copy(), sigma_mm, np.ascontiguousarray(rows[:, 1:]))
