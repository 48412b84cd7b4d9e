"""The command from a study to a report, and what happens when it is run again, changed, killed or damaged."""

import json
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.e2e.small_study import STUDY, command, kill_when, plan, processes_of, run, tiles, write_study

pytestmark = [pytest.mark.cluster, pytest.mark.prefect]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return folder, store and weights of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, folder / "store", plan(folder, folder / "store")


MANY_KINDS = """\
[[objectives]]
structure = "Target"
function = "dvh_mean_tail"
limit = "lower"
dose_gy = 20.0
volume_percent = 95.0
weight = 100.0
criterion = "target"

[[objectives]]
structure = "Target"
function = "homogeneity"
weight = 20.0
criterion = "target"

[[objectives]]
structure = "Target"
function = "tcp"
alpha_per_gy = 0.35
alpha_beta_gy = 10.0
clonogens = 1e5
weight = 10.0
robust = false

[[objectives]]
structure = "BODY"
excluding = ["Target"]
function = "dose_fall_off"
from_structure = "Target"
near_gy = 19.0
far_gy = 5.0
fall_off_per_mm = 0.05
weight = 20.0
criterion = "body"

[[objectives]]
structure = "BODY"
function = "smooth_maximum"
temperature_gy = 0.5
dose_gy = 21.0
weight = 20.0

[[objectives]]
structure = "BODY"
excluding = ["Target"]
function = "upper_mean_tail"
volume_percent = 5.0
eqd2 = { alpha_beta_gy = 3.0 }
weight = 1.0
criterion = "mean"

[[templates]]
add = "rings"
edges_mm = [0, 10, 30]
weight = 5.0

[[goals]]"""


@pytest.mark.usefixtures("shared_prefect")
def test_scenario_generation_is_within_the_certificate_of_all_scenarios_and_is_found_again(
    finished, tmp_path
):
    folder, store, _ = finished
    before = tiles(store, "view")
    text = STUDY.replace("max_evaluations = 60", "max_evaluations = 60\nscenario_generation = true")
    weight = plan(tmp_path, store, text)
    assert tiles(store, "view") == before
    full, found = (
        json.loads((of / "out" / "summary.json").read_text())["convergence"] for of in (folder, tmp_path)
    )
    assert found["certificate"]["lower_bound"] <= full["certificate"]["objective"]
    assert full["certificate"]["lower_bound"] <= found["certificate"]["objective"]
    generation = found["generation"]
    assert 1 < generation["n_built"] <= generation["n_scenario"] == 7
    assert generation["rounds"][0]["n_held"] == 1
    assert sum(term["weight"] * term["value"] for term in found["terms"]) == pytest.approx(
        found["certificate"]["objective"], rel=1e-12
    )
    told = f"The dose matrices of {generation['n_built']} of 7 scenarios were built"
    assert told in (tmp_path / "out" / "report.html").read_text()
    solves, sums = tiles(store, "solve"), tiles(store, "scenario_sums")
    assert sums
    np.testing.assert_array_equal(plan(tmp_path / "again", store, text), weight)
    assert (tiles(store, "solve"), tiles(store, "scenario_sums")) == (solves, sums)


@pytest.mark.usefixtures("shared_prefect")
def test_a_plan_of_many_kinds_of_objectives_ends_with_all_of_them_in_its_report(finished, tmp_path):
    _, store, _ = finished
    before = tiles(store)
    head, rest = STUDY.split("[[objectives]]", 1)
    head = head.replace('"composite_worst_case"', '"cvar"\nworst_percent = 30.0')
    text = head + MANY_KINDS + rest.split("[[goals]]", 1)[1]
    plan(tmp_path, store, text)
    assert tiles(store) == before
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    terms = summary["convergence"]["terms"]
    assert [term["function"].split(" (")[0] for term in terms] == [
        "DVH mean tail", "homogeneity", "TCP", "dose fall off", "smooth maximum", "upper mean tail",
        "dose fall off", "dose fall off",
    ]  # fmt: skip
    (rings,) = summary["templates"]
    assert rings["structures"] == ["zTarget_ring_0-10mm", "zTarget_ring_10-30mm"]
    assert "mean over the worst 30 % of the probability (CVaR)" in summary["robustness"]["method"]
    assert sum(term["weight"] * term["value"] for term in terms) == pytest.approx(
        summary["convergence"]["certificate"]["objective"], rel=1e-9
    )
    assert "no certificate (convex only but for" in summary["convergence"]["certificate"]["text"]
    assert [term["unit"] for term in terms] == ["Gy²", "Gy²", "", "Gy²", "Gy²", "Gy", "Gy²", "Gy²"]
    assert (
        "upper mean tail (EQD2 with alpha/beta 3 Gy, volume 5 %)"
        in (tmp_path / "out" / "report.html").read_text()
    )
    assert min(summary["convergence"]["objectives"]) < 0.5 * summary["convergence"]["objectives"][0]


