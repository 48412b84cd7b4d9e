"""The figures of a Pareto front, one function each."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from engine.evaluate.plan import DvhCurve
from engine.model.arrays import F64
from flows.report.colours import STRUCTURE_COLOURS, structure_style
from flows.report.figures import figure_style, label, new_figure
from flows.report.front_summary import FrontSummary

_DECADES = 100.0
"""Criteria whose values span more than this factor are drawn on a logarithmic axis."""


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
            for plan, (x, y) in zip(summary.plans, values[:, [i, j]], strict=True):
                if plan.role != "point":
                    axes.annotate(
                        label(plan.name),
                        (x, y),
                        textcoords="offset points",
                        xytext=(5, 5),
                        fontsize=7.5,
                        zorder=4.0,
                    )
            axes.margins(0.14)
            axes.set(xlabel=_axis_label(summary, i), ylabel=_axis_label(summary, j))
    return figure


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
