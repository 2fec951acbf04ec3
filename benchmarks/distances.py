"""The distance transform of ``ops/distance.py`` against those of other libraries."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emslice.ops.distance import capped_distance
from emslice.ops.fragments import RADIUS

Transform = Callable[[NDArray[np.bool_]], NDArray[Any]]


def ours(inside: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Squared, capped at the radius of the default configuration."""
    out = np.empty(inside.shape, np.uint16)
    capped_distance(inside, RADIUS, out)
    return out


def transforms() -> tuple[dict[str, Transform], dict[str, str]]:
    """(Transforms that are installed, why the others are left out)."""
    found: dict[str, Transform] = {"emslice": ours}
    missing: dict[str, str] = {}
    from scipy import ndimage

    found["scipy"] = ndimage.distance_transform_edt
    try:
        import edt

        found["edt"] = lambda inside: edt.edtsq(inside, black_border=False, parallel=1)
    except ImportError as error:
        missing["edt"] = str(error)
    try:
        from bioimage_cpp.distance import distance_transform

        found["bioimage-cpp"] = lambda inside: distance_transform(inside, number_of_threads=1)
    except ImportError as error:
        missing["bioimage-cpp"] = str(error)
    return found, missing


def measure(codes: NDArray[np.uint8], repeats: int = 3) -> dict[str, Any]:
    """Mvoxel/s of each transform, sections of real membranes, alternating."""
    inside = codes[1].astype(np.uint16) + codes[2] > 255
    found, missing = transforms()
    seconds: dict[str, list[float]] = {name: [] for name in found}
    differs = dict.fromkeys(found, 0)
    want = [ours(section) for section in inside]
    for _ in range(repeats):
        for name, transform in found.items():
            start = time.process_time()
            for section in inside:
                transform(section)
            seconds[name].append(time.process_time() - start)
    for name, transform in found.items():
        for section, mine in zip(inside, want, strict=True):
            squared = np.asarray(transform(section), np.float64)
            squared = squared if name in ("emslice", "edt") else np.square(squared)
            capped = np.minimum(squared.round(), RADIUS**2)
            differs[name] += int((capped != mine).sum())
    base = median(seconds["emslice"])
    return {
        "rows": {
            name: {
                "mvox_per_s": inside.size / median(taken) / 1e6,
                "seconds_by_ours": median(taken) / base,
                "voxels_that_differ": differs[name],
            }
            for name, taken in seconds.items()
        },
        "left_out": missing,
    }
