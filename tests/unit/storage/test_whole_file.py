"""Files that are there whole or not at all."""

import errno

import pytest

from storage.whole_file import whole_file


def test_a_file_takes_the_place_of_the_one_before_when_it_is_whole(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")
    with whole_file(path) as aside:
        aside.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")

    def fill_the_disk():
        with whole_file(path) as aside:
            aside.write_text("aft")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*report\.html'"):
        fill_the_disk()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_writers_at_once_the_last_one_stays(tmp_path):
    path = tmp_path / "report.html"
    with whole_file(path) as first:
        with whole_file(path) as second:
            first.write_text("first")
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
