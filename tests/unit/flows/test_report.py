import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from pydantic import ValidationError

from engine.dose.monitor_units import BeamMonitorUnits
from engine.errors import CaseError
from engine.evaluate.dvh import dose_axis_gy
from engine.evaluate.goals import parse_goal
from engine.evaluate.indices import NearExtremes
from engine.evaluate.plan import Evaluator, compare_grids, structure_statistics
from engine.evaluate.region import regions_of, remaining_volume
from engine.evaluate.robustness import DvhBand, dvh_bands, robustness_table
from engine.evaluate.skin_loading import SkinLoading
from engine.model.arrays import F32
from engine.model.beam import Beam, BeamletGrid
from engine.model.case import Case, Structure
from engine.model.grid import Grid
from engine.model.scenario import Scenario
from flows.report import figures
from flows.report.colours import BODY_COLOUR, ISODOSE_PERCENT, STRUCTURE_COLOURS, structure_style
from flows.report.fluence import fluence_map
from flows.report.fluence_figures import fluence_figures
from flows.report.pdf import css_text, write_pdf
from flows.report.planes import planes_through
from flows.report.summary import (
    BeamSummary,
    CaseSummary,
    ConvergenceSummary,
    DoseSummary,
    GridSummary,
    LimitRow,
    LimitsSummary,
    MadeStructure,
    ObjectiveTerm,
    PlanSummary,
    PrescriptionSummary,
    ProvenanceSummary,
    RobustnessSummary,
    ScenarioSummary,
    TechniqueSummary,
    TemplateSummary,
)
from flows.report.write import breakable, digits, fixed, page_of, signed, volume, write_plan_report

PRESCRIPTION_GY = 50.0
TARGET = "PTV <b>50</b> & $\\frac"  # must reach a reader as it is written
GOALS = (
    parse_goal(TARGET, "D95% >= 47.5 Gy", "50.10 ± 0.17 Gy (mean of institutions)"),
    parse_goal(TARGET, "D2% <= 53.5 Gy"),
    parse_goal("SpinalCord", "Dmax <= 20 Gy"),
    parse_goal("Lung_L", "V20Gy <= 30 %"),
)
SCENARIOS = (
    Scenario("nominal", probability=0.4),
    Scenario("left 5 mm", (5.0, 0.0, 0.0), 1.0, 0.15),
    Scenario("right 5 mm", (-5.0, 0.0, 0.0), 1.0, 0.15),
    Scenario("head 5 mm", (0.0, 0.0, 5.0), 1.0, 0.15),
    Scenario("3.5 % denser", (0.0, 0.0, 0.0), 1.035, 0.15),
)


def _case(spacing_mm: float) -> Case:
    """Return an elliptic water cylinder with a target cylinder, a cord and a lung of low density."""
    nx, ny, nz = round(240 / spacing_mm), round(180 / spacing_mm), round(150 / spacing_mm)
    origin = tuple(-0.5 * (n - 1) * spacing_mm for n in (nx, ny, nz))
    grid = Grid((origin[0], origin[1], origin[2]), (spacing_mm,) * 3, (nz, ny, nx))
    x, y, z = grid.centres_mm_xyz
    x, y, z = x[None, None, :], y[None, :, None], z[:, None, None]

    def soft(signed_distance_mm: np.ndarray) -> F32:
        inside = np.clip(0.5 - signed_distance_mm / spacing_mm, 0.0, 1.0)
        return np.broadcast_to(inside, grid.shape_zyx).astype(np.float32)

    body = soft((np.hypot(x / 110.0, y / 80.0) - 1.0) * 80.0)
    target = soft(np.maximum(np.hypot(x, y) - 25.0, np.abs(z) - 35.0))
    cord = soft(np.hypot(x, y - 50.0) - 8.0)
    lung = soft(np.sqrt(((x - 65.0) / 28.0) ** 2 + (y / 45.0) ** 2 + (z / 60.0) ** 2) * 28.0 - 28.0)
    ct_hu = (body - 1.0) * 1000.0 - 720.0 * lung
    structures = (
        Structure("Body", "EXTERNAL", body),
        Structure(TARGET, "TARGET", target),
        Structure("SpinalCord", "ORGAN", cord),
        Structure("Lung_L", "ORGAN", lung),
    )
    return Case("water cylinder <1>", grid, ct_hu.astype(np.float32), structures)


