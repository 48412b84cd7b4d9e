"""Run by another Python (NIGHTBEAM_PEER_PYTHON) that has dicompyler-core: DVH figures and the plan, as JSON."""

import json
import sys
from pathlib import Path

from dicompylercore import dicomparser, dvhcalc  # type: ignore[import-not-found]


def main(folder: Path) -> None:
    """Print what dicompyler-core makes of the files of a folder with one dose."""
    (structures,), (dose,), (plan,) = (
        [str(p) for p in folder.glob(f"{kind}.*.dcm")] for kind in ("RTSTRUCT", "RTDOSE", "RTPLAN")
    )
    found = {}
    for number, roi in dicomparser.DicomParser(structures).GetStructures().items():
        dvh = dvhcalc.get_dvh(structures, dose, number)
        found[roi["name"]] = {
            "mean_gy": float(dvh.mean),
            **{f"d{p}_gy": float(dvh.dose_constraint(p).value) for p in (2, 50, 95, 98)},
        }
    parsed = dicomparser.DicomParser(plan)
    beams = {str(number): beam for number, beam in parsed.GetReferencedBeamsInFraction().items()}
    print(
        json.dumps(
            {"dvh": found, "prescribed_cgy": parsed.GetPlan()["rxdose"], "beams": beams}, default=float
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
