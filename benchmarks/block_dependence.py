"""What blocks do to the methods that see them: scores, and distance from one block's result.

Fragments are made block by block and joined in one array; what follows is exact, so it is
the result of a run in these blocks. Rainfall needs no such table: its result does not change.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

import emslice
from benchmarks.pipelines import THRESHOLD
from emslice.errors import ConfigError
from emslice.geometry.boxes import Roi, within
from emslice.ops.agglomerate import agglomerate
from emslice.ops.linkage import Linkage, integer_threshold
from emslice.ops.merge_tree import merge_tree
from emslice.ops.region_graph import extract_edges
from emslice.stages.fragment_methods import ALONE, check_method, fragments_by


def measure(
    codes: NDArray[np.uint8], truth: NDArray[Any], sides: tuple[int, ...] = (512, 256, 128)
) -> list[dict[str, Any]]:
    """Rows of the table: a method and the side of its blocks along y and x."""
    rows = []
    for method in ALONE:
        try:
            check_method(method)
        except ConfigError:
            continue
        whole = None
        for side in sides:
            segments = in_blocks(codes, method, side)
            whole = segments if whole is None else whole
            between = emslice.evaluate(segments, whole)
            scores = emslice.evaluate(segments, truth)
            rows.append(
                {"method": method, "side": side, "voi_from_one_block": between.voi}
                | scores.as_dict()
            )
    return rows


def in_blocks(codes: NDArray[np.uint8], method: str, side: int) -> NDArray[np.uint64]:
    """Segments at the default threshold, of fragments made in blocks of all sections."""
    depth, height, width = codes.shape[1:]
    domain = Roi((0, 0, 0), (depth, height, width))
    labels = np.empty((depth, height, width), np.uint64)
    for y, x in product(range(0, height, side), range(0, width, side)):
        block = Roi((0, y, x), (depth, min(side, height - y), min(side, width - x)))
        place = within(block, domain)
        made = fragments_by(method, codes[(slice(None), *place)], block, domain)
        labels[place] = made.ids[made.labels]
    ids, dense = np.unique(labels, return_inverse=True)
    if ids[0] != 0:
        ids, dense = np.concatenate([np.zeros(1, np.uint64), ids]), dense + 1
    numbers = np.asarray(dense, np.int32).reshape(labels.shape)
    lowest = integer_threshold(THRESHOLD)
    merged = agglomerate(extract_edges(codes, numbers), ids, lowest, Linkage())
    return merge_tree(merged, ids, lowest).cut(THRESHOLD).apply(labels)