def _dose(case: Case, scenario: Scenario) -> F32:
    """Return a smooth dose around the target that moves and fades with the scenario."""
    x, y, z = (axis - shift for axis, shift in zip(case.grid.centres_mm_xyz, scenario.shift_mm, strict=True))
    radius_mm = np.hypot(x[None, None, :], y[None, :, None])
    fall = (
        1.0
        / (1.0 + np.exp((radius_mm - 33.0) / 4.0))
        / (1.0 + np.exp((np.abs(z)[:, None, None] - 44.0) / 4.0))
    )
    bath = 0.25 * np.exp(-((radius_mm / 80.0) ** 2))
    ripple = 1.0 + 0.01 * np.sin(x / 9.0)[None, None, :]
    dose = PRESCRIPTION_GY * (0.78 * fall + bath) * ripple / scenario.density_factor * case.external.coverage
    return dose.astype(np.float32)


class _Made:
    """A case, its doses and the filled summary."""

    def __init__(self) -> None:
        self.case, coarse_case = _case(3.0), _case(5.0)
        doses = [_dose(self.case, scenario) for scenario in SCENARIOS]
        self.dose_gy = doses[0]
        axis_gy = dose_axis_gy(max(float(dose.max()) for dose in doses))

        def evaluator(case: Case) -> Evaluator:
            return Evaluator(regions_of(case.grid, case.structures), GOALS, axis_gy, TARGET, PRESCRIPTION_GY)

        on_ct = evaluator(self.case)
        evaluations = [
            on_ct.evaluate(scenario, dose) for scenario, dose in zip(SCENARIOS, doses, strict=True)
        ]
        nominal = evaluations[0]
        optimiser = evaluator(coarse_case).evaluate(SCENARIOS[0], _dose(coarse_case, SCENARIOS[0]))
        rest = remaining_volume(regions_of(self.case.grid, self.case.structures))
        assert rest is not None
        self.bands = dvh_bands(nominal, evaluations)
        beamlets = BeamletGrid(
            (5.0, 5.0),
            np.arange(211, dtype=np.int32) % 15 - 7,
            np.arange(211, dtype=np.int32) // 15 - 7,
            np.array([0, 211]),
        )
        self.fluences = [
            fluence_map(f"B{i + 1}", beamlets, np.linspace(0.0, 50.0 + i, 211)) for i in range(7)
        ]
        self.summary = PlanSummary(
            title="Water cylinder, 7 beams & <script>alert(1)</script>",
            case=CaseSummary(
                name=self.case.name, source="built-in phantom", patient_position=self.case.patient_position,
                ct_grid=GridSummary.of(self.case.grid),
            ),
            prescription=PrescriptionSummary(
                dose_gy=PRESCRIPTION_GY, n_fraction=25, target=TARGET, rule="D95% = 95 % of prescription", factor=1.0234
            ),
            technique=TechniqueSummary(
                modality="photons", technique="IMRT", energy="6 MV", machine="generic 6 MV",
                monitor_unit="0.01 Gy per MU in water", fields="5 mm beyond the target",
                beams=tuple(
                    BeamSummary.of(
                        Beam(f"B{i + 1}", 360.0 * i / 7, 0.0, 0.0, (0.0, 0.0, -0.004), 1000.0), beamlets,
                        BeamMonitorUnits(50.0 + i, 1.5, 2.5), None if i == 6 else 900.0 + i, 81.0,
                    )
                    for i in range(7)
                ),
                skin=SkinLoading(TARGET, 5.0, 12.34, 21, 1.75, "B3"),
            ),
            templates=(
                TemplateSummary(
                    text="rings around PTV", structures=("zPTV_ring_0-5mm",), objectives=("zPTV_ring: dose fall off",)
                ),
            ),
            dose=DoseSummary(
                algorithm="pencil beam on ray-traced water-equivalent depth", hu_table="made-up table 1",
                hu_points=((-1000.0, 0.001), (0.0, 1.0)), maximum_gy=51.7, maximum_mm=(1.5, -1.5, 0.0),
                optimiser_grid=GridSummary.of(coarse_case.grid), report_grid=GridSummary.of(self.case.grid),
                lateral_cutoff_mm=50.0, threshold_fraction=1e-4, loss_bound="at most 0.4 % of the dose of a beamlet",
                measured_loss_percent=0.0831,
            ),
            volumes=nominal.statistics,
            remaining=structure_statistics(rest, rest.dvh(self.dose_gy), PRESCRIPTION_GY),
            goals=nominal.goals, indices=nominal.indices,
            robustness=RobustnessSummary(
                method="The objective was the expected value over all scenarios.", set_kind="design",
                rows=robustness_table(GOALS, nominal, evaluations, "design"),
            ),
            scenarios=tuple(ScenarioSummary.of(s, s.name != "head 5 mm", True) for s in SCENARIOS),
            grid_comparison=compare_grids(optimiser, nominal),
            convergence=ConvergenceSummary(
                solver="L-BFGS-B with bounds", evaluations=tuple(range(1, 81)),
                objectives=tuple(float(130.0 * np.exp(-i / 9.0) + 0.0042) for i in range(80)),
                terms=(
                    ObjectiveTerm(
                        structure=TARGET, function="squared underdose below 50 Gy", weight=100.0,
                        value=0.0312, unit="Gy²",
                    ),
                    ObjectiveTerm(
                        structure="SpinalCord", function="squared overdose above 18 Gy", weight=10.0,
                        value=1.2e-6, unit="Gy²",
                    ),
                ),
                stopping_reason="The relative change of the objective stayed below 1e-6 for 5 iterations.",
            ),
            provenance=ProvenanceSummary(
                nightbeam_version="0.1.0", code_digest="5f2c" * 16, store_digests={"influence": "ab12" * 16},
                libraries={"numpy": "2.0", "scipy": "1.15"}, seeds={"scenarios": 20250101},
                cpu_s={"dose": 81.25, "optimise": 12.5, "report": 1.9}, date="2025-01-01T12:00:00+00:00",
            ),
            notes=("Structure 'Couch' is empty on the CT grid and was left out.",),
        )  # fmt: skip


