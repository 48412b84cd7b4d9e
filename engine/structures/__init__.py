"""Structures made from others: margins, Booleans, rings, what remains; and contours from voxels."""
