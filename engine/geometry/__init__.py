"""Frames, rays, masks and beamlets."""
