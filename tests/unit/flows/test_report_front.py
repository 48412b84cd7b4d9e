import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from engine.errors import CaseError
from engine.evaluate.goals import GoalResult
from engine.evaluate.plan import DvhCurve
from flows.report import figures, front_figures
from flows.report.front_summary import CriterionSummary, FrontPlanSummary, FrontSummary
from flows.report.summary import (
    CaseSummary,
    CertificateSummary,
    GridSummary,
    PrescriptionSummary,
    ProvenanceSummary,
)
from flows.report.write import write_front_report

NAMES = ("target", "cord", "lung")
AXIS_GY = np.linspace(0.0, 60.0, 401)


def _plan(place: int, values: tuple[float, ...], dominated: bool) -> FrontPlanSummary:
    n = len(values)
    role = "anchor" if place < n else "balanced" if place == n else "point"
    weights = tuple(float(i == place) for i in range(n)) if place < n else tuple(1.0 / n for _ in values)
    cord = GoalResult("SpinalCord", "Dmax <= 20 Gy", "", 15.0 + place, 20.0, "Gy", 15.0 + place <= 20.0)
    return FrontPlanSummary(
        name=f"best {NAMES[place]}" if place < n else "balanced" if place == n else f"plan {place}",
        role=role, weights=weights, values=values, dominated=dominated, goals=(cord,),
        stopping_reason="The relative change of the objective stayed below 1e-6.",
        certificate=CertificateSummary(
            objective=2.0, lower_bound=1.98, gap=0.01, evaluations=12, text=f"at most {place} % too high",
        ),
    )  # fmt: skip


def _summary(n: int = 3) -> FrontSummary:
    random = np.random.default_rng(7)
    directions = np.abs(random.normal(size=(14, n))) + 0.05
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    corners = 0.1 + 0.9 * np.eye(n)
    corners /= np.linalg.norm(corners, axis=1, keepdims=True)
    points = [*(1.0 - corners), 1.0 - np.full(n, n**-0.5), *(1.0 - directions)]
    values = 4.0 * np.array(points)
    values[-3:] += 0.8
    dominated = [bool(((values <= v).all(axis=1) & (values < v).any(axis=1)).any()) for v in values]
    return FrontSummary(
        title="Front <of> everything",
        case=CaseSummary(
            name="C-shape", source="built-in phantom", patient_position="HFS",
            ct_grid=GridSummary(spacing_mm_xyz=(2.5, 2.5, 2.5), shape_xyz=(100, 90, 80)),
        ),
        normalisation="D95% = 100 %",
        prescription=PrescriptionSummary(dose_gy=50.0, n_fraction=25, target="PTV"),
        criteria=tuple(
            CriterionSummary(name=f"{NAMES[i]} & $", unit="Gy²", terms=(f"{NAMES[i]}: squared overdose above 20 Gy",))
            for i in range(n)
        ),
        plans=tuple(_plan(i, tuple(map(float, v)), d) for i, (v, d) in enumerate(zip(values, dominated, strict=True))),
        provenance=ProvenanceSummary(
            nightbeam_version="0.1.0", code_digest="5f2c" * 16, store_digests={"influence": "ab12" * 16},
            libraries={"numpy": "2.0"}, seeds={}, cpu_s={"dose": 80.0, "optimise": 300.0},
            date="2025-01-01T12:00:00+00:00",
        ),
    )  # fmt: skip


def _curves(summary: FrontSummary) -> dict[str, tuple[DvhCurve, ...]]:
    def curve(name: str, middle_gy: float) -> DvhCurve:
        volume = 100.0 / (1.0 + np.exp((AXIS_GY - middle_gy) / 2.0))
        return DvhCurve(name, "ORGAN", AXIS_GY, volume)

    chosen = [plan for plan in summary.plans if plan.role != "point"]
    return {
        plan.name: (curve("PTV", 50.0 - i), curve("SpinalCord", 12.0 + 2 * i), curve("Lung_L", 9.0 + i))
        for i, plan in enumerate(chosen)
    }


