"""Draws ``frames.svg``: the fixed system, gantry, couch and collimator, and the four ways to lie.

Run it with ``python docs/methods/draw_frames.py``; the drawing is checked in beside it.
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Circle, Ellipse, FancyArrowPatch, Rectangle

RED, GREEN, BLUE, GREY = "#b2182b", "#1b7837", "#2166ac", "#666666"


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, text: str = ""
) -> None:
    """Draw an arrow with a label behind its head."""
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=colour, lw=1.6, zorder=4)
    )
    if text:
        length = max(((end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2) ** 0.5, 1e-9)
        x, y = (e + 0.16 * (e - s) / length for s, e in zip(start, end, strict=True))
        axes.text(x, y, text, color=colour, ha="center", va="center", fontsize=9)


def panel(figure: Figure, box: tuple[float, float, float, float], title: str) -> Axes:
    """Return an empty square panel from -1.5 to 1.5."""
    axes = figure.add_axes(box)
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
    axes.axis("off")
    axes.text(0.0, 1.42, title, fontsize=10, ha="center")
    return axes


def gantry(axes: Axes) -> None:
    """Draw what somebody who faces the gantry sees, patient HFS."""
    axes.add_patch(Ellipse((0, 0), 0.8, 0.5, fill=False, color=GREY))
    axes.add_patch(Circle((0, 0.29), 0.05, color=GREY))  # The nose: supine.
    axes.plot([-0.6, 0.6], [-0.3, -0.3], color=GREY)
    axes.text(-0.25, 0.0, "R", ha="center", va="center", fontsize=8, color=GREY)
    axes.text(0.25, 0.0, "L", ha="center", va="center", fontsize=8, color=GREY)
    for angle, x, y in ((0, 0, 1), (90, 1, 0), (180, 0, -1), (270, -1, 0)):
        axes.plot(x, y, "o", color="black")
        axes.text(1.1 * x, 1.2 * y - 0.18 * abs(x), f"{angle}", ha="center", va="center", fontsize=8)
    axes.add_patch(Arc((0, 0), 2, 2, theta1=20, theta2=70, color=BLUE))
    arrow(axes, (0.92, 0.40), (0.97, 0.24), GREY)
    arrow(axes, (-1.35, -1.35), (-0.85, -1.35), RED, "x")
    arrow(axes, (-1.35, -1.35), (-1.35, -0.85), BLUE, "z")
    axes.text(-1.22, -1.22, "y into the page", fontsize=7, color=GREY)


def couch(axes: Axes) -> None:
    """Draw the couch from above at 0 and at 30 degrees."""
    axes.add_patch(Rectangle((-0.6, 1.1), 1.2, 0.18, color="#cccccc"))
    axes.text(0, 1.19, "gantry", ha="center", va="center", fontsize=8)
    axes.add_patch(Rectangle((-0.25, -1.1), 0.5, 1.7, fill=False, color=GREY, ls=":"))
    turned = Rectangle((-0.25, -1.1), 0.5, 1.7, fill=False, color=GREEN, lw=1.5)
    turned.set_transform(mpl.transforms.Affine2D().rotate_deg(30) + axes.transData)
    axes.add_patch(turned)
    head = Circle((0, 0.42), 0.13, color=GREEN, fill=False)
    head.set_transform(mpl.transforms.Affine2D().rotate_deg(30) + axes.transData)
    axes.add_patch(head)
    axes.add_patch(Arc((0, 0), 1.7, 1.7, theta1=92, theta2=118, color=GREEN))
    arrow(axes, (-0.36, 0.77), (-0.46, 0.71), GREEN)
    axes.text(-0.75, 0.92, "couch +30", fontsize=8, color=GREEN, ha="center")
    arrow(axes, (0.8, -1.3), (1.25, -1.3), RED, "x")
    arrow(axes, (0.8, -1.3), (0.8, -0.85), GREEN, "y")
    axes.text(0.86, -1.15, "z to the viewer", fontsize=7, color=GREY)


def collimator(axes: Axes) -> None:
    """Draw the collimator axes seen from the source at gantry 0, and the beamlet (column 3, row 5)."""
    cos, sin = 0.866, 0.5
    arrow(axes, (0, 0), (1.1, 0), GREY)
    axes.text(1.1, -0.16, "gantry x", color=GREY, ha="center", va="center", fontsize=9)
    arrow(axes, (0, 0), (0, 1.1), GREY, "gantry y")
    arrow(axes, (0, 0), (1.1 * cos, 1.1 * sin), RED, "x")
    arrow(axes, (0, 0), (-1.1 * sin, 1.1 * cos), GREEN, "y")
    axes.add_patch(Arc((0, 0), 1.3, 1.3, theta1=0, theta2=30, color=BLUE))
    axes.text(0.82, 0.2, "+30", fontsize=8, color=BLUE, ha="center", va="center")
    u, v = 0.36, 0.60  # 0.12 a beamlet.
    beamlet = Rectangle((u - 0.06, v - 0.06), 0.12, 0.12, color=BLUE)
    beamlet.set_transform(mpl.transforms.Affine2D().rotate_deg(30) + axes.transData)
    axes.add_patch(beamlet)
    axes.plot([0, u * cos, u * cos - v * sin], [0, u * sin, u * sin + v * cos], ":", color=BLUE)
    axes.text(0.2, 0.72, "(3, 5)", fontsize=8, color=BLUE)
    axes.text(
        0, -0.5, "seen from the source;\ngantry 0: gantry y is towards the gantry", ha="center", fontsize=8
    )


def lying(axes: Axes, head_first: bool, supine: bool, x: str, y: str, z: str) -> None:
    """Draw a patient from the side and say what LPS direction each fixed axis has."""
    axes.add_patch(Rectangle((1.2, -0.5), 0.25, 1.1, color="#cccccc"))
    axes.plot([-1.2, 1.0], [-0.32, -0.32], color=GREY)
    axes.add_patch(Ellipse((-0.1, -0.1), 1.5, 0.38, fill=False, color="black"))
    at = 0.8 if head_first else -1.0
    axes.add_patch(Circle((at, -0.1), 0.17, fill=False, color="black"))
    axes.plot(at, 0.11 if supine else -0.31, "^" if supine else "v", color="black", ms=5)
    arrow(axes, (-0.1, 0.25), (-0.1, 0.85), BLUE, f"z = {z}")
    arrow(axes, (0.25, 0.35), (0.85, 0.35), GREEN)
    axes.text(0.55, 0.47, f"y = {y}", color=GREEN, fontsize=9, ha="center")
    axes.text(-0.9, 0.47, f"x = {x}", color=RED, fontsize=9, ha="center")


def main() -> None:
    """Write ``frames.svg`` beside this file."""
    mpl.rcParams.update({"svg.hashsalt": "frames", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure = Figure(figsize=(10.5, 6.4))
    gantry(panel(figure, (0.01, 0.46, 0.32, 0.48), "gantry angles, facing the gantry, HFS"))
    couch(panel(figure, (0.34, 0.46, 0.32, 0.48), "couch, from above"))
    collimator(panel(figure, (0.67, 0.46, 0.32, 0.48), "collimator"))
    for number, (name, *how) in enumerate(
        (
            ("HFS", True, True, "left", "head", "anterior"),
            ("HFP", True, False, "right", "head", "posterior"),
            ("FFS", False, True, "right", "feet", "anterior"),
            ("FFP", False, False, "left", "feet", "posterior"),
        )
    ):
        axes = panel(figure, (0.01 + 0.247 * number, -0.04, 0.24, 0.44), f"{name}, gantry at the right")
        lying(axes, *how)  # type: ignore[arg-type]
    figure.savefig(Path(__file__).with_name("frames.svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
