"""An identity for DICOM files, in every place where one may stand, and the search for what is left of it."""

from pathlib import Path

from pydicom import Dataset, dcmread

from tests.hostile.good import edit

SECRETS = {
    "PatientName": "Quixotham^Zebulonia",
    "PatientID": "KRT-778812",
    "OtherPatientIDs": "OLD-99123x",
    "PatientBirthDate": "19471103",
    "PatientBirthName": "Wexelbrink",
    "PatientAddress": "Ninebark Lane 7",
    "PatientTelephoneNumbers": "0049-555-71717",
    "AccessionNumber": "ACC66771",
    "InstitutionName": "Saint Vulpine Hospital",
    "InstitutionAddress": "Vulpine Square 1",
    "InstitutionalDepartmentName": "Fjordology",
    "ReferringPhysicianName": "Drosselmeyer^Ottokarius",
    "PerformingPhysicianName": "Pomeroyson^Ana",
    "OperatorsName": "Tinkerell^Sue",
    "StationName": "SCANNERX17",
    "DeviceSerialNumber": "SN-4455667",
    "StudyDate": "20231224",
    "SeriesDate": "20231225",
    "ContentDate": "20231226",
    "AcquisitionDateTime": "20231227101112.123",
    "StudyTime": "131415.1617",
    "StudyID": "STUDY8123",
    "StudyDescription": "neck of Quixotham",
    "SeriesDescription": "Zebulonia plan",
    "ProtocolName": "proto-for-Zeb",
    "PatientComments": "lives with Aunt Myrtlewood",
    "EthnicGroup": "Ruritanian",
    "MedicalRecordLocator": "SHELF-31-B",
    "RequestingPhysician": "Hallowbrook^Ed",
}


def identify(folder: Path) -> None:
    """Give all files in a folder an identity, in every place where one may stand."""

    def change(dataset: Dataset) -> None:
        for keyword, value in SECRETS.items():
            setattr(dataset, keyword, value)
        request = Dataset()
        request.RequestedProcedureID = "PROC-616161"
        request.ScheduledProcedureStepDescription = "for Quixotham"
        request.RequestingPhysician = "Hallowbrook^Ed"
        dataset.RequestAttributesSequence = [request]
        dataset.private_block(0x0099, "VENDOR", create=True).add_new(1, "LO", "private Snickersby")
        dataset.add_new(0x00091001, "LO", "orphan Snickersby")
        dataset.add_new(0x60003000, "OB", b"overlay Snickersby")
        dataset.preamble = b"preamble Snickersby".ljust(128, b"\0")
        dataset.file_meta.SourceApplicationEntityTitle = "AEQUIXOTHAM"
        dataset.file_meta.PrivateInformationCreatorUID = "1.2.3.777888"
        dataset.file_meta.PrivateInformation = b"meta Snickersby"

    for path in folder.glob("*.dcm"):
        edit(path, change)


def name_structures(dataset: Dataset) -> None:
    dataset.StructureSetLabel = "Zebulonia"
    dataset.StructureSetName = "for KRT-778812"
    dataset.StructureSetROISequence[1].ROIName = "PTV_quixotham"
    dataset.StructureSetROISequence[1].ROIDescription = "drawn by Drosselmeyer"
    dataset.RTROIObservationsSequence[1].ROIInterpreter = "Drosselmeyer"
    dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceRelationshipSequence = []


def names() -> set[bytes]:
    """Return the parts of all names, dates and numbers that `identify` writes."""
    found = {
        part.encode()
        for value in SECRETS.values()
        for part in value.replace("^", " ").split()
        if len(part) > 3
    }
    found |= {b"Snickersby", b"AEQUIXOTHAM", b"PROC-616161", b"20231228", b"1.2.3.777888"}
    return found - {b"plan", b"neck", b"lives", b"with", b"Aunt", b"Lane", b"Square", b"Saint"}


def uids(folder: Path) -> set[bytes]:
    """Return all identifiers in a folder, but for those that the standard gives out."""
    found: set[bytes] = set()
    for path in folder.glob("*.dcm"):

        def collect(_: Dataset, element: object) -> None:
            for uid in [element.value] if isinstance(element.value, str) else element.value or []:
                if not uid.startswith("1.2.840.10008."):
                    found.add(uid.encode())

        dcmread(path).walk(lambda d, e: collect(d, e) if e.VR == "UI" else None)
    return found


def leaks(folders: list[Path], secrets: set[bytes]) -> set[tuple[str, bytes]]:
    everything = [(p, p.read_bytes() if p.is_file() else b"") for f in folders for p in f.rglob("*")]
    return {
        (path.name, secret)
        for path, content in everything
        for secret in secrets
        if secret.lower() in content.lower() or secret.decode().lower() in path.name.lower()
    }
