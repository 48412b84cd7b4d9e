"""Tests that need root and what Debian has: SLURM, PostgreSQL."""
