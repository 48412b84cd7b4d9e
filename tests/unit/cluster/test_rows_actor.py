"""What a worker does with its reduction groups."""

import threading

import numpy as np

from cluster.rows_actor import RowsActor
from engine.optimise.functions import SquaredDeviation
from engine.optimise.group import GroupEvaluator, Question, Term
from tests.dense_tiles import small_problem


def test_an_actor_works_on_as_many_groups_at_a_time_as_it_has_threads():
    small = small_problem(seed=9, n_group=4, block_sizes=(5, 7, 3), n_brick=8)
    both_are_here = threading.Barrier(2, timeout=30.0)

    class Meeting(GroupEvaluator):
        def sums(self, *args):
            both_are_here.wait()
            return super().sums(*args)

    def load(numbers):
        return [Meeting(small.rows.groups[n].scenarios, small.rows.groups[n].regions) for n in numbers]

    actor = RowsActor(load, [3, 0, 2, 1], 4, n_thread=2)
    actor.load()
    weight = np.ones(small.n_beamlet)
    asked = [Question(weight, (Term("target", 0, SquaredDeviation(dose_gy=6.0), 3.0),), 3)]
    parts = actor.sums(asked)
    for part, number in zip(parts, (3, 0, 2, 1), strict=True):
        np.testing.assert_array_equal(part, small.rows.groups[number].sums(asked))
    assert actor.cpu_s() > 0.0
