"""What lives on a worker and answers for its groups of rows."""

import pickle
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from distributed import get_worker

from engine.errors import NightbeamError
from engine.model.arrays import F64
from engine.optimise.group import GroupEvaluator, Question, RegionRows

T = TypeVar("T")
P = ParamSpec("P")


class GroupLoader(Protocol):
    """Loads reduction groups on a worker; picklable."""

    def __call__(self, groups: Sequence[int]) -> list[GroupEvaluator]:
        """Return the evaluators of some consecutive groups."""
        ...


class _WorkError(Exception):
    """Carries an error of the work itself from a worker, past everything that looks for lost workers."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _telling(
    method: Callable[Concatenate["RowsActor", P], T],
) -> Callable[Concatenate["RowsActor", P], T]:
    """Have a method raise nothing but `_WorkError`."""

    def tell(self: "RowsActor", /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            raise _WorkError(_portable(error)) from None

    return tell


def _portable(error: Exception) -> Exception:
    """Return an error with the worker's traceback as a note, or one with all its words if it cannot travel."""
    if not isinstance(error, NightbeamError):
        error.add_note(f"on a worker:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except (pickle.PickleError, AttributeError, TypeError, ValueError, RecursionError):
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


class _Group(Protocol):
    """What answers for one group."""

    def sums(self, questions: Sequence[Question]) -> list[F64]:
        """Return the partial sums of every question."""
        ...

    def gradients(self, questions: Sequence[Question], slopes: Sequence[F64]) -> list[F64]:
        """Return the gradient parts of every question."""
        ...

    def curvature_sums(self, questions: Sequence[Question], directions: Sequence[F64]) -> list[F64]:
        """Return the partial sums of every question, and their changes."""
        ...

    def curvature_products(
        self, questions: Sequence[Question], slopes: Sequence[F64], changes: Sequence[F64]
    ) -> list[F64]:
        """Return the parts of the Hessians' products of every question."""
        ...

    @property
    def regions(self) -> tuple[RegionRows, ...]:
        """The regions' rows."""
        ...

    def doses(self, weight: F64, used: int) -> F64:
        """Return the dose of every row."""
        ...

    def adjoint(self, by_rows: F64, n_beamlet: int) -> F64:
        """Return what numbers on the rows come to for the beamlets."""
        ...


class _StreamedGroup:
    """A group that is loaded for each answer, and let go."""

    def __init__(self, load: GroupLoader, number: int) -> None:
        self._load, self._number = load, number
        self._directions: Sequence[F64] = ()
        """Those of the last `curvature_sums`."""

    def _loaded(self) -> GroupEvaluator:
        (group,) = self._load([self._number])
        return group

    def sums(self, questions: Sequence[Question]) -> list[F64]:
        return self._loaded().sums(questions)

    def gradients(self, questions: Sequence[Question], slopes: Sequence[F64]) -> list[F64]:
        group = self._loaded()
        group.sums(questions)  # the doses; they cost little beside the loading
        return group.gradients(questions, slopes)

    def curvature_sums(self, questions: Sequence[Question], directions: Sequence[F64]) -> list[F64]:
        group = self._loaded()
        self._directions = directions
        return group.curvature_sums(questions, directions)

    def curvature_products(
        self, questions: Sequence[Question], slopes: Sequence[F64], changes: Sequence[F64]
    ) -> list[F64]:
        group = self._loaded()
        group.curvature_sums(questions, self._directions)
        return group.curvature_products(questions, slopes, changes)

    @property
    def regions(self) -> tuple[RegionRows, ...]:
        return self._loaded().regions

    def doses(self, weight: F64, used: int) -> F64:
        return self._loaded().doses(weight, used)

    def adjoint(self, by_rows: F64, n_beamlet: int) -> F64:
        return self._loaded().adjoint(by_rows, n_beamlet)


class RowsActor:
    """Lives on a worker and answers for its groups."""

    def __init__(
        self, load: GroupLoader, numbers: Sequence[int], n_resident: int, n_thread: int | None = None
    ) -> None:
        self._load, self._numbers = load, numbers[:n_resident]
        self._streamed = [_StreamedGroup(load, number) for number in numbers[n_resident:]]
        self._resident: list[GroupEvaluator] = []
        self._n_thread = n_thread or get_worker().state.nthreads
        self._threads = ThreadPoolExecutor(self._n_thread)
        self._cpu_s = 0.0

    @_telling
    def load(self) -> None:
        """Load the groups that stay, each thread as many consecutive ones."""
        runs = [
            run
            for share in np.array_split(self._numbers, self._n_thread)
            for run in np.split(share, np.flatnonzero(np.diff(share) != 1) + 1)
            if run.size
        ]
        self._resident = [group for groups in self._threads.map(self._load, runs) for group in groups]

    @_telling
    def stop_streaming(self) -> None:
        """Answer for the resident groups alone."""
        self._streamed = []

    @_telling
    def let_go(self) -> None:
        """Give back the memory of the resident tiles."""
        self._resident = []

    @_telling
    def cpu_s(self) -> float:
        """Return the CPU seconds spent on sums and gradients."""
        return self._cpu_s

    @_telling
    def n_bytes(self) -> int:
        """Return the bytes of the resident tiles."""
        return sum(group.n_bytes for group in self._resident)

    @_telling
    def sums(self, questions: Sequence[Question]) -> list[list[F64]]:
        """Return the partial sums of every group here."""
        return self._of_groups(lambda group: group.sums(questions))

    @_telling
    def gradients(self, questions: Sequence[Question], slopes: Sequence[F64]) -> list[list[F64]]:
        """Return the gradient parts of every group here, for the doses of the last `sums`."""
        return self._of_groups(lambda group: group.gradients(questions, slopes))

    @_telling
    def curvature_sums(self, questions: Sequence[Question], directions: Sequence[F64]) -> list[list[F64]]:
        """Return the partial sums of every group here, and their changes."""
        return self._of_groups(lambda group: group.curvature_sums(questions, directions))

    @_telling
    def curvature_products(
        self, questions: Sequence[Question], slopes: Sequence[F64], changes: Sequence[F64]
    ) -> list[list[F64]]:
        """Return the parts of the Hessians' products, for the doses of the last `curvature_sums`."""
        return self._of_groups(lambda group: group.curvature_products(questions, slopes, changes))

    @_telling
    def regions(self) -> list[tuple[RegionRows, ...]]:
        """Return the regions' rows of every group here."""
        return self._of_groups(lambda group: group.regions)

    @_telling
    def doses(self, weight: F64, used: int) -> list[F64]:
        """Return the doses of every group here."""
        return self._of_groups(lambda group: group.doses(weight, used))

    @_telling
    def adjoints(self, n_beamlet: int, by_rows: Sequence[F64]) -> list[F64]:
        """Return what numbers on the rows of every group here come to for the beamlets."""
        left = dict(zip([*self._resident, *self._streamed], by_rows, strict=True))
        return self._of_groups(lambda group: group.adjoint(left[group], n_beamlet))

    def _of_groups(self, work: Callable[["_Group"], T]) -> list[T]:
        """Return the work's results in the order of the groups, whichever thread did which."""

        def timed(group: _Group) -> tuple[T, float]:
            begin_s = time.thread_time()
            return work(group), time.thread_time() - begin_s

        done = list(self._threads.map(timed, [*self._resident, *self._streamed]))
        self._cpu_s += sum(cpu_s for _, cpu_s in done)
        return [part for part, _ in done]
