"""A male pelvis with a prostate target."""

from collections.abc import Callable

from engine.model.arrays import F64
from engine.model.case import Case
from engine.phantoms import tissues
from engine.phantoms.anatomy import Part, build, prism, with_section
from engine.phantoms.shapes import AIR_HU, Ellipsoid, Oval, Solid, Tube, keep_out, scan_grid

SCAN_MM_Z = (-120.0, 130.0)
BODY = Tube(
    ((-120.0, 0.0, 4.0, 176.0, 92.0), (-60.0, 0.0, 2.0, 186.0, 108.0), (20.0, 0.0, 0.0, 188.0, 112.0),
     (130.0, 0.0, -4.0, 172.0, 108.0)), power=2.4,
)  # fmt: skip
FAT_MM = 22.0
PROSTATE = Ellipsoid((0.0, 1.0, 0.0), (24.0, 18.0, 22.0))
PTV_MARGIN_MM = 7.0
SEMINAL_VESICLE = Ellipsoid((16.0, 14.0, 27.0), (16.0, 6.5, 11.0))
BLADDER = Ellipsoid((0.0, -24.0, 53.0), (42.0, 34.0, 33.0))
RECTUM = Tube(((-30.0, 0.0, 31.0, 13.0, 11.0), (0.0, 0.0, 37.0, 17.0, 14.0), (40.0, 0.0, 46.0, 18.0, 17.0),
               (80.0, 0.0, 56.0, 16.0, 14.0)))  # fmt: skip
ANAL_CANAL = Tube(((-62.0, 0.0, 36.0, 11.0, 11.0), (-30.0, 0.0, 31.0, 12.5, 10.5)))
FEMORAL_HEAD = Ellipsoid((88.0, 0.0, 25.0), (24.0, 24.0, 24.0))
PENILE_BULB = Ellipsoid((0.0, 12.0, -42.0), (11.0, 9.0, 12.0))
BOWEL = Tube(((88.0, 0.0, -34.0, 100.0, 48.0), (130.0, 0.0, -32.0, 108.0, 54.0)), power=2.6)


def pelvis(voxel_mm: float = 2.5, texture: bool = True, seed: int = 1) -> Case:
    """Return a male pelvis with prostate and organs at risk.

    An anatomy out of ellipsoids and tapered tubes, from the thighs to the iliac wings (25 cm). Sizes were chosen
    here: a
    prostate of 40 cm3, as patients have (the 17 g of ICRP Publication 89 (2002) are a healthy young man's), a
    bladder that is
    comfortably full, a femoral head of 4.8 cm diameter. ``docs/phantoms.md`` compares all volumes. ``PTV`` is the
    ellipsoid
    of the prostate with semi-axes 7 mm longer. The rectum holds gas above the prostate. Tissues:
    `engine.phantoms.tissues`, so plan on it with ``hu_table = "hu_tables/tissue_phantoms.csv"``.

    Structures (TG-263 names): ``BODY``, ``PTV``, ``Prostate``, ``SeminalVes``, ``Rectum``, ``Canal_Anal``, ``Bladder``,
    ``Femur_Head_L/R``, ``PenileBulb``, ``Bag_Bowel``, ``Sacrum``.

    Parameters
    ----------
    voxel_mm
        Edge length of the cubic voxels.
    texture
        Whether tissue is uneven and the scan noisy (see `engine.phantoms.texture`).
    seed
        Of the texture.
    """
    grid = scan_grid((400.0, 250.0), *SCAN_MM_Z, voxel_mm)
    a_mm, b_mm, c_mm = PROSTATE.semi_axis_mm_xyz
    ptv = Ellipsoid(
        PROSTATE.centre_mm_xyz, (a_mm + PTV_MARGIN_MM, b_mm + PTV_MARGIN_MM, c_mm + PTV_MARGIN_MM)
    )
    organs = [
        Part([with_section(BLADDER.solid, _off_prostate)], tissues.URINE.hu, "Bladder"),
        Part([RECTUM.solid()], tissues.MUSCLE.hu, "Rectum"),
        Part([Ellipsoid((0.0, 46.0, 44.0), (11.0, 10.0, 20.0)).solid], AIR_HU + 50.0),
        Part([ANAL_CANAL.solid()], tissues.MUSCLE.hu, "Canal_Anal"),
        Part(_pair(lambda sign: _side(SEMINAL_VESICLE, sign).solid), 25.0, "SeminalVes"),
        Part([PROSTATE.solid], tissues.MUSCLE.hu, "Prostate"),
        Part([PENILE_BULB.solid], tissues.BLOOD.hu, "PenileBulb"),
    ]
    targets = [Part([ptv.solid], None, "PTV", "TARGET")]
    parts = [*_body(), *targets, *_bowel(), *_bones(), *organs]
    return build("pelvis", grid, parts, seed if texture else None)


