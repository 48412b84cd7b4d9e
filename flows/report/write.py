"""Write reports: the summary as JSON, a page that needs no other file, and the same page as PDF."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import markupsafe

from engine.errors import CaseError
from engine.evaluate.plan import LEVELS_PERCENT, DvhCurve
from engine.evaluate.robustness import DvhBand
from engine.model.arrays import F32
from engine.model.case import Case
from flows.report.colours import HU_WINDOW
from flows.report.fluence import FluenceMap
from flows.report.front_summary import FrontSummary
from flows.report.summary import PlanSummary
from storage.whole_file import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATES = Path(__file__).parent / "templates"
_SHORT_NAME = 24
_MINUS = "\N{MINUS SIGN}"


def fixed(value: float | None, n_decimal: int = 2) -> str:
    """Return a number with fixed decimals and a true minus sign; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{value:.{n_decimal}f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", _MINUS)


def volume(value_cc: float) -> str:
    """Return a volume with two decimals, below 1 cm³ with two significant digits at least."""
    return fixed(value_cc, 2 if value_cc >= 1.0 else 3 if value_cc >= 0.01 else 4)


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


def breakable(name: str) -> str:
    """Return a long name as HTML that may go to a new line after its underscores, if it has no spaces for that."""
    escaped = markupsafe.escape(name)
    return (
        escaped
        if len(name) <= _SHORT_NAME or " " in name
        else markupsafe.Markup(str(escaped).replace("_", "_<wbr>"))
    )


def write_plan_report(
    summary: PlanSummary,
    case: Case,
    nominal_dose_gy: F32,
    bands: Sequence[DvhBand],
    fluences: Sequence[FluenceMap],
    folder: Path,
) -> Path:
    """Write ``summary.json``, ``report.html`` and ``report.pdf`` of one plan; return the path of the page.

    Parameters
    ----------
    summary
        All numbers.
    case
        CT and structures for the pictures.
    nominal_dose_gy
        Dose of the whole course without errors, shape ``case.grid.shape_zyx``.
    bands
        Curves to draw, see `engine.evaluate.robustness.dvh_bands`. The same structures are outlined on the CT, but
        for what was made of others and is neither target nor organ: such as all outside the targets.
    fluences
        Fluence of every beam.
    folder
        Where to write; it is made if it is missing.

    Raises
    ------
    CaseError
        If the dose is not on the CT grid or a band names a structure that the case lacks.
    """
    from flows.report import figures
    from flows.report.fluence_figures import fluence_figures

    if nominal_dose_gy.shape != case.grid.shape_zyx:
        raise CaseError(f"dose of shape {nominal_dose_gy.shape} is not on the CT grid {case.grid.shape_zyx}")
    made = {structure.name for structure in summary.made_structures}

    # What is not outlined comes last, so that the others have the same colours in histograms and on the CT.
    def rank(band: DvhBand) -> int:
        return 2 if band.kind == "EXTERNAL" else int(band.kind == "OTHER" and band.structure in made)

    drawn = sorted(bands, key=rank)
    outlined = [band.structure for band in drawn if rank(band) == 0]
    prescribed_gy = summary.prescription.dose_gy
    isocentre_mm = summary.technique.beams[0].isocentre_mm
    pictures = {
        "dvh": [_vector(figures.dvh_figure(drawn, prescribed_gy))],
        "dose": [_pixels(figures.dose_figure(case, nominal_dose_gy, isocentre_mm, prescribed_gy, outlined))],
        "fluence": [_pixels(figure) for figure in fluence_figures(fluences)],
    }
    if summary.convergence.evaluations:
        history = figures.convergence_figure(summary.convergence.evaluations, summary.convergence.objectives)
        pictures["convergence"] = [_vector(history)]
    return _write("plan.html.j2", "report", "summary.json", summary, pictures, folder)


def write_front_report(
    summary: FrontSummary, curves: Mapping[str, Sequence[DvhCurve]], folder: Path
) -> Path:  # fmt: skip
    """Write ``front.json``, ``front.html`` and ``front.pdf`` of a Pareto front; return the path of the page.

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
    pictures = {"front": [_vector(front_figures.front_figure(summary))]}
    if structures and structures[0]:
        pictures["dvh"] = [_vector(front_figures.front_dvh_figure(curves, summary.prescription.dose_gy))]
    return _write("front.html.j2", "front", "front.json", summary, pictures, folder)


def _vector(figure: "Figure") -> str:
    """Return a figure as a data URI; as an image of its own it shares no element names with other figures."""
    from flows.report import figures

    return "data:image/svg+xml;base64," + base64.b64encode(figures.to_svg(figure).encode()).decode()


def _pixels(figure: "Figure") -> str:
    """Return a figure that holds images as a data URI; such ones print badly as vectors."""
    from flows.report import figures

    return "data:image/png;base64," + base64.b64encode(figures.to_png(figure)).decode()


def page_of(template: str, summary: PlanSummary | FrontSummary, pictures: Mapping[str, Sequence[str]]) -> str:
    """Return the page of a report as HTML; ``pictures`` are data URIs by the name that the template knows them by."""
    return render(template, s=summary, pictures=pictures, window=HU_WINDOW, levels=LEVELS_PERCENT)


def render(template: str, **values: Any) -> str:
    """Return a template of this package filled in; it gets the filters and the style of all pages."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(fixed=fixed, digits=digits, signed=signed, volume=volume, breakable=breakable)
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=style, **values)


def _write(
    template: str,
    page: str,
    numbers: str,
    summary: PlanSummary | FrontSummary,
    pictures: Mapping[str, Sequence[str]],
    folder: Path,
) -> Path:
    from flows.report.pdf import write_pdf

    html = page_of(template, summary, pictures)
    folder.mkdir(parents=True, exist_ok=True)
    dump = json.dumps(summary.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    for path, text in ((folder / numbers, dump + "\n"), (folder / f"{page}.html", html)):
        with whole_file(path) as aside:
            aside.write_text(text, encoding="utf-8", newline="\n")
    made_by = (
        f"nightbeam {summary.provenance.nightbeam_version} · {summary.provenance.date} · {summary.case.name}"
    )
    with whole_file(folder / f"{page}.pdf") as aside:
        write_pdf(html, aside, summary.title, made_by, summary.provenance.date)
    return folder / f"{page}.html"
