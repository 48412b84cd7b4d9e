"""How a structure is made from others: the recipes of a study's ``[[structures]]``."""

from abc import ABC, abstractmethod
from functools import reduce
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.model.arrays import F32
from engine.model.case import Case
from engine.model.grid import Grid
from engine.structures.booleans import difference, overlap, union
from engine.structures.margins import Margins, grow, shrink

_LARGEST_MM = 200.0
SYSTEMATIC, RANDOM = 2.5, 0.7
"""Factors of van Herk et al., Int J Radiat Oncol Biol Phys 47 (2000) 1121."""

MadeKind = Literal["TARGET", "ORGAN", "OTHER"]
PerAxis = float | tuple[float, float, float]


class _Recipe(BaseModel, ABC):
    """What all recipes have; those with ``needs_body`` take the body outline, whatever its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=64, description="name of the structure that is made")
    kind: MadeKind = Field("OTHER", description="what it counts as in reports and files")

    needs_body: ClassVar[bool] = False

    def inputs(self) -> list[tuple[str, str]]:
        """Return key and name of every structure that is needed."""
        return self._inputs()

    def text(self) -> str:
        """Return the recipe for people."""
        return self._text()

    def coverage(self, case: Case) -> F32:
        """Return the coverage of what is made, on the grid of the case, which has all that is needed."""
        return self._coverage(case)

    @abstractmethod
    def _inputs(self) -> list[tuple[str, str]]: ...

    @abstractmethod
    def _text(self) -> str: ...

    @abstractmethod
    def _coverage(self, case: Case) -> F32: ...


class _OfOne(_Recipe):
    structure: str = Field(description="structure that it is made from")

    def _inputs(self) -> list[tuple[str, str]]:
        return [("structure", self.structure)]


class Margin(_OfOne):
    """A structure grown (or, with negative margins, shrunk) by its own distance in each direction of the patient."""

    make: Literal["margin"]
    margin_mm: float | None = Field(
        None, ge=-_LARGEST_MM, le=_LARGEST_MM, description="in all directions that have no key of their own"
    )
    left_mm: float | None = Field(None, ge=-_LARGEST_MM, le=_LARGEST_MM, description="to the patient's left")
    right_mm: float | None = Field(None, ge=-_LARGEST_MM, le=_LARGEST_MM)
    anterior_mm: float | None = Field(None, ge=-_LARGEST_MM, le=_LARGEST_MM)
    posterior_mm: float | None = Field(None, ge=-_LARGEST_MM, le=_LARGEST_MM)
    superior_mm: float | None = Field(None, ge=-_LARGEST_MM, le=_LARGEST_MM, description="to the head")
    inferior_mm: float | None = Field(None, ge=-_LARGEST_MM, le=_LARGEST_MM)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        values = self._values()
        if None in values:
            raise ValueError(
                "give margin_mm for all directions, or left_mm, right_mm, anterior_mm, posterior_mm, superior_mm "
                "and inferior_mm"
            )
        if min(values) < 0.0 < max(values):
            raise ValueError(
                "margins grow to one side and shrink at another; make two structures, one after the other"
            )
        if not any(values):
            raise ValueError("all margins are 0; use the structure itself")
        return self

    def _values(self) -> tuple[float, ...]:
        own = (
            self.left_mm, self.right_mm, self.anterior_mm, self.posterior_mm, self.superior_mm, self.inferior_mm,
        )  # fmt: skip
        return tuple(self.margin_mm if value is None else value for value in own)  # type: ignore[misc]

    def _text(self) -> str:
        values = self._values()
        if len(set(values)) == 1:
            return f"{self.structure} with a margin of {values[0]:g} mm"
        names = ("left", "right", "anterior", "posterior", "superior", "inferior")
        sides = ", ".join(f"{name} {value:g}" for name, value in zip(names, values, strict=True))
        return f"{self.structure} with margins in mm: {sides}"

    def _coverage(self, case: Case) -> F32:
        values, given = self._values(), case.structure(self.structure).coverage
        if max(values) > 0.0:
            return grow(given, case.grid, Margins(*values))
        return shrink(given, case.grid, Margins(*(-value for value in values)))


class PtvRecipe(_OfOne):
    """A target with the margin 2.5 Σ + 0.7 σ along each axis (van Herk et al. 2000)."""

    make: Literal["ptv_recipe"]
    kind: MadeKind = "TARGET"
    systematic_mm: PerAxis = Field(
        description="Σ, standard deviation of systematic errors: left-right, front-back, head-feet"
    )
    random_mm: PerAxis = Field(description="σ, standard deviation of random errors, in the same order")

    @field_validator("systematic_mm", "random_mm")
    @classmethod
    def _possible(cls, value: PerAxis) -> PerAxis:
        values = value if isinstance(value, tuple) else (value,)
        if min(values) < 0.0 or max(values) > 50.0:
            raise ValueError("a standard deviation lies between 0 and 50 mm")
        return value

    @model_validator(mode="after")
    def _not_nothing(self) -> Self:
        if not any(self.margins_mm()):
            raise ValueError("all standard deviations are 0, which makes no margin; use the target itself")
        return self

    def margins_mm(self) -> tuple[float, ...]:
        """Return the margin along x, y, z."""
        systematic, random = (
            value if isinstance(value, tuple) else (value,) * 3
            for value in (self.systematic_mm, self.random_mm)
        )
        return tuple(SYSTEMATIC * s + RANDOM * r for s, r in zip(systematic, random, strict=True))

    def _text(self) -> str:
        x, y, z = self.margins_mm()
        return (
            f"{self.structure} with margins of {SYSTEMATIC:g} Σ + {RANDOM:g} σ, Σ {_told(self.systematic_mm)} mm, "
            f"σ {_told(self.random_mm)} mm: {x:.3g} mm left and right, {y:.3g} mm front and back, "
            f"{z:.3g} mm head and feet"
        )

    def _coverage(self, case: Case) -> F32:
        x, y, z = self.margins_mm()
        return grow(case.structure(self.structure).coverage, case.grid, Margins(x, x, y, y, z, z))


class Ring(_OfOne):
    """What lies between two distances from a structure's surface; negative distances lie inside."""

    make: Literal["ring"]
    from_mm: float = Field(
        ge=-_LARGEST_MM, le=_LARGEST_MM, description="nearer surface, 0 for the structure's own"
    )
    to_mm: float = Field(ge=-_LARGEST_MM, le=_LARGEST_MM, description="farther surface, more than from_mm")

    @model_validator(mode="after")
    def _has_width(self) -> Self:
        if self.to_mm <= self.from_mm:
            raise ValueError(f"to_mm = {self.to_mm:g} must be more than from_mm = {self.from_mm:g}")
        return self

    def _text(self) -> str:
        return f"what lies {self.from_mm:g} to {self.to_mm:g} mm from the surface of {self.structure}"

    def _coverage(self, case: Case) -> F32:
        given = case.structure(self.structure).coverage
        outer, inner = (_offset(given, case.grid, distance) for distance in (self.to_mm, self.from_mm))
        result: F32 = (outer - inner).clip(0.0, 1.0)
        return result


