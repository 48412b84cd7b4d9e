"""Hostile plans, doses, second images and registrations: left out with a note, and the case is read all the same."""

import struct
from collections.abc import Callable
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.sequence import Sequence

from tests.hostile.attacks import set_in
from tests.hostile.dicom_kinds import ESCAPE, Kind
from tests.hostile.good import claim_length, cut, edit, header_at, patch, put_raw, without


def raw(name: str, keyword: str, value: bytes, vr: str | None = None) -> Callable[[Path], None]:
    return lambda folder: edit(folder / name, lambda dataset: put_raw(dataset, keyword, value, vr))


def in_beam(keyword: str, value: bytes, name: str = "plan.dcm") -> Callable[[Path], None]:
    """Return an attack on an attribute of the first beam."""
    sequence = "IonBeamSequence" if name == "ion.dcm" else "BeamSequence"
    return lambda folder: edit(folder / name, lambda d: put_raw(d[sequence].value[0], keyword, value))


def in_point(keyword: str, value: bytes, name: str = "plan.dcm") -> Callable[[Path], None]:
    """Return an attack on an attribute of the first control point."""
    ion = "Ion" * (name == "ion.dcm")
    return lambda folder: edit(
        folder / name,
        lambda d: put_raw(
            d[f"{ion}BeamSequence"].value[0][f"{ion}ControlPointSequence"].value[0], keyword, value
        ),
    )


def plan(change: Callable[[Dataset], object]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "plan.dcm", change)


def leaves(value: bytes) -> Callable[[Path], None]:
    def change(dataset: Dataset) -> None:
        point = dataset.BeamSequence[0].ControlPointSequence[0]
        put_raw(point.BeamLimitingDevicePositionSequence[-1], "LeafJawPositions", value)

    return plan(change)


def many_points(n: int) -> Callable[[Path], None]:
    """Return an attack that gives the plan's beam control points of a few bytes each."""

    def attack(folder: Path) -> None:
        path = folder / "plan.dcm"
        dataset = dcmread(path)
        points = dataset.BeamSequence[0].ControlPointSequence
        dataset.BeamSequence[0].ControlPointSequence = Sequence([points[0]])
        dataset.save_as(path)
        data = path.read_bytes()
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 10) + struct.pack(
            "<HH2sHH", 0x300A, 0x0112, b"IS", 2, 0x2030
        )
        at = header_at(data, "BeamSequence")
        start = struct.pack("<HH2sHI", 0x300A, 0x00B0, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
            "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
        )
        points_start = struct.pack("<HH2sHI", 0x300A, 0x0111, b"SQ", 0, 0xFFFFFFFF)
        end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        points_end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        path.write_bytes(data[:at] + start + points_start + item * n + points_end + end)

    return attack


def deep(name: str, keyword: str, levels: int) -> Callable[[Path], None]:
    """Return an attack that puts sequences in sequences where an attribute begins, to the end of the file."""

    def attack(folder: Path) -> None:
        data = (folder / name).read_bytes()
        start = struct.pack("<HH2sHI", 0x300C, 0x0002, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
            "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
        )
        end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        (folder / name).write_bytes(data[: header_at(data, keyword)] + start * levels + end * levels)

    return attack


def another(*names: str) -> Callable[[Path], None]:
    """Return an attack that gives files another patient."""
    return lambda folder: [
        edit(folder / n, lambda d: setattr(d, "PatientID", "SOMEBODY-ELSE")) for n in names
    ]


def of_another_plan(dataset: Dataset) -> None:
    dataset.PatientID = "SOMEBODY-ELSE"
    dataset.FrameOfReferenceUID = ""
    del dataset.ReferencedStructureSetSequence


def of_another_dose(dataset: Dataset) -> None:
    dataset.PatientID = "SOMEBODY-ELSE"
    del dataset.FrameOfReferenceUID


def twice(keyword: str) -> Callable[[Path], None]:
    return plan(lambda d: setattr(d, keyword, Sequence(list(d[keyword].value) * 2)))


def matrix(value: bytes) -> Callable[[Path], None]:
    def change(dataset: Dataset) -> None:
        part = dataset.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence[0]
        put_raw(part, "FrameOfReferenceTransformationMatrix", value)

    return lambda folder: edit(folder / "reg.dcm", change)