@pytest.fixture(scope="module")
def made() -> _Made:
    return _Made()


@pytest.fixture(scope="module")
def page(made: _Made, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report") / "new"
    path = write_plan_report(made.summary, made.case, made.dose_gy, made.bands, made.fluences, folder)
    assert path == folder / "report.html"
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "report.pdf", "summary.json"]
    loaded = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert PlanSummary.model_validate(loaded) == made.summary
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pdf(made: _Made, page: str, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("pdf") / "report.pdf"
    write_pdf(page, path, made.summary.title, "foot", made.summary.provenance.date)
    return path.read_bytes()


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] != "style":
            self.words.append(data)


def _read(page: str) -> _Text:
    parser = _Text()
    parser.feed(page)
    return parser


def test_page_warns_at_top_and_bottom_and_needs_no_other_file(page: str) -> None:
    read = _read(page)
    text = " ".join(read.words)
    assert text.count("Research use only – not for clinical use") == 2
    assert read.sources
    assert all(re.match(r"data:image/(svg\+xml|png);base64,", source) for source in read.sources)
    assert "url(" not in page
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)


def test_names_from_a_study_are_escaped(page: str) -> None:
    read = _read(page)
    assert "script" not in read.tags
    text = "".join(read.words)
    assert "Water cylinder, 7 beams & <script>alert(1)</script>" in text
    assert TARGET in text


def test_numbers_of_the_summary_are_on_the_page(page: str, made: _Made) -> None:
    text = " ".join(" ".join(_read(page).words).split())
    for goal in made.summary.goals:
        assert f"{goal.expression} {goal.limit:.2f} {goal.unit} {goal.value:.2f} {goal.unit}" in text
    assert made.summary.robustness is not None
    for row in made.summary.robustness.rows:
        assert f"{row.n_passed} of {row.n_scenario}" in text
    for expected in (
        "25 fractions of 2.000 Gy",
        f"D95% = 95 % of prescription in {TARGET}; all weights were multiplied by 1.0234",
        "7, together 371.0 MU per fraction",
        "-1000 HU → 0.001; 0 HU → 1".replace("-", "−"),
        "remaining volume at risk",
        "−37.5 to 37.5",
        "as the source of the case has it",
        "51.70 Gy (103.4 % of the prescription)",
        "5.00 × 5.00 × 5.00 mm, 48 × 36 × 30 voxels",
        "3.00 × 3.00 × 3.00 mm, 80 × 60 × 50 voxels",
        "0.0831 %",
        "1477 beamlets in 7 beams",
        "50.10 ± 0.17 Gy (mean of institutions)",
        "design weights",
        "Structure 'Couch' is empty",
        "1.2 × 10⁻⁶",
        "of the 21 beamlets that run there for more than half of their path in the target, the heaviest (beam B3) "
        "carries 1.75 times the median fluence",
        "rings around PTV",
        "zPTV_ring: dose fall off",
    ):
        assert expected in text, expected


