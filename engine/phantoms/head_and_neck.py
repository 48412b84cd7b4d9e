"""A head and neck with an oropharyngeal target at three dose levels."""

import math
from collections.abc import Callable

import numpy as np

from engine.model.arrays import F64
from engine.model.case import Case
from engine.phantoms import tissues
from engine.phantoms.anatomy import Part, build, prism, with_section
from engine.phantoms.shapes import AIR_HU, Ellipsoid, Oval, Solid, Tube, keep_out, scan_grid

SCAN_MM_Z = (-120.0, 150.0)
BODY = Tube(
    ((-120.0, 0.0, 26.0, 188.0, 72.0), (-100.0, 0.0, 24.0, 160.0, 70.0), (-78.0, 0.0, 16.0, 80.0, 66.0),
     (-60.0, 0.0, 12.0, 64.0, 63.0), (-40.0, 0.0, 9.0, 63.0, 66.0), (-24.0, 0.0, 2.0, 66.0, 79.0),
     (-10.0, 0.0, 0.0, 68.0, 86.0), (20.0, 0.0, -1.0, 73.0, 95.0), (72.0, 0.0, 2.0, 78.0, 98.0),
     (110.0, 0.0, 6.0, 70.0, 88.0), (132.0, 0.0, 8.0, 47.0, 60.0), (146.0, 0.0, 8.0, 12.0, 15.0)), power=2.2,
)  # fmt: skip
BRAIN = Ellipsoid((0.0, 8.0, 72.0), (64.0, 82.0, 63.5))
SKULL_MM = 6.0
BRAINSTEM = Tube(((0.0, 0.0, 38.0, 8.0, 6.5), (25.0, 0.0, 31.0, 14.0, 11.0), (50.0, 0.0, 24.0, 15.0, 9.0)))
CORD = Tube(((-120.0, 0.0, 52.0, 6.5, 4.5), (-60.0, 0.0, 46.0, 7.0, 4.8), (0.0, 0.0, 38.0, 6.5, 5.0)))
PAROTID = Ellipsoid((52.0, 24.0, -2.0), (12.0, 18.0, 26.0))
SUBMANDIBULAR = Ellipsoid((30.0, -14.0, -34.0), (9.0, 15.0, 17.0))
EYE = Ellipsoid((32.0, -76.0, 48.0), (12.2, 12.2, 12.2))
ORAL_CAVITY = Tube(
    ((-18.0, 0.0, -26.0, 24.0, 22.0), (0.0, 0.0, -28.0, 32.0, 27.0), (16.0, 0.0, -28.0, 28.0, 24.0))
)
LARYNX = Tube(
    ((-78.0, 0.0, -16.0, 15.0, 16.0), (-62.0, 0.0, -18.0, 18.0, 19.0), (-44.0, 0.0, -14.0, 16.0, 16.0))
)
PRIMARY = Ellipsoid((-16.0, 4.0, -10.0), (21.0, 22.0, 27.0))
_NODES = ((-88.0, 40.0, 22.0, 17.0, 20.0), (-40.0, 40.0, 22.0, 15.0, 23.0), (-10.0, 37.0, 24.0, 11.0, 18.0),
          (14.0, 35.0, 26.0, 9.0, 13.0))  # fmt: skip
_MANDIBLE = Oval(0.0, -22.0, 46.0, 44.0)
_VERTEBRA_MM, _DISC_MM = 14.0, 5.0


