"""A chest that breathes: ten phases of a 4D CT whose motion is known, and their average."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from engine.geometry.voxelise import voxelise
from engine.model.arrays import F32, F64
from engine.model.case import Case, Contour, Structure
from engine.model.grid import Grid
from engine.phantoms import tissues
from engine.phantoms.shapes import (
    AIR_HU,
    SECTION_CORNERS,
    Ellipsoid,
    Oval,
    Solid,
    Tube,
    keep_in,
    keep_out,
    paint,
    scan_grid,
    structure,
)
from engine.phantoms.texture import LUNG_UNEVENNESS_HU, lumps, scanned

NAME = "lung-4d"
PHASES = tuple(n / 10 for n in range(10))
"""Part of the breathing cycle that has passed since the end of inhalation."""
AMPLITUDE_MM_XYZ = (1.5, 3.0, 12.0)
"""From the end of exhalation to the end of inhalation the tumour moves so far to the left, forwards and downwards."""
LAG = 0.1
"""The motion forwards and backwards comes later by this part of the cycle, which opens the path to a loop."""
GTV_EXHALE = Ellipsoid((-78.0, 34.0, -45.0), (14.0, 13.0, 15.0))
APEX_MM, BASE_EXHALE_MM = 108.0, -108.0
EXHALE_DENSITY_G_CM3 = 0.28
SCAN_MM_Z = (-180.0, 120.0)
FAT_MM, WALL_MM = 12.0, 30.0

BODY = Tube(
    ((-180.0, 0.0, 0.0, 158.0, 108.0), (-60.0, 0.0, 0.0, 170.0, 110.0), (60.0, 0.0, 0.0, 174.0, 105.0),
     (120.0, 0.0, 4.0, 178.0, 92.0)), power=2.4,
)  # fmt: skip
_LUNGS = {
    side: Tube(
        ((-108.0, sign * 82.0, 18.0, 54.0, 62.0), (-40.0, sign * 82.0, 6.0, 55.0, 70.0),
         (30.0, sign * 77.0, 4.0, 50.0, 68.0), (80.0, sign * 62.0, 12.0, 38.0, 46.0),
         (108.0, sign * 48.0, 18.0, 9.0, 11.0))
    )
    for side, sign in (("L", 1.0), ("R", -1.0))
}  # fmt: skip
DOME = Ellipsoid((-4.0, -70.0, -138.0), (138.0, 118.0, 118.0))
"""Diaphragm with liver, stomach and spleen below it, at the end of exhalation."""
HEART = Ellipsoid((18.0, -34.0, -8.0), (62.0, 52.0, 56.0))
_SPINE = Oval(0.0, 62.0, 19.0, 16.0)
_CORD = Tube(((-180.0, 0.0, 86.0, 6.5, 5.5), (120.0, 0.0, 84.0, 6.5, 5.5)))
_OESOPHAGUS = Tube(((-150.0, 8.0, 34.0, 9.0, 7.0), (0.0, 4.0, 36.0, 9.0, 7.0), (120.0, 2.0, 34.0, 9.0, 7.0)))
_AORTA = Tube(
    ((-180.0, 12.0, 42.0, 11.0, 11.0), (-60.0, 18.0, 48.0, 12.0, 12.0), (70.0, 20.0, 46.0, 12.5, 12.5))
)
_TRACHEA = Tube(((22.0, 0.0, 18.0, 11.0, 9.0), (120.0, 0.0, 14.0, 9.5, 9.5)))
_VERTEBRA_MM, _DISC_MM = 22.0, 5.0
_N_RIB, _RIB_STEP_MM, _RIB_DROP_MM, _RIB_DEG = 12, 25.0, 65.0, (12.0, 142.0)


def displacement_mm(phase: float) -> tuple[float, float, float]:
    """Return how far the tumour is from where it is at the end of exhalation, along x, y and z.

    Lujan et al., Med. Phys. 26 (1999) 715: z(t) = z0 - b cos^2n(pi t / tau), with n = 2, so that more time is spent
    near
    exhalation. Phase 0 is the end of inhalation, as on a 4D CT, and 0.5 the end of exhalation. Left-right follows the
    same curve; front-back follows it `LAG` later. Amplitudes: for tumours of the lower lobes that are not attached to
    rigid structures, Seppenwoolde et al., Int. J. Radiat. Oncol. Biol. Phys. 53 (2002) 822, found (12 +- 2) mm along
    the
    patient and (2 +- 1) mm in the other directions, with loops in half of the patients.
    """
    x_mm, y_mm, z_mm = AMPLITUDE_MM_XYZ
    breath, later = math.cos(math.pi * phase) ** 4, math.cos(math.pi * (phase - LAG)) ** 4
    return x_mm * breath, -y_mm * later, -z_mm * breath


def stretch(phase: float) -> float:
    """Return how much longer the lungs are than at the end of exhalation: so that its height moves."""
    return 1.0 - displacement_mm(phase)[2] / (APEX_MM - GTV_EXHALE.centre_mm_xyz[2])


def gtv(phase: float) -> Ellipsoid:
    """Return the tumour in a phase; it keeps its shape."""
    x_mm, y_mm, z_mm = (
        at + by for at, by in zip(GTV_EXHALE.centre_mm_xyz, displacement_mm(phase), strict=True)
    )
    return Ellipsoid((x_mm, y_mm, z_mm), GTV_EXHALE.semi_axis_mm_xyz)


def lung_4d(voxel_mm: float = 3.0, texture: bool = True, seed: int = 1) -> Case:
    """Return the average CT of a chest with a tumour that breathes, and the tumour's internal target volume.

    Ten phases of a breath, built by `lung_4d_series`, and the mean of their Hounsfield units. The tumour lies in the
    lower
    right lobe: an ellipsoid of 2.8 cm x 2.6 cm x 3.0 cm (11.4 cm3) that keeps its shape and moves by `displacement_mm`,
    12 mm along the patient. ``ITV`` is the union of the tumours of the ten phases. Lungs are contoured half-way along
    their stretch, on the whole (they hold the tumour). Plan on it with ``hu_table = "hu_tables/tissue_phantoms.csv"``.

    Structures: ``BODY``, ``ITV``, ``Lung_L``, ``Lung_R``, ``Heart``, ``Esophagus``, ``SpinalCord`` (TG-263 names).

    Parameters
    ----------
    voxel_mm
        Edge length of the cubic voxels.
    texture
        Whether lungs are uneven and the scan noisy (see `engine.phantoms.texture`).
    seed
        Of the texture.
    """
    *_, (_, average) = lung_4d_series(voxel_mm, texture, seed)
    return average


def lung_4d_series(voxel_mm: float = 3.0, texture: bool = True, seed: int = 1) -> Iterator[tuple[str, Case]]:
    """Yield the phases ``phase 00 %`` to ``phase 90 %`` and then ``average``, each with its name.

    A phase has the structure ``GTV`` instead of ``ITV``, and lungs as they are in the phase.

    How it breathes: the apex of the lungs stays; everything in the lungs below moves down in proportion to its distance
    from the apex (`stretch`), so that lung at the height of the tumour moves as far down as the tumour. The diaphragm
    moves with the lower face of the lungs (17 mm at their lowest point). Body, heart, bones and mediastinum stand
    still; what lies below the diaphragm is pushed out of the scan at its lower end.

    Mass: the tissue of the lungs is conserved. Their density is that of the end of exhalation, 0.28 g/cm3, times the
    volume that lung fills then over the volume that it fills in the phase (without tumour, heart and vessels, as
    voxelised); the tumour's density and volume do not change. Lung volume and mass are near the functional residual
    capacity of 3.3 l and the 1.2 kg of ICRP Publication 89 (2002) for a man.

    The unevenness of the lungs moves and stretches with them; the noise is another one in every phase.
    """
    grid = scan_grid((390.0, 246.0), *SCAN_MM_Z, voxel_mm)
    still = _still(grid)
    fixed_hu = _fixed_hu(grid, still)
    shape = grid.shape_zyx
    uneven = lumps(shape, 4.0 / voxel_mm, seed, 100) if texture else np.zeros(shape)
    organs, above = _over(grid, still)
    exhale_mass_g = EXHALE_DENSITY_G_CM3 * _lung_cm3(grid, 0.5, above)
    total_hu = np.zeros(shape, np.float64)
    for number, phase in enumerate(PHASES):
        lungs = _lung_structures(grid, stretch(phase))
        tumour = structure("GTV", "TARGET", gtv(phase).solid.contours(grid), grid)
        free = _free(lungs, tumour, above)
        density_g_cm3 = exhale_mass_g / (float(free.sum(dtype=np.float64)) * grid.voxel_volume_mm3 / 1000.0)
        ct_hu = fixed_hu.copy()
        paint(ct_hu, voxelise(_dome(stretch(phase)).contours(grid), grid).coverage, tissues.LIVER.hu)
        for lung in lungs:
            paint(ct_hu, lung.coverage, replace(tissues.LUNG, density_g_cm3=density_g_cm3).hu)
        for coverage, hu in organs:
            paint(ct_hu, coverage, hu)
        paint(ct_hu, tumour.coverage, tissues.MUSCLE.hu)
        if texture:
            moved = LUNG_UNEVENNESS_HU * free * _stretched(uneven, grid, stretch(phase))
            ct_hu = scanned(ct_hu, seed, number, moved)
        total_hu += ct_hu
        yield f"phase {100 * phase:02.0f} %", _case(grid, ct_hu, still, tumour, lungs)
    mean_hu = (np.rint(total_hu / len(PHASES)) if texture else total_hu / len(PHASES)).astype(np.float32)
    itv = structure("ITV", "TARGET", itv_solid().contours(grid), grid)
    halfway = _lung_structures(grid, 0.5 * (stretch(0.0) + stretch(0.5)))
    yield "average", _case(grid, mean_hu, still, itv, halfway)


def itv_solid() -> Solid:
    """Return the union of the tumours of all phases.

    On a slice it is drawn from the mean of the tumours' centres, as far out as the outermost of them reaches in each
    direction.
    """
    tumours = [gtv(phase) for phase in PHASES]
    bottom_mm = min(tumour.solid.bottom_mm for tumour in tumours)
    return Solid(bottom_mm, max(tumour.solid.top_mm for tumour in tumours), partial(_union, tumours))


def _union(tumours: list[Ellipsoid], z_mm: float) -> F64:
    """Return the border of several ellipsoids' cross-sections, seen from the mean of their centres."""
    ovals = [t.oval(z_mm) for t in tumours if t.solid.bottom_mm < z_mm < t.solid.top_mm]
    centre = np.mean([(oval.x_mm, oval.y_mm) for oval in ovals], axis=0)
    angle = np.linspace(0.0, 2.0 * math.pi, SECTION_CORNERS, endpoint=False)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    radius_mm = np.full(angle.shape, 1e-3)
    for oval in ovals:
        axes = np.array([oval.a_mm, oval.b_mm])
        start, along = (centre - (oval.x_mm, oval.y_mm)) / axes, direction / axes
        a, b, c = (along**2).sum(axis=1), along @ start, float(start @ start) - 1.0
        root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
        radius_mm = np.maximum(radius_mm, np.where(b**2 > a * c, (root - b) / a, 0.0))
    border: F64 = centre + radius_mm[:, None] * direction
    return border


