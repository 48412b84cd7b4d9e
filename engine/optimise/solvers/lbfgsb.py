"""The default solver: scipy's L-BFGS-B.

Byrd, Lu, Nocedal and Zhu, SIAM J. Sci. Comput. 16 (1995) 1190; Zhu, Byrd, Lu and Nocedal, ACM Trans. Math. Softw. 23
(1997) 550.
"""

import numpy as np
from scipy.optimize import minimize

from engine.model.arrays import F64
from engine.optimise.solvers.base import Ending, Search

_SCALED_START = 1e8
"""Where a stage's scaled objective begins: it may fall by as much before the tolerance turns absolute."""


def descend(search: Search) -> Ending:
    """Run one stage from the best point."""
    options = search.options
    # scipy's tolerance is relative to the objective, but never to less than 1. A power of two keeps all bits.
    exact = search.best.exact
    scale = 2.0 ** round(np.log2(_SCALED_START / exact)) if exact > 0.0 else 1.0

    def value_and_gradient(weight: F64) -> tuple[float, F64]:
        evaluation = search.evaluate(weight)
        return scale * evaluation.value, scale * evaluation.gradient

    result = minimize(
        value_and_gradient,
        search.weight,
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * search.weight.size,
        options={
            "maxcor": options.memory,
            "maxiter": options.max_evaluations,
            "maxfun": options.max_evaluations + 1,
            "ftol": search.tolerance,
            "gtol": 0.0,
            "maxls": 40,
        },
    )
    if result.status != 0:
        return Ending(f"the line search found no lower value ({result.message})", False)
    if "GRADIENT" in result.message:
        return Ending("no weight can be changed so that the objective falls", True)
    return Ending(f"an iteration lowered the objective by less than {search.tolerance:g} of its value", True)
