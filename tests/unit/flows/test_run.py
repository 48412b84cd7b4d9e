"""What a run holds: one in a process for the same wish, and no cluster before it is needed."""

import json
import os
from contextlib import suppress

import pytest

import flows.plan_case
from cluster.slurm.folder import OWNER, make_run_folder
from engine.errors import StudyError
from flows.progress import Reporter
from flows.run import Computing, Run, open_run
from storage.places.place import CLUSTERS
from storage.store import Store
from tests.e2e.small_study import write_study


def test_a_run_that_was_begun_is_taken_over_by_whoever_wants_the_same(tmp_path):
    with open_run(tmp_path / "a", True, Computing(n_worker=2), tmp_path / "out") as begun:
        with open_run(tmp_path / "a", True, Computing(n_worker=2), tmp_path / "out") as taken:
            assert taken is begun
        with (
            open_run(tmp_path / "a", True, Computing(n_worker=1), tmp_path / "out") as fewer,
            open_run(tmp_path / "b", True, Computing(n_worker=2), tmp_path / "out") as b,
        ):
            assert fewer is not begun
            assert b is not begun
        with open_run(tmp_path / "a", True, Computing(n_worker=2), tmp_path / "out") as taken:
            assert taken is begun
    with open_run(tmp_path / "a", True, Computing(n_worker=2), tmp_path / "out") as later:
        assert later is not begun


def test_a_flow_that_a_deployment_starts_has_its_output_folder_told_what_jobs_used(tmp_path, monkeypatch):
    monkeypatch.setattr(flows.plan_case, "_plan", lambda run, *_: run._job_files().usage)
    told = flows.plan_case.plan_case.fn(
        str(write_study(tmp_path)),
        str(tmp_path / "store"),
        str(tmp_path / "out"),
        Computing("slurm.toml"),
        True,
    )
    assert told == str(tmp_path / "out" / "usage.jsonl")


def test_a_run_that_may_not_compute_starts_no_process(tmp_path):
    with Run(Store(tmp_path), Reporter(quiet=True), may_compute=False) as run:
        run.expect_computing()
        assert run._cluster is None
        with pytest.raises(StudyError, match="run `nightbeam plan` first"):
            _ = run.client


def test_jobs_of_a_killed_run_are_cleared_away_even_if_nothing_has_to_be_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name in ("squeue", "scancel"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.said\n')
        (tmp_path / name).chmod(0o755)
    store = Store(tmp_path / "store")
    folder = make_run_folder(store.folder / CLUSTERS, None)
    owner = json.loads((folder / OWNER).read_text())
    (folder / OWNER).write_text(json.dumps({**owner, "started": 1}))
    with Run(store, Reporter(quiet=True), Computing("slurm.toml")) as run:
        assert run._cluster is None
    assert not folder.exists()
    assert (
        tmp_path / "scancel.said"
    ).read_text() == f"--quiet --user={os.getuid()} --name=nightbeam-{folder.name}\n"


def test_steps_that_were_found_are_no_progress():
    reporter = Reporter(quiet=True)
    with reporter.stage("dose", 5, "blocks") as steps:
        steps.found(3)
        steps.advance(1)
    assert reporter.n_done == 1
    with suppress(KeyError), reporter.stage("dose", 5, "blocks") as steps:
        steps.found(4)
        steps.advance(1)
        raise KeyError
    assert reporter.n_done == 2
