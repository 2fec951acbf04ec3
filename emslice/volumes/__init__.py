"""Chunked arrays on storage: opened, made, read, written, imported, digested.

Everything outside sees z, y, x in domain voxels, whatever the format. Never here: Dask, blocks,
networks, or what the voxels mean.
"""

from emslice.volumes.creating import create_volume
from emslice.volumes.formats import open_volume
from emslice.volumes.places import local_path
from emslice.volumes.volume import ArrayVolume, Volume

__all__ = ["ArrayVolume", "Volume", "create_volume", "local_path", "open_volume"]
