"""What all written files have in common: the modules for patient, study, series and equipment, and saving."""

import re
from contextlib import suppress
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import format_number_as_ds

from storage.whole_file import whole_file

RESEARCH_USE_ONLY = "RESEARCH USE ONLY"
MANUFACTURER = "nightbeam"
LO_LENGTH = 64
"""Longest Long String (PS3.5 table 6.2-1)."""
EXPLICIT_LENGTH_LIMIT = 65534
"""Longest value of a Decimal String in an explicit transfer syntax (16-bit length, PS3.5 section 7.1.2)."""


def decimal_string(value: float) -> str:
    """Return a number in at most 16 characters, as DICOM's Decimal String asks, with as many digits as fit."""
    return str(format_number_as_ds(float(value)))


def new_dataset(
    sop_class_uid: str, sop_instance_uid: str, modality: str, study_uid: str, series_uid: str, case_name: str
) -> Dataset:
    """Return a dataset with the modules that every file has; nothing in it is personal.

    Dates and times are left empty, where the standard allows it: identifiers are made from content, so equal
    identifiers must mean equal files.
    """
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = sop_instance_uid
    dataset.StudyDate = ""
    dataset.StudyTime = ""
    dataset.AccessionNumber = ""
    dataset.Modality = modality
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = "nightbeam"
    dataset.ReferringPhysicianName = ""
    dataset.OperatorsName = ""
    label = re.sub(r"[\\^=]", "-", case_name)  # these separate values and parts of names
    dataset.PatientName = f"nightbeam^{label}"[:LO_LENGTH]
    dataset.PatientID = label[:LO_LENGTH]
    dataset.PatientBirthDate = ""
    dataset.PatientSex = ""
    dataset.StudyInstanceUID = study_uid
    dataset.SeriesInstanceUID = series_uid
    dataset.StudyID = "nightbeam"
    return dataset


def reference_item(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Return a sequence item that refers to a file."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def save(dataset: Dataset, folder: Path, transfer_syntax_uid: UID = ExplicitVRLittleEndian) -> Path:
    """Write ``MODALITY.SOPInstanceUID.dcm`` into ``folder`` and return its path; it appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax_uid
    dataset.file_meta = meta
    path = folder / _file_name(dataset)
    with whole_file(path) as aside:
        dataset.save_as(aside, enforce_file_format=True)
    return path


def remove_written(folder: Path) -> None:
    """Remove what `save` wrote into ``folder`` before; files of others stay, for nobody else may have them."""
    for path in folder.glob("*.dcm"):
        _, _, uid = path.stem.partition(".")
        # Another run with this folder may be faster; a folder may have such a name.
        with suppress(FileNotFoundError, IsADirectoryError):
            with path.open("rb") as stream:
                beginning = stream.read(4096)
            # Without parsing: files of others may be damaged in any way, ours appear whole or not at all.
            if uid and uid.encode() in beginning and MANUFACTURER.encode() in beginning:
                path.unlink()


def _file_name(dataset: Dataset) -> str:
    return f"{dataset.Modality}.{dataset.SOPInstanceUID}.dcm"
