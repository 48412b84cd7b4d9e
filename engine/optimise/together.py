"""Solves side by side: each asks its questions by itself, and all that are waiting are answered together.

Products with several sets of weights share the reading of the tiles, so ten solves side by side take about half the
time of ten in a row. Every answer is, to the last bit, the one that the solve would have got alone.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from engine.model.arrays import F64
from engine.optimise.problem import Evaluation, Problem, evaluate_together

Result = TypeVar("Result")
Evaluate = Callable[[Problem, F64, float], Evaluation]


def side_by_side(solves: Sequence[Callable[[Evaluate], Result]]) -> list[Result]:
    """Return the results of some solves in their order; each is given the function to evaluate its problem with.

    All problems must be on the same rows.

    Raises
    ------
    Exception
        The first error of any solve, when all have ended; an error of an evaluation reaches every solve that waits
        for it.
    """
    meeting = _Meeting(len(solves))

    def run(solve: Callable[[Evaluate], Result]) -> Result:
        try:
            return solve(meeting.evaluate)
        finally:
            meeting.leave()

    with ThreadPoolExecutor(max(1, len(solves))) as threads:
        return [future.result() for future in [threads.submit(run, solve) for solve in solves]]


class _Meeting:
    """Where solves meet: when all that still run are waiting for an answer, the last to come asks for all."""

    def __init__(self, n_solve: int) -> None:
        self._running = n_solve
        self._asked: list[tuple[Problem, F64, float]] = []
        self._answers: dict[int, list[Evaluation] | BaseException] = {}
        self._round = 0
        self._changed = threading.Condition()

    def evaluate(self, problem: Problem, weight: F64, temperature: float) -> Evaluation:
        """Return the evaluation, together with those of all other solves."""
        with self._changed:
            here, place = self._round, len(self._asked)
            self._asked.append((problem, weight, temperature))
            self._answer_if_all_ask()
            while here not in self._answers:
                self._changed.wait()
            answers = self._answers[here]
        if isinstance(answers, BaseException):
            raise answers
        return answers[place]

    def leave(self) -> None:
        """Let the others go on without this solve."""
        with self._changed:
            self._running -= 1
            self._answer_if_all_ask()

    def _answer_if_all_ask(self) -> None:
        if not self._asked or len(self._asked) < self._running:
            return
        asked, self._asked = self._asked, []
        # Everybody has taken the answers of the round before: they are waiting here.
        self._answers.pop(self._round - 1, None)
        try:
            self._answers[self._round] = evaluate_together(asked[0][0].rows, asked)
        except BaseException as error:
            self._answers[self._round] = error
            raise
        finally:
            self._round += 1
            self._changed.notify_all()
