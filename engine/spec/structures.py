"""The study's made structures: every one has a new name, and is made from what the case has or what came before."""

from collections.abc import Sequence

from engine.structures.recipes import Recipe


def check_order(recipes: Sequence[Recipe]) -> None:
    """Refuse names that are given twice, and structures that would be made from what comes later.

    Raises
    ------
    ValueError
        With the key of the first mistake.
    """
    position: dict[str, int] = {}
    for number, recipe in enumerate(recipes):
        if recipe.name in position:
            raise ValueError(
                f"structures[{number}].name: '{recipe.name}' is made by structures[{position[recipe.name]}] already; "
                "give it another name"
            )
        position[recipe.name] = number
    for number, recipe in enumerate(recipes):
        for key, name in recipe.inputs():
            if position.get(name, -1) >= number:
                raise ValueError(
                    f"structures[{number}].{key}: '{name}' is made only by structures[{position[name]}]; "
                    "put it before what needs it"
                )