def test_a_plan_ends_with_report_summary_weights_and_dose(finished):
    folder, _, weight = finished
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert "Research use only" in (folder / "out" / "report.html").read_text()
    assert summary["goals"][0]["value"] == pytest.approx(20.0, rel=1e-4)  # normalised to it
    assert (weight >= 0.0).all()
    assert (weight > 0.0).any()
    terms = summary["convergence"]["terms"]
    assert sum(term["weight"] * term["value"] for term in terms) == pytest.approx(
        min(summary["convergence"]["objectives"][-20:]), rel=1e-3
    )
    (dose_file,) = (folder / "out" / "dicom").glob("RTDOSE*.dcm")
    dose = pydicom.dcmread(dose_file)
    largest_gy = float(dose.pixel_array.max()) * float(dose.DoseGridScaling)
    body = next(s for s in summary["volumes"] if s["name"] == "BODY")
    assert largest_gy == pytest.approx(body["max_gy"], rel=0.05)  # the CT grid samples the dose grid


def test_the_same_command_again_computes_no_tile_and_repeats_no_solve(finished):
    folder, store, weight = finished
    before = tiles(store)
    begin_s = time.monotonic()
    again = plan(folder, store)
    assert time.monotonic() - begin_s < 120.0
    assert tiles(store) == before
    np.testing.assert_array_equal(again, weight)


@pytest.mark.usefixtures("shared_prefect")
def test_a_changed_objective_recomputes_no_dose(finished, tmp_path):
    _, store, weight = finished
    before = tiles(store)
    changed = plan(tmp_path, store, STUDY.replace("dose_gy = 8.0", "dose_gy = 6.0"))
    assert tiles(store) == before
    assert not np.array_equal(changed, weight)


@pytest.mark.usefixtures("shared_prefect")
def test_a_changed_beam_recomputes_only_that_beam(finished, tmp_path):
    _, store, _ = finished
    before, views_before = tiles(store), tiles(store, "view")
    plan(tmp_path, store, STUDY.replace("[0, 90, 200]", "[0, 95, 200]"))
    after, views = tiles(store), tiles(store, "view")
    assert before.items() <= after.items()
    n_beam, n_other_scenario = 3, 6
    # The changed beam may have another number of blocks.
    assert 0 < len(after) - len(before) <= 2 * len(before) / n_beam
    assert views_before.items() <= views.items()
    assert len(views) - len(views_before) == n_other_scenario


def certificate(folder):
    return json.loads((folder / "out" / "summary.json").read_text())["convergence"]["certificate"]


def test_a_plan_says_how_far_it_is_from_the_best_at_most(finished):
    folder, _, _ = finished
    found = certificate(folder)
    assert 0.0 < found["gap"] < 0.15
    assert found["lower_bound"] == pytest.approx((1.0 - found["gap"]) * found["objective"], rel=1e-9)
    assert found["text"] in (folder / "out" / "report.html").read_text().replace("&#39;", "'")


@pytest.mark.usefixtures("shared_prefect")
def test_one_worker_gives_the_same_bits_as_two(finished, tmp_path):
    np.testing.assert_array_equal(plan(tmp_path, tmp_path / "store", STUDY, "--workers", "1"), finished[2])
    assert certificate(tmp_path) == certificate(finished[0])


@pytest.mark.parametrize("moments", [("dose",), ("optimise", "bound")], ids="-".join)
def test_a_killed_run_ends_with_the_same_bits(finished, tmp_path, moments):
    store = tmp_path / "store"

    def reached(moment: str) -> bool:
        if moment == "dose":
            return len(tiles(store)) >= 5 if store.exists() else False
        size = max((path.stat().st_size for path in store.glob("solve_log/*.log")), default=0)
        # The solve has 60 evaluations, then come those for the bound.
        return size > (10_000 if moment == "optimise" else 145_000)

    for moment in moments:
        kill_when(
            command("plan", write_study(tmp_path), store, tmp_path / "out"), lambda at=moment: reached(at)
        )
    before = tiles(store)
    weight = plan(tmp_path, store)
    np.testing.assert_array_equal(weight, finished[2])
    assert certificate(tmp_path) == certificate(finished[0])
    assert before.items() <= tiles(store).items()
    # Neither the server nor the workers of the killed run are left.
    assert processes_of(store) == []


@pytest.fixture(scope="module", autouse=True)
def first_files(finished):
    """Return the files of the uninterrupted run, before any test adds others."""
    return {kind: sorted((finished[1] / kind).rglob("*.zip")) for kind in ("influence", "view")}


