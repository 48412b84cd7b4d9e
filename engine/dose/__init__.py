"""Dose engines."""