def left(attack: Callable[[Path], object], says: str, slow: bool = False) -> Kind:
    """Return a kind that is left out with a note."""
    return Kind(attack, rf"(left out|ignored 1 file).*{says}", read=True, slow=slow)


PLANS = {
    "a plan cut in its header": left(cut("plan.dcm", 700), ""),
    "a plan cut in its beams": left(cut("plan.dcm", 0.7), ""),
    "an empty plan": left(cut("plan.dcm", 0), "not DICOM"),
    "a plan that is a sequence longer than the file": left(claim_length("plan.dcm", "BeamSequence", 0x7FFFFFF0), ""),
    "a plan with a path for an identifier": left(set_in("plan.dcm", "SOPInstanceUID", "../../../x"), "damaged RT Plan"),
    "a plan of an unknown transfer syntax": left(
        patch("plan.dcm", b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"),
        "damaged RT Plan",
    ),
    "a plan without beams": left(plan(lambda d: setattr(d, "BeamSequence", Sequence())), "no beams"),
    "a plan with a beam number in words": left(in_beam("BeamNumber", b"one "), "understood"),
    "two beams of one number": left(twice("BeamSequence"), "one number"),
    "a beam without control points": left(
        plan(lambda d: setattr(d.BeamSequence[0], "ControlPointSequence", Sequence())), "control points"
    ),
    "a million control points": left(many_points(1_000_000), "damaged RT Plan", slow=True),
    "a gantry angle that is no number": left(in_point("GantryAngle", b"NaN "), "finite"),
    "a weight of 1e999": left(in_point("CumulativeMetersetWeight", b"1e999 "), "finite"),
    "an isocentre in words": left(in_point("IsocenterPosition", b"here\\there\\x "), "understood"),
    "leaves that are too few": left(leaves(b"-10\\10"), "2 positions of MLCX"),
    "leaves that are no numbers": left(leaves(b"NaN\\1\\1\\1\\1\\1 "), "finite"),
    "a compensator of 65535 by 65535 pixels": left(
        plan(
            lambda d: d.BeamSequence[0].CompensatorSequence[0].update(
                {"CompensatorRows": 65535, "CompensatorColumns": 65535}
            )
        ),
        "compensator of 65535",
    ),
    "minus five fractions": left(
        plan(lambda d: put_raw(d.FractionGroupSequence[0], "NumberOfFractionsPlanned", b"-5")), "-5 fractions"
    ),
    "spots without weights": left(
        in_point("ScanSpotMetersetWeights", struct.pack("<f", 1.0), "ion.dcm"), "spot weights"
    ),
    "spots that are no numbers": left(
        in_point("ScanSpotPositionMap", struct.pack("<4f", *[float("nan")] * 4), "ion.dcm"), "finite"
    ),
    "sequences in a plan, 20000 deep": left(deep("plan.dcm", "BeamSequence", 20_000), ""),
    "escapes in a plan's label": Kind(raw("plan.dcm", "RTPlanLabel", ESCAPE.encode() + b" "), "RT Plan", read=True),
    "a plan's label of 10 kB": Kind(raw("plan.dcm", "RTPlanLabel", b"AB" * 5000), "RT Plan", read=True),
    "a plan's label in broken UTF-8": Kind(raw("plan.dcm", "RTPlanLabel", b"\xff\xfe\xc3 "), "RT Plan", read=True),
    "escapes in a beam's name": Kind(in_beam("BeamName", ESCAPE.encode() + b" "), "RT Plan", read=True),
    "a plan of another patient": left(plan(of_another_plan), "another patient ID"),
    "a plan of another patient ID, on these structures": Kind(
        another("plan.dcm"), "another patient ID than", read=True
    ),
}  # fmt: skip

DOSES = {
    "a dose cut in its header": left(cut("dose.dcm", 700), ""),
    "a dose cut in its values": left(cut("dose.dcm", 0.9), "cut short|truncated|understood|damaged"),
    "a dose of 65535 by 65535 by 65535 points": left(
        lambda f: edit(
            f / "dose.dcm", lambda d: d.update({"Rows": 65535, "Columns": 65535, "NumberOfFrames": 65535})
        ),
        "65535 × 65535",
    ),
    "a dose of minus one frames": left(raw("dose.dcm", "NumberOfFrames", b"-1"), "points"),
    "a dose of frames in words": left(raw("dose.dcm", "NumberOfFrames", b"some"), "understood"),
    "negative dose scaling": left(raw("dose.dcm", "DoseGridScaling", b"-1"), "Scaling"),
    "dose scaling that is no number": left(raw("dose.dcm", "DoseGridScaling", b"NaN "), "Scaling"),
    "dose scaling of 1e30": left(raw("dose.dcm", "DoseGridScaling", b"1e30"), "Scaling"),
    "dose scaling of 1e300": left(raw("dose.dcm", "DoseGridScaling", b"1e300 "), "Scaling"),
    "frame offsets that are no numbers": left(
        raw("dose.dcm", "GridFrameOffsetVector", b"0\\4\\NaN\\12\\16\\20"), "offsets"
    ),
    "too few frame offsets": left(raw("dose.dcm", "GridFrameOffsetVector", b"0\\4 "), "2 frame offsets"),
    "uneven frame offsets": left(raw("dose.dcm", "GridFrameOffsetVector", b"0\\4\\5\\12\\16\\20 "), "apart"),
    "frame offsets of 1e300": left(
        raw("dose.dcm", "GridFrameOffsetVector", b"0\\1e300\\2e300\\3e300\\4e300\\5e300 "), "PixelSpacing"
    ),
    "points of zero size": left(raw("dose.dcm", "PixelSpacing", b"0\\0 "), "PixelSpacing|understood"),
    "a dose ten kilometres away": left(raw("dose.dcm", "ImagePositionPatient", b"0\\0\\1e7 "), "100 m away"),
    "a dose's position that is no number": left(raw("dose.dcm", "ImagePositionPatient", b"NaN\\0\\0 "), "understood"),
    "a dose that lies nowhere": left(raw("dose.dcm", "ImageOrientationPatient", b"NaN\\0\\0\\0\\1\\0 "), "askew"),
    "a dose of seven bits": left(set_in("dose.dcm", "BitsAllocated", 7), ""),
    "a dose without values": left(without("dose.dcm", "PixelData"), "no values"),
    "a dose in percent": left(set_in("dose.dcm", "DoseUnits", "RELATIVE"), "RELATIVE"),
    "escapes in a dose's unit": left(raw("dose.dcm", "DoseUnits", ESCAPE.encode() + b" "), "Gy"),
    "escapes in a dose's comment": Kind(raw("dose.dcm", "DoseComment", ESCAPE.encode() + b" "), "RT Dose", read=True),
    "a path for a dose's identifier": left(set_in("dose.dcm", "SOPInstanceUID", "/etc/passwd"), "damaged RT Dose"),
    "a dose of another patient": left(lambda f: edit(f / "dose.dcm", of_another_dose), "another patient ID"),
    "a dose of another patient ID, in these coordinates": Kind(
        another("dose.dcm"), "another patient ID than", read=True
    ),
}  # fmt: skip

SECOND = {
    "an MR of another patient": left(another("mr1.dcm", "mr2.dcm", "mr3.dcm"), "patient ID"),
    "an MR of two patients": left(another("mr2.dcm"), "patient IDs"),
    "a registration of another patient": left(another("reg.dcm"), "patient ID"),
    "a registration that is no number": left(matrix(b"NaN\\" * 15 + b"1 "), "rigid"),
    "a registration of 15 numbers": Kind(matrix(b"1\\" * 14 + b"1 "), r"'reg\.dcm'"),
    "a registration of zeros": left(matrix(b"0\\" * 15 + b"0 "), "rigid"),
    "a registration that scales by 1e300": left(matrix(b"1e300\\" * 15 + b"1 "), "rigid"),
    "an MR with a slope that is no number": left(raw("mr2.dcm", "RescaleSlope", b"NaN "), "RescaleSlope"),
    "an MR cut in its pixels": Kind(cut("mr2.dcm", 0.8), r"'mr2\.dcm'"),
    "an MR of a million frames": Kind(raw("mr2.dcm", "NumberOfFrames", b"1000000 "), r"'mr2\.dcm'"),
}  # fmt: skip

ATTACHED = {**PLANS, **DOSES, **SECOND}
