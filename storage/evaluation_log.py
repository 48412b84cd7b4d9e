"""The log of a solver's evaluations: append-only, so that a killed solve goes on where it was, bit for bit.

A solver is deterministic: given the same answers it asks the same questions. After a restart it is asked to begin
again, and gets its first answers from here. Each record is checksummed; whatever follows the first incomplete record
is cut off.
"""

import fcntl
import hashlib
import os
import struct
from pathlib import Path

import crc32c
import numpy as np

from engine.errors import StoreError
from engine.model.arrays import F64
from engine.optimise.problem import Evaluation
from storage.store import clear_errors

_HEADER = struct.Struct("<II16sdd")
"""Length of gradient and of term values, digest of the question, value, exact value."""
_CRC = struct.Struct("<I")


class EvaluationLog:
    """A log file, locked for its only writer.

    Parameters
    ----------
    path
        Where it lies; made if absent.

    Raises
    ------
    StoreError
        If another process is solving the same problem in the same store, or the log cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with clear_errors(path.parent, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise StoreError(
                "another run is solving the same problem in this store; wait for it, or use another --store"
            ) from error
        self._known = self._read()
        self._next = 0

    @property
    def n_replayable(self) -> int:
        """Number of evaluations that were found."""
        return len(self._known)

    def replay(self, weight: F64, temperature: float) -> Evaluation | None:
        """Return the logged answer to the next question, or None if it has to be computed.

        Raises
        ------
        StoreError
            If the log answers another question: the solver or its libraries have changed.
        """
        if self._next >= len(self._known):
            return None
        question, evaluation = self._known[self._next]
        if question != _question(weight, temperature):
            raise StoreError(
                f"the log of a half-finished solve ({self._path.name}) does not fit this program or processor; "
                "delete it to solve again from the start"
            )
        self._next += 1
        return evaluation

    def append(self, weight: F64, temperature: float, evaluation: Evaluation) -> None:
        """Add an answer.

        Raises
        ------
        StoreError
            If the disk is full or cannot be written.
        """
        body = _HEADER.pack(
            evaluation.gradient.size,
            evaluation.term_values.size,
            _question(weight, temperature),
            evaluation.value,
            evaluation.exact,
        )
        body += evaluation.gradient.tobytes() + evaluation.term_values.tobytes()
        body += struct.pack("<I", evaluation.term_values.shape[1])
        with clear_errors(self._path.parent, "write"):
            self._file.write(body + _CRC.pack(crc32c.crc32c(body)))
            self._file.flush()
        self._next += 1

    def close(self, finished: bool) -> None:
        """Close the log; a finished solve is kept elsewhere and needs it no more."""
        if finished:
            self._path.unlink(missing_ok=True)
        self._file.close()

    def _read(self) -> list[tuple[bytes, Evaluation]]:
        raw = self._path.read_bytes()
        known, at = [], 0
        while at + _HEADER.size <= len(raw):
            n_gradient, n_terms, question, value, exact = _HEADER.unpack_from(raw, at)
            end = at + _HEADER.size + 8 * (n_gradient + n_terms) + 4
            if end + _CRC.size > len(raw) or _CRC.unpack_from(raw, end)[0] != crc32c.crc32c(raw[at:end]):
                break
            numbers = np.frombuffer(raw, np.float64, n_gradient + n_terms, at + _HEADER.size).copy()
            (n_state,) = struct.unpack_from("<I", raw, end - 4)
            terms = numbers[n_gradient:].reshape(-1, n_state)
            known.append((question, Evaluation(value, numbers[:n_gradient], terms, exact)))
            at = end + _CRC.size
        os.ftruncate(self._file.fileno(), at)
        return known


def _question(weight: F64, temperature: float) -> bytes:
    h = hashlib.sha256(np.ascontiguousarray(weight).data)
    h.update(struct.pack("<d", temperature))
    return h.digest()[:16]
