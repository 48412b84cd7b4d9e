"""Solves side by side: each asks its questions by itself, and all that are waiting are answered together.

Products with several sets of weights share the reading of the tiles, so ten solves side by side take about half the
time of ten in a row. Every answer is, to the last bit, the one that the solve would have got alone.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from engine.errors import OptimisationError
from engine.model.arrays import F64
from engine.optimise.problem import (
    Evaluation,
    Problem,
    RowHolders,
    evaluate_together,
    products_together,
    values_together,
)

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Asked:
    """A question: for value and gradient, for a product with a direction if there is one, or for the value alone."""

    problem: Problem
    weight: F64
    temperature: float
    direction: F64 | None = None
    value_alone: bool = False

    @property
    def kind(self) -> str:
        if self.direction is not None:
            return "product"
        return "value" if self.value_alone else "evaluation"


def side_by_side(solves: Sequence[Callable[["Meeting"], Result]]) -> list[Result]:
    """Return the results of some solves in their order; each is given the meeting to take a seat at.

    All problems must be on the same rows.

    Raises
    ------
    Exception
        The first error of any solve, when all have ended; an error of an evaluation reaches every solve that waits
        for it. What ends the calling thread (Ctrl-C) ends all solves at their next question.
    """
    meeting = Meeting()
    # Here as well as in each solve: the limit is the process's, and the first to end would lift it for the others.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(max(1, len(solves))) as threads:
        try:
            return [future.result() for future in [threads.submit(solve, meeting) for solve in solves]]
        except BaseException as error:
            if not isinstance(error, Exception):
                meeting.stop()
            raise


class Meeting:
    """Where solves meet: when all that have a seat are waiting for an answer, the last to ask asks for all.

    A solve takes a seat when it begins to ask, and not before: nobody shall wait for one that itself waits for others.
    """

    def __init__(self) -> None:
        self.stopped = threading.Event()
        """Whether all are to end."""
        self._seated = 0
        self._asked: list[_Asked] = []
        self._answers: dict[int, list[Any] | BaseException] = {}
        self._round = 0
        self._changed = threading.Condition()

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Have a seat, so that others wait for this solve's questions."""
        with self._changed:
            self._seated += 1
        try:
            yield
        finally:
            with self._changed:
                self._seated -= 1
                self._answer_if_all_ask()

    def evaluate(self, problem: Problem, weight: F64, temperature: float) -> Evaluation:
        """Return the evaluation, together with those of all others that have a seat.

        Raises
        ------
        OptimisationError
            If all are to end.
        """
        evaluation: Evaluation = self._ask(_Asked(problem, weight, temperature))
        return evaluation

    def value(self, problem: Problem, weight: F64, temperature: float) -> Evaluation:
        """Return `Problem.value`, as `evaluate` does."""
        evaluation: Evaluation = self._ask(_Asked(problem, weight, temperature, value_alone=True))
        return evaluation

    def hessian_product(self, problem: Problem, weight: F64, direction: F64, temperature: float) -> F64:
        """Return `Problem.hessian_product`, as `evaluate` does."""
        product: F64 = self._ask(_Asked(problem, weight, temperature, direction))
        return product

    def _ask(self, question: _Asked) -> Any:
        with self._changed:
            here, place = self._round, len(self._asked)
            self._asked.append(question)
            self._answer_if_all_ask()
            while here not in self._answers and not self.stopped.is_set():
                self._changed.wait()
            answers = self._answers.get(here)
        if answers is None:
            raise OptimisationError("the solve was stopped; the same command goes on with it")
        if isinstance(answers, BaseException):
            raise answers
        return answers[place]

    def stop(self) -> None:
        """End all that wait for an answer, now or later."""
        self.stopped.set()
        with self._changed:
            self._changed.notify_all()

    def _answer_if_all_ask(self) -> None:
        if not self._asked or len(self._asked) < self._seated or self.stopped.is_set():
            return
        asked, self._asked = self._asked, []
        # Everybody has taken the answers of the round before: they are waiting here.
        self._answers.pop(self._round - 1, None)
        try:
            self._answers[self._round] = _answered(asked[0].problem.rows, asked)
        except BaseException as error:
            self._answers[self._round] = error
            raise
        finally:
            self._round += 1
            self._changed.notify_all()


def _answered(rows: RowHolders, asked: Sequence[_Asked]) -> list[Any]:
    """Return the answers to questions of all kinds in their order, those of one kind asked together."""
    answers: list[Any] = [None] * len(asked)
    for kind in dict.fromkeys(question.kind for question in asked):
        places = [place for place, question in enumerate(asked) if question.kind == kind]
        of_kind = [asked[place] for place in places]
        found: Sequence[Any]
        if kind == "product":
            found = products_together(
                rows,
                [
                    (q.problem, q.weight, q.direction, q.temperature)
                    for q in of_kind
                    if q.direction is not None
                ],
            )
        else:
            together = evaluate_together if kind == "evaluation" else values_together
            found = together(rows, [(q.problem, q.weight, q.temperature) for q in of_kind])
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    return answers
