"""What fits in the memory of workers, and what is said where it does not."""

import pytest

from cluster.memory import BASE_BYTES, MemoryNeed, free_bytes, worker_limit
from engine.errors import ClusterError

MIB = 1 << 20
NEED = MemoryNeed(
    patient=10 * MIB,
    tasks={"computing the influence matrix": 50 * MIB, "computing final doses": 80 * MIB},
    n_thread=2,
    rows=1000 * MIB,
    rows_of_group=100 * MIB,
    loading=60 * MIB,
    evaluating=20 * MIB,
)


def test_the_peak_is_the_larger_of_tasks_and_rows():
    assert NEED.peak == BASE_BYTES + (10 + 1000 + 60) * MIB
    few_rows = MemoryNeed(**{**vars(NEED), "rows": 5 * MIB})
    assert few_rows.peak == BASE_BYTES + (10 + 2 * 80) * MIB


def test_what_fits_stays():
    fitting = NEED.streaming(NEED.peak)
    assert (fitting.rows, fitting.room, fitting.peak) == (NEED.rows, NEED.rows, NEED.peak)


def test_where_there_is_room_a_worker_may_keep_the_rows_of_one_that_leaves():
    limit = BASE_BYTES + (10 + 2 * (1000 + 60) + 2 * 100) * MIB
    room = NEED.streaming(limit).room
    assert room is not None
    assert room == pytest.approx(2 * NEED.rows, rel=1e-6)
    assert NEED.streaming(limit - 500 * MIB).room < room


def test_rows_that_do_not_fit_are_streamed_below_the_limit():
    limit = NEED.peak - 300 * MIB
    streamed = NEED.streaming(limit)
    # Each of two threads may be loading a group beside what stays.
    assert streamed.room == streamed.rows == (1000 - 300 - 2 * 100) * MIB
    assert streamed.peak <= limit


def test_what_cannot_be_streamed_is_refused_with_the_numbers():
    with pytest.raises(
        ClusterError, match=r"final doses needs 0\.\d\d GiB .* 2 × 0\.08 GiB task.* may use 0\.25 GiB"
    ):
        NEED.streaming(256 * MIB)
    tight = MemoryNeed(
        **{**vars(NEED), "tasks": {"computing final doses": 10 * MIB}, "rows_of_group": 900 * MIB}
    )
    with pytest.raises(ClusterError, match=r"even if it streams .* 1\.76 GiB tiles of the largest group"):
        tight.streaming(BASE_BYTES + 500 * MIB)


def test_local_workers_share_what_is_free():
    one = worker_limit(None, 1, None)
    assert 0 < one <= free_bytes()
    # What is free changes while others use the machine.
    assert worker_limit(None, 4, None) == pytest.approx(one / 4, rel=0.2)
    assert worker_limit(None, 4, 123) == 123
