"""Numbers only: geometry, dose, influence matrices, optimisation and evaluation.

The way of the data, one sub-package a stage::

    geometry    place beams and beamlets, trace rays, turn contours into masks
    scenarios   what may go wrong: setup shifts, density scaling
    dose        a dose engine fills influence tiles
    influence   the tiles and their two products
    optimise    objectives, robust forms, solvers
    evaluate    DVH, indices, goals, gamma

``model`` holds the data types they share, ``physics`` the tables, ``spec`` what a person writes. Nothing here
knows Prefect, Dask, zarr or DICOM.
"""