def test_every_heading_has_content(page: str) -> None:
    for body in re.split(r"<h[23]>[^<]*</h[23]>", page)[1:]:
        assert re.search(r"<(td|dd|img|p|li)\b", body)


def test_plan_without_goals_scenarios_and_normalisation_says_so(made: _Made, tmp_path: Path) -> None:
    bare = made.summary.model_copy(
        update={
            "goals": (), "robustness": None, "indices": (), "grid_comparison": (), "notes": (),
            "scenarios": made.summary.scenarios[:1],
            "prescription": PrescriptionSummary(dose_gy=50.0, n_fraction=1, target=TARGET),
            "convergence": ConvergenceSummary(
                solver="none", evaluations=(), objectives=(), terms=(), stopping_reason="Weights were given."
            ),
        }
    )  # fmt: skip
    path = write_plan_report(bare, made.case, made.dose_gy, made.bands, made.fluences, tmp_path)
    text = " ".join(_read(path.read_text(encoding="utf-8")).words)
    assert "not normalised" in text
    assert "The study states no clinical goals." in text
    assert "Only the nominal scenario was evaluated" in text
    assert "Notes and warnings" not in text
    assert "no factor was applied" in text
    assert "isodoses of the prescription" not in text


def test_dose_on_another_grid_is_refused(made: _Made, tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="not on the CT grid"):
        write_plan_report(made.summary, made.case, made.dose_gy[1:], made.bands, made.fluences, tmp_path)


def test_summary_refuses_half_a_normalisation_and_numbers_that_are_none() -> None:
    with pytest.raises(ValidationError, match="both a rule and a factor"):
        PrescriptionSummary(dose_gy=50.0, n_fraction=25, target="PTV", factor=1.02)
    with pytest.raises(ValidationError, match="finite"):
        PrescriptionSummary(dose_gy=float("inf"), n_fraction=25, target="PTV")
    with pytest.raises(ValidationError, match="do not fit"):
        ConvergenceSummary(solver="s", evaluations=(1, 2), objectives=(1.0,), terms=(), stopping_reason="r")


def test_dvh_figure_holds_the_bands(made: _Made) -> None:
    bands = made.bands[1:]
    figure = figures.dvh_figure(bands, PRESCRIPTION_GY)
    (axes,) = figure.axes
    for band, line, colour in zip(bands, axes.get_lines(), STRUCTURE_COLOURS, strict=False):
        np.testing.assert_array_equal(line.get_xdata(), band.dose_axis_gy)
        np.testing.assert_array_equal(line.get_ydata(), band.nominal_percent)
        assert to_hex(line.get_color()) == colour
    outline = axes.collections[1].get_paths()[0].vertices
    assert {v for _, v in outline} >= set(bands[1].maximum_percent) | set(bands[1].minimum_percent)
    assert axes.get_xlabel() == "dose / Gy"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[1:] == ["SpinalCord", "Lung_L", "prescription"]
    assert list(axes.get_lines()[-1].get_xdata()) == [PRESCRIPTION_GY, PRESCRIPTION_GY]


def test_dose_figure_shows_three_planes_with_letters_and_a_scale_in_gy(made: _Made) -> None:
    figure = figures.dose_figure(
        made.case, made.dose_gy, (0.0, 0.0, 0.0), PRESCRIPTION_GY, [TARGET, "Lung_L"]
    )
    *planes, bar = figure.axes
    order = ["axial", "coronal", "sagittal"]
    planes.sort(key=lambda axes: order.index(axes.get_title().split(",")[0]))
    letters = [[text.get_text() for text in axes.texts] for axes in planes]
    assert letters == [["R", "L", "P", "A"], ["R", "L", "F", "H"], ["A", "P", "F", "H"]]
    shown = [text.get_text() for text in bar.get_yticklabels()]
    assert shown == [f"{p * 0.5:.2f} ({p:.0f} %)" for p in ISODOSE_PERCENT]
    assert "Gy" in bar.get_ylabel()


