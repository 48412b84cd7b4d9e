"""Photon spectra: histograms of relative photon number."""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from engine.errors import DoseError
from engine.model.arrays import F64


@dataclass(frozen=True)
class Spectrum:
    """A histogram of photon number; photons are spread evenly within an interval.

    Parameters
    ----------
    low_mev, high_mev
        Edges of the intervals, shape (n_interval,).
    share
        Photons in each interval, shape (n_interval,); the sum is 1.
    """

    low_mev: F64
    high_mev: F64
    share: F64

    def mean_mev(self) -> F64:
        """Return the mean energy of every interval, shape (n_interval,)."""
        return 0.5 * (self.low_mev + self.high_mev)


def load_spectrum(name: str) -> Spectrum:
    """Return the spectrum of ``engine/physics/data/spectrum_<name>.csv``.

    Raises
    ------
    DoseError
        If the shares are not positive or the intervals overlap.
    """
    with (files("engine.physics") / "data" / f"spectrum_{name}.csv").open(encoding="utf-8") as stream:
        low_mev, high_mev, number = np.loadtxt(stream, delimiter=",", skiprows=1, unpack=True)
    if number.min() <= 0.0 or np.any(high_mev <= low_mev) or np.any(low_mev[1:] < high_mev[:-1]):
        raise DoseError(
            f"spectrum {name!r} is not a histogram (intervals overlap or shares are not positive)"
        )
    return Spectrum(low_mev, high_mev, number / number.sum())
