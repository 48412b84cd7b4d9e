"""Two runs that need the same result: one makes it under a lease, the other waits, and takes over if need be."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from engine.errors import LeaseLostError, OptimisationError, StaleLogError
from flows.run import Run
from storage.lease import Claim, Lease

R = TypeVar("R")
_LOOK_S = 0.25


def find_or_make(
    run: Run,
    name: str,
    find: Callable[[], R | None],
    make: Callable[[Lease], R],
    stopped: threading.Event | None = None,
) -> R:
    """Return what ``find`` finds, or what ``make`` makes while no other run makes it.

    Parameters
    ----------
    run
        The run.
    name
        What is made, as a name of a lease.
    find
        Looks whether it is there, whoever made it; None if it is not.
    make
        Makes and publishes it; looks at the lease while it works.
    stopped
        Set when nobody wants the result any more.

    Raises
    ------
    OptimisationError
        If nobody wants the result any more.
    StudyError
        If it is not there and this run may not compute.
    """
    found = find()
    if found is not None:
        return found
    run.require_computing()
    claim = Claim(run.store.address, name)
    told = False
    while True:
        lease = claim.try_take()
        if lease is None:
            if not told:
                who = f" ({claim.holder})" if claim.holder else ""
                run.reporter.say(f"another run{who} is solving this; waiting for it")
                told = True
            time.sleep(_LOOK_S)
            if stopped is not None and stopped.is_set():
                raise OptimisationError("stopped while another run was solving this")
            found = find()
        else:
            with lease:
                # It may have appeared between the last look and the lease.
                found = find()
                if found is None:
                    found = _try_make(run, lease, make)
        if found is not None:
            return found


def _try_make(run: Run, lease: Lease, make: Callable[[Lease], R]) -> R | None:
    try:
        return make(lease)
    except LeaseLostError as error:
        run.reporter.say(f"{error}; waiting for it")
    except StaleLogError as error:
        run.reporter.say(f"{error}; solving from the start")
    return None
