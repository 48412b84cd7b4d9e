"""The night's work, with processes that only pretend to plan; the page and the status that tell of it."""

import json
import re
import time
from dataclasses import replace

import pytest

from engine.errors import StoreError
from flows.batch import work as work_module
from flows.batch.board import Board, take_stock
from flows.batch.flow import only_batch
from flows.batch.goals import read_goals
from flows.batch.jobs import Job
from flows.batch.night import Night, begin_night, keep_night
from flows.batch.page import read_summary
from flows.batch.process import Ended
from flows.batch.record import Attempt, Record, read_record, write_record
from flows.batch.sharing import Sharing
from flows.batch.spec import Batch, NightSpec
from flows.batch.status import status_of
from flows.batch.usage import Usage, usage_of
from flows.batch.work import Work
from flows.run import Computing
from storage.store import Store

DONE, FAILED = Ended("done", "", 2.0), Ended("failed", "the target is empty; draw it", 1.0)
LOST = Ended("lost", "its process was ended by SIGKILL", 1.0)
GOALS = [
    {"structure": "PTV", "expression": "D95% >= 50 Gy", "value": 49.0, "limit": 50.0, "unit": "Gy"},
    {"structure": "Core", "expression": "D10% <= 25 Gy", "value": 20.0, "limit": 25.0, "unit": "Gy"},
]


class Acted:
    """A process that ends as its job's script says, attempt by attempt."""

    scripts: dict[str, list[Ended]]
    started: list[str]
    most_at_once: int
    running: int

    def __init__(self, job, store, options):
        self._job = job
        Acted.started.append(job.case)
        Acted.running += 1
        Acted.most_at_once = max(Acted.most_at_once, Acted.running)

    def ended(self):
        ended = Acted.scripts.get(self._job.case, [DONE]).pop(0)
        Acted.running -= 1
        if ended.how == "done":
            goals = [{**goal, "passed": goal["structure"] == "Core"} for goal in GOALS]
            self._job.numbers.write_text(json.dumps({"kind": "plan", "goals": goals, "robustness": None}))
            self._job.page.write_text("a report")
        return ended

    def ask_to_end(self):
        pass

    def stop(self, limit_s):
        return self.ended()


@pytest.fixture
def night(tmp_path, monkeypatch):
    """Return a function that works through a night of cases and returns what the page says."""
    store, output = Store(tmp_path / "store"), tmp_path / "out"
    monkeypatch.setattr(work_module, "JobProcess", Acted)
    monkeypatch.setattr(work_module, "_LOOK_S", 0.0)

    def go(cases, scripts=(), budget=NightSpec(), when=None, **settings):  # noqa: B008
        Acted.scripts = {case: list(script) for case, script in dict(scripts).items()}
        Acted.started, Acted.most_at_once, Acted.running = [], 0, 0
        batch = Batch(protocols=("p.toml",), phantoms=("water-box",), night=budget, **settings)
        study = 'name = "n"\n[case]\nphantom = "water-box"\nhu_table = "phantom"\n'
        jobs = [Job(case, "p", "plan", 0, output / case / "p", study) for case in cases]
        with only_batch(output, print) as lease:
            entries = take_stock(jobs, store)
            begun = begin_night(output, batch.night, time.time()) if when is None else when
            board = Board("night", output, str(store.folder), (), "nightbeam batch b.toml", begun, entries)
            sharing = Sharing(Computing("tcp://127.0.0.1:1"), batch.cases_at_once)
            Work(batch, board, store, sharing, lease, print).through_the_night()
            board.write("ended")
        summary = read_summary(output)
        return {row.case: row for row in summary.rows}

    go.output = output
    return go


def test_one_failure_stops_no_other_case_and_is_explained(night):
    rows = night("abc", {"b": [FAILED]})
    assert [row.state for row in rows.values()] == ["done", "failed", "done"]
    assert rows["b"].why == "the target is empty; draw it"
    assert rows["b"].retry.startswith("nightbeam plan ")
    page = (night.output / "batch.html").read_text()
    assert "Research use only" in page
    assert "the target is empty; draw it" in page
    assert 'href="a/p/report.html"' in page


def test_again_only_what_failed_is_started(night):
    night("abc", {"b": [FAILED]})
    rows = night("abc")
    assert Acted.started == ["b"]
    assert {row.state for row in rows.values()} == {"done"}
    assert rows["b"].n_attempt == 2


def test_a_done_case_whose_inputs_have_changed_is_done_again(night):
    night("ab")
    folder = night.output / "a" / "p"
    write_record(folder, replace(read_record(folder), inputs="another"))
    night("ab")
    assert Acted.started == ["a"]


