"""Processes and memory: Dask clusters, bounded submission, tiles resident on workers."""
