"""Objective templates: what they come to, what they leave alone, and how mistakes are told."""

import numpy as np
import pytest
from click.testing import CliRunner

from engine.errors import StudyError
from engine.spec.study import load_study
from flows.cli import main
from tests.e2e.small_study import STUDY, write_study

RINGS = '\n[[templates]]\nadd = "rings"\nedges_mm = [0, 5, 20]\nweight = 7.0\n'
REST = '\n[[templates]]\nadd = "remaining_volume"\ndose_percent = 40.0\nweight = 3.0\n'
CROP = '\n[[templates]]\nadd = "crop_from_skin"\ntarget = "Target"\ndepth_mm = 4.0\n'
HEART = """
[[structures]]
make = "margin"
name = "Heart"
structure = "Target"
margin_mm = 5.0

[[objectives]]
structure = "Heart"
function = "mean"
weight = 1.0
"""
PRIORITY = '\n[[templates]]\nadd = "overlap_priority"\norder = ["Heart", "Target"]\n'


def study_of(tmp_path, *parts):
    return load_study(write_study(tmp_path, STUDY + "".join(parts)))


def test_rings_lie_side_by_side_around_the_target_and_have_a_fall_off_each(tmp_path):
    study = study_of(tmp_path, RINGS)
    assert [(r.name, r.structure, r.from_mm, r.to_mm) for r in study.structures] == [
        ("zTarget_ring_0-5mm", "Target", 0.0, 5.0),
        ("zTarget_ring_5-20mm", "Target", 5.0, 20.0),
    ]
    added = study.objectives[3:]
    assert [o.structure for o in added] == [r.name for r in study.structures]
    for objective in added:
        assert objective.weight == 7.0
        assert objective.function.kind == "dose_fall_off"
        # 20 Gy at the target, 30 % of it far away, and half-way after 10 mm.
        near_gy, middle_gy, far_gy = objective.function.level_gy(np.array([0.0, 10.0, 1e4]))
        assert (near_gy, middle_gy, far_gy) == pytest.approx((20.0, 13.0, 6.0))


def test_rings_leave_other_targets_out(tmp_path):
    text = STUDY.replace("[dose]", 'also_cover = ["Node"]\n\n[dose]')
    node = '\n[[structures]]\nmake = "margin"\nname = "Node"\nstructure = "Target"\nmargin_mm = 9.0\n'
    study = load_study(write_study(tmp_path, text + node + RINGS))
    assert all(objective.excluding == ("Node",) for objective in study.objectives[3:])


def test_the_remaining_volume_leaves_out_targets_organs_and_rings_wherever_they_stand_in_the_file(tmp_path):
    study = study_of(tmp_path, HEART, REST + 'without = ["Heart"]\n', RINGS)
    *_, last = study.structures
    assert last.name == "zRVR"
    assert last.without == ("Target", "Heart", "zTarget_ring_0-5mm", "zTarget_ring_5-20mm")
    (objective,) = (o for o in study.objectives if o.structure == "zRVR")
    assert objective.function.dose_gy == 8.0
    assert [t.text.split()[0] for t in study.from_templates] == ["the", "rings"]


def test_of_structures_that_overlap_the_first_counts_and_the_others_leave_it_out(tmp_path):
    study = study_of(tmp_path, HEART, PRIORITY)
    assert {o.structure: o.excluding for o in study.objectives} == {
        "Target": ("Heart",), "BODY": ("Target",), "Heart": (),
    }  # fmt: skip
    turned = study_of(tmp_path, HEART, PRIORITY.replace('"Heart", "Target"', '"Target", "Heart"'))
    assert {o.structure: o.excluding for o in turned.objectives} == {
        "Target": (), "BODY": ("Target",), "Heart": ("Target",),
    }  # fmt: skip
    assert study.structures == turned.structures
    assert [g.structure for g in study.goals] == ["Target"]


def test_a_target_cropped_from_the_skin_is_prescribed_to_and_asked_for_dose_but_covered_and_limited_as_a_whole(
    tmp_path,
):
    study = study_of(tmp_path, CROP)
    (crop,) = study.structures
    assert (crop.make, crop.name, crop.kind, crop.depth_mm) == ("crop", "Target_Eval", "TARGET", 4.0)
    assert study.prescription.target == "Target_Eval"
    assert study.beams.also_cover == ("Target",)
    assert [(o.structure, o.function.kind) for o in study.objectives[:2]] == [
        ("Target", "squared_overdose"), ("Target_Eval", "squared_underdose"),
    ]  # fmt: skip
    # What looks at other structures stays as it is.
    assert study.objectives[2:] == load_study(write_study(tmp_path)).objectives[1:]