def test_dose_figure_of_no_dose_outside_of_the_ct_is_drawn(made: _Made) -> None:
    point_mm = (900.0, 0.0, 0.0)
    figure = figures.dose_figure(made.case, 0 * made.dose_gy, point_mm, PRESCRIPTION_GY, [TARGET])
    assert "sagittal, x = 118.5 mm" in [axes.get_title() for axes in figure.axes]


def test_figures_made_in_the_same_way_have_the_same_bytes(made: _Made) -> None:
    first, second = (figures.to_svg(figures.dvh_figure(made.bands, PRESCRIPTION_GY)) for _ in range(2))
    assert first == second


def test_planes_show_the_patient_as_a_radiologist_sees_them(made: _Made) -> None:
    marked = np.zeros(made.case.grid.shape_zyx, np.float32)
    marked[40, 20, 60] = 1.0  # left (x > 0), front (y < 0), head (z > 0)
    x, y, z = (float(axis[i]) for axis, i in zip(made.case.grid.centres_mm_xyz, (60, 20, 40), strict=True))
    axial, coronal, sagittal = planes_through(made.case, marked, (x, y, z), ["Lung_L"])
    for plane, row, column in ((axial, 20, 60), (coronal, 40, 60), (sagittal, 40, 20)):
        assert plane.dose_gy[row, column] == 1.0
        assert plane.dose_gy.sum() == 1.0
        assert plane.point_mm == (plane.across_mm[column], plane.up_mm[row])
    assert axial.xlim_mm[0] < axial.xlim_mm[1]  # right on the left of the page
    assert axial.ylim_mm[0] > axial.ylim_mm[1]  # back at the bottom
    assert coronal.ylim_mm[0] < coronal.ylim_mm[1]  # feet at the bottom
    assert sagittal.xlim_mm[0] < sagittal.xlim_mm[1]  # front on the left


def test_objective_axis_is_logarithmic_unless_it_holds_a_zero() -> None:
    assert figures.convergence_figure([1, 2, 3], [3.0, 1.0, 0.1]).axes[0].get_yscale() == "log"
    assert figures.convergence_figure([1, 2, 3], [3.0, 1.0, 0.0]).axes[0].get_yscale() == "linear"


def test_labels_print_literally_whatever_they_hold() -> None:
    assert figures.label("_hidden") == " _hidden"
    assert figures.label("a$b$") == r"a\$b\$"
    assert figures.label("肺\n") == "□□"
    assert figures.label("x" * 64) == "x" * 27 + "…"
    names = ["$\\frac", "_x", "肺", TARGET]
    axis = np.linspace(0.0, 1.0, 5)
    bands = [
        DvhBand(name, "ORGAN", axis, 100 * (1 - axis), 100 * (1 - axis), 100 * (1 - axis)) for name in names
    ]
    figure = figures.dvh_figure(bands, 1.0)
    assert figures.to_svg(figure)  # a formula or a missing glyph would raise here
    assert len(figure.legends[0].get_texts()) == 5


def test_many_structures_differ_in_colour_or_line_style() -> None:
    styles = [structure_style(place) for place in range(4 * len(STRUCTURE_COLOURS))]
    assert len(set(styles)) == len(styles)


def test_numbers_are_printed_as_physicists_print_them() -> None:
    assert fixed(-0.001) == "0.00"
    assert fixed(-1.005, 1) == "−1.0"
    assert fixed(None) == "–"
    assert signed(0.25) == "+0.25"
    assert signed(-0.25) == "−0.25"
    assert signed(-0.0) == "0.00"
    assert digits(0.000012345, 3) == "1.23 × 10⁻⁵"
    assert digits(120.0) == "120"
    assert [volume(cc) for cc in (12.345, 0.0421, 0.0042)] == ["12.35", "0.042", "0.0042"]
    assert breakable("a_b<c_" + "x" * 30) == "a_<wbr>b&lt;c_<wbr>" + "x" * 30
    assert breakable("a_b<c") == "a_b&lt;c"
    assert "<wbr>" not in breakable("Parotid_L without PTV_7000, PTV_6300, PTV_5600")


