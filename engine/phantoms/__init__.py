"""Phantoms that are voxelised from shapes, so that everyone has the same cases without any file.

Boxes and the tests of AAPM Task Group 119 are of water and exact; the others are anatomies with tissues and a scanner's
noise, whose contours are just as exact. Coordinates are the patient's (LPS), and air is around.
"""

from collections.abc import Callable, Mapping

from engine.model.case import Case
from engine.phantoms.boxes import slabs, water_box
from engine.phantoms.head_and_neck import head_and_neck
from engine.phantoms.lung import lung_4d, lung_4d_series
from engine.phantoms.pelvis import pelvis
from engine.phantoms.tg119 import tg119_cshape, tg119_head_neck, tg119_multitarget, tg119_prostate

__all__ = [
    "PHANTOMS",
    "TISSUE_PHANTOMS",
    "head_and_neck",
    "lung_4d",
    "lung_4d_series",
    "pelvis",
    "slabs",
    "tg119_cshape",
    "tg119_head_neck",
    "tg119_multitarget",
    "tg119_prostate",
    "water_box",
]

PHANTOMS: Mapping[str, Callable[..., Case]] = {
    "tg119-cshape": tg119_cshape,
    "tg119-multitarget": tg119_multitarget,
    "tg119-prostate": tg119_prostate,
    "tg119-head-neck": tg119_head_neck,
    "water-box": water_box,
    "slabs": slabs,
    "lung-4d": lung_4d,
    "head-and-neck": head_and_neck,
    "pelvis": pelvis,
}
"""Builders by the names that the command line and study files use; each takes ``voxel_mm``."""
TISSUE_PHANTOMS = ("lung-4d", "head-and-neck", "pelvis")
"""Phantoms whose Hounsfield units are those of a scanner: the table ``phantom`` would make their bones too dense."""
