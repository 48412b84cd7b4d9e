"""One night: when it began, when it ends, and why no further case is started in it."""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from flows.batch.spec import NightSpec
from flows.batch.usage import Usage
from storage.whole_file import whole_file

NAME = "night.json"
_SAME_NIGHT_S = 6 * 3600.0
"""A batch that was killed and starts again within this time goes on with the night that it was in."""
_HOUR_S = 3600.0


@dataclass(frozen=True)
class Night:
    """A night.

    Parameters
    ----------
    begun
        When.
    stop_starting
        After which time no case is started; None if there is no such time.
    seen
        When the batch last worked in it.
    ended
        When the batch came to its end; None before. All in s since 1970.
    """

    begun: float
    stop_starting: float | None
    seen: float
    ended: float | None = None

    def used_up(self, budget: NightSpec, used: Usage, now: float) -> str:
        """Return why no case is started any more; empty if there is no reason."""
        if self.stop_starting is not None and now >= self.stop_starting:
            return f"no case is started after {_clock(self.stop_starting)}"
        if budget.node_hours is not None and used.node_hours >= budget.node_hours:
            return f"the night's {budget.node_hours:g} node hours are used up"
        if budget.core_hours is not None and used.core_hours >= budget.core_hours:
            return f"the night's {budget.core_hours:g} core hours are used up"
        return ""


def begin_night(folder: Path, budget: NightSpec, now: float) -> Night:
    """Return the night that a killed batch was in, or a new one.

    A batch whose job was queued again goes on with its night, and with what is left of its budget, however late. Its
    limit is that of the budget as it is now: somebody may have stopped the batch to change it.
    """
    before = _read(folder)
    queued_again = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
    begun = now
    if before is not None and before.ended is None and (queued_again or now - before.seen < _SAME_NIGHT_S):
        begun = before.begun
    return Night(begun, _limit(budget, begun), now)


def keep_night(folder: Path, night: Night) -> None:
    """Write the night down, for whoever goes on after a kill."""
    with whole_file(folder / NAME) as aside:
        aside.write_text(json.dumps(asdict(night)) + "\n", encoding="utf-8")


def _read(folder: Path) -> Night | None:
    try:
        return Night(**json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _limit(budget: NightSpec, begun: float) -> float | None:
    limits = []
    if budget.stop_starting_at is not None:
        limits.append(_next_time(budget.stop_starting_at, begun))
    if budget.hours is not None:
        limits.append(begun + budget.hours * _HOUR_S)
    return min(limits, default=None)


def _next_time(clock: str, now: float) -> float:
    """Return when it is next this time of day here; a night with a change of clocks is an hour longer or shorter."""
    hour, minute = map(int, clock.split(":"))
    today = datetime.fromtimestamp(now)
    at = today.replace(hour=hour, minute=minute, second=0, microsecond=0)
    while at.timestamp() <= now:
        at += timedelta(days=1)
    return at.timestamp()


def _clock(time_s: float) -> str:
    return datetime.fromtimestamp(time_s).strftime("%H:%M")