def _exhale_height(z_mm: float, stretched: float) -> float:
    """Return where lung tissue was at the end of exhalation."""
    return APEX_MM - (APEX_MM - z_mm) / stretched


def _lung_section(side: str, stretched: float, z_mm: float) -> F64:
    """Return a lung's cross-section: cut by the chest wall, dented by diaphragm, heart and spine."""
    before_mm = _exhale_height(z_mm, stretched)
    points = keep_in(_LUNGS[side].oval(before_mm).polygon(240), BODY.oval(z_mm, -WALL_MM))
    for organ, height_mm in ((DOME, before_mm), (HEART, z_mm)):
        if organ.solid.bottom_mm < height_mm < organ.solid.top_mm:
            points = keep_out(points, organ.oval(height_mm))
    return keep_out(points, _SPINE.grown(6.0))


def _lung_structures(grid: Grid, stretched: float) -> tuple[Structure, Structure]:
    """Return both lungs, the tumour's place in them included."""
    bottom_mm = APEX_MM - stretched * (APEX_MM - BASE_EXHALE_MM)
    left, right = (
        structure(
            f"Lung_{side}", "ORGAN",
            Solid(bottom_mm, APEX_MM, partial(_lung_section, side, stretched)).contours(grid), grid,
        )
        for side in ("L", "R")
    )  # fmt: skip
    return left, right


