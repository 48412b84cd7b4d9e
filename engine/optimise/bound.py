r"""A lower bound of the objective over all plans, and so a certified gap: cutting planes of a convex objective.

An evaluation at :math:`x_k` says of every plan that :math:`f(x) \ge f_k + g_k \cdot (x - x_k)`. No plan that is as good
as the present one gives a region more mean dose than its own term allows, :math:`m \cdot x \le c`. The least value of
the highest plane over these plans is a lower bound of the objective. It is a linear program, and any multipliers
:math:`\theta \ge 0, \sum \theta = 1` of the planes and :math:`\mu \ge 0` of the caps prove

.. math:: f^* \ge \sum_k \theta_k (f_k - g_k \cdot x_k) - \mu \cdot c + \sum_j u_j \min(r_j, 0),
   \qquad r = \sum_k \theta_k g_k + \sum_c \mu_c m_c, \quad u_j = \min_c c_c / m_{cj}

which is what is reported: the solver of the linear program is not trusted. See docs/methods/optimisation.md.

Hard constraints :math:`g(x) \le 0` need no planes of their own. What they add to the objective, with whatever
multipliers and penalty, is convex where g is, and at most 0 where :math:`g \le 0` (`engine.optimise.constraints`): so a
plane of the objective with it, :math:`L`, lies below :math:`L`, and for plans within the limits
:math:`L(x) \le f(x)`. With the right multipliers the least of L over all weights is the least of f within the limits
(duality of convex problems), so nothing is lost near the solution. Caps follow from the limits themselves, and from "no
worse than the present plan" even if that exceeds a limit a little, and so has a value F which plans within the limits
may not reach: either all of them are above F, which then is a bound, or the best one obeys the caps that F gives, and
the bound holds. So the smaller of F and the bound is below them all, whatever the present plan exceeds.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from threadpoolctl import threadpool_limits

from engine.model.arrays import F64
from engine.optimise.constraints import Constraint
from engine.optimise.functions import (
    DoseFunction,
    Geud,
    LinearOverdose,
    MeanDose,
    ProjectedFunction,
    SmoothMaximum,
    SquaredDeviation,
    SquaredOverdose,
)
from engine.optimise.functions.means import SMALLEST_GY
from engine.optimise.group import Term
from engine.optimise.problem import Evaluation, Problem
from engine.optimise.robust import Form, n_smoothing_stage
from engine.optimise.solvers import SolveResult, SolverOptions

_ROUNDING = 1e-6
"""Relative volumes sum to 1 within 1e-7 (float32); caps are raised by more than that."""
_SUMS_ROUNDING = 1e-10
"""Rounding of sums, of which each has at most some 1e5 parts, as a share of what is added up."""
_FIRST_STEP = 0.03
_LONGEST_STEP = 0.5
_LEFT_OUT = 1e-4
"""What the beamlets left out of the linear program may cost the bound, as a share of the objective."""
_N_MORE = 100
"""Beamlets that are added to it at once, at least."""


@dataclass(frozen=True)
class Caps:
    """What every plan no worse than the present one obeys: ``rows @ weight <= limits``.

    Parameters
    ----------
    rows
        Mean dose of a region by each weight, shape (n_cap, n_beamlet).
    limits
        Highest mean dose in Gy, shape (n_cap,).
    """

    rows: F64
    limits: F64

    @property
    def largest_weight(self) -> F64:
        """The largest weight each beamlet can have by itself, shape (n_beamlet,); infinite where no cap reaches it."""
        with np.errstate(divide="ignore"):
            largest: F64 = np.min(self.limits[:, None] / self.rows, axis=0, initial=np.inf)
        return largest


def mean_dose_cap_gy(function: DoseFunction, value: float) -> float | None:
    """Return the mean dose that a region cannot exceed while its function is at most ``value``; None if any can.

    The squared forms are at least the squared distance of the mean (Jensen), the linear one the distance, the EUD for
    a >= 1 and the smooth maximum at least the mean. Nothing is derived from EQD2, nor from doses that each voxel has of
    its own.
    """
    if isinstance(function, ProjectedFunction) and function.eqd2 is not None:
        return None
    if isinstance(function, MeanDose):
        return value
    if isinstance(function, LinearOverdose):
        return function.dose_gy + value
    if isinstance(function, SquaredOverdose | SquaredDeviation):
        return None if function.dose_gy is None else function.dose_gy + float(np.sqrt(value))
    if isinstance(function, SmoothMaximum) or (isinstance(function, Geud) and function.limit == "upper"):
        # A smooth maximum feels the rounding of relative volumes by its temperature.
        rounding_gy = _ROUNDING * function.temperature_gy if isinstance(function, SmoothMaximum) else 0.0
        mean_gy = value if function.dose_gy is None else function.dose_gy + float(np.sqrt(value))
        return mean_gy + rounding_gy
    return None


def least_value(terms: Sequence[Term]) -> float:
    """Return what the objective is nowhere below: 0, as no function of those with a certificate is ever negative.

    But a smooth maximum or an EUD of no dose is 0 but for the rounding of relative volumes.
    """
    of_rounding_gy = 0.0
    for term in terms:
        if isinstance(term.function, SmoothMaximum) and term.function.dose_gy is None:
            of_rounding_gy += term.weight * term.function.temperature_gy
        if isinstance(term.function, Geud) and term.function.dose_gy is None:
            of_rounding_gy += term.weight * SMALLEST_GY
    return 0.0 - _ROUNDING * of_rounding_gy


def why_unproven(terms: Sequence[Term], form: Form, constraints: Sequence[Constraint] = ()) -> str:
    """Return in words what leaves planes that need not lie below the objective; nothing if nothing does."""
    if form == "percentile":
        return "not convex: a percentile over scenarios"
    rough = dict.fromkeys(
        (
            *(term.label for term in terms if not term.function.convex),
            *(constraint.in_words() for constraint in constraints if not constraint.convex),
        )
    )
    if rough:
        return f"not convex: {', '.join(rough)}"
    rippled = dict.fromkeys(
        (
            *(term.label for term in terms if term.function.rippled),
            *(constraint.in_words() for constraint in constraints if constraint.function.rippled),
        )
    )
    return f"convex only but for the ripple of a sampled dose axis: {', '.join(rippled)}" if rippled else ""


def derive_caps(
    problem: Problem, evaluate: Callable[[Problem, F64, float], Evaluation], value: float
) -> Caps:
    """Return the caps that every plan within the limits obeys whose objective is at most ``value``.

    Each costs an evaluation.

    Every robust form is at least the average over scenarios with the weights that it gives them, so the caps are on
    mean doses averaged like that.

    Parameters
    ----------
    problem
        The problem.
    evaluate
        `Problem.evaluate`, or something that asks together with others.
    value
        Objective of the present plan.
    """
    # What one term can have at most if the others have their least.
    most = max(value - least_value(problem.terms), 0.0)
    of_terms = [(term, most / term.weight) for term in problem.terms if term.weight > 0.0]
    return _caps_of(problem, evaluate, of_terms)


def caps_of_limits(problem: Problem, evaluate: Callable[[Problem, F64, float], Evaluation]) -> Caps:
    """Return the caps that every plan within the limits obeys, whatever its objective; each costs an evaluation."""
    return _caps_of(problem, evaluate, [])


def _caps_of(
    problem: Problem,
    evaluate: Callable[[Problem, F64, float], Evaluation],
    of_terms: Sequence[tuple[Term, float]],
) -> Caps:
    """Return the caps that follow from the limits, and from the most that each of some terms can be."""
    of_limits = [(limit.term, limit.limit) for limit in problem.constraints if limit.sense == "at_most"]
    limits: dict[tuple[int, bool], float] = {}
    for term, most in (*of_terms, *of_limits):
        cap_gy = mean_dose_cap_gy(term.function, most)
        if cap_gy is not None:
            key = (term.region, term.robust)
            limits[key] = min(max(cap_gy, SMALLEST_GY) * (1.0 + _ROUNDING), limits.get(key, np.inf))
    n = problem.used
    average = np.full(n, 1.0 / n) if problem.form == "voxel_worst_case" else problem.probability
    form: Form = "nominal" if problem.form == "nominal" else "expected"
    rows = np.zeros((len(limits), problem.rows.n_beamlet))
    for row, (region, robust) in zip(rows, limits, strict=True):
        mean = Problem(problem.rows, [Term("mean", region, MeanDose(), 1.0, robust)], form, average)
        row[:] = evaluate(mean, np.zeros(row.size), 0.0).gradient
    return Caps(rows, np.array(list(limits.values())))


class Cuts:
    """Planes below a convex objective: at most ``n_most``, of which the older ones lie further apart.

    Gradients are kept in full precision: a plane with a rounded slope need not lie below the objective.
    """

    def __init__(self, n_most: int = 200) -> None:
        self._n_most = n_most
        self._slopes: list[F64] = []
        self._offsets: list[float] = []

    def add(self, weight: F64, evaluation: Evaluation) -> None:
        """Add the plane of an evaluation at ``weight``, lowered by its rounding."""
        # Products by numpy's own sums: BLAS adds in an order that depends on its threads.
        by_beamlet = evaluation.gradient * weight
        size = abs(evaluation.value) + float(np.abs(by_beamlet).sum())
        self._slopes.append(evaluation.gradient)
        self._offsets.append(evaluation.value - float(by_beamlet.sum()) - _SUMS_ROUNDING * size)
        if len(self._slopes) > self._n_most:
            older = slice(0, self._n_most // 2, 2)
            del self._slopes[older], self._offsets[older]

    def keep_all(self) -> None:
        """Forget none from now on."""
        self._n_most = sys.maxsize

    def arrays(self) -> tuple[F64, F64]:
        """Return slopes, shape (n_cut, n_beamlet), and values at weights of 0, shape (n_cut,)."""
        return np.array(self._slopes), np.array(self._offsets)


@dataclass(frozen=True)
class Model:
    """The least value of the highest plane: a proven lower bound, and (nearly) where it is reached."""

    bound: float
    weight: F64


def proven_bound(slopes: F64, offsets: F64, caps: Caps, theta: F64, mu: F64) -> tuple[float, F64]:
    """Return the lower bound that some multipliers prove, and what each beamlet takes from it, shape (n_beamlet,).

    Parameters
    ----------
    slopes, offsets
        Of the planes, shapes (n_cut, n_beamlet) and (n_cut,).
    caps
        Caps on the weights.
    theta, mu
        Multipliers of planes and caps; any numbers, made allowed by clipping and scaling.
    """
    theta = np.maximum(theta, 0.0)
    theta = theta / theta.sum()
    mu = np.maximum(mu, 0.0)
    reduced = np.minimum(theta @ slopes + mu @ caps.rows, 0.0)
    taken = np.zeros_like(reduced)
    below = reduced < 0.0
    taken[below] = reduced[below] * caps.largest_weight[below]
    size = theta @ np.abs(offsets) + mu @ caps.limits - taken.sum()
    return float(theta @ offsets - mu @ caps.limits + taken.sum() - _SUMS_ROUNDING * size), taken


class LowerModel:
    """Solves the linear program again and again, on the beamlets that matter (the others are checked, and added).

    Parameters
    ----------
    caps
        Caps on the weights.
    scale
        Size of the objective.
    """

    def __init__(self, caps: Caps, scale: float) -> None:
        self._caps, self._scale = caps, scale
        self._used = np.zeros(caps.rows.shape[1], dtype=np.bool_)

    def solve(self, slopes: F64, offsets: F64) -> Model | None:
        """Return the model's least value over the allowed weights; None where no bound can be proven."""
        caps, scale, unit = self._caps, self._scale, self._units(slopes)
        n_cut, n_cap = slopes.shape[0], caps.limits.size
        best: Model | None = None
        while True:
            used = np.flatnonzero(self._used)
            above = np.hstack([slopes[:, used] * unit[used] / scale, np.full((n_cut, 1), -1.0)])
            capped = np.hstack([caps.rows[:, used] * unit[used] / caps.limits[:, None], np.zeros((n_cap, 1))])
            found = linprog(
                np.append(np.zeros(used.size), 1.0),
                A_ub=np.vstack([above, capped]),
                b_ub=np.append(-offsets / scale, np.ones(n_cap)),
                bounds=[(0.0, None)] * used.size + [(None, None)],
                method="highs-ds",
            )
            if found.status != 0:
                return best
            multipliers = -found.ineqlin.marginals
            bound, taken = proven_bound(
                slopes, offsets, caps, multipliers[:n_cut], multipliers[n_cut:] * scale / caps.limits
            )
            if np.isfinite(bound) and (best is None or bound > best.bound):
                weight = np.zeros(unit.size)
                # Functions are convex for doses from 0 alone, and the solver's bounds hold but nearly.
                weight[used] = np.maximum(found.x[:-1], 0.0) * unit[used]
                best = Model(bound, weight)
            fresh = np.flatnonzero(~self._used & (taken < 0.0))
            if fresh.size == 0 or taken.sum() > -_LEFT_OUT * scale:
                return best
            worst = fresh[np.argsort(taken[fresh], kind="stable")[: max(_N_MORE, n_cut)]]
            self._used[worst] = True

    def _units(self, slopes: F64) -> F64:
        """Return weights of about the size that matters, shape (n_beamlet,)."""
        unit = self._caps.largest_weight
        free = ~np.isfinite(unit)
        steepest = np.abs(slopes[:, free]).max(axis=0)
        unit[free] = self._scale / np.where(steepest > 0.0, steepest, self._scale)
        return unit


