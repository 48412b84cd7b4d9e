"""Study files: what is accepted, and how mistakes are told."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.errors import StudyError
from engine.spec.study import load_study
from flows.cli import main
from flows.front import pareto_spec
from flows.keys import list_keys
from tests.e2e.small_study import STUDY

REPOSITORY = Path(__file__).parents[3]
STUDIES = [path for path in sorted((REPOSITORY / "examples").glob("*.toml")) if "[beams]" in path.read_text()]
"""Others are batches and clusters."""


@pytest.mark.parametrize("example", STUDIES, ids=lambda p: p.name)
def test_every_example_is_a_good_study(example):
    assert load_study(example).objectives


BEFORE_OPTIMISATION = """
report_grid_mm = 5.0
lateral_cutoff_mm = 40.0

[scenarios]
setup = "axes"
shift_mm = 4.0

[optimisation]"""
BROKEN = {
    "not toml": ("name = ", "name == ", "not valid TOML"),
    "a typo in a key": ("normalise", "normalize", "prescription.normalize"),
    "a typo in a table": ("[dose]", "[doze]", "doze"),
    "a missing key": ("fractions = 10\n", "", "prescription.fractions: this key is needed"),
    "text for a number": ("dose_gy = 20.0\nfractions", 'dose_gy = "much"\nfractions', "prescription.dose_gy"),
    "a negative dose": ("dose_gy = 20.0\nfractions", "dose_gy = -20.0\nfractions", "greater than 0"),
    "an unreadable normalisation": ("D95% = 100 %", "D95 is good", "D95 is good"),
    "an impossible volume": ("D95% = 100 %", "D100% = 100 %", "not understood"),
    "an unknown function": ('"squared_deviation"', '"cubed_deviation"', "known are squared_overdose"),
    "a function without its dose": ("dose_gy = 8.0\n", "", "objectives[1]: needs dose_gy or reference_dose"),
    "a key of another function": (
        'function = "mean"',
        'function = "mean"\ndose_gy = 3.0',
        "objectives[2].dose_gy",
    ),
    "an aim without its dose": (
        'function = "mean"',
        'function = "lower_mean_tail"\nvolume_percent = 5.0',
        "objectives[2]: needs dose_gy, the dose to reach",
    ),
    "an objective without sides for a voxel-wise worst case": (
        'robust = "composite_worst_case"\nmax_evaluations = 60\n\n[[objectives]]',
        'robust = "voxel_worst_case"\n\n[[objectives]]\nstructure = "Target"\nfunction = "homogeneity"\n'
        "weight = 1.0\n\n[[objectives]]",
        "objectives[0]: a voxel-wise worst case cannot judge 'homogeneity'",
    ),
    "EQD2 without its ratio": (
        'function = "mean"',
        'function = "mean"\neqd2 = {}',
        "objectives[2].eqd2.alpha_beta_gy: this key is needed",
    ),
    "a fall-off from nothing": (
        'function = "mean"',
        'function = "dose_fall_off"\nfrom_structure = "Tumour"\nnear_gy = 18.0\nfar_gy = 4.0\nfall_off_per_mm = 0.1',
        "objectives[2].from_structure: the case has no structure 'Tumour'",
    ),
    "an unreadable goal": ("D95% >= 20 Gy", "D95% is 20 Gy", "goals[0]"),
    "a constraint on a plan that is scaled afterwards": (
        "[[goals]]",
        '[[constraints]]\nstructure = "BODY"\nfunction = "mean"\nat_most = 5.0\n\n[[goals]]',
        "constraints: normalise = 'D95% = 100 %' would scale the plan out of its limits",
    ),
    "a goal in the wrong unit": ("D95% >= 20 Gy", "D95% >= 20 cc", "goals[0]"),
    "an unknown machine": ('"generic-6mv"', '"linac 3"', "beams.machine"),
    "an unknown engine": ('"photon_pencil_beam"', '"best"', "dose.engine"),
    "an unknown robust form": ('"composite_worst_case"', '"worst"', "optimisation.robust"),
    "a worst part without its size": (
        '"composite_worst_case"',
        '"cvar"',
        "optimisation: robust = 'cvar' needs worst_percent",
    ),
    "a worst part of a form that has none": (
        "max_evaluations = 60",
        "max_evaluations = 60\nworst_percent = 10.0",
        "optimisation.worst_percent: is for robust = 'cvar', 'soft_worst_case', 'percentile' alone",
    ),
    "a percentile that nothing exceeds": (
        '"composite_worst_case"',
        '"percentile"\nworst_percent = 100.0',
        "optimisation.worst_percent: 100 % exceed no percentile",
    ),
    "a worst part of nothing": (
        '"composite_worst_case"',
        '"cvar"\nworst_percent = 0.0',
        "optimisation.worst_percent: Input should be greater than 0",
    ),
    "a percentile of chosen scenarios": (
        '"composite_worst_case"',
        '"percentile"\nworst_percent = 10.0',
        "have no percentiles; use 'cvar'",
    ),
    "scenario generation for a mean": (
        '"composite_worst_case"',
        '"expected"\nscenario_generation = true',
        "optimisation.scenario_generation: robust = 'expected' cannot do with fewer scenarios",
    ),
    "an unknown solver": ("max_evaluations = 60", 'solver = "simplex"', "optimisation.solver"),
    "a seed of a solver without random moves": (
        "max_evaluations = 60",
        'solver = "newton_cg"\nseed = 3',
        "optimisation.seed: is for solver = 'simulated_annealing' alone",
    ),
    "no linear program for the primal-dual solver": (
        "max_evaluations = 60",
        'solver = "primal_dual"',
        "these are not linear: Target: squared deviation",
    ),
    "two equal beams": ("[0, 90, 200]", "[0, 90, 90]", "same angles"),
    "no beams": ("[0, 90, 200]", "[]", "beams.gantry_deg"),
    "too few couch angles": ("beamlet_mm", "couch_deg = [0, 10]\nbeamlet_mm", "2 angles for 3 beams"),
    "shifted doses without setup errors": (
        'setup = "axes"\nshift_mm = 4.0\n\n[optimisation]',
        'density_factors = [0.97, 1.03]\n\n[optimisation]\nscenario_dose = "shifted"',
        "'shifted' needs setup scenarios",
    ),
    "shifted doses on points further apart than beamlets": (
        f"8.0{BEFORE_OPTIMISATION}",
        f'10.0{BEFORE_OPTIMISATION}\nscenario_dose = "shifted"',
        "'shifted' needs a dose.grid_mm finer than the beamlets",
    ),
    "shifted doses and scenario generation": (
        "[optimisation]",
        '[optimisation]\nscenario_dose = "shifted"\nscenario_generation = true',
        "cannot be combined with scenario_dose",
    ),
    "shifted doses of a plan that looks at none": (
        'robust = "composite_worst_case"',
        'robust = "nominal"\nscenario_dose = "shifted"',
        "optimisation.scenario_dose: 'shifted' is for a robust form",
    ),
    "a robust plan without scenarios": (
        '[scenarios]\nsetup = "axes"\nshift_mm = 4.0',
        "",
        "needs [scenarios]",
    ),
    "a shift of nothing": ("shift_mm = 4.0", "shift_mm = 0.0", "needs a positive shift_mm"),
    "random shifts without a number": ('setup = "axes"', 'setup = "random"', "needs number"),
    "a density factor of one": (
        "shift_mm = 4.0",
        "shift_mm = 4.0\ndensity_factors = [1.0]",
        "makes no sense",
    ),
    "two sources": ('phantom = "water-box"', 'phantom = "water-box"\nimported = "x"', "exactly one of"),
    "no source": ('phantom = "water-box"\n', "", "exactly one of"),
    "a series of a phantom": (
        'phantom = "water-box"',
        'phantom = "water-box"\nseries = "3"',
        "series can be given with dicom only",
    ),
    "a structure set of an imported case": (
        'phantom = "water-box"\nhu_table = "phantom"',
        'imported = "x"\nhu_table = "t.csv"\nstructure_set = "plan"',
        "made by `nightbeam import`",
    ),
    "second images of a phantom": (
        'phantom = "water-box"',
        'phantom = "water-box"\nsecond = ["MR"]',
        "second can be given with dicom only",
    ),
    "the outline of a phantom": (
        'phantom = "water-box"',
        'phantom = "water-box"\nexternal = "BODY"',
        "external cannot be given with phantom",
    ),
    "no HU table": ('hu_table = "phantom"\n', "", "case.hu_table: this key is needed"),
    "a criterion nobody has": ('["target", "body", "mean"]', '["target", "body", "lung"]', "lung"),
    "two criteria": ('["target", "body", "mean"]', '["target", "body"]', "pareto.criteria"),
    "no objectives": ("[[objectives]]", "[[targets]]", "objectives"),
    "an infinite weight": ("weight = 100.0", "weight = inf", "objectives[0].weight"),
    "three criteria of which two are one": (
        '["target", "body", "mean"]',
        '["target", "body", "body"]',
        "pareto.criteria: a criterion is named twice",
    ),
    "fewer than ten plans of a front": ("divisions = 3", "divisions = 2", "pareto.divisions"),
    "a shift that nobody would use": ('setup = "axes"\n', "", "scenarios.shift_mm: a shift means nothing"),
    "a seed without random shifts": (
        "shift_mm = 4.0",
        "shift_mm = 4.0\nseed = 3",
        "scenarios.seed: seed is for",
    ),
    "a number of shifts that are not random": (
        "shift_mm = 4.0",
        "shift_mm = 4.0\nnumber = 3",
        "scenarios.number: number is for",
    ),
    "a density factor twice": (
        "shift_mm = 4.0",
        "shift_mm = 4.0\ndensity_factors = [0.97, 1.03, 0.97]",
        "scenarios.density_factors: a density factor is given twice",
    ),
    "two beams a whole turn apart": ("[0, 90, 200]", "[0, 90, 360]", "beams: two beams have the same angles"),
    "two beams a whole turn of the couch apart": (
        "[0, 90, 200]",
        "[0, 90, 90]\ncouch_deg = [0, -90, 270]",
        "beams: two beams have the same angles",
    ),
    "a truth value for a whole number": ("fractions = 10", "fractions = true", "prescription.fractions: "),
    "a truth value for a number": ("beamlet_mm = 10.0", "beamlet_mm = true", "beams.beamlet_mm: "),
    "a truth value among numbers": ("[0, 90, 200]", "[0, 90, true]", "beams.gantry_deg[2]: "),
    "a truth value for one or more numbers": ("shift_mm = 4.0", "shift_mm = true", "scenarios.shift_mm: "),
    "a number as text": ("dose_gy = 20.0\nfractions", 'dose_gy = "50"\nfractions', "prescription.dose_gy: "),
    "a function's number as text": ("dose_gy = 8.0", 'dose_gy = "8.0"', "objectives[1].dose_gy: "),
    "a number for a truth value": ("weight = 20.0", "weight = 20.0\nrobust = 0", "objectives[1].robust: "),
    "a date for text": ('name = "small"', "name = 2025-01-01", "name: "),
    "the phantoms' HU table for an imported patient": (
        'phantom = "water-box"',
        'imported = "head"',
        "case.hu_table: 'phantom' is the table of the built-in phantoms",
    ),
    "the phantoms' HU table for a patient's files": (
        'phantom = "water-box"',
        'dicom = "scans"',
        "case.hu_table: 'phantom' is the table of the built-in phantoms",
    ),
    "a cut-off beyond reason": (
        "lateral_cutoff_mm = 40.0",
        "lateral_cutoff_mm = 4e9",
        "dose.lateral_cutoff_mm",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_study_is_told_with_its_key(kind, tmp_path):
    old, new, expected = BROKEN[kind]
    assert old in STUDY
    path = tmp_path / "broken.toml"
    path.write_text(STUDY.replace(old, new))
    answer = CliRunner().invoke(main, ["check", str(path)])
    assert answer.exit_code == 2
    assert expected in answer.output
    assert "Traceback" not in answer.output


def test_whole_numbers_lists_and_paths_are_taken_where_they_fit(tmp_path):
    path = tmp_path / "whole.toml"
    path.write_text(
        STUDY.replace("beamlet_mm = 10.0", "beamlet_mm = 10\nisocentre_mm = [1, 2, 3]")
        .replace('phantom = "water-box"', 'dicom = "scans"')
        .replace('hu_table = "phantom"', 'hu_table = "ct.csv"')
        .replace("shift_mm = 4.0", "shift_mm = [4, 3, 2]")
        .replace("dose_gy = 8.0", "dose_gy = 8")
    )
    study = load_study(path)
    assert study.beams.beamlet_mm == 10.0
    assert study.beams.isocentre_mm == (1.0, 2.0, 3.0)
    assert study.case.dicom == Path("scans")
    assert study.scenarios.shift_mm == (4.0, 3.0, 2.0)
    assert study.objectives[1].function.dose_gy == 8.0
    assert study.objectives[1].excluding == ("Target",)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("three criteria of which two are one", "criteria"),
        ("fewer than ten plans of a front", "divisions"),
        ("a shift that nobody would use", "shift_mm"),
        ("a seed without random shifts", "seed"),
        ("a density factor twice", "density_factors"),
        ("two beams a whole turn apart", "[beams]"),
        ("a truth value for one or more numbers", "shift_mm"),
        ("the phantoms' HU table for an imported patient", "hu_table"),
    ],
)
def test_a_mistake_between_keys_is_told_with_the_line_of_one(kind, key, tmp_path):
    old, new, _ = BROKEN[kind]
    path = tmp_path / "broken.toml"
    path.write_text(STUDY.replace(old, new))
    (line,) = (n for n, text in enumerate(path.read_text().splitlines(), 1) if text.startswith(key))
    with pytest.raises(StudyError, match=rf"\n  line {line}: "):
        load_study(path)


def test_random_shifts_may_have_a_seed(tmp_path):
    path = tmp_path / "random.toml"
    path.write_text(STUDY.replace('setup = "axes"', 'setup = "random"\nnumber = 5\nseed = 3'))
    assert len(load_study(path).scenarios.scenarios()) == 6


def test_mistakes_are_told_with_their_lines(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text(
        STUDY.replace("weight = 20.0", "weight = -20.0").replace("fractions = 10", "fractions = 0")
    )
    lines = path.read_text().splitlines()
    with pytest.raises(StudyError) as error:
        load_study(path)
    assert f"line {lines.index('weight = -20.0') + 1}: objectives[1].weight" in str(error.value)
    assert f"line {lines.index('fractions = 0') + 1}: prescription.fractions" in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(StudyError, match="cannot read the file"):
        load_study(path)


def test_the_list_of_keys_names_every_table_and_function():
    keys = list_keys()
    for name in (
        "dvh_mean_tail",
        "fall_off_per_mm",
        "ratio of the linear-quadratic model",
        "[case]",
        "[beams]",
        "[[objectives]]",
        "[[goals]]",
        "[pareto]",
        "squared_underdose",
        "margin_mm",
    ):
        assert name in keys


def test_help_teaches_the_first_steps():
    answer = CliRunner().invoke(main, ["--help"])
    assert "nightbeam plan examples/tg119_cshape.toml" in answer.output
    assert "research software" in answer.output


UNSCALED = STUDY.replace('"D95% = 100 %"', '"none"')


def with_constraint(lines):
    return f'{UNSCALED}\n[[constraints]]\nstructure = "Target"\n{lines}\n'


WRONG_CONSTRAINTS = {
    "no limit": ('function = "mean"', "constraints[0]: needs at_most or at_least"),
    "two limits": (
        'function = "mean"\nat_most = 5.0\nat_least = 3.0',
        "constraints[0]: needs at_most or at_least",
    ),
    "the limit twice": (
        'function = "geud"\na = 2.0\nat_most = 5.0\ndose_gy = 5.0',
        "constraints[0]: the limit is at_most; leave dose_gy out",
    ),
    "its side twice": (
        'function = "geud"\na = 2.0\nat_most = 5.0\nlimit = "upper"',
        "constraints[0]: at_most says which side is limited; leave limit out",
    ),
    "a hot spot asked for": (
        'function = "smooth_maximum"\ntemperature_gy = 0.5\nat_least = 5.0',
        "constraints[0]: 'smooth_maximum': the function punishes something",
    ),
    "a cold spot asked for": (
        'function = "lower_mean_tail"\nvolume_percent = 5.0\nat_most = 5.0',
        "constraints[0]: 'lower_mean_tail': the function tells how cold",
    ),
    "an exponent of the other side": (
        'function = "geud"\na = -2.0\nat_most = 5.0',
        "an upper limit needs a >= 1",
    ),
    "a limit of nothing": (
        'function = "mean"\nat_most = 0.0',
        "constraints[0].at_most: Input should be greater than 0",
    ),
    "a weight": (
        'function = "mean"\nat_most = 5.0\nweight = 3.0',
        "constraints[0].weight: there is no such key",
    ),
    "no function": ("at_most = 5.0", "constraints[0].function: this key is needed"),
    "a function without its own key": (
        'function = "squared_overdose"\nat_most = 5.0',
        "constraints[0]: needs dose_gy or reference_dose",
    ),
    "itself excluded": (
        'function = "mean"\nat_most = 5.0\nexcluding = ["Target"]',
        "constraints[0].excluding: names",
    ),
}


@pytest.mark.parametrize(("lines", "told"), WRONG_CONSTRAINTS.values(), ids=WRONG_CONSTRAINTS.keys())
def test_a_wrong_constraint_is_told_with_its_line(tmp_path, lines, told):
    path = tmp_path / "study.toml"
    path.write_text(with_constraint(lines))
    with pytest.raises(StudyError) as error:
        load_study(path)
    assert told in str(error.value)
    line = int(re.search(r"line (\d+): constraints", str(error.value))[1])
    assert line >= path.read_text().splitlines().index("[[constraints]]") + 1


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('function = "mean"\nat_least = 5.0', "Target: mean at least 5 Gy"),
        ('function = "geud"\na = 8.0\nat_most = 5.0', "Target: gEUD (a 8) at most 5 Gy"),
        (
            'function = "dvh_mean_tail"\nvolume_percent = 95.0\nat_least = 20.0',
            "Target: DVH mean tail (volume 95 %) at least 20 Gy",
        ),
        (
            'function = "squared_overdose"\ndose_gy = 21.0\nat_most = 0.5',
            "Target: squared overdose (dose 21 Gy) at most 0.5 Gy²",
        ),
        (
            'function = "smooth_minimum"\ntemperature_gy = 0.5\nat_least = 19.0',
            "Target: smooth minimum (temperature 0.5 Gy) at least 19 Gy",
        ),
    ],
)
def test_a_constraint_is_what_its_words_say(tmp_path, lines, words):
    path = tmp_path / "study.toml"
    path.write_text(with_constraint(lines))
    (constraint,) = load_study(path).constraints
    assert constraint.constraint(0, 10).in_words() == words


@pytest.mark.parametrize("solver", ["simulated_annealing", "highs"])
def test_a_constraint_for_a_solver_that_knows_none_is_told(tmp_path, solver):
    path = tmp_path / "study.toml"
    text = with_constraint('function = "mean"\nat_most = 5.0')
    path.write_text(text.replace("max_evaluations = 60", f'solver = "{solver}"'))
    with pytest.raises(
        StudyError, match=f"optimisation.solver: solver '{solver}' knows no hard constraints; use"
    ):
        load_study(path)


def test_structures_of_constraints_are_looked_for_in_the_case(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(with_constraint('function = "mean"\nat_most = 5.0\nexcluding = ["Core"]'))
    assert ("constraints[0].excluding", "Core") in load_study(path).structure_names()


def test_a_front_of_a_study_with_constraints_is_refused(tmp_path):
    path = tmp_path / "study.toml"
    path.write_text(with_constraint('function = "mean"\nat_most = 5.0'))
    with pytest.raises(StudyError, match="which a Pareto front does not know"):
        pareto_spec(load_study(path))
