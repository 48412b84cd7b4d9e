"""Templates of a study: a few keys that stand for structures and objectives which most plans need.

A template is a short way to write ordinary ``[[structures]]`` and ``[[objectives]]``, or to change those of the study.
It is expanded when the study is read; `nightbeam check` and the report list what came out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_validator

from engine.errors import OptimisationError, TemplateError
from engine.optimise.functions import one_sided
from engine.spec.base import Spec
from engine.structures.recipes import Crop, Recipe, Rest, Ring
from engine.units import PERCENT

if TYPE_CHECKING:
    from engine.spec.study import ObjectiveSpec

LONGEST_NAME = 64


@dataclass(frozen=True)
class Aim:
    """What templates know of their study.

    Parameters
    ----------
    targets
        The prescription's target and those that beamlets cover beside it.
    dose_gy
        Prescribed dose.
    """

    targets: tuple[str, ...]
    dose_gy: float


class _Template(Spec):
    """What a template can do; most do a part of it."""

    def text(self, aim: Aim) -> str:
        """Return what it does, for people."""
        raise NotImplementedError

    def inputs(self, aim: Aim) -> list[tuple[str, str]]:
        """Return key and name of every structure that it names."""
        raise NotImplementedError

    def recipes(self, aim: Aim, rings: Sequence[str]) -> list[Recipe]:
        """Return the structures that it makes; ``rings`` are the names of those that all templates make."""
        del aim, rings
        return []

    def objectives(self, aim: Aim) -> list[dict[str, Any]]:
        """Return the objectives that it adds, as the keys that a study would have."""
        del aim
        return []

    def changed(self, objectives: Sequence["ObjectiveSpec"]) -> list["ObjectiveSpec"]:
        """Return the study's objectives as it leaves them.

        Raises
        ------
        TemplateError
            If there is none that it is for.
        """
        return list(objectives)


class _Objectives(_Template):
    """Keys of templates that add objectives."""

    weight: float = Field(gt=0.0, description="of every objective that is made")
    robust: bool = Field(True, description="false: judged in the nominal scenario alone")
    criterion: str | None = Field(None, description="criterion of the Pareto front they belong to")

    def _objective(self, structure: str, **keys: Any) -> dict[str, Any]:
        """Return an objective's keys as a study would have them."""
        own = {"weight": self.weight, "robust": self.robust, "criterion": self.criterion}
        return {"structure": structure, **keys, **own}


class Rings(_Objectives):
    """Rings around a target, each with a dose fall-off as its objective: dose that hugs the target.

    An objective is a mean over its structure. Of a whole body, the few cm³ beside the target would hardly count in it.
    """

    add: Literal["rings"]
    target: str | None = Field(None, description="what they lie around; prescription.target if absent")
    edges_mm: tuple[float, ...] = Field(
        (0.0, 5.0, 10.0, 20.0, 40.0),
        min_length=2,
        max_length=20,
        description="distances from the target's surface where one ring ends and the next begins",
    )
    near_gy: float | None = Field(
        None, gt=0.0, description="highest dose at the target's surface; prescription.dose_gy if absent"
    )
    far_percent: float = Field(
        30.0, ge=0.0, le=100.0, description="highest dose far from the target, as a share of near_gy"
    )
    half_mm: float = Field(
        10.0, gt=0.1, le=200.0, description="distance in which the limit falls halfway to that far away"
    )

    @field_validator("edges_mm")
    @classmethod
    def _outwards(cls, edges_mm: tuple[float, ...]) -> tuple[float, ...]:
        if edges_mm[0] < 0.0 or any(b <= a for a, b in pairwise(edges_mm)) or edges_mm[-1] > 200.0:
            raise ValueError("distances grow from ring to ring, from 0 mm or more to 200 mm at most")
        return edges_mm

    def around(self, aim: Aim) -> str:
        """Return the target."""
        return self.target or aim.targets[0]

    def names(self, aim: Aim) -> tuple[str, ...]:
        """Return the rings' names."""
        return tuple(f"z{self.around(aim)}_ring_{a:g}-{b:g}mm" for a, b in pairwise(self.edges_mm))

    def inputs(self, aim: Aim) -> list[tuple[str, str]]:
        """Return key and name of every structure that is needed."""
        return [("target", self.around(aim))]

    def recipes(self, aim: Aim, rings: Sequence[str]) -> list[Recipe]:
        """Return the structures that are made."""
        del rings
        return [
            Ring(make="ring", name=name, structure=self.around(aim), from_mm=a, to_mm=b)
            for name, (a, b) in zip(self.names(aim), pairwise(self.edges_mm), strict=True)
        ]

    def objectives(self, aim: Aim) -> list[dict[str, Any]]:
        """Return the keys of the objectives that are made."""
        near_gy = self.near_gy or aim.dose_gy
        return [
            self._objective(
                name,
                excluding=tuple(other for other in aim.targets if other != self.around(aim)),
                function="dose_fall_off",
                from_structure=self.around(aim),
                near_gy=near_gy,
                far_gy=near_gy * self.far_percent / PERCENT,
                fall_off_per_mm=float(np.log(2.0)) / self.half_mm,
            )
            for name in self.names(aim)
        ]

    def text(self, aim: Aim) -> str:
        """Return what it does, for people."""
        return f"rings around {self.around(aim)}, each with a dose that falls with the distance"


