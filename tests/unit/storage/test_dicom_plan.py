"""RT Plan out and in: geometry, orientation, monitor units, fluence to the last digit that fits, plans of others."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from engine.dose.monitor_units import beam_monitor_units, weight_per_mu
from engine.errors import DicomError
from engine.model.beam import Beam, BeamletGrid
from engine.model.machine import MACHINES
from engine.model.plan import ExternalPlan
from storage.dicom.datasets import decimal_string
from storage.dicom.read_attached import read_attached
from storage.dicom.read_plan import read_plan
from storage.dicom.scan import Header, read_header, scan_folder
from storage.dicom.uids import CtReference, InstanceReference, content_uid
from storage.dicom.write_plan import PlannedBeam, PlannedDose, write_plan

MACHINE = MACHINES["generic-6mv"]
CT = CtReference(content_uid("s"), content_uid("c"), content_uid("f"), (content_uid("i"),))
STRUCTURES = InstanceReference(RTStructureSetStorage, content_uid("structures"))
PRESCRIBED = PlannedDose("PTV", 2, 50.4, 28, "Normalised: D95% = 100 %")


def raster(columns: range, rows: range, size_mm: tuple[float, float] = (5.0, 4.0)) -> BeamletGrid:
    row, column = (a.ravel().astype(np.int32) for a in np.meshgrid(rows, columns, indexing="ij"))
    return BeamletGrid(size_mm, column, row, np.array([0, row.size]))


def beam_of(beamlets: BeamletGrid, weight: np.ndarray, **angles: float) -> PlannedBeam:
    settings = {"gantry_deg": 30.0, "couch_deg": 350.0, "collimator_deg": 5.5, **angles}
    beam = Beam("1 G30", **settings, isocentre_mm=(1.25, -20.0, 1.0 / 3.0), sad_mm=1000.0)
    return PlannedBeam(beam, beamlets, weight, 12.5)


def written(folder: Path, *beams: PlannedBeam, prescribed: PlannedDose = PRESCRIBED) -> Path:
    reference = write_plan(
        folder, "a plan", beams, MACHINE, prescribed,
        case_name="c", patient_position="FFP", ct=CT, structure_set=STRUCTURES,
    )  # fmt: skip
    return folder / f"RTPLAN.{reference.sop_instance_uid}.dcm"


def read(path: Path) -> ExternalPlan:
    header = read_header(path)
    assert header is not None
    return read_plan(header)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e90, max_value=1e90))
def test_decimal_string_fits_and_keeps_nine_digits(value: float) -> None:
    text = decimal_string(value)
    assert len(text) <= 16
    assert float(text) == pytest.approx(value, rel=1e-8, abs=1e-99)


@given(st.floats(min_value=0.0, max_value=1.0))
def test_decimal_string_keeps_shares_to_fourteen_places(value: float) -> None:
    assert abs(float(decimal_string(value)) - value) <= 0.51e-14


def test_first_pixel_is_that_of_least_x_and_largest_y(tmp_path: Path) -> None:
    beamlets = raster(range(-3, 2), range(-1, 3))
    weight = np.zeros(beamlets.n_beamlet)
    weight[(beamlets.column == -3) & (beamlets.row == 2)] = 4.0  # left and up, seen from the source
    weight[(beamlets.column == 1) & (beamlets.row == 2)] = 3.0
    weight[(beamlets.column == -3) & (beamlets.row == -1)] = 2.0
    (beam,) = dcmread(written(tmp_path, beam_of(beamlets, weight))).BeamSequence
    (item,) = beam.CompensatorSequence
    assert (item.CompensatorRows, item.CompensatorColumns) == (4, 5)
    assert [float(v) for v in item.CompensatorPosition] == [-15.0, 8.0]
    assert [float(v) for v in item.CompensatorPixelSpacing] == [4.0, 5.0]  # rows first
    sent = [float(v) for v in item.CompensatorTransmissionData]
    assert [sent[0], sent[4], sent[15]] == [1.0, 0.75, 0.5]
    assert sum(sent) == 2.25
    jaws = {
        d.RTBeamLimitingDeviceType: [float(v) for v in d.LeafJawPositions]
        for d in beam.ControlPointSequence[0].BeamLimitingDevicePositionSequence
    }
    assert jaws == {"ASYMX": [-17.5, 7.5], "ASYMY": [-6.0, 10.0]}


def test_plan_comes_back_with_fluence_monitor_units_and_geometry(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    beams = [
        beam_of(grid, random.uniform(0.0, 3.0, grid.n_beamlet) ** 4, gantry_deg=gantry)
        for grid, gantry in (
            (raster(range(-7, 6), range(-4, 9)), 0.0),
            (raster(range(2), range(1)), 271.123456789),
        )
    ]
    path = written(tmp_path, *beams)
    found = read(path)
    assert (found.kind, found.label, found.n_fraction) == ("RT Plan", "RESEARCH ONLY", 28)
    assert (found.approval, found.patient_position) == ("UNAPPROVED", "FFP")
    assert found.structure_set_uid == STRUCTURES.sop_instance_uid
    assert [(p.kind, p.dose_gy) for p in found.prescriptions] == [("TARGET", 50.4)]
    assert not found.notes
    for planned, again in zip(beams, found.beams, strict=True):
        assert again.gantry_deg == (planned.beam.gantry_deg,) * 2
        assert (again.couch_deg, again.collimator_deg) == (350.0, 5.5)
        np.testing.assert_allclose(again.isocentre_mm, planned.beam.isocentre_mm, rtol=0, atol=1e-13)
        assert (again.radiation, again.energies, again.sad_mm) == ("PHOTON", (6.0,), (1000.0,))
        assert again.meterset == pytest.approx(
            beam_monitor_units(MACHINE, planned.weight, 28).mu_per_fraction, rel=1e-13
        )
        fluence = again.fluence
        assert fluence is not None
        assert again.meterset is not None
        weight = fluence.as_array() * again.meterset * 28 * weight_per_mu(MACHINE)
        # Beamlet by beamlet, at the place where it was.
        x_mm, y_mm = planned.beamlets.centres_mm()
        column = np.rint((x_mm - fluence.first_mm[0]) / fluence.spacing_mm[0]).astype(int)
        row = np.rint((y_mm - fluence.first_mm[1]) / fluence.spacing_mm[1]).astype(int)
        np.testing.assert_allclose(
            weight[row, column], planned.weight, rtol=0, atol=1e-13 * planned.weight.max()
        )


def test_beam_without_fluence_has_no_monitor_units(tmp_path: Path) -> None:
    beamlets = raster(range(2), range(2))
    found = read(written(tmp_path, beam_of(beamlets, np.zeros(4)), beam_of(beamlets, np.ones(4))))
    assert found.beams[0].meterset == 0.0
    assert found.beams[0].fluence is not None
    assert not found.beams[0].fluence.as_array().any()


def test_plan_says_that_it_is_research_and_whether_it_was_normalised(tmp_path: Path) -> None:
    dataset = dcmread(written(tmp_path, beam_of(raster(range(2), range(2)), np.ones(4))))
    assert dataset.PlanIntent == "RESEARCH"
    assert "RESEARCH USE ONLY" in dataset.RTPlanDescription
    assert "0.01 Gy per MU" in dataset.RTPlanDescription
    assert "Normalised: D95% = 100 %" in dataset.PrescriptionDescription
    raw = PlannedDose("PTV", None, 50.4, 28, "Not normalised")
    dataset = dcmread(written(tmp_path, beam_of(raster(range(2), range(2)), np.ones(4)), prescribed=raw))
    assert "Not normalised" in dataset.PrescriptionDescription
    assert dataset.DoseReferenceSequence[0].DoseReferenceStructureType == "SITE"
    private = [element.tag for element in dataset.iterall() if element.tag.is_private]
    assert not private


def test_equal_plans_have_equal_names_and_others_have_not(tmp_path: Path) -> None:
    beamlets = raster(range(3), range(2))
    one = written(tmp_path, beam_of(beamlets, np.ones(6)))
    content = one.read_bytes()
    assert written(tmp_path, beam_of(beamlets, np.ones(6))) == one
    assert one.read_bytes() == content
    others = {
        written(tmp_path, beam_of(beamlets, np.array([1, 1, 1, 1, 1, 1 - 1e-9]))),
        written(tmp_path, beam_of(beamlets, np.ones(6), couch_deg=350.0000001)),
        written(tmp_path, beam_of(beamlets, np.ones(6)), beam_of(beamlets, np.ones(6))),
    }
    assert one not in others
    assert len(others) == 3


def test_compensator_too_long_for_an_explicit_file_is_written_and_read(tmp_path: Path) -> None:
    beamlets = raster(range(-40, 40), range(-40, 40), (2.5, 2.5))
    weight = np.random.default_rng(1).uniform(0.1, 1.0, beamlets.n_beamlet)
    path = written(tmp_path, beam_of(beamlets, weight))
    assert dcmread(path).file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    fluence = read(path).beams[0].fluence
    assert fluence is not None
    np.testing.assert_allclose(fluence.as_array().ravel(), weight / weight.max(), rtol=0, atol=1e-14)


def test_plan_without_beams_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="without beams"):
        written(tmp_path)


# -- plans of others -------------------------------------------------------------------------------------------------


def of_set(reference_data: Path, folder: str) -> list[ExternalPlan]:
    return [read_plan(header) for header in scan_folder(reference_data / "dicom" / folder).plans]


def test_ion_plan_of_raystation(reference_data: Path) -> None:
    (plan,) = of_set(reference_data, "dcpt_raystation_ramp_full")
    assert (plan.kind, plan.n_fraction) == ("RT Ion Plan", 1)
    for beam, gantry in zip(plan.beams, (90.0, 270.0), strict=True):
        assert (beam.gantry_deg[0], beam.n_control_point, len(beam.layers)) == (gantry, 44, 22)
        assert (beam.sad_mm, beam.layers[0].energy_mev) == ((2000.0, 2560.0), 149.4)
        # The first layer's spots, and those of all layers, against the cumulative weights that the file writes as text.
        assert sum(beam.layers[0].weight) == pytest.approx(1333.401, rel=1e-5)
        assert sum(sum(layer.weight) for layer in beam.layers) == pytest.approx(39294.15, rel=1e-5)
        assert beam.meterset == 39294.15


def test_ion_plans_of_varian(reference_data: Path) -> None:
    plans = of_set(reference_data, "dcpt_varian_plans_only")
    assert [plan.label for plan in plans] == ["1_SOBP_1Gy", "1_SOBP_.5Gy", "1_SOBP_2Gy", "2_mono_2Gy"]
    assert [plan.beams[0].meterset for plan in plans] == pytest.approx(
        [17571.2003, 8129.57018, 41806.7407, 58414.5492]
    )
    assert [len(plan.beams[0].layers) for plan in plans] == [12, 12, 21, 1]


def test_photon_plan_with_moving_leaves(reference_data: Path) -> None:
    (plan,) = of_set(reference_data, "dicompyler_breast_no_dose")
    assert plan.n_fraction == 7
    assert [beam.gantry_deg[0] for beam in plan.beams] == [327.0, 0.0, 56.0, 150.0]
    assert [beam.meterset for beam in plan.beams] == [97.0, 87.0, 89.0, 94.0]
    leaves = plan.beams[0].openings[2]
    assert (leaves.kind, len(leaves.boundary_mm), len(leaves.position_mm)) == ("MLCX", 61, 92)
    assert {len(at) for at in leaves.position_mm} == {120}
    assert leaves.position_mm[0] != leaves.position_mm[50]


def test_photon_plan_of_monaco(reference_data: Path) -> None:
    (plan,) = of_set(reference_data, "monaco_water_tank_plan_only")
    assert [beam.name for beam in plan.beams][::9] == ["02x02", "40x40"]
    by_kind = {opening.kind: opening for opening in plan.beams[5].openings}
    assert by_kind["ASYMY"].position_mm[0] == pytest.approx((-50.0, 50.0))


# -- damage ----------------------------------------------------------------------------------------------------------


def broken(folder: Path, change: object) -> Header:
    path = written(folder, beam_of(raster(range(3), range(2)), np.ones(6)))
    dataset = dcmread(path)
    change(dataset)  # type: ignore[operator]
    dataset.save_as(path)
    header = read_header(path)
    assert header is not None
    return header


def cut_compensator(dataset: Dataset) -> None:
    item = dataset.BeamSequence[0].CompensatorSequence[0]
    item.CompensatorTransmissionData = item.CompensatorTransmissionData[:-1]


def no_points(dataset: Dataset) -> None:
    dataset.BeamSequence[0].ControlPointSequence = []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda dataset: delattr(dataset, "BeamSequence"), "has no beams"),
        (no_points, "without control points"),
        (cut_compensator, "cut short"),
        (lambda dataset: delattr(dataset.BeamSequence[0], "BeamNumber"), "cannot be understood"),
    ],
)
def test_damaged_plan_is_told_with_its_file(tmp_path: Path, change: object, expected: str) -> None:
    with pytest.raises(DicomError, match=rf"RTPLAN.*{expected}"):
        read_plan(broken(tmp_path, change))


def test_a_plan_of_other_coordinates_is_left_out_even_without_its_structure_set(tmp_path: Path) -> None:
    beamlets = raster(range(2), range(2))
    written(tmp_path, beam_of(beamlets, np.ones(beamlets.n_beamlet)))
    assert len(read_attached(scan_folder(tmp_path), CT.frame_of_reference_uid).plans) == 1
    elsewhere = read_attached(scan_folder(tmp_path), "1.2.3")
    assert not elsewhere.plans
    assert any("made on another image" in note for note in elsewhere.notes)
