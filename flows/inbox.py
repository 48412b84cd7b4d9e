"""Prefect flow: what is new in an inbox is imported and planned by its protocol, once.

What was done with a set is a record in the store, named by the contents of the set's files and the protocol. So a
scan may run as often as it likes, at the same time as another one, and after one that was killed.
"""

import json
import logging
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from engine.errors import CaseError, ClusterError, DamagedObjectError, DicomError, StoreError
from flows.cases import NAME, import_dicom
from flows.failures import in_words
from flows.inbox_sets import InboxSet, find_sets, read_inbox
from flows.inbox_study import write_study
from flows.plan_case import plan_case
from flows.presence import sign
from flows.progress import log_to
from flows.progress_file import progress_in
from flows.recovery import until_whole
from flows.run import Computing, Run, open_run
from storage.cases import structure_names
from storage.dicom.read_case import Choice
from storage.dicom.whole_series import missing_slices
from storage.digest import digest_of, digest_of_files
from storage.lease import Claim
from storage.places.address import parse_address, resolve
from storage.store import Store
from storage.whole_file import whole_file

DONE, SEEN = "inbox_set", "inbox_listing"
TOLD = "inbox.json"
"""File beside a report: which set it is of, and what became of it."""
_MAX_ATTEMPTS = 3
_NOT_THE_SETS_FAULT = (StoreError, ClusterError, MemoryError)


@dataclass(frozen=True)
class _Place:
    """Where a scan reads and writes."""

    store: Store
    output: Path
    computing: Computing


@flow(name="scan inbox", persist_result=False, on_running=[sign])
def scan_inbox(
    inbox: str,
    store: str,
    output: str,
    computing: Computing = Computing(),  # noqa: B008  (it is frozen)
) -> State[Any]:
    """Import and plan every complete new set of an inbox; ends as failed if one of them failed now.

    Parameters
    ----------
    inbox
        A folder with an ``inbox.toml``.
    store
        Address of the result store.
    output
        Folder in which every plan gets a folder of its own.
    computing
        Where to compute.
    """
    log = get_run_logger()
    folder = Path(inbox).resolve()
    place = _Place(Store(resolve(parse_address(store))), Path(output).resolve(), computing)
    outcomes: dict[str, str] = {}
    # What landed while others were planned is looked for at the end.
    while new := [found for found in _settled(folder, place.store) if found.name not in outcomes]:
        for found in new:
            outcomes[found.name] = _handle(place, found)
    counts = Counter(state for state in outcomes.values() if state)
    told = ", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "nothing new"
    log.info("%s: %s", folder, told)
    is_bad = bool(counts.keys() & {"failed", "without protocol", "put off"})
    return Failed(message=told) if is_bad else Completed(message=told)


def _settled(inbox: Path, store: Store) -> list[InboxSet]:
    """Return the sets that may have to be done and do not change any more; waits for as long as that takes to see.

    Two looks are compared, because times of files cannot be trusted: copying tools set them to those of the originals.
    """
    spec = read_inbox(inbox)
    before = [found for found in find_sets(inbox, spec) if not _is_done(store, found)]
    if not before:
        return []
    time.sleep(spec.settle_s)
    after = {found.name: found.listing for found in find_sets(inbox, spec)}
    return [found for found in before if after.get(found.name) == found.listing]


def _is_done(store: Store, found: InboxSet) -> bool:
    """Return whether nothing is to be done for a set, without reading its files."""
    if not store.has_record(SEEN, found.listing):
        return False
    with _damage_is_nothing(store):
        content = str(store.read_record(SEEN, found.listing)["content"])
        return _is_decided(_record(store, _key(content, found)), found)
    return False


def _is_decided(record: dict[str, Any], found: InboxSet) -> bool:
    """Return whether a set was done, or was told to be impossible and neither it nor the protocol has changed."""
    state = record.get("state")
    return state == "planned" or (
        state in ("failed", "without protocol")
        and (record["listing"], record["protocol"]) == (found.listing, _digest_of_protocol(found))
    )


def _key(content: str, found: InboxSet) -> str:
    return digest_of({"content": content, "protocol": found.protocol.name if found.protocol else None})


def _digest_of_protocol(found: InboxSet) -> str | None:
    return digest_of_files([found.protocol]) if found.protocol is not None else None


def _record(store: Store, key: str) -> dict[str, Any]:
    with _damage_is_nothing(store):
        if store.has_record(DONE, key):
            return dict(store.read_record(DONE, key))
    return {}


@contextmanager
def _damage_is_nothing(store: Store) -> Iterator[None]:
    """Put a damaged record away: then nothing is known, and is done again, which finds all results in the store."""
    try:
        yield
    except DamagedObjectError as error:
        store.discard(error.kind, error.digest)


