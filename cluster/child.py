"""A child process of a cluster, scheduler or worker: what is said to it, what it says, and how it ends."""

import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from cluster.process import JOINED

MAX_EARLY_DEATHS = 5
"""A worker that ends so often in a row before it has joined is not started again."""
_LOG = logging.getLogger("nightbeam")
_LAST_WORDS = 800
_ENVIRONMENT = {
    # Threads are the cluster's business: a library that starts more of them only gets in its way.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def import_path(python: str = sys.executable) -> str:
    """Return a PYTHONPATH with which an interpreter imports what this process can, in whatever way this was started.

    Another interpreter has a library and packages of its own.
    """
    entries = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
    if python != sys.executable:
        own = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix)]
        entries = [
            entry for entry in entries if not any(Path(entry).is_relative_to(prefix) for prefix in own)
        ]
    return os.pathsep.join(entries)


class Child:
    """One process, which dies with the thread that makes this object.

    Parameters
    ----------
    role
        ``scheduler``, ``worker 1``, ...
    arguments
        Of `cluster.process.main`, but for the parent's process id, which is put second.
    descriptors
        Open files that it inherits under the same numbers.
    """

    def __init__(self, role: str, arguments: Sequence[str], descriptors: Sequence[int] = ()) -> None:
        self.role = role
        self.heard = ""
        self.peak_bytes: int | None = None
        """Memory that it used at most: known at its end, and only if it was more than its parent's."""
        # As long as it is no other program, a child is counted as large as its parent is.
        self._parent_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `bury`)
        kind, *more = arguments
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cluster.process", kind, str(os.getpid()), *more],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": import_path()},
                pass_fds=descriptors,
                start_new_session=True,
            )
        except OSError:
            self._words.close()
            raise
        _LOG.info("%s: pid %d", role, self.process.pid)

    @property
    def has_joined(self) -> bool:
        """Whether a worker is, or was, part of the cluster."""
        return self.address is not None

    @property
    def address(self) -> str | None:
        """The address that a worker has had in the cluster since it joined."""
        words = self.heard.split()
        return words[words.index(JOINED) + 1] if JOINED in words[:-1] else None

    def tell(self, line: str) -> None:
        """Write the one line that it waits for."""
        with suppress(BrokenPipeError), self.process.stdin:  # type: ignore[union-attr]
            self.process.stdin.write(f"{line}\n".encode())  # type: ignore[union-attr]

    def listen(self) -> bool:
        """Take in what it says; returns False when it has ended."""
        said = os.read(self.process.stdout.fileno(), 1 << 16)  # type: ignore[union-attr]
        self.heard += said.decode(errors="replace")
        return bool(said)

    def bury(self) -> str:
        """Wait for its end and return how it ended, with its last words."""
        code = self._reap()
        self._words.seek(0)
        words = " ".join(self._words.read().decode(errors="replace").split())[-_LAST_WORDS:]
        self._words.close()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"{how}; its last words: {words}" if words else how

    def _reap(self) -> int:
        if self.process.returncode is None:
            _, status, used = os.wait4(self.process.pid, 0)
            self.process.returncode = os.waitstatus_to_exitcode(status)
            peak_bytes = used.ru_maxrss << 10
            self.peak_bytes = peak_bytes if peak_bytes > self._parent_bytes else None
        return self.process.returncode
