"""What is said of workers that are not fit."""

from dataclasses import replace

import pytest

from cluster.findings import complaints, other_code
from cluster.preflight import Worker
from cluster.seen import Seen

HERE = Seen(
    "login", "eth0", "c0de", "/opt/engine", "3.11.7", {"numpy": "2.4.6"}, 4, 8 << 30, "/tmp", 50 << 30, "", "EPYC",
)  # fmt: skip
GOOD = Worker("tls://10.0.0.1:4000", 2, 4 << 30, replace(HERE, host="n1"), 0.1, "b175", 1.0, "")


def with_seen(**changes: object) -> Worker:
    return replace(GOOD, seen=replace(GOOD.seen, **changes))


def test_there_is_nothing_to_say_of_workers_like_the_planning_process() -> None:
    assert complaints([GOOD, GOOD], HERE) == []


@pytest.mark.parametrize(
    ("worker", "what"),
    [
        (with_seen(code="01d"), "n1 (10.0.0.1:4000) has other code (01d"),
        (with_seen(python="3.12.1"), "other versions: Python 3.12.1 (here 3.11.7); install"),
        (with_seen(libraries={"numpy": "2.3.0"}), "numpy 2.3.0 (here 2.4.6)"),
        (with_seen(n_core=1), "has 2 threads but may use 1 cores"),
        (with_seen(free_bytes=100 << 20), "0.10 GiB of memory left"),
        (replace(GOOD, limit_bytes=100 << 20), "0.10 GiB of memory left"),
        (with_seen(scratch_trouble="Permission denied"), "cannot write to its scratch folder /tmp (Permission denied)"),
        (with_seen(scratch_bytes=1 << 20), "free in its scratch folder"),
        (replace(GOOD, clock_s=-90.0), "is 90 s behind this machine's"),
        (replace(GOOD, bits="", trouble="OSError: no"), "could not do the known job: OSError: no"),
        (replace(GOOD, seen=None, trouble="no module"), "does not have this nightbeam: no module"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_worker_is_one_sentence(worker: Worker, what: str) -> None:
    (sentence,) = complaints([GOOD, worker], HERE)
    assert what in sentence
    assert ";" in sentence


def test_other_bits_are_told_with_the_processors() -> None:
    other = replace(with_seen(host="n2", processor="Xeon"), bits="0ff", address="tls://10.0.0.2:4000")
    (sentence,) = complaints([GOOD, GOOD, other], HERE)
    assert "b175 on EPYC (n1" in sentence
    assert "0ff on Xeon (n2" in sentence
    assert other_code([other], HERE) == []
