"""The figures of a Pareto front, one function each."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from engine.evaluate.plan import DvhCurve
from engine.model.arrays import F64
from flows.report.colours import STRUCTURE_COLOURS, structure_style
from flows.report.figures import figure_style, label, new_figure
from flows.report.front_summary import FrontSummary

_DECADES = 100.0
"""Criteria whose values span more than this factor are drawn on a logarithmic axis."""
_LABEL_PLACES = tuple(
    (distance * right, distance * up)
    for distance in (5.0, 14.0, 26.0, 40.0)
    for right, up in ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
)
"""Where a plan's name may stand from its point, in points of print, best first."""
_POINT_PX = 4.0
"""Radius of a drawn point, about."""


def _spans_decades(values: F64) -> bool:
    return bool(values.min() > 0.0 and values.max() > _DECADES * values.min())


def front_figure(summary: FrontSummary) -> Figure:
    """Draw the front on each pair of criteria; with three criteria, colour is the third.

    Plans that no other one dominates are ringed in black, dominated ones are faint.
    """
    n = len(summary.criteria)
    values = np.array([plan.values for plan in summary.plans])
    kept = np.array([not plan.dominated for plan in summary.plans])
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    n_column = min(3, len(pairs))
    n_row = -(-len(pairs) // n_column)
    with figure_style():
        figure = new_figure(3.5 * n_column, 3.3 * n_row)
        panels = figure.subplots(n_row, n_column, squeeze=False).ravel()
        for axes in panels[len(pairs) :]:
            axes.set_axis_off()
        for axes, (i, j) in zip(panels, pairs, strict=False):
            third = ({0, 1, 2} - {i, j}).pop() if n == 3 else None
            for chosen, alpha, edge in ((~kept, 0.4, "#777777"), (kept, 1.0, "black")):
                if not chosen.any():
                    continue
                points = axes.scatter(
                    values[chosen, i],
                    values[chosen, j],
                    s=42.0,
                    alpha=alpha,
                    edgecolors=edge,
                    linewidths=1.0,
                    zorder=3.0,
                )
                if third is None:
                    points.set_facecolor(STRUCTURE_COLOURS[0])
                    continue
                points.set_array(values[chosen, third])
                points.set_cmap("cividis")
                points.set_clim(values[:, third].min(), values[:, third].max())
                if edge == "black":
                    figure.colorbar(
                        points, ax=axes, location="top", label=_axis_label(summary, third), pad=0.02
                    )
            if _spans_decades(values[:, i]):
                axes.set_xscale("log")
            if _spans_decades(values[:, j]):
                axes.set_yscale("log")
            axes.margins(0.14)
            axes.set(xlabel=_axis_label(summary, i), ylabel=_axis_label(summary, j))
        figure.draw_without_rendering()
        for axes, (i, j) in zip(panels, pairs, strict=False):
            _name_plans(axes, summary, values[:, [i, j]])
    return figure


def _name_plans(axes: Axes, summary: FrontSummary, points: F64) -> None:
    """Write names of the plans that have a role where they lie on no other name and on as few points as can be."""
    on_page = axes.transData.transform(points)
    taken: list[Bbox] = []
    for plan, (x, y) in zip(summary.plans, points, strict=True):
        if plan.role == "point":
            continue
        name = axes.annotate(
            label(plan.name),
            (float(x), float(y)),
            textcoords="offset points",
            xytext=_LABEL_PLACES[0],
            fontsize=7.5,
            zorder=4.0,
            annotation_clip=False,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
            arrowprops={
                "arrowstyle": "-",
                "color": "#777777",
                "linewidth": 0.6,
                "shrinkA": 0.0,
                "shrinkB": 3.0,
            },
        )
        name.set_in_layout(False)
        found: list[tuple[float, int, Bbox]] = []
        for order, (right, up) in enumerate(_LABEL_PLACES):
            _move(name, right, up)
            box = name.get_window_extent().padded(1.0)
            names_hit = sum(box.overlaps(other) for other in taken)
            beyond = box.width * box.height - _shared_area(box, axes.bbox)
            found.append(
                (
                    1e6 * names_hit + 10.0 * beyond + 30.0 * box.padded(_POINT_PX).count_contains(on_page),
                    order,
                    box,
                )
            )
        _, order, box = min(found, key=lambda one: one[:2])
        _move(name, *_LABEL_PLACES[order])
        taken.append(box)


def _move(name: Annotation, right: float, up: float) -> None:
    name.set_position((right, up))
    name.set_horizontalalignment("left" if right > 0.0 else "right" if right < 0.0 else "center")
    name.set_verticalalignment("bottom" if up > 0.0 else "top" if up < 0.0 else "center")


def _shared_area(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else float(shared.width * shared.height)


def _axis_label(summary: FrontSummary, place: int) -> str:
    criterion = summary.criteria[place]
    return label(f"{criterion.name} / {criterion.unit}" if criterion.unit else criterion.name)


def front_dvh_figure(curves: Mapping[str, Sequence[DvhCurve]], prescription_gy: float) -> Figure:
    """Draw one panel a structure with the histograms of several plans, by plan name.

    Structures are those of the first plan; every plan holds them.
    """
    names = [curve.structure for curve in next(iter(curves.values()))]
    n_column = min(3, len(names))
    n_row = -(-len(names) // n_column)
    with figure_style():
        figure = new_figure(max(3.5 * n_column, 9.5), 2.5 * n_row + 0.5)
        panels = figure.subplots(n_row, n_column, squeeze=False, sharey=True).ravel()
        for axes in panels[len(names) :]:
            axes.set_axis_off()
        handles: list[Line2D] = []
        for axes, name in zip(panels, names, strict=False):
            handles = []
            for place, of_plan in enumerate(curves.values()):
                curve = next(curve for curve in of_plan if curve.structure == name)
                colour, dash = structure_style(place)
                handles += axes.plot(
                    curve.dose_axis_gy, curve.volume_percent, color=colour, linestyle=dash, linewidth=1.6
                )
                axes.set_xlim(0.0, float(curve.dose_axis_gy[-1]))
            axes.axvline(prescription_gy, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
            axes.set(ylim=(0.0, 102.0), title=label(name), xlabel="dose / Gy")
        for axes in panels[::n_column]:
            axes.set_ylabel("volume / %")
        figure.legend(
            handles, [label(name) for name in curves], loc="outside lower center", ncols=min(5, len(curves))
        )
    return figure
