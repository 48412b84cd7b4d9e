"""What a job is made from, as one digest: a job that is done is done again when that changes."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import NightbeamError
from engine.physics.hu_table import load_hu_table
from flows.batch.jobs import Job
from flows.cases import NAME
from storage.digest import digest_of, digest_of_code, digest_of_files
from storage.store import Store

_CODE = ("engine", "storage", "cluster", "flows")


def digest_of_job(job: Job, store: Store) -> str:
    """Return the digest of a job's study, of the files that it names, of its case and of the program.

    Empty where something of that is missing: then the job has to be tried, and tells what is missing.
    """
    case = tomllib.loads(job.study)["case"]
    try:
        table = load_hu_table(case["hu_table"], job.folder)
        made_from = {
            "what": job.what,
            "study": job.study,
            "hu_table": [table.hu, table.density],
            "case": _digest_of_case(case, store),
            "code": digest_of_code(_CODE),
        }
    except (OSError, NightbeamError):
        return ""
    return digest_of(made_from)


def _digest_of_case(case: dict[str, Any], store: Store) -> str:
    if "imported" in case:
        return str(store.read_record(NAME, case["imported"])["case"])
    # The code has a phantom in it.
    return _digest_of_folder(Path(case["dicom"])) if "dicom" in case else str(case["phantom"])


@cache
def _digest_of_folder(folder: Path) -> str:
    """Return the digest of the files of a folder, read once for all protocols of a case."""
    return digest_of_files([path for path in folder.rglob("*") if path.is_file()])
