"""Random damage to files: bytes flipped, cut, inserted and moved; attributes changed, and numbers in text."""

import io
import random
import struct
import warnings

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.sequence import Sequence

NASTY_BYTES = (
    b"", b"\0", b"\xff" * 4, b"\0" * 64, b"NaN ", b"inf ", b"-1", b"1e300 ", b"1e-300", b"0 ", b"99999999999999999999",
    b"\\", b"\\\\\\\\", b"1\\2\\3\\4\\5\\6\\7 ", b"../../../x", b"\x1b[2J", b"%s%n{}{0}", b"1.2.840.10008.1.2.1.99",
    b"abc ", b"-", b"2147483648", b"-2147483649 ", b"0.0000001 ", b"\xc3\x28", b"ISO 2022 IR 87", b"x" * 70_000,
)  # fmt: skip
NASTY_NUMBERS = (0, 1, 2, 3, 7, 8, 15, 31, 32, 255, 256, 32767, 32768, 65534, 65535)
VRS = (
    "AE", "AS", "AT", "CS", "DA", "DS", "DT", "FL", "FD", "IS", "LO", "LT", "OB", "OD", "OF", "OL", "OV", "OW", "PN",
    "SH", "SL", "SQ", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN", "UR", "US", "UT", "UV",
)  # fmt: skip
NASTY_TEXT = (
    "nan", "-inf", "1e400", "0", "-1", "9" * 5000, "true", "[]", "{}", '""', "'''", "[[", "]]", "=", ".", "\0",
    "\x1b[2J",
    "2020-01-01", "\ufeff", "\r", '"\\u0000"', "[[objectives]]", "[case]", "#", "0x7fffffffffffffff", "1_0", "é", "\\",
)  # fmt: skip


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with one kind of damage somewhere."""
    if not data:
        return bytes(rng.randrange(256) for _ in range(200))
    changed = bytearray(data)
    at = rng.randrange(len(changed))
    length = min(len(changed) - at, 1 << rng.randrange(12))
    match rng.randrange(8):
        case 0:
            for _ in range(1 << rng.randrange(6)):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        case 1:
            for _ in range(1 << rng.randrange(6)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        case 2:
            del changed[at:]
        case 3:
            del changed[at : at + length]
        case 4:
            changed[at:at] = rng.choice(NASTY_BYTES) or rng.randbytes(length)
        case 5:
            changed[at : at + length] = bytes(length)
        case 6:
            to = rng.randrange(len(changed))
            changed[to:to] = changed[at : at + length]
        case 7:
            number = rng.choice((0, 1, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, rng.randrange(1 << 32)))
            changed[at : at + 4] = struct.pack("<I", number)
    return bytes(changed)


def damage_header(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with damage in what is not pixels: most of a file's bytes are."""
    end = data.find(b"\xe0\x7f\x10\x00")
    return damage_bytes(data[:end], rng) + data[end:] if end > 0 else damage_bytes(data, rng)


def damage_attribute(data: bytes, rng: random.Random) -> bytes:
    """Return a DICOM file with one attribute changed in value, kind or place, or with other damage."""
    try:
        with disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(io.BytesIO(data))
            _damage(_some_dataset(dataset, rng), rng)
            out = io.BytesIO()
            dataset.save_as(out)
            return out.getvalue()
    except Exception:  # pydicom writes much that is wrong, but not all
        return damage_bytes(data, rng)


def _some_dataset(dataset: Dataset, rng: random.Random) -> Dataset:
    """Return a dataset, or one of those that lie in it."""
    while rng.random() < 0.7:
        inside = [item for element in dataset if element.VR == "SQ" for item in element.value]
        if not inside:
            break
        dataset = rng.choice(inside)
    return dataset


