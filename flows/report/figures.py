"""The figures of a plan, one function each; they return `Figure` objects and keep no state.

Only this module, `flows.report.fluence_figures` and `flows.report.front_figures` import matplotlib for drawing. The
writers import them late, so that the command line starts without it.
"""

import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache
from itertools import count

import matplotlib
import numpy as np
from matplotlib import font_manager, patheffects
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engine.evaluate.robustness import DvhBand
from engine.model.arrays import F32, F64
from engine.model.case import Case
from flows.report.colours import (
    BODY_COLOUR,
    BODY_DASH,
    HU_WINDOW,
    ISODOSE_COLOURS,
    ISODOSE_PERCENT,
    STRUCTURE_COLOURS,
    Dash,
    structure_style,
)
from flows.report.planes import Plane, planes_through

LABEL_LENGTH = 28
"""Longer names are cut in figures; the tables have them whole."""
_LEGEND_COLUMNS = 3
_MANY_BANDS = 12
_SALT = "nightbeam"


def figure_style(with_grid: bool = True) -> AbstractContextManager[None]:
    """Return the context in which every figure is made."""
    return matplotlib.rc_context(
        {
            "font.size": 9.0,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": with_grid,
            "grid.color": "#e4e4e4",
            "grid.linewidth": 0.6,
            "legend.frameon": False,
        }
    )


def to_svg(figure: Figure) -> str:
    """Return a figure as SVG text, the same bytes for figures made in the same way."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": _SALT}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "nightbeam"}, dpi=200)
    return buffer.getvalue()


def to_png(figure: Figure) -> bytes:
    """Return a figure as a PNG file, the same bytes for figures made in the same way."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "nightbeam"}, dpi=200)
    return buffer.getvalue()


@cache
def _has_glyph(character: str) -> bool:
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    return font.get_char_index(ord(character)) != 0


def label(text: str) -> str:
    """Return any text as a label that matplotlib prints literally.

    A dollar sign starts no formula, a leading underscore does not hide a legend entry, and characters that
    the font lacks become a box; what is too long is cut.
    """
    cut = text if len(text) <= LABEL_LENGTH else text[: LABEL_LENGTH - 1] + "…"
    plain = "".join(c if c.isprintable() and _has_glyph(c) else "\N{WHITE SQUARE}" for c in cut)
    return (" " + plain if plain.startswith("_") else plain).replace("$", r"\$")


def new_figure(width_inch: float, height_inch: float) -> Figure:
    """Return an empty figure on white."""
    return Figure(figsize=(width_inch, height_inch), layout="constrained", facecolor="white")


def dvh_figure(bands: Sequence[DvhBand], prescription_gy: float) -> Figure:
    """Draw cumulative histograms: nominal as a bold line, least to greatest over all scenarios as a band.

    The body is grey, and takes no colour from the others.
    """
    with figure_style():
        figure = new_figure(7.6, max(4.3, 0.6 + 0.2 * len(bands)))
        axes = figure.subplots()
        handles: list[Line2D] = []
        places = count()
        for band in bands:
            body = band.kind == "EXTERNAL"
            colour, dash = (BODY_COLOUR, BODY_DASH) if body else structure_style(next(places))
            axes.fill_between(
                band.dose_axis_gy,
                band.minimum_percent,
                band.maximum_percent,
                color=colour,
                alpha=0.22 if len(bands) <= _MANY_BANDS else 0.08,
                linewidth=0.0,
            )
            handles += axes.plot(
                band.dose_axis_gy, band.nominal_percent, color=colour, linestyle=dash, linewidth=2.0,
                label=label(band.structure),
            )  # fmt: skip
        handles.append(axes.axvline(prescription_gy, color="black", linewidth=0.8, linestyle=(0, (1, 2))))
        labels = [label(band.structure) for band in bands] + ["prescription"]
        end_gy = max((float(band.dose_axis_gy[-1]) for band in bands), default=prescription_gy)
        axes.set(xlim=(0.0, end_gy), ylim=(0.0, 102.0), xlabel="dose / Gy", ylabel="volume / %")
        figure.legend(handles, labels, loc="outside right upper")
    return figure


