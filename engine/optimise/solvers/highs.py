"""HiGHS, as in scipy, for small linear programs: the exact optimum, for tests and to compare with.

Huangfu and Hall, Math. Program. Comput. 10 (2018) 119. It needs the matrix itself, so it is refused where that is
large.
"""

import numpy as np
from scipy.optimize import linprog

from engine.errors import OptimisationError
from engine.optimise.problem import Evaluation
from engine.optimise.solvers.base import Ending, Search


def descend(search: Search) -> Ending:
    """Solve the whole problem; there is no stage of it."""
    saddle = search.further.saddle
    if saddle is None:
        raise OptimisationError(
            "HiGHS needs the problem as a linear program, and it was not given as one; use solver = 'lbfgsb'"
        )
    program = saddle.linear_program()
    found = linprog(
        program.cost, A_ub=program.matrix, b_ub=program.limit, bounds=program.bounds, method="highs"
    )
    if found.status != 0:
        raise OptimisationError(f"HiGHS found no optimum of the linear program ({found.message})")
    weight = np.maximum(found.x[: saddle.n_beamlet], 0.0)
    search.evaluate(weight)
    if search.further.plane is not None:
        multiplier = saddle.allowed(-program.sign * found.ineqlin.marginals / saddle.scale)
        slope = saddle.cost + saddle.adjoint(multiplier)
        value = float((slope * weight).sum()) - saddle.offset(multiplier)
        search.further.plane(weight, Evaluation(value, slope, np.zeros((0, 1)), value))
    return Ending("HiGHS found the optimum of the linear program", True)