@dataclass(frozen=True)
class Certificate:
    """How far a plan is from the best one at most.

    Parameters
    ----------
    value
        Objective of the plan without smoothing.
    lower_bound
        What no weights can be below, or None.
    gap
        Their difference as a share of ``value``, or None.
    n_evaluation
        Evaluations for the bound alone.
    text
        The same in words.
    """

    value: float
    lower_bound: float | None
    gap: float | None
    n_evaluation: int
    text: str


def certify(
    problem: Problem,
    evaluate: Callable[[Problem, F64, float], Evaluation],
    cuts: Cuts,
    result: SolveResult,
    options: SolverOptions,
) -> Certificate:
    """Prove a lower bound from a solve's evaluations, and from some more until the gap is small enough.

    Each of these is made a little way from the best point towards the minimum of the highest plane, which is where a
    plane is missing. The plan is not changed.

    Parameters
    ----------
    problem
        What was solved.
    evaluate
        `Problem.evaluate`, or something that asks together with others.
    cuts
        Planes of the solve's evaluations; smoothed ones are below the exact objective, too.
    result
        The solution.
    options
        Limits.
    """
    unproven = why_unproven(problem.terms, problem.form, problem.constraints)
    if unproven:
        state = "stationary" if result.converged else "not yet stationary"
        return Certificate(result.value, None, None, 0, f"{state}, no certificate ({unproven})")
    cuts.keep_all()
    centre, value, n_before = result.weight, result.value, 0
    if n_smoothing_stage(problem.form) > 1:
        exact = evaluate(problem, centre, 0.0)
        cuts.add(centre, exact)
        value, n_before = exact.exact, 1
    caps = derive_caps(problem, evaluate, value)
    n_before += caps.limits.size
    # One BLAS thread, as in the solver: the order of sums must not depend on the machine.
    with threadpool_limits(1, "blas"):
        lower, n_more = _raise_bound(problem, evaluate, cuts, caps, centre, value, options)
    n_evaluation = n_before + n_more
    if lower is None:
        return Certificate(
            value, None, None, n_evaluation,
            "no certificate: some beamlets lower the objective without end, because no objective limits the dose from "
            "above where they give any",
        )  # fmt: skip
    exceeded_gy = None
    if problem.constraints:
        exceeded_gy = float(problem.excess_gy(result.limited).max(initial=0.0))
    return certificate_of(value, lower, n_evaluation, exceeded_gy)


