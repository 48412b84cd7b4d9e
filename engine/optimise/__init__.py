"""Objectives, robust forms and solvers."""
