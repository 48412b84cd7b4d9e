"""Find what a person asked for by name: a series or a structure set."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from engine.errors import DicomError
from storage.dicom.scan import Header

T = TypeVar("T")


def by_series(headers: Sequence[Header]) -> dict[str, list[Header]]:
    """Return headers by Series Instance UID."""
    found: dict[str, list[Header]] = {}
    for header in headers:
        found.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    return found


def list_series(series: Mapping[str, Sequence[Header]]) -> str:
    """Return the series as text, one a line, to choose from: number, description, size, UID."""
    return "\n".join(
        f"  {found[0].text('Modality')} {found[0].text('SeriesNumber') or '-'} "
        f"'{found[0].text('SeriesDescription')}', {_size(found)}, {uid}"
        for uid, found in sorted(
            series.items(),
            key=lambda item: (
                item[1][0].text("SeriesNumber").zfill(12),
                item[1][0].text("SeriesDescription"),
                item[0],
            ),
        )
    )


def choose_series(
    series: Mapping[str, Sequence[Header]], wanted: str | None, kind: str, option: str
) -> Sequence[Header]:
    """Return the headers of the wanted series, or of the only one.

    Parameters
    ----------
    series
        Headers by Series Instance UID; at least one.
    wanted
        Series Instance UID, series number, or a part of the description (upper and lower case are the same).
    kind
        What is chosen, for messages.
    option
        How to choose, for messages.

    Raises
    ------
    DicomError
        If no series fits, or more than one; the message lists what there is.
    """
    if wanted is None:
        fitting = list(series)
        problem = f"the folder holds {len(series)} {kind} series"
    else:
        fitting = _fitting(
            list(series),
            wanted,
            (
                lambda uid: uid,
                lambda uid: series[uid][0].text("SeriesNumber"),
                lambda uid: series[uid][0].text("SeriesDescription"),
            ),
        )
        problem = f"'{wanted}' fits {len(fitting) or 'no'} {kind} series"
    if len(fitting) != 1:
        raise DicomError(
            f"{problem}: choose one with {option} TEXT (UID, number, or a part of the description that no other has) "
            f"among\n{list_series(series)}"
        )
    return series[fitting[0]]


def choose_structure_set(headers: Sequence[Header], wanted: str) -> Header:
    """Return the structure set with this SOP Instance UID or label (or a part of it).

    Raises
    ------
    DicomError
        If none fits, or more than one; the message lists what there is.
    """
    fitting = _fitting(
        list(headers),
        wanted,
        (lambda header: header.text("SOPInstanceUID"), None, lambda header: header.text("StructureSetLabel")),
    )
    if len(fitting) != 1:
        raise DicomError(
            f"'{wanted}' fits {len(fitting) or 'no'} structure set: choose one with --structure-set TEXT (UID, "
            f"or a part of the label that no other has) among\n{list_structure_sets(headers) or '  none'}"
        )
    return fitting[0]


def list_structure_sets(headers: Sequence[Header]) -> str:
    """Return structure sets as text, one a line, to choose from."""
    return "\n".join(
        f"  '{header.text('StructureSetLabel')}', "
        f"{_count(len(header.value('StructureSetROISequence') or []), 'structure')}, {header.text('SOPInstanceUID')}"
        for header in headers
    )


def _fitting(
    candidates: Sequence[T],
    wanted: str,
    exact_then_part: tuple[Callable[[T], str], Callable[[T], str] | None, Callable[[T], str]],
) -> list[T]:
    """Return the candidates whose identifier, else number, else text, else a part of the text, is the wanted one."""
    wanted = wanted.strip()
    *exact, text = exact_then_part
    for of in exact:
        found = [c for c in candidates if of is not None and of(c) == wanted]
        if found:
            return found
    same = [c for c in candidates if text(c).casefold() == wanted.casefold()]
    return same or [c for c in candidates if wanted and wanted.casefold() in text(c).casefold()]


def _size(headers: Sequence[Header]) -> str:
    return _count(sum(int(header.text("NumberOfFrames") or 1) for header in headers), "slice")


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
