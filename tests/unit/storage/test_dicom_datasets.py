from pathlib import Path

from engine.phantoms import water_box
from storage.dicom.datasets import remove_written
from storage.dicom.write_ct import write_ct


def test_own_files_are_removed_and_those_of_others_stay(tmp_path: Path) -> None:
    write_ct(water_box(voxel_mm=60.0), tmp_path)
    own = sorted(tmp_path.glob("*.dcm"))
    renamed = tmp_path / "kept by the user.dcm"
    renamed.write_bytes(own[0].read_bytes())
    (tmp_path / "CT.1.2.3.dcm").write_bytes(b"not DICOM")
    of_scanner = tmp_path / own[1].name.replace("1.2.826", "1.2.840")
    of_scanner.write_bytes(own[1].read_bytes().replace(b"nightbeam", b"Scannerco"))
    remove_written(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([renamed, tmp_path / "CT.1.2.3.dcm", of_scanner])
    remove_written(tmp_path / "is not there")
