"""The small job whose bits tell workers apart."""

import cluster.known_job
from cluster.known_job import known_bits


def test_the_known_job_has_the_same_bits_every_time() -> None:
    assert known_bits() == known_bits()


def test_a_beam_that_is_turned_a_little_gives_other_bits(monkeypatch) -> None:
    before = known_bits()
    beam = cluster.known_job.Beam
    monkeypatch.setattr(
        cluster.known_job, "Beam", lambda name, gantry_deg, *rest: beam(name, gantry_deg + 1e-4, *rest)
    )
    assert known_bits() != before