def _dome(stretched: float) -> Solid:
    """Return what lies below the diaphragm, moved as the lungs' lower face is and cut by the chest wall."""
    top_mm = APEX_MM - stretched * (APEX_MM - DOME.solid.top_mm)

    def section(z_mm: float) -> F64:
        oval = DOME.oval(max(_exhale_height(z_mm, stretched), DOME.centre_mm_xyz[2]))
        return keep_in(oval.polygon(), BODY.oval(z_mm, -WALL_MM + 6.0))

    return Solid(SCAN_MM_Z[0], top_mm, section)


def _still(grid: Grid) -> dict[str, Structure]:
    """Return the structures that do not move, the body first."""
    solids = {
        "Heart": HEART.solid,
        "Esophagus": _OESOPHAGUS.solid(),
        "SpinalCord": _CORD.solid(),
    }
    body = structure("BODY", "EXTERNAL", BODY.solid().contours(grid), grid)
    return {"BODY": body} | {
        name: structure(name, "ORGAN", solid.contours(grid), grid) for name, solid in solids.items()
    }


def _fixed_hu(grid: Grid, still: dict[str, Structure]) -> F32:
    """Return the chest without lungs: skin and fat, muscle, ribs and breastbone."""
    ct_hu = np.full(grid.shape_zyx, AIR_HU, np.float32)
    paint(ct_hu, still["BODY"].coverage, tissues.ADIPOSE.hu)
    paint(ct_hu, voxelise(BODY.solid(-FAT_MM).contours(grid), grid).coverage, tissues.MUSCLE.hu)
    sternum = Tube(((-50.0, 0.0, -88.0, 18.0, 5.0), (90.0, 0.0, -82.0, 20.0, 6.0)))
    paint(ct_hu, voxelise(sternum.solid().contours(grid), grid).coverage, tissues.SPONGIOSA.hu)
    ribs = voxelise(_ribs(grid, 5.0), grid).coverage
    paint(ct_hu, ribs, tissues.CORTICAL_BONE.hu)
    paint(ct_hu, voxelise(_ribs(grid, 3.0), grid).coverage, tissues.SPONGIOSA.hu)
    return ct_hu


