"""Phantoms as DICOM files."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from pydicom import dcmread

from engine.errors import StudyError
from engine.phantoms import PHANTOMS, lung_4d_series
from engine.spec.study import load_study
from flows.cli import main
from flows.reading import check_names
from flows.structures import check_made_names

VOXEL_MM = 25.0


def test_list_names_every_phantom_on_a_line_of_its_own() -> None:
    lines = CliRunner().invoke(main, ["phantom"]).output.splitlines()
    assert [line.split()[0] for line in lines] == list(PHANTOMS)
    assert all(len(line.split()) > 5 for line in lines)


def test_lung_becomes_a_4d_ct_in_one_frame_of_reference(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["phantom", "lung-4d", "--dicom", str(tmp_path), "--voxel", str(VOXEL_MM)]
    )
    assert done.exit_code == 0, done.output
    files = [dcmread(path) for path in tmp_path.glob("*.dcm")]
    images = [file for file in files if file.Modality == "CT"]
    assert len({file.FrameOfReferenceUID for file in files}) == 1
    assert len({file.StudyInstanceUID for file in files}) == 1
    descriptions = {image.SeriesDescription: image.SeriesInstanceUID for image in images}
    assert len(descriptions) == len(set(descriptions.values())) == 11
    expected = dict(lung_4d_series(VOXEL_MM))
    for name in (*(f"phase {percent:02} %" for percent in range(0, 100, 10)), "average"):
        (uid,) = (uid for description, uid in descriptions.items() if name in description)
        series = sorted(
            (image for image in images if image.SeriesInstanceUID == uid),
            key=lambda image: image.ImagePositionPatient[2],
        )
        found = np.stack([image.pixel_array for image in series])
        np.testing.assert_array_equal(found, expected[name].ct_hu)
        (structures,) = (
            file
            for file in files
            if file.Modality == "RTSTRUCT"
            and file.ReferencedFrameOfReferenceSequence[0]
            .RTReferencedStudySequence[0]
            .RTReferencedSeriesSequence[0]
            .SeriesInstanceUID
            == uid
        )
        names = [roi.ROIName for roi in structures.StructureSetROISequence]
        assert ("ITV" if name == "average" else "GTV") in names


def test_tissues_with_the_straight_line_for_water_are_refused(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "examples" / "pelvis.toml").read_text()
    (tmp_path / "study.toml").write_text(text.replace("hu_tables/tissue_phantoms.csv", "phantom"))
    with pytest.raises(StudyError, match="too dense"):
        load_study(tmp_path / "study.toml")


@pytest.mark.parametrize(
    "example",
    [
        path
        for path in sorted(Path(__file__).parents[3].glob("examples/*.toml"))
        if "[beams]" in path.read_text()
    ],
    ids=lambda p: p.stem,
)
def test_examples_are_good_and_name_structures_that_are_there(example: Path) -> None:
    study = load_study(example)
    if study.case.phantom is None:
        return
    case = PHANTOMS[study.case.phantom](voxel_mm=25.0)
    check_names(study, check_made_names(study, {structure.name for structure in case.structures}))
