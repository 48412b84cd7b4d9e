"""Hostile files of voxels: one clear message or a good case, nothing left behind, and little memory."""

import resource
import shutil

import pytest

from tests.hostile.answers import import_clearly
from tests.hostile.good_volumes import write_volumes
from tests.hostile.volume_kinds import IMAGES, NPZ, VOLUMES


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good") / "volumes"
    write_volumes(folder)
    return folder


@pytest.mark.parametrize("name", list(VOLUMES))
def test_a_hostile_file_is_answered_clearly(name, good, tmp_path, monkeypatch, capfd):
    kind, folder = VOLUMES[name], tmp_path / "volumes"
    shutil.copytree(good, folder)
    kind.attack(folder)
    more = (
        [] if kind.source == "case.npz" else ["--structures", str(folder / "PTV.nrrd"), "--position", "HFS"]
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    import_clearly(kind, [str(folder / kind.source), *more], tmp_path, monkeypatch)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) >> 10 < 512  # MiB
    assert capfd.readouterr().err == ""  # of libraries in C
    assert not (folder / "owned").exists()


def test_there_are_more_than_eight_of_each():
    assert min(len(NPZ), len(IMAGES)) >= 8