def test_writers_are_imported_without_matplotlib() -> None:
    script = "import sys, flows.report.write; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_pictures_are_whole_svg_files(page: str) -> None:
    pictures = re.findall(r"base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) == 4
    for picture in map(base64.b64decode, pictures):
        assert picture.rstrip().endswith((b"</svg>", b"IEND\xaeB`\x82"))


def test_pdf_holds_its_fonts_and_is_the_same_file_again(
    made: _Made, page: str, pdf: bytes, tmp_path: Path
) -> None:
    assert pdf.startswith(b"%PDF-")
    names = {
        name.split(b"+")[-1]
        for name in re.findall(rb"/FontName /([A-Z]{6}\+[\w-]+)", b"".join(_streams(pdf)) + pdf)
    }
    assert names == {b"DejaVuSans", b"DejaVuSans-Bold", b"DejaVuSansMono"}
    write_pdf(page, tmp_path / "again.pdf", made.summary.title, "foot", made.summary.provenance.date)
    assert _without_subset_names((tmp_path / "again.pdf").read_bytes()) == _without_subset_names(pdf)


def _streams(pdf: bytes) -> list[bytes]:
    """Return what is packed in a PDF, as far as it is packed with zlib."""
    found = []
    for packed in re.findall(rb"stream\r?\n(.*?)endstream", pdf, re.S):
        with contextlib.suppress(zlib.error):
            found.append(zlib.decompressobj().decompress(packed))
    return found


def _without_subset_names(pdf: bytes) -> bytes:
    return re.sub(rb"[A-Z]{6}\+DejaVu", b"DejaVu", pdf)


def test_pdf_fonts_do_not_come_from_the_machine(page: str, pdf: bytes, tmp_path: Path) -> None:
    (tmp_path / "fonts.conf").write_text("<fontconfig></fontconfig>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    script = (
        "import sys, pathlib, flows.report.pdf as p; f = pathlib.Path(sys.argv[1]);"
        "p.write_pdf((f / 'page.html').read_text('utf-8'), f / 'a.pdf', *sys.argv[2:])"
    )
    environment = {
        **os.environ,
        "FONTCONFIG_FILE": str(tmp_path / "fonts.conf"),
        "FONTCONFIG_PATH": str(tmp_path),
    }
    title, date = "Water cylinder, 7 beams & <script>alert(1)</script>", "2025-01-01T12:00:00+00:00"
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), title, "foot", date], check=True, env=environment
    )
    assert _without_subset_names((tmp_path / "a.pdf").read_bytes()) == _without_subset_names(pdf)


def test_pdf_takes_nothing_from_outside_of_the_page(tmp_path: Path) -> None:
    secret = tmp_path / "secret.svg"
    secret.write_text("<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><text>x</text></svg>")
    with_image, without = tmp_path / "with.pdf", tmp_path / "without.pdf"
    date = "2025-01-01T12:00:00+00:00"
    write_pdf(f"<p>a</p><img width=9 height=9 src='{secret.as_uri()}'>", with_image, "t", "f", date)
    write_pdf("<p>a</p><img width=9 height=9>", without, "t", "f", date)
    assert with_image.read_bytes() == without.read_bytes()


def test_a_label_in_the_running_header_cannot_leave_its_string() -> None:
    assert css_text('a"} b\\') == '"a\\22 \\7d  b\\5c "'
    assert css_text("µ ä \N{GREEK SMALL LETTER BETA}") == '"µ ä β"'
    assert len(css_text("x" * 300)) == 92


def test_body_has_a_grey_histogram_that_takes_no_colour(made: _Made) -> None:
    figure = figures.dvh_figure(made.bands, PRESCRIPTION_GY)
    body, first = figure.axes[0].get_lines()[:2]
    assert (to_hex(body.get_color()), to_hex(first.get_color())) == (BODY_COLOUR, STRUCTURE_COLOURS[0])


