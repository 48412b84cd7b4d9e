"""What fits in the memory of workers, and what is said where it does not."""

import pytest

from cluster.memory import BASE_BYTES, MemoryNeed, Room, free_bytes, worker_limit
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
    assert (fitting.rows, fitting.peak) == (NEED.rows, NEED.peak)
    assert fitting.room is not None
    assert fitting.room.alone == NEED.rows


def test_beside_groups_that_are_streamed_a_worker_keeps_less():
    room = NEED.streaming(NEED.peak).room
    assert room is not None
    # Each of two threads may be loading a group, and what is needed beside rows is 60 parts in 1000 of them.
    assert NEED.rows - room.beside_streams == pytest.approx(2 * 100 * MIB / 1.06, rel=1e-6)


def test_where_there_is_room_a_worker_may_keep_the_rows_of_one_that_leaves():
    limit = BASE_BYTES + (10 + 2 * (1000 + 60)) * MIB
    room, less = NEED.streaming(limit).room, NEED.streaming(limit - 500 * MIB).room
    assert room is not None
    assert less is not None
    assert room.alone == pytest.approx(2 * NEED.rows, rel=1e-6)
    assert less.alone < room.alone


def test_rows_that_do_not_fit_are_streamed_below_the_limit():
    limit = NEED.peak - 300 * MIB
    streamed = NEED.streaming(limit)
    # Each of two threads may be loading a group beside what stays.
    assert streamed.rows == (1000 - 300 - 2 * 100) * MIB
    # One that has fewer groups, as others came, streams none.
    assert streamed.room == Room((1000 - 300) * MIB, streamed.rows)
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
