"""Broken and hostile study files: status 2, one message that names the key and the line, and no traceback."""

import pytest
from click.testing import CliRunner

from flows.cli import main
from tests.e2e.small_study import STUDY

SHIFT = "shift_mm = 4.0"
DOSE = "dose_gy = 20.0\nfractions"
BEAMLET = "beamlet_mm = 10.0"

# What is replaced, by what, how the line begins that has to be named, and the key and what else the message says.
WITH_A_LINE = {
    "a table written as an array": ("[prescription]", "[[prescription]]", "[[presc", "prescription: this is a table"),
    "an array written as a table": ("[[goals]]", "[goals]", "[goals]", "goals: "),
    "an unknown key at the top": ('name = "small"', 'name = "small"\ncolour = 3', "colour", "colour: there is no"),
    "an unknown key of the case": ("hu_table", 'patient = "x"\nhu_table', "patient", "case.patient: there is no"),
    "an unknown key of the beams": (BEAMLET, f"margin_cm = 1\n{BEAMLET}", "margin_cm", "beams.margin_cm: there is"),
    "an unknown key of the scenarios": (SHIFT, f"{SHIFT}\nshift_cm = 1", "shift_cm", "scenarios.shift_cm: there"),
    "an unknown key of the optimisation": (
        "max_evaluations", "iterations = 3\nmax_evaluations", "iterations", "optimisation.iterations: there is",
    ),
    "an unknown key of a goal": ('goal = "D95', 'weigth = 1\ngoal = "D95', "weigth", "goals[0].weigth: there is no"),
    "an unknown key of the front": ("divisions", "plans = 10\ndivisions", "plans", "pareto.plans: there is no"),
    "a key in another unit": (DOSE, "dose_cgy = 2000.0\nfractions", "dose_cgy", "prescription.dose_cgy: there is"),
    "a unit in the value": (DOSE, 'dose_gy = "20 Gy"\nfractions', "dose_gy", "prescription.dose_gy: "),
    "a list for a number": (DOSE, "dose_gy = [20.0]\nfractions", "dose_gy", "prescription.dose_gy: "),
    "a date for a number": (DOSE, "dose_gy = 2020-01-01\nfractions", "dose_gy", "prescription.dose_gy: "),
    "a time for a number": (DOSE, "dose_gy = 12:00:00\nfractions", "dose_gy", "prescription.dose_gy: "),
    "text for a list": ("[0, 90, 200]", '"0, 90, 200"', "gantry_deg", "beams.gantry_deg: "),
    "a fraction of a fraction": ("fractions = 10", "fractions = 10.5", "fractions", "prescription.fractions: "),
    "no number among numbers": ("[0, 90, 200]", "[0, nan, 200]", "gantry_deg", "beams.gantry_deg[1]: "),
    "a length that is no number": (BEAMLET, "beamlet_mm = nan", "beamlet_mm", "beams.beamlet_mm: "),
    "an infinite length": (BEAMLET, "beamlet_mm = 1e400", "beamlet_mm", "beams.beamlet_mm: "),
    "a length of 400 digits": (BEAMLET, f"beamlet_mm = {'9' * 400}", "beamlet_mm", "beams.beamlet_mm: "),
    "a whole number of 400 digits": ("fractions = 10", f"fractions = {'9' * 400}", "fractions", "prescription.frac"),
    "a whole number of 5000 digits": ("fractions = 10", f"fractions = {'9' * 5000}", "fractions", "too many digits"),
    "ten thousand beams": ("[0, 90, 200]", str([n / 100 for n in range(10_000)]), "gantry_deg", "beams.gantry_deg"),
    "an isocentre in a plane": (BEAMLET, f"{BEAMLET}\nisocentre_mm = [1, 2]", "isocentre", "beams.isocentre_mm"),
    "a voxel of no size": ("grid_mm = 8.0\n", "grid_mm = 0\n", "grid_mm", "dose.grid_mm: "),
    "a voxel of ten centimetres": ("grid_mm = 8.0\n", "grid_mm = 100\n", "grid_mm", "dose.grid_mm: "),
    "a shift of two numbers": (SHIFT, "shift_mm = [1, 2]", "shift_mm", "scenarios.shift_mm"),
    "a shift of a kilometre": (SHIFT, "shift_mm = 1e6", "[scenarios]", "shift_mm is larger than 200 mm"),
    "a billion shifts": ('"axes"', '"random"\nnumber = 1_000_000_000', "number", "scenarios.number: "),
    "a negative seed": ('"axes"', '"random"\nnumber = 3\nseed = -1', "seed", "scenarios.seed: "),
    "a probability of 1.5": (
        SHIFT, f"{SHIFT}\nnominal_probability = 1.5", "[scenarios]", "scenarios: nominal probability 1.5",
    ),
    "a probability without scenarios": (
        'setup = "axes"\nshift_mm = 4.0', "nominal_probability = 0.5", "nominal_prob", "scenarios.nominal_probability",
    ),
    "a density of nothing": (SHIFT, f"{SHIFT}\ndensity_factors = [0.0]", "[scenarios]", "scenarios: density factor"),
    "no structure": ('structure = "Target"\nfunction', "function", "[[objectives]]", "objectives[0].structure: this"),
    "no function": ('function = "squared_deviation"\n', "", "[[objectives]]", "objectives[0].function: this key is"),
    "a number for a function": ('"squared_deviation"', "3", "function", "objectives[0].function: unknown"),
    "text for a list of structures": (
        'excluding = ["Target"]', 'excluding = "Target"', "excluding", "objectives[1].excluding: ",
    ),
    "a structure without itself": (
        'excluding = ["Target"]', 'excluding = ["BODY"]', "excluding", "objectives[1].excluding: names the objective's",
    ),
    "an unknown measure of a goal": ("D95% >=", "Q95% >=", "[[goals]]", "goals[0]: "),
    "more than all of a structure": ("D95% >=", "D195% >=", "[[goals]]", "goals[0]: "),
    "an empty goal": ("D95% >= 20 Gy", "", "[[goals]]", "goals[0]: "),
    "an unknown phantom": ('"water-box"', '"moon"', "phantom", "case.phantom: there is no phantom 'moon'"),
    "a series of a phantom": ("hu_table", 'series = "1.2"\nhu_table', "[case]", "series can be given with dicom only"),
    "a normalisation to ten thousand per cent": ("= 100 %", "= 10000 %", "[prescription]", "is not understood"),
    "escapes in a name": ('"small"', '"\\u001b[2Jsmall"', "name", "name: has a control character"),
    "escapes in a key": (BEAMLET, f'"\\u001b[2J\\nx" = 1\n{BEAMLET}', "[beams]", "beams.?[2J?x: there is no such key"),
    "a key of 100000 characters": (BEAMLET, f"{'a' * 100_000} = 1\n{BEAMLET}", "aaa", "1000 characters"),
    "keys of keys, 20000 deep": ('name = "small"', f"x{'.a' * 20_000} = 1", "x.a", "1000 characters"),
    "lists of lists, 20000 deep": (
        'name = "small"', f'name = "small"\nx = {"[" * 20_000}{"]" * 20_000}', "x = [", "nests too deeply",
    ),
    "a key twice": ("fractions = 10", "fractions = 10\nfractions = 12", "fractions = 12", "not valid TOML"),
    "a table twice": ("[pareto]", "[dose]\ngrid_mm = 3\n[pareto]", "[dose]\ngrid_mm = 3", "('dose',) twice"),
    "a key without a value": ("fractions = 10", "fractions", "fractions", "not valid TOML"),
    "a text that never ends": ('"small"', '"small', "name", "not valid TOML"),
    "a list that never ends": ("divisions = 3", "divisions = [3", "divisions", "not valid TOML"),
    "an unknown escape": ('"small"', '"sm\\qall"', "name", "not valid TOML"),
    "a control character": (BEAMLET, f"{BEAMLET} # \x1b[2J", "beamlet_mm", "not valid TOML"),
    "a zero byte": ('"small"', '"sm\0all"', "name", "not valid TOML"),
}  # fmt: skip


