"""A mask volume over the affinities: where it is 0, a voxel has none, and belongs to nobody."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from emslice.geometry.boxes import Roi
from emslice.stages.tiles import StoredAffinities, TiledAffinities
from emslice.volumes import Volume, open_volume


class MaskedAffinities:
    """Codes of any box of a run, all three 0 where the mask is 0."""

    def __init__(self, affinities: TiledAffinities | StoredAffinities, mask_url: str) -> None:
        self._affinities, self._mask_url = affinities, mask_url

    @cached_property
    def _mask(self) -> Volume:
        return open_volume(self._mask_url)

    def read(self, box: Roi) -> NDArray[np.uint8]:
        """Codes, shape (3, Z, Y, X)."""
        codes = self._affinities.read(box)
        np.copyto(codes, 0, where=self._mask.read(box) == 0)
        return codes
