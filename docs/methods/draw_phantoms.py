"""Draws ``docs/phantom_NAME.png``: three sections through every phantom with tissues, and its contours.

Run it with ``python docs/methods/draw_phantoms.py``; the pictures are checked in.
"""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engine.model.case import Case
from engine.phantoms import head_and_neck, lung_4d_series, pelvis, tg119_head_neck, tg119_prostate

FOLDER = Path(__file__).parents[1]


def draw(
    case: Case, name: str, at_mm_xyz: tuple[float, float, float], window_hu: tuple[float, float]
) -> None:
    """Draw the axial, coronal and sagittal section through a point."""
    x_mm, y_mm, z_mm = case.grid.centres_mm_xyz
    left, front, low = (edges[0] for edges in case.grid.edges_mm_xyz)
    right, back, high = (edges[-1] for edges in case.grid.edges_mm_xyz)
    i, j, k = (int(np.abs(c - at).argmin()) for c, at in zip((x_mm, y_mm, z_mm), at_mm_xyz, strict=True))
    cuts = (
        ("axial", np.s_[k], x_mm, y_mm, (left, right, back, front), "upper"),
        ("coronal", np.s_[:, j], x_mm, z_mm, (left, right, low, high), "lower"),
        ("sagittal", np.s_[:, :, i], y_mm, z_mm, (front, back, low, high), "lower"),
    )
    figure = Figure(figsize=(12.0, 4.2))
    colours = colormaps["tab20"]
    for panel, (title, cut, across_mm, along_mm, extent, origin) in enumerate(cuts):
        axes = figure.add_axes((0.005 + 0.29 * panel, 0.02, 0.28, 0.9))
        low_hu, high_hu = window_hu
        axes.imshow(case.ct_hu[cut], cmap="gray", vmin=low_hu, vmax=high_hu, extent=extent, origin=origin)  # type: ignore[arg-type]
        for number, structure in enumerate(case.structures):
            coverage = structure.coverage[cut]
            if coverage.max() > 0.5:
                axes.contour(
                    across_mm, along_mm, coverage, [0.5], colors=[colours(number % 20)], linewidths=1.2
                )
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    lines = [Line2D([], [], color=colours(n % 20), label=s.name) for n, s in enumerate(case.structures)]
    figure.legend(handles=lines, loc="center right", fontsize=7, frameon=False)
    figure.savefig(FOLDER / f"phantom_{name}.png", dpi=75, metadata={"Software": None})


def main() -> None:
    """Write the pictures into ``docs``."""
    for description, case in lung_4d_series():
        if description in ("phase 00 %", "phase 50 %", "average"):
            draw(
                case,
                f"lung_4d_{description.replace(' %', '').replace(' ', '_')}",
                (-78.0, 34.0, -48.0),
                (-1000, 700),
            )
    draw(head_and_neck(), "head_and_neck", (-2.0, 16.0, -12.0), (-400, 900))
    draw(pelvis(), "pelvis", (0.0, 2.0, 6.0), (-400, 900))
    draw(tg119_prostate(), "tg119_prostate", (0.0, 4.0, 10.0), (-1000, 400))
    draw(tg119_head_neck(), "tg119_head_neck", (0.0, 5.0, 20.0), (-1000, 400))


if __name__ == "__main__":
    main()
