"""Solves side by side: the same bits as alone, and nobody waits for ever."""

import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest

from engine.optimise.functions import MeanDose, SquaredDeviation
from engine.optimise.group import Term
from engine.optimise.problem import Problem, uniform_start
from engine.optimise.solvers import Further, SolverOptions, solve
from engine.optimise.together import side_by_side
from tests.dense_tiles import small_problem

OPTIONS = SolverOptions(max_evaluations=30, tolerance=1e-9)


class CountingRows:
    """Rows of a small problem that count how often they are asked, and how much at once."""

    def __init__(self, fail_after=10**9):
        self._rows = small_problem(seed=4).rows
        self.n_beamlet = self._rows.n_beamlet
        self.asked = []
        self._fail_after = fail_after

    def sums(self, questions):
        self.asked.append(len(questions))
        if len(self.asked) > self._fail_after:
            raise ArithmeticError("no more answers")
        return self._rows.sums(questions)

    def gradients(self, questions, slopes):
        return self._rows.gradients(questions, slopes)


def problems(rows):
    mean = Term("m", 1, MeanDose(), 1.0)
    return [
        Problem(rows, [Term("t", 0, SquaredDeviation(dose_gy=5.0), weight), mean], "nominal", np.ones(1))
        for weight in (0.1, 1.0, 10.0, 30.0, 100.0)
    ]


def solved(problem, start, evaluate):
    return solve(lambda w, t: evaluate(problem, w, t), start, 1, lambda stage, at: 0.0, OPTIONS)


def seated(problem, start, all_here=lambda: None):
    """Return a solve that takes a seat at the meeting."""

    def begin(meeting):
        with meeting.seat():
            all_here()
            return solved(problem, start, meeting.evaluate)

    return begin


def test_solves_side_by_side_end_with_the_bits_of_solves_in_a_row():
    rows = CountingRows()
    start = uniform_start(rows, 0, 5.0)
    alone = [solved(p, start, lambda problem, w, t: problem.evaluate(w, t)) for p in problems(rows)]
    n_alone = len(rows.asked)
    rows.asked.clear()
    all_here = threading.Barrier(5).wait
    together = side_by_side([seated(p, start, all_here) for p in problems(rows)])
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.weight, b.weight)
        np.testing.assert_array_equal(a.history, b.history)
        assert a.reason == b.reason
    assert len({len(a.history) for a in alone}) > 1, "some end earlier than others"
    assert max(rows.asked) == 5
    assert len(rows.asked) < 0.5 * n_alone


def test_an_error_of_an_evaluation_ends_all_solves():
    rows = CountingRows(fail_after=4)
    start = np.ones(rows.n_beamlet)
    with pytest.raises(ArithmeticError, match="no more answers"):
        side_by_side([seated(p, start) for p in problems(rows)])
    assert threading.active_count() < 20


def test_a_solve_that_fails_by_itself_does_not_hold_the_others_up():
    rows = CountingRows()
    start, finished = np.ones(rows.n_beamlet), []

    def failing(meeting):
        with meeting.seat():
            meeting.evaluate(problems(rows)[0], start, 0.0)
            raise KeyError("its own")

    def good(meeting, problem):
        finished.append(seated(problem, start)(meeting))

    with pytest.raises(KeyError, match="its own"):
        side_by_side([failing, *(partial(good, problem=p) for p in problems(rows)[1:])])
    assert len(finished) == 4


def test_nobody_waits_for_a_solve_that_has_not_begun_to_ask():
    rows = CountingRows()
    start, ended = np.ones(rows.n_beamlet), threading.Event()

    def late(meeting):
        # As one that waits for a lease which is free only when the other has ended.
        assert ended.wait(60.0)
        return seated(problems(rows)[1], start)(meeting)

    def early(meeting):
        try:
            return seated(problems(rows)[0], start)(meeting)
        finally:
            ended.set()

    assert len(side_by_side([late, early])) == 2


def test_ctrl_c_ends_all_solves_at_their_next_question():
    script = """
import os, signal, sys, threading, time
import numpy as np
from engine.optimise.together import side_by_side
from tests.unit.engine.test_together import CountingRows, problems
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
rows = CountingRows()
def endless(problem):
    def solve(meeting):
        with meeting.seat():
            while True:
                meeting.evaluate(problem, np.ones(rows.n_beamlet), 0.0)
    return solve
def interrupt():
    while len(rows.asked) < 5:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    side_by_side([endless(p) for p in problems(rows)])
except KeyboardInterrupt:
    sys.exit(17)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], timeout=60, check=False, capture_output=True, text=True
    )
    assert done.returncode == 17, done.stderr


def test_no_solves_have_no_results():
    assert side_by_side([]) == []


def test_solves_by_different_solvers_have_the_bits_that_they_have_alone():
    rows = small_problem(seed=4).rows
    start = uniform_start(rows, 0, 5.0)
    solvers = ["newton_cg", "simulated_annealing", "lbfgsb", "newton_cg", "projected_gradient"]

    def by(solver, problem, asked_of):
        options = SolverOptions(40, 1e-9, solver=solver)
        further = Further(
            lambda weight, direction, t: asked_of.hessian_product(problem, weight, direction, t),
            lambda weight, t: asked_of.value(problem, weight, t),
        )
        return solve(
            lambda w, t: asked_of.evaluate(problem, w, t), start, 1, lambda stage, at: 0.0, options, further
        )

    def beside(solver, problem, meeting):
        with meeting.seat():
            return by(solver, problem, meeting)

    given = list(zip(solvers, problems(rows), strict=True))
    alone = [by(solver, problem, Problem) for solver, problem in given]
    together = side_by_side([partial(beside, *pair) for pair in given])
    for one, other in zip(alone, together, strict=True):
        assert one.weight.tobytes() == other.weight.tobytes()
        assert one.history.tobytes() == other.history.tobytes()
