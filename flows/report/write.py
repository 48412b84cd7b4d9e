"""Write reports: the summary as JSON and a page that needs no other file."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from engine.errors import CaseError
from engine.evaluate.plan import DvhCurve
from engine.evaluate.robustness import DvhBand
from engine.model.arrays import F32
from engine.model.case import Case
from flows.report.colours import HU_WINDOW
from flows.report.front_summary import FrontSummary
from flows.report.summary import PlanSummary, ReportModel
from storage.whole_file import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATES = Path(__file__).parent / "templates"
_MINUS = "\N{MINUS SIGN}"


def fixed(value: float | None, n_decimal: int = 2) -> str:
    """Return a number with fixed decimals and a true minus sign; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{value:.{n_decimal}f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", _MINUS)


def digits(value: float | None, n_digit: int = 4) -> str:
    """Return a number with so many significant digits, large and small ones with a power of ten."""
    if value is None:
        return "\N{EN DASH}"
    mantissa, _, exponent = f"{value:.{n_digit}g}".partition("e")
    text = mantissa.replace("-", _MINUS)
    if not exponent:
        return text
    superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{text} × 10{superscript}"


def signed(value: float, n_decimal: int = 2) -> str:
    """Return a difference with its sign; zero has none."""
    text = fixed(value, n_decimal)
    return text if text.startswith(_MINUS) or float(text) == 0.0 else f"+{text}"


def write_plan_report(
    summary: PlanSummary, case: Case, nominal_dose_gy: F32, bands: Sequence[DvhBand], folder: Path
) -> Path:
    """Write ``summary.json`` and ``report.html`` of one plan; return the path of the page.

    Parameters
    ----------
    summary
        All numbers.
    case
        CT and structures for the pictures.
    nominal_dose_gy
        Dose of the whole course without errors, shape ``case.grid.shape_zyx``.
    bands
        Curves to draw, see `engine.evaluate.robustness.dvh_bands`; the same structures are outlined on the
        CT, but for the body, which has its own line.
    folder
        Where to write; it is made if it is missing.

    Raises
    ------
    CaseError
        If the dose is not on the CT grid or a band names a structure that the case lacks.
    """
    from flows.report import figures

    if nominal_dose_gy.shape != case.grid.shape_zyx:
        raise CaseError(f"dose of shape {nominal_dose_gy.shape} is not on the CT grid {case.grid.shape_zyx}")
    drawn = [band for band in bands if band.kind != "EXTERNAL"]
    isocentre_mm = summary.technique.beams[0].isocentre_mm
    dose = figures.dose_figure(
        case, nominal_dose_gy, isocentre_mm, summary.prescription.dose_gy, [band.structure for band in drawn]
    )
    pictures = {
        "dvh": _picture(figures.dvh_figure(drawn, summary.prescription.dose_gy)),
        "dose": _picture(dose),
    }
    if summary.convergence.evaluations:
        history = figures.convergence_figure(summary.convergence.evaluations, summary.convergence.objectives)
        pictures["convergence"] = _picture(history)
    return _write("plan.html.j2", "report.html", "summary.json", summary, pictures, folder)


def write_front_report(
    summary: FrontSummary, curves: Mapping[str, Sequence[DvhCurve]], folder: Path
) -> Path:  # fmt: skip
    """Write ``front.json`` and ``front.html`` of a Pareto front; return the path of the page.

    Parameters
    ----------
    summary
        All numbers.
    curves
        Histograms of the anchor plans and the balanced one by plan name, all with the same structures.
    folder
        Where to write; it is made if it is missing.

    Raises
    ------
    CaseError
        If curves belong to no plan of the summary or plans hold different structures.
    """
    from flows.report import front_figures

    known = {plan.name for plan in summary.plans}
    structures = [{curve.structure for curve in of_plan} for of_plan in curves.values()]
    if unknown := sorted(set(curves) - known):
        raise CaseError(f"curves of {unknown} belong to no plan of the front; name them as the plans")
    if any(names != structures[0] for names in structures[1:]):
        raise CaseError("the plans of a front have curves of different structures; draw the same of each")
    pictures = {"front": _picture(front_figures.front_figure(summary))}
    if structures and structures[0]:
        pictures["dvh"] = _picture(front_figures.front_dvh_figure(curves, summary.prescription.dose_gy))
    return _write("front.html.j2", "front.html", "front.json", summary, pictures, folder)


def _picture(figure: "Figure") -> str:
    """Return a figure as a data URI; as an image of its own it shares no element names with other figures."""
    from flows.report import figures

    return "data:image/svg+xml;base64," + base64.b64encode(figures.to_svg(figure).encode()).decode()


def _write(
    template: str, page: str, numbers: str, summary: ReportModel, pictures: Mapping[str, str], folder: Path
) -> Path:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(fixed=fixed, digits=digits, signed=signed)
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    html = environment.get_template(template).render(
        s=summary, pictures=pictures, style=style, window=HU_WINDOW
    )
    folder.mkdir(parents=True, exist_ok=True)
    dump = json.dumps(summary.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    for path, text in ((folder / numbers, dump + "\n"), (folder / page, html)):
        with whole_file(path) as aside:
            aside.write_text(text, encoding="utf-8", newline="\n")
    return folder / page
