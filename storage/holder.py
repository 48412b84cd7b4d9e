"""Who holds a lease: a process, so that others on the same machine see at once when it is gone."""

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Holder:
    """The process that has a lease.

    Parameters
    ----------
    host
        Name of its host, for people.
    machine
        What its process number is valid on: one boot of one machine, and the process namespace.
    pid, started
        Its process number, and when it started in ticks since boot (numbers are used again).
    id
        Different for every lease ever taken.
    since
        When the lease was taken, in s, by the clock that files in the store have.
    """

    host: str
    machine: str
    pid: int
    started: int
    id: str
    since: float

    def is_gone(self) -> bool:
        """Return whether its process surely lives no more; False where that cannot be seen from here."""
        if self.machine != this_machine():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        try:
            state, started = _state_and_start(self.pid)
        except OSError:
            # Its folder in /proc may be hidden from other users.
            return False
        return started != self.started or state in "ZX"

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}"


def this_process(since: float) -> Holder:
    """Return this process as the holder of a new lease."""
    return Holder(
        socket.gethostname(),
        this_machine(),
        os.getpid(),
        _state_and_start(os.getpid())[1],
        uuid.uuid4().hex[:16],
        since,
    )


def this_machine() -> str:
    """Return what a process number is valid on."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # Containers on one machine have process numbers of their own.
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _state_and_start(pid: int) -> tuple[str, int]:
    # The program's name, in parentheses, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])
