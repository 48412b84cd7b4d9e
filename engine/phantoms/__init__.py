"""Phantoms that are voxelised from shapes, so that everyone has the same cases without any file."""

from collections.abc import Callable, Mapping

from engine.model.case import Case
from engine.phantoms.boxes import slabs, water_box
from engine.phantoms.tg119 import tg119_cshape, tg119_head_neck, tg119_multitarget, tg119_prostate

__all__ = [
    "PHANTOMS",
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
}
"""Builders by the names that the command line and study files use; each takes ``voxel_mm``."""
