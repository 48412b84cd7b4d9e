"""The Monte Carlo calculation behind the photon pencil kernel; run it with ``python -m``, import it nowhere else."""