def _pair(solid_of: Callable[[float], Solid]) -> list[Solid]:
    """Return a solid on the left and its image on the right."""
    return [solid_of(1.0), solid_of(-1.0)]


def _side(ellipsoid: Ellipsoid, sign: float) -> Ellipsoid:
    """Return an ellipsoid, or its image on the right side."""
    x_mm, y_mm, z_mm = ellipsoid.centre_mm_xyz
    return Ellipsoid((sign * x_mm, y_mm, z_mm), ellipsoid.semi_axis_mm_xyz)


def _off_prostate(points: F64, z_mm: float) -> F64:
    """Dent the bladder where the prostate lies."""
    return keep_out(points, PROSTATE.oval(z_mm)) if z_mm < PROSTATE.solid.top_mm else points


def _body() -> list[Part]:
    """Return skin and fat, the muscles of wall, buttocks and thighs, and the fat between the organs."""
    cavity = Tube(((-30.0, 0.0, 8.0, 34.0, 34.0), (10.0, 0.0, 6.0, 46.0, 52.0), (60.0, 0.0, 4.0, 62.0, 68.0),
                   (130.0, 0.0, -20.0, 118.0, 66.0)))  # fmt: skip

    def obturator(sign: float) -> Solid:
        return Tube(((-30.0, sign * 32.0, 4.0, 8.0, 22.0), (35.0, sign * 52.0, 10.0, 8.0, 36.0))).solid()

    return [
        Part([BODY.solid()], tissues.ADIPOSE.hu, "BODY", "EXTERNAL"),
        Part([BODY.solid(-FAT_MM)], tissues.MUSCLE.hu),
        Part([prism(-120.0, -35.0, Oval(0.0, 30.0, 26.0, 50.0))], tissues.ADIPOSE.hu),
        Part([cavity.solid()], tissues.ADIPOSE.hu),
        Part(_pair(obturator), tissues.MUSCLE.hu),
    ]  # fmt: skip


def _bowel() -> list[Part]:
    """Return the bowel bag with loops in fat, some of them filled with gas."""
    loops = [(x_mm, y_mm) for y_mm in (-62.0, -34.0, -6.0) for x_mm in (-72.0, -36.0, 0.0, 36.0, 72.0)]
    gas = (loops[1], loops[3], loops[7])
    return [
        Part([BOWEL.solid()], tissues.ADIPOSE.hu, "Bag_Bowel"),
        Part([prism(90.0, 130.0, Oval(x_mm, y_mm, 15.0, 12.0)) for x_mm, y_mm in loops], 30.0),
        Part([prism(96.0, 122.0, Oval(x_mm, y_mm - 2.0, 11.0, 8.0)) for x_mm, y_mm in gas], AIR_HU + 50.0),
    ]