def _ribs(grid: Grid, half_mm: float) -> tuple[Contour, ...]:
    """Return the ribs' cross-sections: each rib comes from the spine and drops on its way to the front."""
    found = []
    first_deg, last_deg = _RIB_DEG
    for z_mm in grid.centres_mm_xyz[2].tolist():
        wall = BODY.oval(z_mm, -0.5 * (FAT_MM + WALL_MM))
        for rib in range(_N_RIB):
            part = (105.0 + _RIB_DROP_MM - rib * _RIB_STEP_MM - z_mm) / _RIB_DROP_MM
            if not 0.0 <= part <= 1.0:
                continue
            for sign in (-1.0, 1.0):
                angle_rad = math.radians(first_deg + part * (last_deg - first_deg))
                points = _on_oval(wall, sign * angle_rad)
                nearby = _on_oval(wall, sign * (angle_rad + 0.01))
                turn_deg = math.degrees(math.atan2(nearby[1] - points[1], nearby[0] - points[0]))
                oval = Oval(points[0], points[1], 3.0 * half_mm, half_mm, turn_deg=turn_deg)
                found.append(Contour(z_mm, oval.polygon(24)))
    return tuple(found)


def _on_oval(oval: Oval, angle_rad: float) -> tuple[float, float]:
    """Return the point of an oval's border at an angle from the back (+y) towards the left (+x)."""
    sin, cos = math.sin(angle_rad), math.cos(angle_rad)
    radius = float(oval.radius(np.array([[oval.x_mm + sin, oval.y_mm + cos]]))[0])
    return oval.x_mm + sin / radius, oval.y_mm + cos / radius