def _handle(place: _Place, found: InboxSet) -> str:
    """Do what is to be done for a set and return what came out; empty if another scan is at it or has done it."""
    log = get_run_logger()
    try:
        content = digest_of_files(found.files)
    except OSError as error:
        log.warning("a set cannot be read (%s); it is put off", error.strerror)
        return "put off"
    key = _key(content, found)
    # Listened for: the scan that had it may have ended with its machine, and nobody else would ever plan the set.
    lease = Claim(place.store.address, f"inbox-{key[:16]}").take_or_listen()
    if lease is None:
        return ""
    with lease:
        place.store.write_record(SEEN, found.listing, {"content": content})
        before = _record(place.store, key)
        if _is_decided(before, found):
            return ""
        case_name = _case_name(found, content)
        out = place.output / case_name
        record: dict[str, Any] = {
            "listing": found.listing,
            "protocol": _digest_of_protocol(found),
            "case": case_name,
            "attempts": before.get("attempts", 0) + 1 if before.get("state") == "begun" else 1,
        }

        def note(state: str, why: str = "") -> str:
            lease.require_held()
            when = datetime.now(UTC).isoformat(timespec="seconds")
            told = {"set": found.name, "state": state, "why": why, "when": when}
            _tell(out / TOLD, told)
            place.store.write_record(DONE, key, {**record, "state": state, "when": when})
            level = logging.INFO if state in ("begun", "planned") else logging.ERROR
            log.log(level, "%s: %s (which set that is, and why: %s)", case_name, state, out / TOLD)
            return state

        if found.protocol is None:
            return note("without protocol", "it fits no rule of inbox.toml; add one, or take the files away")
        if record["attempts"] > _MAX_ATTEMPTS:
            return note(
                "failed",
                f"its process was killed, or met an unknown error, {_MAX_ATTEMPTS} times; plan it by hand to see why",
            )
        note("begun")
        try:
            _import_and_plan(place, found, case_name, out)
        except Exception as error:
            words = in_words(error)
            if words is None:
                # A mistake of the program, or a Prefect server that went away: counts as an attempt, as being killed.
                raise
            if isinstance(error, (*_NOT_THE_SETS_FAULT, OSError)):
                return note("put off", words)
            return note("failed", f"{words} (tried again when its files or its protocol change)")
        except BaseException:
            # Somebody stops the worker, which is no attempt: it may be started anew many times during a long plan.
            note("put off", "its scan was asked to end")
            raise
        return note("planned")


def _case_name(found: InboxSet, content: str) -> str:
    """Return what a set is called in the store, in logs and in Prefect's database: not as its folder.

    Whoever named the folder may have thought of the patient.
    """
    protocol = "no-protocol" if found.protocol is None else found.protocol.stem
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', protocol).strip('-_')[:60] or 'set'}-{content[:8]}"


def _tell(file: Path, told: dict[str, str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as aside:
        aside.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _import_and_plan(place: _Place, found: InboxSet, case_name: str, out: Path) -> None:
    """Import a set, and plan it.

    Raises
    ------
    NightbeamError
        If the set cannot be imported or planned.
    """
    assert found.protocol is not None  # noqa: S101  (for the type checker)
    study = out / "study.toml"
    with log_to(out / "nightbeam.log"), progress_in(out, "plan"):
        write_study(found.protocol, case_name, study)
        with (
            open_run(place.store.address, True, place.computing, out) as run,
            _in_one_folder(found) as folder,
        ):
            _import(run, folder, case_name)
            plan_case(str(study), str(place.store.address), str(out), place.computing, True)


def _import(run: Run, folder: Path, case_name: str) -> None:
    n_missing, n_named = missing_slices(folder)
    if n_missing:
        raise DicomError(
            f"{n_missing} of the {n_named} CT slices that the structure set names are not there: send the rest"
        )
    digest = until_whole(run, lambda: import_dicom(run, folder, Choice(), case_name))
    if not structure_names(run.store, digest):
        raise CaseError("the set holds no structure set: send it, too")
    run.store.write_record(NAME, case_name, {"case": digest})


@contextmanager
def _in_one_folder(found: InboxSet) -> Iterator[Path]:
    """Yield a folder that holds the files of a set and no others; they are linked, not copied."""
    with tempfile.TemporaryDirectory(prefix="nightbeam-inbox-") as folder:
        for number, file in enumerate(found.files):
            link = Path(folder) / file.name
            # The same name in two folders is two files.
            (Path(folder) / f"{number}-{file.name}" if link.is_symlink() else link).symlink_to(file)
        yield Path(folder)
