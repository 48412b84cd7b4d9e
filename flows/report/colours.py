"""Colours that are the same in every figure of the project, and safe for colour-blind readers."""

from typing import Literal

ISODOSE_PERCENT: tuple[float, ...] = (20.0, 50.0, 70.0, 80.0, 90.0, 95.0, 100.0, 107.0)
"""Isodose levels in percent of the prescribed dose (95 % and 107 %: the limits of ICRU Report 50)."""

ISODOSE_COLOURS: tuple[str, ...] = (
    "#3b0f70", "#641a80", "#942c80", "#c73d73", "#ef5d5e", "#fc8c63", "#fec68a", "#fcfdbf",
)  # fmt: skip
"""One colour a level, from dark to light in even steps of lightness (from matplotlib's magma map)."""

STRUCTURE_COLOURS: tuple[str, ...] = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#7a7a00",
)
"""After Okabe and Ito, Color Universal Design (2008); the yellow is darkened to show on white."""

Dash = Literal["solid", "dashed", "dotted", "dashdot"]
STRUCTURE_DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dashdot")
"""Line styles that set structures apart where colours come round again."""

BODY_COLOUR = "#9a9a9a"
BODY_DASH: Dash = "solid"

HU_WINDOW = (-900.0, 400.0)
"""Hounsfield units of black and white under the dose: lung is told from air, and soft tissues from each other."""


def structure_style(place: int) -> tuple[str, Dash]:
    """Return colour and line style of the structure at ``place`` of a list."""
    n = len(STRUCTURE_COLOURS)
    return STRUCTURE_COLOURS[place % n], STRUCTURE_DASHES[(place // n) % len(STRUCTURE_DASHES)]