def _damage(dataset: Dataset, rng: random.Random) -> None:
    tag = rng.choice(list(dataset.keys()))
    element = dataset[tag]
    match rng.randrange(6):
        case 0:
            del dataset[tag]
        case 1:
            value = rng.choice(NASTY_BYTES)
            dataset[tag] = RawDataElement(tag, element.VR, len(value), value, 0, False, True)
        case 2:
            value = rng.randbytes(rng.randrange(40))
            dataset[tag] = RawDataElement(tag, rng.choice(VRS), len(value), value, 0, False, True)
        case 3:
            other = dataset[rng.choice(list(dataset.keys()))]
            if element.VR == "SQ" and len(element.value):
                element.value = Sequence(list(element.value) * rng.choice((2, 3, 50)))
            else:
                dataset[tag] = RawDataElement(
                    tag, element.VR, 8, str(other.value)[:100].encode(), 0, False, True
                )
        case 4:
            if element.VR in ("US", "SS", "UL", "SL"):
                element.value = rng.choice(NASTY_NUMBERS)
            elif element.VR in ("DS", "IS"):
                value = str(rng.choice((*NASTY_NUMBERS, -1, 1e10, -1e10, 1e-10, 0.5))).encode()
                dataset[tag] = RawDataElement(tag, element.VR, len(value), value, 0, False, True)
            elif element.VR == "SQ":
                element.value = Sequence()
            else:
                dataset[tag] = RawDataElement(tag, element.VR, 0, b"", 0, False, True)
        case 5:
            dataset.add_new(tag, dictionary_VR(tag), None)


def damage_begin(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with damage in the first 400, where the headers of images are, or a number of them changed."""
    begin, rest = data[:400], data[400:]
    if rng.random() < 0.5 and any(48 <= byte < 58 for byte in begin):
        at = rng.choice([n for n, byte in enumerate(begin) if 48 <= byte < 58])
        return begin[:at] + rng.choice(NASTY_BYTES[4:20]) + begin[at + 1 :] + rest
    return damage_bytes(begin, rng) + rest


def damage_array(data: bytes, rng: random.Random) -> bytes:
    """Return an npz archive with the bytes, shape, kind or name of one array changed."""
    try:
        with np.load(io.BytesIO(data)) as archive:
            held = dict(archive)
    except Exception:  # damaged before
        return damage_bytes(data, rng)
    key = rng.choice(sorted(held))
    array, out = held[key], io.BytesIO()
    match rng.randrange(6):
        case 0:
            del held[key]
        case 1:
            held[key] = array.astype(rng.choice(("f4", "f8", "i2", "u1", "c8", "U3", "S5", "?", "M8[s]"))) if (
                array.dtype.kind in "iufb"
            ) else np.zeros(3)  # fmt: skip
        case 2:
            held[key] = array.reshape(-1)[: rng.randrange(array.size + 1)]
        case 3:
            if array.dtype.kind in "iuf" and array.size:
                changed = array.astype("f8").copy()
                changed.reshape(-1)[rng.randrange(array.size)] = rng.choice(
                    (np.nan, np.inf, -1.0, 1e300, 0.0, 1e9)
                )
                held[key] = changed
            else:
                held[key] = np.array(["\x1b[2J", "x" * 9000])
        case 4:
            held[key] = held[rng.choice(sorted(held))]
        case 5:
            held[key] = np.expand_dims(array, 0)
    np.savez(out, **held)
    return damage_bytes(out.getvalue(), rng) if rng.random() < 0.2 else out.getvalue()


def damage_text(text: str, rng: random.Random) -> str:
    """Return a TOML text with one piece of it changed."""
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(rng.randrange(len(lines)), lines[at])
        case 2:
            key, equals, _ = lines[at].partition("=")
            lines[at] = f"{key}{equals} {rng.choice(NASTY_TEXT)}"
        case 3:
            column = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:column] + rng.choice(NASTY_TEXT) + lines[at][column:]
        case 4:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        case 5:
            lines[at] = lines[at].replace(
                rng.choice("aeiots_[]=\"'0123456789."), rng.choice(["", "x", "_", "9"]), 1
            )
    return "\n".join(lines)