def test_rings_lie_around_the_whole_target_where_that_is_cropped(tmp_path):
    study = study_of(tmp_path, CROP, RINGS)
    assert {r.structure for r in study.structures} == {"Target"}
    assert {o.function.from_structure for o in study.objectives if o.function.kind == "dose_fall_off"} == {
        "Target"
    }


def test_a_study_without_templates_stays_as_it_is(tmp_path):
    study = study_of(tmp_path)
    assert study.with_templates_expanded() is study
    assert study.from_templates == ()


def test_a_criterion_of_a_front_may_come_from_a_template_alone(tmp_path):
    text = STUDY.replace('criterion = "mean"\n', "") + RINGS + 'criterion = "mean"\n'
    criteria = [o.criterion for o in load_study(write_study(tmp_path, text)).objectives]
    assert criteria == ["target", "body", None, "mean", "mean"]


def test_the_check_lists_what_templates_come_to(tmp_path):
    path = write_study(tmp_path, STUDY + HEART + RINGS + PRIORITY)
    answer = CliRunner().invoke(main, ["check", str(path)])
    assert answer.exit_code == 0, answer.output
    assert "structure zTarget_ring_5-20mm: what lies 5 to 20 mm from the surface of Target" in answer.output
    assert "objective zTarget_ring_0-5mm: dose fall off (from structure Target, near 20 Gy" in answer.output
    assert "objective Target without Heart: squared deviation (dose 20 Gy), weight 100" in answer.output


def test_a_solver_that_does_not_fit_what_templates_add_is_told_with_its_line(tmp_path):
    text = STUDY.replace("max_evaluations = 60", 'solver = "primal_dual"')
    for nonlinear, linear in {
        "composite_worst_case": "expected",
        "squared_deviation": "linear_underdose",
        "squared_overdose": "linear_overdose",
    }.items():
        text = text.replace(f'"{nonlinear}"', f'"{linear}"')
    line = 1 + text.splitlines().index('solver = "primal_dual"')
    assert load_study(write_study(tmp_path, text)).optimisation.solver == "primal_dual"
    with pytest.raises(
        StudyError, match=rf"line {line}: optimisation.solver: .* not linear: zTarget_ring_0-5mm"
    ):
        load_study(write_study(tmp_path, text + RINGS))


MISTAKES = {
    "an unknown template": (RINGS.replace("rings", "halo"), "templates[0]: unknown add 'halo'; known are rings"),
    "a key of another": (RINGS + "depth_mm = 3.0\n", "templates[0].depth_mm: there is no such key"),
    "rings that go inwards": (RINGS.replace("[0, 5, 20]", "[0, 5, 5]"), "templates[0].edges_mm: distances grow"),
    "no weight": (RINGS.replace("weight = 7.0\n", ""), "templates[0].weight: this key is needed"),
    "an order of nobody": (
        PRIORITY, "templates[0].order: the case has no structure 'Heart'",
    ),
    "an order without objectives": (
        HEART.split("[[objectives]]")[0] + PRIORITY.replace('"Heart", "Target"', '"Target", "Heart"'),
        "templates[0].order: 'Heart' has no objective that could give way",
    ),
    "a crop of what is not asked for dose": (
        CROP.replace('"Target"', '"BODY"'), "templates[0].target: no objective asks 'BODY' for dose",
    ),
    "a target that is not there": (
        RINGS + 'target = "Tumour"\n', "templates[0].target: the case has no structure 'Tumour'",
    ),
    "a name that is too long": (
        RINGS + f'target = "{60 * "T"}"\n', "templates[0]: String should have at most 64 characters",
    ),
    "a name that is taken": (REST + 'name = "Heart"\n' + HEART, "'Heart' is made by structures[0] already"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistaken_template_is_told_with_its_key(kind, tmp_path):
    text, expected = MISTAKES[kind]
    answer = CliRunner().invoke(main, ["check", str(write_study(tmp_path, STUDY + text))])
    assert answer.exit_code == 2
    assert expected in answer.output
    assert "Traceback" not in answer.output


def test_a_template_that_does_not_fit_is_told_with_its_line(tmp_path):
    text = STUDY + CROP.replace('"Target"', '"BODY"')
    line = 1 + text.splitlines().index('target = "BODY"')
    with pytest.raises(StudyError, match=rf"line {line}: templates\[0\]\.target"):
        load_study(write_study(tmp_path, text))