def check(tmp_path, content: bytes):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    return CliRunner().invoke(main, ["check", str(path)])


@pytest.mark.parametrize("kind", WITH_A_LINE)
def test_a_broken_study_is_told_with_its_line(kind, tmp_path):
    old, new, begin, expected = WITH_A_LINE[kind]
    assert old in STUDY
    text = STUDY.replace(old, new)
    at = text.index(f"\n{begin}") + 1 if f"\n{begin}" in text else 0
    answer = check(tmp_path, text.encode())
    assert answer.exit_code == 2, answer.output
    assert isinstance(answer.exception, SystemExit)
    assert answer.output.count("nightbeam: ") == 1
    assert expected in answer.output
    assert f"line {text.count(chr(10), 0, at) + 1}" in answer.output
    assert len(answer.output) < 1500
    assert all(character.isprintable() or character == "\n" for character in answer.output)


BYTES = {
    "another encoding": (STUDY.replace('"water-box"', '"wässer"').encode("latin-1"), "line 4 is not UTF-8"),
    "two bytes a character": (STUDY.encode("utf-16"), "line 1 is not UTF-8"),
    "noise": (bytes(range(256)) * 4, "is not UTF-8"),
    "nothing": (b"", "name: this key is needed"),
    "another file": (b"#" * (2 << 20), "has more than 1 MiB"),
    "no case": (STUDY.replace("[case]", "[cases]").encode(), "case: this key is needed"),
}


@pytest.mark.parametrize("kind", BYTES)
def test_a_file_that_is_no_study_is_refused(kind, tmp_path):
    content, expected = BYTES[kind]
    answer = check(tmp_path, content)
    assert answer.exit_code == 2
    assert isinstance(answer.exception, SystemExit)
    assert expected in answer.output


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf" + STUDY.encode(), STUDY.replace("\n", "\r\n").encode()])
def test_what_other_editors_write_is_read(content, tmp_path):
    assert check(tmp_path, content).exit_code == 0
