"""How many goals a finished job meets, and which one it misses most, from the numbers beside its report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.report.write import fixed


@dataclass(frozen=True)
class GoalsMet:
    """Goals of a plan, or of the front's plan that meets most.

    Parameters
    ----------
    n_met, n_goal
        How many of how many, by the nominal dose.
    worst
        The goal that is missed most, or met most narrowly, with what the plan has.
    n_always, n_scenario
        How many are met in all evaluated scenarios, and how many scenarios those are; 0 of 0 if there was only one.
    plan
        Name of the front's plan; empty for a plan.
    exceeded
        The hard limits that the plan exceeds, with what it has; empty if none.
    """

    n_met: int
    n_goal: int
    worst: str = ""
    n_always: int = 0
    n_scenario: int = 0
    plan: str = ""
    exceeded: str = ""


def read_goals(numbers: Path) -> GoalsMet | None:
    """Return the goals of the report whose numbers these are; None if it cannot be read."""
    try:
        summary = json.loads(numbers.read_text(encoding="utf-8"))
        if summary.get("kind") == "front":
            kept = [plan for plan in summary["plans"] if not plan["dominated"]]
            best = max(kept, key=lambda plan: (_n_met(plan["goals"]), _margin(_worst(plan["goals"]))))
            return _met(best["goals"], best["name"])
        rows = (summary.get("robustness") or {}).get("rows", ())
        return _met(summary["goals"], "", rows, (summary.get("limits") or {}).get("rows", ()))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _met(goals: list[dict[str, Any]], plan: str, rows: Any = (), limits: Any = ()) -> GoalsMet:
    worst = _worst(goals)
    text = ""
    if worst is not None:
        text = f"{worst['structure']} {worst['expression']}: {fixed(worst['value'])} {worst['unit']}"
    return GoalsMet(
        _n_met(goals),
        len(goals),
        text,
        sum(bool(row["worst_passed"]) for row in rows),
        rows[0]["n_scenario"] if rows else 0,
        plan,
        "; ".join(_limit_in_words(row) for row in limits if not row["met"]),
    )


def _limit_in_words(row: dict[str, Any]) -> str:
    limit = (
        f"{row['structure']}: {row['function']} {row['sense']} {fixed(row['limit'])} {row['unit']}".strip()
    )
    return f"{limit} (has {fixed(row['value'])})"


def _n_met(goals: list[dict[str, Any]]) -> int:
    return sum(bool(goal["passed"]) for goal in goals)


def _worst(goals: list[dict[str, Any]]) -> dict[str, Any] | None:
    return min(goals, key=lambda goal: (bool(goal["passed"]), _margin(goal)), default=None)


def _margin(goal: dict[str, Any] | None) -> float:
    """Return how far beyond its limit a goal is met, relative to the limit; negative if it is missed."""
    if goal is None:
        return 0.0
    margin = (goal["value"] - goal["limit"]) / (abs(goal["limit"]) or 1.0)
    return float(margin if ">" in goal["expression"] or "≥" in goal["expression"] else -margin)
