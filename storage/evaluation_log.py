"""The log of a solver's evaluations: append-only, so that a killed solve goes on where it was, bit for bit.

A solver is deterministic: given the same answers it asks the same questions. After a restart it is asked to begin
again, and gets its first answers from here: evaluations, values, and products with the Hessian. The primal-dual solver
asks for doses of all rows, which would be too much to keep: it hands in its whole state now and then, and goes on from
the last one.

Whoever solves writes a file of its own, ``DIGEST.WRITER.log``, which begins with what the best of the files before it
held. So a process that was taken for dead and goes on writing does so where nobody reads any more.

In a folder each record is handed to the operating system at once, but not synced: a killed process loses nothing that
it appended. A machine that crashes or loses power may lose what its system had not yet written, on Linux about the
last half minute; what is on disk then may end in half a record, zeros or garbage. In a bucket records are sent about
once a second (`storage.log_files`), and a killed process loses those of the last one or two. What is lost is computed
again, with the same bits.

Each record is checksummed, and whatever follows the first that is not whole is cut off. Copies are synced before their
originals are removed.
"""

import hashlib
import struct
from typing import NamedTuple

import crc32c
import numpy as np

from engine.errors import StaleLogError
from engine.model.arrays import F64
from engine.optimise.problem import Evaluation
from storage.log_files import log_files
from storage.places.address import Address
from storage.places.place import clear_errors

_HEADER = struct.Struct("<IIIII16sddd")
"""Sizes of gradient, of term values and of a row of these, of values of constraints and of a row of these, digest of
the question, value, exact value, CPU seconds."""
_CRC = struct.Struct("<I")
_STATE = hashlib.sha256(b"state of a solver").digest()[:16]
"""Stands where other records have the digest of their question."""


class _Record(NamedTuple):
    question: bytes
    evaluation: Evaluation
    cpu_s: float


class EvaluationLog:
    """The log of one solve, which goes on where an earlier writer of the same solve stopped.

    Parameters
    ----------
    store
        Address of the store.
    digest
        Name of the solve.
    writer
        Name of this writer, which no other one ever has (such as the id of a lease).

    Raises
    ------
    StoreError
        If the log cannot be read or written.
    """

    def __init__(self, store: Address, digest: str, writer: str) -> None:
        self._store, self._digest, self._writer = store, digest, writer
        self._files = log_files(store, digest)
        with clear_errors(store, "write"):
            earlier = self._files.names()
            content, self._known = max(
                (_whole_records(self._files.read(name)) for name in earlier),
                key=lambda found: len(found[1]),
                default=(b"", []),
            )
            self._log = self._files.create(writer, content)
            self._files.remove(earlier)
        self._next = 0

    @property
    def n_replayable(self) -> int:
        """Number of evaluations that were found."""
        return len(self._known)

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the evaluations that were found had cost."""
        return self._known[-1].cpu_s if self._known else 0.0

    def replay(self, weight: F64, temperature: float) -> Evaluation | None:
        """Return the logged answer to the next question, or None if it has to be computed.

        Raises
        ------
        StaleLogError
            If the log answers another question: the solver or its libraries have changed. Nothing that was replayed
            may be used then. The log is put aside, so that the next one of this solve begins empty.
        """
        return self._replay(_question(weight, temperature))

    def replay_product(self, weight: F64, direction: F64, temperature: float) -> F64 | None:
        """Return the logged product with the Hessian, if that is the next question, as `replay` does."""
        found = self._replay(_question(weight, temperature, direction))
        return None if found is None else found.gradient

    def restore_state(self) -> F64 | None:
        """Return the last state that was kept, if any; what is asked next is what was asked after it."""
        for place in reversed(range(self._next, len(self._known))):
            if self._known[place].question == _STATE:
                self._next = place + 1
                return self._known[place].evaluation.gradient
        return None

    def _replay(self, question: bytes) -> Evaluation | None:
        if self._next >= len(self._known):
            return None
        record = self._known[self._next]
        if record.question != question:
            with clear_errors(self._store, "write"):
                self._files.put_aside(self._writer)
            raise StaleLogError(
                f"the log of a half-finished solve does not fit this program or processor after {self._next} "
                f"evaluations; it was put aside as {self._digest}.{self._writer}.stale"
            )
        self._next += 1
        return record.evaluation

    def append(self, weight: F64, temperature: float, evaluation: Evaluation, cpu_s: float) -> None:
        """Add an answer.

        Parameters
        ----------
        weight, temperature
            The question.
        evaluation
            The answer.
        cpu_s
            CPU seconds of the whole solve so far, those of earlier writers included.

        Raises
        ------
        StoreError
            If the disk is full or cannot be written; the log then ends with the record before.
        """
        self._append(_question(weight, temperature), evaluation, cpu_s)

    def append_product(
        self, weight: F64, direction: F64, temperature: float, product: F64, cpu_s: float
    ) -> None:
        """Add a product with the Hessian, as `append` does."""
        self._append(_question(weight, temperature, direction), _only(product), cpu_s)

    def keep_state(self, state: F64, cpu_s: float) -> None:
        """Add a solver's state, as `append` does."""
        self._append(_STATE, _only(state), cpu_s)

    def _append(self, question: bytes, evaluation: Evaluation, cpu_s: float) -> None:
        terms, limited = evaluation.term_values, evaluation.limited
        body = _HEADER.pack(
            evaluation.gradient.size,
            terms.size,
            terms.shape[1],
            limited.size,
            limited.shape[1],
            question,
            evaluation.value,
            evaluation.exact,
            cpu_s,
        )
        body += evaluation.gradient.tobytes() + terms.tobytes() + limited.tobytes()
        with clear_errors(self._store, "write"):
            self._log.write(body + _CRC.pack(crc32c.crc32c(body)))

    def close(self, finished: bool) -> None:
        """Close the log; a finished solve is kept elsewhere and needs no log more."""
        self._log.close(keep=not finished)
        if finished:
            remove_logs(self._store, self._digest)


