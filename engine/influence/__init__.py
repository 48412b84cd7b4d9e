"""Influence tiles: dense mini-blocks of dose per beamlet, and their products."""
