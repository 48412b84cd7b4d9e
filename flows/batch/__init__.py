"""Overnight batches: many cases and protocols, each planned by its own process, and one page in the morning."""
