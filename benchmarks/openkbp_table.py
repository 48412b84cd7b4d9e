"""Print the table of docs/volumes.md: plans of the OpenKBP patients beside the challenge's reference dose.

    python -m benchmarks.openkbp_table 236=runs/pt_236 201=runs/pt_201 99=runs/pt_99

Ours is read from each plan's ``summary.json``, and voxels outside the PTVs from its RT Dose. The reference dose (in
brackets) is that of the patient's npz case under ``NIGHTBEAM_REFERENCE_DATA``, counted by whole voxels: another plan
of another program, no truth.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from engine.spec.names import load_names

_NAMES = Path(__file__).parents[1] / "examples" / "names" / "openkbp.toml"
_TARGETS = ("PTV_7000", "PTV_6300", "PTV_5600")
_ORGANS = ("SpinalCord", "Brainstem", "Parotid_L", "Parotid_R", "Bone_Mandible", "Larynx", "Esophagus")
_OUTSIDE = "outside"
_HOT_GY = 77.0

Row = tuple[str, float, float | None]


def rows_of(number: str, folder: Path) -> list[Row]:
    """Return label, value of our plan and of the reference dose, Gy, of every row of the table."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    volumes = {volume["name"]: volume for volume in summary["volumes"]}
    reference_gy, voxel_cc, masks = _reference(number)
    reference = {name: (reference_gy[mask], voxel_cc) for name, mask in masks.items()}
    rows: list[Row] = []
    for target in _TARGETS:
        for percent in (98, 95, 2):
            ours = volumes[target][f"d{percent}_gy"]
            rows.append((f"{target} D{percent}%", ours, _dose_at(reference[target], percent)))
    for goal in summary["goals"]:
        if goal["structure"] in _ORGANS:
            metric = goal["expression"].split()[0]
            rows.append(
                (
                    f"{goal['structure']} {metric}",
                    goal["value"],
                    _metric(reference[goal["structure"]], metric),
                )
            )
    outside, voxel_cc = reference[_OUTSIDE]
    ours_outside = _exported_dose_gy(folder)[masks[_OUTSIDE]]
    rows.append(("outside the PTVs, hottest voxel", float(ours_outside.max()), float(outside.max())))
    hot_cc = float((ours_outside > _HOT_GY).sum() * voxel_cc), float((outside > _HOT_GY).sum() * voxel_cc)
    rows.append((f"outside the PTVs, cc above {_HOT_GY:g} Gy", *hot_cc))
    rows.append(
        (f"goals met, of {len(summary['goals'])}", sum(goal["passed"] for goal in summary["goals"]), None)
    )
    return rows


def _exported_dose_gy(folder: Path) -> Any:
    for path in sorted((folder / "dicom").glob("*.dcm")):
        data = pydicom.dcmread(path)
        if data.Modality == "RTDOSE":
            return data.pixel_array * float(data.DoseGridScaling)
    raise FileNotFoundError(f"no RT Dose lies in {folder / 'dicom'}; plan the patient again")


def _reference(number: str) -> tuple[Any, float, dict[str, Any]]:
    """Return the dose, Gy, the volume of a voxel, cm³, and masks by the study's names."""
    with np.load(Path(os.environ["NIGHTBEAM_REFERENCE_DATA"]) / "cases" / f"OPENKBP_pt_{number}.npz") as data:
        dose_gy, voxel_cc = data["reference_dose_gy"], float(np.prod(data["spacing_xyz_mm"])) / 1000.0
        masks = {
            str(name): np.unpackbits(bits, count=dose_gy.size).reshape(dose_gy.shape).astype(bool)
            for name, bits in zip(data["structure_names"], data["mask_bits"], strict=True)
        }
    for old, new in load_names(_NAMES).structures.items():
        if old in masks:
            masks[new.name or old] = masks.pop(old)
    masks[_OUTSIDE] = masks["External"] & ~np.logical_or.reduce([masks[target] for target in _TARGETS])
    return dose_gy, voxel_cc, masks


def _dose_at(of: tuple[Any, float], percent: float | None = None, volume_cc: float = 0.0) -> float:
    doses, voxel_cc = np.sort(of[0])[::-1], of[1]
    share = volume_cc / (voxel_cc * doses.size) if percent is None else percent / 100.0
    return float(np.interp(share, (np.arange(doses.size) + 0.5) / doses.size, doses))


def _metric(of: tuple[Any, float], metric: str) -> float:
    return float(of[0].mean()) if metric == "Dmean" else _dose_at(of, volume_cc=float(metric[1:-2]))


def main(arguments: list[str]) -> None:
    """Print the table."""
    plans = dict(argument.split("=", 1) for argument in arguments)
    columns = [rows_of(number, Path(folder)) for number, folder in plans.items()]
    print("| Gy | " + " | ".join(f"pt_{number}" for number in plans) + " |")
    print("|---" * (1 + len(plans)) + "|")
    for of_row in zip(*columns, strict=True):
        cells = [
            f"{ours:.1f} ({reference:.1f})" if reference is not None else f"{ours}"
            for _, ours, reference in of_row
        ]
        print(f"| {of_row[0][0]} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
