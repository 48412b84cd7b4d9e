"""Bytes at rest: zarr objects found by their digest, and DICOM. Knows engine, no scheduler."""
