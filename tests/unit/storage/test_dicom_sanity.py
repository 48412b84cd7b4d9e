"""Limits on what is read: what they let through, and what tells patients apart."""

import numpy as np
import pytest

from engine.errors import CaseError, DicomError
from engine.geometry.voxelise import voxelise
from engine.model.case import Contour
from engine.model.grid import Grid
from storage.dicom.sanity import patient_mark, require_hu, require_place, require_size


def test_patients_are_told_apart_without_their_ids():
    assert patient_mark("Ab 1 ") == patient_mark("ab  1")
    assert patient_mark("ab 1") != patient_mark("ab 2")
    assert patient_mark(" ") == patient_mark("ANONYMOUS") == ""
    assert "77123" not in patient_mark("77123")


def test_what_scanners_write_is_let_through():
    require_size((1000, 512, 512), "1.dcm")
    require_place("1.dcm", np.array([-250.0, -400.0, 1800.0]), np.array([0.195, 0.195]))
    require_hu("1.dcm", np.array([-1024.0, 30710.0, -32768.0]))


@pytest.mark.parametrize("spacing_mm", [1e-4, 101.0])
def test_a_pixel_of_no_reasonable_size_is_refused(spacing_mm):
    with pytest.raises(DicomError, match=r"'1\.dcm' has PixelSpacing"):
        require_place("1.dcm", np.zeros(3), np.array([1.0, spacing_mm]))


def test_an_image_of_too_many_voxels_is_refused_without_overflow():
    with pytest.raises(DicomError, match=r"'1\.dcm' has 4611686018427387904"):
        require_size((1 << 30, 1 << 16, 1 << 16), "1.dcm")


def test_values_that_are_no_numbers_are_refused():
    with pytest.raises(DicomError, match=r"'1\.dcm' has values of nan HU"):
        require_hu("1.dcm", np.array([0.0, np.nan]))


def test_a_scribble_is_refused_before_its_crossings_are_worked_out():
    points_mm = np.random.default_rng(1).uniform(-9.0, 9.0, (30_000, 2))
    grid = Grid((-9.5, -9.5, 0.0), (1.0, 1.0, 2.0), (3, 20, 20))
    with pytest.raises(CaseError, match="30000 edges in one plane cross"):
        voxelise((Contour(2.0, points_mm),), grid)
