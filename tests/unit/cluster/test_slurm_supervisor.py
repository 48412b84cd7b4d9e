"""The supervisor of worker jobs, with a SLURM that is a few lines of Python; its looks are called one by one."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.ends import WorkerEnd
from cluster.slurm import supervisor
from cluster.slurm.commands import Job
from cluster.slurm.notes import JobNote, is_asked_to_leave, make_folders, write_end, write_job
from cluster.slurm.site import SlurmSite
from cluster.slurm.supervisor import Supervisor
from cluster.slurm.usage import USAGE, read_usage
from engine.errors import ClusterError, NoSlurmError, SchedulerLostError, SlurmAwayError

DAY_S = 86400.0


class Slurm:
    """Jobs that a test moves on by hand."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.error: ClusterError | None = None
        self.list_error: ClusterError | None = None
        self.queues_in_spite_of_error = False

    def submit(self, script: Path) -> str | None:
        if self.error is None or self.queues_in_spite_of_error:
            number = str(len(self.jobs) + 1)
            self.jobs[number] = Job(number, "PENDING", 4, None, None, None, "", "Priority")
        if self.error is not None:
            raise self.error
        return number

    def listing(self) -> list[Job]:
        if self.list_error is not None:
            raise self.list_error
        return list(self.jobs.values())

    def cancel(self, ids: Sequence[str]) -> None:
        for number in ids:
            self.change(number, state="CANCELLED")

    def change(self, number: str, **changes: object) -> None:
        self.jobs[number] = replace(self.jobs[number], **changes)

    def begin(self, *numbers: str, left_s: float = DAY_S) -> None:
        for number in numbers:
            self.change(number, state="RUNNING", begin_s=time.time() - 10.0, left_s=left_s, host="node1")

    def live(self) -> list[str]:
        return [job.id for job in self.jobs.values() if not job.has_ended]


class Night:
    """A supervisor with its SLURM, and what it said."""

    def __init__(self, folder: Path, **keys: object) -> None:
        self.folder, self.slurm, self.said = folder, Slurm(), list[str]()
        make_folders(folder)
        (folder / "worker.sh").touch()
        self.site = SlurmSite(cores=4, memory_gib=8.0, **{"jobs": 2, "walltime": "1-00", **keys})
        self.supervisor = Supervisor(self.site, folder, folder / "worker.sh", self.slurm, self.said.append)
        self.now_s = time.time()

    def look(self, *, after_s: float = 2.0) -> None:
        self.now_s += after_s
        self.supervisor.look(self.now_s)

    def work(self, *numbers: str) -> None:
        """Let the workers of jobs join."""
        for number in numbers:
            write_job(self.folder, JobNote(number, "node1", 0.0, [f"tls://node1:{number}"]))

    def begun(self) -> "Night":
        self.look()
        self.slurm.begin(*self.slurm.jobs)
        self.work(*self.slurm.jobs)
        self.look()
        return self


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path).begun()


def test_as_many_jobs_are_submitted_as_the_file_says(night):
    assert night.slurm.live() == ["1", "2"]
    night.look()
    assert night.slurm.live() == ["1", "2"]


