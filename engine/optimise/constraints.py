r"""Hard constraints: functions of the dose with a limit, and the pressure that an augmented Lagrangian puts on them.

Every limit is seen as an excess :math:`g \le 0` in Gy, or in what stands for Gy (`Constraint.unit_per_gy`). With a
multiplier :math:`\lambda \ge 0` and a penalty :math:`\rho > 0` it adds to the objective

.. math:: \psi(g) = \frac{\max(0, \lambda + \rho g)^2 - \lambda^2}{2 \rho}

(Powell 1969; Hestenes, J Optim Theory Appl 4 (1969) 303; Rockafellar, Math Program 5 (1973) 354). It grows with g and
is convex, so that it is convex in the weights wherever g is; and where :math:`g \le 0` it is at most 0, whatever
:math:`\lambda` and :math:`\rho`: so the objective with it is nowhere above the objective of a plan within the limits,
which is what lets its planes prove a lower bound (`engine.optimise.bound`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.functions import DoseFunction, LimitedFunction, MeanDose
from engine.optimise.group import Term

Sense = Literal["at_most", "at_least"]
TOLERANCE_GY = 0.05
"""A limit counts as met up to this excess."""
_GY_OF_A_LIMIT = 50.0
"""What has no unit may exceed its limit by a part of TOLERANCE_GY / 50 Gy, which is 0.1 %."""


@dataclass(frozen=True)
class Constraint:
    """A limit on the value of a function in one region, in every scenario that the robust form looks at.

    Parameters
    ----------
    label
        Text for reports.
    region
        Number of the region that it looks at.
    function
        The function of the dose; where it stands for a dose (such as an EUD), that dose is limited.
    sense
        Whether the value shall be at most or at least the limit.
    limit
        The limit in the function's unit; greater than 0 if it is an upper one.
    robust
        Whether it holds in all scenarios, or in the first alone.

    Raises
    ------
    OptimisationError
        If the function has no such limit.
    """

    label: str
    region: int
    function: DoseFunction
    sense: Sense
    limit: float
    robust: bool = True

    def __post_init__(self) -> None:
        require_sense(self.function, self.sense)
        # One that is to be reached may have given way to less than nothing.
        if self.limit <= 0.0 and self.sense == "at_most":
            raise OptimisationError(
                f"the limit of '{self.label}' is {self.limit:g}; it has to be greater than 0"
            )
        object.__setattr__(self, "function", self.function.without_limit())

    @property
    def term(self) -> Term:
        """What the holders of rows are asked for."""
        return Term(self.label, self.region, self.function, 0.0, self.robust, each_scenario=True)

    @property
    def unit(self) -> str:
        """Unit of value and limit."""
        return self.function.unit

    @property
    def sign(self) -> float:
        """1 if more is worse, -1 if less is."""
        return 1.0 if self.sense == "at_most" else -1.0

    @property
    def unit_per_gy(self) -> float:
        r"""What counts as 1 Gy of excess: 1 Gy; for squares, what their root at the limit moves by 1 Gy.

        :math:`f - p \ge 2 \sqrt p\, (\sqrt f - \sqrt p)`: a squared form never exceeds the root of its limit by more Gy
        than is told. What has no unit counts in parts of its limit.
        """
        if self.unit == "Gy":
            return 1.0
        return 2.0 * float(np.sqrt(self.limit)) if self.unit == "Gy²" else self.limit / _GY_OF_A_LIMIT

    @property
    def convex(self) -> bool:
        """Whether the plans within the limit are a convex set."""
        if self.sense == "at_least" and isinstance(self.function, MeanDose):
            return self.function.eqd2 is None
        return self.function.convex

    def excess_gy(self, value: F64) -> F64:
        """Return by how much values are beyond the limit, in Gy or what stands for it; negative where they are not."""
        excess: F64 = self.sign * (value - self.limit) / self.unit_per_gy
        return excess

    def relaxed(self, by_gy: float) -> "Constraint":
        """Return the constraint with a limit that gives way, by Gy or what stands for it."""
        return replace(self, limit=self.limit + self.sign * by_gy * self.unit_per_gy)

    def in_words(self, limit: float | None = None) -> str:
        """Return what is asked for, such as ``Core: mean at most 20 Gy``; with another limit if one is given."""
        number = self.limit if limit is None else limit
        return f"{self.label} {self.sense.replace('_', ' ')} {number:.4g} {self.unit}".rstrip()


def stands_for_dose(function: DoseFunction) -> bool:
    """Return whether a constraint limits a dose that the function stands for, and not its value."""
    return isinstance(function, LimitedFunction) and function.without_limit() is not function


def require_sense(function: DoseFunction, sense: Sense) -> None:
    """Refuse limits on the side where they would ask for a worse plan: those sets are not convex either.

    Raises
    ------
    OptimisationError
        If the function has no limit on that side.
    """
    from_below = stands_for_dose(function) and function.side == "under"
    if sense == "at_most" and from_below:
        raise OptimisationError(
            "the function tells how cold a structure is, and can be limited by at_least alone; for at_most use "
            "mean, geud, smooth_maximum or upper_mean_tail"
        )
    if sense == "at_least" and not (from_below or isinstance(function, MeanDose)):
        raise OptimisationError(
            "the function punishes something, and can be limited by at_most alone; for at_least use mean, geud, "
            "smooth_minimum, lower_mean_tail, dvh_mean_tail or dvh_distance"
        )


def counted_states(constraints: Sequence[Constraint], counts: F64) -> F64:
    """Return 0 for the scenarios in which a limit holds and -inf for others, (n_constraint, n_scenario).

    Parameters
    ----------
    constraints
        The constraints.
    counts
        Probability of every scenario, or anything else that is 0 for those that do not count, shape (n_scenario,).
    """
    mask = np.full((len(constraints), counts.size), -np.inf)
    for row, constraint in zip(mask, constraints, strict=True):
        if constraint.robust:
            row[counts > 0.0] = 0.0
        else:
            row[0] = 0.0  # the nominal scenario, however probable
    return mask


def excesses_gy(constraints: Sequence[Constraint], counts: F64, limited: F64) -> F64:
    """Return by how much limits are exceeded in every scenario, (n_constraint, n_scenario); -inf where none is.

    Parameters
    ----------
    constraints, counts
        As for `counted_states`.
    limited
        Value of every constraint's function in every scenario, shape (n_constraint, n_scenario).
    """
    excess_gy = counted_states(constraints, counts)
    for row, constraint, values in zip(excess_gy, constraints, limited, strict=True):
        row += constraint.excess_gy(values)
    return excess_gy


@dataclass(frozen=True)
class Pressure:
    """Multipliers and penalties of one round of the augmented Lagrangian.

    Parameters
    ----------
    multiplier
        Of every constraint in every scenario, in units of the objective per Gy, shape (n_constraint, n_scenario).
    penalty
        Of every constraint, in units of the objective per Gy², shape (n_constraint,).
    objective
        Whether the objective counts at all, or the excesses alone.
    """

    multiplier: F64
    penalty: F64
    objective: bool = True

    def slope(self, excess_gy: F64) -> F64:
        """Return the derivative by each excess, which is the next multiplier, shape (n_constraint, n_scenario)."""
        slope: F64 = np.maximum(self.multiplier + self.penalty[:, None] * excess_gy, 0.0)
        return slope

    def value(self, excess_gy: F64) -> float:
        """Return what is added to the objective."""
        squares = self.slope(excess_gy) ** 2 - self.multiplier**2
        return float((squares / (2.0 * self.penalty[:, None])).sum())

    def curvature(self, excess_gy: F64) -> F64:
        """Return the second derivative by each excess, shape (n_constraint, n_scenario)."""
        return np.where(self.slope(excess_gy) > 0.0, self.penalty[:, None], 0.0)
