"""De-identify a DICOM folder by the standard's Basic Application Level Confidentiality Profile (PS3.15 annex E).

Which attributes are removed, emptied or replaced is table E.1-1 of the 2026c edition, from the library
dicom-anonymizer. Its own way through a file is not used: it leaves what lies in sequences, and the dates.
"""

import hashlib
import hmac
import re
import secrets
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeformableSpatialRegistrationStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    RTDoseStorage,
    RTIonPlanStorage,
    RTPlanStorage,
    RTStructureSetStorage,
    SpatialRegistrationStorage,
)

from engine.errors import DicomError
from storage.dicom.sanity import require_modest_files
from storage.dicom.scan import read_file

EDITION = "2026c"
KEPT_CLASSES = frozenset(
    {
        CTImageStorage,
        MRImageStorage,
        PositronEmissionTomographyImageStorage,
        RTStructureSetStorage,
        RTPlanStorage,
        RTIonPlanStorage,
        RTDoseStorage,
        SpatialRegistrationStorage,
        DeformableSpatialRegistrationStorage,
    }
)
"""What a plan is made of; reports, screen shots and scanned letters are left out, as nobody can clean them."""
WELL_KNOWN_ROOT = "1.2.840.10008."
"""Identifiers that the standard itself gives out (PS3.6 annex A): classes and transfer syntaxes, not patients."""
MASK = "***"
DUMMY_TEXT = "DEIDENTIFIED"
_NUMBER_KEYWORDS = ("PatientID", "OtherPatientIDs", "AccessionNumber")
_TEXT_VRS = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "UR", "AE"})
_REMOVED_EVERYWHERE_VRS = frozenset({"PN", "DA", "DT", "TM"})
_DUMMIES: dict[str, object] = {
    "DA": "19000101", "DT": "19000101000000", "TM": "000000", "AS": "000Y", "DS": "0", "IS": "0", "SQ": [],
    "OB": b"", "OW": b"", "UN": b"", "US": 0, "UL": 0, "SS": 0, "SL": 0, "FL": 0.0, "FD": 0.0,
}  # fmt: skip
_ROI_NAME = Tag(0x3006, 0x0026)
_PATIENT_NAME, _PATIENT_ID = Tag(0x0010, 0x0010), Tag(0x0010, 0x0020)


@dataclass(frozen=True)
class Deidentified:
    """A folder that was written without names.

    Parameters
    ----------
    n_file
        Number of files written.
    notes
        What was left out or masked.
    new_uid
        The new identifier of an old one; the secret that links them is kept nowhere else.
    """

    n_file: int
    notes: tuple[str, ...]
    new_uid: Callable[[str], str]


