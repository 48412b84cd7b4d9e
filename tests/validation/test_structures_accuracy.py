"""The table of docs/methods/structures.md: worst of D95, D50, D2 and Dmean over pairs, grids and offsets."""

import numpy as np
import pytest

from tests.unit.engine.shapes import grid_around
from tests.unit.engine.test_known_pairs import all_pairs


@pytest.mark.validate
@pytest.mark.parametrize(
    ("spacing_mm", "within_percent"),
    [
        ((1.0, 1.0, 1.0), 0.1),
        ((2.0, 2.0, 2.0), 0.1),
        ((3.0, 3.0, 3.0), 0.2),
        ((1.0, 1.0, 3.0), 0.2),
        ((4.0, 4.0, 4.0), 0.3),
        ((5.0, 5.0, 5.0), 0.4),
    ],
)
def test_known_pairs(spacing_mm: tuple[float, float, float], within_percent: float) -> None:
    draw = np.random.default_rng(7)
    worst: dict[str, float] = {}
    for _ in range(3):
        for name, value in all_pairs(grid_around(24.0, spacing_mm, tuple(draw.uniform(size=3)))).items():
            worst[name] = max(worst.get(name, 0.0), value)
    print(spacing_mm, {name: f"{value:.3f} %" for name, value in worst.items()})
    assert max(worst.values()) < within_percent, worst
