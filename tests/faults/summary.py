"""What a series of kills has shown, as a small table."""

from collections import Counter
from collections.abc import Sequence

from scipy.stats import beta

from tests.faults.trial import Outcome

_CONFIDENCE = 0.95


def failure_rate_limit(n_failure: int, n_kill: int) -> float:
    """Return the one-sided upper 95 % confidence limit of the failures per kill (Clopper and Pearson, 1934)."""
    if n_failure >= n_kill:
        return 1.0
    return float(beta.ppf(_CONFIDENCE, n_failure + 1, n_kill - n_failure))


def summarise(outcomes: Sequence[Outcome], seed: int, wall_s: float) -> str:
    """Return kills by victim and stage, losses, differences, and the limit of the failure rate, as Markdown."""
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    stages = sorted({kill.stage for kill in kills})
    victims = sorted({kill.victim for kill in kills})
    count = Counter((kill.victim, kill.stage) for kill in kills)
    by_worker = Counter(kill.n_worker for kill in kills)
    n_lost = sum(bool(outcome.lost) for outcome in outcomes)
    n_different = sum(bool(outcome.different) for outcome in outcomes)
    limit = failure_rate_limit(n_lost + n_different, len(kills))
    rows = [
        f"| {victim} | " + " | ".join(str(count[victim, stage]) for stage in stages) + " |"
        for victim in victims
    ]
    return "\n".join(
        [
            f"{len(kills)} kills in {len(outcomes)} trials, seed {seed}, {wall_s:.0f} s",
            "",
            "| victim | " + " | ".join(stages) + " |",
            "|---" * (len(stages) + 1) + "|",
            *rows,
            "",
            "by number of workers: " + ", ".join(f"{n}: {by_worker[n]}" for n in sorted(by_worker)),
            "",
            f"lost {n_lost}, different {n_different}; "
            f"at most {100.0 * limit:.2f} % of kills do harm (one-sided 95 % confidence limit)",
        ]
    )
