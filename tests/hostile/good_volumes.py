"""Small good files of voxels: an npz case, and a CT with a mask and a label map as NRRD, NIfTI and MetaImage."""

import json
from pathlib import Path

import numpy as np
import SimpleITK

SHAPE = (6, 7, 8)
SPACING_MM, ORIGIN_MM = (2.0, 2.5, 3.0), (-5.0, 10.0, 0.25)


def arrays() -> dict[str, np.ndarray]:
    """Return what a good npz case holds (docs/volumes.md)."""
    ct = np.full(SHAPE, -1000, dtype=np.int16)
    ct[:, 1:6, 1:7] = np.random.default_rng(3).integers(-100, 1200, (6, 5, 6))
    body, target = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    body[:, 1:6, 1:7] = True
    target[2:4, 2:5, 3:5] = True
    return {
        "ct_hu": ct,
        "spacing_xyz_mm": np.array(SPACING_MM),
        "origin_xyz_mm": np.array(ORIGIN_MM),
        "structure_names": np.array(["Outline", "PTV"]),
        "structure_types": np.array(["EXTERNAL", "TARGET"]),
        "structure_nvox": np.array([body.sum(), target.sum()]),
        "mask_bits": np.stack([np.packbits(body), np.packbits(target)]),
        "meta_json": np.array(json.dumps({"patient_position": "HFS"})),
    }


def write_volumes(folder: Path) -> None:
    """Write ``case.npz``, and ``ct`` and ``PTV`` with the endings .nrrd, .nii.gz, .nii, .mha and .nhdr."""
    folder.mkdir(parents=True, exist_ok=True)
    held = arrays()
    np.savez_compressed(folder / "case.npz", **held)  # type: ignore[arg-type]
    target = np.unpackbits(held["mask_bits"][1], count=held["ct_hu"].size).reshape(SHAPE)
    for name, values in (("ct", held["ct_hu"]), ("PTV", target)):
        image = SimpleITK.GetImageFromArray(values)
        image.SetSpacing(SPACING_MM)
        image.SetOrigin(ORIGIN_MM)
        for ending in ("nrrd", "nii", "nii.gz", "mha", "nhdr"):
            SimpleITK.WriteImage(image, str(folder / f"{name}.{ending}"))
