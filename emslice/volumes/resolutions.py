"""Whether two volumes can be of the same voxels, by what each says of their size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from emslice.errors import VolumeError


def check_resolution(
    what: str, mine: Sequence[float] | None, other: str, theirs: Sequence[float] | None
) -> None:
    """Raise unless both have voxels of one size, in nm, z, y, x; a volume that states none passes.

    Raises
    ------
    VolumeError
        ``what`` and ``other``, with both sizes.
    """
    if mine is None or theirs is None or np.allclose(mine, theirs, rtol=1e-6):
        return
    have, want = (" x ".join(f"{n:g}" for n in size) for size in (mine, theirs))
    raise VolumeError(
        f"{what} has voxels of {have} nm, {other} of {want} nm. Resample one of them, or correct "
        f"what it states."
    )
