"""The bench top: forward doses of experiments (`engine.spec.experiment`), for comparisons with other programs.

`geometry` builds the phantom, `beam` places source and field, `scoring` averages dose over free voxels, and one module
an engine says what that engine cannot do and computes the rest. May import everything in engine.
"""