@pytest.mark.parametrize("state", ["CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "FAILED", "COMPLETED"])
def test_a_job_that_ends_is_replaced_whatever_ended_it(night, state):
    night.slurm.change("1", state=state)
    night.look()
    assert night.slurm.live() == ["2", "3"]


def test_workers_of_jobs_that_have_just_been_submitted_will_soon_be_there(tmp_path, monkeypatch):
    night = Night(tmp_path, processes=2).begun()
    assert night.supervisor.n_soon() == 4
    night.slurm.change("1", state="CANCELLED")
    night.look()
    assert night.supervisor.n_soon() == 4  # submitted, and not yet in the list
    night.look()
    assert night.supervisor.n_soon() == 4
    monkeypatch.setattr(supervisor, "_SOON_S", 0.0)
    assert night.supervisor.n_soon() == 2  # it waits in the queue, perhaps for hours
    night.slurm.begin("3")
    night.look()
    assert night.supervisor.n_soon() == 4


def test_a_worker_that_is_missed_has_the_jobs_looked_at_soon(night, monkeypatch):
    monkeypatch.setattr(supervisor, "LOOK_S", 0.0)
    monkeypatch.setattr(supervisor, "_QUIET_LOOK_S", 600.0)
    night.look()
    monkeypatch.setattr(supervisor, "_NOTICE_S", 0.01)
    night.supervisor.start()
    night.slurm.change("1", state="CANCELLED")
    night.supervisor.expects_workers()
    until_s = time.monotonic() + 60.0
    while night.slurm.live() != ["2", "3"]:
        assert time.monotonic() < until_s
        night.supervisor.expects_workers()
        time.sleep(0.01)
    night.supervisor.close()


def test_a_job_that_slurm_forgets_is_replaced(night):
    del night.slurm.jobs["1"]
    night.slurm.jobs["9"] = replace(night.slurm.jobs["2"], id="9", state="COMPLETED")
    night.look()
    night.look()
    assert len(night.slurm.live()) == 2
    assert [line.how for line in read_usage(night.folder / USAGE) if line.job == "1"] == ["lost"]


def test_the_replacement_is_in_the_queue_before_the_walltime_is_over(night):
    night.slurm.change("1", left_s=400.0)
    night.look()
    assert night.slurm.live() == ["1", "2", "3"]
    night.look()
    assert night.slurm.live() == ["1", "2", "3"]


def test_where_jobs_wait_for_long_the_replacement_is_submitted_earlier(night):
    night.slurm.change("1", left_s=3600.0)
    night.look()
    assert night.slurm.live() == ["1", "2"]
    night.supervisor._waits_s = [7200.0]
    night.look()
    assert night.slurm.live() == ["1", "2", "3"]


def test_nothing_is_concluded_while_slurm_is_away(night):
    night.slurm.list_error = SlurmAwayError("squeue failed: timed out")
    for _ in range(5):
        night.look()
    night.slurm.list_error = None
    night.look()
    assert night.slurm.live() == ["1", "2"]
    assert [text for text in night.said if "SLURM" in text or "squeue" in text] == [
        "squeue failed: timed out; worker jobs that run go on, asking again until it answers",
        "SLURM answers again",
    ]


def test_a_job_that_is_queued_although_sbatch_failed_counts(tmp_path):
    night = Night(tmp_path)
    night.slurm.error, night.slurm.queues_in_spite_of_error = SlurmAwayError("sbatch failed: timed out"), True
    night.look()
    night.slurm.error = None
    night.look()
    night.look()
    assert night.slurm.live() == ["1", "2"]


def test_a_refused_job_ends_the_cluster_with_the_reason(tmp_path):
    night = Night(tmp_path)
    night.slurm.error = ClusterError("sbatch failed: invalid partition specified: nope")
    night.look()
    with pytest.raises(
        ClusterError, match=r"does not take the worker jobs: .*invalid partition specified: nope"
    ):
        night.supervisor.expects_workers()


def test_a_machine_without_slurm_ends_the_cluster_at_once(tmp_path):
    night = Night(tmp_path)
    night.slurm.list_error = NoSlurmError("there is no command squeue on this machine")
    night.supervisor.start()
    while night.supervisor.failure() is None:
        time.sleep(0.01)
    with pytest.raises(ClusterError, match="no command squeue"):
        night.supervisor.expects_workers()
    night.supervisor.close()


def test_a_limit_of_submissions_is_no_end_where_jobs_run_already(night):
    night.slurm.change("1", state="PREEMPTED")
    night.slurm.error = ClusterError("sbatch failed: QOSMaxSubmitJobPerUserLimit")
    night.look()
    assert night.supervisor.failure() is None
    night.slurm.error = None
    night.look(after_s=61.0)
    assert night.slurm.live() == ["2", "3"]


def test_a_limit_of_submissions_that_is_met_by_the_second_job_is_no_end(tmp_path, monkeypatch):
    night = Night(tmp_path)
    submit = night.slurm.submit

    def one_only(script: Path) -> str | None:
        night.slurm.error = ClusterError("sbatch failed: limit") if night.slurm.jobs else None
        return submit(script)

    monkeypatch.setattr(night.slurm, "submit", one_only)
    night.look()
    assert night.supervisor.failure() is None
    assert night.slurm.live() == ["1"]


def test_a_queue_that_is_full_with_jobs_of_others_is_waited_for(tmp_path):
    night = Night(tmp_path)
    night.slurm.error = ClusterError("sbatch failed: error: AssocMaxSubmitJobLimit")
    night.look()
    assert night.supervisor.failure() is None
    night.slurm.error = None
    night.look(after_s=61.0)
    assert night.slurm.live() == ["1", "2"]


def test_a_run_whose_folder_was_cleared_away_goes_on_with_another_one(night):
    shutil.rmtree(night.folder)
    night.slurm.change("1", state="CANCELLED")
    night.look()
    assert isinstance(night.supervisor.failure(), SchedulerLostError)
    night.supervisor.close()
    assert night.slurm.live() == []


def test_jobs_that_fail_at_once_again_and_again_end_the_cluster_with_their_last_words(tmp_path):
    night = Night(tmp_path, jobs=1)
    (tmp_path / "logs").mkdir()
    for number in range(1, 6):
        night.look(after_s=200.0)
        assert night.slurm.live() == [str(number)]
        night.slurm.begin(str(number))
        night.slurm.change(str(number), state="FAILED")
        (tmp_path / "logs" / f"nightbeam-{tmp_path.name}-{number}.log").write_text("module: not found\n")
    night.look()
    with pytest.raises(
        ClusterError, match=r"5 worker jobs in a row .* job 5 on node1 \(failed\).* module: not found"
    ):
        night.supervisor.expects_workers()
    night.look(after_s=1000.0)
    assert night.slurm.live() == []


def test_jobs_that_end_at_once_are_no_end_as_long_as_another_one_works(night):
    for number in range(3, 12):
        night.slurm.change(str(number - 1), state="FAILED")
        if number == 3:
            (night.folder / "jobs" / "2.json").unlink()
        night.look(after_s=200.0)
        night.look(after_s=200.0)
        assert night.slurm.live() == ["1", str(number)]
        night.slurm.begin(str(number))
    assert night.supervisor.failure() is None
    assert len([text for text in night.said if "as others work" in text]) > 0


def test_jobs_that_reach_their_walltime_before_a_worker_starts_end_the_cluster(tmp_path):
    night = Night(tmp_path, jobs=1)
    for number in range(1, 6):
        night.look(after_s=200.0)
        night.slurm.begin(str(number))
        night.slurm.change(str(number), state="TIMEOUT")
    night.look()
    with pytest.raises(ClusterError, match="before a worker could start"):
        night.supervisor.expects_workers()


def test_jobs_that_are_accepted_and_never_listed_end_the_cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_LISTED_S", -DAY_S)
    night = Night(tmp_path, jobs=1)
    monkeypatch.setattr(night.slurm, "listing", list)
    for _ in range(12):
        night.look(after_s=200.0)
    with pytest.raises(ClusterError, match=r"job 5 \(sbatch has named it, and squeue does not list it\)"):
        night.supervisor.expects_workers()
    assert len(night.slurm.jobs) == 5


def test_jobs_whose_workers_joined_may_fail_as_often_as_they_like(tmp_path):
    night = Night(tmp_path, jobs=1)
    for number in range(1, 12):
        night.look(after_s=200.0)
        night.work(str(number))
        night.slurm.begin(str(number))
        night.slurm.change(str(number), state="FAILED")
    night.look()
    assert night.supervisor.failure() is None


@pytest.mark.parametrize("state", ["CANCELLED", "PREEMPTED", "NODE_FAIL"])
def test_jobs_that_are_taken_before_a_worker_joins_are_replaced_ever_more_slowly_and_never_given_up(
    tmp_path, monkeypatch, state
):
    night = Night(tmp_path, jobs=1)
    monkeypatch.setattr(time, "time", lambda: night.now_s)
    for _ in range(1000):
        night.look(after_s=3.0)
        for number in night.slurm.live():
            night.slurm.change(number, state=state)
    assert night.supervisor.failure() is None
    # In fifty minutes: about one a minute.
    assert 40 < len(night.slurm.jobs) < 60


def test_why_jobs_wait_is_told_once(tmp_path):
    night = Night(tmp_path)
    for _ in range(20):
        night.look()
    assert [text for text in night.said if "Priority" in text] == [
        "worker jobs wait in SLURM's queue: Priority; waiting for them (Ctrl-C stops, and nothing is lost)"
    ]
    assert night.supervisor.expects_workers() == "2 of 2 worker jobs wait in SLURM's queue (Priority)"


def test_a_suspended_job_does_not_count_as_running_is_told_of_once_and_not_replaced(night):
    night.slurm.change("1", state="SUSPENDED")
    for _ in range(20):
        night.look()
    assert night.slurm.live() == ["1", "2"]
    assert night.supervisor.n_running() == 1
    assert night.supervisor.expects_workers() == "1 of 2 worker jobs are suspended by SLURM"
    assert night.said == ["1 worker jobs are suspended by SLURM; they go on when it lets them"]


def test_more_to_do_brings_more_jobs_and_less_brings_fewer_after_a_while(tmp_path):
    night = Night(tmp_path, jobs=None, jobs_min=1, jobs_max=3).begun()
    assert night.slurm.live() == ["1"]
    night.supervisor.want(1000)
    night.look()
    assert night.slurm.live() == ["1", "2", "3"]
    night.slurm.begin("2", left_s=3600.0)
    night.work("2")
    night.supervisor.want(3)
    night.look()
    night.look(after_s=30.0)
    assert night.slurm.live() == ["1", "2", "3"]
    night.look(after_s=31.0)
    # The one that waits is cancelled; of those that run, the one that would end first leaves when it is done.
    assert night.slurm.live() == ["1", "2"]
    assert is_asked_to_leave(tmp_path, "2")
    assert not is_asked_to_leave(tmp_path, "1")


def test_a_job_that_slurm_starts_again_is_counted_in_parts(night):
    night.slurm.change("1", state="PENDING", begin_s=None, left_s=None, host="", reason="BeginTime")
    night.look()
    assert night.slurm.live() == ["1", "2"]
    assert [(line.job, line.how) for line in read_usage(night.folder / USAGE)] == [("1", "preempted")]


def test_the_end_of_a_worker_is_what_its_keeper_notes(night):
    end = WorkerEnd("tls://node1:1", "memory", "it used 9 GiB", 9 << 30, 8 << 30)
    write_end(night.folder, end)
    assert night.supervisor.why("tls://node1:1") == end


@pytest.mark.parametrize(
    ("state", "cause", "words"),
    [
        ("NODE_FAIL", "left", "job 1 on node1: lost its node"),
        ("CANCELLED", "left", "job 1 on node1: was cancelled"),
        ("OUT_OF_MEMORY", "memory", "job 1 ran out of memory"),
    ],
)
def test_without_a_note_the_state_of_the_job_says_why_its_worker_ended(night, state, cause, words):
    night.slurm.change("1", state=state)
    night.look()
    end = night.supervisor.why("tls://node1:1")
    assert (end.cause, end.words) == (cause, words)


def test_a_job_that_was_taken_for_lost_and_came_back_is_cancelled_at_the_end(night):
    lost = night.slurm.jobs.pop("1")
    night.look()
    night.look()
    night.slurm.jobs["1"] = lost
    night.supervisor.close()
    assert night.slurm.live() == []


def test_all_jobs_are_cancelled_and_counted_at_the_end(night):
    night.supervisor.close()
    assert night.slurm.live() == []
    lines = read_usage(night.folder / USAGE)
    assert [(line.job, line.host, line.cores, line.how) for line in lines] == [
        ("1", "node1", 4, "completed"),
        ("2", "node1", 4, "completed"),
    ]
    assert all(line.end - line.begin == pytest.approx(10.0, abs=60.0) for line in lines)


def test_in_haste_jobs_are_cancelled_without_waiting_for_their_end_and_are_not_replaced(night, monkeypatch):
    monkeypatch.setattr(supervisor, "_HASTY_END_S", 0.0)
    asked = []
    monkeypatch.setattr(night.slurm, "cancel", asked.extend)
    night.supervisor.cancel_now()
    night.supervisor.close()
    assert asked == ["1", "2"]
    assert not any("replacing" in line for line in night.said)


def test_jobs_that_slurm_did_not_cancel_in_haste_are_cancelled_at_the_end(night, monkeypatch):
    def fail(_ids):
        raise SlurmAwayError("no answer")

    with monkeypatch.context() as away:
        away.setattr(night.slurm, "cancel", fail)
        night.supervisor.cancel_now()
    assert night.slurm.live() == ["1", "2"]
    night.supervisor.close()
    assert night.slurm.live() == []
