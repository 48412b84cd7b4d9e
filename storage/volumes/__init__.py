"""Cases from files of voxels: npz, NRRD, NIfTI and MetaImage."""
