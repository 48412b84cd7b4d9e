"""Monte Carlo transport of photons, electrons and positrons through a grid of voxels."""
