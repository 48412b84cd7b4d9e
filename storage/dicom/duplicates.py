"""Files that are in a folder more than once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from engine.errors import DicomError
from storage.dicom.sanity import naming
from storage.dicom.scan import HEADER_KEYWORDS, Header, read_whole

IMAGE_KEYWORDS = [
    *(keyword for keyword in HEADER_KEYWORDS if keyword not in ("SeriesDescription", "SpecificCharacterSet")),
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelRepresentation",
    "Units",
    "DoseUnits",
    "DoseType",
    "DoseGridScaling",
    "GridFrameOffsetVector",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
"""What the values of an image, and their places, depend on, besides the pixels."""


def without_duplicates(headers: Sequence[Header]) -> tuple[list[Header], tuple[str, ...]]:
    """Return files without those that say the same as one before, and a note that counts what was left out.

    Copies may differ in how they were written: transfer syntax, private attributes, descriptions.

    Raises
    ------
    DicomError
        If two files have one identifier but differ in what they say.
    """
    kept: dict[str, Header] = {}
    unnamed: list[Header] = []
    n_left_out = 0
    for header in headers:
        uid = header.text("SOPInstanceUID")
        if not uid:
            unnamed.append(header)
        elif uid not in kept:
            kept[uid] = header
        elif _is_same(kept[uid], header):
            n_left_out += 1
        else:
            raise DicomError(
                f"'{kept[uid].path.name}' and '{header.path.name}' have the same SOP Instance UID but differ in what "
                "they say (one of them was changed): take the wrong one out of the folder"
            )
    notes = (f"left out {n_left_out} file(s) that are in the folder twice",) if n_left_out else ()
    return [*kept.values(), *unnamed], notes


def _is_same(a: Header, b: Header) -> bool:
    """Return whether two files say the same; damaged values are told with the name of the second."""
    with naming(b.path):
        return _same(a, b)


def _same(a: Header, b: Header) -> bool:
    """Return whether two files say the same."""
    if a.path.read_bytes() == b.path.read_bytes():
        return True
    one, other = read_whole(a), read_whole(b)
    if "PixelData" in one and "PixelData" in other:
        if any(_plain(one.get(keyword)) != _plain(other.get(keyword)) for keyword in IMAGE_KEYWORDS):
            return False
        try:
            return bool(np.array_equal(one.pixel_array, other.pixel_array))
        except Exception as error:  # decoders raise many kinds
            raise DicomError(
                f"'{a.path.name}' and '{b.path.name}' have the same SOP Instance UID and cannot be compared, as their "
                f"pixels cannot be decoded ({type(error).__name__}): take one of them out of the folder"
            ) from error
    for dataset in (one, other):
        dataset.remove_private_tags()
    return one == other


def _plain(value: Any) -> Any:
    """Return a value as text, sequences with all that is in them."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, Dataset):
        return [(element.tag, _plain(element.value)) for element in value if not element.tag.is_private]
    return "" if value is None else str(value)