def deidentify(folder: Path, out: Path) -> Deidentified:
    """Write the DICOM files in ``folder`` and below into the new folder ``out``, without names; all of them or none.

    Identifiers are replaced consistently, by keyed hashes with a random key that is thrown away, so that references
    between files hold and nobody can compute new identifiers from old ones. Names of structures are kept, as a plan
    needs them, with the parts of the patient's and physicians' names and numbers masked (Clean Descriptors Option).
    Pixels and contours are copied as they are.

    Raises
    ------
    DicomError
        If ``out`` exists with something in it or one folder lies in the other, if a file is damaged, or says that
        text is burned into its pixels.
    """
    folder, out = folder.resolve(), out.resolve()
    if out.is_relative_to(folder) or folder.is_relative_to(out):
        raise DicomError(f"'{out}' and the folder to be de-identified lie in each other: give another folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DicomError(f"'{out}' is not empty (old and new files would be mixed): give a new folder")
    aside = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}")
    try:
        aside.mkdir(parents=True)
        with disable_value_validation():
            done = _write_all(sorted(path for path in folder.rglob("*") if path.is_file()), aside)
        aside.replace(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return done


def _write_all(paths: Sequence[Path], out: Path) -> Deidentified:
    """Write all files and return what was done."""
    left_out: Counter[str] = Counter()
    chosen: list[Path] = []
    names: set[str] = set()
    require_modest_files(paths)
    for path in paths:
        header = _read(path, True)
        if header is None:
            left_out["not DICOM"] += 1
        elif str(header.get("SOPClassUID")) not in KEPT_CLASSES:
            left_out[UID(str(header.get("SOPClassUID", ""))).name or "of no kind"] += 1
        else:
            chosen.append(path)
            names |= _names_in(header)
    cleaner = _Cleaner(secrets.token_bytes(32), names)
    for path in chosen:
        dataset = _read(path, False)
        if dataset is None:
            raise DicomError(f"'{path.name}' changed while it was read: start again")
        try:
            cleaner.write(dataset, path, out)
        except DicomError:
            raise
        except OSError:
            raise
        except Exception as error:  # pydicom raises many kinds on damaged files
            raise DicomError(
                f"'{path.name}' cannot be de-identified ({type(error).__name__}: damaged?): export it again or take it "
                "out of the folder"
            ) from error
    notes = [f"left out {count} file(s): {kind}" for kind, count in sorted(left_out.items())]
    if cleaner.n_masked:
        notes.append(
            f"{cleaner.n_masked} structure name(s) or text(s) held a name or number, which was masked"
        )
    return Deidentified(len(chosen), tuple(notes), cleaner.new_uid)


def _read(path: Path, header: bool) -> FileDataset | None:
    """Return a file, or nothing if it is not DICOM."""
    try:
        return read_file(path, not header)
    except InvalidDicomError:
        return None
    except (DicomError, OSError):
        raise
    except Exception as error:  # pydicom raises many kinds on damaged files
        raise DicomError(
            f"'{path.name}' begins as DICOM but cannot be read ({type(error).__name__}: damaged or truncated?): "
            "export it again or take it out of the folder"
        ) from error


def _names_in(dataset: Dataset) -> set[str]:
    """Return the parts of the names and numbers by which people are known, in lower case."""
    people = [tag for tag in list(dataset.keys()) if dictionary_has_tag(tag) and dictionary_VR(tag) == "PN"]
    found: set[str] = set()
    try:
        regions = dataset.get("RTROIObservationsSequence") or []
        texts = [str(dataset[tag].value or "") for tag in people]
        texts += [str(dataset.get(keyword) or "") for keyword in _NUMBER_KEYWORDS]
        texts += [str(item.get("ROIInterpreter") or "") for item in regions]
    except Exception as error:  # a name that cannot be read cannot be looked for
        raise DicomError(
            f"a file has an unreadable name or number ({type(error).__name__}), so nobody can look for it in "
            "other texts: export the set again"
        ) from error
    for text in texts:
        found |= {part.lower() for part in re.split(r"[\s^=\\,;:._/()\[\]'-]+", text) if len(part) > 1}
    return found


@cache
def _actions() -> tuple[dict[int, str], tuple[tuple[int, int, str], ...]]:
    """Return the profile's action for every attribute, and for repeating groups as (mask, value, action)."""
    table = dicom_anonymization_database_selector(f"dicomfields_{EDITION}")
    single: dict[int, str] = {}
    groups: list[tuple[int, int, str]] = []
    for category, tags in table.items():
        action = category.removesuffix("_TAGS")
        if action == "ALL":
            continue
        for tag in tags:
            value = tag[0] << 16 | tag[1]
            if len(tag) == 2:
                single[value] = action
            else:
                mask = tag[2] << 16 | tag[3]
                groups.append((mask, value & mask, action))
    return single, tuple(groups)


def _action(tag: BaseTag) -> str:
    """Return the profile's action for an attribute, ``K`` if it names none."""
    single, groups = _actions()
    if tag in single:
        return single[tag]
    return next((action for mask, value, action in groups if tag & mask == value), "K")


class _Cleaner:
    """Takes names out of datasets; one for all files of a folder, so that references hold."""

    def __init__(self, key: bytes, names: set[str]) -> None:
        self._key = key
        self.n_masked = 0
        # Short parts ("Li") occur in other words ("liver"): they count only where they stand alone.
        alternatives = [
            re.escape(name) if len(name) > 3 else rf"(?<![^\W_]){re.escape(name)}(?![^\W_])"
            for name in sorted(names, key=len, reverse=True)
        ]
        self._names = re.compile("|".join(alternatives), re.IGNORECASE) if alternatives else None

    def new_uid(self, uid: str) -> str:
        """Return the new identifier: a random-looking UUID (PS3.5 annex B.2)."""
        digest = hmac.new(self._key, uid.encode(errors="surrogateescape"), hashlib.sha256).digest()
        return f"2.25.{uuid.UUID(bytes=digest[:16], version=4).int}"

    def write(self, dataset: FileDataset, source: Path, out: Path) -> None:
        """Clean a dataset and write it under its new identifier."""
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if not syntax or not dataset.get("SOPInstanceUID"):
            raise DicomError(
                f"'{source.name}' has no transfer syntax or identifier (damaged?): export it again"
            )
        if str(dataset.get("BurnedInAnnotation") or "").upper() == "YES":
            raise DicomError(
                f"'{source.name}' says that text is burned into its pixels (a name?): take it out of the folder"
            )
        patient = self.new_uid(f"patient {dataset.get('PatientID', '')}")[-12:]
        self._clean(dataset)
        dataset.PatientName, dataset.PatientID = f"{DUMMY_TEXT}^{patient}", patient
        dataset.PatientIdentityRemoved = "YES"
        dataset.LongitudinalTemporalInformationModified = "REMOVED"
        dataset.DeidentificationMethod = f"PS3.15 {EDITION} basic profile, structure names cleaned"
        dataset.DeidentificationMethodCodeSequence = [
            _code("113100", "Basic Application Confidentiality Profile"),
            _code("113105", "Clean Descriptors Option"),
        ]
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        meta.TransferSyntaxUID = syntax
        dataset.file_meta = meta
        dataset.preamble = bytes(128)
        path = out / f"{UID(dataset.SOPClassUID).name.split()[0]}.{dataset.SOPInstanceUID}.dcm"
        if path.exists():
            raise DicomError(f"'{source.name}' has the identifier of another file: take one of them out")
        dataset.save_as(path, enforce_file_format=True)

    def _clean(self, dataset: Dataset) -> None:
        """Apply the profile to a dataset and all that lies in it."""
        for tag in list(dataset.keys()):
            known = not tag.is_private and dictionary_has_tag(tag)
            action = _action(tag)
            if not known or action == "X":
                del dataset[tag]
                continue
            vr = dictionary_VR(tag)
            if tag == _ROI_NAME:
                self._mask(dataset, tag)
            elif action == "D" or (action == "Z_D" and vr != "UI"):
                dataset[tag].value = _DUMMIES.get(vr, DUMMY_TEXT)
            elif vr == "UI":
                self._replace_uids(dataset, tag)
            elif action in ("Z", "X_Z", "X_D", "X_Z_D") or vr in _REMOVED_EVERYWHERE_VRS:
                dataset[tag].value = [] if vr == "SQ" else None
            elif vr == "SQ":
                for item in dataset[tag].value:
                    self._clean(item)
            elif vr in _TEXT_VRS:
                self._mask(dataset, tag)

    def _replace_uids(self, dataset: Dataset, tag: BaseTag) -> None:
        """Replace identifiers, but for those that the standard gives out."""
        value = dataset[tag].value
        if not value:
            return
        several = [value] if isinstance(value, str) else list(value)
        new = [uid if str(uid).startswith(WELL_KNOWN_ROOT) else self.new_uid(str(uid)) for uid in several]
        dataset[tag].value = new[0] if len(new) == 1 else new

    def _mask(self, dataset: Dataset, tag: BaseTag) -> None:
        """Mask names in a text; a text without any stays as it is, byte by byte."""
        value = dataset[tag].value
        if isinstance(value, bytes):  # written with a wrong VR, so that it cannot be searched as text
            del dataset[tag]
            return
        if self._names is None:
            return
        several = [value] if isinstance(value, str) else list(value or [])
        new = [self._names.sub(MASK, str(text)) for text in several]
        if new != [str(text) for text in several]:
            self.n_masked += 1
            dataset[tag].value = new[0] if len(new) == 1 else new


def _code(value: str, meaning: str) -> Dataset:
    """Return a coded entry of DICOM's own dictionary (PS3.16 annex D)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item