def test_a_done_case_without_its_report_is_done_again(night):
    night("ab")
    (night.output / "b/p/report.html").unlink()
    night("ab")
    assert Acted.started == ["b"]


def test_a_lost_case_is_started_again_after_the_others(night):
    rows = night("abc", {"a": [LOST, DONE]}, cases_at_once=1)
    assert Acted.started == ["a", "b", "c", "a"]
    assert rows["a"].state == "done"


def test_a_case_that_is_lost_every_time_fails(night):
    rows = night("ab", {"a": [LOST, LOST, LOST]}, retries=2)
    assert Acted.started.count("a") == 3
    assert (rows["a"].state, rows["a"].why) == ("failed", LOST.why)


def test_a_case_that_came_to_its_end_as_the_batch_was_stopped_is_done(night, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(work_module.time, "sleep", stop)
        with pytest.raises(KeyboardInterrupt):
            night("ab", {"b": [FAILED]})
    night("ab")
    assert Acted.started == ["b"]
    assert [attempt.how for attempt in read_record(night.output / "b/p").attempts] == ["stopped", "done"]


def test_no_more_cases_run_at_once_than_asked(night):
    night("abcdef", cases_at_once=3)
    assert Acted.most_at_once == 3


def test_after_the_time_nothing_is_started_and_the_page_says_why(night):
    now = time.time()
    rows = night("ab", when=Night(now - 3600.0, now - 60.0, now))
    assert Acted.started == []
    assert {row.state for row in rows.values()} == {"waiting"}
    assert rows["a"].why.startswith("no case is started after ")


def test_when_the_core_hours_are_used_up_the_rest_waits(night):
    (night.output / "a" / "p").mkdir(parents=True)
    line = {
        "job": "1",
        "host": "n1",
        "cores": 4,
        "begin": time.time() + 1.0,
        "end": time.time() + 1801.0,
        "how": "completed",
    }
    (night.output / "a/p/usage.jsonl").write_text(json.dumps(line) + "\n")
    rows = night("ab", budget=NightSpec(core_hours=1.5))
    assert rows["a"].core_hours == pytest.approx(2.0, rel=1e-3)
    assert rows["b"].why == "the night's 1.5 core hours are used up"


def test_a_case_that_ran_when_the_batch_was_killed_is_started_again(night):
    night("ab")
    folder = night.output / "a" / "p"
    killed = replace(read_record(folder).attempts[-1], how="running", ended=None)
    write_record(folder, Record("", (killed,)))
    night("ab")
    assert Acted.started == ["a"]
    assert [attempt.how for attempt in read_record(folder).attempts] == ["lost", "done"]


def test_a_second_batch_on_one_output_is_refused(night, tmp_path):
    with (
        only_batch(tmp_path / "out", print),
        pytest.raises(StoreError, match="another batch works on"),
        only_batch(tmp_path / "out", print),
    ):
        pass


def test_goals_are_told_with_the_one_that_is_missed(night):
    goals = night("a")["a"].goals
    assert (goals.n_met, goals.n_goal) == (1, 2)
    assert goals.worst == "PTV D95% >= 50 Gy: 49.00 Gy"


def test_of_a_front_the_plan_that_meets_most_goals_is_told(tmp_path):
    plans = [
        {"name": name, "dominated": dominated, "goals": [{**goal, "passed": passed} for goal in GOALS]}
        for name, dominated, passed in (("1", False, False), ("2", False, True), ("3", True, True))
    ]
    (tmp_path / "front.json").write_text(json.dumps({"kind": "front", "plans": plans}))
    met = read_goals(tmp_path / "front.json")
    assert (met.plan, met.n_met, met.n_goal) == ("2", 2, 2)


def test_hard_limits_that_are_exceeded_are_told(tmp_path):
    row = {
        "structure": "Core",
        "function": "maximum",
        "sense": "at most",
        "limit": 20.0,
        "unit": "Gy",
        "met": True,
    }
    rows = [{**row, "value": 19.0}, {**row, "structure": "Cord", "value": 31.5, "met": False}]
    (tmp_path / "plan.json").write_text(
        json.dumps({"kind": "plan", "goals": GOALS[:0], "limits": {"rows": rows}})
    )
    assert read_goals(tmp_path / "plan.json").exceeded == "Cord: maximum at most 20.00 Gy (has 31.50)"


def test_the_status_tells_the_same_as_the_page(night, capsys):
    from rich.console import Console

    night("ab", {"b": [FAILED]})
    shown, goes_on = status_of(night.output)
    Console(width=200).print(shown)
    told = capsys.readouterr().out
    assert "night: 1 done, 1 failed, 0 waiting" in told
    assert re.search(r"a +p +done +1 of 2", told)
    assert "the target is empty; draw it" in told
    assert not goes_on


def test_the_status_of_a_killed_batch_says_so(night):
    night("a")
    file = night.output / "batch.json"
    summary = json.loads(file.read_text())
    summary["state"], summary["started"] = "running", summary["started"] + 1
    summary["rows"][0]["state"] = "running"
    file.write_text(json.dumps(summary))
    shown, goes_on = status_of(night.output)
    assert str(shown.renderables[0]).startswith("night: 0 done, 0 failed, 1 waiting")
    assert any("is gone; `nightbeam batch b.toml` goes on" in str(part) for part in shown.renderables)
    assert not goes_on


# -- the night -----------------------------------------------------------------------------------------------------


def test_a_night_ends_at_the_next_such_time_of_day(tmp_path):
    evening = time.mktime((2026, 11, 21, 20, 15, 0, 0, 0, -1))
    morning = time.mktime((2026, 11, 22, 6, 30, 0, 0, 0, -1))
    assert begin_night(tmp_path, NightSpec(stop_starting_at="06:30"), evening).stop_starting == morning
    assert begin_night(tmp_path, NightSpec(hours=9.0), evening).stop_starting == evening + 9 * 3600.0


def test_a_killed_batch_goes_on_with_its_night_and_the_next_evening_with_a_new_one(tmp_path, monkeypatch):
    budget, evening = NightSpec(hours=9.0), 1_000_000.0
    night = begin_night(tmp_path, budget, evening)
    keep_night(tmp_path, replace(night, seen=evening + 6 * 3600.0))
    assert begin_night(tmp_path, budget, evening + 10 * 3600.0).begun == evening
    assert begin_night(tmp_path, budget, evening + 24 * 3600.0).begun == evening + 24 * 3600.0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert begin_night(tmp_path, budget, evening + 24 * 3600.0).begun == evening
    keep_night(tmp_path, replace(night, ended=evening + 100.0))
    assert begin_night(tmp_path, budget, evening + 200.0).begun == evening + 200.0


def test_a_batch_that_was_stopped_to_change_its_budget_goes_on_by_the_new_one(tmp_path):
    evening = 1_000_000.0
    keep_night(tmp_path, begin_night(tmp_path, NightSpec(hours=0.1), evening))
    again = begin_night(tmp_path, NightSpec(hours=10.0), evening + 600.0)
    assert (again.begun, again.stop_starting) == (evening, evening + 36_000.0)


# -- usage and shares ----------------------------------------------------------------------------------------------


def test_two_jobs_on_one_host_at_once_use_one_node(tmp_path):
    lines = [("n1", 0.0, 3600.0), ("n1", 1800.0, 7200.0), ("n2", 0.0, 3600.0)]
    text = [
        json.dumps({"job": "1", "host": host, "cores": 4, "begin": a, "end": b, "how": "completed"})
        for host, a, b in lines
    ]
    (tmp_path / "usage.jsonl").write_text("\n".join(text) + '\n{"job": "2", "ho')
    assert usage_of(tmp_path, [], 0.0, 1e9) == Usage(3.0, 4 * 3.5)


def test_on_this_machine_a_job_uses_its_share_of_a_node_and_its_cpu_time(tmp_path):
    attempts = [Attempt(0.0, 3600.0, "done", "", 0.5, 1800.0), Attempt(7200.0, None, "running", "", 0.5)]
    assert usage_of(tmp_path, attempts, 0.0, 7200.0 + 3600.0) == Usage(1.0, 0.5)
    assert usage_of(tmp_path, attempts, 7000.0, 7200.0 + 3600.0) == Usage(0.5, 0.0)


def test_jobs_at_once_share_the_workers_and_the_last_one_has_all():
    sharing = Sharing(Computing("local", 5), 2)
    first = sharing.for_one_more([], 3)
    second = sharing.for_one_more([first], 2)
    assert (first.n_worker, second.n_worker) == (3, 2)
    assert sharing.for_one_more([], 1).n_worker == 5
    assert second.options[:2] == ("--workers", "2")
    assert "--memory" in second.options


def test_on_slurm_every_job_is_given_the_site():
    share = Sharing(Computing("/site/slurm.toml"), 4).for_one_more([], 9)
    assert share.options == ("--cluster", "/site/slurm.toml")
    assert share.of_machine == 0.0


def test_a_command_by_hand_has_the_options_that_the_batch_was_given():
    assert Sharing(Computing(), 2).by_hand() == ()
    assert Sharing(Computing("local", 5, 2, 1.5), 2).by_hand() == (
        "--workers", "5", "--threads", "2", "--memory", "1.5",
    )  # fmt: skip
    assert Sharing(Computing("tcp://h:1", None, 1, 1.5), 2).by_hand() == (
        "--cluster", "tcp://h:1", "--memory", "1.5",
    )  # fmt: skip
