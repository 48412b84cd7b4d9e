"""CPU seconds of tasks."""

import time


def cpu_clock_s() -> float:
    """Return a clock of CPU seconds whose differences are a task's own, as long as its worker is busy.

    A thread's own clock would miss the threads that compress and write for it; that of the process counts what other
    tasks do meanwhile. So a task has its share of the process's.
    """
    # Imported late: whoever looks things up in the store needs no Dask.
    from distributed import get_worker

    try:
        n_thread = get_worker().state.nthreads
    except ValueError:  # not on a worker
        n_thread = 1
    return time.process_time() / n_thread