def _bones(grid: Grid) -> list[tuple[F32, float]]:
    """Return vertebral bodies, discs and arches with their Hounsfield units, in the order of painting."""
    shells: list[Contour] = []
    cores: list[Contour] = []
    z_mm = SCAN_MM_Z[0]
    while z_mm < SCAN_MM_Z[1]:
        top_mm = min(z_mm + _VERTEBRA_MM, SCAN_MM_Z[1])
        shells += Solid(z_mm, top_mm, lambda _: _SPINE.polygon()).contours(grid)
        cores += Solid(z_mm, top_mm, lambda _: _SPINE.grown(-2.0).polygon()).contours(grid)
        z_mm += _VERTEBRA_MM + _DISC_MM
    column = Solid(*SCAN_MM_Z, lambda _: _SPINE.grown(-1.0).polygon()).contours(grid)
    arch = Solid(*SCAN_MM_Z, lambda _: Oval(0.0, 87.0, 15.0, 14.0).polygon()).contours(grid)
    canal = Solid(*SCAN_MM_Z, lambda _: Oval(0.0, 85.0, 10.5, 9.0).polygon()).contours(grid)
    parts = (
        (arch, tissues.CRANIUM),
        (column, tissues.MUSCLE),
        (tuple(shells), tissues.CRANIUM),
        (tuple(cores), tissues.SPONGIOSA),
        (canal, tissues.WATER),
    )
    return [(voxelise(contours, grid).coverage, tissue.hu) for contours, tissue in parts]


def _over(grid: Grid, still: dict[str, Structure]) -> tuple[list[tuple[F32, float]], F32]:
    """Return the still organs that are painted over the lungs, and the share of every voxel that they leave to them."""
    aorta, trachea = (voxelise(tube.solid().contours(grid), grid).coverage for tube in (_AORTA, _TRACHEA))
    organs = [
        (still["Heart"].coverage, tissues.BLOOD.hu),
        (aorta, tissues.BLOOD.hu),
        (still["Esophagus"].coverage, tissues.MUSCLE.hu),
        (trachea, AIR_HU),
    ]
    left = np.ones(grid.shape_zyx, np.float32)
    for coverage, _ in organs:
        left *= 1.0 - coverage
    return [*_bones(grid), *organs, (still["SpinalCord"].coverage, tissues.BRAIN.hu)], left


def _free(lungs: tuple[Structure, Structure], tumour: Structure, above: F32) -> F32:
    """Return the share of every voxel that is lung tissue."""
    left, right = lungs
    free: F32 = np.minimum(left.coverage + right.coverage, 1.0) * above * (1.0 - tumour.coverage)
    return free


def _lung_cm3(grid: Grid, phase: float, above: F32) -> float:
    """Return the volume of lung tissue in a phase."""
    tumour = structure("GTV", "TARGET", gtv(phase).solid.contours(grid), grid)
    free = _free(_lung_structures(grid, stretch(phase)), tumour, above)
    return float(free.sum(dtype=np.float64)) * grid.voxel_volume_mm3 / 1000.0


def _stretched(field: F64, grid: Grid, stretched: float) -> F64:
    """Return a field of the end of exhalation, moved along z with the lungs (linear interpolation)."""
    z_mm = grid.centres_mm_xyz[2]
    at = (_exhale_height(1.0, stretched) - _exhale_height(0.0, stretched)) * z_mm + _exhale_height(
        0.0, stretched
    )
    index = np.clip((at - z_mm[0]) / grid.spacing_mm_xyz[2], 0.0, len(z_mm) - 1.0)
    low = np.minimum(index.astype(np.int64), len(z_mm) - 2)
    part = (index - low)[:, None, None]
    moved: F64 = (1.0 - part) * field[low] + part * field[low + 1]
    return moved


def _case(
    grid: Grid, ct_hu: F32, still: dict[str, Structure], target: Structure, lungs: tuple[Structure, Structure]
) -> Case:
    """Return one CT with its structures."""
    body, *organs = still.values()
    return Case(NAME, grid, ct_hu, (body, target, *lungs, *organs))
