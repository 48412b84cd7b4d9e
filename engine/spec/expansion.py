"""What the templates of a study come to: structures, and the objectives with those that were added and changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from engine.errors import TemplateError
from engine.spec.templates import (
    Aim,
    CropFromSkin,
    OverlapPriority,
    RemainingVolume,
    Rings,
    Template,
)
from engine.structures.recipes import Recipe

if TYPE_CHECKING:
    from engine.spec.study import ObjectiveSpec

_ORDER = (Rings, RemainingVolume, OverlapPriority, CropFromSkin)
"""What is made comes before what leaves it out, and what is added before what is changed."""


@dataclass(frozen=True)
class Expanded:
    """A template and what it came to.

    Parameters
    ----------
    text
        What it does.
    inputs
        Key and name of every structure that it names, such as ``("templates[0].target", "PTV")``.
    structures
        The structures that it made, each as name and recipe.
    objectives
        The objectives that it added or changed, with their weights.
    """

    text: str
    inputs: tuple[tuple[str, str], ...]
    structures: tuple[tuple[str, str], ...]
    objectives: tuple[str, ...]


@dataclass(frozen=True)
class Expansion:
    """What all templates came to.

    Parameters
    ----------
    structures
        Recipes of the structures that were made, in an order in which they can be made.
    objectives
        All objectives of the study.
    target
        What is prescribed to: the study's target, or what a template cropped from it.
    templates
        Each template, in the order of the study.
    """

    structures: tuple[Recipe, ...]
    objectives: tuple["ObjectiveSpec", ...]
    target: str
    templates: tuple[Expanded, ...]


def expand(
    templates: Sequence[Template],
    aim: Aim,
    objectives: Sequence["ObjectiveSpec"],
    make: Callable[[dict[str, Any]], "ObjectiveSpec"],
) -> Expansion:
    """Expand templates: rings first, then the remaining volume, overlaps and crops.

    Parameters
    ----------
    templates
        The study's templates.
    aim
        Its targets and prescribed dose.
    objectives
        Its own objectives.
    make
        Makes an objective from its keys.

    Raises
    ------
    TemplateError
        If one does not fit the study; its key begins with the template's place.
    """
    rings = [name for template in templates if isinstance(template, Rings) for name in template.names(aim)]
    recipes: list[Recipe] = []
    now, target = list(objectives), aim.targets[0]
    told: dict[int, Expanded] = {}
    for number, template in sorted(enumerate(templates), key=lambda pair: _ORDER.index(type(pair[1]))):
        place = f"templates[{number}]"
        try:
            made = template.recipes(aim, rings)
            added = [make(keys) for keys in template.objectives(aim)]
            after = template.changed([*now, *added])
        except TemplateError as error:
            raise TemplateError(f"{place}.{error.key}", error.why) from error
        except ValidationError as error:
            raise TemplateError(place, error.errors(include_url=False)[0]["msg"]) from error
        told[number] = Expanded(
            template.text(aim),
            tuple((f"{place}.{key}", name) for key, name in template.inputs(aim)),
            tuple((recipe.name, recipe.text()) for recipe in made),
            tuple(
                f"{objective.label()}, weight {objective.weight:g}"
                for objective in after
                if objective not in now
            ),
        )
        if isinstance(template, CropFromSkin) and template.target == target:
            target = template.made_name()
        recipes.extend(made)
        now = after
    return Expansion(tuple(recipes), tuple(now), target, tuple(told[number] for number in range(len(told))))