def head_and_neck(voxel_mm: float = 2.5, texture: bool = True, seed: int = 1) -> Case:
    """Return a head and neck with targets at 70, 63 and 56 Gy (oropharynx, right and left nodes) and organs at risk.

    An anatomy out of ellipsoids and tapered tubes, from the shoulders to the vertex (27 cm). Sizes were chosen here;
    the
    organs' volumes are near those of the man of ICRP Publication 89 (2002): brain 1.45 kg, parotids 25 g each,
    submandibular glands 12.5 g each, eyes 7.5 g each. The skull is 6 mm thick. ``docs/phantoms.md`` compares all
    volumes.
    The targets do not overlap and stay 5 mm or more below the skin. Tissues: `engine.phantoms.tissues`, so plan on it
    with ``hu_table = "hu_tables/tissue_phantoms.csv"``.

    Structures (TG-263 names): ``BODY``, ``PTV_7000``, ``PTV_6300``, ``PTV_5600``, ``Brain``, ``Brainstem``,
    ``SpinalCord``,
    ``Parotid_L/R``, ``Glnd_Submand_L/R``, ``Eye_L/R``, ``Bone_Mandible``, ``Cavity_Oral``, ``Larynx``, ``Esophagus``.

    Parameters
    ----------
    voxel_mm
        Edge length of the cubic voxels.
    texture
        Whether tissue is uneven and the scan noisy (see `engine.phantoms.texture`).
    seed
        Of the texture.
    """
    grid = scan_grid((400.0, 240.0), *SCAN_MM_Z, voxel_mm, centre_y_mm=5.0)
    skull = Ellipsoid(BRAIN.centre_mm_xyz, _longer(BRAIN.semi_axis_mm_xyz, SKULL_MM))
    bones = [
        Part([_vertebral_column(7.0)], tissues.CRANIUM.hu),
        Part([_vertebral_column(4.0)], tissues.MUSCLE.hu),
        Part(_vertebrae(0.0), tissues.CRANIUM.hu),
        Part(_vertebrae(-2.0), tissues.SPONGIOSA.hu),
        Part([skull.solid], tissues.CRANIUM.hu),
        Part([_mandible(), *_pair(lambda sign: prism(2.5, 36.0, Oval(sign * 47.0, -6.0, 5.0, 14.0)))],
             tissues.MANDIBLE.hu, "Bone_Mandible"),
        Part(_pair(lambda sign: prism(12.0, 34.0, Oval(sign * 24.0, -66.0, 11.0, 12.0))), tissues.SPONGIOSA.hu),
    ]  # fmt: skip
    organs = [
        Part([BRAIN.solid], tissues.BRAIN.hu, "Brain"),
        Part([Tube(((-120.0, 0.0, 52.0, 9.5, 8.0), (0.0, 0.0, 38.0, 10.0, 8.5))).solid()], tissues.WATER.hu),
        Part([BRAINSTEM.solid()], tissues.BRAIN.hu, "Brainstem"),
        Part([CORD.solid()], tissues.BRAIN.hu, "SpinalCord"),
        *(Part([_side(PAROTID, sign).solid], -10.0, f"Parotid_{name}") for name, sign in _SIDES),
        *(Part([_side(SUBMANDIBULAR, sign).solid], 25.0, f"Glnd_Submand_{name}") for name, sign in _SIDES),
        *(Part([_side(EYE, sign).solid], tissues.WATER.hu + 10.0, f"Eye_{name}") for name, sign in _SIDES),
        Part([ORAL_CAVITY.solid()], tissues.MUSCLE.hu, "Cavity_Oral"),
        Part([LARYNX.solid()], tissues.MUSCLE.hu + 20.0, "Larynx"),
        Part(
            [Tube(((-120.0, 0.0, 16.0, 9.0, 7.0), (-78.0, 0.0, 8.0, 9.0, 6.0))).solid()],
            tissues.MUSCLE.hu,
            "Esophagus",
        ),
    ]
    airways = [
        Part([Tube(((-120.0, 0.0, -2.0, 9.0, 9.0), (-78.0, 0.0, -14.0, 9.0, 9.0), (-62.0, 0.0, -16.0, 5.0, 9.0),
                    (-48.0, 0.0, -8.0, 8.0, 8.0), (-36.0, 0.0, 2.0, 11.0, 5.0), (3.0, 0.0, 3.0, 11.0, 5.0))).solid()],
             AIR_HU),
        Part(_pair(lambda sign: Tube(((12.0, sign * 6.0, -54.0, 4.5, 25.0), (24.0, sign * 6.0, -61.0, 4.5, 19.0),
                                      (40.0, sign * 5.0, -75.0, 3.0, 8.0))).solid()), AIR_HU),
        Part(_pair(lambda sign: Ellipsoid((sign * 28.0, -66.0, 20.0), (8.0, 9.0, 11.0)).solid), AIR_HU),
    ]  # fmt: skip
    targets = [
        Part([with_section(PRIMARY.solid, _off_spine)], None, "PTV_7000", "TARGET"),
        Part([with_section(_nodes(-1.0), _off_primary)], None, "PTV_6300", "TARGET"),
        Part([_nodes(1.0)], None, "PTV_5600", "TARGET"),
    ]
    body = [
        Part([BODY.solid()], tissues.ADIPOSE.hu, "BODY", "EXTERNAL"),
        Part([BODY.solid(-5.0)], tissues.MUSCLE.hu),
        *_muscle_and_fat(),
    ]
    return build(
        "head-and-neck", grid, [*body, *targets, *bones, *organs, *airways], seed if texture else None
    )


_SIDES = (("L", 1.0), ("R", -1.0))


def _pair(solid_of: Callable[[float], Solid]) -> list[Solid]:
    """Return a solid on the left and its image on the right."""
    return [solid_of(sign) for _, sign in _SIDES]


