"""The jobs of a batch: every case by every protocol that it is planned by, each with a study file of its own."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomlkit

from engine.errors import StudyError
from engine.physics.hu_table import BUILT_IN
from engine.spec.study import Study, load_study
from flows.batch.spec import Batch, BatchCase, What
from storage.digest import digest_of

STUDY = "study.toml"
_LONGEST_NAME = 200
_NOT_IN_FOLDERS = re.compile(r"[^A-Za-z0-9._-]+")
_ANY_CASE = '\n[case]\nphantom = "water-box"\nhu_table = "phantom"\n'


@dataclass(frozen=True)
class Job:
    """One case by one protocol.

    Parameters
    ----------
    case, protocol
        Names, as of the folders.
    what
        Plan or front.
    priority
        Higher ones are started first.
    folder
        Where its results go.
    study
        Text of its study file.
    """

    case: str
    protocol: str
    what: What
    priority: int
    folder: Path
    study: str

    @property
    def name(self) -> str:
        """Case and protocol, for people."""
        return f"{self.case} / {self.protocol}"

    @property
    def page(self) -> Path:
        """Page of its report."""
        return self.folder / ("report.html" if self.what == "plan" else "front.html")

    @property
    def numbers(self) -> Path:
        """File with the numbers of its report."""
        return self.folder / ("summary.json" if self.what == "plan" else "front.json")


def list_jobs(batch: Batch, folder: Path, output: Path) -> tuple[Job, ...]:
    """Return all jobs in the order in which they are started.

    Parameters
    ----------
    batch
        The batch.
    folder
        What its paths are relative to.
    output
        Folder of the batch's results.

    Raises
    ------
    StudyError
        If a protocol is no study, two cases have the same name, a list can find no folder, no case is there, a
        patient has no HU table, or the batch's is no file.
    """
    protocols = {path.stem: _read_protocol(folder / path, batch.what) for path in batch.protocols}
    if (
        batch.hu_table is not None
        and batch.hu_table not in BUILT_IN
        and not (folder / batch.hu_table).is_file()
    ):
        raise StudyError(
            f"hu_table: there is no file {folder / batch.hu_table} (paths are relative to the batch file)"
        )
    jobs, seen = [], set()
    for case in _all_cases(batch, folder):
        name = _folder_name(_name_of(case))
        if name in seen:
            raise StudyError(f"two cases are called '{name}'; give one of them another name in [[cases]]")
        seen.add(name)
        hu_table = case.hu_table_or(batch.hu_table)
        if hu_table is None:
            raise StudyError(
                f"case '{name}' has no HU table (there is no default table for a patient); "
                "give hu_table for the batch, or for the case"
            )
        try:
            table = case.case_table(hu_table if hu_table in BUILT_IN else str((folder / hu_table).resolve()))
        except ValueError as error:
            raise StudyError(f"case '{name}': {error}") from None
        if case.dicom is not None:
            table["dicom"] = str((folder / case.dicom).resolve())
        for protocol in case.protocols or protocols:
            study = _study_of(protocols[protocol], table, name)
            where = output / name / protocol
            jobs.append(Job(name, protocol, batch.what, case.priority, where, study))
    if not jobs:
        raise StudyError(f"no case is there now (dicom: {', '.join(batch.dicom)}, seen from {folder})")
    return tuple(sorted(jobs, key=lambda job: -job.priority))


def _all_cases(batch: Batch, folder: Path) -> Iterator[BatchCase]:
    """Yield the cases that have settings of their own, then those of the lists, folders last."""
    named = [*batch.cases, *(BatchCase(imported=name) for name in batch.imported)]
    named += [BatchCase(phantom=name) for name in batch.phantoms]
    yield from named
    own = {(folder / case.dicom).resolve() for case in batch.cases if case.dicom is not None}
    # What a list finds and [[cases]] names, or two lists find, is one case.
    found = dict.fromkeys(path.resolve() for pattern in batch.dicom for path in _folders(pattern, folder))
    new = [path for path in found if path not in own]
    names = Counter(_folder_name(text) for text in (*map(_name_of, named), *(path.name for path in new)))
    for path in new:
        # Folders come by themselves: one that is called as another case must not end everybody's night.
        clashes = names[_folder_name(path.name)] > 1
        yield BatchCase(dicom=path, name=f"{path.name[:90]}-{digest_of(str(path))[:6]}" if clashes else None)


def _name_of(case: BatchCase) -> str:
    return case.name or case.source


def _folders(pattern: str, folder: Path) -> list[Path]:
    """Return the folders that a pattern finds now.

    Raises
    ------
    StudyError
        If it can find none, as the folder that it begins with is not there.
    """
    whole = folder / pattern
    fixed = list(takewhile(lambda part: not any(c in part for c in "*?["), whole.parts))
    if len(fixed) == len(whole.parts):
        # A folder that is missing is told when its turn comes, as it may be there by then.
        return [whole]
    root = Path(*fixed)
    if not root.is_dir():
        raise StudyError(f"dicom: '{pattern}': {root} is no folder; give folders of DICOM files")
    found = root.glob(str(Path(*whole.parts[len(fixed) :])))
    return sorted(path for path in found if path.is_dir() and not path.name.startswith("."))


def _folder_name(text: str) -> str:
    return _NOT_IN_FOLDERS.sub("_", text).strip("._") or "case"


def _read_protocol(path: Path, what: What) -> str:
    """Return the text of a protocol; it may have a [case] or not."""
    with TemporaryDirectory() as temporary:
        checked = path
        text = ""
        try:
            text = path.read_text(encoding="utf-8-sig")
            if "case" not in tomllib.loads(text.replace("\r\n", "\n")):
                checked = Path(temporary) / path.name
                checked.write_text(text + _ANY_CASE, encoding="utf-8")
        except (OSError, ValueError):
            pass  # told in better words below
        study = load_study(checked)
    _require_front(study, what, path)
    return text


def _require_front(study: Study, what: What, path: Path) -> None:
    if what == "pareto" and study.pareto is None:
        raise StudyError(f"{path.name} has no table [pareto], which what = 'pareto' needs; add one")


def _study_of(protocol: str, case_table: dict[str, Any], case: str) -> str:
    """Return a protocol's text with another case."""
    document = tomlkit.parse(protocol)
    document["name"] = f"{case}: {document['name']}"[:_LONGEST_NAME]
    if "case" in document:
        del document["case"]
    made = tomlkit.dumps(document).rstrip()
    return f"{made}\n\n{tomlkit.dumps({'case': case_table})}"
