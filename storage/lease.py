"""Leases: who works on what in a store, so that two runs do not do the same work, and a dead one holds up nobody.

A lease is a file ``leases/NAME.TOKEN``, made exclusively, which its holder touches every two seconds. It is over when
the holder removes it, when the holder's process is gone (seen at once on the same machine), or when a watcher has
heard nothing for `LEASE_S`. The watcher counts with its own clock, and only while it is awake itself, so clocks of
hosts need not agree. To take an old lease over is to make the file with the next token: of many, one succeeds.

A lease saves work; it protects no data. A holder that was stopped and wakes up late may write once more before it
looks at its lease, so whatever is written under a lease goes where nobody else writes, or has the same bits whoever
writes it (docs/decisions/0007).
"""

import errno
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from engine.errors import LeaseLostError
from storage.store import clear_errors

LEASE_S = 20.0
"""Silence after which a holder on another machine, or one that was stopped, has lost its lease."""
_BEAT_S = 2.0
_FORGOTTEN_S = 3600.0
"""Silence after which a run on another machine does not count as live, for those who look only once."""
FOLDER = "leases"
_RUN = "run-"


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
        When the lease was taken: modification time in s, of the clock that files in the store have.
    """

    host: str
    machine: str
    pid: int
    started: int
    id: str
    since: float

    def is_gone(self) -> bool:
        """Return whether its process surely lives no more; False where that cannot be seen from here."""
        if self.machine != _this_machine():
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


class Lease:
    """A lease that this process took; a context manager that gives it back.

    Made by `Claim.try_take` and `take_run_lease`.
    """

    def __init__(self, path: Path, holder: Holder) -> None:
        self._path, self._holder = path, holder
        self._lost = False
        self._beaten_s = _awake_or_not_s()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_ended, name="lease", daemon=True)
        self._thread.start()

    @property
    def id(self) -> str:
        """Return what tells this lease from every other one."""
        return self._holder.id

    def is_held(self) -> bool:
        """Return whether this process still has the lease; it looks itself if it may have slept."""
        if _awake_or_not_s() - self._beaten_s > 2.0 * _BEAT_S:
            self._beat()
        return not self._lost and _awake_or_not_s() - self._beaten_s <= LEASE_S

    def require_held(self) -> None:
        """Raise if this process has lost the lease.

        Raises
        ------
        LeaseLostError
            If another process has taken it over, or may have.
        """
        if not self.is_held():
            raise LeaseLostError(
                "this run was stopped, or its disk did not answer, for so long that another run has taken over"
            )

    def release(self) -> None:
        """Give the lease back, if it is still there to give."""
        self._ended.set()
        self._thread.join()
        with clear_errors(self._path.parent.parent, "write"):
            found = _look(self._path)
            if found is not None and found[1] == self._holder:
                self._path.unlink(missing_ok=True)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _beat_until_ended(self) -> None:
        while not self._lost and not self._ended.wait(_BEAT_S):
            self._beat()

    def _beat(self) -> None:
        try:
            found = _look(self._path)
            if found is None or found[1] != self._holder:
                self._lost = True
                return
            # No time is given, so that it is the file server's.
            os.utime(self._path)
        except OSError:
            # A server that does not answer: the next beat may come through, and `is_held` counts the time.
            return
        self._beaten_s = _awake_or_not_s()


class Claim:
    """Somebody who wants a lease and asks for it now and then.

    Parameters
    ----------
    store
        Folder of the store.
    name
        What the lease is for; part of a file name.
    """

    def __init__(self, store: Path, name: str) -> None:
        self._folder, self._name = store / FOLDER, name
        self._seen: tuple[int, int] | None = None
        self._silence_s = 0.0
        self._looked_s = time.monotonic()
        self.holder: Holder | None = None
        """Who had the lease when `try_take` last failed; None if nobody knows."""

    def try_take(self) -> Lease | None:
        """Take the lease if it is free or over; None if another process has it.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        with clear_errors(self._folder.parent, "write"):
            self._folder.mkdir(exist_ok=True)
            before = self._tokens()
            last = max(before, default=0)
            if before and not self._is_over(last, *before[last]):
                return None
            path = self._path(last + 1)
            holder = _make(path)
            if holder is None:
                return None
            now = self._tokens()
            now.pop(last + 1, None)
            if not now.items() <= before.items():
                # Somebody took the lease, or its holder woke up, after this process had looked: theirs goes before.
                # Tokens begin again when a lease was given back, so it takes more than the numbers to see that.
                path.unlink(missing_ok=True)
                return None
            for token in now:
                self._path(token).unlink(missing_ok=True)
            return Lease(path, holder)

    def _path(self, token: int) -> Path:
        return self._folder / f"{self._name}.{token}"

    def _tokens(self) -> dict[int, tuple[int, Holder | None]]:
        """Return modification time in ns and holder of every token that there is."""
        looked = {int(path.suffix[1:]): _look(path) for path in self._folder.glob(f"{self._name}.*")}
        return {token: found for token, found in looked.items() if found is not None}

    def _is_over(self, token: int, modified_ns: int, holder: Holder | None) -> bool:
        now_s = time.monotonic()
        # A watcher that was stopped itself has not listened in the meantime.
        listened_s, self._looked_s = min(now_s - self._looked_s, _BEAT_S), now_s
        self.holder = holder
        if self._seen != (token, modified_ns):
            self._seen, self._silence_s = (token, modified_ns), 0.0
        else:
            self._silence_s += listened_s
        return self._silence_s >= LEASE_S or (holder is not None and holder.is_gone())


