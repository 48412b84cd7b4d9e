"""Processes on this machine: a scheduler and some workers, each a child of its own, looked after by a thread.

A worker that dies is started again; one that dies again and again before it has joined ends the cluster, with its last
words. When the scheduler dies the cluster ends, as all it knew is lost: whoever used it starts another one. The
children die with this process, whatever happens to it, and ignore Ctrl-C, which is for this process to act on.
"""

import logging
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path

from distributed import Security

from cluster.child import MAX_EARLY_DEATHS, Child
from cluster.ends import Cause, WorkerEnd
from cluster.memory import n_oom_kill, worker_limit
from cluster.security import hidden_certificate, path_of, security
from engine.errors import ClusterError, SchedulerLostError

START_S = 60.0
"""How long a scheduler may take to say its address."""
SCHEDULER = "scheduler"
_LOG = logging.getLogger("nightbeam")
_END_S = 5.0
_NOTICE_S = 2.0
_NEAR_LIMIT = 0.9
"""A killed worker that used this share of what it might is taken to have run out of memory."""


class LocalProcesses:
    """A cluster of local processes; they are starting when the constructor returns.

    Parameters
    ----------
    n_worker
        Worker processes.
    n_thread
        Threads of each worker.
    imports
        Modules that workers import while they start.
    certificate
        File with certificate and key, where others than children of this process share it.
    listen
        Where the scheduler listens, if not on loopback: address, and range of ports ``first:last`` or nothing.
    limit_bytes
        Memory that each worker may use; if None, an equal share of what is free.
    """

    def __init__(
        self,
        n_worker: int,
        n_thread: int = 1,
        imports: Sequence[str] = (),
        certificate: Path | None = None,
        listen: Sequence[str] = (),
        limit_bytes: int | None = None,
    ) -> None:
        self.n_worker, self._worker_arguments = n_worker, (str(n_thread), *imports)
        self._scheduler_arguments = listen
        self._limit_bytes = worker_limit(None, max(1, n_worker), limit_bytes)
        self._n_oom_kill = n_oom_kill()
        self._ends: dict[str, WorkerEnd] = {}
        self.certificate = hidden_certificate() if certificate is None else os.open(certificate, os.O_RDONLY)
        """Descriptor of the certificate that all processes of the cluster have."""
        self._children: dict[str, Child] = {}
        self._n_early_deaths: dict[str, int] = {}
        self._address: Future[str] = Future()
        self._failure: ClusterError | None = None
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = os.pipe()
        self._closed = False
        # The kernel ends the children when the *thread* that started them ends: this one outlives them all.
        self._thread = threading.Thread(target=self._look_after, name="nightbeam-cluster", daemon=True)
        self._thread.start()

    def security(self) -> Security:
        """Return what a client of this process needs to be let in."""
        return security(path_of(self.certificate))

    def address(self) -> str:
        """Return the scheduler's address, waiting for it to start.

        Raises
        ------
        ClusterError
            If it does not.
        """
        try:
            return self._address.result(START_S)
        except NotYet:
            raise ClusterError(
                f"a Dask scheduler on this machine did not start within {START_S:g} s; "
                "the machine may be out of memory or overloaded: try again"
            ) from None

    def failure(self) -> ClusterError | None:
        """Return why the cluster ended by itself (a `SchedulerLostError` where another may do better), or None."""
        # Who asks has noticed something: what ended is known here in a moment, too.
        self._thread.join(_NOTICE_S)
        return self._failure

    def pids(self) -> dict[str, int]:
        """Return the process ids of ``scheduler``, ``worker 1``, ``worker 2``, ..."""
        return {role: child.process.pid for role, child in list(self._children.items())}

    def why(self, address: str) -> WorkerEnd | None:
        """Return why the worker at an address ended, or None if that is not known yet."""
        return self._ends.get(address)

    def close(self) -> None:
        """End all processes, and wait for their end."""
        if not self._closed:
            self._closed = True
            os.write(self._wake_in, b"x")
            self._thread.join()
            os.close(self._wake_in)
            os.close(self._wake_out)
            os.close(self.certificate)

    def _look_after(self) -> None:
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        try:
            self._start(SCHEDULER)
            for number in range(1, self.n_worker + 1):
                self._start(f"worker {number}")
            while self._failure is None:
                for key, _ in self._selector.select():
                    if key.data is None:
                        return
                    self._hear(key.data)
        except OSError as error:
            self._fail(ClusterError(f"processes for computing cannot be started ({error.strerror or error})"))
        finally:
            self._end()

    def _start(self, role: str) -> None:
        arguments = (
            ["scheduler", *self._scheduler_arguments]
            if role == SCHEDULER
            else ["worker", role, *self._worker_arguments]
        )
        kind, *more = arguments
        certificate = str(path_of(self.certificate))
        child = Child(role, [kind, certificate, *more], [self.certificate])
        self._children[role] = child
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)  # type: ignore[arg-type]
        if role != SCHEDULER and self._address.done():
            child.tell(self._address.result())

    def _hear(self, child: Child) -> None:
        if not child.listen():
            self._selector.unregister(child.process.stdout)  # type: ignore[arg-type]
            self._replace(child)
        elif child.role == SCHEDULER and not self._address.done() and "\n" in child.heard:
            self._address.set_result(child.heard.split()[0])
            for other in self._children.values():
                if other is not child:
                    other.tell(self._address.result())

    def _replace(self, child: Child) -> None:
        how = child.bury()
        del self._children[child.role]
        if child.role == SCHEDULER:
            self._fail(SchedulerLostError(f"the Dask scheduler on this machine ended ({how})"))
            return
        if child.address is not None:
            self._ends[child.address] = self._end_of(child, child.address, how)
        n_early = 0 if child.has_joined else self._n_early_deaths.get(child.role, 0) + 1
        self._n_early_deaths[child.role] = n_early
        if n_early >= MAX_EARLY_DEATHS:
            self._fail(
                ClusterError(
                    f"{child.role} ended {n_early} times before it could start working ({how}); "
                    "if memory is short, try fewer --workers"
                )
            )
            return
        _LOG.warning("%s (pid %d) ended (%s); starting it again", child.role, child.process.pid, how)
        self._start(child.role)

    def _end_of(self, child: Child, address: str, how: str) -> WorkerEnd:
        before, self._n_oom_kill = self._n_oom_kill, n_oom_kill()
        peak_bytes = child.peak_bytes
        # The system's killer says nothing to whom it kills. Where nobody counts what it does, size tells.
        near_limit = peak_bytes is not None and peak_bytes > _NEAR_LIMIT * self._limit_bytes
        out_of_memory = child.process.returncode == -signal.SIGKILL and (
            self._n_oom_kill > before or near_limit
        )
        cause: Cause = "memory" if out_of_memory else "left" if child.process.returncode == 0 else "died"
        return WorkerEnd(address, cause, f"{child.role} {how}", peak_bytes, self._limit_bytes)

    def _fail(self, failure: ClusterError) -> None:
        self._failure = failure
        if not self._address.done():
            self._address.set_exception(failure)

    def _end(self) -> None:
        """End the workers, then the scheduler."""
        workers = [child for role, child in self._children.items() if role != SCHEDULER]
        scheduler = [child for role, child in self._children.items() if role == SCHEDULER]
        for generation in (workers, scheduler):
            for child in generation:
                child.process.terminate()
            limit_s = time.monotonic() + _END_S
            for child in generation:
                try:
                    child.process.wait(max(0.0, limit_s - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.process.kill()
                child.bury()
        self._children.clear()
        self._selector.close()
        if not self._address.done():
            self._address.set_exception(ClusterError("the cluster was closed before it had started"))
