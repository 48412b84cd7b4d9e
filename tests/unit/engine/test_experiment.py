"""The bench top's geometry, beam, scoring, and its engine against formulas."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ExperimentError
from engine.experiment.beam import place_beam
from engine.experiment.geometry import build_phantom
from engine.experiment.photon_pencil_beam import field_beamlets, forward_dose, require_possible
from engine.experiment.scoring import samples_of
from engine.geometry.frames import bev_from_lps, source_mm
from engine.physics.materials import MATERIALS
from engine.physics.photon_kernel import load_photon_kernel
from engine.spec.experiment import BeamSpec, Experiment, PhantomSpec, ScoreSpec, load_experiment

EXAMPLES = Path(__file__).parents[3] / "examples" / "experiments"
WATER = {
    "material": "water",
    "low_mm": (-150, -150, 0),
    "high_mm": (150, 150, 300),
    "voxel_mm": (300, 300, 300),
}
BEAM = {
    "particle": "photon",
    "spectrum": "mohan_6mv",
    "source": "point",
    "isocentre_mm": (0, 0, 0),
    "direction": (0, 0, 1),
    "ssd_mm": 1000,
    "field_mm": (100, 100),
    "field_at": "surface",
    "fluence": "flat",
}
AXIS = {"x_mm": (-0.5, 0.5), "y_mm": (-0.5, 0.5), "z_mm": (99.5, 100.5), "unit": "per_fluence"}


def experiment(phantom=None, beam=None, score=None):
    corners = {**WATER, **(phantom or {})}
    corners["voxel_mm"] = corners.get("own_voxels") or tuple(
        np.subtract(corners["high_mm"], corners["low_mm"])
    )
    corners.pop("own_voxels", None)
    return Experiment(
        name="test",
        phantom=PhantomSpec(**corners),
        beam=BeamSpec(**{**BEAM, **(beam or {})}),
        engine={"name": "photon_pencil_beam"},
        score=ScoreSpec(**{**AXIS, **(score or {})}),
    )


def dose_of(asked):
    require_possible(asked)
    geometry = build_phantom(asked.phantom, asked.materials)
    parts = list(forward_dose(asked, geometry))
    return np.concatenate([dose for _, dose, _ in parts]), np.concatenate([share for *_, share in parts])


# Geometry


def test_slabs_and_boxes_fill_their_voxels():
    inserts = [
        {"shape": "slab", "axis": "z", "from_mm": 30, "to_mm": 50, "material": "aluminium"},
        {
            "shape": "box",
            "low_mm": (-10, -20, 0),
            "high_mm": (10, 90, 10),
            "material": "lung",
            "density_g_cm3": 0.26,
        },
    ]
    box = {"low_mm": (-20, -20, 0), "high_mm": (20, 20, 100), "voxel_mm": 10.0, "inserts": inserts}
    built = build_phantom(PhantomSpec(**{**WATER, **box}), {})
    expected = np.ones((10, 4, 4))
    expected[3:5] = MATERIALS["aluminium"].relative_electron_density
    expected[0, :, 1:3] = 0.26 / 1.05 * MATERIALS["lung"].relative_electron_density
    assert built.patient.density == pytest.approx(expected, rel=1e-6)
    assert built.notes == ()


@pytest.mark.parametrize(
    ("phantom", "key"),
    [
        ({"high_mm": (150, 150, 290)}, "phantom.voxel_mm"),
        (
            {"inserts": [{"shape": "slab", "axis": "z", "from_mm": 30, "to_mm": 50, "material": "air"}]},
            "phantom.inserts[0]",
        ),
    ],
)
def test_faces_inside_of_voxels_are_refused(phantom, key):
    with pytest.raises(ExperimentError, match="lies inside a voxel") as told:
        build_phantom(PhantomSpec(**{**WATER, **phantom}), {})
    assert str(told.value).startswith(f"{key}: ")


@pytest.mark.parametrize("axis", "xyz")
def test_round_shapes_have_the_volumes_of_the_formulas(axis):
    box = {
        "material": "water",
        "low_mm": (-20, -20, -20),
        "high_mm": (20, 20, 20),
        "voxel_mm": (2.0, 2.5, 1.0),
    }
    heavy = {"material": "water", "density_g_cm3": 2.0, "centre_mm": (1, -2, 3)}
    rod = {"shape": "cylinder", "axis": axis, "radius_mm": 11, "from_mm": -7.3, "to_mm": 9.1, **heavy}
    for insert, volume in (
        ({"shape": "sphere", "radius_mm": 12, **heavy}, 4 / 3 * math.pi * 12**3),
        (rod, math.pi * 11**2 * 16.4),
    ):
        built = build_phantom(PhantomSpec(**box, inserts=[insert]), {})
        excess = float((built.patient.density - 1.0).sum()) * 5.0
        assert excess == pytest.approx(volume, rel=2e-3)


def test_later_inserts_replace_earlier_ones():
    both = [
        {"shape": "slab", "axis": "x", "from_mm": -150, "to_mm": 150, "material": name}
        for name in ("air", "titanium")
    ]
    built = build_phantom(PhantomSpec(**WATER, inserts=both), {})
    assert built.patient.density == pytest.approx(MATERIALS["titanium"].relative_electron_density)


# Beam


@given(
    direction=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda d: np.linalg.norm(d) > 0.1),
    distance=st.floats(600, 2000),
)
def test_any_direction_is_flown_from_the_right_side(direction, distance):
    asked = experiment(
        {"low_mm": (-50, -50, -50), "high_mm": (50, 50, 50)},
        {"direction": direction, "ssd_mm": None, "sad_mm": distance, "field_at": "isocentre"},
    )
    beam = place_beam(asked.beam, build_phantom(asked.phantom, {}))
    unit = np.array(direction) / np.linalg.norm(direction)
    # What is nearly along an axis is taken as along it.
    assert -bev_from_lps(beam, "HFS")[2] == pytest.approx(unit, abs=2e-8)
    assert source_mm(beam, "HFS") == pytest.approx(-distance * unit, abs=5e-5)


def test_field_axes_are_the_phantoms():
    for direction, across in (
        ((0, 0, 1), (1, 0, 0)),
        ((0, 1, 0), (1, 0, 0)),
        ((1, 0, 0), (0, 1, 0)),
        ((0, -1, 0), (1, 0, 0)),
    ):
        asked = experiment({"low_mm": (-50, -50, -50), "high_mm": (50, 50, 50)}, {"direction": direction})
        beam = place_beam(asked.beam, build_phantom(asked.phantom, {}))
        assert bev_from_lps(beam, "HFS")[0] == pytest.approx(across, abs=1e-9)


def test_field_can_be_stated_at_surface_or_isocentre():
    at = {"isocentre_mm": (0, 0, 100), "ssd_mm": None, "sad_mm": 1000}
    for where, middle, distance in (("isocentre", 100.0, 1000.0), ("surface", 0.0, 900.0)):
        asked = experiment(beam={**at, "field_at": where})
        beam = place_beam(asked.beam, build_phantom(asked.phantom, {}))
        assert beam.isocentre_mm == pytest.approx((0.0, 0.0, middle), abs=1e-9)
        assert beam.sad_mm == pytest.approx(distance)


# Scoring


def test_points_are_the_middles_of_equal_parts_and_means_know_their_voxels():
    score = ScoreSpec(
        x_mm=(0, 1, 5),
        y_mm=(0, 3),
        z_mm={"start_mm": -2, "stop_mm": 2, "step_mm": 2},
        unit="per_fluence",
        sample_mm=1.5,
    )
    ((planes, samples),) = samples_of(score)
    assert planes == slice(0, 2)
    x_mm, y_mm, z_mm = samples.at_mm_xyz
    assert x_mm == pytest.approx([0.5, 1 + 2 / 3, 3, 5 - 2 / 3])
    assert y_mm == pytest.approx([0.75, 2.25])
    assert z_mm == pytest.approx([-1.5, -0.5, 0.5, 1.5])
    volume = (z_mm[:, None, None] + 10 * y_mm[:, None] + 100 * x_mm).astype(np.float32)
    rows = samples.row_of_voxel
    assert samples.centres_mm(rows.reshape(-1))[:, 0].reshape(rows.shape)[1, 1] == pytest.approx(x_mm)
    mean, share = samples.mean(volume, np.ones(volume.shape, bool))
    assert mean[:, 0] == pytest.approx(np.array([[64, 314], [66, 316]]), rel=1e-6)
    assert share == pytest.approx(1.0)


def test_parts_of_a_large_grid_are_the_whole_grid():
    score = ScoreSpec(
        x_mm={"start_mm": 0, "stop_mm": 500, "step_mm": 1},
        y_mm={"start_mm": 0, "stop_mm": 500, "step_mm": 1},
        z_mm=(0, 5, 6, 40),
        sample_mm=1.0,
        unit="per_fluence",
    )
    found = [planes for planes, _ in samples_of(score)]
    assert [number for planes in found for number in range(planes.start, planes.stop)] == [0, 1, 2]
    assert len(found) > 1


def test_voxels_that_stick_out_score_what_is_inside():
    dose, share = dose_of(experiment(score={"z_mm": (-10, -5, 5, 10), "sample_mm": 1.0}))
    inner, _ = dose_of(experiment(score={"z_mm": (0, 5), "sample_mm": 1.0}))
    assert share[:, 0, 0] == pytest.approx([0.0, 0.5, 1.0])
    assert dose[0] == 0.0
    assert dose[1] == pytest.approx(inner[0])


# The engine against formulas


@pytest.mark.parametrize("diameter", [5.0, 40.0, 150.0])
def test_round_field_gives_the_kernels_share_within_its_radius(diameter):
    # On the axis, at the field's plane, a round flat field gives sum c_m (1 - exp(-R^2 / 2 s_m^2)): closed form.
    beam = {"ssd_mm": None, "sad_mm": 1000, "isocentre_mm": (0, 0, 100), "field_at": "isocentre"}
    beam |= {"field_mm": None, "field_diameter_mm": diameter}
    point = {"x_mm": (-1e-3, 1e-3), "y_mm": (-1e-3, 1e-3), "z_mm": (100 - 1e-3, 100 + 1e-3)}
    dose, _ = dose_of(experiment(beam=beam, score=point))
    kernel = load_photon_kernel("mohan_6mv")
    at = int(np.searchsorted(kernel.depth_mm, 100.0))
    assert kernel.depth_mm[at] == 100.0
    within = 1.0 - kernel.fraction_beyond(0.5 * diameter)[at]
    expected = 1e9 * kernel.weight_gy_mm2[at].sum() * within
    assert dose.item() == pytest.approx(expected, rel=3e-3)


@pytest.mark.parametrize("ssd", [600.0, 1000.0, 3000.0, 1e5])
def test_distance_of_the_source_is_inverse_square_alone_for_scaled_fields(ssd):
    # A wide field at depth z: fluence falls as (SSD / (SSD + z))^2, all else is the kernel of the broad beam.
    at = {"ssd_mm": ssd, "field_mm": (300, 300)}
    wide = {"low_mm": (-300, -300, 0), "high_mm": (300, 300, 300)}
    dose, _ = dose_of(experiment(wide, at))
    kernel = load_photon_kernel("mohan_6mv")
    weight = kernel.weight_gy_mm2[int(np.searchsorted(kernel.depth_mm, 100.0))]
    half = 150.0 * (ssd + 100.0) / ssd
    share = np.array([math.erf(half / sigma / math.sqrt(2.0)) ** 2 for sigma in kernel.sigma_mm])
    assert dose.item() == pytest.approx(1e9 * float(weight @ share) * (ssd / (ssd + 100.0)) ** 2, rel=2e-4)


def test_gantry_and_direction_are_two_words_for_the_same():
    box = {"low_mm": (-100, -100, -100), "high_mm": (100, 100, 100)}
    score = {"x_mm": (-20, -3, 8), "y_mm": (-40, -2, 30, 50), "z_mm": (-5, 5), "sample_mm": 4.0}
    beam = {"field_mm": (30, 60), "ssd_mm": 900.0}
    first, _ = dose_of(experiment(box, {**beam, "direction": (0, 1, 0)}, score))
    second, _ = dose_of(experiment(box, {**beam, "direction": None, "gantry_deg": 0.0}, score))
    assert np.array_equal(first, second)
    assert first.min() > 0.0


def test_mean_fluence_of_every_field_is_one():
    for change in (
        {},
        {"fluence": "isotropic"},
        {"field_mm": None, "field_diameter_mm": 30.0, "fluence": "isotropic"},
    ):
        spec = BeamSpec(**{**BEAM, **change})
        beamlets, weight = field_beamlets(spec, 1000.0)
        area = 100.0**2 if spec.field_mm else math.pi * 15.0**2
        assert weight.sum() * beamlets.size_mm[0] * beamlets.size_mm[1] == pytest.approx(area, rel=1e-3)


def test_isotropic_fluence_falls_as_the_cosine_cubed():
    beamlets, weight = field_beamlets(BeamSpec(**{**BEAM, "fluence": "isotropic"}), 1000.0)
    u, v = beamlets.centres_mm()
    cosine = 1000.0 / np.sqrt(u**2 + v**2 + 1000.0**2)
    assert weight / weight[np.argmax(weight)] == pytest.approx(cosine**3, rel=1e-12)


# Refusals and examples

REFUSED = {
    "electrons": ({"particle": "electron"}, "beam.particle"),
    "protons": ({"particle": "proton"}, "beam.particle"),
    "energy": ({"spectrum": None, "energy_mev": 6.0}, "beam.energy_mev"),
    "spectrum": ({"spectrum": "mohan_15mv"}, "beam.spectrum"),
    "parallel": ({"source": "parallel", "ssd_mm": None}, "beam.source"),
    "near": ({"ssd_mm": 300}, "beam.ssd_mm"),
    "collimator in the phantom": ({"source_sigma_mm": 1.0, "collimator_mm": 1100.0}, "beam.ssd_mm"),
    "wide": ({"field_mm": (600, 600)}, "beam.field_mm"),
    "machine": ({"spectrum": None, "machine": "truebeam"}, "beam.machine"),
    "machine's distance": (
        {"spectrum": None, "machine": "generic-6mv", "ssd_mm": None, "sad_mm": 900},
        "beam.sad_mm",
    ),
    "machine's field": (
        {"spectrum": None, "machine": "generic-6mv", "field_mm": (450, 100)},
        "beam.field_mm",
    ),
    "wide and round": ({"field_mm": None, "field_diameter_mm": 900.0}, "beam.field_diameter_mm"),
    "beside": ({"isocentre_mm": (400, 0, 0)}, "beam.isocentre_mm"),
    "behind the source": ({"isocentre_mm": (0, 0, -1500), "field_at": "isocentre"}, "beam.field_at"),
}


@pytest.mark.parametrize(("change", "key"), REFUSED.values(), ids=REFUSED)
def test_the_engine_refuses_what_it_cannot_do_by_key(change, key):
    with pytest.raises(ExperimentError) as told:
        dose_of(experiment(beam=change))
    assert str(told.value).startswith(f"{key}: ")


def test_too_many_points_or_voxels_are_refused():
    fine = {"start_mm": -1000, "stop_mm": 1000, "step_mm": 1}
    with pytest.raises(ExperimentError, match=r"score: .*too many"):
        dose_of(experiment(score={"x_mm": fine, "y_mm": fine, "z_mm": fine}))
    with pytest.raises(ExperimentError, match=r"phantom\.voxel_mm: .*too many"):
        dose_of(experiment({"own_voxels": 0.1}))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_are_good(path):
    found = load_experiment(path)
    require_possible(found)
    if found.phantom is not None:
        assert build_phantom(found.phantom, found.materials).notes == ()


MACHINE = {"spectrum": None, "machine": "generic-6mv"}
POINT = {"x_mm": (-1e-3, 1e-3), "y_mm": (-1e-3, 1e-3), "unit": "per_mu"}


def test_one_mu_gives_what_the_machine_says_in_its_reference_condition():
    dose, _ = dose_of(experiment(beam=MACHINE, score={**POINT, "z_mm": (15 - 1e-3, 15 + 1e-3)}))
    assert dose.item() == pytest.approx(0.01, rel=1e-4)


def test_one_mu_is_the_same_wherever_the_field_is_stated():
    at = {**MACHINE, "isocentre_mm": (0, 0, 100), "ssd_mm": 900}
    score = {**POINT, "z_mm": (99, 101)}
    surface, _ = dose_of(experiment(beam={**at, "field_at": "surface", "field_mm": (90, 90)}, score=score))
    isocentre, _ = dose_of(
        experiment(beam={**at, "field_at": "isocentre", "field_mm": (100, 100)}, score=score)
    )
    by_sad, _ = dose_of(
        experiment(beam={**at, "field_at": "isocentre", "ssd_mm": None, "sad_mm": 1000}, score=score)
    )
    assert surface == pytest.approx(isocentre, rel=1e-5)
    assert by_sad == pytest.approx(isocentre, rel=1e-6)


def test_a_focal_spot_widens_the_penumbra_alone():
    edge = {"x_mm": {"start_mm": 40, "stop_mm": 70, "step_mm": 1}}
    sharp, _ = dose_of(experiment(score=edge))
    blurred, _ = dose_of(experiment(beam={"source_sigma_mm": 2.0, "collimator_mm": 500.0}, score=edge))
    difference = (blurred - sharp)[0, 0]
    # Half the dose stays where it was: at the edge, 55 mm out at 100 mm depth.
    assert difference[:13].min() < -0.01
    assert difference[16:].max() > 0.01
    assert float(difference.sum()) == pytest.approx(0.0, abs=0.02 * float(np.abs(difference).sum()))


def test_every_axis_order_of_a_symmetric_question_gives_one_answer():
    box = {"low_mm": (-100, -100, -100), "high_mm": (100, 100, 100)}
    found = []
    for axis, sign in itertools.product(range(3), (1, -1)):
        direction = [0, 0, 0]
        direction[axis] = sign
        score = {f"{name}_mm": (-2.0, 2.0) for name in "xyz"}
        score[f"{'xyz'[axis]}_mm"] = sorted((-50.0 * sign, -46.0 * sign))
        found.append(dose_of(experiment(box, {"direction": direction}, score))[0].item())
    assert found == pytest.approx([found[0]] * 6, rel=1e-5)
