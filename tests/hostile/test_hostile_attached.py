"""Hostile plans, doses, second images and registrations beside a good CT."""

import pytest

from tests.hostile.answers import require_answer
from tests.hostile.attached_kinds import ATTACHED, DOSES, PLANS
from tests.hostile.good import write_good
from tests.hostile.good_attached import write_attached, write_second


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "dicom"
    write_good(folder)
    write_attached(folder)
    write_second(folder)
    return folder


@pytest.mark.parametrize("name", [name for name, kind in ATTACHED.items() if not kind.slow])
def test_what_lies_beside_a_case_never_stops_its_import(name, good, tmp_path, monkeypatch):
    require_answer(ATTACHED[name], good, tmp_path, monkeypatch)


def test_there_are_more_than_fifteen_of_each():
    assert min(len(PLANS), len(DOSES)) >= 15