def test_fluence_lies_where_its_beamlets_are() -> None:
    beamlets = BeamletGrid(
        (5.0, 10.0), np.array([-1, 1], np.int32), np.array([2, 3], np.int32), np.array([0, 2])
    )
    one = fluence_map("1", beamlets, np.array([7.0, 9.0]))
    np.testing.assert_array_equal(one.x_edges_mm, [-7.5, -2.5, 2.5, 7.5])
    np.testing.assert_array_equal(one.y_edges_mm, [15.0, 25.0, 35.0])
    np.testing.assert_array_equal(one.mu, [[7.0, np.nan, np.nan], [np.nan, np.nan, 9.0]])


def test_fluence_of_many_beams_goes_to_several_figures_with_one_scale(made: _Made) -> None:
    drawn = fluence_figures([*made.fluences, *made.fluences])
    assert len(drawn) == 2
    meshes = [axes.collections[0] for figure in drawn for axes in figure.axes if axes.get_title()]
    assert len(meshes) == 14
    assert {mesh.get_clim() for mesh in meshes} == {(0.0, 56.0)}
    assert "Y of the collimator / mm" in [axes.get_ylabel() for axes in drawn[0].axes]
    assert "fluence / MU per fraction" in [axes.get_ylabel() for axes in drawn[0].axes]
    dark = fluence_map(
        "dark", BeamletGrid((5.0, 5.0), *(np.zeros(1, np.int32),) * 2, np.array([0, 1])), np.zeros(1)
    )
    assert len(fluence_figures([dark])) == 1


def _words(summary: PlanSummary) -> str:
    page = page_of("plan.html.j2", summary, {"dvh": [], "dose": [], "fluence": []})
    return " ".join(" ".join(_read(page).words).split())


def test_a_small_target_is_reported_after_icru_91(made: _Made) -> None:
    (index,) = made.summary.indices
    near = NearExtremes(46.25, 51.25, "D35mm3")
    small = made.summary.model_copy(update={"indices": (replace(index, volume_cc=1.5, near=near),)})
    text = _words(small)
    assert "The target is smaller than 2 cm³" in text
    assert "46.25" in text


def test_margins_and_overrides_of_the_study_are_told(made: _Made) -> None:
    update = {
        "made_structures": (
            MadeStructure(name=TARGET, how="CTV + 5 mm in all directions"),
            MadeStructure(name="ring", how="20 mm around the PTV"),
        ),
        "dose": made.summary.dose.model_copy(
            update={"densities": ("density: 'implant' (1 cc) has relative electron density 3.735",)}
        ),
    }
    text = _words(made.summary.model_copy(update=update))
    implant = "'implant' (1 cc) has relative electron density 3.735"
    for expected in ("CTV + 5 mm in all directions", "ring: 20 mm around the PTV", implant):
        assert expected in text


def _limit(value: float, met: bool) -> LimitRow:
    return LimitRow(
        structure="SpinalCord", function="gEUD (a 8)", sense="at most", limit=20.0, plan_limit=20.0 if met else 23.1,
        unit="Gy", value=value, worst_scenario="left 5 mm", full_dose=19.47, met=met, step="1 Gy", buys=12.25,
        buys_percent=3.5,
    )  # fmt: skip


def test_a_limit_that_is_met_is_told_with_its_worst_scenario_and_what_it_costs(made: _Made) -> None:
    limits = LimitsSummary(rows=(_limit(19.98, True),))
    text = _words(made.summary.model_copy(update={"limits": limits}))
    assert "SpinalCord gEUD (a 8) ≤ 20 Gy 19.98 Gy left 5 mm 19.47 Gy ✓ met 12.2 per 1 Gy 3.5" in text
    assert "limit of this plan" not in text
    assert "Not all limits are met" not in text


def test_a_limit_that_cannot_be_met_is_told_with_the_one_of_the_plan_and_why(made: _Made) -> None:
    limits = LimitsSummary(rows=(_limit(23.08, False),), diagnosis=("These <2> fight.",))
    text = _words(made.summary.model_copy(update={"limits": limits}))
    assert "SpinalCord gEUD (a 8) ≤ 20 Gy 23.1 Gy 23.08 Gy left 5 mm 19.47 Gy ✗ exceeded" in text
    assert "Not all limits are met. These <2> fight." in text
