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
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType

from engine.errors import LeaseLostError
from storage.holder import Holder, this_machine
from storage.lease_files import LeaseFiles, Seen, lease_files
from storage.places.address import Address
from storage.places.opening import place_at
from storage.places.place import clear_errors

LEASE_S = 20.0
"""Silence after which a holder on another machine, or one that was stopped, has lost its lease."""
_BEAT_S = 2.0
_LISTEN_S = 0.25
_FORGOTTEN_S = 3600.0
"""Silence after which a run on another machine does not count as live, for those who look only once."""
_RUN = "run-"


class Lease:
    """A lease that this process took; a context manager that gives it back.

    Made by `Claim.try_take` and `take_run_lease`.
    """

    def __init__(self, address: Address, files: LeaseFiles, name: str, holder: Holder) -> None:
        self._address, self._files, self._name, self._holder = address, files, name, holder
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
        with clear_errors(self._address, "write"):
            found = self._files.look(self._name)
            if found is not None and found.holder == self._holder:
                self._files.remove(self._name)

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
        begin_s = _awake_or_not_s()
        try:
            if not self._files.touch(self._name, self._holder):
                self._lost = True
                return
        except OSError:
            # A server that does not answer: the next beat may come through, and `is_held` counts the time.
            return
        self._beaten_s = begin_s


class Claim:
    """Somebody who wants a lease and asks for it now and then.

    Parameters
    ----------
    store
        Address of the store.
    name
        What the lease is for; part of a file name.
    """

    def __init__(self, store: Address, name: str) -> None:
        self._address, self._files, self._name = store, lease_files(store), name
        self._seen: tuple[int, int | str] | None = None
        self._silence_s = 0.0
        self._looked_s = time.monotonic()
        self._heard = False
        self.holder: Holder | None = None
        """Who had the lease when `try_take` last failed; None if nobody knows."""

    def try_take(self) -> Lease | None:
        """Take the lease if it is free or over; None if another process has it.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        with clear_errors(self._address, "write"):
            self._files.prepare()
            before = self._tokens()
            last = max(before, default=0)
            if before and not self._is_over(last, before[last]):
                return None
            mine = f"{self._name}.{last + 1}"
            holder = self._files.make(mine)
            if holder is None:
                return None
            now = self._tokens()
            now.pop(last + 1, None)
            if not now.items() <= before.items():
                # Somebody took the lease, or its holder woke up, after this process had looked: theirs goes before.
                # Tokens begin again when a lease was given back, so it takes more than the numbers to see that.
                self._files.remove(mine)
                return None
            for token in now:
                self._files.remove(f"{self._name}.{token}")
            return Lease(self._address, self._files, mine, holder)

    def take_or_listen(self, on_listen: Callable[[], None] = lambda: None) -> Lease | None:
        """Take the lease; None if its holder lives.

        On this machine that is seen at once. One on another machine, or of before this one was started anew, is
        listened for: it is heard within some seconds, or the lease is over after `LEASE_S`.

        Parameters
        ----------
        on_listen
            Called before listening, if that is needed.

        Raises
        ------
        StoreError
            If the store cannot be written.
        """
        lease = self.try_take()
        if lease is not None or self._lives():
            return lease
        on_listen()
        while lease is None and not self._lives():
            time.sleep(_LISTEN_S)
            lease = self.try_take()
        return lease

    def _lives(self) -> bool:
        """Return whether the holder is on this machine, where `try_take` sees its end, or has been heard."""
        return self._heard or (self.holder is not None and self.holder.machine == this_machine())

    def _tokens(self) -> dict[int, Seen]:
        """Return every token that there is, as it was found."""
        names = self._files.names(f"{self._name}.")
        looked = {int(name.rpartition(".")[2]): self._files.look(name) for name in names}
        return {token: found for token, found in looked.items() if found is not None}

    def _is_over(self, token: int, found: Seen) -> bool:
        now_s = time.monotonic()
        # A watcher that was stopped itself has not listened in the meantime.
        listened_s, self._looked_s = min(now_s - self._looked_s, _BEAT_S), now_s
        self.holder = found.holder
        if self._seen != (token, found.version):
            self._heard = self._seen is not None
            self._seen, self._silence_s = (token, found.version), 0.0
        else:
            self._silence_s += listened_s
        return self._silence_s >= LEASE_S or (found.holder is not None and found.holder.is_gone())


def take_run_lease(store: Address) -> Lease:
    """Say that a run works on this store, and clear away the leases of processes that are gone.

    Raises
    ------
    StoreError
        If the store cannot be written.
    """
    files = lease_files(store)
    with clear_errors(store, "write"):
        files.prepare()
        for name in files.names(""):
            found = files.look(name)
            if found is not None and found.holder is not None and found.holder.is_gone():
                files.remove(name)
        mine = f"{_RUN}{uuid.uuid4().hex[:12]}.1"
        holder = files.make(mine)
        if holder is None:
            raise FileExistsError(errno.EEXIST, "a lease of this name exists", mine)
        return Lease(store, files, mine, holder)


def live_since(store: Address) -> float | None:
    """Return when the oldest live run on a store started; None if there is no live run.

    Parameters
    ----------
    store
        Address of the store.

    Returns
    -------
    float or None
        A time in s, of the clock that files in the store have.

    Raises
    ------
    StoreError
        If the leases cannot be read, or the store not written.
    """
    files = lease_files(store)
    since = []
    with clear_errors(store, "read"):
        names = files.names(_RUN)
        if not names:
            return None
        now_s = place_at(store).time_s()
        for name in names:
            found = files.look(name)
            if found is None:
                continue
            holder = found.holder
            if holder is not None and holder.machine == this_machine():
                live = not holder.is_gone()
            else:
                live = now_s - found.modified_s < _FORGOTTEN_S
            if live:
                since.append(holder.since if holder else found.modified_s)
    return min(since, default=None)


def _awake_or_not_s() -> float:
    """Return a time that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