def remove_logs(store: Address, digest: str) -> None:
    """Remove all logs of a solve that is in the store.

    Raises
    ------
    StoreError
        If they cannot be removed.
    """
    files = log_files(store, digest)
    with clear_errors(store, "write"):
        files.remove(files.names())


def _whole_records(raw: bytes) -> tuple[bytes, list[_Record]]:
    """Return a log's whole records, as bytes and as values."""
    known: list[_Record] = []
    at = 0
    while at + _HEADER.size <= len(raw):
        header = _HEADER.unpack_from(raw, at)
        n_gradient, n_terms, n_state, n_limited, n_scenario, question, value, exact, cpu_s = header
        begin = at + _HEADER.size
        end = begin + 8 * (n_gradient + n_terms + n_limited)
        if end + _CRC.size > len(raw) or _CRC.unpack_from(raw, end)[0] != crc32c.crc32c(raw[at:end]):
            break
        numbers = np.frombuffer(raw, np.float64, n_gradient + n_terms + n_limited, begin).copy()
        gradient, terms, limited = np.split(numbers, [n_gradient, n_gradient + n_terms])
        evaluation = Evaluation(
            value,
            gradient,
            terms.reshape(-1, n_state),
            exact,
            limited.reshape(-1, n_scenario) if n_limited else np.zeros((0, 0)),
        )
        at = end + _CRC.size
        known.append(_Record(question, evaluation, cpu_s))
    return raw[:at], known


def _only(numbers: F64) -> Evaluation:
    """Return an answer that is nothing but some numbers."""
    return Evaluation(0.0, numbers, np.zeros((0, 1)), 0.0)


def _question(weight: F64, temperature: float, direction: F64 | None = None) -> bytes:
    h = hashlib.sha256(np.ascontiguousarray(weight).data)
    h.update(struct.pack("<d", temperature))
    if direction is not None:
        h.update(np.ascontiguousarray(direction).data)
    return h.digest()[:16]