def certificate_of(
    value: float, lower: float, n_evaluation: int, exceeded_gy: float | None = None
) -> Certificate:
    """Return the certificate of a plan from a lower bound, and say in words what it means.

    Parameters
    ----------
    value
        Objective of the plan without smoothing.
    lower
        What no weights can be below; with hard constraints, what none within the limits can be below.
    n_evaluation
        Evaluations for the bound alone.
    exceeded_gy
        By how much the plan exceeds limits, in Gy or what stands for it; None if there are none.
    """
    if exceeded_gy is not None:
        # A plan that exceeds limits may have less than any within them.
        lower = min(lower, value)
    gap = (value - lower) / value if value > max(lower, 0.0) else 0.0
    within = "" if exceeded_gy is None else " within the limits"
    percent = np.ceil(1e4 * gap) / 100.0
    text = (
        f"no weights{within} give an objective below {lower:.6g}: "
        f"this plan's {value:.6g} could fall by {percent:g} % at most"
    )
    if exceeded_gy is not None and exceeded_gy > 0.0:
        text += (
            f" (it exceeds limits by up to {exceeded_gy:.2g} Gy, or what stands for it; the bound is for plans that "
            "do not)"
        )
    return Certificate(value, lower, gap, n_evaluation, text)


def _raise_bound(
    problem: Problem,
    evaluate: Callable[[Problem, F64, float], Evaluation],
    cuts: Cuts,
    caps: Caps,
    centre: F64,
    value: float,
    options: SolverOptions,
) -> tuple[float | None, int]:
    """Return the best bound that was proven, and how many evaluations that took."""
    model, least = LowerModel(caps, value if value > 0.0 else 1.0), least_value(problem.terms)
    lower, lowest, step = -np.inf, value, _FIRST_STEP
    for n_evaluation in range(options.max_bound_evaluations + 1):
        found = model.solve(*cuts.arrays())
        if found is None:
            return (lower if np.isfinite(lower) else None), n_evaluation
        lower = max(lower, found.bound, least)
        if value - lower <= options.gap * value or n_evaluation == options.max_bound_evaluations:
            break
        weight = centre + step * (found.weight - centre)
        at = evaluate(problem, weight, 0.0)
        cuts.add(weight, at)
        # A plane is of use where the objective is not far above the gap that is to be closed.
        open_gap = lowest - lower
        if at.value > lowest + 0.25 * open_gap:
            step *= 0.5
        elif at.value < lowest + 0.06 * open_gap:
            step = min(2.0 * step, _LONGEST_STEP)
        if at.value < lowest:
            centre, lowest = weight, at.value
    return lower, n_evaluation
