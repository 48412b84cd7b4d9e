"""Cases at rest: CT, structures, contours, references."""

import dataclasses

import numpy as np
import pytest

from engine.errors import DamagedObjectError
from engine.model.case import Case, Contour, Structure
from engine.model.grid import Grid
from storage.cases import KIND, case_digest, read_case, read_reference, write_case, write_reference
from storage.dicom.uids import CtReference
from storage.store import Store

GRID = Grid((-10.0, 5.5, 1.0), (2.5, 2.5, 3.0), (5, 40, 36))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def case():
    rng = np.random.default_rng(61)
    square = Contour(1.0, np.array([[0.0, 10.0], [20.0, 10.0], [20.0, 30.0]]))
    other = Contour(4.0, np.array([[1.5, 2.5], [3.5, 2.5], [3.5, 6.5], [1.5, 6.5]]))
    return Case(
        "phantom",
        GRID,
        rng.uniform(-1000, 2000, GRID.shape_zyx).astype(np.float32),
        (
            Structure("BODY", "EXTERNAL", rng.random(GRID.shape_zyx).astype(np.float32), (square, other)),
            Structure("Größe", "ORGAN", np.zeros(GRID.shape_zyx, np.float32)),
        ),
        "FFP",
        "1.2.3",
        ("one slice was mended",),
    )


def test_a_case_comes_back_whole(store, case):
    digest = write_case(store, case, {"made_from": "test"})
    again = read_case(store, digest)
    for name in ("name", "grid", "patient_position", "frame_of_reference_uid", "notes"):
        assert getattr(again, name) == getattr(case, name)
    assert again.ct_hu.dtype == np.float32
    assert np.array_equal(again.ct_hu, case.ct_hu)
    assert [(s.name, s.kind) for s in again.structures] == [(s.name, s.kind) for s in case.structures]
    for mine, its in zip(again.structures, case.structures, strict=True):
        assert np.array_equal(mine.coverage, its.coverage)
        assert len(mine.contours) == len(its.contours)
        for a, b in zip(mine.contours, its.contours, strict=True):
            assert a.z_mm == b.z_mm
            assert np.array_equal(a.points_mm_xy, b.points_mm_xy)


def test_the_digest_survives_the_round_trip(store, case):
    digest = write_case(store, case, {})
    assert case_digest(read_case(store, digest)) == digest == case_digest(case)


def changed_ct(case):
    ct_hu = case.ct_hu.copy()
    ct_hu[2, 3, 4] += 1.0
    return dataclasses.replace(case, ct_hu=ct_hu)


@pytest.mark.parametrize(
    "change",
    [
        changed_ct,
        lambda c: dataclasses.replace(c, grid=Grid(GRID.origin_mm_xyz, (2.5, 2.5, 3.1), GRID.shape_zyx)),
        lambda c: dataclasses.replace(c, patient_position="HFS"),
        lambda c: dataclasses.replace(c, frame_of_reference_uid="1.2.4"),
        lambda c: dataclasses.replace(c, structures=c.structures[:1]),
        lambda c: dataclasses.replace(c, structures=c.structures[::-1]),
        lambda c: c.with_external("Größe"),
    ],
)
def test_whatever_a_plan_depends_on_changes_the_digest(case, change):
    assert case_digest(change(case)) != case_digest(case)


def test_writing_twice_writes_once(store, case):
    digest = write_case(store, case, {})
    path = store.arrays_path(KIND, digest)
    before = path.stat().st_ino
    assert write_case(store, case, {}) == digest
    assert path.stat().st_ino == before


def test_a_damaged_case_is_not_read(store, case):
    digest = write_case(store, case, {})
    path = store.arrays_path(KIND, digest)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"ct_hu/c/0/0/0") + 60] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DamagedObjectError, match=f"stored case {digest}"):
        read_case(store, digest)


def test_references_come_back(store):
    fields = {f.name: f"1.2.{n}" for n, f in enumerate(dataclasses.fields(CtReference))}
    reference = CtReference(**{**fields, "instance_uids": ("1.2.3", "1.2.4")})
    write_reference(store, "ab" * 16, reference)
    assert read_reference(store, "ab" * 16) == reference
