"""The figures of the beams' fluence."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from flows.report.figures import figure_style, label, new_figure
from flows.report.fluence import FluenceMap

BEAMS_A_FIGURE = 9
"""More beams go to further figures, so that none is taller than a page."""
_COLUMNS = 3
_NO_BEAMLET = "#e8e8e8"
_COLOURS = "viridis"


def fluence_figures(maps: Sequence[FluenceMap]) -> list[Figure]:
    """Draw the fluence of all beams seen from the source, with one scale of lengths and one of colours."""
    if not maps:
        return []
    top_mu = max(float(np.nanmax(one.mu)) for one in maps)
    scale = Normalize(0.0, top_mu if top_mu > 0.0 else 1.0)
    x_mm = min(one.x_edges_mm[0] for one in maps), max(one.x_edges_mm[-1] for one in maps)
    y_mm = min(one.y_edges_mm[0] for one in maps), max(one.y_edges_mm[-1] for one in maps)
    groups = [maps[begin : begin + BEAMS_A_FIGURE] for begin in range(0, len(maps), BEAMS_A_FIGURE)]
    return [_draw(group, scale, x_mm, y_mm) for group in groups]


def _draw(
    maps: Sequence[FluenceMap], scale: Normalize, x_mm: tuple[float, float], y_mm: tuple[float, float]
) -> Figure:
    n_column = min(_COLUMNS, len(maps))
    n_row = -(-len(maps) // n_column)
    shape = (y_mm[1] - y_mm[0]) / (x_mm[1] - x_mm[0])
    panel_inch = 2.4
    height_inch = float(np.clip(panel_inch * shape, 1.0, 2.7))
    with figure_style(with_grid=False):
        figure = new_figure(panel_inch * n_column + 1.2, (height_inch + 0.4) * n_row + 0.4)
        panels = figure.subplots(n_row, n_column, squeeze=False, sharex=True, sharey=True)
        for axes in panels.ravel()[len(maps) :]:
            axes.set_axis_off()
        for axes, one in zip(panels.ravel(), maps, strict=False):
            axes.set_facecolor(_NO_BEAMLET)
            axes.pcolormesh(
                one.x_edges_mm, one.y_edges_mm, np.ma.masked_invalid(one.mu), cmap=_COLOURS, norm=scale
            )
            axes.axhline(0.0, color="black", linewidth=0.5, linestyle=(0, (4, 3)))
            axes.axvline(0.0, color="black", linewidth=0.5, linestyle=(0, (4, 3)))
            axes.set(xlim=x_mm, ylim=y_mm, aspect="equal", title=label(one.name))
            axes.tick_params(labelbottom=True, labelleft=True)
        for axes in panels[:, 0]:
            axes.set_ylabel("Y of the collimator / mm")
        for axes in panels[-1, :]:
            axes.set_xlabel("X of the collimator / mm")
        figure.colorbar(
            matplotlib.cm.ScalarMappable(scale, _COLOURS),
            ax=panels.ravel().tolist(),
            label="fluence / MU per fraction",
            shrink=min(1.0, 1.2 / n_row + 0.3),
            pad=0.02,
        )
    return figure
