r"""Robust forms: how the values in many scenarios become one.

With :math:`f_{ts}` the weighted value of objective t in scenario s, :math:`F_s = \sum_t f_{ts}`, and probabilities
:math:`p_s` (a scenario of probability 0 does not count):

* ``nominal``: the first scenario alone.
* ``expected``: :math:`\sum_s p_s F_s`.
* ``composite_worst_case``: :math:`\max_s F_s` (Fredriksson, Forsgren and Hårdemark, Med Phys 38 (2011) 1672).
* ``objective_worst_case``: :math:`\sum_t \max_s f_{ts}`: each objective in a worst scenario of its own (Chen,
  Unkelbach, Trofimov et al., Phys Med Biol 57 (2012) 591).
* ``cvar``: the mean of :math:`F_s` over the worst part of the probability (`engine.optimise.risk.worst_part`).
* ``soft_worst_case``: the mean of :math:`F_s` under the most adverse probabilities that are not too far from the given
  ones (`engine.optimise.risk.most_adverse`).
* ``percentile``: what a part of the probability exceeds, at most (`engine.optimise.risk.percentile`); not convex.
* ``voxel_worst_case``: every voxel has the highest dose of all scenarios where dose is punished and the lowest where
  its absence is (Pflugfelder, Wilkens and Oelfke, Phys Med Biol 53 (2008) 1689), smoothed like a soft maximum with
  equal weights and a temperature in Gy.

What needs smoothing is smoothed so that it never exceeds the exact value and tends to it with T → 0, but for the
percentile.
"""

from typing import Literal

import numpy as np

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.risk import Judged, mean, most_adverse, percentile, worst, worst_part

Form = Literal[
    "nominal",
    "expected",
    "composite_worst_case",
    "objective_worst_case",
    "voxel_worst_case",
    "cvar",
    "soft_worst_case",
    "percentile",
]
FORMS_OF_A_PART: tuple[Form, ...] = ("cvar", "soft_worst_case", "percentile")
"""Forms that need to be told which part of the probability counts as worst."""


def check_part(form: Form, part: float | None) -> None:
    """Refuse a part of the probability that a form has no use for, or lacks.

    Raises
    ------
    OptimisationError
        If it does.
    """
    if form not in FORMS_OF_A_PART:
        if part is not None:
            raise OptimisationError(f"robust form '{form}' has no worst part; leave it out")
        return
    if part is None or not 0.0 < part <= 1.0 or (form == "percentile" and part == 1.0):
        raise OptimisationError(
            f"robust form '{form}' needs the part of the probability that counts as worst, above 0 and "
            f"{'below' if form == 'percentile' else 'at most'} 1 (it is {part})"
        )


def over_scenarios(
    form: Form, values: F64, probability: F64, part: float | None, temperature: float
) -> Judged:
    """Return the objective from the weighted values of all terms in all scenarios.

    Parameters
    ----------
    form
        Robust form; a voxel-wise worst case has one state alone, where nothing is left to be done.
    values
        Weighted values, shape (n_term, n_state).
    probability
        Of every scenario, shape (n_state,).
    part
        Part of the probability that counts as worst, for the forms that have one.
    temperature
        Smoothing in the unit of the values; 0 is none. An objective-wise worst case shares it among its terms.
    """
    if not np.isfinite(values).all():
        # The solver tells of it; here sorting and logarithms would only warn.
        return Judged(np.nan, np.full(values.shape, np.nan), np.zeros_like)
    if form == "objective_worst_case":
        rows = [worst(row, probability, temperature / len(values)) for row in values]
        return Judged(
            sum(row.value for row in rows),
            np.stack([row.derivative for row in rows]),
            lambda change: np.stack([row.turned(of) for row, of in zip(rows, change, strict=True)]),
        )
    total = _added(values)
    if form in ("nominal", "voxel_worst_case"):
        judged = mean(total, np.ones(1))
    elif form == "expected":
        judged = mean(total, probability)
    elif form == "composite_worst_case":
        judged = worst(total, probability, temperature)
    elif part is None:
        raise OptimisationError(
            f"robust form '{form}' needs the part of the probability that counts as worst"
        )
    elif form == "cvar":
        judged = worst_part(total, probability, part, temperature)
    elif form == "soft_worst_case":
        judged = most_adverse(total, probability, radius(part), temperature)
    else:
        judged = percentile(total, probability, part, temperature)
    return Judged(
        judged.value,
        np.broadcast_to(judged.derivative, values.shape),
        lambda change: np.broadcast_to(judged.turned(_added(change)), values.shape),
    )


def radius(part: float) -> float:
    """Return the divergence of probabilities that are all on an event of probability ``part``."""
    return -float(np.log(part))


def in_words(form: Form, part: float | None) -> str:
    """Return what a form minimises as a text for reports."""
    percent = f"{100.0 * (part or 0.0):g}"
    return {
        "nominal": "the objective of the nominal scenario",
        "expected": "the objective expected over all scenarios",
        "composite_worst_case": "the objective of the worst scenario (composite worst case)",
        "objective_worst_case": "the sum of all objectives, each in its own worst scenario (objective-wise worst case)",
        "voxel_worst_case": "the objective of the highest and the lowest dose of every voxel in any scenario "
        "(voxel-wise worst case)",
        "cvar": f"the objective's mean over the worst {percent} % of the probability (CVaR)",
        "soft_worst_case": "the objective's mean under the most adverse probabilities that are no further from the "
        f"given ones than if an event of {percent} % were certain (soft worst case, Kullback-Leibler radius "
        f"{radius(part or 1.0):.3g})",
        "percentile": f"the objective that is exceeded with a probability of {percent} % "
        f"(percentile {100.0 - 100.0 * (part or 0.0):g})",
    }[form]


def _added(values: F64) -> F64:
    """Return the sum over terms, in their order."""
    total = np.zeros(values.shape[1])
    for row in values:
        total += row
    return total


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


_OBJECTIVE_FRACTIONS = (0.1, 0.03, 0.01)
_VOXEL_FRACTIONS = (0.02, 0.006, 0.002)


def n_smoothing_stage(form: Form) -> int:
    """Return the number of stages of decreasing smoothing that a form needs."""
    return 1 if form in ("nominal", "expected") else len(_OBJECTIVE_FRACTIONS)


def smoothing(form: Form, stage: int, objective: float, prescription_gy: float) -> float:
    """Return the temperature of a stage.

    Parameters
    ----------
    form
        Robust form.
    stage
        Number of the stage, from 0.
    objective
        Exact objective where the stage starts: all but the voxel-wise worst case are smoothed by a share of it.
    prescription_gy
        Total dose: the voxel-wise worst case is smoothed by a share of it.
    """
    if n_smoothing_stage(form) == 1:
        return 0.0
    if form == "voxel_worst_case":
        return _VOXEL_FRACTIONS[stage] * prescription_gy
    return _OBJECTIVE_FRACTIONS[stage] * objective
