"""The label of a case that was given none."""

import hashlib

import numpy as np

from engine.model.arrays import F32


def label_of(ct_hu: F32) -> str:
    """Return a label made from the CT's numbers: names of files are often names of patients."""
    return f"ct-{hashlib.sha256(np.ascontiguousarray(ct_hu).data).hexdigest()[:8]}"