def _side(ellipsoid: Ellipsoid, sign: float) -> Ellipsoid:
    """Return an ellipsoid, or its image on the right side."""
    x_mm, y_mm, z_mm = ellipsoid.centre_mm_xyz
    return Ellipsoid((sign * x_mm, y_mm, z_mm), ellipsoid.semi_axis_mm_xyz)


def _longer(semi_axis_mm_xyz: tuple[float, float, float], by_mm: float) -> tuple[float, float, float]:
    """Return longer semi-axes."""
    a_mm, b_mm, c_mm = semi_axis_mm_xyz
    return a_mm + by_mm, b_mm + by_mm, c_mm + by_mm


def _nodes(sign: float) -> Solid:
    """Return the region of the neck nodes on one side."""
    return Tube(tuple((z, sign * x, y, a, b) for z, x, y, a, b in _NODES)).solid()


def _off_primary(points: F64, z_mm: float) -> F64:
    """Dent the nodes where the primary target lies."""
    inside = PRIMARY.solid.bottom_mm < z_mm < PRIMARY.solid.top_mm
    return keep_out(points, PRIMARY.oval(z_mm)) if inside else points


def _off_spine(points: F64, z_mm: float) -> F64:
    """Dent the primary target where the vertebral bodies lie."""
    return keep_out(points, _vertebra(z_mm, 0.0))


def _vertebra(z_mm: float, grown_mm: float) -> Oval:
    """Return a vertebral body's cross-section: in front of the cord."""
    cord = CORD.oval(z_mm)
    return Oval(cord.x_mm, cord.y_mm - 18.0, 13.0 + grown_mm, 10.0 + grown_mm)


def _vertebrae(grown_mm: float) -> list[Solid]:
    """Return the vertebral bodies, discs left out."""
    found = []
    bottom_mm = SCAN_MM_Z[0]
    while bottom_mm < 0.0:
        top_mm = min(bottom_mm + _VERTEBRA_MM, 0.0)
        found.append(Solid(bottom_mm, top_mm, lambda z_mm: _vertebra(z_mm, grown_mm).polygon()))
        bottom_mm += _VERTEBRA_MM + _DISC_MM
    return found


def _vertebral_column(around_mm: float) -> Solid:
    """Return the arch round the canal."""
    return Solid(SCAN_MM_Z[0], 0.0, lambda z_mm: CORD.oval(z_mm, around_mm + 3.0).polygon())


def _mandible() -> Solid:
    """Return the body of the mandible: the front of a ring."""
    angle = np.linspace(-math.radians(105.0), math.radians(105.0), 81)
    direction = np.stack([np.sin(angle), -np.cos(angle)], axis=1)
    outer = direction * (_MANDIBLE.a_mm, _MANDIBLE.b_mm)
    inner = direction[::-1] * (_MANDIBLE.a_mm - 10.0, _MANDIBLE.b_mm - 10.0)
    points = np.concatenate([outer, inner]) + np.array([_MANDIBLE.x_mm, _MANDIBLE.y_mm])
    # On whole slices of 2.5 mm: see `Solid.planes`.
    return Solid(-25.0, 2.5, lambda _: points)


def _muscle_and_fat() -> list[Part]:
    """Return the fat between the muscles of the neck, the muscles, and the big vessels."""
    fat = Tube(
        ((-120.0, 0.0, 14.0, 70.0, 40.0), (-60.0, 0.0, 8.0, 50.0, 44.0), (-30.0, 0.0, 6.0, 52.0, 46.0))
    )
    muscle = (
        (-110.0, 46.0, 18.0, 11.0, 13.0),
        (-60.0, 44.0, 14.0, 9.0, 15.0),
        (-30.0, 48.0, 26.0, 8.0, 13.0),
    )
    vessel = ((-120.0, 24.0, 8.0, 6.0, 6.0), (-30.0, 30.0, 12.0, 6.0, 6.0), (0.0, 32.0, 14.0, 5.0, 5.0))

    def mirrored(rows: tuple[tuple[float, float, float, float, float], ...]) -> list[Solid]:
        return _pair(lambda sign: Tube(tuple((z, sign * x, y, a, b) for z, x, y, a, b in rows)).solid())

    back = Tube(((-120.0, 0.0, 60.0, 64.0, 30.0), (-30.0, 0.0, 48.0, 46.0, 22.0)))
    return [
        Part([fat.solid()], tissues.ADIPOSE.hu),
        Part([back.solid()], tissues.MUSCLE.hu),
        Part(mirrored(muscle), tissues.MUSCLE.hu),
        Part(mirrored(vessel), tissues.BLOOD.hu),
    ]
