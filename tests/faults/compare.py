"""Whether two folders of a study hold the same results, to the bit, and whether a store is whole."""

import json
from pathlib import Path

import numpy as np
import pydicom

from storage.maintenance import check, list_objects
from storage.store import ARRAYS_SUFFIX, Store


def difference_of_plans(found: Path, expected: Path) -> str:
    """Say what differs between weights, RT Dose and all objects of two folders; an empty text if nothing does."""
    with np.load(found / "out" / "weights.npz") as a, np.load(expected / "out" / "weights.npz") as b:
        if a["weight"].tobytes() != b["weight"].tobytes():
            return "weights"
    if _dose(found) != _dose(expected):
        return "RT Dose"
    return _difference_of_objects(found, expected)


def difference_of_fronts(found: Path, expected: Path) -> str:
    """Say what differs between two fronts."""
    plans = [json.loads((folder / "out" / "front.json").read_text())["plans"] for folder in (found, expected)]
    return "front" if plans[0] != plans[1] else _difference_of_objects(found, expected)


def damage(folder: Path) -> str:
    """Say what is damaged in a folder's store, reading all of it."""
    store = Store(folder / "store")
    findings = check(store, list_objects(store))
    return "; ".join(f"{finding.file.kind} {finding.file.name}: {finding.why}" for finding in findings)


def _dose(folder: Path) -> tuple[bytes, str]:
    (file,) = (folder / "out" / "dicom").glob("RTDOSE*.dcm")
    dose = pydicom.dcmread(file)
    return dose.PixelData, str(dose.DoseGridScaling)


def _difference_of_objects(found: Path, expected: Path) -> str:
    stores = [Store(folder / "store") for folder in (found, expected)]
    objects = [{(file.kind, file.name) for file in list_objects(store)} for store in stores]
    if objects[0] != objects[1]:
        return f"objects: {sorted(objects[0] ^ objects[1])}"
    for file in list_objects(stores[1]):
        if file.key.endswith(ARRAYS_SUFFIX):
            a, b = (store.read_arrays(file.kind, file.name)[0] for store in stores)
            if a.keys() != b.keys() or any(a[name].tobytes() != b[name].tobytes() for name in a):
                return f"{file.kind} {file.name}"
    return ""