def _bones() -> list[Part]:
    """Return pelvis, sacrum and femora: a shell of dense bone round spongiosa."""
    head_x_mm, head_y_mm, head_z_mm = FEMORAL_HEAD.centre_mm_xyz

    def acetabulum(sign: float, less_mm: float) -> Solid:
        return Ellipsoid(
            (sign * 76.0, 2.0, 28.0), (31.0 - less_mm, 31.0 - less_mm, 31.0 - less_mm)
        ).solid  # fmt: skip

    def ilium(sign: float, less_mm: float) -> Solid:
        rows = ((54.0, 84.0, 8.0, 14.0, 26.0), (90.0, 92.0, 18.0, 9.0, 44.0), (130.0, 104.0, 16.0, 8.0, 58.0))
        tube = Tube(tuple((z, sign * x, y, a - less_mm, b - less_mm) for z, x, y, a, b in rows))

        def turned(z_mm: float) -> F64:
            oval = tube.oval(z_mm)
            return Oval(oval.x_mm, oval.y_mm, oval.a_mm, oval.b_mm, 2.0, 24.0 * sign).polygon()

        return Solid(tube.bottom_mm, tube.top_mm, turned)

    def pubis(sign: float, less_mm: float) -> Solid:
        rows = (
            (-22.0, 24.0, -46.0, 18.0, 10.0),
            (6.0, 30.0, -48.0, 27.0, 10.0),
            (16.0, 46.0, -40.0, 20.0, 9.0),
        )
        return Tube(tuple((z, sign * x, y, a - less_mm, b - less_mm) for z, x, y, a, b in rows)).solid()

    def ischium(sign: float, less_mm: float) -> Solid:
        rows = (
            (-52.0, 56.0, 40.0, 14.0, 13.0),
            (-20.0, 62.0, 38.0, 13.0, 15.0),
            (6.0, 70.0, 30.0, 12.0, 16.0),
        )
        return Tube(tuple((z, sign * x, y, a - less_mm, b - less_mm) for z, x, y, a, b in rows)).solid()

    def shaft(sign: float, less_mm: float) -> Solid:
        rows = ((-120.0, 108.0, 2.0, 15.0, 15.0), (-40.0, 114.0, 2.0, 17.0, 17.0), (-10.0, 120.0, 4.0, 21.0, 22.0),
                (16.0, 124.0, 6.0, 15.0, 18.0))  # fmt: skip
        return Tube(tuple((z, sign * x, y, a - less_mm, b - less_mm) for z, x, y, a, b in rows)).solid()

    def neck(sign: float, less_mm: float) -> Solid:
        rows = ((-4.0, 112.0, 3.0, 16.0, 14.0), (22.0, 100.0, 1.0, 20.0, 15.0))
        return Tube(tuple((z, sign * x, y, a - less_mm, b - less_mm) for z, x, y, a, b in rows)).solid()

    joint = Ellipsoid((head_x_mm, head_y_mm, head_z_mm), (27.0, 27.0, 27.0))
    marrow = Ellipsoid((head_x_mm, head_y_mm, head_z_mm), (22.0, 22.0, 22.0))
    rows = ((4.0, 0.0, 64.0, 9.0, 5.0), (30.0, 0.0, 76.0, 18.0, 9.0), (80.0, 0.0, 80.0, 42.0, 15.0),
            (130.0, 0.0, 60.0, 56.0, 22.0))  # fmt: skip
    sacrum = Tube(rows)
    dense, spongy = tissues.CRANIUM.hu, tissues.SPONGIOSA.hu
    found = []
    for bone in (acetabulum, ilium, ischium, pubis):
        found.append(Part(_pair(lambda sign, bone=bone: bone(sign, 0.0)), dense))  # type: ignore[misc]
        found.append(Part(_pair(lambda sign, bone=bone: bone(sign, 2.5)), spongy))  # type: ignore[misc]
    found += [
        Part([sacrum.solid()], dense, "Sacrum"),
        Part([sacrum.solid(-2.5)], spongy),
        Part(_pair(lambda sign: _side(joint, sign).solid), tissues.MUSCLE.hu),
        Part(_pair(lambda sign: shaft(sign, 0.0)), tissues.CORTICAL_BONE.hu),
        Part(_pair(lambda sign: neck(sign, 0.0)), dense),
        Part(_pair(lambda sign: shaft(sign, 5.0)), tissues.SPONGIOSA.hu - 150.0),
        Part(_pair(lambda sign: neck(sign, 2.5)), spongy),
    ]
    found += [
        Part([_side(FEMORAL_HEAD, sign).solid], dense, f"Femur_Head_{name}")
        for name, sign in (("L", 1.0), ("R", -1.0))
    ]
    found.append(Part(_pair(lambda sign: _side(marrow, sign).solid), spongy))
    return found
