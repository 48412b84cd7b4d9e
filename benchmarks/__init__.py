"""Benchmarks: run from the repository's root as ``python -m benchmarks.NAME``. All of them use one thread a process."""

import os

# Read by the libraries while they are imported, which is after this.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"))