class Crop(_OfOne):
    """The part of a structure that lies deeper than some distance under the skin."""

    make: Literal["crop"]
    needs_body: ClassVar[bool] = True
    depth_mm: float = Field(ge=0.0, le=_LARGEST_MM, description="how far it stays below the body outline")

    def _text(self) -> str:
        return f"{self.structure} without what lies less than {self.depth_mm:g} mm under the body outline"

    def _coverage(self, case: Case) -> F32:
        core = _offset(case.external.coverage, case.grid, -self.depth_mm)
        return overlap(case.structure(self.structure).coverage, core, case.grid)


class _OfSeveral(_Recipe):
    of: tuple[str, ...] = Field(min_length=2, description="structures, in order")

    @field_validator("of")
    @classmethod
    def _different(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("a structure is named twice; leave one out")
        return names

    def _inputs(self) -> list[tuple[str, str]]:
        return [("of", name) for name in self.of]

    def _coverages(self, case: Case) -> list[F32]:
        return [case.structure(name).coverage for name in self.of]


class Union(_OfSeveral):
    """What lies in any of some structures."""

    make: Literal["union"]

    def _text(self) -> str:
        return " or ".join(self.of)

    def _coverage(self, case: Case) -> F32:
        return reduce(lambda a, b: union(a, b, case.grid), self._coverages(case))


class Intersection(_OfSeveral):
    """What lies in all of some structures."""

    make: Literal["intersection"]

    def _text(self) -> str:
        return " and ".join(self.of)

    def _coverage(self, case: Case) -> F32:
        return reduce(lambda a, b: overlap(a, b, case.grid), self._coverages(case))


class Difference(_OfSeveral):
    """What lies in the first structure and in none of the others."""

    make: Literal["difference"]

    def _text(self) -> str:
        return f"{self.of[0]} without {', '.join(self.of[1:])}"

    def _coverage(self, case: Case) -> F32:
        return reduce(lambda a, b: difference(a, b, case.grid), self._coverages(case))


class Rest(_Recipe):
    """The remaining volume at risk: the body without some structures (ICRU Report 83)."""

    make: Literal["rest"]
    needs_body: ClassVar[bool] = True
    without: tuple[str, ...] = Field(
        min_length=1, description="targets and organs that have a name of their own"
    )

    def _inputs(self) -> list[tuple[str, str]]:
        return [("without", name) for name in self.without]

    def _text(self) -> str:
        return f"the body without {', '.join(self.without)} (remaining volume at risk)"

    def _coverage(self, case: Case) -> F32:
        others = [case.structure(name).coverage for name in self.without]
        return reduce(lambda a, b: difference(a, b, case.grid), others, case.external.coverage)


Recipe = Annotated[
    Margin | PtvRecipe | Ring | Crop | Union | Intersection | Difference | Rest, Field(discriminator="make")
]
"""Any recipe, chosen by ``make``."""


def _offset(coverage: F32, grid: Grid, distance_mm: float) -> F32:
    """Return a structure whose surface was moved outwards, or inwards by a negative distance."""
    if distance_mm > 0.0:
        return grow(coverage, grid, Margins.all_round(distance_mm))
    return shrink(coverage, grid, Margins.all_round(-distance_mm))


def _told(per_axis: PerAxis) -> str:
    values = per_axis if isinstance(per_axis, tuple) else (per_axis,)
    return ", ".join(f"{value:g}" for value in values)
