"""A plan that takes longer than its worker jobs may: one after the other hands over, and nothing is different."""

import pytest

from tests.cluster.slurm_run import SITE, SlurmRun
from tests.faults.compare import damage, difference_of_plans
from tests.faults.trial import PLAN, uninterrupted

# Longer than a job of one minute.
_LONG = PLAN.replace("\ngrid_mm = 8.0", "\ngrid_mm = 3.0").replace("beamlet_mm = 10.0", "beamlet_mm = 2.5")
_LIMIT_S = 1800.0


@pytest.mark.timeout(3600)
def test_jobs_of_one_minute_plan_what_a_quiet_local_run_plans(slurm, prefect, tmp_path):
    expected = tmp_path / "quiet"
    expected.mkdir()
    uninterrupted("plan", _LONG, expected, prefect, limit_s=_LIMIT_S)
    run = SlurmRun(slurm, tmp_path / "run", _LONG, prefect, SITE.replace("00:30:00", "00:01:00"))
    try:
        run.start()
        run.finish(_LIMIT_S)
        assert damage(run.folder) == ""
        assert difference_of_plans(run.folder, expected) == ""
        assert run.left_behind() == []
        ends = {line["how"] for line in run.usage()}
        assert "walltime" in ends
        assert "failed" not in ends
    finally:
        run.clear()
