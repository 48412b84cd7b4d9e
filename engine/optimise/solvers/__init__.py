"""Solvers behind one call: docs/methods/optimisation.md tells how each works and when to choose which."""

from engine.optimise.solvers.base import Further, SolveResult, SolverName, SolverOptions
from engine.optimise.solvers.solve import solve

__all__ = ["Further", "SolveResult", "SolverName", "SolverOptions", "solve"]
