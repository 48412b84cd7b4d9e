"""Hostile plans, doses, second images and registrations beside a good CT."""

import pytest

from tests.hostile.answers import require_answer
from tests.hostile.attached_kinds import ATTACHED, DOSES, PLANS, SECOND
from tests.hostile.good import edit, write_good
from tests.hostile.good_attached import write_attached, write_second


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "dicom"
    write_good(folder)
    write_attached(folder)
    return folder


@pytest.fixture(scope="module")
def good_second(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good_second") / "dicom"
    write_good(folder)
    write_second(folder)
    for path in folder.glob("*.dcm"):
        edit(path, lambda dataset: setattr(dataset, "PatientID", "small"))
    return folder


@pytest.mark.parametrize("name", [name for name, kind in {**PLANS, **DOSES}.items() if not kind.slow])
def test_plans_and_doses_never_stop_an_import(name, good, tmp_path, monkeypatch):
    require_answer(ATTACHED[name], good, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", list(SECOND))
def test_second_images_and_registrations_are_answered_clearly(name, good_second, tmp_path, monkeypatch):
    require_answer(SECOND[name], good_second, tmp_path, monkeypatch)


def test_there_are_more_than_fifteen_of_each():
    assert min(len(PLANS), len(DOSES)) >= 15
