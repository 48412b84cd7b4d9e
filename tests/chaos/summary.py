"""What a series of runs under chaos has shown, as a small table."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from tests.chaos.trial import Outcome
from tests.faults.summary import failure_rate_limit


def summarise(outcomes: Sequence[Outcome], seed: int, wall_s: float) -> str:
    """Return events by kind and stage, losses, differences, and the limit of the failure rate, as Markdown."""
    events = [event for outcome in outcomes for event in outcome.events]
    stages = sorted({event.stage for event in events})
    count = Counter((event.kind, event.stage) for event in events)
    n_lost = sum(bool(outcome.lost) for outcome in outcomes)
    n_different = sum(bool(outcome.different) for outcome in outcomes)
    n_bad = n_lost + n_different
    walls_s = [outcome.wall_s for outcome in outcomes]
    return "\n".join(
        [
            f"{len(events)} events in {len(outcomes)} runs, seed {seed}, {wall_s:.0f} s; "
            f"a run took {median(walls_s):.0f} s (median), {max(walls_s):.0f} s at most",
            "",
            "| event | " + " | ".join(stages) + " | all |",
            "|---" * (len(stages) + 2) + "|",
            *(
                f"| {kind} | "
                + " | ".join(str(count[kind, stage]) for stage in stages)
                + f" | {sum(count[kind, stage] for stage in stages)} |"
                for kind in sorted({event.kind for event in events})
            ),
            "",
            f"lost {n_lost}, different {n_different}; one-sided 95 % confidence limits: at most "
            f"{100.0 * failure_rate_limit(n_bad, len(outcomes)):.1f} % of runs and "
            f"{100.0 * failure_rate_limit(n_bad, len(events)):.2f} % of events do harm",
        ]
    )
