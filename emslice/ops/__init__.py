"""Kernels: arrays in, arrays out. Never here: files, volumes, Dask, configuration."""
