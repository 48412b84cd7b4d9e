r"""Robust forms: how the values in many scenarios become one.

* ``nominal``: the first scenario alone.
* ``expected``: :math:`\sum_s p_s F_s`.
* ``composite_worst_case``: :math:`\max_s F_s` with :math:`F_s` the weighted sum of all objectives in scenario s
  (Fredriksson, Forsgren and Hårdemark, Med Phys 38 (2011) 1672), smoothed to
  :math:`T \ln \sum_s p_s e^{F_s/T}`, which never exceeds the maximum and tends to it with T → 0. A scenario of
  probability 0 does not count.
* ``voxel_worst_case``: every voxel has the highest dose of all scenarios where dose is punished and the lowest where
  its absence is (Pflugfelder, Wilkens and Oelfke, Phys Med Biol 53 (2008) 1689), smoothed in the same way with equal
  weights and a temperature in Gy.
"""

from typing import Literal

import numpy as np

from engine.model.arrays import F64

Form = Literal["nominal", "expected", "composite_worst_case", "voxel_worst_case"]


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


def soft_extreme_dose(dose_gy: F64, sign: int, temperature_gy: float) -> tuple[F64, F64]:
    """Return the smoothed highest (``sign`` 1) or lowest (``sign`` -1) dose of every voxel over scenarios.

    Parameters
    ----------
    dose_gy
        Dose, shape (n_scenario, n).
    sign
        1 for the highest, -1 for the lowest dose.
    temperature_gy
        Smoothing; 0 takes the extreme itself.

    Returns
    -------
    tuple
        The extreme dose (n,) and its derivative by the dose in each scenario (n_scenario, n).
    """
    signed = sign * dose_gy
    largest = signed.max(axis=0)
    if temperature_gy == 0.0:
        derivative = np.zeros_like(dose_gy)
        derivative[signed.argmax(axis=0), np.arange(dose_gy.shape[1])] = 1.0
        return sign * largest, derivative
    raised = np.exp((signed - largest) / temperature_gy)
    total = raised.sum(axis=0)
    extreme: F64 = sign * (largest + temperature_gy * np.log(total / dose_gy.shape[0]))
    return extreme, raised / total


def soft_extreme_dose_change(derivative: F64, change_gy: F64, sign: int, temperature_gy: float) -> F64:
    """Return the derivative of `soft_extreme_dose`'s derivative along a change of the doses.

    Parameters
    ----------
    derivative
        That of the extreme dose by the dose in each scenario, shape (n_scenario, n).
    change_gy
        Change of the dose, shape (n_scenario, n).
    sign, temperature_gy
        As for `soft_extreme_dose`.
    """
    if temperature_gy == 0.0:
        return np.zeros_like(derivative)
    moved_gy = (derivative * change_gy).sum(axis=0)
    changed: F64 = sign / temperature_gy * derivative * (change_gy - moved_gy)
    return changed


_COMPOSITE_FRACTIONS = (0.1, 0.03, 0.01)
_VOXEL_FRACTIONS = (0.02, 0.006, 0.002)


def n_smoothing_stage(form: Form) -> int:
    """Return the number of stages of decreasing smoothing that a form needs."""
    return len(_COMPOSITE_FRACTIONS) if form in ("composite_worst_case", "voxel_worst_case") else 1


def smoothing(form: Form, stage: int, objective: float, prescription_gy: float) -> float:
    """Return the temperature of a stage.

    Parameters
    ----------
    form
        Robust form.
    stage
        Number of the stage, from 0.
    objective
        Exact objective where the stage starts: the composite worst case is smoothed by a share of it.
    prescription_gy
        Total dose: the voxel-wise worst case is smoothed by a share of it.
    """
    if form == "composite_worst_case":
        return _COMPOSITE_FRACTIONS[stage] * objective
    if form == "voxel_worst_case":
        return _VOXEL_FRACTIONS[stage] * prescription_gy
    return 0.0