class RemainingVolume(_Objectives):
    """The remaining volume at risk (ICRU Report 83), and a dose that should not be exceeded in it."""

    add: Literal["remaining_volume"]
    name: str = Field("zRVR", min_length=1, max_length=LONGEST_NAME, description="of the structure")
    without: tuple[str, ...] = Field(
        (),
        description="organs that have objectives of their own; targets and the rings of templates are left out anyway",
    )
    dose_percent: float = Field(
        30.0, ge=0.0, le=100.0, description="highest dose, as a share of prescription.dose_gy"
    )

    def inputs(self, aim: Aim) -> list[tuple[str, str]]:
        """Return key and name of every structure that is needed."""
        del aim
        return [("without", name) for name in self.without]

    def recipes(self, aim: Aim, rings: Sequence[str]) -> list[Recipe]:
        """Return the structure that is made."""
        without = tuple(dict.fromkeys((*aim.targets, *self.without, *rings)))
        return [Rest(make="rest", name=self.name, without=without)]

    def objectives(self, aim: Aim) -> list[dict[str, Any]]:
        """Return the keys of the objective that is made."""
        dose_gy = aim.dose_gy * self.dose_percent / PERCENT
        return [self._objective(self.name, function="squared_overdose", dose_gy=dose_gy)]

    def text(self, aim: Aim) -> str:
        """Return what it does, for people."""
        del aim
        return "the remaining volume at risk, with a highest dose"


class OverlapPriority(_Template):
    """Where structures overlap, the first in the order counts: objectives of the others leave the overlap out.

    Goals, DVHs and the normalisation still look at whole structures.
    """

    add: Literal["overlap_priority"]
    order: tuple[str, ...] = Field(
        min_length=2, description="structures with objectives, the most important first"
    )

    @field_validator("order")
    @classmethod
    def _different(cls, order: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(order)) != len(order):
            raise ValueError("a structure is named twice; leave one out")
        return order

    def inputs(self, aim: Aim) -> list[tuple[str, str]]:
        """Return key and name of every structure that is needed."""
        del aim
        return [("order", name) for name in self.order]

    def changed(self, objectives: Sequence["ObjectiveSpec"]) -> list["ObjectiveSpec"]:
        """Return the study's objectives without the overlaps.

        Raises
        ------
        TemplateError
            If a structure that should give way has no objective.
        """
        for name in self.order[1:]:
            if all(objective.structure != name for objective in objectives):
                raise TemplateError("order", f"'{name}' has no objective that could give way; leave it out")
        result = []
        for objective in objectives:
            if objective.structure in self.order:
                before = self.order[: self.order.index(objective.structure)]
                excluding = tuple(dict.fromkeys((*objective.excluding, *before)))
                objective = objective.model_copy(update={"excluding": excluding})
            result.append(objective)
        return result

    def text(self, aim: Aim) -> str:
        """Return what it does, for people."""
        del aim
        return f"where they overlap, the first of these counts: {', '.join(self.order)}"


class CropFromSkin(_Template):
    """A target without what lies near the skin, which is what is prescribed to and asked for dose.

    Photons build their dose up over the first millimetres. An optimiser that is asked for dose there loads the
    beamlets that graze the skin with fluence. What punishes too much dose still looks at the whole target, and
    beamlets still cover it.
    """

    add: Literal["crop_from_skin"]
    target: str = Field(description="the target that reaches the skin")
    depth_mm: float = Field(
        5.0, gt=0.0, le=50.0, description="how far the cropped target stays below the skin"
    )
    name: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_NAME,
        description="of the cropped target; TARGET_Eval if absent",
    )

    def made_name(self) -> str:
        """Return the name of the cropped target."""
        return self.name or f"{self.target}_Eval"

    def inputs(self, aim: Aim) -> list[tuple[str, str]]:
        """Return key and name of every structure that is needed."""
        del aim
        return [("target", self.target)]

    def recipes(self, aim: Aim, rings: Sequence[str]) -> list[Recipe]:
        """Return the cropped target."""
        del aim, rings
        return [
            Crop(
                make="crop",
                name=self.made_name(),
                kind="TARGET",
                structure=self.target,
                depth_mm=self.depth_mm,
            )
        ]

    def changed(self, objectives: Sequence["ObjectiveSpec"]) -> list["ObjectiveSpec"]:
        """Return the study's objectives, with those that ask the target for dose on the cropped one.

        Raises
        ------
        TemplateError
            If none does.
        """
        result: list[ObjectiveSpec] = []
        for objective in objectives:
            if objective.structure != self.target or objective.function.side == "over":
                result.append(objective)
                continue
            try:
                parts = one_sided(objective.function)
            except OptimisationError:  # such as homogeneity
                parts = (objective.function,)
            for part in parts:
                structure = self.target if part.side == "over" else self.made_name()
                result.append(objective.model_copy(update={"structure": structure, "function": part}))
        if all(objective.structure != self.made_name() for objective in result):
            raise TemplateError(
                "target", f"no objective asks '{self.target}' for dose; leave the template out"
            )
        return result

    def text(self, aim: Aim) -> str:
        """Return what it does, for people."""
        del aim
        return (
            f"{self.target} is asked for dose {self.depth_mm:g} mm below the skin and deeper alone, as "
            f"{self.made_name()}"
        )


Template = Annotated[Rings | RemainingVolume | OverlapPriority | CropFromSkin, Field(discriminator="add")]
"""Any template, chosen by ``add``."""