def test_front_report_is_one_page_and_its_numbers(tmp_path: Path) -> None:
    summary = _summary()
    path = write_front_report(summary, _curves(summary), tmp_path)
    assert path.name == "front.html"
    assert (
        FrontSummary.model_validate(json.loads((tmp_path / "front.json").read_text(encoding="utf-8")))
        == summary
    )
    page = path.read_text(encoding="utf-8")
    assert page.count("Research use only – not for clinical use") == 2
    assert "Front &lt;of&gt; everything" in page
    assert "<of>" not in page
    assert page.count("data:image/svg+xml;base64,") == 2
    for plan in summary.plans:
        assert f"<td>{plan.name}" in page
        assert f"{plan.values[0]:.4g}" in page
        assert plan.certificate.text in page
    n_kept = sum(not plan.dominated for plan in summary.plans)
    assert 0 < n_kept < len(summary.plans)
    assert f"<b>{n_kept} plans</b>" in page


def test_front_figure_marks_what_no_plan_dominates_and_colours_by_the_third_criterion() -> None:
    summary = _summary()
    figure = front_figures.front_figure(summary)
    panels = [axes for axes in figure.axes if axes.get_ylabel()]
    assert [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels] == [
        (r"target & \$ / Gy²", r"cord & \$ / Gy²"),
        (r"target & \$ / Gy²", r"lung & \$ / Gy²"),
        (r"cord & \$ / Gy²", r"lung & \$ / Gy²"),
    ]
    faint, ringed = panels[0].collections
    assert faint.get_alpha() < 0.5
    assert ringed.get_alpha() == 1.0
    kept = [plan for plan in summary.plans if not plan.dominated]
    np.testing.assert_allclose(ringed.get_offsets(), [plan.values[:2] for plan in kept])
    np.testing.assert_allclose(ringed.get_array(), [plan.values[2] for plan in kept])
    assert len(faint.get_offsets()) == len(summary.plans) - len(kept)


def test_names_of_plans_lie_on_no_other_name_and_inside_their_panel() -> None:
    figure = front_figures.front_figure(_summary())
    figure.draw_without_rendering()
    for axes in (axes for axes in figure.axes if axes.get_ylabel()):
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == 4
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert all(axes.bbox.contains(*corner) for box in boxes for corner in box.corners())


def test_front_of_two_criteria_has_one_panel_without_colour() -> None:
    figure = front_figures.front_figure(_summary(2))
    (axes,) = figure.axes
    assert axes.collections[-1].get_array() is None
    assert figures.to_svg(figure)


def test_front_histograms_have_one_panel_a_structure_and_one_line_a_plan() -> None:
    summary = _summary()
    curves = _curves(summary)
    figure = front_figures.front_dvh_figure(curves, 50.0)
    assert [axes.get_title() for axes in figure.axes] == ["PTV", "SpinalCord", "Lung_L"]
    cord = figure.axes[1].get_lines()
    assert len(cord) == len(curves) + 1
    np.testing.assert_array_equal(cord[2].get_ydata(), curves["best lung"][1].volume_percent)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(curves)


def test_front_summary_refuses_plans_that_do_not_fit() -> None:
    good = _summary()
    with pytest.raises(ValidationError, match="needs 3 weights and values"):
        FrontSummary(**{**dict(good), "plans": (_plan(0, (1.0, 2.0), False),)})
    with pytest.raises(ValidationError, match="more than once"):
        FrontSummary(**{**dict(good), "plans": (good.plans[0], good.plans[0])})


def test_curves_of_unknown_plans_or_other_structures_are_refused(tmp_path: Path) -> None:
    summary = _summary()
    curves = _curves(summary)
    with pytest.raises(CaseError, match="belong to no plan"):
        write_front_report(summary, {"plan 99": curves["balanced"]}, tmp_path)
    with pytest.raises(CaseError, match="different structures"):
        write_front_report(summary, {**curves, "balanced": curves["balanced"][:1]}, tmp_path)
