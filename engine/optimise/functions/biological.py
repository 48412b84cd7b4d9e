"""Probabilities of tumour control and of complications, as logarithms that add up over structures."""

from typing import Literal

import numpy as np
from pydantic import Field
from scipy.special import log_ndtr

from engine.model.arrays import F64
from engine.optimise.functions.base import DoseFunction, Parts, ProjectedFunction, Side, require_fractions
from engine.optimise.functions.means import power_mean, power_parts

_HALF_LOG_2PI = 0.5 * float(np.log(2.0 * np.pi))


class PoissonTcp(DoseFunction):
    r"""Expected number of surviving clonogens, :math:`-\ln TCP = K \sum_i v_i\, e^{-\alpha d_i - \beta d_i^2 / n}`.

    Linear-quadratic survival in n equal fractions, Poisson statistics, clonogens K spread evenly over the structure:
    Webb and Nahum, Phys Med Biol 38 (1993) 653, without their spread of radiosensitivities. Convex in a voxel's dose
    where :math:`(\alpha + 2 \beta d / n)^2 \ge 2 \beta / n`, and so everywhere if that holds at 0.
    """

    kind: Literal["tcp"] = "tcp"
    alpha_per_gy: float = Field(gt=0.0, le=10.0, description="linear radiosensitivity")
    alpha_beta_gy: float = Field(gt=0.0, le=100.0, description="ratio of the linear-quadratic model")
    clonogens: float = Field(gt=0.0, le=1e15, description="number in the whole structure before treatment")
    fractions: int | None = Field(
        None, ge=1, le=100, description="fractions of the course; the prescription's if absent"
    )

    @property
    def side(self) -> Side:
        """It punishes what is missing."""
        return "under"

    @property
    def unit(self) -> str:
        """Unit of the value: none."""
        return ""

    @property
    def _quadratic_per_gy2(self) -> float:
        return self.alpha_per_gy / self.alpha_beta_gy / require_fractions(self.fractions)

    @property
    def convex(self) -> bool:
        """Whether it is convex in the dose, for all doses from 0."""
        return self.alpha_per_gy**2 >= 2.0 * self._quadratic_per_gy2

    def of_course(self, fractions: int) -> "DoseFunction":
        """Return the function with its number of fractions."""
        return self if self.fractions is not None else self.model_copy(update={"fractions": fractions})

    def _parts(self, level_gy: F64, reference_gy: F64 | None, order: int) -> Parts:
        del reference_gy
        beta = self._quadratic_per_gy2
        survived = np.exp(-self.alpha_per_gy * level_gy - beta * level_gy**2)
        rate = self.alpha_per_gy + 2.0 * beta * level_gy
        return None, (survived * (1.0, -rate, rate**2 - 2.0 * beta)[order])[None]

    def value(self, totals: F64) -> float:
        """Return the value from the sums over all voxels."""
        return self.clonogens * float(totals[0])

    def slope(self, totals: F64) -> F64:
        """Return the derivative of the value by the sum, shape (1,)."""
        return np.full_like(totals, self.clonogens)


class LkbNtcp(ProjectedFunction):
    r"""Complication probability after Lyman, Kutcher and Burman, as :math:`-\ln(1 - NTCP)`.

    :math:`NTCP = \Phi(t)`, :math:`t = (E - TD_{50}) / (m\, TD_{50})`, E the generalised EUD of order :math:`1/n`.
    Lyman, Radiat Res 104 (1985) S13; Kutcher and Burman, Int J Radiat Oncol Biol Phys 16 (1989) 1623. Convex, unlike
    NTCP itself: :math:`-\ln \Phi(-t)` is convex and grows with t, and E is convex for n <= 1.
    """

    kind: Literal["ntcp"] = "ntcp"
    td50_gy: float = Field(gt=0.0, description="dose to the whole organ with a probability of one half")
    m: float = Field(ge=0.01, le=2.0, description="slope parameter: standard deviation in parts of td50_gy")
    n: float = Field(ge=0.025, le=1.0, description="volume parameter: 1 is the mean, small is the maximum")

    @property
    def side(self) -> Side:
        """It punishes dose."""
        return "over"

    @property
    def unit(self) -> str:
        """Unit of the value: none."""
        return ""

    def _parts(self, level_gy: F64, reference_gy: F64 | None, order: int) -> Parts:
        del reference_gy
        return power_parts(level_gy, 1.0 / self.n, order)

    def _deviate(self, totals: F64) -> tuple[float, float]:
        """Return t and its derivative by the sum."""
        geud_gy, slope = power_mean(totals, 1.0 / self.n)
        width_gy = self.m * self.td50_gy
        return (geud_gy - self.td50_gy) / width_gy, slope / width_gy

    def value(self, totals: F64) -> float:
        """Return the value from the sums over all voxels."""
        return -float(log_ndtr(-self._deviate(totals)[0]))

    def slope(self, totals: F64) -> F64:
        """Return the derivative of the value by the sum, shape (1,)."""
        t, slope = self._deviate(totals)
        return np.array([_hazard(t) * slope])

    def slope_change(self, totals: F64, change: F64) -> F64:
        """Return the derivative of `slope` along a change of the sum, shape (1,)."""
        t, slope = self._deviate(totals)
        hazard = _hazard(t)
        of_deviate = hazard * (hazard - t) * slope**2
        return (of_deviate + hazard * (self.n - 1.0) * slope / totals) * change


def _hazard(t: float) -> float:
    """Return the derivative of -ln Φ(-t), which is φ(t) / Φ(-t)."""
    return float(np.exp(-0.5 * t * t - _HALF_LOG_2PI - log_ndtr(-t)))
