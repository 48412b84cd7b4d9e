import json
import os
import subprocess
import sys

import pytest

from engine.errors import StudyError
from flows.progress import Reporter
from flows.progress_file import NAME, progress_in, read_progress


def test_the_file_says_how_far_a_run_is_when_it_has_ended(tmp_path):
    with progress_in(tmp_path, "plan"):
        begun = read_progress(tmp_path)
        with Reporter(quiet=True).stage("dose", 5, "blocks") as steps:
            steps.found(2)
            steps.advance(3)
    ended = read_progress(tmp_path)
    assert (begun.state, begun.stage, begun.pid, begun.what) == ("running", "begin", os.getpid(), "plan")
    assert (ended.state, ended.stage, ended.done, ended.total, ended.unit) == ("done", "dose", 5, 5, "blocks")
    assert ended.found == 2
    assert ended.rate == pytest.approx(3 / (ended.updated - ended.stage_begun), rel=0.01)


def test_a_run_that_failed_says_why_in_the_words_of_the_command_line(tmp_path):
    with pytest.raises(StudyError), progress_in(tmp_path, "plan"):
        raise StudyError("the target lies outside the image; move it")
    found = read_progress(tmp_path)
    assert (found.state, found.why) == ("failed", "the target lies outside the image; move it")


def test_a_mistake_of_the_program_is_told_by_its_last_line(tmp_path):
    with pytest.raises(ZeroDivisionError), progress_in(tmp_path, "plan"):
        _ = 1 / 0
    assert read_progress(tmp_path).why.startswith("ZeroDivisionError: division by zero")


def test_a_run_that_was_interrupted_says_that_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt), progress_in(tmp_path, "plan"):
        raise KeyboardInterrupt
    assert read_progress(tmp_path).state == "stopped"


def test_a_killed_run_is_seen_to_be_gone(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from flows.progress_file import progress_in\n"
        "with progress_in(Path(sys.argv[1]), 'plan'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    found = read_progress(tmp_path)
    assert found.state == "running"
    assert found.holder.is_gone()


def test_a_file_of_another_program_is_no_progress(tmp_path):
    (tmp_path / NAME).write_text(json.dumps({"stage": "dose"}))
    assert read_progress(tmp_path) is None