def dose_figure(
    case: Case, dose_gy: F32, point_mm_xyz: tuple[float, float, float], prescription_gy: float,
    structures: Sequence[str],
) -> Figure:  # fmt: skip
    """Draw dose on CT in three planes through a point, with isodoses and outlines of body and structures."""
    levels_gy = np.array(ISODOSE_PERCENT) * prescription_gy / 100.0
    colour_map = ListedColormap(list(ISODOSE_COLOURS))
    with figure_style(with_grid=False):
        n_legend_row = -(-(1 + len(structures)) // _LEGEND_COLUMNS)
        figure = new_figure(9.2, 5.5 + 0.2 * n_legend_row)
        places = figure.subplot_mosaic(
            [["axial", "coronal"], ["axial", "sagittal"]], width_ratios=[1.55, 1.0]
        )
        for plane in planes_through(case, dose_gy, point_mm_xyz, structures):
            axes = places[plane.name]
            _draw_plane(axes, plane, levels_gy)
        scale = matplotlib.cm.ScalarMappable(
            BoundaryNorm([*levels_gy, 1.1 * levels_gy[-1]], colour_map.N), colour_map
        )
        bar = figure.colorbar(
            scale,
            ax=list(places.values()),
            ticks=levels_gy,
            spacing="uniform",
            fraction=0.03,
            pad=0.015,
            shrink=0.8,
        )
        bar.ax.set_yticklabels(
            [f"{gy:.2f} ({p:.0f} %)" for gy, p in zip(levels_gy, ISODOSE_PERCENT, strict=True)]
        )  # fmt: skip
        bar.set_label("dose / Gy (of prescription)")
        handles = [Line2D([], [], color=BODY_COLOUR, linewidth=1.4)]
        names = ["body"]
        for place, name in enumerate(structures):
            colour, dash = structure_style(place)
            handles.append(Line2D([], [], color=colour, linestyle=dash, linewidth=2.0))
            names.append(label(name))
        figure.legend(handles, names, loc="outside lower center", ncols=min(_LEGEND_COLUMNS, len(names)))
    return figure


def _draw_plane(axes: Axes, plane: Plane, levels_gy: F64) -> None:
    low, high = HU_WINDOW
    axes.imshow(
        plane.ct_hu, cmap="gray", vmin=low, vmax=high, extent=plane.extent_mm, origin="lower",
        interpolation="bilinear", aspect="equal",
    )  # fmt: skip
    top_gy = float(plane.dose_gy.max())
    edges_gy = [*levels_gy, max(1.1 * float(levels_gy[-1]), 1.01 * top_gy)]
    if top_gy > edges_gy[0]:
        axes.contourf(
            plane.across_mm,
            plane.up_mm,
            plane.dose_gy,
            levels=edges_gy,
            colors=list(ISODOSE_COLOURS),
            alpha=0.45,
        )
    present = [i for i, gy in enumerate(levels_gy) if float(plane.dose_gy.min()) < gy < top_gy]
    if present:
        axes.contour(
            plane.across_mm, plane.up_mm, plane.dose_gy, levels=levels_gy[present],
            colors=[ISODOSE_COLOURS[i] for i in present], linewidths=0.9,
        )  # fmt: skip
    _outline(axes, plane, plane.body, BODY_COLOUR, "solid", 1.4)
    for place, coverage in enumerate(plane.coverages):
        _outline(axes, plane, coverage, *structure_style(place), 1.8)
    axes.axvline(plane.point_mm[0], color="white", linewidth=0.5, alpha=0.6)
    axes.axhline(plane.point_mm[1], color="white", linewidth=0.5, alpha=0.6)
    axes.set(xlim=plane.xlim_mm, ylim=plane.ylim_mm, xticks=[], yticks=[])
    axes.set_facecolor("black")
    axes.set_title(
        f"{plane.name}, {plane.normal_axis} = {plane.position_mm:.1f} mm".replace("-", "\N{MINUS SIGN}"),
        fontsize=9.0,
    )
    left, right, bottom, top = plane.letters
    halo = [patheffects.withStroke(linewidth=2.0, foreground="black")]
    for x, y, letter, across, up in (
        (0.02, 0.5, left, "left", "center"),
        (0.98, 0.5, right, "right", "center"),
        (0.5, 0.02, bottom, "center", "bottom"),
        (0.5, 0.98, top, "center", "top"),
    ):
        axes.text(
            x,
            y,
            letter,
            transform=axes.transAxes,
            ha=across,
            va=up,
            color="white",
            weight="bold",
            path_effects=halo,
        )


def _outline(axes: Axes, plane: Plane, coverage: F32, colour: str, dash: Dash, width: float) -> None:
    if not float(coverage.min()) < 0.5 < float(coverage.max()):
        return
    lines = axes.contour(
        plane.across_mm,
        plane.up_mm,
        coverage,
        levels=[0.5],
        colors=[colour],
        linewidths=width,
        linestyles=[dash],
    )
    lines.set_path_effects([patheffects.withStroke(linewidth=width + 1.2, foreground="white", alpha=0.7)])


def convergence_figure(evaluations: Sequence[int], objectives: Sequence[float]) -> Figure:
    """Draw the objective against evaluations, on a log scale where all of it is positive."""
    with figure_style():
        figure = new_figure(7.6, 2.7)
        axes = figure.subplots()
        axes.plot(
            evaluations, objectives, color=STRUCTURE_COLOURS[0], linewidth=1.6, marker=".", markersize=3.0
        )
        axes.set(xlabel="evaluations of objective and gradient", ylabel="objective")
        if len(objectives) > 0 and min(objectives) > 0.0:
            axes.set_yscale("log")
    return figure
