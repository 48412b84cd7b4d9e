"""Kinds of broken and hostile DICOM folders, each made from a small good one, with the answer that is expected."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

from tests.hostile.attacks import (
    another_extension,
    another_patient,
    beside,
    called_syntax,
    deep_folders,
    deflated_bomb,
    double,
    explicit_called_implicit,
    in_syntax,
    loop,
    many_contours,
    many_files,
    many_points,
    many_rois,
    move,
    nested,
    odd_files,
    odd_length,
    only,
    other_pixels,
    private_junk,
    refer_to_itself,
    rename_roi,
    rename_rois,
    rle_bomb,
    rle_garbage,
    round_contour,
    rt,
    second_series,
    second_structure_set,
    set_in,
    set_in_all,
    sparse,
    sparse_slice,
    swap_z,
)
from tests.hostile.good import (
    claim_length,
    contour_data,
    cut,
    each_slice,
    edit,
    patch,
    put_raw,
    raw_in_all,
    raw_in_slice,
    without,
)

ESCAPE = "\x1b[2J\x1b]0;owned\x07"


@dataclass(frozen=True)
class Kind:
    """One attack.

    Parameters
    ----------
    attack
        Changes the good folder that it is given.
    says
        What the one message of a refusal matches, or a note of what is read all the same (empty: no note).
    read
        Whether the folder is read all the same.
    slow
        Whether it takes a second or more, so that it is left to ``make validate``.
    """

    attack: Callable[[Path], object]
    says: str
    read: bool = False
    slow: bool = False


NAMED = r"'3\.dcm'"
RT = r"'rt\.dcm'"

TRUNCATED = {
    "an empty file": Kind(cut("3.dcm", 0), "1 slice.* missing"),
    "cut in the preamble": Kind(cut("3.dcm", 100), "1 slice.* missing"),
    "cut behind the magic word": Kind(cut("3.dcm", 132), "1 slice.* missing"),
    "cut in the file meta information": Kind(cut("3.dcm", 200), NAMED),
    "cut in the header": Kind(cut("3.dcm", 900), NAMED),
    "cut in the pixels": Kind(cut("3.dcm", 0.95), f"{NAMED}.*(truncated|too early|damaged)"),
    "cut by one byte": Kind(lambda f: cut("3.dcm", (f / "3.dcm").stat().st_size - 1)(f), NAMED),
    "a structure set cut in its header": Kind(cut("rt.dcm", 600), RT),
    "a structure set cut in its references": Kind(cut("rt.dcm", 0.3), RT),
    "a structure set cut in its contours": Kind(cut("rt.dcm", 0.7), RT),
    "a structure set cut in its observations": Kind(cut("rt.dcm", 0.97), RT),
    "an empty structure set": Kind(cut("rt.dcm", 0), "not DICOM", read=True),
}

LENGTHS = {
    "rows with a length beyond the file": Kind(claim_length("3.dcm", "Rows", 0xFFFE), NAMED),
    "rows with an odd length": Kind(claim_length("3.dcm", "Rows", 3), NAMED),
    "a position with an odd length": Kind(odd_length, "", read=True),
    "pixels of undefined length, uncompressed": Kind(claim_length("3.dcm", "PixelData", 0xFFFFFFFF), NAMED),
    "pixels longer than the file": Kind(claim_length("3.dcm", "PixelData", 0x7FFFFFFE), "", read=True),
    "pixels shorter than the image": Kind(claim_length("3.dcm", "PixelData", 10), NAMED),
    "pixels of no length": Kind(claim_length("3.dcm", "PixelData", 0), NAMED),
    "file meta information longer than the file": Kind(
        claim_length("3.dcm", "FileMetaInformationGroupLength", 9), NAMED
    ),
    "a text of 64 kB that is not there": Kind(claim_length("3.dcm", "Manufacturer", 0xFFFE), NAMED),
    "a sequence longer than the file": Kind(claim_length("rt.dcm", "ROIContourSequence", 0x7FFFFFF0), RT),
    "a sequence of odd length": Kind(claim_length("rt.dcm", "ROIContourSequence", 0x31), RT),
    "a sequence that never ends": Kind(claim_length("rt.dcm", "RTROIObservationsSequence", 0xFFFFFFFF), RT),
    "an item longer than its sequence": Kind(
        lambda f: patch("rt.dcm", b"\xfe\xff\x00\xe0", b"\xfe\xff\x00\xe0\xff\xff\xff\x7f")(f), RT
    ),
    "contour data longer than its item": Kind(claim_length("rt.dcm", "ContourData", 0xFFFE), RT),
    "a sequence of no length": Kind(
        rt(lambda d: setattr(d, "StructureSetROISequence", Sequence())), "", read=True
    ),
    "regions without contours": Kind(
        rt(lambda d: setattr(d.ROIContourSequence[1], "ContourSequence", Sequence())), "empty", read=True
    ),
    "contours of no length": Kind(contour_data(b""), "fewer than 3 points", read=True),
}

ABSURD = {
    "65535 by 65535 pixels": Kind(
        lambda f: each_slice(f, lambda d: d.update({"Rows": 65535, "Columns": 65535})), r"'\d\.dcm'"
    ),
    "no rows": Kind(set_in_all("Rows", 0), r"'\d\.dcm'.*Rows"),
    "rows twice": Kind(raw_in_all("Rows", struct.pack("<HH", 10, 10)), r"'\d\.dcm'.*Rows"),
    "rows as text": Kind(raw_in_all("Rows", b"many", "LO"), r"'\d\.dcm'.*Rows"),
    "pixel spacing of zero": Kind(raw_in_all("PixelSpacing", b"0\\0 "), r"'\d\.dcm'.*PixelSpacing"),
    "negative pixel spacing": Kind(raw_in_all("PixelSpacing", b"-1\\-1 "), r"'\d\.dcm'.*PixelSpacing"),
    "pixel spacing that is no number": Kind(
        raw_in_all("PixelSpacing", b"NaN\\NaN "), r"'\d\.dcm'.*PixelSpacing"
    ),
    "infinite pixel spacing": Kind(raw_in_all("PixelSpacing", b"inf\\inf "), r"'\d\.dcm'.*PixelSpacing"),
    "pixel spacing of 1e30 mm": Kind(raw_in_all("PixelSpacing", b"1e30\\1e30 "), r"'\d\.dcm'.*PixelSpacing"),
    "pixel spacing of 1e-30 mm": Kind(
        raw_in_all("PixelSpacing", b"1e-30\\1e-30 "), r"'\d\.dcm'.*PixelSpacing"
    ),
    "one number of pixel spacing": Kind(raw_in_all("PixelSpacing", b"5 "), r"'\d\.dcm'.*PixelSpacing"),
    "pixel spacing in words": Kind(raw_in_slice("PixelSpacing", b"five\\six "), NAMED),
    "a slope of 1e30": Kind(raw_in_slice("RescaleSlope", b"1e30"), f"{NAMED}"),
    "a slope of zero": Kind(raw_in_slice("RescaleSlope", b"0 "), f"{NAMED}.*RescaleSlope"),
    "a negative slope": Kind(raw_in_slice("RescaleSlope", b"-1"), f"{NAMED}"),
    "a slope in words": Kind(raw_in_slice("RescaleSlope", b"one "), f"{NAMED}.*RescaleSlope"),
    "two slopes": Kind(raw_in_slice("RescaleSlope", b"1\\2 "), f"{NAMED}.*RescaleSlope"),
    "an intercept that is no number": Kind(
        raw_in_slice("RescaleIntercept", b"NaN "), f"{NAMED}.*RescaleIntercept"
    ),
    "an infinite intercept": Kind(raw_in_slice("RescaleIntercept", b"1e999 "), f"{NAMED}.*RescaleIntercept"),
    "an intercept of 1e300": Kind(raw_in_slice("RescaleIntercept", b"1e300 "), NAMED),
    "no intercept": Kind(without("3.dcm", "RescaleIntercept"), f"{NAMED}.*RescaleIntercept"),
    "a slice a kilometre away": Kind(lambda f: move(f, 1e6, ["6.dcm"]), r"'6\.dcm'"),
    "a patient ten kilometres away": Kind(lambda f: move(f, 1e7), r"'\d\.dcm'.*ImagePositionPatient"),
    "a position of 1e300 mm": Kind(raw_in_all("ImagePositionPatient", b"0\\0\\1e300"), r"'\d\.dcm'"),
    "a position that is no number": Kind(raw_in_slice("ImagePositionPatient", b"0\\0\\NaN "), NAMED),
    "no position": Kind(without("3.dcm", "ImagePositionPatient"), NAMED),
    "a position of two numbers": Kind(raw_in_slice("ImagePositionPatient", b"0\\0 "), NAMED),
    "an orientation that is no number": Kind(
        raw_in_slice("ImageOrientationPatient", b"NaN\\0\\0\\0\\1\\0 "), NAMED
    ),
    "an oblique orientation": Kind(
        raw_in_all("ImageOrientationPatient", b"0.8\\0.6\\0\\-0.6\\0.8\\0 "), "interpolated", read=True
    ),
    "an orientation of six zeros": Kind(
        raw_in_all("ImageOrientationPatient", b"0\\0\\0\\0\\0\\0 "), r"'\d\.dcm'"
    ),
    "a gantry tilt in words": Kind(raw_in_slice("GantryDetectorTilt", b"some"), NAMED),
    "no patient position": Kind(
        lambda f: each_slice(f, lambda d: delattr(d, "PatientPosition")), "HFS", read=True
    ),
    "an unknown patient position": Kind(raw_in_all("PatientPosition", b"XYZ "), r"'\d\.dcm'.*XYZ"),
}

PIXELS = {
    "more bits stored than allocated": Kind(set_in("3.dcm", "BitsStored", 32), NAMED),
    "seven bits allocated": Kind(set_in("3.dcm", "BitsAllocated", 7), NAMED),
    "no bits allocated": Kind(set_in("3.dcm", "BitsAllocated", 0), NAMED),
    "65535 bits allocated": Kind(set_in("3.dcm", "BitsAllocated", 65535), NAMED),
    "three colours": Kind(set_in("3.dcm", "SamplesPerPixel", 3), NAMED),
    "no samples": Kind(set_in("3.dcm", "SamplesPerPixel", 0), NAMED),
    "a sign that is neither": Kind(set_in("3.dcm", "PixelRepresentation", 7), NAMED),
    "no sign": Kind(without("3.dcm", "PixelRepresentation"), NAMED),
    "a million frames": Kind(raw_in_slice("NumberOfFrames", b"1000000 "), NAMED),
    "minus one frames": Kind(raw_in_slice("NumberOfFrames", b"-1"), NAMED),
    "frames in words": Kind(raw_in_slice("NumberOfFrames", b"some"), NAMED),
    "no pixels": Kind(without("3.dcm", "PixelData"), NAMED),
    "padding in words": Kind(raw_in_slice("PixelPaddingValue", b"none", "LO"), NAMED),
    "padding of two values": Kind(raw_in_slice("PixelPaddingValue", struct.pack("<hh", 1, 2), "SS"), NAMED),
    "colour by name": Kind(raw_in_slice("PhotometricInterpretation", b"RAINBOW "), NAMED),
    "one byte more than the image": Kind(
        lambda f: edit(f / "3.dcm", lambda d: setattr(d, "PixelData", d.PixelData + b"\0\0")), "", read=True
    ),
}

SYNTAX = {
    "an unknown transfer syntax": Kind(called_syntax("1.2.3.4.5.6.7"), NAMED),
    "a transfer syntax with a path": Kind(called_syntax("../../../etc/passwd"), NAMED),
    "no transfer syntax": Kind(called_syntax(""), NAMED),
    "plain pixels called JPEG": Kind(called_syntax(JPEGBaseline8Bit), NAMED),
    "plain pixels called run-length encoded": Kind(called_syntax(RLELossless), NAMED),
    "plain bytes called deflated": Kind(called_syntax(DeflatedExplicitVRLittleEndian), NAMED),
    "explicit called implicit": Kind(explicit_called_implicit, "", read=True),
    "little called big endian": Kind(called_syntax(ExplicitVRBigEndian), NAMED),
    "big endian": Kind(in_syntax(ExplicitVRBigEndian, little=False), "", read=True),
    "a run-length bomb": Kind(rle_bomb, NAMED),
    "run lengths with offsets beyond the file": Kind(rle_garbage, NAMED),
    "a deflated bomb": Kind(deflated_bomb, NAMED, slow=True),
}

MIXED = {
    "two patients in a series": Kind(set_in("3.dcm", "PatientID", "SOMEBODY-ELSE"), "patient"),
    "two frames of reference in a series": Kind(set_in("3.dcm", "FrameOfReferenceUID", "1.2.3"), NAMED),
    "two sizes in a series": Kind(set_in("3.dcm", "Rows", 9), NAMED),
    "two spacings in a series": Kind(raw_in_slice("PixelSpacing", b"5\\5 "), NAMED),
    "two orientations in a series": Kind(
        raw_in_slice("ImageOrientationPatient", b"-1\\0\\0\\0\\-1\\0 "), NAMED
    ),
    "a slice missing": Kind(lambda f: (f / "3.dcm").unlink(), "1 slice.* missing"),
    "two slices in one place": Kind(
        lambda f: double(f, lambda d: setattr(d, "SOPInstanceUID", generate_uid())), r"3b?\.dcm"
    ),
    "one identifier for two images": Kind(lambda f: double(f, other_pixels), r"3b?\.dcm"),
    "one identifier for all slices": Kind(set_in_all("SOPInstanceUID", "1.2.3.4"), "same SOP Instance UID"),
    "uneven distances": Kind(lambda f: move(f, 1.0, ["3.dcm"]), "uneven"),
    "a slice shifted sideways": Kind(raw_in_slice("ImagePositionPatient", b"-30\\-24\\18 "), NAMED),
    "a single slice": Kind(only("1.dcm"), r"'1\.dcm'"),
    "two series without a choice": Kind(second_series, "2 CT series"),
    "two structure sets without a choice": Kind(second_structure_set, "2 structure sets"),
    "structures without a CT": Kind(only("rt.dcm"), "no CT"),
    "nothing at all": Kind(only(), "no CT"),
    "structures of another image": Kind(
        rt(
            lambda d: [
                setattr(i, "ReferencedFrameOfReferenceUID", "1.2.3.9") for i in d.StructureSetROISequence
            ]
        ),
        "frame of reference",
    ),
    "structures of another patient": Kind(rt(another_patient), "patient IDs"),
    "structures of another patient ID, drawn on this CT": Kind(
        set_in("rt.dcm", "PatientID", "SOMEBODY-ELSE"), "different patient IDs", read=True
    ),
    "a CT that calls itself a dose": Kind(set_in_all("Modality", "RTDOSE"), "", read=True),
    "a structure set that calls itself a CT": Kind(
        rt(lambda d: setattr(d, "Modality", "CT")), "modality", read=True
    ),
    "a structure set of the class of a CT": Kind(
        rt(lambda d: setattr(d, "SOPClassUID", CTImageStorage)), RT + "|series"
    ),
}


STRUCTURES = {
    "a contour of a million points": Kind(round_contour(1_000_000), "", read=True, slow=True),
    "a million points that cross": Kind(many_points(1_000_000), f"{RT}.*cross each other", slow=True),
    "3000 points that cross": Kind(many_points(3000), "", read=True),
    "100000 contours": Kind(many_contours(100_000), "", read=True, slow=True),
    "3000 regions": Kind(many_rois(3000), f"{RT} has 3002 regions", slow=True),
    "a coordinate that is no number": Kind(contour_data(b"0\\0\\22\\NaN\\0\\22\\5\\5\\22 "), f"{RT}.*finite"),
    "an infinite coordinate": Kind(contour_data(b"0\\0\\22\\inf\\0\\22\\5\\5\\22 "), f"{RT}.*finite"),
    "a coordinate of 1e300": Kind(contour_data(b"0\\0\\22\\1e300\\0\\22\\5\\5\\22"), RT),
    "a coordinate in words": Kind(contour_data(b"0\\0\\22\\left\\0\\22\\5\\5\\22 "), RT),
    "seven coordinates": Kind(contour_data(b"0\\0\\22\\5\\5\\22\\1"), f"{RT}.*multiple of 3"),
    "coordinates with nothing between": Kind(contour_data(b"0\\\\22\\5\\5\\22\\1\\2\\22 "), RT),
    "two points": Kind(contour_data(b"0\\0\\22\\5\\5\\22"), "fewer than 3 points", read=True),
    "a contour across slices": Kind(rt(swap_z), "not axial", read=True),
    "a contour far outside": Kind(
        contour_data(b"9000\\0\\22\\9005\\0\\22\\9000\\5\\22"), "sticks out", read=True
    ),
    "a count of points that lies": Kind(
        rt(lambda d: setattr(d.ROIContourSequence[1].ContourSequence[1], "NumberOfContourPoints", 10**9)),
        "",
        read=True,
    ),
    "regions in regions, 50000 deep": Kind(nested(50_000), RT),
    "two regions of one number": Kind(
        rt(lambda d: setattr(d.StructureSetROISequence[1], "ROINumber", 1)), RT
    ),
    "a region without a number": Kind(rt(lambda d: delattr(d.StructureSetROISequence[1], "ROINumber")), RT),
    "a region number in words": Kind(
        rt(lambda d: put_raw(d.StructureSetROISequence[1], "ROINumber", b"two ")), RT
    ),
    "contours of a region that is not there": Kind(
        rt(lambda d: setattr(d.ROIContourSequence[1], "ReferencedROINumber", 77)), "empty", read=True
    ),
    "two structures of one name": Kind(rename_rois("PTV", "PTV"), "renamed", read=True),
    "a structure without a name": Kind(rename_roi(b""), "", read=True),
    "references to itself": Kind(rt(refer_to_itself), "none is", read=True),
    "no contours at all": Kind(without("rt.dcm", "ROIContourSequence"), RT),
    "no regions at all": Kind(without("rt.dcm", "StructureSetROISequence"), RT),
}

TRICKS = {
    "a path for an instance": Kind(
        set_in("3.dcm", "SOPInstanceUID", "../../../../tmp/x"), f"{NAMED}.*SOPInstanceUID"
    ),
    "a path for a series": Kind(set_in_all("SeriesInstanceUID", "../../x"), r"'\d\.dcm'.*SeriesInstanceUID"),
    "an absolute path for a study": Kind(set_in_all("StudyInstanceUID", "/etc/passwd"), "StudyInstanceUID"),
    "a path for a frame of reference": Kind(
        set_in_all("FrameOfReferenceUID", "../../x"), "FrameOfReferenceUID"
    ),
    "a zero byte in an identifier": Kind(
        raw_in_all("SeriesInstanceUID", b"1.2\x00/../../x "), r"'\d\.dcm'.*SeriesInstanceUID"
    ),
    "new lines in an identifier": Kind(
        raw_in_all("SeriesInstanceUID", b"1.2\nnightbeam: all is well\n"), r"'\d\.dcm'.*SeriesInstanceUID"
    ),
    "an identifier of 10 kB": Kind(
        raw_in_all("SeriesInstanceUID", b"1.2" * 3334), r"'\d\.dcm'.*SeriesInstanceUID"
    ),
    "an empty series identifier": Kind(raw_in_all("SeriesInstanceUID", b""), r"'\d\.dcm'.*SeriesInstanceUID"),
    "escapes in a structure's name": Kind(rename_roi(ESCAPE.encode()), "control", read=True),
    "new lines in a structure's name": Kind(rename_roi(b"PTV\nnightbeam: fine"), "control", read=True),
    "a path for a structure's name": Kind(rename_roi(b"../../../tmp/x"), "", read=True),
    "a structure's name of 10 kB": Kind(rename_roi(b"PTV" * 3334), "long", read=True),
    "a structure's name in broken UTF-8": Kind(rename_roi(b"PTV\xff\xfe\xc3"), "", read=True),
    "an unknown character set": Kind(set_in("rt.dcm", "SpecificCharacterSet", "ISO_IR 999"), "", read=True),
    "escapes in a series description": Kind(
        lambda f: (raw_in_all("SeriesDescription", ESCAPE.encode() + b" ")(f), second_series(f)),
        "2 CT series",
    ),
    "escapes in a patient position": Kind(
        raw_in_all("PatientPosition", ESCAPE.encode() + b" "), "PatientPosition"
    ),
    "escapes in the class of a file": Kind(raw_in_slice("SOPClassUID", ESCAPE.encode() + b" "), "missing"),
    "escapes in a unit": Kind(raw_in_slice("RescaleType", ESCAPE.encode() + b" "), NAMED),
    "private junk": Kind(lambda f: edit(f / "3.dcm", private_junk), "", read=True),
    "escapes in a file name": Kind(lambda f: another_extension(f, ESCAPE.encode()), "owned"),
    "new lines in a file name": Kind(lambda f: another_extension(f, b"x\nnightbeam: fine\n.dcm"), "fine"),
    "a file name that is no text": Kind(lambda f: another_extension(f, b"\xff\xfe\x80.dcm"), r"\.dcm"),
}

FILES = {
    "a text called .dcm": Kind(
        beside("a.dcm", b"Hello, I am no image.\n" * 20), "1 file.*not DICOM", read=True
    ),
    "a PDF called .dcm": Kind(beside("a.dcm", b"%PDF-1.7\n" + bytes(500)), "1 file.*not DICOM", read=True),
    "nothing but zeros": Kind(beside("a.dcm", bytes(10_000)), "1 file.*not DICOM", read=True),
    "a magic word and noise": Kind(
        beside("a.dcm", bytes(128) + b"DICM" + b"\xa5" * 500), "1 file.*unknown", read=True
    ),
    "a loop of links": Kind(loop, "", read=True),
    "a pipe, a socket, a device and a folder called .dcm": Kind(odd_files, "", read=True),
    "a file of 1 TB of nothing": Kind(lambda f: sparse(f, b""), r"big\.dcm|not DICOM", slow=True),
    "a DICOM file of 1 TB": Kind(lambda f: sparse(f, (f / "3.dcm").read_bytes()), r"'big\.dcm'", slow=True),
    "a slice of 100 GB": Kind(sparse_slice, NAMED, slow=True),
    "5000 other files": Kind(many_files, "5000 file", read=True, slow=True),
    "folders 300 deep": Kind(deep_folders, "", read=True),
}

KINDS = {**TRUNCATED, **LENGTHS, **ABSURD, **PIXELS, **SYNTAX, **MIXED, **STRUCTURES, **TRICKS, **FILES}
