"""What a job has used: node hours and core hours, from the worker jobs that a cluster counted or the processes here."""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.batch.record import Attempt

NAME = "usage.jsonl"
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Usage:
    """Hours of nodes, in which at least one of a case's worker jobs held a part of them, and of cores."""

    node_hours: float = 0.0
    core_hours: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.node_hours + other.node_hours, self.core_hours + other.core_hours)


def usage_of(folder: Path, attempts: Iterable[Attempt], since: float, now: float) -> Usage:
    """Return what one job has used since a time.

    Where a cluster counted its worker jobs (``usage.jsonl``), those count: their cores, busy or not. On this machine a
    job has its share of one node while it runs, and the CPU time of its processes.

    Parameters
    ----------
    folder
        The job's folder.
    attempts
        All attempts at it.
    since, now
        What began earlier does not count; what still runs counts until now. In s since 1970.
    """
    counted = [line for line in _lines(folder / NAME) if line["begin"] >= since]
    used = Usage(
        sum(map(_union_s, _by_host(counted).values())) / _HOUR_S,
        sum(line["cores"] * (line["end"] - line["begin"]) for line in counted) / _HOUR_S,
    )
    for attempt in attempts:
        if attempt.begun >= since:
            wall_s = (now if attempt.ended is None else attempt.ended) - attempt.begun
            here = attempt.machine_share > 0.0
            used += Usage(wall_s * attempt.machine_share / _HOUR_S, attempt.cpu_s * here / _HOUR_S)
    return used


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the readable lines: the last one may be half written."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    lines = []
    for text in texts:
        try:
            line = json.loads(text)
            lines.append(
                {
                    "host": str(line["host"]),
                    **{key: float(line[key]) for key in ("cores", "begin", "end")},
                }
            )
        except (ValueError, TypeError, KeyError):
            continue
    return lines


def _by_host(lines: Iterable[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    spans = defaultdict(list)
    for line in lines:
        spans[line["host"]].append((line["begin"], line["end"]))
    return spans


def _union_s(spans: list[tuple[float, float]]) -> float:
    """Return the length of time that at least one span covers."""
    total_s, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total_s += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total_s
