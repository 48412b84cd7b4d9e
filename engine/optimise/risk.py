r"""What a few numbers with probabilities are worth to somebody who fears the high ones.

Every convex measure here is the highest mean that probabilities :math:`q` not too far from the given ones
:math:`p` can give,

.. math:: R(F) = \max_{q \in Q} \sum_s q_s F_s

* `worst_part`: :math:`Q = \{q \le p/\alpha\}`: the mean of the worst part :math:`\alpha` of the probability, the
  conditional value-at-risk (Rockafellar and Uryasev, J Risk 2 (2000) 21).
* `most_adverse`: :math:`Q = \{\sum q \ln(q/p) \le \rho\}` (Kullback and Leibler): by duality
  :math:`\min_{\lambda \ge 0} \lambda\rho + \lambda \ln \sum_s p_s e^{F_s/\lambda}` (Hu and Hong, Optim Online
  (2013); with :math:`\rho = \ln 1/\alpha` the entropic value-at-risk of Ahmadi-Javid, J Optim Theory Appl 155 (2012)
  1105, which is no less than `worst_part` of the same :math:`\alpha`).
* `soft_maximum`: all :math:`q` where :math:`p > 0`.

All are smoothed in the same way: a temperature T takes :math:`T \sum q \ln(q/p)` off the mean. What comes out is
convex, never above the exact value, below it by at most T times the largest divergence, and has the maximising q as
its derivative. `percentile` is not convex; it is smoothed as the difference of two worst parts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from engine.model.arrays import F64, Bool

_WINDOW = 0.25
"""Of the smoothed percentile, to each side, as a share of the level."""
_LEAST_SPREAD = 1e-9
"""A multiplier of less than this share of the values' spread is none."""
_LEAST_RADIUS = 1e-12
"""Below this a divergence is none."""
_ROUNDING = 1e-9
"""Of sums of probabilities, and of divergences."""


@dataclass(frozen=True)
class Judged:
    """A measure of some values.

    Parameters
    ----------
    value
        What they are worth together.
    derivative
        By each of them, in their shape.
    turned
        Gives the change of the derivative along a change of the values.
    """

    value: float
    derivative: F64
    turned: Callable[[F64], F64]


def soft_maximum(values: F64, prior: F64, temperature: float) -> tuple[float, F64]:
    """Return the smoothed maximum of ``values`` (n,) and its derivative by them (n,).

    Parameters
    ----------
    values, prior
        Values and their weights, which sum to 1, both of shape (n,). Values of weight 0 do not count.
    temperature
        Smoothing in the unit of the values; 0 is the maximum itself.
    """
    counted = np.where(prior > 0.0, values, -np.inf)
    largest = float(counted.max())
    if temperature == 0.0:
        derivative = np.zeros_like(values)
        derivative[int(counted.argmax())] = 1.0
        return largest, derivative
    raised = prior * np.exp((counted - largest) / temperature)
    total = float(raised.sum())
    return largest + temperature * float(np.log(total)), raised / total


def worst(values: F64, prior: F64, temperature: float) -> Judged:
    """Judge values by the worst of them: `soft_maximum` as a measure."""
    value, derivative = soft_maximum(values, prior, temperature)
    return Judged(value, derivative, lambda change: _tilted(derivative, change, temperature))


def mean(values: F64, prior: F64) -> Judged:
    """Judge values by their mean."""
    return Judged(float((prior * values).sum()), prior, np.zeros_like)


def worst_part(values: F64, prior: F64, share: float, temperature: float) -> Judged:
    """Judge values by the mean of the worst part of the probability.

    Parameters
    ----------
    values, prior
        Values and their probabilities, which sum to 1, both of shape (n,).
    share
        The part, above 0 and at most 1: 1 is the mean, the probability of the worst value or less is the maximum.
    temperature
        Smoothing in the unit of the values; 0 is none.
    """
    counted = np.flatnonzero(prior > 0.0)
    order = counted[np.argsort(-values[counted], kind="stable")]
    ordered, p = values[order], prior[order]
    # Probability that is left for each value if all that are worse take as much as they may.
    left = np.maximum(1.0 - (np.cumsum(p) - p) / share, 0.0)
    derivative = np.zeros_like(values)
    if temperature == 0.0:
        derivative[order] = np.minimum(p / share, left)
        return Judged(float((derivative[order] * ordered).sum()), derivative, np.zeros_like)
    x = (ordered - ordered[0]) / temperature
    # ln sum p e^x over each value and all better ones.
    below = np.logaddexp.accumulate((np.log(p) + x)[::-1])[::-1]
    with np.errstate(divide="ignore"):
        tilt = np.log(left) + x - below
    allowed = np.flatnonzero(tilt <= -np.log(share))
    n_full = int(allowed[0]) if allowed.size else order.size - 1
    with np.errstate(divide="ignore"):
        log_ratio = np.log(left[n_full]) + x - below[n_full]
    log_ratio[:n_full] = -np.log(share)
    q = p * np.exp(log_ratio)
    derivative[order] = q
    free = np.zeros(values.size, dtype=np.bool_)
    free[order[n_full:]] = True
    heard = q > 0.0
    value = float(ordered[0] + temperature * (q[heard] * (x[heard] - log_ratio[heard])).sum())
    return Judged(
        value, derivative, lambda change: _tilted(np.where(free, derivative, 0.0), change, temperature)
    )


