"""How a command ends that is asked to by SIGTERM: what would outlive it goes first, then it tidies up, in a short time.

SLURM asks all processes of a job at once, and kills them after its KillWait: 30 s, or less. By then the Dask scheduler
may be gone, and the main thread may be anywhere, in a call that waits for it or in Prefect's own handler of SIGTERM.
What must not wait for that is done by a thread which the signal itself wakes.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TERMINATED = 128 + signal.SIGTERM
"""Exit status of a command that was asked to end by SIGTERM: 143, as a shell reports it."""
END_S = 8.0
"""How long a command may take to end when it is asked to: less than SLURM waits before it kills."""
_LOG = logging.getLogger("nightbeam")


class Terminated(KeyboardInterrupt):
    """SIGTERM came: whatever tidies up after Ctrl-C does so now."""


class _Ending:
    """The end of one command."""

    def __init__(self) -> None:
        self._first: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._cut_off: threading.Timer | None = None

    @property
    def is_asked(self) -> bool:
        """Whether the command was asked to end."""
        return self._cut_off is not None

    def begin(self) -> None:
        """Do what comes first, each in a thread of its own; all that still runs is cut off in a while."""
        with self._lock:
            if self._cut_off is not None:
                return
            self._cut_off = threading.Timer(END_S, os._exit, (TERMINATED,))
            self._cut_off.daemon = True
            self._cut_off.start()
            for act in self._first:
                self._do(act)

    def add(self, act: Callable[[], None]) -> None:
        """Have something done first; at once if the command was asked already."""
        with self._lock:
            self._first.append(act)
            if self.is_asked:
                self._do(act)

    def remove(self, act: Callable[[], None]) -> None:
        """Have it done no more."""
        with self._lock:
            self._first.remove(act)

    def over(self) -> None:
        """Cut nothing off any more."""
        if self._cut_off is not None:
            self._cut_off.cancel()

    @staticmethod
    def _do(act: Callable[[], None]) -> None:
        threading.Thread(target=act, name="nightbeam-ending", daemon=True).start()


_ending: _Ending | None = None


@contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """Have SIGTERM end what runs inside as Ctrl-C does; what then takes too long is cut off, and children with it."""
    global _ending
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ending, outer = _Ending(), _ending
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)
    listener = threading.Thread(
        target=_listen, args=(wake_out, ending), name="nightbeam-sigterm", daemon=True
    )
    listener.start()
    # Written to by the signal itself, whoever has put a handler of their own in the place of this one.
    wakes_before = signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
    _ending = ending
    try:
        with _raising():
            yield
    except Terminated:
        raise
    except BaseException as error:
        # Tidying up half-way through something may fail in any way.
        if ending.is_asked:
            raise Terminated from error
        raise
    finally:
        _ending = outer
        signal.set_wakeup_fd(wakes_before)
        os.close(wake_in)
        listener.join()
        os.close(wake_out)
        ending.over()


@contextmanager
def of_the_command() -> Iterator[None]:
    """Have SIGTERM mean what it means for the command also in a flow, where Prefect has a handler of its own.

    Prefect's raises again at a second signal, in the middle of tidying up: a job's processes are asked by SLURM and by
    their parent. Does nothing in a flow that no command has started: there it is Prefect that ends it.
    """
    if _ending is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _raising():
        yield


@contextmanager
def first_of_all(act: Callable[[], None]) -> Iterator[None]:
    """Have something done as soon as the command is asked to end, in a thread: to end what would outlive it."""
    ending = _ending
    if ending is None:
        yield
        return
    ending.add(act)
    try:
        yield
    finally:
        ending.remove(act)


@contextmanager
def _raising() -> Iterator[None]:
    def end(_signal: int, _frame: Any) -> None:
        # Asked once is enough.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if _ending is not None:
            _ending.begin()
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _listen(wake_out: int, ending: _Ending) -> None:
    while heard := os.read(wake_out, 64):
        if signal.SIGTERM in heard:
            ending.begin()
