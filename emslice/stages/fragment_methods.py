"""The ways to make fragments that a user may choose; all but ``rainfall`` depend on the blocks.

=============  ===================================================  ==========================
method         what it is                                           needs
=============  ===================================================  ==========================
``rainfall``   ``ops/fragments.py``: the same in every blocking     nothing else
``flood``      ``ops/flood.py``: the published seeds and flood      mahotas
``mutex``      ``ops/mutex.py``: mutex watershed of sections        bioimage-cpp
=============  ===================================================  ==========================

What each scores is in ``docs/results/postprocess.md``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi, within
from emslice.ops.block_fragments import LabelSection, fragments_of_sections
from emslice.ops.flood import check_flood, flood_section
from emslice.ops.fragments import RADIUS, Fragments, fragment_halo, make_fragments
from emslice.ops.mutex import check_mutex, mutex_section

INVARIANT = "rainfall"
"""The method that does not see the blocks."""

ALONE: dict[str, LabelSection] = {"flood": flood_section, "mutex": mutex_section}
"""Methods that label the sections of a block without a look beyond it."""

LIBRARIES = {"flood": "mahotas", "mutex": "bioimage-cpp"}
"""Whose version is part of the result."""

_CHECKS = {"flood": check_flood, "mutex": check_mutex}


def check_method(method: str, dimensions: int = 2) -> None:
    """Raise `ConfigError` unless a method is known, can do so, and what it needs is installed."""
    if method == INVARIANT:
        return
    if method not in ALONE:
        known = ", ".join([INVARIANT, *ALONE])
        raise ConfigError(f"fragments.method: unknown method {method!r}; known: {known}.")
    if dimensions != 2:
        raise ConfigError(
            f"fragments.dimensions: {dimensions} needs fragments.method {INVARIANT}; {method} "
            f"works section by section. Set one of the two back to its default."
        )
    _CHECKS[method]()


def halo_of(method: str, radius: int, dimensions: int = 2) -> tuple[int, int, int]:
    """Voxels z, y, x that a method reads beyond the faces of its block."""
    return fragment_halo(radius, dimensions) if method == INVARIANT else (0, 0, 0)


def fragments_by(
    method: str,
    affinity: NDArray[np.uint8],
    read: Roi | None = None,
    domain: Roi | None = None,
    radius: int = RADIUS,
    workers: int = 1,
    block: Roi | None = None,
    dimensions: int = 2,
) -> Fragments:
    """Fragments of a block by a method; the parameters are those of ``make_fragments``."""
    if method == INVARIANT:
        return make_fragments(affinity, read, domain, radius, workers, block, dimensions)
    check_method(method, dimensions)
    read = read or Roi((0, 0, 0), affinity.shape[1:])
    block = block or read
    codes = affinity[(slice(None), *within(block, read))]
    return fragments_of_sections(ALONE[method], codes, block, domain, workers)
