"""The published watershed: seeds on the maxima of the distance transform, then a flood.

Per section, as CAD and EM-SliceCrafter make their fragments (``utils/fragment.py``, mahotas):

    inside(p) = A_y(p) + A_x(p) > 255                                    (boundary below 1/2)
    d2(p)     = squared distance to the nearest voxel that is not inside (no cap)
    seeds     = 4-connected components of the regional maxima of d2
    flood     = seeded watershed, 4-connected, on the boundary 510 - A_y - A_x

Plateaus and equal heights are settled by mahotas' queue, and the distance sees as far as the
section goes: the result depends on the section given, so on the block. Needs mahotas, which the
authors use; another library's queue gives other fragments (docs/results/postprocess.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError


def flood_section(codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Labels of a section by seeds and flood, 1 and up; every voxel gets one.

    Parameters
    ----------
    codes : uint8, shape (3, Y, X)
        Affinities along z, y, x; z is not looked at.
    """
    check_flood()
    import mahotas

    total = codes[1].astype(np.uint16) + codes[2]
    inside = total > 255
    if inside.all():  # no voxel to measure from: one plateau
        return np.ones(inside.shape, np.int32)
    seeds, _ = mahotas.label(mahotas.regmax(mahotas.distance(inside)))
    flooded: NDArray[np.int32] = mahotas.cwatershed(510 - total, seeds).astype(np.int32)
    return flooded


def check_flood() -> None:
    """Raise `ConfigError` unless mahotas is installed."""
    try:
        import mahotas  # noqa: F401
    except ImportError:
        raise ConfigError(
            "fragments.method: flood needs mahotas. Install it: pip install emslice[compare]"
        ) from None