def most_adverse(values: F64, prior: F64, radius: float, temperature: float) -> Judged:
    """Judge values by their mean under the most adverse probabilities within some divergence of the given ones.

    Parameters
    ----------
    values, prior
        Values and their probabilities, which sum to 1, both of shape (n,).
    radius
        Largest Kullback-Leibler divergence of the adverse probabilities from ``prior``: 0 is the mean.
    temperature
        Smoothing in the unit of the values; 0 is none.
    """
    counted = prior > 0.0
    spread = float(np.ptp(values[counted]))
    # Of probabilities that are rounded there is no radius as small as that; the mean is never above the exact value.
    if radius <= _LEAST_RADIUS or spread == 0.0:
        return mean(values, prior)
    if not np.isfinite(spread):
        return worst(values, prior, temperature)  # neither is its value, which is for the solver to refuse
    # Beside the highest one: else a small spread of large values would be lost in rounding.
    largest = float(values[counted].max())
    values = values - largest
    # Hoeffding: the divergence at a multiplier m is below (spread / m)² / 8.
    highest = 2.0 * spread / np.sqrt(8.0 * radius)
    lowest = max(temperature, _LEAST_SPREAD * spread)
    # The worst value alone may be just at the radius (its probability is the part that counts): not beyond by rounding.
    if lowest >= highest or _divergence(values, prior, counted, lowest) <= radius * (1.0 + _ROUNDING):
        multiplier = temperature
    else:
        log = brentq(
            lambda log: _divergence(values, prior, counted, float(np.exp(log))) - radius,
            np.log(lowest), np.log(highest), xtol=1e-14, rtol=1e-14,
        )  # fmt: skip
        multiplier = float(np.exp(log))
    soft, derivative = soft_maximum(values, prior, multiplier)
    bound_by_radius = multiplier > temperature

    def turned(change: F64) -> F64:
        along = change
        if bound_by_radius:
            # The multiplier moves so that the divergence stays.
            above = np.where(counted, values - (derivative * values)[counted].sum(), 0.0)
            variance = float((derivative * above**2).sum())
            if variance > 0.0:
                along = change - above * float((derivative * above * change).sum()) / variance
        return _tilted(derivative, along, multiplier)

    return Judged(largest + ((multiplier - temperature) * radius + soft), derivative, turned)


def percentile(values: F64, prior: F64, share: float, temperature: float) -> Judged:
    """Judge values by the one that a share of the probability exceeds, at most: the value-at-risk. It is not convex.

    Smoothed, it is the mean of the percentiles within a quarter of the share (or of the rest) to both sides, and the
    worst parts that this is made of are smoothed by the temperature.

    Parameters
    ----------
    values, prior
        Values and their probabilities, which sum to 1, both of shape (n,).
    share
        The share that may be worse, between 0 and 1.
    temperature
        Smoothing in the unit of the values; 0 is the percentile itself.
    """
    if temperature == 0.0:
        counted = np.flatnonzero(prior > 0.0)
        order = counted[np.argsort(-values[counted], kind="stable")]
        worse = np.cumsum(prior[order]) - prior[order]
        chosen = order[np.flatnonzero(worse <= share + _ROUNDING)[-1]]
        derivative = np.zeros_like(values)
        derivative[chosen] = 1.0
        return Judged(float(values[chosen]), derivative, np.zeros_like)
    half = _WINDOW * min(share, 1.0 - share)
    wide, narrow = (worst_part(values, prior, part, temperature) for part in (share + half, share - half))
    more, less = (share + half) / (2.0 * half), (share - half) / (2.0 * half)
    return Judged(
        more * wide.value - less * narrow.value,
        # Rounding aside, none is negative: a wider part takes more of every value.
        np.maximum(more * wide.derivative - less * narrow.derivative, 0.0),
        lambda change: more * wide.turned(change) - less * narrow.turned(change),
    )


def _tilted(derivative: F64, change: F64, temperature: float) -> F64:
    """Return the change of exponentially tilted probabilities; nothing without a temperature."""
    total = float(derivative.sum())
    if temperature == 0.0 or total == 0.0:
        return np.zeros_like(derivative)
    tilted: F64 = derivative * (change - float((derivative * change).sum()) / total) / temperature
    return tilted


def _divergence(values: F64, prior: F64, counted: Bool, multiplier: float) -> float:
    """Return the divergence of the probabilities tilted by ``multiplier`` from the given ones."""
    soft, q = soft_maximum(values, prior, multiplier)
    return float((q[counted] * (values[counted] - soft)).sum()) / multiplier