@pytest.mark.usefixtures("shared_prefect")
@pytest.mark.parametrize("kind", ["influence", pytest.param("view", marks=pytest.mark.validate)])
def test_damaged_tiles_and_views_are_named_and_made_again(finished, first_files, tmp_path, kind):
    folder, store, weight = finished
    victim = first_files[kind][3]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 0x10
    victim.write_bytes(content)
    # Another objective, so that the tiles are read again.
    text = STUDY.replace("dose_gy = 8.0", f"dose_gy = {7.0 if kind == 'influence' else 7.5}")
    other = plan(tmp_path / "a", store, text)
    log = (tmp_path / "a" / "out" / "nightbeam.log").read_text()
    assert victim.name.split(".")[0] in log
    assert "damaged" in log
    fresh = plan(tmp_path / "b", tmp_path / "store", text)
    np.testing.assert_array_equal(other, fresh)
    np.testing.assert_array_equal(plan(folder, store), weight)


def test_report_and_export_tell_again_from_the_store(finished, tmp_path):
    folder, store, _ = finished
    study = folder / "small.toml"
    done = run(command("report", study, store, tmp_path / "again"))
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "again" / "summary.json").read_text())
    first = json.loads((folder / "out" / "summary.json").read_text())
    assert again["goals"] == first["goals"]
    assert again["volumes"] == first["volumes"]
    exported = run([*command("export", study, store, tmp_path)[:-2], "--dicom", str(tmp_path / "dicom")])
    assert exported.returncode == 0, exported.stderr
    assert len(list((tmp_path / "dicom").glob("RTDOSE*.dcm"))) == 1


def test_report_refuses_a_study_that_was_never_planned(finished, tmp_path):
    study = write_study(tmp_path, STUDY.replace("weight = 20.0", "weight = 21.0"))
    done = run(command("report", study, finished[1], tmp_path / "out"))
    assert done.returncode == 2
    assert "run `nightbeam plan` first" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("shared_prefect")
def test_a_front_has_its_plans_and_pages(finished, tmp_path):
    _, store, _ = finished
    study = write_study(tmp_path, STUDY.replace("max_evaluations = 60", "max_evaluations = 500"))
    done = run(command("pareto", study, store, tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    front = json.loads((tmp_path / "out" / "front.json").read_text())
    assert len(front["plans"]) == 10
    weights = np.array([p["weights"] for p in front["plans"]])
    values = np.array([p["values"] for p in front["plans"]])
    # Each plan is the best of all for its own weighting (to 1 %: a solve may stop at its limit).
    weighted = weights @ values.T
    assert (np.diag(weighted) <= 1.01 * weighted.min(axis=1)).all()
    assert len({tuple(p["values"]) for p in front["plans"]}) == 10
    # From the solves' own evaluations: wide where a solve had few, or needs many.
    gaps = np.array([p["certificate"]["gap"] for p in front["plans"]])
    assert (gaps >= 0.0).all()
    assert (gaps <= 1.0).all()
    assert np.median(gaps) < 0.05
    assert "Certified gap" in (tmp_path / "out" / "front.html").read_text()


@pytest.mark.usefixtures("shared_prefect")
def test_an_imported_case_is_planned_by_its_name(finished, tmp_path):
    _, _, weight = finished
    store = tmp_path / "store"
    phantom = [command("phantom", Path("water-box"), store, tmp_path)[i] for i in (0, 1, 2)]
    assert run([*phantom, "phantom", "water-box", "--dicom", str(tmp_path / "dicom")]).returncode == 0
    imported = run([*phantom, "import", str(tmp_path / "dicom"), "--store", str(store), "--name", "box"])
    assert imported.returncode == 0, imported.stderr
    assert "Target" in imported.stdout
    other = run([*phantom, "import", str(tmp_path / "dicom"), "--store", str(store), "--name", "other"])
    assert "case 'other'" in other.stdout
    # The phantoms' own table, written down: no patient has it by default.
    (tmp_path / "table.csv").write_text("hu,relative_electron_density\n-1000,0.00108\n0,1\n3000,4\n")
    text = STUDY.replace('phantom = "water-box"', 'imported = "box"').replace(
        'hu_table = "phantom"', 'hu_table = "table.csv"'
    )
    planned = plan(tmp_path, store, text)
    np.testing.assert_array_equal(planned, weight)


@pytest.mark.usefixtures("shared_prefect")
@pytest.mark.validate
def test_a_damaged_record_of_the_case_is_made_again(finished, tmp_path):
    folder, store, weight = finished
    (record,) = (store / "case_reference").glob("*.json")
    record.write_text(record.read_text().replace("content", "contemt"))
    np.testing.assert_array_equal(plan(folder, store), weight)
    assert "case_reference" in (folder / "out" / "nightbeam.log").read_text()


@pytest.mark.usefixtures("shared_prefect")
def test_a_nominal_plan_makes_tiles_of_the_nominal_scenario_alone(finished, tmp_path):
    _, store, _ = finished
    nominal = STUDY.replace('"composite_worst_case"', '"nominal"')
    plan(tmp_path, tmp_path / "store", nominal)
    assert tiles(tmp_path / "store")
    assert not tiles(tmp_path / "store", "view")
    assert tiles(store, "view")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [s["in_optimisation"] for s in summary["scenarios"]] == [True] + 6 * [False]
    assert len(summary["robustness"]["rows"]) == 1
