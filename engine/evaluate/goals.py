"""Clinical goals: a metric, a comparison and a limit in one expression."""

import re
from dataclasses import dataclass
from typing import Literal, cast

from engine.errors import StudyError
from engine.evaluate.dvh import ROUNDING_FRACTION, Dvh
from engine.evaluate.metrics import Metric, Unit, parse_metric
from engine.units import PERCENT

Comparison = Literal["<=", ">=", "<", ">"]

_PARTS = re.compile(r"(?P<metric>[^<>=]*)(?P<comparison><=|>=|<|>)(?P<limit>[^<>=]*)")
_LIMIT = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+))\s*(?P<unit>\S.*)?")


@dataclass(frozen=True, slots=True)
class GoalResult:
    """A goal with what a dose makes of it.

    Parameters
    ----------
    structure, expression, published
        As in `Goal`.
    value, limit
        What the dose gives and what was asked for, both in ``unit``.
    unit
        Gy, % or cc.
    passed
        Whether the goal is met.
    """

    structure: str
    expression: str
    published: str
    value: float
    limit: float
    unit: Unit
    passed: bool


@dataclass(frozen=True, slots=True)
class Goal:
    """What a plan should reach in one structure.

    Parameters
    ----------
    structure
        Name of the structure.
    expression
        The goal as a person wrote it, ``D95% >= 50 Gy``.
    metric, comparison, limit
        The expression in parts; ``limit`` in ``metric.unit``.
    published
        A published value that a report shows beside the result, as free text; may be empty.
    """

    structure: str
    expression: str
    metric: Metric
    comparison: Comparison
    limit: float
    published: str = ""

    @property
    def wants_more(self) -> bool:
        """Whether higher values are better."""
        return self.comparison in (">=", ">")

    def passes(self, value: float) -> bool:
        """Return whether ``value``, in ``metric.unit``, meets the goal but for rounding of stored doses."""
        slack = ROUNDING_FRACTION * abs(self.limit)
        match self.comparison:
            case "<=":
                return value <= self.limit + slack
            case ">=":
                return value >= self.limit - slack
            case "<":
                return value < self.limit
            case ">":
                return value > self.limit

    def judge(self, dvh: Dvh) -> GoalResult:
        """Evaluate the goal on a histogram of its structure.

        Raises
        ------
        CaseError
            If the structure is smaller than the volume that the metric asks for.
        """
        value = self.metric.value(dvh)
        return GoalResult(
            self.structure,
            self.expression,
            self.published,
            value,
            self.limit,
            self.metric.unit,
            self.passes(value),
        )


def parse_goal(structure: str, text: str, published: str = "") -> Goal:
    """Read a goal such as ``D95% >= 50 Gy``, ``V20Gy <= 30 %`` or ``V20Gy[cc] <= 500 cc``.

    Parameters
    ----------
    structure
        Name of the structure; also used in messages.
    text
        Metric (see `engine.evaluate.metrics`), one of ``<= >= < >``, a limit and its unit.
    published
        Free text to be shown beside the result.

    Raises
    ------
    StudyError
        If the text is no goal; the message names the mistake.
    """
    where = f"goal '{text}' of '{structure}'"
    plain = text.replace("≤", "<=").replace("≥", ">=")
    parts = _PARTS.fullmatch(plain.strip())
    if parts is None:
        raise StudyError(
            f"{where} needs exactly one comparison (<=, >=, < or >); write it like 'D95% >= 50 Gy'"
        )
    try:
        metric = parse_metric(parts["metric"].strip())
    except StudyError as error:
        raise StudyError(f"{where}: {error}") from None
    limit = _LIMIT.fullmatch(parts["limit"].strip())
    if limit is None:
        raise StudyError(
            f"{where} has no number on its right ('{parts['limit'].strip()}'); write a limit such as '50 Gy'"
        )
    unit = limit["unit"]
    if unit is None:
        raise StudyError(
            f"{where} has a limit without a unit ({metric} is in {metric.unit}); add '{metric.unit}'"
        )
    if unit != metric.unit:
        raise StudyError(
            f"{where} has a limit in '{unit}' (but {metric} is in {metric.unit}); {_advice(metric, unit)}"
        )
    number = float(limit["number"])
    if number < 0.0:
        raise StudyError(
            f"{where} has a negative limit (doses and volumes are not negative); write a positive one"
        )
    if metric.unit == "%" and number > PERCENT:
        raise StudyError(f"{where} has a limit above 100 % of the structure; write a percentage up to 100")
    return Goal(structure, text.strip(), metric, cast("Comparison", parts["comparison"]), number, published)


def _advice(metric: Metric, unit: str) -> str:
    if unit == "cGy":
        return "divide the number by 100 and write Gy"
    if metric.quantity == "volume_at_dose" and unit in ("cc", "%"):
        return f"write V{metric.argument:g}Gy[{unit}] for a volume in {unit}"
    return f"write the limit in {metric.unit}"