def take_run_lease(store: Path) -> Lease:
    """Say that a run works on this store, and clear away the leases of processes that are gone.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    folder = store / FOLDER
    with clear_errors(store, "write"):
        folder.mkdir(exist_ok=True)
        for path in list(folder.iterdir()):
            found = _look(path)
            if found is not None and found[1] is not None and found[1].is_gone():
                path.unlink(missing_ok=True)
        path = folder / f"{_RUN}{uuid.uuid4().hex[:12]}.1"
        holder = _make(path)
        if holder is None:
            raise FileExistsError(errno.EEXIST, "a lease of this name exists", str(path))
        return Lease(path, holder)


def this_process(since: float) -> Holder:
    """Return what others need to see whether this process lives."""
    pid = os.getpid()
    return Holder(
        socket.gethostname(), _this_machine(), pid, _state_and_start(pid)[1], uuid.uuid4().hex[:16], since
    )


def live_since(store: Path) -> float | None:
    """Return when the oldest live run on a store started; None if there is no live run.

    Parameters
    ----------
    store
        Folder of the store.

    Returns
    -------
    float or None
        A modification time in s, of the clock that files in the store have.

    Raises
    ------
    StoreError
        If the folder of leases cannot be read or written.
    """
    folder = store / FOLDER
    since = []
    with clear_errors(store, "read"):
        leases = list(folder.glob(f"{_RUN}*"))
        if not leases:
            return None
        with tempfile.NamedTemporaryFile(dir=store / "aside") as stream:
            now_s = os.fstat(stream.fileno()).st_mtime
        for path in leases:
            found = _look(path)
            if found is None:
                continue
            modified_s, holder = found[0] * 1e-9, found[1]
            if holder is not None and holder.machine == _this_machine():
                live = not holder.is_gone()
            else:
                live = now_s - modified_s < _FORGOTTEN_S
            if live:
                since.append(holder.since if holder else modified_s)
    return min(since, default=None)


def _make(path: Path) -> Holder | None:
    """Make a lease's file; None if it exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return None
    try:
        with os.fdopen(descriptor, "w") as stream:
            holder = this_process(os.fstat(descriptor).st_mtime)
            json.dump(asdict(holder), stream)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return holder


def _look(path: Path) -> tuple[int, Holder | None] | None:
    """Return a lease's modification time in ns and its holder, who may not have signed yet; None if it is gone."""
    try:
        # Opened, because an open file's time is asked of a network server, and a closed one's may be remembered.
        with path.open() as stream:
            modified_ns = os.fstat(stream.fileno()).st_mtime_ns
            text = stream.read()
    except FileNotFoundError:
        return None
    try:
        return modified_ns, Holder(**json.loads(text))
    except (ValueError, TypeError):
        return modified_ns, None


def _this_machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # Containers on one machine have process numbers of their own.
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _state_and_start(pid: int) -> tuple[str, int]:
    # The program's name, in parentheses, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _awake_or_not_s() -> float:
    """Return a time that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
